"""
A run of N steps against N/2 steps, a kill, and N/2 steps more: the same weights, bit for bit.

The data are made on the spot; the killed run is a process that gets SIGKILL in the middle of its
second half, so what it had done since its last save is lost and done again.

    PYTHONPATH=. python benchmarks/resume.py              # about a minute on two CPU cores
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time

import torch
import yaml

TEST = Path(__file__).resolve().parents[1] / 'test'
sys.path.insert(0, str(TEST))
training_data = importlib.import_module('training_data')
STATE = 'training_state.ckpt'


def command(*arguments: str) -> subprocess.Popen[bytes]:
    """Start `train` as a process of its own."""
    environment = os.environ | {'PYTHONPATH': str(TEST.parent), 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen([sys.executable, '-m', 'ros2_lstm_policy.training.cli', *arguments],
                            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def state(run: Path) -> dict:
    """Read what a run saved."""
    return torch.load(run / STATE, weights_only=True, map_location='cpu')


def kill_after(run: Path, steps: int, process: subprocess.Popen[bytes]) -> int:
    """Kill a run once it has saved `steps` steps; return how many it had saved."""
    while process.poll() is None:
        if (run / STATE).exists() and state(run)['global_step'] >= steps:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    return int(state(run)['global_step'])


def main() -> int:
    """Print the comparison; return 0 where the two are equal."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--smoke', action='store_true', help='8 steps')
    options = parser.parse_args()
    steps = 8 if options.smoke else options.steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training_data.write_store(folder / 'store', episodes=6, steps=8)
        settings = training_data.values(folder / 'one', folder / 'store', steps)
        settings['validation']['every_steps'] = steps
        settings['engine']['save_every_steps'] = 2
        (folder / 'train.yaml').write_text(yaml.safe_dump(settings))
        start = ('--config', str(folder / 'train.yaml'), 'losses.latent={}',
                 'losses.fwd_loss_ratio=0.1')
        command(*start).wait()
        killed = kill_after(folder / 'two', steps // 2, command(*start,
                                                                f'output={folder / "two"}'))
        command('--resume', str(folder / 'two')).wait()
        one, two = state(folder / 'one'), state(folder / 'two')
    apart = max(float((value - two['state_dict'][key]).abs().max())
                for key, value in one['state_dict'].items())
    print('| run | steps | largest difference of a weight |\n|---|---|---|')
    print(f'| unbroken | {one["global_step"]} | 0 |')
    print(f'| killed after the save of step {killed}, resumed | {two["global_step"]} | {apart} |')
    return 0 if apart == 0 and killed < steps else 1


if __name__ == '__main__':
    sys.exit(main())

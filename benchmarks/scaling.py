"""
The training command on one device and on several: windows a second, and the same losses.

Both runs use `train` itself with the same windows on each device, on a frame store of random
images that this script writes, with the frames on the device. The rate is taken from the run's own
curves, after a warm-up.

    PYTHONPATH=. python benchmarks/scaling.py --devices 2                  # on a machine with GPUs
    PYTHONPATH=. python benchmarks/scaling.py --devices 2 --accelerator cpu --smoke
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
import subprocess
import sys
import tempfile

import numpy as np
from ros2_lstm_policy import config
from ros2_lstm_policy.data.store import StoreWriter
from ros2_lstm_policy.training.config import TrainConfig
from ros2_lstm_policy.types import Episode

CONFIG = Path(__file__).resolve().parents[1] / 'config' / 'train_compact.yaml'
EPISODES, STEPS = 64, 60  # of the store
INSTRUCTION = 'pick up the soup and put it in the basket'


def write_store(path: Path, settings: TrainConfig) -> None:
    """Write episodes of random images and actions."""
    rng = np.random.default_rng(0)
    cameras = settings.manifest.cameras
    writer = StoreWriter(path, settings.manifest.manifest())
    for number in range(EPISODES):
        images = {c.name: rng.integers(0, 256, (STEPS, c.height, c.width, 3), np.uint8)
                  for c in cameras}
        arm = rng.uniform(-0.05, 0.05, (STEPS, 6)).astype(np.float32)
        gripper = rng.integers(0, 2, STEPS).astype(np.float32)
        writer.append(Episode(
            f'random {number}', INSTRUCTION, (np.arange(STEPS) + 1) * 100_000_000, images,
            {'arm': arm, 'gripper': gripper[:, None]}))
    writer.close()


def train(output: Path, store: Path, devices: int, options: argparse.Namespace) -> list[dict]:
    """Run the command, and return the rows of its curves."""
    overrides = [f'output={output}', f'data.store={store}', 'data.sources=[]',
                 'data.loader.resident=device', f'data.loader.batch_size={options.batch_size}',
                 'data.loader.workers=4', f'engine.devices={devices}',
                 f'engine.accelerator={options.accelerator}',
                 f'schedule.max_steps={options.steps}',
                 f'engine.log_every_steps={max(1, options.steps // 10)}',
                 'validation.every_steps=1000000', *options.overrides]
    command = [sys.executable, '-m', 'ros2_lstm_policy.training.cli', '--config', str(CONFIG),
               *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(output / 'logs' / 'part_0' / 'metrics.csv') as file:
        return [row for row in csv.DictReader(file) if row.get('loss')]


def rate(rows: list[dict], windows: int) -> float:
    """Return windows a second between the third row, when all is warm, and the last."""
    begin, end = rows[2], rows[-1]
    steps = int(end['step']) - int(begin['step'])
    return windows * steps / (float(end['elapsed_s']) - float(begin['elapsed_s']))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--devices', type=int, default=2)
    parser.add_argument('--accelerator', choices=('gpu', 'cpu'), default='gpu')
    parser.add_argument('--batch-size', type=int, default=64, help='windows on each device')
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--smoke', action='store_true', help='a few small steps')
    parser.add_argument('overrides', nargs='*', metavar='key=value', help='for `train`')
    options = config.parse_arguments(parser, None, 'overrides')
    if options.smoke:
        options.batch_size, options.steps = 2, 10
    settings = config.load(TrainConfig, CONFIG)
    print('| devices | windows a step | windows/s | ratio | last loss |\n|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as directory:
        store = Path(directory) / 'store'
        write_store(store, settings)
        first = 0.0
        for devices in sorted({1, options.devices}):
            rows = train(Path(directory) / f'run_{devices}', store, devices, options)
            windows = devices * options.batch_size
            found = rate(rows, windows)
            first = first or found
            print(f'| {devices} | {windows} | {found:.1f} | {found / first:.2f} | '
                  f'{float(rows[-1]["loss"]):.4f} |', flush=True)


if __name__ == '__main__':
    main()

"""
LeRobot's ACT and Diffusion Policy beside this package's policy: trained, evaluated, timed.

The same demonstrations, the same time on one device, the same episodes and the same test of
success. docs/peers.md says what to install, what was chosen, and why.

    python benchmarks/peers.py train --policy act_lite --store STORE --seconds 300 --output DIR
    python benchmarks/peers.py evaluate --policy-dir DIR --benchmark b --processes 16 --output OUT
    python benchmarks/peers.py speed
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import sys

from lerobot_peers import closed_loop, policies, speed, training
from lerobot_peers.closed_loop import PeerEvaluation
from lerobot_peers.training import TrainSettings
from ros2_lstm_policy.sim import benchmarks
import torch

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the command line."""
    options = _parser().parse_args()
    try:
        options.run(options)
    except ValueError as error:
        print(f'peers {options.command}: {error}', file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    print(json.dumps(training.train(TrainSettings(
        options.policy, options.store, options.output, options.ours, options.seconds,
        options.steps, options.batch_size, options.device)), indent=1))


def _evaluate(options: argparse.Namespace) -> None:
    own = benchmarks.horizon(options.benchmark)
    settings = PeerEvaluation(
        options.policy_dir, options.execute, options.device, options.benchmark, options.every,
        own if options.horizon is None else options.horizon, (256, 256), options.processes)
    print(closed_loop.evaluate(settings, options.output))


def _speed(options: argparse.Namespace) -> None:
    for threads in options.threads:
        of = speed.contenders(options.checkpoint, options.policies, threads)
        print(f'\n{threads} thread(s), median of {options.rounds} rounds\n')
        print(speed.table(speed.measure(of, threads, options.rounds)), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    _train_options(commands.add_parser('train', help='train a peer for some seconds'))
    _evaluate_options(commands.add_parser(
        'evaluate', help='run a benchmark; interrupted, the same command goes on'))
    _speed_options(commands.add_parser('speed', help='decisions a second on this CPU'))
    return parser


def _train_options(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_train)
    command.add_argument('--policy', choices=policies.NAMES, required=True)
    command.add_argument('--store', type=Path, required=True, help='frame store')
    command.add_argument('--output', type=Path, required=True)
    command.add_argument('--seconds', type=float, default=300.0, help='of training')
    command.add_argument('--steps', type=int, help='end after so many steps, if sooner')
    command.add_argument('--batch-size', type=int, default=64)
    command.add_argument('--device', default=_device())
    command.add_argument('--ours', type=Path, default=ROOT / 'config' / 'train_libero.yaml',
                         help='our own run: held-out episodes, augmentation, seed')


def _evaluate_options(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_evaluate)
    command.add_argument('--policy-dir', type=Path, required=True, help='what train wrote')
    command.add_argument('--output', type=Path, required=True)
    command.add_argument('--benchmark', default='b',
                         help='a, b, c, validation-a, -b, -c, or a LIBERO suite')
    command.add_argument('--execute', choices=('chunk', 'ensemble'), default='chunk',
                         help="carry out whole chunks, or (ACT) average them: the paper's way")
    command.add_argument('--every', type=int, default=1, help='run each how-many-th episode')
    command.add_argument('--horizon', type=int, help="the benchmark's own where not given")
    command.add_argument('--processes', type=int, default=2)
    command.add_argument('--device', default=_device())


def _speed_options(command: argparse.ArgumentParser) -> None:
    command.set_defaults(run=_speed)
    command.add_argument('--checkpoint', type=Path,
                         default=ROOT / 'checkpoints' / 'compact_libero', help='ours')
    command.add_argument('--policies', nargs='+', choices=policies.NAMES, default=policies.NAMES)
    command.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    command.add_argument('--rounds', type=int, default=20)


def _device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


if __name__ == '__main__':
    sys.exit(main())

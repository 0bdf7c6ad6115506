"""Command `train`: a policy from recordings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 0 done, 2 bad input, 130 interrupted."""
    parser = argparse.ArgumentParser(prog='train', description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument('--config', type=Path, help='YAML of a run, see docs/training.md')
    chosen.add_argument('--resume', type=Path, metavar='RUN', help='go on with that run')
    parser.add_argument('--dry-run', action='store_true',
                        help='show sizes, memory and the first batch; train nothing')
    parser.add_argument('overrides', nargs='*', metavar='key.subkey=value')
    options = parser.parse_args(arguments)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    from ros2_lstm_policy import config
    from ros2_lstm_policy.training import run
    from ros2_lstm_policy.training.config import TrainConfig
    from ros2_lstm_policy.training.keeping import Interrupted, NotSaved
    from ros2_lstm_policy.training.module import LossIsNotFinite
    path = options.config or run.used_config(options.resume)
    try:
        chosen = config.load(TrainConfig, path, options.overrides)
        run.fit(chosen, resume=options.resume is not None)
    except Interrupted as stop:
        print(f'train: {stop}; go on with: train --resume {chosen.output}', file=sys.stderr)
        return 130
    except (LossIsNotFinite, NotSaved, ValueError) as error:
        print(f'train: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())

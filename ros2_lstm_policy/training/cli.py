"""Command `train`: a policy from recordings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
from typing import TYPE_CHECKING

from ros2_lstm_policy import config, config_help

if TYPE_CHECKING:
    from ros2_lstm_policy.training.config import TrainConfig

DONE, BAD_INPUT, FAILED, INTERRUPTED = 0, 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 done, 1 failed on the way, 2 bad input, 130 interrupted."""
    parser = argparse.ArgumentParser(prog='train', description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument('--config', type=Path, help='YAML of a run, see docs/training.md')
    chosen.add_argument('--resume', type=Path, metavar='RUN', help='go on with the run there')
    parser.add_argument('--dry-run', action='store_true',
                        help='show sizes, memory and the first batch; train nothing')
    parser.add_argument('--keys', action=config_help.ShowKeys,
                        module='ros2_lstm_policy.training.config', name='TrainConfig')
    parser.add_argument('overrides', nargs='*', metavar='key.subkey=value',
                        help='changes to the configuration, such as optimiser.lr=1e-4; --keys '
                             'lists them all')
    return _train(config.parse_arguments(parser, arguments, 'overrides'))


def _train(options: argparse.Namespace) -> int:
    import torch

    from ros2_lstm_policy.model.backbones.compact.packaged import WeightsError
    from ros2_lstm_policy.training import run
    from ros2_lstm_policy.training.callbacks import Interrupted, NotSaved
    from ros2_lstm_policy.training.failures import explain
    from ros2_lstm_policy.training.module import LossIsNotFinite
    try:
        chosen = _configuration(options)
        if options.dry_run:
            run.preview(chosen)
        else:
            run.fit(chosen, resume=options.resume is not None)
            print(run.what_is_next(chosen))
    except (ValueError, WeightsError) as error:
        return _fail(str(error), BAD_INPUT)
    except Interrupted as stop:
        return _fail(f'{stop}; {run.what_is_left(chosen)}', INTERRUPTED)
    except KeyboardInterrupt:
        return _fail('interrupted while preparing; nothing was trained', INTERRUPTED)
    except (LossIsNotFinite, NotSaved) as error:
        return _fail(f'{error}\n{run.what_is_left(chosen)}', FAILED)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        why = explain(error)
        if why is None:
            raise
        return _fail(f'{why}\n{run.what_is_left(chosen)}', FAILED)
    return DONE


def _configuration(options: argparse.Namespace) -> TrainConfig:
    from ros2_lstm_policy.training import run
    from ros2_lstm_policy.training.config import TrainConfig
    if options.resume is None:
        return config.load(TrainConfig, options.config, options.overrides)
    path = run.used_config(options.resume)
    return run.resumed(config.load(TrainConfig, path),
                       config.load(TrainConfig, path, options.overrides), options.resume)


def _fail(message: str, status: int) -> int:
    print(f'train: {message}', file=sys.stderr)
    return status


if __name__ == '__main__':
    sys.exit(main())

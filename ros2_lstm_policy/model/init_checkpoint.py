"""Command `init_checkpoint`: make an untrained checkpoint from a policy configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from ros2_lstm_policy import config, config_help


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog='init_checkpoint', description=__doc__)
    parser.add_argument('--config', type=Path, required=True, help='YAML with policy and manifest')
    parser.add_argument('--out', type=Path, required=True, help='checkpoint directory to make')
    parser.add_argument('--seed', type=int, default=0, help='of the random weights')
    parser.add_argument('--keys', action=config_help.ShowKeys,
                        module='ros2_lstm_policy.model.untrained', name='InitConfig')
    parser.add_argument('overrides', nargs='*', metavar='key.subkey=value',
                        help='changes to the configuration; --keys lists them all')
    return _run(config.parse_arguments(parser, arguments, 'overrides'))


def _run(options: argparse.Namespace) -> int:
    from ros2_lstm_policy.model import checkpoint, untrained
    try:
        chosen = config.load(untrained.InitConfig, options.config, options.overrides)
        untrained.save(options.out, chosen, options.seed, options.config.name)
    except (ValueError, RuntimeError, OSError) as error:
        print(f'init_checkpoint: {error}', file=sys.stderr)
        return 2
    print(f'{options.out}: untrained policy, {checkpoint.fingerprint(options.out)[:12]}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

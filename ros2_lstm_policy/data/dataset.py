"""Command `dataset`: look at recordings, find broken ones, compute statistics, convert."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import re
import sys

from ros2_lstm_policy.config import ConfigError, parse_arguments

OK, PROBLEMS, NO_DATASET, INTERRUPTED = 0, 1, 2, 130
_CAMERAS = ('static', 'hand')
_READING = """\
key=value says how to read the path where its files do not, for example
  kind=lerobot  bag.arm=velocity  bag.gripper_closed=-1  bag.instruction='open the drawer'
  'bag.topics={cameras: {static: /camera/color/image_raw}, arm_delta: /servo/delta_twist_cmds}'
  'lerobot={cameras: {static: observation.image}, gripper_closed: 1, gripper_open: 0}'
Every key: docs/recordings.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 well, 1 broken episodes, 2 no dataset or no room, 130 Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parse_arguments(_parser(), _joined(words), 'reading')
    from ros2_lstm_policy.data import commands
    from ros2_lstm_policy.data.problems import RecordingError
    from ros2_lstm_policy.process_pool import MemberLost
    try:
        return getattr(commands, options.command)(options)
    except BrokenPipeError:
        return OK
    except KeyboardInterrupt:
        print(f'dataset {options.command}: interrupted', file=sys.stderr)
        return INTERRUPTED
    except (ConfigError, MemberLost, RecordingError, OSError, ValueError) as error:
        print(f'dataset {options.command}: {error}', file=sys.stderr)
        return NO_DATASET


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='dataset', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, text in (
            ('inspect', 'table and picture of episodes, rates, lengths, actions, instructions'),
            ('stats', 'normalisation statistics of the actions, as YAML for a manifest'),
            ('convert', 'any source to LeRobot v3 with video, or to rosbag2'),
            ('validate', 'find broken episodes; exit status 1 where there are some')):
        command = commands.add_parser(
            name, help=text, description=text, epilog=_READING,
            formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_argument('path', type=Path, help='bag, folder of bags, or another dataset')
        if name == 'convert':
            command.add_argument('output', type=Path, help='folder to write; must not exist')
        command.add_argument('reading', nargs='*', metavar='key=value', help='how to read it')
        command.add_argument('--period', type=_seconds, metavar='S',
                             help='control period in s; for bags that hold velocities')
        command.add_argument('--cameras', type=_cameras, metavar='NAME[,NAME]',
                             help='cameras that episodes must have; default: what the recordings '
                                  'say themselves, else static,hand')
        said = command.add_mutually_exclusive_group()
        said.add_argument('--config', type=Path, metavar='FILE',
                          help='training configuration: its manifest says what is wanted, its '
                               'data.sources how the path is read')
        said.add_argument('--manifest', type=Path, metavar='FILE',
                          help="a checkpoint's action.yaml, which says what is wanted")
        _OPTIONS[name](command)
    return parser


def _joined(words: list[str]) -> list[str]:
    """
    Join the cameras that follow `--cameras` into one word.

    An option of any number of words would take the path and every key=value behind it as well.
    """
    found: list[str] = []
    for word in words:
        if word in _CAMERAS and found and found[-1].startswith('--cameras'):
            found[-1] += f'{"," if "=" in found[-1] else "="}{word}'
        else:
            found.append(word)
    return found


def _is_name(word: str) -> bool:
    return re.fullmatch(r'[a-z][a-z0-9_]*', word) is not None


def _seconds(text: str) -> float:
    from ros2_lstm_policy.data.values import as_period
    seconds = as_period(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f'expected seconds above 0, found {text!r}')
    return seconds


def _cameras(text: str) -> tuple[str, ...]:
    names = tuple(text.split(','))
    if not all(map(_is_name, names)) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError('expected names of cameras, each once, with commas '
                                         f'between them, found {text!r}')
    return names


def _inspect_options(command: argparse.ArgumentParser) -> None:
    command.add_argument('--png', type=Path, help='also draw it')
    command.add_argument('--propose', action='store_true',
                         help='list what a bag or a LeRobot dataset of others holds, and print '
                              'the YAML that reads it')
    command.add_argument('--all', action='store_true', help='one line for every episode')


def _stats_options(command: argparse.ArgumentParser) -> None:
    command.add_argument('--how', choices=['range', 'quantile'], default='range',
                         help='map the whole range to [-1, 1], or its middle 98 %%')


def _convert_options(command: argparse.ArgumentParser) -> None:
    command.add_argument('--to', choices=['lerobot', 'bag'], required=True)
    command.add_argument('--jpeg', action='store_true', help='bags: images as JPEG instead of raw')


def _validate_options(command: argparse.ArgumentParser) -> None:
    command.add_argument('--skip-images', action='store_true',
                         help='do not decode every image: faster, and damaged ones pass')


_OPTIONS = {'inspect': _inspect_options, 'stats': _stats_options, 'convert': _convert_options,
            'validate': _validate_options}


if __name__ == '__main__':
    sys.exit(main())

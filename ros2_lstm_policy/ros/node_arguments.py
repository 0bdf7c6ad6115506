"""What a node's program answers before ROS starts: --help, --version, an unknown argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, fields
import sys
import textwrap
from typing import Any

from rclpy.utilities import remove_ros_args
import ros2_lstm_policy
from ros2_lstm_policy.ros.declared import plain

USAGE_ERROR = 2
_WIDTH = 99
_TYPES = {bool: 'boolean', int: 'integer', float: 'double', str: 'string'}


def answer(program: str, about: str, table: type, arguments: Sequence[str] | None) -> int | None:
    """
    Answer a command line that does not ask for the node.

    :param about: what the node is, in a line.
    :param table: the dataclass of its parameters, as :mod:`declared` takes it.
    :param arguments: None for those of the process.
    :return: the exit status; None where the node is to start.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = remove_ros_args([program, *given])[1:]
    if {'-h', '--help'} & set(own):
        print(usage(program, about, table))
        return 0
    if '--version' in own:
        print(f'{program} {ros2_lstm_policy.__version__}')
        return 0
    if own:
        print(f'{program}: unknown argument {own[0]!r}; parameters are given as --ros-args '
              f'-p NAME:=VALUE, see {program} --help', file=sys.stderr)
        return USAGE_ERROR
    return None


def usage(program: str, about: str, table: type) -> str:
    """Return the help: how the program is called, and every parameter of the table."""
    lines = [f'usage: {program} [-h] [--version] [--ros-args [-p NAME:=VALUE] '
             '[--params-file FILE] [-r FROM:=TO] ...]', '', about, '', 'parameters:']
    for row in fields(table):
        lines += textwrap.wrap(_row(row), _WIDTH, initial_indent='  ',
                               subsequent_indent=' ' * 6, break_on_hyphens=False)
    return '\n'.join(lines)


def _row(row: Field[Any]) -> str:
    """Return a parameter in a line: name, type, default, unit, bounds, meaning."""
    data, default = row.metadata, row.default
    kind = (f'{_TYPES[type(default[0])]} array' if isinstance(default, tuple)
            else _TYPES[type(default)])
    facts = [kind, f'default {plain(default)!r}']
    if data['unit']:
        facts.append(data['unit'])
    if data['low'] is not None:
        facts.append(f'{data["low"]:g} to {data["high"]:g}')
    if data['choices']:
        facts.append('one of ' + ', '.join(map(repr, data['choices'])))
    facts += [word for word, holds in (('read only', data['read_only']), ('live', data['live']))
              if holds]
    return f'{row.name} ({"; ".join(facts)}): {data["text"]}'

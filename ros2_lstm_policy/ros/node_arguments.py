"""What a node's program answers before ROS starts: --help, --version, an unknown argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, fields
from pathlib import Path
import re
import sys
import textwrap
from typing import Any

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.utilities import remove_ros_args
import ros2_lstm_policy
from ros2_lstm_policy.ros.declared import kind, plain

USAGE_ERROR = 2
_WIDTH = 99


def answer(program: str, about: str, table: type, arguments: Sequence[str] | None) -> int | None:
    """
    Answer a command line that does not ask for the node.

    :param about: what the node is, in a line.
    :param table: the dataclass of its parameters, as :mod:`declared` takes it.
    :param arguments: None for those of the process.
    :return: the exit status; None where the node is to start.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        own = remove_ros_args([program, *given])[1:]
    except rclpy_implementation.RCLInvalidROSArgsError as error:
        print(f'{program}: {explained(str(error))}', file=sys.stderr)
        return USAGE_ERROR
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


def explained(error: str) -> str:
    """Return what rcl says about a line that it cannot read, with the line and what to write."""
    text = re.sub(r', at /\S+:\d+', '', error).removeprefix('Failed to parse ROS arguments: ')
    file = re.search(r"'--params-file ([^']+)'", text)
    number = re.search(r'line(?:_num)? (\d+)', text)
    if file and number and Path(file[1]).is_file():
        lines = Path(file[1]).read_text(errors='replace').splitlines()
        text += f': {"".join(lines[int(number[1]) - 1:int(number[1])]).strip()!r}'
    if 'same type' in text:
        text += ('; all values of a list must be of one type: where numbers are doubles, write '
                 'each with a decimal point')
    return ' '.join(text.split())


def _row(row: Field[Any]) -> str:
    """Return a parameter in a line: name, type, default, unit, bounds, meaning."""
    data, default = row.metadata, row.default
    facts = [kind(default), f'default {plain(default)!r}']
    if data['unit']:
        facts.append(data['unit'])
    if data['low'] is not None:
        facts.append(f'{data["low"]:g} to {data["high"]:g}')
    if data['choices']:
        facts.append('one of ' + ', '.join(map(repr, data['choices'])))
    facts += [word for word, holds in (('read only', data['read_only']), ('live', data['live']))
              if holds]
    return f'{row.name} ({"; ".join(facts)}): {data["text"]}'

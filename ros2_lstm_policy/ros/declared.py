"""
Parameters of a node as the fields of a frozen dataclass: its defaults, and what is known of each.

One table declares, checks, reads and documents them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, field, fields
import math
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.node import Node

T = TypeVar('T')


def parameter(default: Any, text: str, unit: str = '', low: float | None = None,
              high: float | None = None, *, choices: Sequence[str] = (), live: bool = False,
              read_only: bool = False) -> Any:
    """
    Describe one parameter.

    :param live: takes effect at once, in a node whose others are read when it is configured.
    :param read_only: can be given at the start only.
    """
    return field(default=default, metadata={
        'text': text, 'unit': unit, 'low': low, 'high': high, 'choices': tuple(choices),
        'live': live, 'read_only': read_only})


def declare(node: Node, row: Field[Any], ignore_override: bool = False) -> Any:
    """
    Declare one parameter with its description and range; return its value.

    :raises ValueError: for a given value of another type, with what to write instead.
    :raises InvalidParameterValueException: for one out of range.
    """
    try:
        return node.declare_parameter(row.name, plain(row.default), _descriptor(row),
                                      ignore_override=ignore_override).value
    except InvalidParameterTypeException as error:
        given = node._parameter_overrides[row.name].value
        raise ValueError(f'{error}{_advice(row, given)}') from error


def read(node: Node, table: type[T]) -> T:
    """Return the values of all parameters of a table."""
    rows = fields(table)  # type: ignore[arg-type]
    return table(**{row.name: _value(node, row) for row in rows})


def problem(row: Field[Any], value: Any) -> str:
    """Return what is wrong with a value beyond type and range, or nothing."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if any(isinstance(number, float) and math.isnan(number) for number in numbers):
        return f'{row.name} is {value}; expected a number (NaN compares as false with any bound)'
    choices = row.metadata['choices']
    if choices and value not in choices:
        return f'{row.name} is {value!r}; expected one of {", ".join(map(repr, choices))}'
    return ''


def _advice(row: Field[Any], value: Any) -> str:
    """Say how whole numbers are written where ROS takes nothing but doubles."""
    default = row.default[0] if isinstance(row.default, tuple) else row.default
    numbers = list(value) if not isinstance(value, (bool, int, float, str)) else [value]
    if not isinstance(default, float) or any(type(number) is not int for number in numbers):
        return ''
    doubles = [float(number) for number in numbers]
    return f'; write {doubles if isinstance(row.default, tuple) else doubles[0]}'


def plain(default: Any) -> Any:
    """Return a default as ROS takes it."""
    return list(default) if isinstance(default, tuple) else default


def _value(node: Node, row: Field[Any]) -> Any:
    value = node.get_parameter(row.name).value
    return tuple(value) if isinstance(row.default, tuple) else value


def _descriptor(row: Field[Any]) -> ParameterDescriptor:
    data = row.metadata
    unit = f' [{data["unit"]}]' if data['unit'] else ''
    descriptor = ParameterDescriptor(description=data['text'] + unit, read_only=data['read_only'])
    if data['choices']:
        descriptor.additional_constraints = 'one of ' + ', '.join(map(repr, data['choices']))
    if isinstance(row.default, float) and data['low'] is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=data['low'], to_value=data['high'])]
    elif data['low'] is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=data['low'], to_value=data['high'], step=1)]
    return descriptor

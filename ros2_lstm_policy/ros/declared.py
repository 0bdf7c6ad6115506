"""
Parameters of a node as the fields of a frozen dataclass: its defaults, and what is known of each.

One table declares, checks, reads and documents them. Types are checked here and not by rclpy,
which says neither the parameter's name nor what to write (`dynamic_typing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, field, fields
import difflib
import math
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (FloatingPointRange, IntegerRange, ParameterDescriptor,
                                SetParametersResult)
from rclpy.node import Node
from rclpy.parameter import Parameter

T = TypeVar('T')
V = TypeVar('V')
TYPES = {bool: 'boolean', int: 'integer', float: 'double', str: 'string'}


class ParameterError(ValueError):
    """Parameters that the node cannot be used with."""


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


class Declared(Generic[T]):
    """
    The parameters of a node: declared, and kept within types, bounds and rules.

    A value from the command line or a file that cannot be taken does not end the constructor: its
    default stands in, it is kept in `problems`, and :meth:`read` refuses until the parameter has
    been set again.

    :param table: the dataclass of the parameters.
    :param rules: what a value of the right type and range must be else: by parameter, a function
        that returns what is wrong with one, or nothing.
    :ivar unknown: a line for each given parameter that the node does not have: a typing error.
    """

    def __init__(self, node: Node, table: type[T],
                 rules: Mapping[str, Callable[[Any], str]] | None = None) -> None:
        """Declare every parameter."""
        self._node, self._table, self._rules = node, table, rules or {}
        self._rows = {row.name: row for row in fields(table)}  # type: ignore[arg-type]
        self.problems: dict[str, str] = {}
        for row in self._rows.values():
            self._declare(row)
        self.add(self.further_rows())
        self.unknown = self._unknown_overrides()
        node.add_on_set_parameters_callback(self._check_new_values)

    def read(self) -> T:
        """Return all values. :raises ParameterError: naming each that cannot be used."""
        if self.problems:
            raise ParameterError('; '.join(self.problems.values()))
        return self.values(self._table)

    def values(self, table: type[V], prefix: str = '') -> V:
        """Return the values of a table whose parameters are declared with a prefix."""
        return table(**{row.name: _value(self._node, row, prefix)
                        for row in fields(table)})  # type: ignore[arg-type]

    def further_rows(self) -> Mapping[str, Field[Any]]:
        """Return rows by their names that are to be declared beside the table's."""
        return {}

    def add(self, rows: Mapping[str, Field[Any]]) -> None:
        """Declare further rows by their names, where they are not yet."""
        for name, row in rows.items():
            if name not in self._rows:
                self._rows[name] = row
                self._declare(row)

    def is_changeable(self, row: Field[Any]) -> str:
        """Return why a parameter cannot be set now, or nothing; for a node to say."""
        return ''

    def _declare(self, row: Field[Any]) -> None:
        given = self._node._parameter_overrides.get(row.name)
        found = '' if given is None else self._problem(row, given.value)
        if found:
            self.problems[row.name] = found
        self._node.declare_parameter(row.name, plain(row.default), _descriptor(row),
                                     ignore_override=bool(found))

    def _problem(self, row: Field[Any], value: Any) -> str:
        found = problem(row, value)
        return found if found or row.name not in self._rules else self._rules[row.name](value)

    def _check_new_values(self, parameters: list[Parameter]) -> SetParametersResult:
        for given in parameters:
            row = self._rows.get(given.name)
            if row is None:
                continue
            found = self._problem(row, given.value) or self.is_changeable(row)
            if found:
                return SetParametersResult(successful=False, reason=found)
        for given in parameters:
            self.problems.pop(given.name, None)
        return SetParametersResult(successful=True)

    def _unknown_overrides(self) -> list[str]:
        lines = []
        for name in self._node._parameter_overrides:
            if self._node.has_parameter(name) or name.startswith('qos_overrides.'):
                continue
            near = difflib.get_close_matches(name, list(self._rows), 1)
            hint = f'; did you mean {near[0]}?' if near else ''
            lines.append(f'there is no parameter {name!r}{hint}')
        return lines


def problem(row: Field[Any], value: Any) -> str:
    """Return what is wrong with a value: of another type, NaN, out of range, no choice."""
    if not _is_of_type(row.default, value):
        return f'{row.name} is {_shown(value)}; expected {kind(row.default)}{_advice(row, value)}'
    numbers = value if isinstance(row.default, tuple) else [value]
    if any(isinstance(number, float) and math.isnan(number) for number in numbers):
        return f'{row.name} is {value}; expected a number (NaN compares as false with any bound)'
    low, high, choices = (row.metadata[key] for key in ('low', 'high', 'choices'))
    if low is not None and not all(low <= number <= high for number in numbers):
        unit = row.metadata['unit']
        return f'{row.name} is {value:g}; expected {low:g} to {high:g} {unit}'.rstrip()
    if choices and value not in choices:
        return f'{row.name} is {value!r}; expected one of {", ".join(map(repr, choices))}'
    return ''


def kind(default: Any) -> str:
    """Return the type of a parameter in words."""
    if isinstance(default, tuple):
        return f'{TYPES[type(default[0])]} array'
    return TYPES[type(default)]


def plain(default: Any) -> Any:
    """Return a default as ROS takes it."""
    return list(default) if isinstance(default, tuple) else default


def _is_of_type(default: Any, value: Any) -> bool:
    if isinstance(default, tuple):
        return _is_array(value) and all(type(one) is type(default[0]) for one in value)
    return type(value) is type(default)


def _is_array(value: Any) -> bool:
    return value is not None and type(value) not in TYPES


def _shown(value: Any) -> str:
    """Return a value and its type as a person wrote it."""
    if value is None:
        return 'not set'
    found = list(value) if _is_array(value) else value
    first = found[0] if _is_array(value) and found else found
    name = TYPES.get(type(first), type(first).__name__)
    return f'{found!r} ({name}{" array" if _is_array(value) else ""})'


def _advice(row: Field[Any], value: Any) -> str:
    """Say how a value is written that YAML takes for one of another type."""
    default = row.default[0] if isinstance(row.default, tuple) else row.default
    if value is None:
        return ''
    given = list(value) if _is_array(value) else [value]
    if isinstance(default, float) and all(type(number) is int for number in given):
        given = [float(number) for number in given]
    elif isinstance(default, str) and not any(isinstance(one, str) for one in given):
        return "; write it in quotes that YAML sees, such as \"'123'\""
    elif not all(isinstance(one, type(default)) for one in given):
        return ''
    if isinstance(row.default, tuple):
        return f'; write {given}'
    return f'; write {given[0]}' if len(given) == 1 else ''


def _value(node: Node, row: Field[Any], prefix: str) -> Any:
    value = node.get_parameter(prefix + row.name).value
    return tuple(value) if isinstance(row.default, tuple) else value


def _descriptor(row: Field[Any]) -> ParameterDescriptor:
    data = row.metadata
    unit = f' [{data["unit"]}]' if data['unit'] else ''
    descriptor = ParameterDescriptor(description=data['text'] + unit, read_only=data['read_only'],
                                     dynamic_typing=True)
    if data['choices']:
        descriptor.additional_constraints = 'one of ' + ', '.join(map(repr, data['choices']))
    if isinstance(row.default, float) and data['low'] is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=data['low'], to_value=data['high'])]
    elif data['low'] is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=data['low'], to_value=data['high'], step=1)]
    return descriptor

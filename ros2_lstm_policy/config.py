"""
Strict YAML for frozen dataclasses.

A key that is unknown, missing or of another type is an error that names the file and the key.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import difflib
import math
from pathlib import Path
import types
from typing import Any, get_args, get_origin, get_type_hints, Literal, TypeAlias, TypeVar, Union

from ros2_lstm_policy import config_help
from ros2_lstm_policy.config_files import ConfigError, parse_yaml, plain, read_json, read_yaml
import yaml

__all__ = ['ConfigError', 'dump', 'from_command_line', 'load', 'override', 'parse',
           'parse_arguments', 'plain', 'read_json', 'read_yaml', 'require_finite']

T = TypeVar('T')
_Upgrade: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def load(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """
    Read a YAML file into a frozen dataclass.

    :param cls: the dataclass.
    :param path: the file.
    :param overrides: `key.subkey=value` strings, values in YAML.
    :raises ConfigError: for what the file or the overrides have wrong.
    """
    values = read_yaml(path)
    for text in overrides:
        override(values, text)
    return parse(cls, values, str(path))


def from_command_line(cls: type[T], argv: Sequence[str] | None, description: str,
                      example: str) -> T:
    """
    Read the settings of a command that takes a YAML file and changes to it.

    :param argv: None for what the process was started with.
    :param example: one change, for the help text.
    :raises ConfigError: as :func:`load`.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=config_help.text(cls),
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--keys', action=config_help.ShowKeys, module=cls.__module__,
                        name=cls.__qualname__)
    parser.add_argument('--config', type=Path, required=True, help='YAML file, see config/')
    parser.add_argument('overrides', nargs='*', metavar='key=value',
                        help=f'changes to it, such as {example}')
    arguments = parse_arguments(parser, argv, 'overrides')
    return load(cls, arguments.config, arguments.overrides)


def parse_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None,
                    changes: str) -> argparse.Namespace:
    """
    Parse a command line whose `key=value` arguments may stand anywhere between the options.

    argparse itself takes only the first such row of them, and refuses the others
    (python/cpython#87139).

    :param argv: None for what the process was started with.
    :param changes: name of the positional arguments, a list, that hold them.
    """
    options, rest = parser.parse_known_args(argv)
    if unknown := [text for text in rest if text.startswith('-')]:
        parser.error(f'unrecognized arguments: {" ".join(unknown)}')
    setattr(options, changes, [*getattr(options, changes), *rest])
    return options


def parse(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """
    Build a frozen dataclass from plain values.

    A class may have a static method `upgrade`, which is given the values first: it turns what an
    earlier version wrote into today's keys.

    :param where: the file or key that the values come from, for errors.
    :raises ConfigError: for an unknown, missing or mistyped key, or a value the class refuses.
    """
    upgrade: _Upgrade | None = getattr(cls, 'upgrade', None)
    values = values if upgrade is None else upgrade(values)
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f'; did you mean {near[0]!r}?' if near else f'; known: {", ".join(fields)}'
            raise ConfigError(f'{where}: unknown key {key!r}{hint}')
    arguments = {}
    for name, f in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f'{where}: {name}')
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ConfigError(f'{where}: missing key {name!r} ({_name(hints[name])})')
    try:
        return cls(**arguments)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f'{where}: {error}') from error


def dump(value: Any) -> str:
    """Write a dataclass as the YAML that :func:`load` reads back to an equal one."""
    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=99)


def require_finite(value: Any) -> None:
    """
    Refuse NaN and infinity in a dataclass, for its `__post_init__`: no comparison there sees NaN.

    :raises ValueError: which names the key.
    """
    for f in dataclasses.fields(value):
        number = getattr(value, f.name)
        for part in number if isinstance(number, tuple) else (number,):
            if isinstance(part, float) and not math.isfinite(part):
                raise ValueError(f'{f.name}: expected finite numbers, found {plain(number)}')


def override(values: dict[str, Any], assignment: str) -> None:
    """Set one value in place, from `key.subkey=value` with the value in YAML."""
    key, separator, text = assignment.partition('=')
    if not separator or not key:
        raise ConfigError(f'{assignment!r}: an override is written key=value')
    *parents, last = key.split('.')
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ConfigError(f'{assignment!r}: {parent!r} is no section')
    try:
        values[last] = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f'{assignment!r}: the value is not valid YAML') from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where)
    if origin is Literal:
        if any(type(value) is type(known) and value == known for known in arguments):
            return value
        raise ConfigError(f'{where}: expected one of {", ".join(map(repr, arguments))}, '
                          f'found {value!r}')
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return parse(hint, value, where)
    if origin is tuple and isinstance(value, (list, tuple)):
        return _convert_tuple(arguments, value, where)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {_convert(arguments[0], key, where): _convert(arguments[1], item, f'{where}.{key}')
                for key, item in value.items()}
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _finite(value, where)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise ConfigError(f'{where}: expected {_name(hint)}, found {type(value).__name__} {value!r}')


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    choices = [a for a in arguments if a is not type(None)]
    if len(choices) != 1:
        raise TypeError(f'{where}: only optional unions are supported')
    return _convert(choices[0], value, where)


def _convert_tuple(arguments: tuple[Any, ...], value: Sequence[Any], where: str) -> Any:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], item, f'{where}[{i}]') for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f'{where}: expected {len(arguments)} values, found {len(value)}')
    return tuple(_convert(hint, item, f'{where}[{i}]')
                 for i, (hint, item) in enumerate(zip(arguments, value)))


def _finite(value: int | float | str, where: str) -> float:
    """
    Return a number that comparisons can decide on: neither NaN nor infinite.

    YAML 1.1 reads 1e-4 (without a point) as text; people write it, so it is a number here.
    """
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ConfigError(f'{where}: expected float, found {type(value).__name__} '
                          f'{value!r:.40}') from None
    if not math.isfinite(number):
        raise ConfigError(f'{where}: expected a finite number, found {number}')
    return number


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)

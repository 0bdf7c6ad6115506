"""Every key of a configuration with type, default and meaning, from the dataclasses themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import inspect
import re
import textwrap
from typing import Any, get_args, get_origin, get_type_hints, Literal, NamedTuple

from ros2_lstm_policy.config_files import plain

_PARAM = re.compile(r':param (\w+):(.*?)(?=\n:|\n\n|\Z)', re.S)
_ROLE = re.compile(r':\w+:`[.~]*([^`]+)`')  # markup of documentation pages
_WIDTH = 96


class Key(NamedTuple):
    """
    One key.

    :param name: as `key=value` takes it; [] stands in a list of sections.
    :param kind: its type.
    :param default: as YAML, None where the key must be given.
    :param meaning: what its class says about it.
    """

    name: str
    kind: str
    default: str | None
    meaning: str


def keys(cls: type, prefix: str = '') -> Iterator[Key]:
    """Yield all keys of a dataclass, those of its sections with their path."""
    hints, meanings = get_type_hints(cls), _meanings(cls)
    for field in dataclasses.fields(cls):
        name, hint = prefix + field.name, hints[field.name]
        section, is_list = _section(hint)
        if section is not None and not is_list and hint is section:
            yield from keys(section, f'{name}.')
            continue
        yield Key(name, _kind(hint), _default(field), meanings.get(field.name, ''))
        if section is not None:
            yield from keys(section, f'{name}[].' if is_list else f'{name}.')


def text(cls: type) -> str:
    """Return all keys as lines for a terminal."""
    lines = ['keys, given in the YAML file or as key=value:']
    for key in keys(cls):
        default = 'required' if key.default is None else f'default {key.default}'
        lines.append(f'  {key.name}  ({key.kind}; {default})')
        lines += textwrap.wrap(key.meaning, _WIDTH, initial_indent='      ',
                               subsequent_indent='      ')
    return '\n'.join(lines)


class ShowKeys(argparse.Action):
    """An option that prints the keys and ends; the class is imported only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, module: str, name: str,
                 **options: Any) -> None:
        """Remember which class of which module."""
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS,
                         help='list every key with type, default and meaning', **options)
        self._module, self._name = module, name

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        """Print and end."""
        import importlib
        print(text(getattr(importlib.import_module(self._module), self._name)))
        parser.exit()


def _meanings(cls: type) -> dict[str, str]:
    """Return what the docstring says of each field."""
    return {name: ' '.join(_ROLE.sub(r'\1', said).split())
            for name, said in _PARAM.findall(inspect.getdoc(cls) or '')}


def _section(hint: Any) -> tuple[type | None, bool]:
    """Return the dataclass inside a type, and whether it stands in a list."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint, False
    for part in get_args(hint):
        section, _ = _section(part)
        if section is not None:
            return section, get_origin(hint) is tuple
    return None, False


def _kind(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is type(None):
        return 'null'
    if origin is Literal:
        return ', '.join(map(str, parts))
    if origin is tuple:
        kinds = list(dict.fromkeys(_kind(part) for part in parts if part is not Ellipsis))
        count = '' if Ellipsis in parts else f'{len(parts)} '
        return f'list of {count}{" or ".join(kinds)}'
    if origin in (dict, Mapping):
        return 'section of keys and values'
    if parts:
        return ' or '.join(map(_kind, parts))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return 'section'
    return {'str': 'text', 'bool': 'true, false', 'Path': 'path'}.get(
        getattr(hint, '__name__', ''), getattr(hint, '__name__', str(hint)))


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return None
    value = plain(value)
    if value is None:
        return 'null'
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if value == '' else str(value)

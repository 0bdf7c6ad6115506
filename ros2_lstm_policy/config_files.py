"""
Files of keys and values, read so that they mean one thing: YAML and JSON.

What a parser would take silently is refused: a key that stands there twice, and YAML whose aliases
grow to more than any configuration needs ("billion laughs") or stand inside themselves, or whose
brackets do. All YAML of the package is read here, that in recordings too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

_MAX_NODES = 200_000  # values after aliases are followed; real configurations have hundreds
_MAX_DEPTH = 100  # real ones have ten; what composes nodes calls itself, in C without a limit
_SafeLoader: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # libyaml's is ten times as fast


class ConfigError(ValueError):
    """A configuration that cannot be used, with the file and the key in its message."""


class _Loader(_SafeLoader):
    """SafeLoader that refuses what has two meanings or no end."""

    def get_single_data(self) -> Any:
        """Compose the document, check its size, then build the values."""
        node = self.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return self.construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands there twice; YAML itself would keep the last."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)
                 and key.value != '<<']
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and names.count(key.value) > 1:
                raise yaml.MarkedYAMLError(problem=f'key {key.value!r} stands there twice',
                                           problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """
    Read a YAML mapping; an empty file is an empty mapping.

    :raises ConfigError: for a file that cannot be read or holds anything else.
    """
    return _read(path, parse_yaml, 'YAML')


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a JSON object.

    :raises ConfigError: for a file that cannot be read or holds anything else.
    """
    return _read(path, lambda text: json.loads(text, object_pairs_hook=_once), 'JSON')


def parse_yaml(text: str) -> Any:
    """
    Return the values of a YAML text.

    :raises ValueError: where it is none, or would grow beyond any configuration.
    """
    try:
        _check_depth(text)
        return yaml.load(text, _Loader)  # noqa: TID251 (of SafeLoader: runs no code)
    except yaml.YAMLError as error:
        raise ValueError(_one_line(error)) from error


def plain(value: Any) -> Any:
    """Return dataclasses, tuples and paths as plain YAML values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read(path: Path, parse: Callable[[str], Any], language: str) -> dict[str, Any]:
    try:
        values = parse(Path(path).read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'{path}: cannot be read: {error.strerror}') from error
    except RecursionError:
        raise ConfigError(f'{path}: is not valid {language}: nested too deeply') from None
    except ValueError as error:
        raise ConfigError(f'{path}: is not valid {language}: {error}') from error
    if values is None and language == 'YAML':
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f'{path}: expected keys and values, found {type(values).__name__}')
    return values


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError('it is nested too deeply')


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values under a node, each as often as aliases repeat it."""
    if id(node) in known:
        if known[id(node)] == 0:  # it is being counted: it stands inside itself
            raise yaml.MarkedYAMLError(problem='an alias stands inside what it names',
                                       problem_mark=node.start_mark)
        return known[id(node)]
    known[id(node)] = 0
    inside = [] if isinstance(node, yaml.ScalarNode) else [
        part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    total = 1 + sum(_size(part, known) for part in inside)
    if total > _MAX_NODES:
        raise yaml.MarkedYAMLError(problem=f'aliases grow to more than {_MAX_NODES} values',
                                   problem_mark=node.start_mark)
    known[id(node)] = total
    return total


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'key {twice!r} stands there twice')
    return values


def _one_line(error: yaml.YAMLError) -> str:
    return ' '.join(str(error).split())

"""Files of RoboVLMs runs: the JSON configuration and the weights, read without running code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import pickle
from typing import Any

from ros2_lstm_policy import config
import torch
from torch import Tensor

_PREFIXES = ('module.', '_forward_module.')


class RoboVLMsError(ValueError):
    """A RoboVLMs checkpoint or configuration that cannot be imported, and why."""


def read_configuration(path: Path) -> dict[str, Any]:
    """
    Read a run's JSON configuration, with its parents.

    :raises ValueError: where a file is absent or no configuration, or is its own parent.
    """
    return _with_parents(path, ())


def read_weights(path: Path) -> dict[str, Tensor]:
    """
    Read a torch, lightning or consolidated DeepSpeed checkpoint into `model.*` keys.

    :raises RoboVLMsError: for a sharded directory, a file that only running code could read, or
        one without weights.
    """
    if path.is_dir():
        raise RoboVLMsError(f'{path}: is a directory, as DeepSpeed shards its checkpoints; '
                            'consolidate it with the zero_to_fp32.py inside and give the file')
    try:
        found = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise RoboVLMsError(f'{path}: no such file') from error
    except pickle.UnpicklingError as error:
        raise RoboVLMsError(
            f'{path}: holds more than tensors and plain values, and reading it would run code '
            f'({str(error).splitlines()[0]}); where you trust it, load it in its own '
            'environment and save its state_dict alone') from error
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise RoboVLMsError(f'{path}: is no whole checkpoint of torch: '
                            f'{" ".join(str(error).split())[:200]}') from error
    return _tensors(path, found)


def _with_parents(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in children:
        raise RoboVLMsError(f'{path}: is its own parent, found along '
                            f'{" -> ".join(child.name for child in children)}; wanted a file that '
                            'names no file before it')
    values = config.read_json(path)
    parent = values.get('parent')
    if parent is None or parent == '':
        return values
    if not isinstance(parent, str):
        raise RoboVLMsError(f'{path}: parent: expected the name of a file, found '
                            f'{type(parent).__name__} {parent!r}')
    return _merged(_with_parents(path.parent / parent, (*children, path.resolve())), values)


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        below[key] = _merged(below[key], value) if both else value
    return below


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    for name in ('state_dict', 'model_state_dict', 'module'):
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
            break
    whole = isinstance(found, dict) and bool(found)
    if not whole or not all(isinstance(value, Tensor) for value in found.values()):
        keys = ', '.join(map(str, list(found)[:5])) if isinstance(found, dict) else type(found)
        raise RoboVLMsError(f"{path}: expected weights under 'state_dict' or 'model_state_dict', "
                            f'found {keys}')
    weights: dict[str, Tensor] = {}
    for key, value in found.items():
        name = _plain_name(key)
        if name in weights:
            raise RoboVLMsError(f'{path}: {key!r} and another key both mean {name!r}')
        if not name.startswith('model.lm_head.'):  # the head again, under its old name
            weights[name] = value
    return weights


def _plain_name(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.split('.', 1)[1]
    return key if key.startswith('model.') else f'model.{key}'

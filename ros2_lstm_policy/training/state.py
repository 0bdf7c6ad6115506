"""The state that --resume goes on from, read and compared before any data are opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
import zipfile

import torch
from torch import nn, Tensor

STATE = 'training_state.ckpt'
LAST = 'checkpoints/last'
_PARTS = ('state_dict', 'optimizer_states', 'loops', 'callbacks', 'global_step')
_OURS = {'batches', 'best', 'average', 'elapsed_s', 'random'}
_PREFIX = 'objective.'
_MAX_TEXT = 200
_POINTER = b'version https://git-lfs'


class StateError(ValueError):
    """A state that no run can go on from, by its file."""


def read(run: Path) -> Mapping[str, Any]:
    """
    Read the state of a run; tensors stay in the file until they are asked for.

    :raises StateError: where there is none, or a file that is cut, empty or of something else.
    """
    path = run / STATE
    if not path.is_file():
        raise StateError(f'{path}: there is no state to go on from; start the run again with '
                         '--config')
    try:
        found = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        why = brief(error) if zipfile.is_zipfile(path) else _beginning(path)
        raise StateError(f'{path}: {path.stat().st_size} bytes are no whole state of a run '
                         f'({why}); {_advice(run)}') from error
    if not isinstance(found, dict) or any(part not in found for part in _PARTS):
        keys = ', '.join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise StateError(f'{path}: expected {", ".join(_PARTS)}, found {keys[:_MAX_TEXT]}; it is '
                         f'no state of this program; {_advice(run)}')
    if not any(isinstance(kept, dict) and kept.keys() >= _OURS
               for kept in found['callbacks'].values()):
        raise StateError(f'{path}: lacks the average, the place in the data and the random '
                         f'states; it is of another program; {_advice(run)}')
    return found


def check(run: Path, state: Mapping[str, Any], objective: nn.Module) -> None:
    """
    Compare the tensors of a state with those of the network that would go on.

    :raises StateError: which names the first tensor that is missing or of another shape.
    """
    found: Mapping[str, Tensor] = state['state_dict']
    wanted = {_PREFIX + name: value for name, value in objective.state_dict().items()}
    for name in sorted(wanted.keys() ^ found.keys()):
        where = 'lacks' if name in wanted else 'has a tensor too many:'
        raise StateError(f'{run / STATE}: {where} {name}; it is of another run; {_advice(run)}')
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise StateError(f'{run / STATE}: {name}: found shape {tuple(found[name].shape)}, '
                             f'wanted {tuple(value.shape)}; it is of another run; {_advice(run)}')


def unfit(run: Path, error: Exception) -> StateError:
    """Return what to say where the framework refuses to take a state up."""
    return StateError(f'{run / STATE}: cannot be taken up ({brief(error)}); {_advice(run)}')


def brief(error: BaseException) -> str:
    """Return an error's text as one line."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_TEXT else f'{text[:_MAX_TEXT]} ...'


def _beginning(path: Path) -> str:
    """Say what a file is that is no archive of torch."""
    with path.open('rb') as file:
        begin = file.read(len(_POINTER))
    if begin == _POINTER:
        return 'it is a pointer of Git LFS: `git lfs pull` fetches the file'
    return 'its archive is cut off' if begin.startswith(b'PK') else 'it is no archive of torch'


def _advice(run: Path) -> str:
    if (run / LAST).is_dir():
        return (f'start a new run from its weights: train --config {run / "train.yaml"} '
                f'output=NEW init_from={run / LAST}')
    return 'copy it again, or start the run again with --config'

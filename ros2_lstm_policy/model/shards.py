"""Which safetensors files hold a model's weights, and what is in them, by their headers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ros2_lstm_policy import config
from safetensors import safe_open, SafetensorError

WEIGHTS, INDEX = 'model.safetensors', 'model.safetensors.index.json'


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: which file, which key, what was found and wanted."""


def weight_files(directory: Path) -> list[str]:
    """
    Return the names of the files, one or those of an index laid out as Hugging Face does it.

    :raises CheckpointError: where there is none, or an index that leads elsewhere.
    """
    if (directory / WEIGHTS).is_file():
        return [WEIGHTS]
    index = directory / INDEX
    if not index.is_file():
        raise CheckpointError(f'{directory / WEIGHTS} is missing, and there is no {INDEX} either '
                              '(weights are read from safetensors files, never from pickles)')
    try:
        place = config.read_json(index).get('weight_map')
    except config.ConfigError as error:
        why = str(error).removeprefix(f'{index}: ')
        raise CheckpointError(f'{index}: is no index of weights: {why}') from error
    if not isinstance(place, dict):
        raise CheckpointError(f"{index}: is no index of weights: expected 'weight_map' with a "
                              f'file for each tensor, found {place!r:.80}')
    files = sorted({str(file) for file in place.values()})
    for file in files:
        if Path(file).name != file:
            raise CheckpointError(f'{index}: names {file!r}; wanted the names of files beside it')
    if not files:
        raise CheckpointError(f'{index}: names no file; copy the directory again')
    return files


def shapes(directory: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """
    Return the shapes of the tensors in each file.

    :raises CheckpointError: for a file that is absent or cut.
    """
    found = {}
    for file in weight_files(directory):
        with opened(directory / file) as tensors:
            found[file] = {name: tuple(tensors.get_slice(name).get_shape())
                           for name in sorted(tensors.keys())}
    return found


@contextmanager
def opened(path: Path) -> Iterator[safe_open]:
    """
    Open one file; tensors are read as they are asked for.

    :raises CheckpointError: where it is absent or cut.
    """
    try:
        with safe_open(path, framework='pt') as tensors:
            yield tensors
    except FileNotFoundError as error:
        raise CheckpointError(f'{path} is missing; copy the whole directory again') from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f'{path}: {path.stat().st_size} bytes are no whole safetensors file '
                              f'({error}); copy it again') from error

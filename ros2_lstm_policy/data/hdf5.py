"""
Datasets of an HDF5 file, read where nothing outside of the file decides what is in them.

A file may link to other files, keep its raw numbers in them, or be put together of parts of them;
a part that is missing is then zeros without an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.problems import reading, refuse


def read_hdf5(path: Path, key: str, episode: str, *default: Any) -> Any:
    """
    Read one dataset.

    :param default: what to return where it is not there; without it that is an error.
    :raises RecordingError: where it cannot be read.
    """
    import h5py
    with reading(path, episode), h5py.File(path, 'r') as file:
        found = dataset_in(file, key, path, episode)
        if found is not None:
            return found[...]
    if default:
        return default[0]
    raise refuse('missing-topic', path, episode, f'no dataset {key!r}')


def dataset_in(file: Any, key: str, path: Path, episode: str) -> Any:
    """Return a dataset of an open file, None where there is none; refuse one that lies outside."""
    import h5py
    place = file
    for name in key.split('/'):
        link = place.get(name, getlink=True) if isinstance(place, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise refuse('damaged', path, episode, f'{key}: links to another file, '
                         f'{link.filename}; expected all data in one (h5repack, h5copy)')
        place = None if link is None else place.get(name)
        if place is None:
            return None
    if not isinstance(place, h5py.Dataset):
        raise refuse('damaged', path, episode, f'{key}: expected a dataset, found a group')
    if place.is_virtual or place.external:
        raise refuse('damaged', path, episode, f'{key}: its numbers lie in other files; expected '
                     'all data in one (h5repack)')
    return place


def hdf5_names(path: Path, key: str) -> list[str]:
    """Return what a group has; nothing where it is none."""
    import h5py
    with reading(path), h5py.File(path, 'r') as file:
        group = file.get(key)
        return list(group) if isinstance(group, h5py.Group) else []


class HdfFrames:
    """A `types.FrameSequence` over one dataset of an HDF5 file."""

    def __init__(self, path: Path, key: str, episode: str, length: int,
                 bottom_row_first: bool) -> None:
        """
        Remember where the images are.

        :param length: how many there are.
        """
        self._path, self._key, self._episode = path, key, episode
        self._length, self._bottom_row_first = length, bottom_row_first

    @classmethod
    def of(cls, path: Path, key: str, episode: str, bottom_row_first: bool) -> HdfFrames:
        """Look at the dataset, not at its images; :raises RecordingError: where it has none."""
        import h5py
        with reading(path, episode), h5py.File(path, 'r') as file:
            found = dataset_in(file, key, path, episode)
            shape: tuple[int, ...] = () if found is None else found.shape
            kind = '' if found is None else str(found.dtype)
        if found is None:
            raise refuse('missing-topic', path, episode, f'no dataset {key!r}')
        if kind != 'uint8' or len(shape) != 4 or shape[3] != 3:
            raise refuse('damaged', path, episode,
                         f'{key}: expected (T, H, W, 3) uint8, found {shape} {kind}')
        return cls(path, key, episode, shape[0], bottom_row_first)

    def __len__(self) -> int:
        """Return T."""
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one upright (H, W, 3) uint8 image; :raises RecordingError: where it is none."""
        import h5py
        with reading(self._path, self._episode), h5py.File(self._path, 'r') as file:
            image = file[self._key][range(self._length)[index]]
        return np.ascontiguousarray(image[::-1] if self._bottom_row_first else image)

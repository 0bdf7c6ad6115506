"""
Frames of all episodes, resized once and kept in flat files that open instantly.

Opening maps the files and reads one small index, so the time to the first batch does not depend on
how much was recorded; a batch copies exactly the frames it needs. `to(device)` keeps all frames on
a GPU, where a batch is one indexing operation.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
from dataclasses import dataclass, replace
import json
from pathlib import Path
import shutil
from types import TracebackType
from typing import Any, NamedTuple, TYPE_CHECKING

import numpy as np
from ros2_lstm_policy.config import plain
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.types import Episode

if TYPE_CHECKING:
    import torch

FORMAT = 2
INDEX = 'index.json'
PARTIAL = '.partial'
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredEpisode:
    """
    One line of the index.

    :param source: number of the source that the episode came from.
    """

    name: str
    instruction: str
    length: int
    source: int = 0
    success: bool | None = None


@dataclass(frozen=True)
class FrameStore:
    """
    Resized frames and physical actions of all episodes, one after the other; F frames in all.

    :param episodes: in the order of the frames.
    :param images: camera name to (F, H, W, 3) uint8: a memory map, or a tensor on a device.
    :param actions: group name to (F, size) float32, in physical units.
    :param states: state name to (F, size) float32, likewise.
    :param stamps_ns: (F,) int64.
    """

    episodes: tuple[StoredEpisode, ...]
    images: Mapping[str, Any]
    actions: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray]
    stamps_ns: np.ndarray

    @classmethod
    def load(cls, path: Path) -> FrameStore:
        """
        Map a store that :class:`StoreWriter` completed.

        :raises ValueError: where it is none, or of another format.
        """
        path = Path(path)
        index = read_index(path)
        episodes = tuple(StoredEpisode(**episode) for episode in index['episodes'])
        frames = sum(episode.length for episode in episodes)
        images = {camera['name']: _map(path / f'{camera["name"]}.u8', np.uint8,
                                       (frames, camera['height'], camera['width'], 3))
                  for camera in index['cameras']}
        actions, states = ({name: _map(path / f'{kind}.{name}.f32', np.float32, (frames, size))
                            for name, size in index[f'{kind}s'].items()}
                           for kind in ('action', 'state'))
        return cls(episodes, images, actions, states,
                   _map(path / 'stamps_ns.i64', np.int64, (frames,)))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return the steps of each episode."""
        return tuple(episode.length for episode in self.episodes)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all images."""
        return sum(int(np.prod(images.shape)) for images in self.images.values())

    def take(self, camera: str, frames: np.ndarray) -> torch.Tensor:
        """Return images (..., H, W, 3) uint8 of the given frame numbers, on the store's device."""
        import torch
        images = self.images[camera]
        if isinstance(images, torch.Tensor) and images.device.type != 'cpu':
            return images[torch.from_numpy(frames).to(images.device, non_blocking=True)]
        # By NumPy: glibc before 2.38 hardly reuses the aligned memory that torch takes for it, so
        # that a process that gathers would grow by a camera's images with every batch.
        return torch.from_numpy(np.asarray(images)[frames])

    def to(self, device: str) -> FrameStore:
        """Copy all images to a device."""
        import torch
        return replace(self, images={name: torch.from_numpy(np.array(images)).to(device)
                                     for name, images in self.images.items()})


class _Item(NamedTuple):
    """What one file of a store holds for each frame."""

    dtype: type
    shape: tuple[int, ...]


class StoreWriter:
    """
    Appends episodes to a store; it exists under its name only when it is complete.

    As a context manager it deletes what was written on an exception.
    """

    def __init__(self, path: Path, manifest: Manifest, key: str = '') -> None:
        """
        Begin a store beside its final place, where a killed writer may have left a part.

        :param manifest: whose cameras, groups and states it holds.
        :param key: what the store was built from, see :mod:`.build`.
        """
        self.path = Path(path)
        self._sizes = {'actions': {group.name: group.size for group in manifest.actions},
                       'states': {state.name: state.size for state in manifest.states}}
        self._key = key
        self._cameras = plain(manifest.cameras)
        self._episodes: list[StoredEpisode] = []
        self._partial = self.path.with_name(self.path.name + PARTIAL)
        if self._partial.exists():
            shutil.rmtree(self._partial)
        self._partial.mkdir(parents=True)
        self._items: dict[str, _Item] = {
            f'{c.name}.u8': _Item(np.uint8, (c.height, c.width, 3)) for c in manifest.cameras}
        self._items |= {f'{kind[:-1]}.{name}.f32': _Item(np.float32, (size,))
                        for kind, sizes in self._sizes.items() for name, size in sizes.items()}
        self._items['stamps_ns.i64'] = _Item(np.int64, ())
        self._files = {name: open(self._partial / name, 'wb')  # noqa: SIM115 (closed in close)
                       for name in self._items}

    def append(self, episode: Episode, source: int = 0) -> None:
        """
        Append one episode, image by image.

        :param episode: whose images have their camera's size.
        :param source: number of the source that it came from.
        :raises ValueError: for a stream of another length, or values of another size.
        """
        line = StoredEpisode(episode.name, episode.instruction, len(episode), source,
                             episode.success)
        columns: dict[str, Any] = {f'{name}.u8': frames for name, frames in episode.frames.items()}
        columns |= {f'action.{name}.f32': values for name, values in episode.actions.items()}
        columns |= {f'state.{name}.f32': values for name, values in episode.states.items()}
        columns['stamps_ns.i64'] = episode.stamps_ns
        for name, item in self._items.items():
            self._write(name, item, line, columns[name])
        self._episodes.append(line)

    def _write(self, name: str, item: _Item, episode: StoredEpisode, values: Any) -> None:
        if len(values) != episode.length:
            raise ValueError(f'episode {episode.name!r}: expected {episode.length} items of '
                             f'{name}, found {len(values)}')
        for step in range(episode.length):
            value: np.ndarray = np.asarray(values[step], item.dtype, order='C')
            if value.shape != item.shape:
                raise ValueError(f'episode {episode.name!r}, step {step}: expected {name} of '
                                 f'shape {item.shape}, found {value.shape}')
            self._files[name].write(value.tobytes())

    def absorb(self, path: Path) -> None:
        """Append all episodes of a complete store of the same streams, and delete it."""
        part, index = FrameStore.load(path), read_index(path)
        for kind, wanted in (('cameras', self._cameras), *self._sizes.items()):
            if index[kind] != wanted:
                raise ValueError(f'{path}: expected the {kind} {wanted}, found {index[kind]}')
        for name, file in self._files.items():
            with open(path / name, 'rb') as source:
                shutil.copyfileobj(source, file, _COPY_BYTES)
        self._episodes += part.episodes
        shutil.rmtree(path)

    @property
    def episodes(self) -> tuple[StoredEpisode, ...]:
        """Return the episodes so far."""
        return tuple(self._episodes)

    def discard(self) -> None:
        """Delete what was written."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk refuses the last bytes as well
                file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def close(self, notes: Mapping[str, str] | None = None) -> FrameStore:
        """
        Write the index, move the store to its place and open it.

        :param notes: file name to text, kept beside the frames.
        """
        if not self._episodes:
            raise ValueError(f'{self.path}: no episode to store')
        for file in self._files.values():
            file.close()
        for name, text in (notes or {}).items():
            (self._partial / name).write_text(text)
        index = {'format': FORMAT, 'key': self._key, 'cameras': self._cameras,
                 **self._sizes, 'episodes': plain(self._episodes)}
        (self._partial / INDEX).write_text(json.dumps(index))
        self._partial.rename(self.path)
        return FrameStore.load(self.path)

    def __enter__(self) -> StoreWriter:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Delete what was written where the block failed."""
        if kind is not None:
            self.discard()


def read_index(path: Path) -> dict[str, Any]:
    """Read a store's index; :raises ValueError: where there is none of this format."""
    try:
        index = json.loads((path / INDEX).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f'{path}: is no frame store ({error}); build it again') from error
    if index.get('format') != FORMAT:
        raise ValueError(f'{path}: expected a frame store of format {FORMAT}, found '
                         f'{index.get("format")}; build it again')
    return index


def _map(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    found = path.stat().st_size
    if found != expected:
        raise ValueError(f'{path}: expected {expected} bytes, found {found}; build it again')
    return np.memmap(path, dtype, 'r', shape=shape).view(np.ndarray)

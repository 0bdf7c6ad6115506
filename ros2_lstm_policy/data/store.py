"""
Frames of all episodes, resized once and kept in flat files that open instantly.

Opening maps the files and reads one small index, so the time to the first batch does not depend on
how much was recorded; a batch copies exactly the frames it needs. `to(device)` keeps all frames on
a GPU, where a batch is one indexing operation.

While a camera sees the same image again and again, as before a robot that waits, it is kept once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
from dataclasses import dataclass, field, replace
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

FORMAT = 3
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

    Of a camera there are I images, at most F.

    :param episodes: in the order of the frames.
    :param images: camera name to (I, H, W, 3) uint8: a memory map, or a tensor on a device.
    :param actions: group name to (F, size) float32, in physical units.
    :param states: state name to (F, size) float32, likewise.
    :param stamps_ns: (F,) int64.
    :param image_of_frame: camera name to (F,) int64, the image of each frame; a camera that is
        not in it has one image a frame.
    """

    episodes: tuple[StoredEpisode, ...]
    images: Mapping[str, Any]
    actions: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray]
    stamps_ns: np.ndarray
    image_of_frame: Mapping[str, np.ndarray] = field(default_factory=dict)

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
        image_of_frame = {camera['name']: _map(path / _numbers(camera['name']), np.int64,
                                               (frames,)) for camera in index['cameras']}
        images = {camera['name']: _map(path / _images(camera['name']), np.uint8,
                                       (index['images'][camera['name']], camera['height'],
                                        camera['width'], 3))
                  for camera in index['cameras']}
        actions, states = ({name: _map(path / f'{kind}.{name}.f32', np.float32, (frames, size))
                            for name, size in index[f'{kind}s'].items()}
                           for kind in ('action', 'state'))
        return cls(episodes, images, actions, states,
                   _map(path / 'stamps_ns.i64', np.int64, (frames,)), image_of_frame)

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
        images, frames = self.images[camera], self.numbers(camera, frames)
        if isinstance(images, torch.Tensor) and images.device.type != 'cpu':
            return images[torch.from_numpy(frames).to(images.device, non_blocking=True)]
        # By NumPy: glibc before 2.38 hardly reuses the aligned memory that torch takes for it, so
        # that a process that gathers would grow by a camera's images with every batch.
        return torch.from_numpy(np.asarray(images)[frames])

    def numbers(self, camera: str, frames: np.ndarray) -> np.ndarray:
        """Return which images of a camera the given frames are; of equal shape."""
        of_frame = self.image_of_frame.get(camera)
        return frames if of_frame is None else of_frame[frames]

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
        self._images = {c.name: 0 for c in manifest.cameras}  # written so far
        self._items: dict[str, _Item] = {
            _images(c.name): _Item(np.uint8, (c.height, c.width, 3)) for c in manifest.cameras}
        self._items |= {_numbers(c.name): _Item(np.int64, ()) for c in manifest.cameras}
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
        columns: dict[str, Any] = {f'action.{name}.f32': values
                                   for name, values in episode.actions.items()}
        columns |= {f'state.{name}.f32': values for name, values in episode.states.items()}
        columns['stamps_ns.i64'] = episode.stamps_ns
        for camera in self._images:
            self._write_images(camera, line, episode.frames[camera])
        for name, values in columns.items():
            for value in self._checked(name, line, values):
                self._files[name].write(value)
        self._episodes.append(line)

    def _write_images(self, camera: str, episode: StoredEpisode, frames: Any) -> None:
        """Write each image that differs from the one before, and which one each frame is."""
        before = None
        for image in self._checked(_images(camera), episode, frames):
            if image != before:
                self._files[_images(camera)].write(image)
                self._images[camera] += 1
            self._files[_numbers(camera)].write(np.int64(self._images[camera] - 1).tobytes())
            before = image

    def _checked(self, name: str, episode: StoredEpisode, values: Any) -> Iterator[bytes]:
        """Yield the bytes of each step's value, which is of the shape that its file holds."""
        item = self._items[name]
        if len(values) != episode.length:
            raise ValueError(f'episode {episode.name!r}: expected {episode.length} items of '
                             f'{name}, found {len(values)}')
        for step in range(episode.length):
            value: np.ndarray = np.asarray(values[step], item.dtype, order='C')
            if value.shape != item.shape:
                raise ValueError(f'episode {episode.name!r}, step {step}: expected {name} of '
                                 f'shape {item.shape}, found {value.shape}')
            yield value.tobytes()

    def absorb(self, path: Path) -> None:
        """Append all episodes of a complete store of the same streams, and delete it."""
        part, index = FrameStore.load(path), read_index(path)
        for kind, wanted in (('cameras', self._cameras), *self._sizes.items()):
            if index[kind] != wanted:
                raise ValueError(f'{path}: expected the {kind} {wanted}, found {index[kind]}')
        for camera, written in self._images.items():
            numbers = np.asarray(part.image_of_frame[camera]) + written
            self._files[_numbers(camera)].write(numbers.tobytes())
            self._images[camera] += len(part.images[camera])
        for name, file in self._files.items():
            if name not in map(_numbers, self._images):
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
                 'images': self._images, **self._sizes, 'episodes': plain(self._episodes)}
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


def _images(camera: str) -> str:
    """Return the name of the file of a camera's images."""
    return f'{camera}.u8'


def _numbers(camera: str) -> str:
    """Return the name of the file that says which image each frame is."""
    return f'{camera}.i64'


def _map(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    found = path.stat().st_size
    if found != expected:
        raise ValueError(f'{path}: expected {expected} bytes, found {found}; build it again')
    return np.memmap(path, dtype, 'r', shape=shape).view(np.ndarray)

"""
From recordings to a frame store, once.

The store lies in a cache under a key made of everything that decides its contents: the files (by
name, size and time of change), how they are read, the cameras' sizes, the limits, and the code
that reads, checks and resizes. While none of these changes, opening it costs a listing of the
files, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass, field, replace
import fcntl
import hashlib
import json
from pathlib import Path
import shutil
import tempfile
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ros2_lstm_policy
from ros2_lstm_policy import transforms
from ros2_lstm_policy.config import plain
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.episodes import Recording, Wanted
from ros2_lstm_policy.data.folders import walk
from ros2_lstm_policy.data.problems import Problem, RecordingError
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.data.store import FORMAT, FrameStore, PARTIAL, StoreWriter
from ros2_lstm_policy.manifest import CameraSpec, Manifest
from ros2_lstm_policy.process_pool import in_order
from ros2_lstm_policy.types import Episode, FrameSequence
from tqdm import tqdm

_PROBLEMS = 'problems.txt'
_PARTS = '.parts'


@dataclass(frozen=True)
class StoreRequest:
    """
    Everything that decides what a store holds.

    :param manifest: whose cameras, states and groups are stored; its statistics are not used.
    :param limits: what a plausible recording holds.
    """

    sources: tuple[SourceSpec, ...]
    manifest: Manifest
    limits: Limits = field(default_factory=Limits)

    def recordings(self) -> list[list[Recording]]:
        """List the recordings of each source; :raises RecordingError: for one that is none."""
        return [open_source(source, Wanted.of(self.manifest), self.limits.period_s)
                for source in self.sources]

    def _decisive(self) -> list[Any]:
        """Return what of the manifest decides what is read, as plain values."""
        groups = [replace(g, normalisation=None, largest=None) for g in self.manifest.actions]
        states = [replace(s, normalisation=None) for s in self.manifest.states]
        return [plain(part) for part in (self.manifest.cameras, groups, states)]

    def key(self) -> str:
        """Return a hash of the request and of the files' names, sizes and times."""
        digest = hashlib.sha256()
        # The weights choose windows, not frames.
        sources = [plain(source) | {'weight': None} for source in self.sources]
        digest.update(json.dumps(
            [FORMAT, rules_version(), sources, *self._decisive(), plain(self.limits)],
            sort_keys=True).encode())
        for source in self.sources:
            for name, size, changed_ns in _files(Path(source.path)):
                digest.update(f'{name}\0{size}\0{changed_ns}\n'.encode())
        return digest.hexdigest()[:32]


def rules_version(package: Path = Path(ros2_lstm_policy.__file__).parent) -> str:
    """
    Return a hash of the code that decides what of a recording is kept: this room and those below.

    Without it, a store keeps for ever what a later rule refuses.
    """
    digest = hashlib.sha256()
    for path in sorted([*package.glob('*.py'), *(package / 'data').rglob('*.py')]):
        digest.update(f'{path.relative_to(package)}\0'.encode() + path.read_bytes())
    return digest.hexdigest()


def open_store(request: StoreRequest, cache: Path, workers: int = 4,
               tell: Callable[[str], None] = lambda line: None) -> FrameStore:
    """
    Open the store of a request, building it first where the cache has none.

    Episodes that break a rule are left out, and every problem is told, on each opening.

    :param cache: folder of stores; each has its own under it.
    :param workers: processes that read, check, decode and resize; 1 does it in this one.
    :param tell: takes one line for each problem and for the outcome.
    :raises RecordingError: where a source is no dataset.
    :raises ValueError: where no episode is left, or the cache cannot be written.
    :raises MemberLost: where a process was killed; the message names the recording.
    """
    path = Path(cache) / request.key()
    with _only_one(path):
        if not path.exists():
            _build(request, path, workers)
    for line in (path / _PROBLEMS).read_text().splitlines():
        tell(line)
    store = FrameStore.load(path)
    failures = sum(episode.success is False for episode in store.episodes)
    tell(f'{len(store.episodes)} episodes{f" ({failures} labelled failures)" if failures else ""}'
         f', {sum(store.lengths)} steps, '
         f'{store.nbytes / 1e6:.0f} MB of frames in {path}')
    return store


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Let a second process that wants the same store wait for the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix('.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(request: StoreRequest, path: Path, workers: int) -> None:
    """
    Read all recordings, each into a small store of its own, and join these in their order.

    The parts lie beside the store, so that a process that outlives a killed parent never writes
    into what the next build has.
    """
    jobs = [(number, recording) for number, recordings in enumerate(request.recordings())
            for recording in recordings]
    problems: list[Problem] = []
    _clear_away(path)
    try:
        with StoreWriter(path, request.manifest, path.name) as writer, \
                TemporaryDirectory(_PARTS, f'{path.name}.', path.parent) as folder, \
                contextlib.closing(in_order(_Reader(request, Path(folder)), jobs, workers,
                                            _name)) as parts:
            for part in tqdm(parts, total=len(jobs), unit='recording', desc='reading episodes'):
                problems += part.problems
                if part.path is not None:
                    writer.absorb(part.path)
            _require_all(request, writer, problems)
            writer.close({_PROBLEMS: ''.join(f'{problem}\n' for problem in problems)})
    except OSError as error:
        raise ValueError(f'{path.parent}: the frames cannot be stored there ({error}); make room, '
                         'or choose another cache') from error


def _clear_away(path: Path) -> None:
    """Delete what killed builds left: of this store, and of those that nobody builds now."""
    for left in (*path.parent.glob(f'*{PARTIAL}'), *path.parent.glob(f'*{_PARTS}')):
        key = left.name.partition('.')[0]
        with open(path.parent / f'{key}.lock', 'w') as lock:
            if key != path.name:  # whose lock is ours
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
            shutil.rmtree(left)


def _require_all(request: StoreRequest, writer: StoreWriter, problems: list[Problem]) -> None:
    """Refuse a source that gave nothing: a mixture without it is not what was asked for."""
    found = {episode.source for episode in writer.episodes}
    nothing = [str(source.path) for number, source in enumerate(request.sources)
               if number not in found]
    if nothing:
        raise ValueError(f'{", ".join(nothing)}: no episode is left to train on:\n'
                         + '\n'.join(map(str, problems)))


_Job = tuple[int, Recording]  # the number of its source, and what is to be read


def _name(job: _Job) -> str:
    return f'{job[1].where}: {job[1].name}'


@dataclass(frozen=True)
class _Part:
    """What one recording gave; :param path: a store of its episodes, None where it has none."""

    path: Path | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Reader:
    """Reads one recording into a store of its own, in whichever process."""

    request: StoreRequest
    folder: Path

    def __call__(self, job: _Job) -> _Part:
        """Read it; whatever is wrong with it is in the answer."""
        source, recording = job
        readings, problems = read_checked(recording, self.request.limits,
                                          self.request.manifest.cameras)
        if not readings:
            return _Part(None, tuple(problems))
        path = Path(tempfile.mkdtemp(dir=self.folder)) / 'part'
        try:
            with StoreWriter(path, self.request.manifest) as writer:
                for reading in readings:
                    self._append(writer, reading.episode, source)
                writer.close()
        except RecordingError as error:  # over one of its images
            return _Part(None, (*problems, error.problem))
        return _Part(path, tuple(problems))

    def _append(self, writer: StoreWriter, episode: Episode, source: int) -> None:
        images = {camera.name: _Resized(episode.frames[camera.name], camera)
                  for camera in self.request.manifest.cameras}
        writer.append(replace(episode, frames=images), source)


@dataclass(frozen=True)
class _Resized:
    """A `types.FrameSequence` of another one's images at a camera's size."""

    frames: FrameSequence
    camera: CameraSpec

    def __len__(self) -> int:
        """Return T."""
        return len(self.frames)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (h, w, 3) uint8 image."""
        return transforms.resize(self.frames[index], self.camera)


def _files(root: Path) -> list[tuple[str, int, int]]:
    paths = [root] if root.is_file() else [
        folder / name for folder, _, names in walk(root) for name in names
        if (folder / name).is_file()
        and not name.endswith('-shm')]  # sqlite3's index of a log, written by reading it
    found = []
    for path in paths:
        status = path.stat()
        found.append((str(path.relative_to(root.parent)), status.st_size, status.st_mtime_ns))
    return sorted(found)

"""
From recordings to a frame store, once.

The store lies in a cache under a key made of everything that decides its contents: the files (by
name, size and time of change), how they are read, the cameras' sizes and the limits. While none of
these changes, opening it costs a listing of the files, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
import contextlib
from dataclasses import dataclass, field
import fcntl
import hashlib
import json
from pathlib import Path

import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.config import plain
from ros2_lstm_policy.data.checks import check, Limits
from ros2_lstm_policy.data.episodes import Recording
from ros2_lstm_policy.data.problems import Problem, RecordingError
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.data.store import FORMAT, FrameStore, StoredEpisode, StoreWriter
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.types import Episode
from tqdm import tqdm

_PROBLEMS = 'problems.txt'


@dataclass(frozen=True)
class StoreRequest:
    """
    Everything that decides what a store holds.

    :param cameras: the manifest's cameras.
    :param limits: what a plausible recording holds.
    """

    sources: tuple[SourceSpec, ...]
    cameras: tuple[CameraSpec, ...]
    limits: Limits = field(default_factory=Limits)

    def recordings(self) -> list[list[Recording]]:
        """List the recordings of each source; :raises RecordingError: for one that is none."""
        names = [camera.name for camera in self.cameras]
        return [open_source(source, names, self.limits.period_s) for source in self.sources]

    def key(self) -> str:
        """Return a hash of the request and of the files' names, sizes and times."""
        digest = hashlib.sha256()
        # The weights choose windows, not frames.
        sources = [plain(source) | {'weight': None} for source in self.sources]
        digest.update(json.dumps([FORMAT, sources, plain(self.cameras), plain(self.limits)],
                                 sort_keys=True).encode())
        for source in self.sources:
            for name, size, changed_ns in _files(Path(source.path)):
                digest.update(f'{name}\0{size}\0{changed_ns}\n'.encode())
        return digest.hexdigest()[:32]


def open_store(request: StoreRequest, cache: Path, workers: int = 4,
               tell: Callable[[str], None] = lambda line: None) -> FrameStore:
    """
    Open the store of a request, building it first where the cache has none.

    Episodes that break a rule are left out, and every problem is told, on each opening.

    :param cache: folder of stores; each has its own under it.
    :param workers: threads that read and decode.
    :param tell: takes one line for each problem and for the outcome.
    :raises RecordingError: where a source is no dataset.
    :raises ValueError: where no episode is left, or the cache cannot be written.
    """
    path = Path(cache) / request.key()
    with _only_one(path):
        if not path.exists():
            _build(request, path, workers)
    for line in (path / _PROBLEMS).read_text().splitlines():
        tell(line)
    store = FrameStore.load(path)
    tell(f'{len(store.episodes)} episodes, {sum(store.lengths)} steps, '
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
    problems: list[Problem] = []
    jobs = [(number, recording) for number, recordings in enumerate(request.recordings())
            for recording in recordings]
    writer = StoreWriter(path, request.cameras, path.name)
    try:
        for loaded in tqdm(_in_order(jobs, request, workers), total=len(jobs), unit='recording',
                           desc='reading episodes'):
            problems += loaded.problems
            for episode in loaded.episodes:
                writer.append(*episode)
        if writer.count:
            writer.close({_PROBLEMS: ''.join(f'{problem}\n' for problem in problems)})
            return
    except OSError as error:
        writer.discard()
        raise ValueError(f'{path.parent}: the frames cannot be stored there ({error}); make room, '
                         'or choose another cache') from error
    writer.discard()
    raise ValueError('no episode is left to train on:\n' + '\n'.join(map(str, problems)))


@dataclass(frozen=True)
class _Loaded:
    """What one recording gave: arguments of `StoreWriter.append`, and problems."""

    episodes: list[tuple]
    problems: list[Problem]


def _in_order(jobs: Sequence[tuple[int, Recording]], request: StoreRequest,
              workers: int) -> Iterator[_Loaded]:
    """Load recordings in parallel, at most two ahead of each worker, in their order."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[_Loaded]] = []
        for number, recording in jobs:
            waiting.append(pool.submit(_load, recording, number, request))
            if len(waiting) >= 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _load(recording: Recording, source: int, request: StoreRequest) -> _Loaded:
    episodes: list[tuple] = []
    problems: list[Problem] = []
    try:
        for reading in recording.read():
            found = check(reading, recording.where, request.limits)
            problems += found
            if not any(problem.fatal for problem in found):
                episodes.append(_resized(reading.episode, source, request.cameras))
    except RecordingError as error:
        return _Loaded([], [*problems, error.problem])
    return _Loaded(episodes, problems)


def _resized(episode: Episode, source: int, cameras: Sequence[CameraSpec]) -> tuple:
    images = {}
    for camera in cameras:
        frames = episode.frames[camera.name]
        small = np.empty((len(episode), camera.height, camera.width, 3), np.uint8)
        for step in range(len(episode)):
            small[step] = transforms.resize(frames[step], camera)
        images[camera.name] = small
    line = StoredEpisode(episode.name, episode.instruction, len(episode), source, episode.success)
    return line, images, episode.arm, episode.gripper_open, episode.stamps_ns


def _files(root: Path) -> list[tuple[str, int, int]]:
    paths = [root] if root.is_file() else [p for p in root.rglob('*') if p.is_file()]
    found = []
    for path in paths:
        status = path.stat()
        found.append((str(path.relative_to(root.parent)), status.st_size, status.st_mtime_ns))
    return sorted(found)

"""
Batches for training and validation out of a frame store, wherever its frames lie.

One rule (:func:`ros2_lstm_policy.data.windows.gather`) makes every batch. With `resident: device`
the frames are on the GPU: the workers gather labels and frame numbers, and the images are looked
up on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import hashlib
from typing import Any, Literal, NamedTuple, TYPE_CHECKING

import numpy as np
from ros2_lstm_policy.data.image_text import PairBatch, PairSet
from ros2_lstm_policy.data.lanes import Lanes, one_pass
from ros2_lstm_policy.data.repeats import Distinct, distinct
from ros2_lstm_policy.data.sampler import BatchOrder, Share, Stream
from ros2_lstm_policy.data.store import FrameStore, StoredEpisode
from ros2_lstm_policy.data.windows import gather, WindowIndex
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.types import Batch

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import DataLoader

_ALONE = Share()
_FRAMES_A_SHAPE = 256  # distinct frames of a batch are filled up to a multiple of so many
_COPY_FRAMES = 16384  # frames copied to a device at once


@dataclass(frozen=True)
class LoaderConfig:
    """
    How batches are made.

    :param batch_size: windows of one process in one batch; with `history: carry` its lanes.
    :param workers: processes that gather batches; 0 gathers in the training process.
    :param resident: where the frames are: on the training device (fastest), in memory, or on
        disk (mapped; for more than memory holds); 'auto' takes the first of them where they fill
        half of what is free at most.
    :param cached_features: augmented copies of a frozen image network's features that are kept on
        the device, instead of images; 0 for none. Needs `resident: device`.
    :param validation_share: share of the episodes that training never sees.
    """

    batch_size: int = 2
    workers: int = 4
    resident: Literal['auto', 'device', 'memory', 'disk'] = 'auto'
    cached_features: int = 0
    validation_share: float = 0.05

    def __post_init__(self) -> None:
        """Refuse batches of nothing."""
        if self.batch_size < 1 or self.workers < 0:
            raise ValueError('batch_size must be at least 1 and workers not negative')
        if self.cached_features < 0 or (self.cached_features and self.resident != 'device'):
            raise ValueError('cached_features must not be negative, and needs resident: device')
        if not 0 < self.validation_share < 1:
            raise ValueError(f'validation_share must be between 0 and 1, found '
                             f'{self.validation_share}: the best checkpoint is chosen on it')


class TrainingBatch(NamedTuple):
    """
    What one process trains on at once.

    :param windows: windows; with `resident: device` their images are frame numbers until
        :meth:`DataModule.on_device`.
    :param pairs: image-text pairs of co-training, or None.
    :param begins_B: bool; the windows that begin their episode, where the others go on with what
        the same row of the batch before knew. None where every window begins with nothing.
    :param weights_BT: what each step weighs; None for all alike.
    :param distinct: which steps see something new; None where all do.
    """

    windows: Batch
    pairs: PairBatch | None = None
    begins_B: Tensor | None = None
    weights_BT: Tensor | None = None
    distinct: Distinct | None = None


def held_out(names: Sequence[str], share: float) -> np.ndarray:
    """
    Choose validation episodes by their names.

    An episode stays on its side when others are added. At least one is held out.

    :return: (E,) bool.
    :raises ValueError: where no episode would be left to train on.
    """
    if len(names) < 2:
        raise ValueError(f'expected at least 2 episodes, one to train on and one to validate on; '
                         f'found {len(names)}')
    draws = np.array([_draw(name) for name in names])
    chosen = draws < share
    if not chosen.any():
        chosen[draws.argmin()] = True
    if chosen.all():
        raise ValueError(f'all {len(names)} episodes would be held out for validation; lower '
                         f'validation_share below {share}')
    return chosen


def _draw(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'big') / 2 ** 64


@dataclass(frozen=True)
class Split:
    """
    Windows of training and of validation.

    :param train: numbers of the windows of training episodes.
    :param validation: numbers of the windows measured, from held-out episodes.
    :param held_out: how many episodes these are.
    :param used_E: (E,) bool, the episodes that are trained or validated on.
    """

    train: np.ndarray
    validation: np.ndarray
    held_out: int
    used_E: np.ndarray


def split_windows(index: WindowIndex, held_out_E: np.ndarray, used_E: np.ndarray,
                  most: int) -> Split:
    """
    Separate the windows by episode.

    :param held_out_E: the episodes to validate on.
    :param used_E: the episodes whose windows are used at all.
    :param most: windows of validation, evenly spread.
    """
    ids = np.arange(len(index))
    episodes = index.episodes(ids)
    validation = ids[(held_out_E & used_E)[episodes]]
    return Split(ids[(~held_out_E & used_E)[episodes]], _spread(validation, most),
                 int((held_out_E & used_E).sum()), used_E)


def split_episodes(index: WindowIndex, held_out_E: np.ndarray, used_E: np.ndarray,
                   most: int) -> Split:
    """Separate the windows likewise, and validate on whole episodes, at least on one."""
    split = split_windows(index, held_out_E, used_E, len(index))
    episodes = np.unique(index.episodes(split.validation))
    chosen = _spread(episodes, max(1, int(most / index.counts[episodes].mean())))
    measured = np.isin(index.episodes(split.validation), chosen)
    return replace(split, validation=split.validation[measured])


def _spread(values: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many of the values, evenly spread."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)]


class WindowSource:
    """A map-style data set whose 'index' is all the windows and pairs of one batch."""

    def __init__(self, store: FrameStore, index: WindowIndex, manifest: Manifest,
                 future: int = 0, future_cameras: Sequence[str] = (),
                 pairs: PairSet | None = None, carry: bool = False,
                 weights_F: np.ndarray | None = None) -> None:
        """
        Bind what gathering needs.

        :param future: next frames for forward prediction.
        :param carry: windows go on where others ended.
        :param weights_F: what each step of the store weighs; None for all alike.
        """
        self._carry, self._weights_F = carry, weights_F
        self._store, self._index, self._manifest = store, index, manifest
        self._future = replace(index, chunk=future) if future else None
        self._future_cameras = tuple(future_cameras)
        self._pairs = pairs

    def __getitem__(self, request: tuple[np.ndarray, np.ndarray]) -> TrainingBatch:
        """Gather one batch."""
        import torch
        ids, pair_ids = request
        batch = gather(self._store, self._index, ids, self._manifest)
        if self._future is not None:
            frames_BTF = self._future.future_frames(ids)
            batch = batch._replace(future_images={
                name: self._store.take(name, frames_BTF) for name in self._future_cameras})
        pairs = self._pairs.gather(pair_ids) if self._pairs and len(pair_ids) else None
        begins = torch.from_numpy(self._index.begins(ids)) if self._carry else None
        weights = (None if self._weights_F is None
                   else torch.from_numpy(self._weights_F[self._index.frames(ids)]))
        frames_BT = self._index.frames(ids)
        seen = distinct([self._store.numbers(camera.name, frames_BT)
                         for camera in self._manifest.cameras], _FRAMES_A_SHAPE)
        return TrainingBatch(batch, pairs, begins, weights, seen)


class DataModule:
    """
    Loaders over one store, and the frames on the device where they are kept there.

    :param order: which windows each batch of training holds.
    :param lanes: the same as segments of episodes, where a state is carried; else None.
    """

    def __init__(self, store: FrameStore, config: LoaderConfig, manifest: Manifest,
                 index: WindowIndex, split: Split, seed: int, *, share: Share = _ALONE,
                 source_weights: Sequence[float] = (), future: int = 0,
                 future_cameras: Sequence[str] = (), pairs: PairSet | None = None,
                 pair_batch_size: int = 0, validation_batch_size: int = 64,
                 carry: bool = False, weights_F: np.ndarray | None = None) -> None:
        """
        Prepare loading; nothing large is read yet.

        :param share: this process's part of every global batch.
        :param source_weights: one a source of the store; empty for by size.
        :param carry: read whole episodes in lanes: the index's windows are their segments.
        :param weights_F: what each step of the store weighs; None for all alike.
        """
        self.store, self.config, self.manifest = store, config, manifest
        self.index, self.split = index, split
        self._share, self._validation_batch_size = share, validation_batch_size
        self._frames: dict[str, Tensor] | None = None
        self._source = WindowSource(self._reachable(), index, manifest, future, future_cameras,
                                    pairs, carry, weights_F)
        self.lanes = self._lanes(seed, tuple(source_weights)) if carry else None
        pair_stream = Stream(len(pairs), seed + 1) if pairs else None
        windows = np.arange(len(index)) if carry else split.train
        self.order = BatchOrder(windows, self.lanes or self._stream(seed, tuple(source_weights)),
                                config.batch_size, share, pair_stream, pair_batch_size)

    def _stream(self, seed: int, weights: tuple[float, ...]) -> Stream:
        """Return the windows of training in random order."""
        episodes = self.index.episodes(self.split.train)
        return Stream(len(episodes), seed, self._sources(episodes), weights)

    def _lanes(self, seed: int, weights: tuple[float, ...]) -> Lanes:
        """Return the episodes of training in random order, in lanes."""
        episodes = np.unique(self.index.episodes(self.split.train))
        sources, counts = self._sources(episodes), self.index.counts[episodes]
        if weights:  # by what is seen of each source, and an episode is seen as long as it is
            number = np.maximum(np.bincount(sources, minlength=len(weights)), 1)
            length = np.maximum(np.bincount(sources, counts, len(weights)) / number, 1)
            weights = tuple((np.array(weights) / length).tolist())
        names = [self.store.episodes[episode].name for episode in episodes]
        return Lanes(self.index, episodes, Stream(len(episodes), seed, sources, weights),
                     self.config.batch_size * self._share.world, names)

    def _sources(self, episodes: np.ndarray) -> np.ndarray:
        """Return the source of each of these episodes."""
        return np.array([episode.source for episode in self.store.episodes])[episodes]

    @property
    def episodes(self) -> tuple[StoredEpisode, ...]:
        """Return the episodes that are trained or validated on."""
        return tuple(episode for episode, is_used in zip(self.store.episodes, self.split.used_E)
                     if is_used)

    @property
    def batches_per_epoch(self) -> float:
        """Return the batches of each process in one pass over the training windows."""
        return len(self.split.train) / (self.config.batch_size * self._share.world)

    def _reachable(self) -> FrameStore:
        """Return the store as the workers see it."""
        if self.config.resident == 'disk':
            return self.store
        if self.config.resident == 'memory':
            return self.store.to('cpu')
        if self.config.cached_features:  # which are looked up by frame
            frames = np.arange(sum(self.store.lengths))
            return replace(self.store, images=dict.fromkeys(self.store.images, frames),
                           image_of_frame={})
        return replace(self.store, images={name: np.arange(len(images))
                                           for name, images in self.store.images.items()})

    def train_loader(self) -> DataLoader[Any]:
        """Return an endless loader that begins at batch `order.start`."""
        return self._loader(self.order)

    def validation_loader(self) -> DataLoader[Any]:
        """Return a loader over this process's part of the validation windows."""
        nothing = np.empty(0, np.int64)
        return self._loader([[(ids, nothing)] for ids in self._validation_batches()])

    def _validation_batches(self) -> list[np.ndarray]:
        mine, size = slice(self._share.rank, None, self._share.world), self._validation_batch_size
        if self.lanes is not None:
            episodes = np.unique(self.index.episodes(self.split.validation))
            if len(episodes) >= self._share.world:  # else all measure all: the means are the same
                episodes = episodes[mine]
            return one_pass(self.index, episodes, size)
        ids = self.split.validation[mine]
        return [ids[i:i + size] for i in range(0, len(ids), size)]

    def _loader(self, requests: Any) -> DataLoader[Any]:
        import torch
        from torch.utils.data import DataLoader
        workers = self.config.workers
        return DataLoader(self._source, batch_sampler=requests, collate_fn=_only,  # type: ignore
                          num_workers=workers, pin_memory=torch.cuda.is_available(),
                          persistent_workers=workers > 0, worker_init_fn=_begin_worker,
                          generator=torch.Generator())  # the global one is the model's

    def on_device(self, batch: TrainingBatch, device: torch.device) -> TrainingBatch:
        """Look frame numbers up where the frames are on the device; elsewhere change nothing."""
        if self.config.resident != 'device':
            return batch
        windows = batch.windows
        images = windows.images  # with cached features they stay numbers
        if not self.config.cached_features:
            images = self._look_up(images, device)
        return batch._replace(windows=windows._replace(
            images=images,
            future_images=self._look_up(windows.future_images, device)))

    def _look_up(self, numbers: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        import torch
        if device.type == 'cpu':
            return {name: torch.from_numpy(np.asarray(self.store.images[name])[value.numpy()])
                    for name, value in numbers.items()}
        if self._frames is None:
            self._frames = {name: _upload(images, device)
                            for name, images in self.store.images.items()}
        return {name: self._frames[name][value] for name, value in numbers.items()}


def _upload(images: Any, device: torch.device) -> Tensor:
    """Copy mapped frames to a device in pieces, without a second copy in memory."""
    import torch
    frames = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for begin in range(0, len(images), _COPY_FRAMES):
        piece = np.array(images[begin:begin + _COPY_FRAMES])
        frames[begin:begin + _COPY_FRAMES] = torch.from_numpy(piece).to(device)
    return frames


def _only(samples: list[TrainingBatch]) -> TrainingBatch:
    """Return the one 'sample' of a request: it is a batch already."""
    return samples[0]


def _begin_worker(_: int) -> None:
    """Leave Ctrl-C to the training process, and the cores to the other workers."""
    import signal

    import torch
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)

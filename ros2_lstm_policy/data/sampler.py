"""
Which windows each batch holds: a pure function of the batch's number.

So resuming needs nothing but that number, workers need no random state, and any number of
processes share one global batch: the same windows whether one process takes them or eight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from ros2_lstm_policy.data.windows import mixed_ids


class Places(Protocol):
    """An endless order of numbers."""

    def take(self, start: int, count: int) -> np.ndarray:
        """Return the numbers at places start ... start + count - 1."""


@dataclass(frozen=True, eq=False)
class Stream:
    """
    Numbers 0 ... N - 1 in a new random order each epoch, without end.

    :param sources_N: the source of each number, where sources are mixed by weight.
    :param weights: one a source; empty takes every number once an epoch.
    """

    count: int
    seed: int
    sources_N: np.ndarray | None = None
    weights: tuple[float, ...] = ()

    def take(self, start: int, count: int) -> np.ndarray:
        """Return the numbers at places start ... start + count - 1 of the stream."""
        places = np.arange(start, start + count)
        epochs, within = np.divmod(places, self.count)
        return np.concatenate([_epoch(self, int(epoch))[within[epochs == epoch]]
                               for epoch in np.unique(epochs)])


@lru_cache(maxsize=8)
def _epoch(stream: Stream, epoch: int) -> np.ndarray:
    rng = np.random.default_rng((stream.seed, epoch))
    if not stream.weights:
        return rng.permutation(stream.count)
    assert stream.sources_N is not None
    return mixed_ids(stream.sources_N, stream.weights, stream.count, rng)


@dataclass(frozen=True)
class Share:
    """The part of a global batch that one of `world` processes takes."""

    rank: int = 0
    world: int = 1


class BatchOrder:
    """
    The batches of one process, from some batch on; a batch sampler for a DataLoader.

    :param start: the number of the next batch.
    """

    def __init__(self, windows: Sequence[int] | np.ndarray, stream: Places, batch_size: int,
                 share: Share, pairs: Stream | None = None, pair_batch_size: int = 0) -> None:
        """
        Order the given windows.

        :param windows: the numbers that training may use.
        :param stream: the order in which it does, as places in `windows`.
        :param batch_size: windows of one process in one batch.
        """
        self._windows, self._stream = np.asarray(windows), stream
        self._batch_size, self._share = batch_size, share
        self._pairs, self._pair_batch_size = pairs, pair_batch_size
        self.start = 0

    def batch(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows and the pairs of this process in batch `number`."""
        windows = self._windows[self._part(self._stream, self._batch_size, number)]
        if self._pairs is None:
            return windows, np.empty(0, np.int64)
        return windows, self._part(self._pairs, self._pair_batch_size, number)

    def _part(self, stream: Places, size: int, number: int) -> np.ndarray:
        everyone = size * self._share.world
        return stream.take(number * everyone + self._share.rank * size, size)

    def __iter__(self) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """Yield requests without end; a request is the one 'sample' that makes a batch."""
        number = self.start
        while True:
            yield [self.batch(number)]
            number += 1

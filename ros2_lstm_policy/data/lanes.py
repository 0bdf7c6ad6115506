"""
Which segment of which episode each lane of a batch reads, for a state that is carried on.

A lane reads one episode after the other, each from its first segment to its last, one segment a
batch; so what the recurrence knew after a lane's row of one batch is what it knows before that row
of the next. Episodes are taken from one endless stream, each by the lane that is free first:
lanes are always full, whatever the lengths, and every episode is read once a pass over the data.

All of it follows from the batch's number, as in :mod:`.order`.

Letters: E episode.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
import hashlib
import heapq

import numpy as np
from ros2_lstm_policy.data.sampler import Stream
from ros2_lstm_policy.data.windows import WindowIndex

_BLOCK = 1024  # episodes taken from the stream at once


class Lanes:
    """
    The segments of endless batches; place p of the order is lane p % lanes of batch p // lanes.

    :param origin: the batch in which the lanes begin.
    :param key: the same for the same plan, so that a state fits only where it was left.
    """

    def __init__(self, index: WindowIndex, episodes_E: np.ndarray, stream: Stream,
                 lanes: int, names: Sequence[str] = ()) -> None:
        """
        Plan nothing yet.

        :param index: whose windows are segments.
        :param episodes_E: numbers of the episodes that are read.
        :param stream: the order of these, as numbers 0 ... E - 1.
        :param lanes: of all processes together.
        :param names: of the episodes, for the key.
        """
        self._first_E = index.first_windows()[episodes_E]
        self._counts_E = index.counts[episodes_E]
        self._stream, self._lanes, self.origin = stream, lanes, 0
        self._begins: list[list[int]] = [[] for _ in range(lanes)]  # batches after the origin
        self._windows: list[list[int]] = [[] for _ in range(lanes)]  # read in these batches
        self._free = [(0, lane) for lane in range(lanes)]  # a heap of when each lane is free
        self._taken, self._block = 0, np.empty(0, np.int64)
        told = (index.window, lanes, stream.seed, stream.weights, self._first_E.tolist(),
                self._counts_E.tolist(), tuple(names))
        self.key = hashlib.sha256(repr(told).encode()).hexdigest()

    def take(self, start: int, count: int) -> np.ndarray:
        """Return the windows at places start ... start + count - 1."""
        numbers, lanes = np.divmod(np.arange(start, start + count), self._lanes)
        return np.array([self._window(int(number) - self.origin, int(lane))
                         for number, lane in zip(numbers, lanes)], np.int64)

    def _window(self, number: int, lane: int) -> int:
        while self._free[0][0] <= number:
            self._plan_an_episode()
        place = bisect_right(self._begins[lane], number) - 1
        return self._windows[lane][place] + number - self._begins[lane][place]

    def _plan_an_episode(self) -> None:
        """Give the next episode to the lane that is free first."""
        begin, lane = self._free[0]
        episode = self._next_episode()
        segments = int(self._counts_E[episode])
        if begin == 0:
            # Episodes of one length would keep all lanes in step, each batch all beginnings or
            # all ends; so the first episodes are left early, each lane at another moment.
            segments = -(-segments * (lane + 1) // self._lanes)
        self._begins[lane].append(begin)
        self._windows[lane].append(int(self._first_E[episode]))
        heapq.heapreplace(self._free, (begin + segments, lane))

    def _next_episode(self) -> int:
        within = self._taken % _BLOCK
        if within == 0:
            self._block = self._stream.take(self._taken, _BLOCK)
        self._taken += 1
        return int(self._block[within])


def one_pass(index: WindowIndex, episodes: Sequence[int] | np.ndarray,
             most_lanes: int) -> list[np.ndarray]:
    """
    Read some episodes once, whole.

    :return: the segments of each batch. A batch is as long as the one before or shorter: lanes
        that have no more to read are at its end.
    """
    counts, first = index.counts, index.first_windows()
    lanes: list[list[np.ndarray]] = [[] for _ in range(min(most_lanes, len(episodes)))]
    loads = [(0, lane) for lane in range(len(lanes))]
    for episode in sorted(episodes, key=lambda episode: -counts[episode]):
        load, lane = loads[0]
        lanes[lane].append(first[episode] + np.arange(counts[episode]))
        heapq.heapreplace(loads, (load + int(counts[episode]), lane))
    rows = sorted((np.concatenate(lane) for lane in lanes), key=len, reverse=True)
    longest = len(rows[0]) if rows else 0
    return [np.array([row[number] for row in rows if number < len(row)])
            for number in range(longest)]

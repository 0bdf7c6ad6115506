"""
LeRobot's rules of scaling and of sampling, in NumPy: what its data set and processors do.

Letters: F frame, D feature, B sample in a batch, T offset from the sample's step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SMALLEST_SCALE = 1e-6  # of a value that never changes


@dataclass(frozen=True)
class Scaling:
    """
    normalised = (value - offset) / scale.

    :param offset: D values.
    :param scale: D positive values.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, values_FD: np.ndarray, mode: str) -> Scaling:
        """
        Return the scaling of recorded values.

        :param mode: LeRobot's 'MEAN_STD', or 'MIN_MAX', which maps to -1 ... 1.
        :raises ValueError: for another mode.
        """
        values = np.asarray(values_FD, np.float64)
        if mode == 'MEAN_STD':
            offset, scale = values.mean(0), values.std(0)
        elif mode == 'MIN_MAX':
            low, high = values.min(0), values.max(0)
            offset, scale = (high + low) / 2, (high - low) / 2
        else:
            raise ValueError(f'expected MEAN_STD or MIN_MAX, found {mode}')
        scale = np.where(scale < _SMALLEST_SCALE, 1.0, scale)
        return cls(tuple(offset.tolist()), tuple(scale.tolist()))

    @classmethod
    def identity(cls, values: int) -> Scaling:
        """Return the scaling that changes nothing."""
        return cls((0.0,) * values, (1.0,) * values)

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Return (..., D) float32."""
        return ((values - np.array(self.offset)) / np.array(self.scale)).astype(np.float32)

    def invert(self, normalised: np.ndarray) -> np.ndarray:
        """Undo :meth:`normalise`."""
        return (normalised * np.array(self.scale) + np.array(self.offset)).astype(np.float32)


class EpisodeFrames:
    """Where the frames of episodes lie that follow one another in a store."""

    def __init__(self, lengths: Sequence[int]) -> None:
        """Lay out episodes of these lengths."""
        ends = np.cumsum(lengths)
        self.episode_F = np.repeat(np.arange(len(lengths)), lengths)
        self._begin_F = np.repeat(ends - np.asarray(lengths), lengths)
        self._end_F = np.repeat(ends, lengths)

    def samples(self, chosen_E: np.ndarray, dropped: int) -> np.ndarray:
        """
        Return the frames at which a sample may be.

        :param chosen_E: (E,) bool, episodes to take.
        :param dropped: frames at each episode's end that are none.
        """
        frames = np.arange(len(self.episode_F))
        return frames[chosen_E[self.episode_F] & (frames < self._end_F - dropped)]

    def around(self, samples_B: np.ndarray,
               offsets_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the frames at offsets from the samples.

        :return: (B, T) frames, the episode's first or last one for those beyond its ends, and
            (B, T) bool, which were beyond.
        """
        wanted = samples_B[:, None] + offsets_T
        begin, end = self._begin_F[samples_B, None], self._end_F[samples_B, None]
        return np.clip(wanted, begin, end - 1), (wanted < begin) | (wanted >= end)

"""
Statistics of a LeRobot dataset, with the keys, shapes and sampling of LeRobot's own.

Source: lerobot/datasets/compute_stats.py of LeRobot 0.4 to 0.6. Theirs estimates quantiles from
histograms of 5000 bins, and those of the whole from those of the episodes; ours are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
_FEWEST_IMAGES, _MOST_IMAGES, _POWER = 100, 10_000, 0.75
_LARGE_PX, _WANTED_PX = 300, 150
_LEVELS = 256

Table = Mapping[str, Any]


def of_rows(values: np.ndarray) -> Table:
    """
    Return min, max, mean, std, count and quantiles of a column.

    :param values: (T,) or (T, D).
    :return: plain lists of D numbers, and of one for the count.
    """
    rows = np.asarray(values, np.float64).reshape(len(values), -1)
    table = {'min': rows.min(0), 'max': rows.max(0), 'mean': rows.mean(0), 'std': rows.std(0)}
    table |= {_name(q): np.quantile(rows, q, axis=0, method='inverted_cdf') for q in QUANTILES}
    return {key: column.tolist() for key, column in table.items()} | {'count': [len(rows)]}


def sampled(length: int) -> frozenset[int]:
    """Return the images of an episode that are looked at: all of a hundred, fewer of more."""
    fewest = min(length, _FEWEST_IMAGES)
    count = max(fewest, min(int(length ** _POWER), _MOST_IMAGES))
    return frozenset(np.round(np.linspace(0, length - 1, count)).astype(int).tolist())


class PixelStatistics:
    """Statistics by channel of images in [0, 1]; exact, from how often each level occurs."""

    def __init__(self) -> None:
        """Begin with no image."""
        self._images = 0
        self._counts_3L = np.zeros((3, _LEVELS), np.int64)

    def add(self, image_HWC: np.ndarray) -> None:
        """Count the pixels of one (H, W, 3) uint8 image; of a large one every few."""
        height, width = image_HWC.shape[:2]
        every = int(max(height, width) / _WANTED_PX) if max(height, width) >= _LARGE_PX else 1
        small = image_HWC[::every, ::every]
        self._images += 1
        for channel, counts_L in enumerate(self._counts_3L):
            counts_L += np.bincount(small[..., channel].reshape(-1), minlength=_LEVELS)

    def merge(self, other: PixelStatistics) -> None:
        """Count the images of another one as well."""
        self._images += other._images
        self._counts_3L += other._counts_3L

    def table(self) -> Table:
        """Return the statistics as nested lists of shape (3, 1, 1); the count is of images."""
        channels = [_of_levels(counts_L) for counts_L in self._counts_3L]
        table = {key: [[[channel[key]]] for channel in channels] for key in channels[0]}
        return table | {'count': [self._images]}


def _of_levels(counts_L: np.ndarray) -> dict[str, float]:
    """Return the statistics of values 0 / 255 ... 255 / 255 that occur so often."""
    levels, total = np.arange(_LEVELS) / (_LEVELS - 1), counts_L.sum()
    there = levels[counts_L > 0]
    mean = float(counts_L @ levels / total)
    until = np.cumsum(counts_L)
    table = {'min': float(there[0]), 'max': float(there[-1]), 'mean': mean,
             'std': float(np.sqrt(counts_L @ (levels - mean) ** 2 / total))}
    return table | {_name(q): float(levels[np.searchsorted(until, q * total)]) for q in QUANTILES}


def _name(quantile: float) -> str:
    return f'q{round(100 * quantile):02d}'

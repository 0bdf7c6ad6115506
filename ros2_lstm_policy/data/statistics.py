"""Normalisation statistics of recorded arm deltas: one rule for `train` and `dataset stats`."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ros2_lstm_policy.manifest import ArmNormalisation, SMALLEST_SHARE
from ros2_lstm_policy.types import ARM_DIM

How = Literal['range', 'quantile']


def normalisation(arm_F6: np.ndarray, how: How) -> ArmNormalisation:
    """
    Map the deltas of each axis to [-1, 1].

    :param arm_F6: (F, 6), m and rad, in the manifest's rotation convention.
    :param how: 'range' maps the smallest and the largest; 'quantile' the 1 % and 99 % quantiles.
    :raises ValueError: for no deltas, another shape, or values that are no numbers.
    """
    values = np.asarray(arm_F6, np.float64)
    if values.ndim != 2 or values.shape[1] != ARM_DIM or not len(values):
        raise ValueError(f'expected (F, {ARM_DIM}) deltas, found {values.shape}')
    if not np.isfinite(values).all():
        raise ValueError('the deltas hold NaN or infinity; `dataset validate` says where')
    low, high = ((values.min(0), values.max(0)) if how == 'range'
                 else np.quantile(values, (0.01, 0.99), axis=0))
    scale = (high - low) / 2
    for axes in (slice(0, 3), slice(3, 6)):
        scale[axes] = np.maximum(scale[axes], max(SMALLEST_SHARE * scale[axes].max(), 1e-6))
    return ArmNormalisation(as_numbers((high + low) / 2), as_numbers(scale))


def as_numbers(values: np.ndarray) -> tuple[float, ...]:
    """Return plain numbers of six digits, as they stand in YAML."""
    return tuple(float(f'{value:.6g}') for value in values)

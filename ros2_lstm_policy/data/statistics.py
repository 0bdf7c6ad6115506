"""Normalisation statistics of recorded values: one rule for `train` and `dataset stats`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from ros2_lstm_policy.manifest import ActionGroup, Normalisation, SMALLEST_SHARE, StateSpec

How = Literal['range', 'quantile']
_LEAST = 1e-6


def fitted_group(group: ActionGroup, values_FA: np.ndarray, begins_F: np.ndarray,
                 how: How) -> ActionGroup:
    """
    Return a group with the statistics of its recorded values, where it has none yet.

    :param values_FA: (F, size), as in :class:`Action`.
    :param begins_F: (F,) bool, the first step of each episode.
    """
    largest = group.largest or largest_steps(group, values_FA, begins_F)
    if group.binary:
        return group
    if group.normalisation is None:
        numbers = group.meaning.to_numbers(values_FA, group.rotation)
        group = replace(group, normalisation=normalisation(numbers, how, _alike(group)))
    return replace(group, largest=largest)


def fitted_state(state: StateSpec, values_FS: np.ndarray, how: How) -> StateSpec:
    """
    Return a state with the statistics of its recorded values, where it has none yet.

    What hardly moved is measured by the widest of its values: states are not clipped, and a robot
    that stands a little otherwise would be far beyond all that training saw.
    """
    if state.normalisation is not None:
        return state
    every = (slice(0, state.size),)
    return replace(state, normalisation=normalisation(values_FS, how, every))


def largest_steps(group: ActionGroup, values_FA: np.ndarray,
                  begins_F: np.ndarray) -> tuple[float, ...]:
    """
    Return by value the largest step of one period: see :class:`ActionGroup`.

    Rotation vectors of poses are compared as they are, which near half a turn is more than the
    robot did: a limit that is too wide there, never too narrow.
    """
    if not group.meaning.is_absolute:
        return as_numbers(np.abs(values_FA).max(0))
    steps = np.diff(np.asarray(values_FA, np.float64), axis=0)[~begins_F[1:]]
    return as_numbers(np.abs(steps).max(0, initial=0.0))


def normalisation(values_FN: np.ndarray, how: How,
                  kinds: Sequence[slice] = ()) -> Normalisation:
    """
    Map the values of each axis to [-1, 1].

    :param values_FN: (F, N).
    :param how: 'range' maps the smallest and the largest; 'quantile' the 1 % and 99 % quantiles.
    :param kinds: axes of one unit: one that hardly moves gets a share of the widest of them. None:
        each axis is by itself.
    :raises ValueError: for no values, another shape, or values that are no numbers.
    """
    values = np.asarray(values_FN, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f'expected (F, N) values, found {values.shape}')
    if not np.isfinite(values).all():
        raise ValueError('the values hold NaN or infinity; `dataset validate` says where')
    low, high = ((values.min(0), values.max(0)) if how == 'range'
                 else np.quantile(values, (0.01, 0.99), axis=0))
    scale = (high - low) / 2
    for axes in kinds or (slice(i, i + 1) for i in range(len(scale))):
        scale[axes] = np.maximum(scale[axes], max(SMALLEST_SHARE * scale[axes].max(), _LEAST))
    return Normalisation(as_numbers((high + low) / 2), as_numbers(scale))


def as_numbers(values: np.ndarray) -> tuple[float, ...]:
    """Return plain numbers of six digits, as they stand in YAML."""
    return tuple(float(f'{value:.6g}') for value in values)


def _alike(group: ActionGroup) -> tuple[slice, ...]:
    """Return which of a group's numbers are of one unit."""
    if group.meaning.units[:3] == ('m', 'm', 'm'):  # a place, then a rotation
        return slice(0, 3), slice(3, group.label_size)
    return (slice(0, group.label_size),)

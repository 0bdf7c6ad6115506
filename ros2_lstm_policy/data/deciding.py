"""
Which steps of demonstrations decide: those in which the robot sets out after a standstill.

Where a robot waits and then acts on what it remembers, nearly all steps are waiting, which is
learned at once and says nothing; few are the choice. What is still is found in the actions
themselves, so recordings need no marks.

Letters: F frame of a store, A values of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np
from ros2_lstm_policy.data.store import FrameStore
from ros2_lstm_policy.manifest import ActionGroup, Manifest

_STILL = 0.01  # of the largest step that the demonstrations make


@dataclass(frozen=True)
class DecidingConfig:
    """
    What the first steps after a standstill weigh in the losses of actions.

    :param weight: of such a step; others weigh 1.
    :param after_s: how long the robot must have stood still.
    :param for_s: how long after it the steps count as such.
    """

    weight: float = 5.0
    after_s: float = 1.0
    for_s: float = 2.0

    def __post_init__(self) -> None:
        """Refuse weights and times that cannot be."""
        for name in ('weight', 'after_s', 'for_s'):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f'{name} must be a positive number, found {getattr(self, name)}')


def step_weights(store: FrameStore, manifest: Manifest, config: DecidingConfig) -> np.ndarray:
    """
    Return what every step weighs, (F,) float32.

    :param manifest: with the statistics of the actions.
    """
    still_F, weights_F = still(store, manifest), np.ones(sum(store.lengths), np.float32)
    after, lasting = (max(1, round(seconds / manifest.control_period_s))
                      for seconds in (config.after_s, config.for_s))
    end = 0
    for length in store.lengths:
        begin, end = end, end + length
        for step in _set_out(still_F[begin:end], after):
            weights_F[begin + step:min(begin + step + lasting, end)] = config.weight
    return weights_F


def still(store: FrameStore, manifest: Manifest) -> np.ndarray:
    """Return the steps (F,) whose action moves nothing."""
    lengths = np.asarray(store.lengths)
    begins_F = np.zeros(lengths.sum(), bool)
    begins_F[np.cumsum(lengths) - lengths] = True
    moves = [_moves(group, np.asarray(store.actions[group.name]), begins_F)
             for group in manifest.actions]
    return ~np.any(moves, axis=0)


def _moves(group: ActionGroup, values_FA: np.ndarray, begins_F: np.ndarray) -> np.ndarray:
    """Return where a group moves: a value that says where to be by its changes."""
    if not group.meaning.is_absolute:
        steps_FA = np.abs(values_FA)
    else:
        steps_FA = np.abs(np.diff(values_FA, axis=0, prepend=values_FA[:1]))
        steps_FA[begins_F] = 0
    largest = 1.0 if group.binary or group.largest is None else np.asarray(group.largest)
    return np.asarray((steps_FA > _STILL * largest).any(1))


def _set_out(still_T: np.ndarray, after: int) -> np.ndarray:
    """Return the steps that move after at least so many that did not."""
    stood = np.zeros(len(still_T), np.int64)  # steps of standstill right before each
    for step in range(1, len(still_T)):
        stood[step] = stood[step - 1] + 1 if still_T[step - 1] else 0
    return np.flatnonzero(~still_T & (stood >= after))

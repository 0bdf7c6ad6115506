"""Probabilities of open to a gripper that is steady."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ros2_lstm_policy.manifest import ActionGroup
from ros2_lstm_policy.types import Action


class GripperShaper:
    """
    Turns probabilities of open into a steady opening: hysteresis, and a least time between edges.

    :param threshold: the gripper opens above it and closes at or below it.
    :param hysteresis: how far beyond the threshold the probability must be to change its state.
    :param min_hold_s: least time between two changes.
    """

    def __init__(self, threshold: float, hysteresis: float, min_hold_s: float) -> None:
        """Begin knowing nothing of the gripper."""
        self._threshold, self._hysteresis = threshold, hysteresis
        self._min_hold_s = min_hold_s
        self._open: bool | None = None
        self._changed_s = 0.0

    def reset(self) -> None:
        """Forget the state: the next probability decides by the threshold alone."""
        self._open = None

    def know(self, is_open: bool, now_s: float) -> None:
        """Take a state that somebody else brought about just now."""
        self._open, self._changed_s = is_open, now_s

    def update(self, gripper_open: float, now_s: float) -> bool:
        """
        Return whether the gripper is to be open.

        :param now_s: time by the clock of the observations; one that runs back allows a change.
        """
        if self._open is None:
            self._open, self._changed_s = gripper_open > self._threshold, now_s
            return self._open
        edge = self._threshold + (-self._hysteresis if self._open else self._hysteresis)
        wanted = gripper_open > edge
        held_s = now_s - self._changed_s
        if wanted != self._open and not 0 <= held_s < self._min_hold_s:
            self._open, self._changed_s = wanted, now_s
        return self._open


class Grippers:
    """
    The shapers of a body's binary groups, one for each value.

    :param groups: the binary ones.
    """

    def __init__(self, groups: Sequence[ActionGroup], hysteresis: float,
                 min_hold_s: float) -> None:
        """Begin knowing nothing of any gripper."""
        self._shapers = {group.name: [GripperShaper(group.threshold, hysteresis, min_hold_s)
                                      for _ in range(group.size)] for group in groups}

    def reset(self) -> None:
        """Forget the states."""
        for shapers in self._shapers.values():
            for shaper in shapers:
                shaper.reset()

    def know(self, given: Mapping[str, np.ndarray], now_s: float) -> None:
        """Take the openings, 0 or 1, that somebody else told the groups that are among these."""
        for name, shapers in self._shapers.items():
            for shaper, value in zip(shapers, given.get(name, ())):
                shaper.know(value > 0, now_s)

    def update(self, action: Action, now_s: float) -> dict[str, np.ndarray]:
        """Return the openings, 0 or 1, of the binary groups; see :class:`GripperShaper`."""
        return {name: np.array([float(shaper.update(float(value), now_s))
                                for shaper, value in zip(shapers, action.groups[name])])
                for name, shapers in self._shapers.items()}

"""
From recorded commands or states to the actions of a group, one each control period.

A command holds until the next one comes. What is absolute is what was commanded last within the
period that begins at the observation; displacements add up over it; velocities are averaged. Where
a state is the action, it is what the robot was at the end of the period, or the way to there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from ros2_lstm_policy.kinds import rotation_vector
from scipy.spatial.transform import Rotation

_POSE_NUMBERS = 9  # as `streams` gives a pose: x y z, and the rotation's first two columns


@dataclass(frozen=True)
class Stream:
    """
    Values by time, in order; n of them.

    :param stamps_ns: (n,) int64.
    :param values: (n, size) float64.
    """

    stamps_ns: np.ndarray
    values: np.ndarray

    def before(self, moments_ns: np.ndarray) -> np.ndarray:
        """Return the newest value no later than each moment; the first where there is none."""
        places = np.searchsorted(self.stamps_ns, moments_ns, side='right') - 1
        return self.values[np.maximum(places, 0)]


# Stream, ticks (T,) ns, period in ns -> (T, size)
Source: TypeAlias = Callable[[Stream, np.ndarray, int], np.ndarray]


def _last(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    return stream.before(ticks_ns + period_ns - 1)


def _sum(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    totals = np.concatenate([np.zeros((1, stream.values.shape[1])),
                             np.cumsum(stream.values, axis=0)])
    begin, end = (np.searchsorted(stream.stamps_ns, moments)
                  for moments in (ticks_ns, ticks_ns + period_ns))
    return totals[end] - totals[begin]


def _turns(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    """Add displacements up, and put their rotations one after the other."""
    found = _sum(stream, ticks_ns, period_ns)
    begin, end = (np.searchsorted(stream.stamps_ns, moments)
                  for moments in (ticks_ns, ticks_ns + period_ns))
    for step in np.flatnonzero(end - begin > 1):
        turn = Rotation.identity()
        for vector in stream.values[begin[step]:end[step], 3:]:
            turn = Rotation.from_rotvec(vector) * turn
        found[step, 3:] = turn.as_rotvec()
    return found


def _mean(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    """Average what holds at each moment of the period."""
    parts = np.linspace(0, period_ns, 21, endpoint=False)[1:].astype(np.int64)
    return np.mean([stream.before(ticks_ns + part) for part in parts], axis=0)


def _pose(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    return as_vectors(_last(stream, ticks_ns, period_ns))


def _next(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    return stream.before(ticks_ns + period_ns)


def _way(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    return stream.before(ticks_ns + period_ns) - stream.before(ticks_ns)


def _speed(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    return _way(stream, ticks_ns, period_ns) / (period_ns / 1e9)


def _next_pose(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    return as_vectors(stream.before(ticks_ns + period_ns))


def _pose_way(stream: Stream, ticks_ns: np.ndarray, period_ns: int) -> np.ndarray:
    """Return the displacement in base axes: the later rotation after the inverse of the first."""
    now, then = (as_vectors(stream.before(moments))
                 for moments in (ticks_ns, ticks_ns + period_ns))
    turn = Rotation.from_rotvec(then[:, 3:]) * Rotation.from_rotvec(now[:, 3:]).inv()
    return np.concatenate([then[:, :3] - now[:, :3], turn.as_rotvec()], axis=1)


def as_vectors(poses: np.ndarray) -> np.ndarray:
    """Return x y z and a rotation vector of poses that are nine numbers, or six already."""
    if poses.shape[1] != _POSE_NUMBERS:
        return poses
    return np.concatenate([poses[:, :3], rotation_vector(poses[:, 3:])], axis=1)


@dataclass(frozen=True)
class Sources:
    """How a kind of actions is found: :param command: in commands; :param state: in a state."""

    command: Source
    state: Source


# By kind of action: a kind of your own is one entry here as well.
SOURCES: dict[str, Sources] = {
    'ee_delta': Sources(_turns, _pose_way),
    'ee_pose': Sources(_pose, _next_pose),
    'joint_delta': Sources(_sum, _way),
    'joint_position': Sources(_last, _next),
    'joint_velocity': Sources(_mean, _speed),
    'gripper': Sources(_last, _next),
}

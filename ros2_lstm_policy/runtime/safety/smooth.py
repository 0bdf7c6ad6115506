"""
Acceleration and jerk limits: between a command and the one before, which a check does not see.

The velocity that each command means is led to the one that is wanted such that speed, acceleration
and jerk keep their limits at every period, and such that they could be kept whatever is wanted
next: a velocity is never approached faster than its acceleration can be taken back in time. This
is online trajectory generation with a velocity as its target (Kröger, "On-Line Trajectory
Generation in Robotic Systems", 2010), in the discrete time of the control period; limits on
consecutive commands are what libfranka's `limitRate` and MoveIt Servo's smoothing plugins set.

A hold is no command: it stops the robot at once, and the first command after it begins at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import math

import numpy as np
from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.runtime.safety.limits import GroupLimits, Pose, Present
from ros2_lstm_policy.runtime.safety.ways import as_pose, as_values, way_to
from scipy.spatial.transform import Rotation

_HALVINGS = 30
_SLACK = 1 + 1e-9  # of rounding


@dataclass(frozen=True)
class Bounds:
    """What a velocity must keep: m/s, m/s² and m/s³ or the same in rad; infinity for no limit."""

    speed: float
    acceleration: float
    jerk: float


@dataclass(frozen=True)
class _Last:
    """
    What a group was told last.

    :param values: of the command.
    :param velocity: (size,) that it meant.
    :param acceleration: (size,) likewise.
    """

    values: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray


class Smoother:
    """Remembers what the groups were told; :meth:`reset` at every hold."""

    def __init__(self) -> None:
        """Begin at rest."""
        self._last: dict[str, _Last] = {}

    def reset(self) -> None:
        """Forget: the robot stands."""
        self._last.clear()

    def smoothed(self, values: Mapping[str, np.ndarray], limits: Mapping[str, GroupLimits],
                 present: Mapping[str, Present]) -> dict[str, np.ndarray]:
        """
        Return commands that keep the limits, the same arrays where nothing had to be changed.

        :param values: of the groups, each of which its check has let through.
        :param present: where the groups are now; where one of positions begins.
        """
        return {name: self._smoothed(name, given, limits[name], present.get(name))
                for name, given in values.items()}

    def note(self, values: Mapping[str, np.ndarray], limits: Mapping[str, GroupLimits],
             present: Mapping[str, Present]) -> None:
        """Remember what was sent."""
        for name, given in values.items():
            if limits[name].is_smoothed:
                last = self._last_of(name, limits[name], present.get(name))
                if last is not None:
                    velocity = _velocity(given, last.values, limits[name])
                    self._last[name] = _Last(given, velocity, (velocity - last.velocity)
                                             / limits[name].period_s)

    def _smoothed(self, name: str, given: np.ndarray, limits: GroupLimits,
                  now: Present) -> np.ndarray:
        last = self._last_of(name, limits, now) if limits.is_smoothed else None
        if last is None:
            return given
        wanted = _velocity(given, last.values, limits)
        found = np.concatenate([
            led(last.velocity[axes], last.acceleration[axes], wanted[axes], bounds,
                limits.period_s, size) for axes, bounds, size in _parts(limits)])
        return given if np.allclose(found, wanted, rtol=0, atol=1e-12) else _values(
            found, last.values, limits)

    def _last_of(self, name: str, limits: GroupLimits, now: Present) -> _Last | None:
        """Return what a group was told last; at rest where it is now, None where nobody knows."""
        if name in self._last:
            return self._last[name]
        still = np.zeros(limits.group.size)
        if not limits.group.meaning.is_absolute:
            return _Last(still, still, still)
        if not isinstance(now, Pose | np.ndarray):
            return None
        return _Last(as_values(now), still, still)


def led(velocity: np.ndarray, acceleration: np.ndarray, wanted: np.ndarray, bounds: Bounds,
        period_s: float, size: Callable[[np.ndarray], float]) -> np.ndarray:
    """
    Return the next velocity on the way to another one.

    :param velocity: of the period before; likewise `acceleration`.
    :param wanted: within the speed limit.
    :param size: a norm: of what the bounds are meant.
    """
    step = bounds.jerk * period_s  # of the acceleration in one period
    missing = wanted - velocity
    target = np.zeros_like(missing)
    if (distance := size(missing)) > 0:
        target = missing / distance * min(_first_of_a_ramp(distance / period_s, step),
                                          bounds.acceleration)
    change = target - acceleration
    if size(change) > step:
        change *= step / size(change)
    fastest = acceleration + change
    least = acceleration * max(0.0, 1 - step / max(size(acceleration), 1e-300))

    def greatest(chosen: np.ndarray) -> float:
        """Return the greatest speed of this period and of those that take the choice back."""
        next_velocity = velocity + chosen * period_s
        amount = size(chosen)
        rest = next_velocity + (0 if amount == 0 else chosen / amount * period_s
                                * _taken_back(amount, step))
        return max(size(next_velocity), size(rest))

    most = max(bounds.speed, size(velocity), greatest(least)) * _SLACK
    if greatest(fastest) <= most:
        return velocity + fastest * period_s
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if greatest(least + middle * (fastest - least)) <= most:
            low = middle
        else:
            high = middle
    return velocity + (least + low * (fastest - least)) * period_s


def _first_of_a_ramp(total: float, step: float) -> float:
    """Return the first of numbers that fall by `step` to zero and have this sum."""
    if math.isinf(step):
        return total
    if step <= 0:
        return 0.0
    count = math.floor((math.sqrt(1 + 8 * total / step) - 1) / 2)
    return (total + step * count * (count + 1) / 2) / (count + 1)


def _taken_back(amount: float, step: float) -> float:
    """Return the sum of what follows `amount` as it falls by `step` to zero."""
    if math.isinf(step) or step <= 0:
        return 0.0
    count = math.floor(amount / step)
    return count * amount - step * count * (count + 1) / 2


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max())


def _length(values: np.ndarray) -> float:
    return float(np.linalg.norm(values))


def _parts(limits: GroupLimits) -> tuple[tuple[slice, Bounds, Callable[[np.ndarray], float]], ...]:
    """Return what is limited together: of a tool translation and rotation, of joints the worst."""
    if limits.group.axes == POSE_AXES:
        return ((slice(0, 3), Bounds(limits.max_linear_m_s, limits.max_linear_m_s2,
                                     limits.max_linear_m_s3), _length),
                (slice(3, 6), Bounds(limits.max_angular_rad_s, limits.max_angular_rad_s2,
                                     limits.max_angular_rad_s3), _length))
    return ((slice(None), Bounds(limits.max_joint_s, limits.max_joint_s2, limits.max_joint_s3),
             _largest),)


def _velocity(values: np.ndarray, before: np.ndarray, limits: GroupLimits) -> np.ndarray:
    """Return what a command means: m/s, rad/s."""
    if limits.group.kind == 'joint_velocity':
        return values
    if not limits.group.meaning.is_absolute:
        return values / limits.period_s
    if limits.group.axes == POSE_AXES:
        return way_to(as_pose(before), values) / limits.period_s
    return (values - before) / limits.period_s


def _values(velocity: np.ndarray, before: np.ndarray, limits: GroupLimits) -> np.ndarray:
    """Return the command that means a velocity."""
    if limits.group.kind == 'joint_velocity':
        return velocity
    step = velocity * limits.period_s
    if not limits.group.meaning.is_absolute:
        return step
    if limits.group.axes == POSE_AXES:
        turn = Rotation.from_rotvec(step[3:]) * Rotation.from_rotvec(before[3:])
        return np.concatenate([before[:3] + step[:3], turn.as_rotvec()])
    return before + step

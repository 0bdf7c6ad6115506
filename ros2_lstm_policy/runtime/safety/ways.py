"""Between where a group is and what it is told to be: ways, shares and sizes of motion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.manifest import ActionGroup
from ros2_lstm_policy.runtime.safety.limits import GroupLimits, Limits, Pose, Present
from ros2_lstm_policy.types import Reason
from scipy.spatial.transform import Rotation


def towards(now: Pose | np.ndarray, target: np.ndarray, share: float) -> np.ndarray:
    """Return what lies between where a group is and a target: all of the way with a share of 1."""
    if share >= 1:
        return target
    if not isinstance(now, Pose):
        return now + share * (target - now)
    way = way_to(now, target)
    turn = Rotation.from_rotvec(share * way[3:]) * Rotation.from_matrix(now.rotation)
    return np.concatenate([now.position_m + share * way[:3], turn.as_rotvec()])


def as_values(now: Pose | np.ndarray) -> np.ndarray:
    """Return where a group is as the values of a command that keeps it there."""
    if not isinstance(now, Pose):
        return now
    return np.concatenate([now.position_m, Rotation.from_matrix(now.rotation).as_rotvec()])


def way_to(now: Pose, target: np.ndarray) -> np.ndarray:
    """Return the displacement from a pose to a target of six numbers: m, rad, in base axes."""
    turn = Rotation.from_rotvec(target[3:]) * Rotation.from_matrix(now.rotation).inv()
    return np.concatenate([target[:3] - now.position_m, turn.as_rotvec()])


def as_pose(values: np.ndarray) -> Pose:
    """Return six numbers, a place and a rotation vector, as a pose."""
    return Pose(values[:3], Rotation.from_rotvec(values[3:]).as_matrix())


def eased(values: np.ndarray, group: ActionGroup, now: Present, share: float) -> np.ndarray:
    """Return less of a command, as :func:`blend_in` has it for the first of an episode."""
    if share >= 1 or group.kind == 'gripper':
        return values
    if not group.meaning.is_absolute:
        return values * share
    return values if now is None or isinstance(now, Reason) else towards(now, values, share)


def motion(values: Mapping[str, np.ndarray], limits: Limits,
           present: Mapping[str, Present]) -> np.ndarray:
    """
    Return how far a command moves the robot: all of its groups, as one Cartesian delta.

    :return: (6,) m and rad; of joints the largest turn, whichever it is.
    """
    moved_m = moved_rad = 0.0
    for name, group in limits.groups.items():
        way = _way(values[name], group, present.get(name))
        if group.group.kind == 'gripper':
            continue
        if group.group.axes == POSE_AXES:
            moved_m += float(np.linalg.norm(way[:3]))
            moved_rad += float(np.linalg.norm(way[3:]))
        else:
            moved_rad += float(np.abs(way).max())
    return np.array([moved_m, 0, 0, moved_rad, 0, 0])


def _way(values: np.ndarray, limits: GroupLimits, now: Present) -> np.ndarray:
    """Return what a command adds in one period."""
    if not limits.group.meaning.is_absolute:
        is_speed = limits.group.kind == 'joint_velocity'
        return values * limits.period_s if is_speed else values
    if isinstance(now, Pose):
        return way_to(now, values)
    return values - now if isinstance(now, np.ndarray) else np.zeros_like(values)


def ramp_down(age_s: float, full_s: float, zero_s: float) -> float:
    """Return 1 up to an age of `full_s`, then less, 0 from `zero_s` on."""
    return float(np.clip((zero_s - age_s) / (zero_s - full_s), 0.0, 1.0))


def blend_in(elapsed_s: float, blend_in_s: float) -> float:
    """Return the factor on the first actions of an episode: from 0 to 1 within `blend_in_s`."""
    return 1.0 if blend_in_s <= 0 else float(np.clip(elapsed_s / blend_in_s, 0.0, 1.0))

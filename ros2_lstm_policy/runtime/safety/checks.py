"""
How each kind of action is checked: pure functions of what is given.

What is doubtful is refused; what is only faster than the robot may move is slowed to the limit, in
its own direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from ros2_lstm_policy.runtime.safety.limits import Command, GroupLimits, Limits, Pose, Present
from ros2_lstm_policy.runtime.safety.refusals import (beyond_joint_limits, joint_too_far,
                                                      leaves_workspace, not_finite, too_far,
                                                      too_large, too_old, unknown)
from ros2_lstm_policy.runtime.safety.ways import as_pose, towards, way_to
from ros2_lstm_policy.types import Action, Reason


class Slowed(NamedTuple):
    """What a group is to do, and the factor, at most 1, that its speed limits put on it."""

    values: np.ndarray
    factor: float


# (size,) finite values, the group's limits, where it is now, what it was told before (None where
# it holds) -> what it is to do, or why not
Check: TypeAlias = Callable[[np.ndarray, GroupLimits, Present, np.ndarray | None],
                            Slowed | Reason]


def check(action: Action, age_s: float, limits: Limits,
          present: Mapping[str, Present] | None = None,
          before: Mapping[str, np.ndarray] | None = None) -> Command | Reason:
    """
    Turn an action into a command, or refuse it.

    :param age_s: time since the observation was made.
    :param present: where the groups are now.
    :param before: what the groups were told to be in the period before; nothing after a hold.
    """
    refusal = not_finite(action, limits) or too_old(age_s, limits.deadline_s)
    if refusal is not None:
        return refusal
    values, slowed = {}, 1.0
    for name, group in limits.groups.items():
        given = np.asarray(action.groups[name], np.float64)
        checked = CHECKS[group.group.kind](given, group, (present or {}).get(name),
                                           (before or {}).get(name))
        if isinstance(checked, Reason):
            if checked is (present or {}).get(name):
                return checked  # it names what it is about
            return Reason(checked.code, f'{name}: {checked.text}', checked.camera)
        values[name], slowed = checked.values, min(slowed, checked.factor)
    return Command(values, slowed)


def _ee_delta(values: np.ndarray, limits: GroupLimits, now: Present,
              before: np.ndarray | None) -> Slowed | Reason:
    refusal = too_large(values, limits)
    if refusal is not None:
        return refusal
    factor = _tool_factor(values, limits)
    values = values * factor
    if limits.workspace_m is None:
        return Slowed(values, factor)
    if now is None:
        return Reason('no_pose', 'the workspace is limited and the tool pose is missing or old')
    if not isinstance(now, Pose):
        return unknown(now)
    step = now.rotation @ values[:3] if limits.group.frame == 'tool' else values[:3]
    refusal = leaves_workspace(now, now.position_m + step, limits.workspace_m)
    return Slowed(values, factor) if refusal is None else refusal


def _ee_pose(values: np.ndarray, limits: GroupLimits, now: Present,
             before: np.ndarray | None) -> Slowed | Reason:
    if not isinstance(now, Pose) or not all(np.isfinite(part).all() for part in now):
        return unknown(now)
    way = way_to(now, values)
    step = way if before is None else way_to(as_pose(before), values)
    refusal = too_large(step, limits) or too_far(way[:3], limits.max_linear_m_s, 'm', limits)
    refusal = refusal or too_far(way[3:], limits.max_angular_rad_s, 'rad', limits)
    if refusal is None and limits.workspace_m is not None:
        refusal = leaves_workspace(now, values[:3], limits.workspace_m)
    if refusal is not None:
        return refusal
    factor = _tool_factor(way, limits)
    return Slowed(towards(now, values, factor), factor)


def _joint_position(values: np.ndarray, limits: GroupLimits, now: Present,
                    before: np.ndarray | None) -> Slowed | Reason:
    if not _is_known(now, limits):
        return unknown(now)
    assert isinstance(now, np.ndarray)
    way = values - now
    step = way if before is None else values - before
    refusal = (too_large(step, limits) or joint_too_far(way, limits)
               or beyond_joint_limits(values, way, limits))
    if refusal is not None:
        return refusal
    factor = _joint_factor(way / limits.period_s, limits)
    return Slowed(towards(now, values, factor), factor)


def _joint_delta(values: np.ndarray, limits: GroupLimits, now: Present,
                 before: np.ndarray | None) -> Slowed | Reason:
    factor = _joint_factor(values / limits.period_s, limits)
    return too_large(values, limits) or _joint_steps(values * factor, 1.0, factor, limits, now)


def _joint_velocity(values: np.ndarray, limits: GroupLimits, now: Present,
                    before: np.ndarray | None) -> Slowed | Reason:
    factor = _joint_factor(values, limits)
    return too_large(values, limits) or _joint_steps(values * factor, limits.period_s, factor,
                                                     limits, now)


def _joint_steps(values: np.ndarray, duration: float, factor: float, limits: GroupLimits,
                 now: Present) -> Slowed | Reason:
    """Hold where a step leads against the joints' limits, where there are any."""
    if limits.joint_limits is None:
        return Slowed(values, factor)
    if not _is_known(now, limits):
        return unknown(now)
    assert isinstance(now, np.ndarray)
    step = values * duration
    refusal = beyond_joint_limits(now + step, step, limits)
    return Slowed(values, factor) if refusal is None else refusal


def _gripper(values: np.ndarray, limits: GroupLimits, now: Present,
             before: np.ndarray | None) -> Slowed | Reason:
    if ((values >= 0) & (values <= 1)).all():
        return Slowed(values, 1.0)
    return Reason('not_finite', f'the policy gave an opening of {values.tolist()}; expected '
                  'finite numbers and a gripper in [0, 1]')


# By kind of action: a kind of your own is one entry here as well.
CHECKS: dict[str, Check] = {
    'ee_delta': _ee_delta,
    'ee_pose': _ee_pose,
    'joint_delta': _joint_delta,
    'joint_position': _joint_position,
    'joint_velocity': _joint_velocity,
    'gripper': _gripper,
}


def _tool_factor(way: np.ndarray, limits: GroupLimits) -> float:
    linear_m_s = float(np.linalg.norm(way[:3])) / limits.period_s
    angular_rad_s = float(np.linalg.norm(way[3:])) / limits.period_s
    return min(1.0, limits.max_linear_m_s / max(linear_m_s, 1e-9),
               limits.max_angular_rad_s / max(angular_rad_s, 1e-9))


def _joint_factor(speeds: np.ndarray, limits: GroupLimits) -> float:
    """Return one factor for all joints: their path stays the same."""
    return min(1.0, limits.max_joint_s / max(float(np.abs(speeds).max()), 1e-9))


def _is_known(now: Present, limits: GroupLimits) -> bool:
    return (isinstance(now, np.ndarray) and now.shape == (limits.group.size,)
            and bool(np.isfinite(now).all()))

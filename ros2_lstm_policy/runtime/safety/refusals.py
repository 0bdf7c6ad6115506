"""Why a command is refused: each a reason, or None where nothing is wrong."""

from __future__ import annotations

import numpy as np
from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.runtime.safety.limits import GroupLimits, Limits, Pose, Present
from ros2_lstm_policy.types import Action, Reason

_NOTHING = 1e-12


def not_finite(action: Action, limits: Limits) -> Reason | None:
    """Refuse other groups, other shapes, and what is no number."""
    if action.groups.keys() != limits.groups.keys():
        return Reason('action_shape', f'the policy gave the groups {", ".join(action.groups)}, '
                      f'expected {", ".join(limits.groups)}')
    for name, values in action.groups.items():
        wanted = (limits.groups[name].group.size,)
        if np.shape(values) != wanted:
            return Reason('action_shape', f'{name}: the policy gave an action of shape '
                          f'{np.shape(values)}, expected {wanted}')
        if not np.isfinite(values).all():
            return Reason('not_finite', f'{name}: the policy gave {np.round(values, 4).tolist()}; '
                          'expected finite numbers')
    return None


def too_old(age_s: float, deadline_s: float) -> Reason | None:
    """Refuse to answer an observation of long ago."""
    if abs(age_s) <= deadline_s:
        return None
    return Reason('deadline', f'the observation is {age_s:.3f} s old when it is answered, at most '
                  f'{deadline_s:.3f} s is allowed (deadline_s)')


def too_large(step: np.ndarray, limits: GroupLimits) -> Reason | None:
    """Refuse a step larger than any in training."""
    if limits.max_step is None or (np.abs(step) <= limits.max_step).all():
        return None
    axis = int(np.argmax(np.abs(step) / np.maximum(limits.max_step, _NOTHING)))
    name, unit = limits.group.axes[axis], limits.group.units[axis]
    return Reason('step', f'a step of {step[axis]:.4f} {unit} on {name} is beyond '
                  f'{limits.max_step[axis]:.4f} {unit}, max_step_ratio times the largest in '
                  'training')


def too_far(way: np.ndarray, speed: float, unit: str, limits: GroupLimits) -> Reason | None:
    """Refuse a pose that cannot be meant for where the tool is."""
    distance, most = float(np.linalg.norm(way)), speed * limits.max_lead_s
    if distance <= most:
        return None
    return Reason('far', f'the pose is {distance:.4f} {unit} from where the tool is, at most '
                  f'{most:.4f} {unit} is allowed (max_lead_s at the greatest speed)')


def joint_too_far(way: np.ndarray, limits: GroupLimits) -> Reason | None:
    """Refuse a joint position that cannot be meant for where the joint is."""
    most = limits.max_joint_s * limits.max_lead_s
    if (np.abs(way) <= most).all():
        return None
    axis = int(np.argmax(np.abs(way)))
    return Reason('far', f'{limits.group.axes[axis]} is told to be {abs(way[axis]):.4f} rad from '
                  f'where it is, at most {most:.4f} rad is allowed (max_lead_s at '
                  'max_joint_speed_rad_s)')


def beyond_joint_limits(target: np.ndarray, step: np.ndarray,
                        limits: GroupLimits) -> Reason | None:
    """Refuse a target beyond a limit that it moves towards; moving back in is allowed."""
    if limits.joint_limits is None:
        return None
    lower, upper = limits.joint_limits
    outside = ((target < lower) & (step < 0)) | ((target > upper) & (step > 0))
    if not outside.any():
        return None
    axis = int(np.argmax(outside))
    return Reason('joint_limit', f'{limits.group.axes[axis]} would be at {target[axis]:.4f}, '
                  f'outside [{lower[axis]:.4f}, {upper[axis]:.4f}] '
                  f'(groups.{limits.group.name}.lower, .upper)')


def leaves_workspace(now: Pose, target: np.ndarray, workspace_m: np.ndarray) -> Reason | None:
    """Refuse a target outside on a side that it moves towards; moving back in is allowed."""
    step, (lower, upper) = target - now.position_m, workspace_m
    if not np.isfinite(target).all():  # and so on no side of any bound
        return Reason('bad_pose', f'the tool would be at {target.tolist()} m; expected finite '
                      'numbers on ee_pose')
    outside = ((target < lower) & (step < 0)) | ((target > upper) & (step > 0))
    if not outside.any():
        return None
    axis = int(np.argmax(outside))
    return Reason('workspace', f'the step would take the tool to {POSE_AXES[axis]} = '
                  f'{target[axis]:.3f} m, outside [{lower[axis]:.3f}, {upper[axis]:.3f}]')


def unknown(now: Present) -> Reason:
    """Say that nobody knows where a group is, whose command depends on it."""
    if isinstance(now, Reason):
        return now
    return Reason('no_present', 'where it is now is not known, and what it may be told depends on '
                  f'that; found {now}')

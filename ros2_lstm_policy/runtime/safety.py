"""
What stands between a decision and a robot: pure functions of what is given.

Doubt means hold: an action that is not finite, too old, larger than anything seen in training or
out of the workspace is refused with a reason. An action that is only faster than the robot may
move is slowed to the limit, in its own direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ros2_lstm_policy.kinds import POSE_AXES as AXES
from ros2_lstm_policy.manifest import ActionGroup, SMALLEST_SHARE
from ros2_lstm_policy.types import Action, Reason

MAX_INSTRUCTION_CHARACTERS = 1000
# What an axis may always be given, of the widest delta of its kind in training: the constant
# that it had and the noise around it are each up to one share.
_FLOOR_SHARE = 2 * SMALLEST_SHARE
# The same in m and rad, where no axis of the kind ever moved: at least, at most.
_FLOORS = ((slice(0, 3), 1e-4, 0.005), (slice(3, 6), 1e-3, 0.05))


class Pose(NamedTuple):
    """
    Where the tool is, in the robot's base frame.

    :param position_m: (3,).
    :param rotation: (3, 3), tool axes to base axes.
    """

    position_m: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True)
class Limits:
    """
    What a robot may be asked to do.

    :param frame: axes of the deltas, as in the manifest.
    :param period_s: time that one delta covers.
    :param max_linear_m_s: a faster action is slowed to this.
    :param max_angular_rad_s: the same for its rotation.
    :param deadline_s: the greatest age of an observation whose answer still counts.
    :param max_step: (6,) m and rad; a larger delta on any axis is refused. None: no such limit.
    :param workspace_m: lower and upper corner (2, 3) of the box, in the base frame, that the tool
        may not leave. None: no box.
    """

    frame: Literal['base', 'tool']
    period_s: float
    max_linear_m_s: float
    max_angular_rad_s: float
    deadline_s: float
    max_step: np.ndarray | None = None
    workspace_m: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse NaN: every comparison with it is false, so it would be no limit at all."""
        for name in ('period_s', 'max_linear_m_s', 'max_angular_rad_s', 'deadline_s', 'max_step',
                     'workspace_m'):
            value = getattr(self, name)
            if value is not None and np.isnan(value).any():
                raise ValueError(f'{name}: expected a number, found {value}')


@dataclass(frozen=True)
class Command:
    """
    What the robot is to do for one control period.

    :param arm: (6,) m and rad, in the manifest's frame.
    :param slowed: the factor, at most 1, that the speed limits have put on the action.
    """

    arm: np.ndarray
    slowed: float


def check(action: Action, age_s: float, limits: Limits, pose: Pose | Reason | None = None,
          ) -> Command | Reason:
    """
    Turn an action into a command, or refuse it.

    :param age_s: time since the observation was made.
    :param pose: needed where the limits have a workspace; or why it cannot be used.
    """
    refusal = (_not_finite(action) or _too_old(age_s, limits.deadline_s)
               or _too_large(action.arm, limits.max_step))
    if refusal is not None:
        return refusal
    slowed = _slow_down(action.arm, limits)
    arm = np.asarray(action.arm, np.float64) * slowed
    if limits.workspace_m is not None:
        refusal = _leaves_workspace(arm[:3], limits, pose)
    return Command(arm, slowed) if refusal is None else refusal


def step_limit(group: ActionGroup, ratio: float) -> np.ndarray | None:
    """
    Return the largest delta that is let through on each axis.

    An axis that never moved in training has a largest delta of 0, and what a policy gives for it
    is never quite 0. It gets a floor, as its normalisation does, or every action was refused.

    :param ratio: of the largest delta in training.
    :return: (6,) m and rad; None where the largest are unknown.
    """
    if group.largest is None or group.normalisation is None:
        return None
    largest, scale = np.array(group.largest), np.array(group.normalisation.scale)
    floor = np.zeros_like(largest)
    for axes, least, most in _FLOORS:
        floor[axes] = _FLOOR_SHARE * largest[axes].max()
        if floor[axes].max() < least:
            floor[axes] = np.clip(_FLOOR_SHARE * scale[axes].max(), least, most)
    return ratio * np.maximum(largest, floor)


def ramp_down(age_s: float, full_s: float, zero_s: float) -> float:
    """Return 1 up to an age of `full_s`, then less, 0 from `zero_s` on."""
    return float(np.clip((zero_s - age_s) / (zero_s - full_s), 0.0, 1.0))


def blend_in(elapsed_s: float, blend_in_s: float) -> float:
    """Return the factor on the first actions of an episode: from 0 to 1 within `blend_in_s`."""
    return 1.0 if blend_in_s <= 0 else float(np.clip(elapsed_s / blend_in_s, 0.0, 1.0))


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


def _not_finite(action: Action) -> Reason | None:
    arm = np.asarray(action.arm)
    if arm.shape != (len(AXES),):
        return Reason('action_shape', f'the policy gave an arm action of shape {arm.shape}, '
                      f'expected ({len(AXES)},)')
    if np.isfinite(arm).all() and 0 <= action.gripper_open <= 1:
        return None
    return Reason('not_finite', f'the policy gave {np.round(arm, 4).tolist()} with gripper '
                  f'{action.gripper_open}; expected finite numbers and a gripper in [0, 1]')


def _too_old(age_s: float, deadline_s: float) -> Reason | None:
    if abs(age_s) <= deadline_s:
        return None
    return Reason('deadline', f'the observation is {age_s:.3f} s old when it is answered, at most '
                  f'{deadline_s:.3f} s is allowed (deadline_s)')


def _too_large(arm: np.ndarray, max_step: np.ndarray | None) -> Reason | None:
    if max_step is None or (np.abs(arm) <= max_step).all():
        return None
    axis = int(np.argmax(np.abs(arm) / np.maximum(max_step, 1e-12)))
    unit = 'm' if axis < 3 else 'rad'
    return Reason('step', f'a step of {arm[axis]:.4f} {unit} on {AXES[axis]} is beyond '
                  f'{max_step[axis]:.4f} {unit}, max_step_ratio times the largest in training')


def _slow_down(arm: np.ndarray, limits: Limits) -> float:
    linear_m_s = float(np.linalg.norm(arm[:3])) / limits.period_s
    angular_rad_s = float(np.linalg.norm(arm[3:])) / limits.period_s
    return min(1.0, limits.max_linear_m_s / max(linear_m_s, 1e-9),
               limits.max_angular_rad_s / max(angular_rad_s, 1e-9))


def _leaves_workspace(delta_m: np.ndarray, limits: Limits,
                      pose: Pose | Reason | None) -> Reason | None:
    """Refuse a step that ends outside on a side it moves towards; moving back in is allowed."""
    assert limits.workspace_m is not None
    if pose is None:
        return Reason('no_pose', 'the workspace is limited and the tool pose is missing or old')
    if isinstance(pose, Reason):
        return pose
    step = pose.rotation @ delta_m if limits.frame == 'tool' else delta_m
    target, (lower, upper) = pose.position_m + step, limits.workspace_m
    if not np.isfinite(target).all():  # and so on no side of any bound
        return Reason('bad_pose', f'the tool would be at {target.tolist()} m; expected finite '
                      'numbers on ee_pose')
    outside = ((target < lower) & (step < 0)) | ((target > upper) & (step > 0))
    if not outside.any():
        return None
    axis = int(np.argmax(outside))
    return Reason('workspace', f'the step would take the tool to {AXES[axis]} = '
                  f'{target[axis]:.3f} m, outside [{lower[axis]:.3f}, {upper[axis]:.3f}]')

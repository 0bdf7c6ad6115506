"""
What stands between a decision and a robot: pure functions of what is given.

Doubt means hold: an action that is not finite, too old, larger than anything seen in training or
out of the workspace or the joints' limits is refused with a reason; so is a position far from
where the robot is. An action that is only faster than the robot may move is slowed to the limit,
in its own direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.manifest import ActionGroup, SMALLEST_SHARE
from ros2_lstm_policy.types import Action, Reason
from scipy.spatial.transform import Rotation

MAX_INSTRUCTION_CHARACTERS = 1000
# What an axis may always be given, of the widest delta of its kind in training: the constant
# that it had and the noise around it are each up to one share.
_FLOOR_SHARE = 2 * SMALLEST_SHARE
# The same where no axis of the kind ever moved: at least, at most.
_PLACE, _TURN = (1e-4, 0.005), (1e-3, 0.05)  # m; rad
_NOTHING = 1e-12


class Pose(NamedTuple):
    """
    Where the tool is, in the robot's base frame.

    :param position_m: (3,).
    :param rotation: (3, 3), tool axes to base axes.
    """

    position_m: np.ndarray
    rotation: np.ndarray


# Where a group is now: a pose, or its values; a reason or None where that is not known.
Present: TypeAlias = Pose | np.ndarray | Reason | None


@dataclass(frozen=True)
class GroupLimits:
    """
    What one group may be asked to do.

    :param period_s: time that one action covers.
    :param max_linear_m_s: a faster motion of the tool is slowed to this.
    :param max_angular_rad_s: the same for its rotation.
    :param max_joint_s: the same for each joint, rad/s or m/s.
    :param max_lead_s: a position or pose is refused that is farther from where the group is now
        than it gets in this time at its greatest speed.
    :param max_step: (size,); a larger step on any axis is refused. None: no such limit.
    :param workspace_m: lower and upper corner (2, 3) of the box, in the base frame, that the tool
        may not leave. None: no box.
    :param joint_limits: lower and upper bounds (2, size). None: no bounds.
    """

    group: ActionGroup
    period_s: float
    max_linear_m_s: float = np.inf
    max_angular_rad_s: float = np.inf
    max_joint_s: float = np.inf
    max_lead_s: float = np.inf
    max_step: np.ndarray | None = None
    workspace_m: np.ndarray | None = None
    joint_limits: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Refuse NaN: every comparison with it is false, so it would be no limit at all."""
        for name in ('period_s', 'max_linear_m_s', 'max_angular_rad_s', 'max_joint_s',
                     'max_lead_s', 'max_step', 'workspace_m', 'joint_limits'):
            value = getattr(self, name)
            if value is not None and np.isnan(value).any():
                raise ValueError(f'{name}: expected a number, found {value}')

    @property
    def needs_present(self) -> bool:
        """Return whether nothing passes while nobody knows where the group is."""
        is_moved = self.group.kind != 'gripper'
        return is_moved and (self.group.meaning.is_absolute or self.workspace_m is not None
                             or self.joint_limits is not None)


@dataclass(frozen=True)
class Limits:
    """
    What a robot may be asked to do.

    :param deadline_s: the greatest age of an observation whose answer still counts.
    :param groups: by the name of the group; all of them.
    """

    deadline_s: float
    groups: Mapping[str, GroupLimits]

    def __post_init__(self) -> None:
        """Refuse NaN, as for the groups."""
        if np.isnan(self.deadline_s):
            raise ValueError(f'deadline_s: expected a number, found {self.deadline_s}')


@dataclass(frozen=True)
class Command:
    """
    What the robot is to do for one control period.

    :param groups: values by the name of the group, as in :class:`Action`, float64.
    :param slowed: the least factor, at most 1, that the speed limits have put on a group.
    """

    groups: Mapping[str, np.ndarray]
    slowed: float


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
    refusal = _not_finite(action, limits) or _too_old(age_s, limits.deadline_s)
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


def step_limit(group: ActionGroup, ratio: float) -> np.ndarray | None:
    """
    Return the largest step that is let through on each axis.

    An axis that never moved in training has a largest step of 0, and what a policy gives for it
    is never quite 0. It gets a floor, as its normalisation does, or every action was refused.

    :param ratio: of the largest step in training.
    :return: (size,) in the group's units; None where the largest are unknown.
    """
    if group.largest is None or group.normalisation is None:
        return None
    largest, scale = np.array(group.largest), np.array(group.normalisation.scale)
    floor = np.zeros_like(largest)
    parts = [(slice(None), _TURN)]
    if group.axes == POSE_AXES:
        parts = [(slice(0, 3), _PLACE), (slice(3, None), _TURN)]
    for axes, (least, most) in parts:
        floor[axes] = _FLOOR_SHARE * largest[axes].max()
        if floor[axes].max() < least:
            floor[axes] = np.clip(_FLOOR_SHARE * scale[axes].max(), least, most)
    return ratio * np.maximum(largest, floor)


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

    def update(self, action: Action, now_s: float) -> dict[str, np.ndarray]:
        """Return the openings, 0 or 1, of the binary groups; see :class:`GripperShaper`."""
        return {name: np.array([float(shaper.update(float(value), now_s))
                                for shaper, value in zip(shapers, action.groups[name])])
                for name, shapers in self._shapers.items()}


def _ee_delta(values: np.ndarray, limits: GroupLimits, now: Present,
              before: np.ndarray | None) -> Slowed | Reason:
    refusal = _too_large(values, limits)
    if refusal is not None:
        return refusal
    factor = _tool_factor(values, limits)
    values = values * factor
    if limits.workspace_m is None:
        return Slowed(values, factor)
    if now is None:
        return Reason('no_pose', 'the workspace is limited and the tool pose is missing or old')
    if not isinstance(now, Pose):
        return _unknown(now)
    step = now.rotation @ values[:3] if limits.group.frame == 'tool' else values[:3]
    refusal = _leaves_workspace(now, now.position_m + step, limits.workspace_m)
    return Slowed(values, factor) if refusal is None else refusal


def _ee_pose(values: np.ndarray, limits: GroupLimits, now: Present,
             before: np.ndarray | None) -> Slowed | Reason:
    if not isinstance(now, Pose) or not all(np.isfinite(part).all() for part in now):
        return _unknown(now)
    way = way_to(now, values)
    step = way if before is None else way_to(_as_pose(before), values)
    refusal = _too_large(step, limits) or _too_far(way[:3], limits.max_linear_m_s, 'm', limits)
    refusal = refusal or _too_far(way[3:], limits.max_angular_rad_s, 'rad', limits)
    if refusal is None and limits.workspace_m is not None:
        refusal = _leaves_workspace(now, values[:3], limits.workspace_m)
    if refusal is not None:
        return refusal
    factor = _tool_factor(way, limits)
    return Slowed(towards(now, values, factor), factor)


def _joint_position(values: np.ndarray, limits: GroupLimits, now: Present,
                    before: np.ndarray | None) -> Slowed | Reason:
    if not _is_known(now, limits):
        return _unknown(now)
    assert isinstance(now, np.ndarray)
    way = values - now
    step = way if before is None else values - before
    refusal = (_too_large(step, limits) or _joint_too_far(way, limits)
               or _beyond_joint_limits(values, way, limits))
    if refusal is not None:
        return refusal
    factor = _joint_factor(way / limits.period_s, limits)
    return Slowed(towards(now, values, factor), factor)


def _joint_delta(values: np.ndarray, limits: GroupLimits, now: Present,
                 before: np.ndarray | None) -> Slowed | Reason:
    factor = _joint_factor(values / limits.period_s, limits)
    return _too_large(values, limits) or _joint_steps(values * factor, 1.0, factor, limits, now)


def _joint_velocity(values: np.ndarray, limits: GroupLimits, now: Present,
                    before: np.ndarray | None) -> Slowed | Reason:
    factor = _joint_factor(values, limits)
    return _too_large(values, limits) or _joint_steps(values * factor, limits.period_s, factor,
                                                      limits, now)


def _joint_steps(values: np.ndarray, duration: float, factor: float, limits: GroupLimits,
                 now: Present) -> Slowed | Reason:
    """Hold where a step leads against the joints' limits, where there are any."""
    if limits.joint_limits is None:
        return Slowed(values, factor)
    if not _is_known(now, limits):
        return _unknown(now)
    assert isinstance(now, np.ndarray)
    step = values * duration
    refusal = _beyond_joint_limits(now + step, step, limits)
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


def _not_finite(action: Action, limits: Limits) -> Reason | None:
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


def _too_old(age_s: float, deadline_s: float) -> Reason | None:
    if abs(age_s) <= deadline_s:
        return None
    return Reason('deadline', f'the observation is {age_s:.3f} s old when it is answered, at most '
                  f'{deadline_s:.3f} s is allowed (deadline_s)')


def _too_large(step: np.ndarray, limits: GroupLimits) -> Reason | None:
    if limits.max_step is None or (np.abs(step) <= limits.max_step).all():
        return None
    axis = int(np.argmax(np.abs(step) / np.maximum(limits.max_step, _NOTHING)))
    name, unit = limits.group.axes[axis], limits.group.units[axis]
    return Reason('step', f'a step of {step[axis]:.4f} {unit} on {name} is beyond '
                  f'{limits.max_step[axis]:.4f} {unit}, max_step_ratio times the largest in '
                  'training')


def _too_far(way: np.ndarray, speed: float, unit: str, limits: GroupLimits) -> Reason | None:
    """Refuse a pose that cannot be meant for where the tool is."""
    distance, most = float(np.linalg.norm(way)), speed * limits.max_lead_s
    if distance <= most:
        return None
    return Reason('far', f'the pose is {distance:.4f} {unit} from where the tool is, at most '
                  f'{most:.4f} {unit} is allowed (max_lead_s at the greatest speed)')


def _joint_too_far(way: np.ndarray, limits: GroupLimits) -> Reason | None:
    most = limits.max_joint_s * limits.max_lead_s
    if (np.abs(way) <= most).all():
        return None
    axis = int(np.argmax(np.abs(way)))
    return Reason('far', f'{limits.group.axes[axis]} is told to be {abs(way[axis]):.4f} rad from '
                  f'where it is, at most {most:.4f} rad is allowed (max_lead_s at '
                  'max_joint_speed_rad_s)')


def _beyond_joint_limits(target: np.ndarray, step: np.ndarray,
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


def _leaves_workspace(now: Pose, target: np.ndarray, workspace_m: np.ndarray) -> Reason | None:
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


def _unknown(now: Present) -> Reason:
    """Say that nobody knows where a group is, whose command depends on it."""
    if isinstance(now, Reason):
        return now
    return Reason('no_present', 'where it is now is not known, and what it may be told depends on '
                  f'that; found {now}')


def _as_pose(values: np.ndarray) -> Pose:
    return Pose(values[:3], Rotation.from_rotvec(values[3:]).as_matrix())

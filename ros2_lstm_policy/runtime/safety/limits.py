"""What a robot may be asked to do, and what it is to do: the values of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.manifest import ActionGroup, SMALLEST_SHARE
from ros2_lstm_policy.types import Reason

# What an axis may always be given, of the widest delta of its kind in training: the constant
# that it had and the noise around it are each up to one share.
_FLOOR_SHARE = 2 * SMALLEST_SHARE
# The same where no axis of the kind ever moved: at least, at most.
_PLACE, _TURN = (1e-4, 0.005), (1e-3, 0.05)  # m; rad


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
    :param max_linear_m_s2: acceleration between two commands, `max_linear_m_s3` jerk, likewise of
        rotation and of joints; see :mod:`.smooth`.
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
    max_linear_m_s2: float = np.inf
    max_angular_rad_s2: float = np.inf
    max_joint_s2: float = np.inf
    max_linear_m_s3: float = np.inf
    max_angular_rad_s3: float = np.inf
    max_joint_s3: float = np.inf

    def __post_init__(self) -> None:
        """Refuse NaN: every comparison with it is false, so it would be no limit at all."""
        for name, value in vars(self).items():
            if name != 'group' and value is not None and np.isnan(value).any():
                raise ValueError(f'{name}: expected a number, found {value}')

    @property
    def is_smoothed(self) -> bool:
        """Return whether acceleration or jerk has a limit."""
        return self.group.kind != 'gripper' and bool(np.isfinite([
            *self._accelerations, *self._jerks]).any())

    @property
    def _accelerations(self) -> tuple[float, ...]:
        is_tool = self.group.axes == POSE_AXES
        return ((self.max_linear_m_s2, self.max_angular_rad_s2) if is_tool
                else (self.max_joint_s2,))

    @property
    def _jerks(self) -> tuple[float, ...]:
        is_tool = self.group.axes == POSE_AXES
        return ((self.max_linear_m_s3, self.max_angular_rad_s3) if is_tool
                else (self.max_joint_s3,))

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
    :param is_smoothed: whether acceleration or jerk limits have changed it.
    """

    groups: Mapping[str, np.ndarray]
    slowed: float
    is_smoothed: bool = False


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

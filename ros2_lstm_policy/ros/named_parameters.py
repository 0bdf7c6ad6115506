"""
Parameters of what a checkpoint names: the streams of its states, and its groups of actions.

They are `FAMILY.NAME.FIELD`, such as `streams.joints.topic`. Those that are given at the start are
declared then, the others when the node is configured and the checkpoint is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, Field, fields
import math
from typing import Any

from ros2_lstm_policy.manifest import check_name
from ros2_lstm_policy.ros.declared import parameter
from ros2_lstm_policy.streams import JOINT_STATE, stream_of, StreamConfig

NO_NAMES = ('',)  # an empty list would have no type


@dataclass(frozen=True)
class StreamSettings:
    """Where a stream of numbers comes from; see :class:`.streams.StreamConfig`."""

    topic: str = parameter(
        '', 'its topic, before any remapping; empty: `joint_states` for `joints`, else its name')
    msgtype: str = parameter(
        '', 'type of its messages, such as `std_msgs/msg/Float64MultiArray`; empty: PoseStamped '
        'for `ee_pose`, else JointState')
    field: str = parameter(
        '', "path to other values than the type's own, such as `velocity` of a JointState")
    names: tuple[str, ...] = parameter(
        NO_NAMES, "this robot's joints whose values are meant, in the policy's order, whatever "
        "the order in the message; `['']`: those that the checkpoint names")
    offset: float = parameter(0.0, 'what is subtracted from each value')
    scale: float = parameter(
        1.0, 'what the rest is divided by: a gripper of 0.08 m has the opening 1 with 0.08')


@dataclass(frozen=True)
class GroupSettings:
    """What a group of actions is on this robot."""

    message: str = parameter(
        '', 'of `joint_position`: a JointTrajectory of one point, or a Float64MultiArray for a '
        'forward controller; empty: the trajectory', choices=('', 'trajectory', 'positions'))
    joints: tuple[str, ...] = parameter(
        NO_NAMES, "names of this robot's joints in its commands, in the group's order; `['']`: "
        'those that the checkpoint names')
    present: str = parameter(
        '', 'name of the stream that says where the group is now; empty: `joints`, or `ee_pose` '
        'of the tool (NAME_ee_pose where there are several arms)')
    lower: tuple[float, ...] = parameter(
        (-math.inf,), 'of joints: no command leads below; one number, or one a joint', 'rad')
    upper: tuple[float, ...] = parameter(
        (math.inf,), 'of joints: no command leads above', 'rad')
    base_frame_id: str = parameter('', "frame of the arm's base; empty: `base_frame_id`")
    tool_frame_id: str = parameter('', 'frame of its tool; empty: `tool_frame_id`')


FAMILIES: Mapping[str, type] = {'streams': StreamSettings, 'groups': GroupSettings}


def rows_of(family: str, name: str) -> dict[str, Field[Any]]:
    """Return the rows of one name, by their whole names."""
    found = {}
    for row in fields(FAMILIES[family]):
        row = copy(row)
        row.name = f'{family}.{name}.{row.name}'
        found[row.name] = row
    return found


def family_and_name(whole: str) -> tuple[str, str] | None:
    """Return what a parameter is of; None where it is of no family."""
    family, _, rest = whole.partition('.')
    name, _, row = rest.partition('.')
    if family not in FAMILIES or not row:
        return None
    try:
        check_name(family, name)
    except ValueError:
        return None
    return family, name


def stream_config(name: str, given: StreamSettings, names: tuple[str, ...] = (),
                  usual: StreamConfig | None = None) -> StreamConfig:
    """
    Return where a stream comes from on this robot.

    :param names: of its values, as the checkpoint has them.
    :param usual: what stands for what is not given; None: what a state of this name has.
    :raises ValueError: for values that mean nothing.
    """
    usual = stream_of(name, {}) if usual is None else usual
    try:
        return StreamConfig(given.topic or usual.topic, given.msgtype or usual.msgtype or
                            JOINT_STATE, given.field, words(given.names) or names, given.offset,
                            given.scale)
    except ValueError as error:
        raise ValueError(f'streams.{name}: {error}') from error


def words(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that a parameter lists."""
    return () if given == NO_NAMES else given

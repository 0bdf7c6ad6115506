"""Numbers to messages: the inverse of `streams.decode`, for what is written into bags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.kinds import POSE_AXES, rotation_6d, rotation_vector
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from ros2_lstm_policy.streams import stream_of, StreamConfig

NUMBERS = 'std_msgs/msg/Float64MultiArray'
_POSE_NUMBERS = 9
_ROTATION_TOLERANCE = 1e-4


class Messages(Protocol):
    """What builds messages of a bag."""

    def message(self, msgtype: str, **fields: object) -> object:
        """Build one message or a part of one by its fields."""

    def header(self, stamp_ns: int, frame_id: str = '') -> object:
        """Build a std_msgs/Header."""


def command_stream(group: ActionGroup) -> StreamConfig:
    """Return the topic and the type with which a group's commands are written."""
    topic = f'commands/{group.name}'
    if group.meaning.axes == POSE_AXES:
        return StreamConfig(topic, bag.POSE if group.meaning.is_absolute else bag.TWIST)
    if group.kind == 'joint_position' and group.names:
        return StreamConfig(topic, bag.JOINTS, names=group.names)
    return StreamConfig(topic, NUMBERS)


def state_stream(state: StateSpec, values: np.ndarray) -> StreamConfig:
    """
    Return the topic and the type with which a state is written.

    :param values: (T, size), which tell whether nine numbers are a pose.
    """
    usual = stream_of(state.name, {})
    topic = usual.topic if usual.msgtype else f'states/{state.name}'
    if state.names and state.size != _POSE_NUMBERS:
        return StreamConfig(topic if usual.msgtype in ('', bag.JOINTS)
                            else f'states/{state.name}', bag.JOINTS, names=state.names)
    if state.size == _POSE_NUMBERS and not state.names and _are_poses(values):
        return StreamConfig(topic if usual.msgtype in ('', bag.POSE)
                            else f'states/{state.name}', bag.POSE)
    return StreamConfig(f'states/{state.name}', NUMBERS)


def _are_poses(values: np.ndarray) -> bool:
    """Return whether the last six of nine numbers are two columns of rotation matrices."""
    columns = np.asarray(values, np.float64)[:, 3:]
    if not np.isfinite(columns).all() or not (np.linalg.norm(columns[:, :3], axis=1) > 0.5).all():
        return False
    again = rotation_6d(rotation_vector(columns))
    return bool(np.abs(again - columns).max(initial=0.0) < _ROTATION_TOLERANCE)


def message_fields(messages: Messages, config: StreamConfig, stamp_ns: int,
                   values: np.ndarray) -> Mapping[str, object]:
    """Return the fields of a message with these values; :raises KeyError: for other types."""
    return _FIELDS[config.msgtype](messages, config, stamp_ns, np.asarray(values, np.float64))


def _joints(messages: Messages, config: StreamConfig, stamp_ns: int,
            values: np.ndarray) -> dict[str, object]:
    empty = np.zeros(0)
    return {'header': messages.header(stamp_ns), 'name': list(config.names), 'position': values,
            'velocity': empty, 'effort': empty}


def _pose(messages: Messages, config: StreamConfig, stamp_ns: int,
          values: np.ndarray) -> dict[str, object]:
    """Write x y z with a rotation vector, or with the first two columns of its matrix."""
    from scipy.spatial.transform import Rotation
    vector = values[3:] if len(values) == len(POSE_AXES) else rotation_vector(values[3:])
    orientation = _xyz(messages, 'geometry_msgs/msg/Quaternion',
                       Rotation.from_rotvec(vector).as_quat())
    pose = messages.message('geometry_msgs/msg/Pose', orientation=orientation,
                            position=_xyz(messages, 'geometry_msgs/msg/Point', values[:3]))
    return {'header': messages.header(stamp_ns, 'base'), 'pose': pose}


def _twist(messages: Messages, config: StreamConfig, stamp_ns: int,
           values: np.ndarray) -> dict[str, object]:
    linear, angular = (_xyz(messages, 'geometry_msgs/msg/Vector3', part)
                       for part in (values[:3], values[3:]))
    return {'header': messages.header(stamp_ns), 'twist': messages.message(
        'geometry_msgs/msg/Twist', linear=linear, angular=angular)}


def _numbers(messages: Messages, config: StreamConfig, stamp_ns: int,
             values: np.ndarray) -> dict[str, object]:
    layout = messages.message('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
    return {'layout': layout, 'data': values}


def _xyz(messages: Messages, msgtype: str, values: np.ndarray) -> object:
    return messages.message(msgtype, **{axis: float(value) for axis, value in zip('xyzw', values)})


_FIELDS: Mapping[str, Callable[[Messages, StreamConfig, int, np.ndarray], dict[str, Any]]] = {
    bag.JOINTS: _joints, bag.POSE: _pose, bag.TWIST: _twist, NUMBERS: _numbers}

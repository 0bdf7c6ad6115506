"""
Messages to streams of numbers, by their attributes: nothing of ROS is imported.

Live messages (rclpy) and recorded ones (rosbags) pass through the same functions, so that a policy
is told of its robot what it was trained on. Which values of a message are meant, and in which
order, is said by a :class:`StreamConfig`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from ros2_lstm_policy.kinds import rotation_6d
from ros2_lstm_policy.messages import stamp_ns

JOINT_STATE = 'sensor_msgs/msg/JointState'
_QUATERNION_TOLERANCE = 0.01  # of its length: what rounding and single precision leave


class StreamError(ValueError):
    """A message that has not the values that are wanted, with what was found and wanted."""


@dataclass(frozen=True)
class StreamConfig:
    """
    Where a stream of numbers comes from, and which values of a message are meant.

    :param topic: its topic, before any remapping; in bags one that ends with it matches, too.
    :param msgtype: type of its messages; empty for the one that the topic has in a bag, and for a
        JointState on the robot.
    :param field: path to other values than the type's own, such as `velocity` of a JointState or
        `actual.positions`; empty for its own.
    :param names: of the joints whose values are meant, in the wanted order, whatever the order in
        the message; empty for all, as they come.
    :param offset: what is subtracted from each value,
    :param scale: and what the rest is divided by: a gripper of 0.08 m has the opening 1 with 0.08.
    """

    topic: str
    msgtype: str = ''
    field: str = ''
    names: tuple[str, ...] = ()
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.topic:
            raise ValueError('topic: expected the name of a topic')
        if not (math.isfinite(self.offset) and math.isfinite(self.scale) and self.scale):
            raise ValueError(f'offset and scale must be finite, scale not 0; found {self.offset} '
                             f'and {self.scale}')


def decode(message: Any, msgtype: str, config: StreamConfig) -> np.ndarray:
    """
    Return the values of a message, (size,) float64.

    :param msgtype: as in `sensor_msgs/msg/JointState`.
    :raises StreamError: where it has not the values that are wanted, or not all are finite.
    """
    if config.field:
        values = _field(message, config)
    else:
        decoder = DECODERS.get(msgtype)
        if decoder is None:
            raise StreamError(f'{config.topic}: {msgtype} has no values of its own; say which '
                              f'with `field`, or use one of {", ".join(DECODERS)}')
        values = decoder(message, config)
    values = (np.asarray(values, np.float64) - config.offset) / config.scale
    if not np.isfinite(values).all():
        raise StreamError(f'{config.topic}: expected finite numbers, found {values.tolist()}')
    return values


def time_ns(message: Any, received_ns: int) -> int:
    """Return the stamp of a message, or when it was received where its type has none."""
    return stamp_ns(message) if hasattr(message, 'header') else received_ns


def _joints(message: Any, config: StreamConfig) -> np.ndarray:
    return _by_name(message.position, message.name, config)


def _trajectory(message: Any, config: StreamConfig) -> np.ndarray:
    if not message.points:
        raise StreamError(f'{config.topic}: a trajectory without points')
    return _by_name(message.points[-1].positions, message.joint_names, config)


def _by_name(values: Any, names: Any, config: StreamConfig) -> np.ndarray:
    """Return the values of the wanted joints, in the wanted order."""
    found = np.asarray(values, np.float64)
    if not config.names:
        return found
    places = {name: place for place, name in enumerate(names)}
    if missing := [name for name in config.names if name not in places]:
        raise StreamError(f'{config.topic}: no joint {", ".join(missing)}; the message has '
                          f'{", ".join(names) or "no names"}')
    if len(found) != len(places):
        raise StreamError(f'{config.topic}: {len(places)} names and {len(found)} values')
    return found[[places[name] for name in config.names]]


def _pose(message: Any, config: StreamConfig) -> np.ndarray:
    """Return x y z in m and the first two columns of the rotation, nine numbers."""
    pose = getattr(message, 'pose', message)
    p, q = pose.position, pose.orientation
    quaternion = np.array([q.x, q.y, q.z, q.w])
    length = float(np.linalg.norm(quaternion))
    if not abs(length - 1) <= _QUATERNION_TOLERANCE:
        raise StreamError(f'{config.topic}: the orientation {quaternion.tolist()} is no unit '
                          'quaternion')
    from scipy.spatial.transform import Rotation
    vector = Rotation.from_quat(quaternion).as_rotvec()
    return np.concatenate([[p.x, p.y, p.z], rotation_6d(vector)])


def _six(message: Any, config: StreamConfig) -> np.ndarray:
    """Return the linear and the angular vector of a twist, or force and torque of a wrench."""
    inner = getattr(message, 'twist', getattr(message, 'wrench', message))
    first, second = ((inner.linear, inner.angular) if hasattr(inner, 'linear')
                     else (inner.force, inner.torque))
    return np.array([first.x, first.y, first.z, second.x, second.y, second.z])


def _data(message: Any, config: StreamConfig) -> np.ndarray:
    return np.atleast_1d(np.asarray(message.data, np.float64))


def _field(message: Any, config: StreamConfig) -> np.ndarray:
    """Return what lies under a path: a number, a list of them, or x y z (w)."""
    found = message
    for part in config.field.split('.'):
        if isinstance(found, (list, tuple)) and part.lstrip('-').isdecimal():
            found = found[int(part)] if -len(found) <= int(part) < len(found) else None
        else:
            found = getattr(found, part, None)
        if found is None:
            raise StreamError(f'{config.topic}: a message has nothing under {config.field!r}')
    if hasattr(found, 'x'):
        found = [getattr(found, axis) for axis in 'xyzw' if hasattr(found, axis)]
    try:
        values = np.atleast_1d(np.asarray(found, np.float64))
    except (TypeError, ValueError):
        raise StreamError(f'{config.topic}: {config.field!r} is no number and no list of '
                          'numbers') from None
    names = getattr(message, 'name', getattr(message, 'joint_names', None))
    return _by_name(values, names, config) if config.names and names is not None else values


# Messages to values: a type of your own is one entry.
DECODERS: Mapping[str, Callable[[Any, StreamConfig], np.ndarray]] = {
    JOINT_STATE: _joints,
    'geometry_msgs/msg/PoseStamped': _pose,
    'geometry_msgs/msg/Pose': _pose,
    'geometry_msgs/msg/TwistStamped': _six,
    'geometry_msgs/msg/Twist': _six,
    'geometry_msgs/msg/WrenchStamped': _six,
    'geometry_msgs/msg/Wrench': _six,
    'std_msgs/msg/Float32': _data,
    'std_msgs/msg/Float64': _data,
    'std_msgs/msg/Float32MultiArray': _data,
    'std_msgs/msg/Float64MultiArray': _data,
    'trajectory_msgs/msg/JointTrajectory': _trajectory,
}
# What a state is where nobody says it: by its name, on the topic of most robots.
USUAL = {
    'joints': StreamConfig('joint_states', JOINT_STATE),
    'ee_pose': StreamConfig('ee_pose', 'geometry_msgs/msg/PoseStamped'),
}


def stream_of(name: str, said: Mapping[str, StreamConfig]) -> StreamConfig:
    """Return where a stream comes from: as it is said, as usual, or a topic of its own name."""
    return said.get(name) or USUAL.get(name) or StreamConfig(name)

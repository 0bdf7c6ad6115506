"""Values of this package to the messages that leave it."""

from __future__ import annotations

from builtin_interfaces.msg import Duration, Time
import cv2
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Path
import numpy as np
from ros2_lstm_policy.runtime.safety import Pose
from std_msgs.msg import Float64MultiArray, Header

_QUATERNION_TOLERANCE = 0.01  # of its length: what rounding and single precision leave


def time_message(stamp_ns: int) -> Time:
    """Return nanoseconds as a stamp."""
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def twist(stamp_ns: int, frame_id: str, values: np.ndarray) -> TwistStamped:
    """Return six numbers, linear x y z and angular x y z, with their stamp and axes."""
    message = TwistStamped()
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = frame_id
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = values.tolist()
    return message


def gripper(position: float) -> Float64MultiArray:
    """Return the one command of a one-joint forward command controller."""
    return Float64MultiArray(data=[position])


def duration(seconds: float) -> Duration:
    """Return seconds as a duration."""
    whole, nanoseconds = divmod(round(seconds * 1e9), 1_000_000_000)
    return Duration(sec=whole, nanosec=nanoseconds)


def pose(stamp_ns: int, frame_id: str, values: np.ndarray) -> PoseStamped:
    """Return a place in m and a rotation vector in rad, six numbers, as a pose."""
    header = Header(stamp=time_message(stamp_ns), frame_id=frame_id)
    return _pose(header, np.asarray(values[:3], np.float64), _rotation(values[3:]))


def path(stamp_ns: int, frame_id: str, arm_KA: np.ndarray, in_tool_axes: bool,
         start: Pose | None) -> Path:
    """
    Integrate a chunk of deltas into the poses that the policy intends.

    :param frame_id: frame that `start` is in; without a start the path begins at its origin.
    :param arm_KA: (K, 6) m and rotation vectors in rad.
    """
    message = Path()
    message.header.stamp = time_message(stamp_ns)
    message.header.frame_id = frame_id
    position, rotation = (np.zeros(3), np.eye(3)) if start is None else start
    message.poses = [_pose(message.header, position, rotation)]
    for arm_A in arm_KA.astype(np.float64):
        turn = _rotation(arm_A[3:])
        position = position + (rotation @ arm_A[:3] if in_tool_axes else arm_A[:3])
        rotation = rotation @ turn if in_tool_axes else turn @ rotation
        message.poses.append(_pose(message.header, position, rotation))
    return message


def pose_from_message(message: PoseStamped) -> Pose:
    """
    Return a pose message as arrays.

    :raises ValueError: for numbers that are no place, or a quaternion that is no rotation.
    """
    p, q = message.pose.position, message.pose.orientation
    position, quaternion = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
    if not (np.isfinite(position).all() and np.isfinite(quaternion).all()):
        raise ValueError(f'position {position.tolist()} and orientation {quaternion.tolist()} '
                         'are not all finite')
    length = float(np.linalg.norm(quaternion))
    if abs(length - 1) > _QUATERNION_TOLERANCE:
        raise ValueError(f'the orientation {quaternion.tolist()} is no unit quaternion')
    x, y, z, w = quaternion / length
    rotation = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])
    return Pose(position, rotation)


def _rotation(vector: np.ndarray) -> np.ndarray:
    return cv2.Rodrigues(np.asarray(vector, np.float64))[0]


def _pose(header: Header, position: np.ndarray, rotation: np.ndarray) -> PoseStamped:
    message = PoseStamped(header=header)
    p, q = message.pose.position, message.pose.orientation
    p.x, p.y, p.z = position.tolist()
    vector = cv2.Rodrigues(rotation)[0][:, 0]
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 0 else vector
    q.x, q.y, q.z = (axis * np.sin(angle / 2)).tolist()
    q.w = float(np.cos(angle / 2))
    return message

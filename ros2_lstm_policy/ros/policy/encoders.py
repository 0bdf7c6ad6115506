"""Commands of groups to messages: one entry a kind of action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from nav_msgs.msg import Path
import numpy as np
from ros2_lstm_policy.manifest import ActionGroup
from ros2_lstm_policy.ros import conversions
from ros2_lstm_policy.ros.named_parameters import GroupSettings, words
from ros2_lstm_policy.ros.policy.parameters import Settings
from ros2_lstm_policy.runtime.safety import Pose
from ros2_lstm_policy.types import ARM, GRIPPER
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

# Groups of the body with one arm: their topics have no group in their names.
_OF_ONE_ARM = ((ARM, 'ee_delta'), (GRIPPER, 'gripper'))


@dataclass(frozen=True)
class Target:
    """
    Where the commands of one group go on this robot, and how.

    :param given: the group's own parameters.
    :param period_s: time that one command covers.
    """

    group: ActionGroup
    settings: Settings
    given: GroupSettings
    period_s: float

    def topic(self, leaf: str) -> str:
        """Return the name of a topic of the group, before any remapping."""
        is_of_one_arm = (self.group.name, self.group.kind) in _OF_ONE_ARM
        return f'~/{leaf}' if is_of_one_arm else f'~/{self.group.name}/{leaf}'

    def operator_topic(self, leaf: str) -> str:
        """Return the name of the topic on which an operator commands the group."""
        return f'operator/{self.topic(leaf).removeprefix("~/")}'

    @property
    def base_frame_id(self) -> str:
        """Return the frame of the arm's base."""
        return self.given.base_frame_id or self.settings.base_frame_id

    @property
    def frame_id(self) -> str:
        """Return the frame that the group's deltas are in."""
        tool = self.given.tool_frame_id or self.settings.tool_frame_id
        return tool if self.group.frame == 'tool' else self.base_frame_id

    @property
    def joints(self) -> list[str]:
        """Return the names of the joints on this robot; none where nobody says them."""
        return list(words(self.given.joints) or self.group.names)


# Where they go, stamp of the observation, values (size,) -> topic to message
Messages: TypeAlias = Callable[[Target, int, np.ndarray], dict[str, Any]]


@dataclass(frozen=True)
class Encoder:
    """
    How the commands of a kind leave.

    :param command: its messages of one period. Whoever calls has them all before any goes out.
    :param repeat: further ones, which are repeated at `servo_rate_hz` with the time of now and
        less of the values the older they are; for deltas alone, of which zero is a hold.
    :param path: the whole chunk (K, size) as it is shown, from where the tool is.
    """

    command: Messages
    repeat: Messages | None = None
    path: Callable[[Target, int, np.ndarray, Pose | None], Path] | None = None


def _delta(target: Target, stamp_ns: int, values: np.ndarray) -> dict[str, Any]:
    return {target.topic('arm_delta'): conversions.twist(stamp_ns, target.frame_id, values)}


def _servo(target: Target, stamp_ns: int, values: np.ndarray) -> dict[str, Any]:
    velocity = values / target.period_s  # m to m/s, rad to rad/s
    return {target.topic('delta_twist_cmds'): conversions.twist(stamp_ns, target.frame_id,
                                                                velocity)}


def _delta_path(target: Target, stamp_ns: int, chunk: np.ndarray, start: Pose | None) -> Path:
    frame_id = target.frame_id if start is None else target.base_frame_id
    return conversions.path(stamp_ns, frame_id, chunk, target.group.frame == 'tool', start)


def _pose(target: Target, stamp_ns: int, values: np.ndarray) -> dict[str, Any]:
    return {target.topic('pose'): conversions.pose(stamp_ns, target.base_frame_id, values)}


def _pose_path(target: Target, stamp_ns: int, chunk: np.ndarray, start: Pose | None) -> Path:
    poses = [conversions.pose(stamp_ns, target.base_frame_id, values) for values in chunk]
    return Path(header=poses[0].header, poses=poses)


def _joint_position(target: Target, stamp_ns: int, values: np.ndarray) -> dict[str, Any]:
    """Return a trajectory stamped zero, "at once": a point in the past is not followed."""
    if target.given.message == 'positions':
        return {target.topic('joint_positions'): Float64MultiArray(data=values.tolist())}
    point = JointTrajectoryPoint(positions=values.tolist(),
                                 time_from_start=conversions.duration(target.period_s))
    return {target.topic('joint_trajectory'): JointTrajectory(joint_names=target.joints,
                                                              points=[point])}


def _joint_delta(target: Target, stamp_ns: int, values: np.ndarray) -> dict[str, Any]:
    return {target.topic('joint_deltas'): Float64MultiArray(data=values.tolist())}


def _joint_velocity(target: Target, stamp_ns: int, values: np.ndarray) -> dict[str, Any]:
    return {target.topic('joint_velocities'): Float64MultiArray(data=values.tolist())}


def _gripper(target: Target, stamp_ns: int, values: np.ndarray) -> dict[str, Any]:
    return {target.topic('gripper_command'): Float64MultiArray(
        data=gripper_positions(target.settings, values).tolist())}


def gripper_positions(settings: Settings, openings: np.ndarray) -> np.ndarray:
    """Return what this robot's gripper is told for openings from 0 to 1."""
    closed, opened = settings.gripper_closed, settings.gripper_open
    return np.where(openings >= 1, opened, closed + openings * (opened - closed))


# By kind of action: a kind of your own is one entry here as well.
ENCODERS: dict[str, Encoder] = {
    'ee_delta': Encoder(_delta, _servo, _delta_path),
    'ee_pose': Encoder(_pose, path=_pose_path),
    'joint_delta': Encoder(_joint_delta),
    'joint_position': Encoder(_joint_position),
    'joint_velocity': Encoder(_joint_velocity),
    'gripper': Encoder(_gripper),
}

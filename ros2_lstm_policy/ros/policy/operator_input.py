"""What an operator commands: a topic a group, beside those that the policy commands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from geometry_msgs.msg import PoseStamped, Twist, TwistStamped
import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from ros2_lstm_policy.ros.conversions import pose_from_message
from ros2_lstm_policy.ros.policy.encoders import Target
from ros2_lstm_policy.ros.policy.inputs import OVERRIDABLE
from ros2_lstm_policy.runtime.safety import as_values
from ros2_lstm_policy.types import Reason
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

TWISTS: dict[str, type] = {'TwistStamped': TwistStamped, 'Twist': Twist}


@dataclass(frozen=True)
class Decoder:
    """
    How the operator's commands of a kind are read.

    :param leaf: last part of the topic's name.
    :param values: from a message to the group's values, as the policy gives them; raises
        ValueError for a message that means nothing.
    """

    leaf: str
    message: type
    values: Callable[[Any, Target], np.ndarray]


class OperatorInput:
    """
    The subscriptions to the operator's commands.

    :param on_command: called with each group's values, or why they mean nothing.
    """

    def __init__(self, node: LifecycleNode, targets: Sequence[Target],
                 on_command: Callable[[str, np.ndarray | Reason], None]) -> None:
        """Subscribe to a topic for each group of a known kind."""
        self._node, self._on_command = node, on_command
        self._subscriptions: dict[str, Subscription] = {}
        for target in targets:
            decoder = decoder_of(target)
            if decoder is None:
                continue
            self._subscriptions[target.group.name] = node.create_subscription(
                decoder.message, target.operator_topic(decoder.leaf),
                partial(self._take, target, decoder), QoSProfile(depth=1),
                qos_overriding_options=QoSOverridingOptions(OVERRIDABLE))

    @property
    def topics(self) -> dict[str, str]:
        """Return the topic of each group, as it was resolved."""
        return {group: subscription.topic_name
                for group, subscription in self._subscriptions.items()}

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)

    def _take(self, target: Target, decoder: Decoder, message: Any) -> None:
        given: np.ndarray | Reason
        try:
            given = decoder.values(message, target)
            if given.shape != (target.group.size,) or not np.isfinite(given).all():
                raise ValueError(f'expected {target.group.size} finite numbers, found '
                                 f'{given.tolist()}')
        except ValueError as error:
            topic = self._subscriptions[target.group.name].topic_name
            given = Reason('operator_unusable', f'{topic}: {error}')
        self._on_command(target.group.name, given)


def decoder_of(target: Target) -> Decoder | None:
    """Return how a group's commands are read; None where no operator can command its kind."""
    kind = target.group.kind
    if kind == 'ee_delta':
        return Decoder('twist', TWISTS[target.settings.operator_twist], _displacement)
    if kind == 'joint_position' and target.given.message != 'positions':
        return Decoder('joint_trajectory', JointTrajectory, _last_point)
    return _DECODERS.get(kind)


def _displacement(message: TwistStamped | Twist, target: Target) -> np.ndarray:
    """Return the displacement of one control period, m and rad, of a velocity, m/s and rad/s."""
    if isinstance(message, TwistStamped):
        _check_frame(message.header.frame_id, target.frame_id)
        message = message.twist
    parts = (message.linear, message.angular)
    velocity = np.array([value for part in parts for value in (part.x, part.y, part.z)])
    return velocity * target.period_s


def _pose(message: PoseStamped, target: Target) -> np.ndarray:
    _check_frame(message.header.frame_id, target.base_frame_id)
    return as_values(pose_from_message(message))


def _last_point(message: JointTrajectory, target: Target) -> np.ndarray:
    """Return where a trajectory leads, in the group's order of joints."""
    names = list(message.joint_names)
    if not message.points or len(message.points[-1].positions) != len(names):
        raise ValueError('expected a point with a position for each joint name')
    missing = [joint for joint in target.joints if joint not in names]
    if missing:
        raise ValueError(f'the joints {", ".join(missing)} are not in it')
    positions = message.points[-1].positions
    return np.array([positions[names.index(joint)] for joint in target.joints])


def _numbers(message: Float64MultiArray, target: Target) -> np.ndarray:
    return np.array(message.data, np.float64)


def _opening(message: Float64MultiArray, target: Target) -> np.ndarray:
    """Return openings of what this robot's gripper is told; 0 or 1 of a binary group."""
    closed, opened = target.settings.gripper_closed, target.settings.gripper_open
    openings = (np.array(message.data, np.float64) - closed) / (opened - closed)
    if not ((openings >= -_ROUNDING) & (openings <= 1 + _ROUNDING)).all():
        raise ValueError(f'expected numbers from {closed:g} (closed) to {opened:g} (open), found '
                         f'{list(message.data)}')
    if target.group.binary:
        return (openings > 0.5).astype(np.float64)
    return openings.clip(0, 1)


def _check_frame(found: str, wanted: str) -> None:
    """Refuse axes that are not the group's; an empty frame is taken for them."""
    if found.removeprefix('/') not in ('', wanted.removeprefix('/')):
        raise ValueError(f'its frame is {found!r}, and the commands are in {wanted!r}; set the '
                         "sender's frame (teleop_twist_joy: parameter frame)")


_ROUNDING = 1e-6
_DECODERS = {
    'ee_pose': Decoder('pose', PoseStamped, _pose),
    'joint_position': Decoder('joint_positions', Float64MultiArray, _numbers),
    'joint_delta': Decoder('joint_deltas', Float64MultiArray, _numbers),
    'joint_velocity': Decoder('joint_velocities', Float64MultiArray, _numbers),
    'gripper': Decoder('gripper_command', Float64MultiArray, _opening),
}

"""What the node says to the robot: all messages of a command are built, then all are published."""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Path
import numpy as np
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle.publisher import LifecyclePublisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from ros2_lstm_policy.kinds import ARM_DIM
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.ros import conversions
from ros2_lstm_policy.ros.gripper_action import GripperAction
from ros2_lstm_policy.ros.parameters import Settings
from ros2_lstm_policy.runtime.safety import Pose, ramp_down
from ros2_lstm_policy.types import ARM, Decision
from std_msgs.msg import Float64MultiArray

# Servo's velocity is meant for one period; half a period of grace lets a late tick pass unnoticed.
SERVO_FULL_PERIODS, SERVO_ZERO_PERIODS = 1.5, 2.5
_STILL = np.zeros(ARM_DIM)
_ACKNOWLEDGED_S = 0.3  # for each topic: a subscriber that hangs keeps nobody from leaving
_NS = 1_000_000_000


class Outputs:
    """
    The node's publishers; whoever calls holds the worker's lock.

    Whatever ends motion goes through :meth:`hold`, which sends a zero on every topic of motion.
    """

    def __init__(self, node: LifecycleNode, settings: Settings,
                 manifest: Manifest) -> None:
        """Create the publishers."""
        self._node, self._settings, self._manifest = node, settings, manifest
        self.is_shadow = settings.shadow
        self._in_tool = in_tool = manifest.action(ARM).frame == 'tool'
        self._frame_id = settings.tool_frame_id if in_tool else settings.base_frame_id
        self._arm = self._publisher(TwistStamped, '~/arm_delta')
        self._gripper = self._publisher(Float64MultiArray, '~/gripper_command')
        self._chunk = self._publisher(Path, '~/action_chunk')
        self._servo = (self._publisher(TwistStamped, '~/delta_twist_cmds')
                       if settings.servo_rate_hz > 0 else None)
        self._action = GripperAction.create(node, settings)
        initial: dict[str, bool | None] = {'unknown': None, 'open': True, 'closed': False}
        self._gripper_open = initial[settings.gripper_initial]
        self._velocity, self._commanded_ns = _STILL, 0

    @property
    def topics(self) -> list[str]:
        """Return the topics of commands, as they were resolved."""
        return [publisher.topic_name
                for publisher in filter(None, (self._arm, self._gripper, self._servo))]

    def close(self) -> None:
        """Destroy the publishers, once their last messages have come to those who listen."""
        for publisher in filter(None, (self._gripper, self._arm, self._servo)):
            publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGED_S))
        for publisher in filter(None, (self._arm, self._gripper, self._chunk, self._servo)):
            self._node.destroy_lifecycle_publisher(publisher)
        if self._action is not None:
            self._action.close()

    def command(self, stamp_ns: int, arm: np.ndarray, gripper_open: bool) -> None:
        """
        Command one control period.

        :param stamp_ns: of the observation that this answers.
        :param arm: (6,) m and a rotation vector in rad.
        """
        if self.is_shadow:
            return
        is_edge = gripper_open != self._gripper_open
        self._gripper_open = gripper_open
        self._velocity = arm / self._manifest.control_period_s
        self._commanded_ns = time.monotonic_ns()
        self._publish(stamp_ns, arm)
        if is_edge and self._action is not None:
            self._action.send(self._position())

    def hold(self, stamp_ns: int) -> None:
        """
        Command no motion, on every topic at once, and the gripper to stay as it is.

        The velocity does not wait for its next repetition: after a last hold there is none.

        :param stamp_ns: of the observation that this answers; now where there is none.
        """
        if self.is_shadow:
            return
        self._velocity = _STILL
        self._publish(stamp_ns, _STILL)
        self.servo()

    def set_shadow(self, is_shadow: bool) -> None:
        """
        Stop publishing commands, or begin to.

        Whoever moves the robot meanwhile moves the gripper, too: what it is, is unknown then.
        """
        if is_shadow and not self.is_shadow:
            self._gripper_open = None
        self.is_shadow = is_shadow

    def servo(self) -> None:
        """Repeat the last command as a velocity, stamped now, less of it the older it is."""
        if self._servo is None or self.is_shadow:
            return
        now_ns = self._node.get_clock().now().nanoseconds
        age_s = (time.monotonic_ns() - self._commanded_ns) / _NS
        period_s = self._manifest.control_period_s
        left = ramp_down(age_s, SERVO_FULL_PERIODS * period_s, SERVO_ZERO_PERIODS * period_s)
        self._servo.publish(conversions.twist(now_ns, self._frame_id, self._velocity * left))

    def intention(self, stamp_ns: int, decision: Decision, start: Pose | None) -> None:
        """Show the whole chunk, where somebody looks."""
        if self._chunk.get_subscription_count() == 0:
            return
        frame_id = self._frame_id if start is None else self._settings.base_frame_id
        self._chunk.publish(conversions.path(
            stamp_ns, frame_id, decision.chunk[:, :ARM_DIM], self._in_tool, start))

    def _publish(self, stamp_ns: int, arm: np.ndarray) -> None:
        arm_message = conversions.twist(stamp_ns, self._frame_id, arm)
        if self._gripper_open is not None:
            self._gripper.publish(conversions.gripper(self._position()))
        self._arm.publish(arm_message)

    def _position(self) -> float:
        return self._settings.gripper_open if self._gripper_open else self._settings.gripper_closed

    def _publisher(self, kind: Any, topic: str) -> LifecyclePublisher:
        return self._node.create_lifecycle_publisher(
            kind, topic, QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

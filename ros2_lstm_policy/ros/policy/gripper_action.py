"""Goals for a gripper's action server, where control_msgs is installed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rclpy.action import ActionClient
from rclpy.lifecycle import LifecycleNode
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.policy.encoders import Target
from ros2_lstm_policy.ros.policy.parameters import Settings
from ros2_lstm_policy.types import GRIPPER

ACTION = 'gripper_cmd'


class GripperAction:
    """A client of the action `gripper_cmd`; one goal an edge, nothing is waited for."""

    def __init__(self, node: LifecycleNode, settings: Settings, kind: Any,
                 name: str = ACTION) -> None:
        """Create the client."""
        self._node, self._settings, self._kind, self._name = node, settings, kind, name
        self._client = ActionClient(node, kind, name)

    @classmethod
    def of(cls, node: LifecycleNode, target: Target) -> GripperAction | None:
        """
        Return a client for a group, or None where it has no gripper or no action is asked for.

        :raises ParameterError: where control_msgs is not installed.
        """
        group, settings = target.group, target.settings
        if group.kind != 'gripper':
            return None
        if group.name == GRIPPER:
            return cls.create(node, settings)
        joints = target.joints or [settings.gripper_joint]
        return cls.create(node, replace(settings, gripper_joint=joints[0]),
                          f'{group.name}/{ACTION}')

    @classmethod
    def create(cls, node: LifecycleNode, settings: Settings,
               name: str = ACTION) -> GripperAction | None:
        """
        Return a client, or None where no action is asked for.

        :raises ParameterError: where control_msgs is not installed.
        """
        if not settings.gripper_action:
            return None
        try:
            from control_msgs import action
        except ImportError as error:
            raise ParameterError(
                f'gripper_action is {settings.gripper_action!r}, and control_msgs is not '
                'installed (rosdep key control_msgs); install it, or set gripper_action to '
                "''") from error
        return cls(node, settings, getattr(action, settings.gripper_action), name)

    def send(self, position: float) -> None:
        """Send a goal; a server that is not there is one warning a second."""
        if not self._client.server_is_ready():
            self._node.get_logger().warning(
                f'no action server at {self._name}; the gripper did not move',
                throttle_duration_sec=1.0)
            return
        self._client.send_goal_async(self._goal(position))

    def close(self) -> None:
        """Destroy the client."""
        self._client.destroy()

    def _goal(self, position: float) -> Any:
        goal = self._kind.Goal()
        effort = self._settings.gripper_max_effort
        if self._settings.gripper_action == 'GripperCommand':
            goal.command.position, goal.command.max_effort = position, effort
            return goal
        goal.command.name = [self._settings.gripper_joint]
        goal.command.position = [position]
        goal.command.effort = [effort] if effort > 0 else []
        return goal

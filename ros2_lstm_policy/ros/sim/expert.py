"""
The scripted expert as an acting node.

It needs what only the simulator knows, so it lives in the simulated robot's process; its commands
go over DDS by the rules that the policy node obeys: for each observation one gripper command and
one arm delta, in this order, the arm delta with the observation's stamp.
"""

from __future__ import annotations

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from ros2_lstm_policy.ros import conversions
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.robot import SimRobot
from std_msgs.msg import Float64MultiArray

BASE_FRAME = 'base_link'


class ExpertNode(Node):
    """Publishes what the expert would do."""

    def __init__(self) -> None:
        """Create the publishers; there is no robot yet."""
        super().__init__('expert')
        self._gripper = self.create_publisher(Float64MultiArray, '~/gripper_command', 10)
        self._arm = self.create_publisher(TwistStamped, '~/arm_delta', 10)
        self._expert: ScriptedExpert | None = None

    def begin(self, robot: SimRobot) -> None:
        """Begin an episode in a robot."""
        self._expert = ScriptedExpert(robot)

    def act(self, stamp_ns: int) -> None:
        """Decide for the robot's present state, the one of that stamp."""
        assert self._expert is not None
        action = self._expert.act()
        self._gripper.publish(conversions.gripper(action.gripper_open))
        self._arm.publish(conversions.twist(stamp_ns, BASE_FRAME, action.arm))

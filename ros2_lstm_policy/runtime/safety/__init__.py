"""
What stands between a decision and a robot: pure functions of what is given.

Doubt means hold: an action that is not finite, too old, larger than anything seen in training or
out of the workspace or the joints' limits is refused with a reason; so is a position far from
where the robot is. An action that is only faster than the robot may move is slowed to the limit,
in its own direction.
"""

from ros2_lstm_policy.runtime.safety.checks import Check, check, CHECKS, Slowed
from ros2_lstm_policy.runtime.safety.gripper import Grippers, GripperShaper
from ros2_lstm_policy.runtime.safety.guard import Guard
from ros2_lstm_policy.runtime.safety.limits import (Command, GroupLimits, Limits, Pose, Present,
                                                    step_limit)
from ros2_lstm_policy.runtime.safety.smooth import Smoother
from ros2_lstm_policy.runtime.safety.ways import (as_pose, as_values, blend_in, eased,
                                                  motion, ramp_down, towards, way_to)

MAX_INSTRUCTION_CHARACTERS = 1000

__all__ = ['CHECKS', 'MAX_INSTRUCTION_CHARACTERS', 'Check', 'Command', 'GripperShaper', 'Grippers',
           'GroupLimits', 'Guard', 'Limits', 'Pose', 'Present', 'Slowed', 'Smoother', 'as_pose',
           'as_values', 'blend_in', 'check', 'eased', 'motion', 'ramp_down', 'step_limit',
           'towards', 'way_to']

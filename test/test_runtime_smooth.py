"""Tests of acceleration and jerk limits."""

from dataclasses import replace

import numpy as np
import pytest
from ros2_lstm_policy.manifest import ActionGroup
from ros2_lstm_policy.runtime.safety import (as_pose, as_values, Command, GroupLimits, Guard,
                                             Limits, Pose, way_to)
from ros2_lstm_policy.types import Action, Reason

PERIOD_S = 0.1
ARM = ActionGroup('arm', 'ee_delta', 6, frame='base')
TOOL = ActionGroup('arm', 'ee_pose', 6, frame='base')
NAMES = ('a', 'b', 'c')
GROUPS = {
    'ee_delta': ARM,
    'ee_pose': TOOL,
    'joint_delta': ActionGroup('arm', 'joint_delta', 3, names=NAMES),
    'joint_velocity': ActionGroup('arm', 'joint_velocity', 3, names=NAMES),
    'joint_position': ActionGroup('arm', 'joint_position', 3, names=NAMES),
}
SPEED, ACCELERATION, JERK = 0.5, 1.0, 4.0


def limits_of(kind, acceleration=ACCELERATION, jerk=JERK, **changes):
    """Return the same limits for whatever a group of a kind is."""
    return GroupLimits(GROUPS[kind], PERIOD_S, SPEED, SPEED, SPEED, **changes,
                       max_linear_m_s2=acceleration, max_angular_rad_s2=acceleration,
                       max_joint_s2=acceleration, max_linear_m_s3=jerk, max_angular_rad_s3=jerk,
                       max_joint_s3=jerk)


class Robot:
    """Follows at once what it is told."""

    def __init__(self, limits):
        """Stand at a place that is not zero."""
        self.limits, self.guard = Limits(1.0, {'arm': limits}), Guard()
        is_tool = limits.group.size == 6
        self.at = np.full(limits.group.size, 0.1)
        self._is_tool, self._kind = is_tool, limits.group.kind

    def step(self, values):
        """Return the velocity that the robot is told, m/s or rad/s."""
        present = {'arm': as_pose(self.at) if self._is_tool else self.at}
        action = Action({'arm': np.asarray(values, float)})
        command = self.guard.passed(action, 0, self.limits, present)
        assert isinstance(command, Command), command
        self.guard.note(action, command.groups, self.limits, present)
        told = command.groups['arm']
        if self._kind == 'joint_velocity':
            return told
        if not self.limits.groups['arm'].group.meaning.is_absolute:
            return told / PERIOD_S
        way = way_to(present['arm'], told) if self._is_tool else told - self.at
        self.at = told
        return way / PERIOD_S

    def towards(self, velocity):
        """Return the action that asks for a velocity."""
        if self._kind == 'joint_velocity':
            return velocity
        step = np.asarray(velocity) * PERIOD_S
        if self._kind in ('ee_delta', 'joint_delta'):
            return step
        if not self._is_tool:
            return self.at + step
        turned = as_pose(step).rotation @ as_pose(self.at).rotation
        return as_values(Pose(self.at[:3] + step[:3], turned))


def sizes(kind, velocity):
    """Return the numbers that the limits are about."""
    if len(velocity) == 6:
        return np.array([np.linalg.norm(velocity[:3]), np.linalg.norm(velocity[3:])])
    return np.abs(velocity)


@pytest.mark.parametrize('kind', GROUPS)
@pytest.mark.parametrize('jerk', [4.0, 15.0, np.inf])
@pytest.mark.parametrize('acceleration', [1.0, np.inf])
def test_whatever_a_policy_wants_no_limit_is_ever_exceeded(kind, jerk, acceleration):
    """Random wishes, long enough in one direction and often changed: the worst there is."""
    robot, random = Robot(limits_of(kind, acceleration, jerk)), np.random.default_rng(0)
    size = GROUPS[kind].size
    velocity, before = np.zeros(size), np.zeros(size)
    wish = np.zeros(size)
    for step in range(300):
        if random.random() < 0.3:
            wish = random.uniform(-2, 2, size) * random.integers(0, 2, size)
        told = robot.step(robot.towards(wish))
        change = (told - velocity) / PERIOD_S
        assert (sizes(kind, told) <= SPEED * (1 + 1e-6)).all(), step
        assert (sizes(kind, change) <= acceleration * (1 + 1e-6)).all(), step
        # the rotation's axes turn with it: exact for translation and joints alone
        bent = (change - before) / PERIOD_S
        assert (sizes(kind, bent)[:None if size == 3 else 1] <= jerk * (1 + 1e-6)).all(), step
        velocity, before = told, change


@pytest.mark.parametrize('kind', GROUPS)
def test_a_wish_that_stays_is_reached_without_going_beyond_it(kind):
    """From rest it takes a ramp up and a ramp down of the acceleration, and no swinging."""
    robot = Robot(limits_of(kind))
    wish = np.full(GROUPS[kind].size, 0.2)
    found = np.array([robot.step(robot.towards(wish)) for _ in range(15)])
    np.testing.assert_allclose(found[-1], wish, atol=1e-9)
    assert found.max() <= 0.2 + 1e-9
    assert (np.diff(found[:, 0]) >= -1e-9).all()


def test_without_limits_every_command_passes_as_it_is():
    """The defaults change nothing, to the bit."""
    robot = Robot(limits_of('ee_delta', np.inf, np.inf))
    values = np.array([0.01, -0.02, 0.03, 0.01, 0, 0.02])
    for sign in (1, -1, 1):
        assert (robot.step(sign * values) * PERIOD_S).tolist() == pytest.approx(
            (sign * values).tolist(), abs=0)


def test_a_hold_stops_at_once_and_the_next_command_begins_at_rest():
    """The limits are for commands: doubt does not wait."""
    robot = Robot(limits_of('ee_delta', jerk=np.inf))
    for _ in range(5):
        robot.step([0.03, 0, 0, 0, 0, 0])
    robot.guard.reset()
    assert robot.step([0.03, 0, 0, 0, 0, 0])[0] == pytest.approx(0.1)


def test_a_motion_that_cannot_end_at_once_is_refused_where_it_leads_out_of_the_box():
    """The policy asks for rest; what is left of its speed would leave the workspace."""
    box = np.array([[-1, -1, -1], [0.25, 1, 1.0]])
    robot = Robot(replace(limits_of('ee_pose', jerk=np.inf), workspace_m=box))
    while robot.at[0] < 0.21:
        robot.step(robot.towards([0.4, 0, 0, 0, 0, 0]))
    action = Action({'arm': robot.at})
    refused = robot.guard.passed(action, 0, robot.limits, {'arm': as_pose(robot.at)})
    assert isinstance(refused, Reason)
    assert refused.code == 'workspace'


def test_a_limit_that_is_lowered_meanwhile_is_approached_and_then_kept():
    """A live parameter must not leave the robot at the speed that it had."""
    robot = Robot(limits_of('joint_velocity'))
    for _ in range(20):
        robot.step([0.5, 0, 0])
    robot.limits = Limits(1.0, {'arm': replace(robot.limits.groups['arm'], max_joint_s=0.1)})
    found = [abs(robot.step([0.5, 0, 0])[0]) for _ in range(20)]
    assert found[-1] <= 0.1 + 1e-6

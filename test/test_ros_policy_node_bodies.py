"""Tests of the policy node on robots of other bodies, over real DDS: commands, refusals, holds."""

from geometry_msgs.msg import TwistStamped
from node_robot import (CONFIGURE, DEACTIVATE, nanoseconds, node_process, Robot, small_checkpoint,
                        still)
import numpy as np
import pytest
from ros2_lstm_policy.manifest import ActionGroup, Normalisation, StateSpec
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

WORDS = 'pick up the milk'
NAMES = ('shoulder', 'elbow')
AT = {'finger': 0.04, 'elbow': -0.4, 'shoulder': 0.1}
NEAR = Normalisation((0.1, -0.4), (0.02, 0.02))
JOINTS = StateSpec('joints', 2, Normalisation((0.0,) * 2, (1.0,) * 2), NAMES)
POSITIONS = ActionGroup('arm', 'joint_position', 2, NEAR, names=NAMES)
HAND = ActionGroup('gripper', 'gripper', 1, Normalisation((0.5,), (0.5,)))
DELTA = Normalisation((0.0,) * 6, (0.05,) * 6)


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Return a robot beside a running node."""
    robot = Robot()
    with node_process(tmp_path_factory.mktemp('log') / 'node.log', **{
            'groups.arm.lower': [-3.0], 'groups.arm.upper': [3.0]}):
        yield robot
    robot.close()


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of joint positions and a continuous gripper, told of its joints."""
    return str(small_checkpoint(tmp_path_factory.mktemp('joints') / 'checkpoint',
                                states=[JOINTS], actions=[POSITIONS, HAND]))


@pytest.fixture
def robot(running):
    """Return the robot with cameras and joints."""
    running.__dict__.update(cameras={'static', 'hand'}, sim_time_ns=None, rate_hz=20.0,
                            joints=dict(AT), change_joints=lambda message: None)
    return running


def ears(robot, kind, topic):
    """Return a list in which messages of a topic gather."""
    heard = []
    robot.node.create_subscription(kind, f'policy/{topic}', heard.append, 100)
    return heard


def targets(trajectories):
    """Return where the joints were told to be."""
    return [tuple(message.points[0].positions) for message in trajectories]


def begin(robot, path, **parameters):
    """Have the node act."""
    robot.bring_to('active', **{'checkpoint': str(path), 'instruction': WORDS, 'deadline_s': 1.0,
                                'max_image_age_s': 0.5, 'shadow': False, **parameters})


def at():
    """Return where the joints are, as the group has them."""
    return tuple(AT[name] for name in NAMES)


def test_joint_positions_go_out_by_name_and_a_hold_is_where_the_joints_are(robot, checkpoint):
    """Zeros would have sent the arm through the table."""
    told = ears(robot, JointTrajectory, 'arm/joint_trajectory')
    begin(robot, checkpoint)
    robot.until(lambda: any(target != at() for target in targets(told)))
    assert all(message.joint_names == list(NAMES) for message in told)
    assert told[-1].points[0].time_from_start.nanosec == 100_000_000
    assert np.abs(np.array(targets(told)) - at()).max() < 0.1
    robot.until(lambda: robot.grippers)
    assert 0 <= robot.grippers[-1].data[0] <= 1
    assert robot.change(DEACTIVATE)
    robot.until(lambda: targets(told)[-1] == at())
    told.clear()
    robot.listen(0.5)
    assert all(target == at() for target in targets(told))


def test_a_hold_of_joints_that_nobody_knows_sends_nothing_and_says_so(robot, checkpoint):
    """A controller stays with what it was told last; zeros would be a motion."""
    told = ears(robot, JointTrajectory, 'arm/joint_trajectory')
    robot.joints = {}
    begin(robot, checkpoint)
    robot.until(robot.holds('arm: nothing is sent to it, as nobody knows where it is'))
    told.clear()
    robot.listen(0.5)
    assert told == []
    robot.joints = dict(AT)
    robot.until(lambda: any(target != at() for target in targets(told)))


def test_joints_that_fall_silent_leave_the_arm_where_it_was_then(robot, checkpoint):
    """The hold begins while that is known, and is repeated."""
    told = ears(robot, JointTrajectory, 'arm/joint_trajectory')
    begin(robot, checkpoint)
    robot.until(lambda: any(target != at() for target in targets(told)))
    robot.joints = {}
    robot.until(robot.holds('joints: the newest state is'))
    told.clear()
    robot.until(lambda: len(told) >= 3)
    assert set(targets(told)) == {at()}


def test_a_position_far_from_where_the_joints_are_is_refused_with_the_distance(robot, checkpoint):
    """The policy does not know where this arm is; it stays where it is."""
    told = ears(robot, JointTrajectory, 'arm/joint_trajectory')
    robot.joints = {**AT, 'elbow': 1.6}
    begin(robot, checkpoint)
    robot.until(robot.holds('arm: elbow is told to be '))
    assert 'rad from where it is, at most 0.5000 rad is allowed' in robot.message('commands')
    told.clear()
    robot.until(lambda: len(told) >= 3)
    assert set(targets(told)) == {(0.1, 1.6)}


def test_joint_positions_go_to_a_forward_controller_where_that_is_wanted(robot, checkpoint):
    """Set when the checkpoint is known; bounds of another number of joints are refused."""
    told = ears(robot, Float64MultiArray, 'arm/joint_positions')
    begin(robot, checkpoint, **{'groups.arm.message': 'positions'})
    robot.until(lambda: told)
    assert len(told[-1].data) == 2
    robot.bring_to('unconfigured', **{'groups.arm.message': '', 'groups.arm.lower': [0.0] * 3})
    assert not robot.change(CONFIGURE)
    robot.until(lambda: 'groups.arm.lower and .upper: expected one number, or 2'
                in robot.message('state'))
    assert robot.give(**{'groups.arm.lower': [-3.0]}) == []


def two_arms():
    """Return two arms with a gripper each."""
    arms = [ActionGroup(f'{side}_arm', 'ee_delta', 6, DELTA, frame='base')
            for side in ('left', 'right')]
    return [*arms, *(ActionGroup(f'{side}_gripper', 'gripper', 1, binary=True)
                     for side in ('left', 'right'))]


def test_two_arms_are_told_at_once_and_both_stay_when_the_node_stops(robot, tmp_path):
    """Four topics of motion and two grippers; an observation is answered on each."""
    path = small_checkpoint(tmp_path / 'two', actions=two_arms())
    arms = {side: ears(robot, TwistStamped, f'{side}_arm/arm_delta') for side in ('left', 'right')}
    twists = [ears(robot, TwistStamped, f'{side}_arm/delta_twist_cmds')
              for side in ('left', 'right')]
    hands = [ears(robot, Float64MultiArray, f'{side}_gripper/gripper_command')
             for side in ('left', 'right')]
    begin(robot, path)

    def stamps(side):
        return {nanoseconds(arm) for arm in arms[side] if not still(arm)}
    robot.until(lambda: len(stamps('left') & stamps('right')) >= 5 and all(hands))
    assert robot.change(DEACTIVATE)
    robot.until(lambda: all(still(heard[-1]) for heard in (*arms.values(), *twists)))


@pytest.mark.parametrize(('changes', 'words'), [
    ({'groups': ['arm', 'gripper']}, 'it needs the group of actions left_arm, right_arm, '
     'left_gripper, right_gripper, and this robot has arm, gripper (groups)'),
    ({'arm_frame': 'tool'}, 'its deltas are in base axes'),
])
def test_a_body_that_this_robot_has_not_is_refused_with_one_error(
        robot, tmp_path, changes, words):
    """Nothing is configured, and what is missing is named."""
    path = small_checkpoint(tmp_path / 'two', actions=two_arms())
    robot.bring_to('unconfigured', checkpoint=str(path), **changes)
    assert not robot.change(CONFIGURE)
    robot.until(lambda: words in robot.message('state'))
    assert robot.give(groups=[''], arm_frame='') == []


def test_joints_without_names_and_states_that_the_robot_has_not_are_refused(robot, tmp_path):
    """A trajectory is by name."""
    nameless = ActionGroup('arm', 'joint_position', 2, NEAR)
    path = small_checkpoint(tmp_path / 'nameless', actions=[nameless], states=[JOINTS])
    robot.bring_to('unconfigured', checkpoint=str(path), states=['force'])
    assert not robot.change(CONFIGURE)
    robot.until(lambda: 'arm has 2 joints, and the names of 0 are known (groups.arm.joints)'
                in robot.message('state'))
    assert 'it needs the state joints, and this robot has force (states)' in robot.message('state')
    assert robot.give(states=['']) == []

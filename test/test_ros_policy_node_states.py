"""Tests of the policy node with states of the robot, over real DDS: heard, or named and held."""

import time

from node_robot import CONFIGURE, nanoseconds, node_process, Robot, small_checkpoint, stamp
import pytest
import rclpy
from rclpy.parameter import Parameter
from ros2_lstm_policy.manifest import Normalisation, StateSpec
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.policy.parameters import Parameters
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

WORDS = 'pick up the milk'
NAMES = ('shoulder', 'elbow', 'wrist')
JOINTS = StateSpec('joints', 3, Normalisation((0.0,) * 3, (1.0,) * 3), NAMES)
FORCE = StateSpec('force', 2, Normalisation((0.0,) * 2, (1.0,) * 2))
AT = {'finger': 0.04, 'elbow': -0.4, 'wrist': 1.2, 'shoulder': 0.1}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two cameras that is told of three joints."""
    return str(small_checkpoint(tmp_path_factory.mktemp('joints') / 'checkpoint',
                                states=[JOINTS]))


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Return a robot beside a running node."""
    robot = Robot()
    with node_process(tmp_path_factory.mktemp('log') / 'node.log', **{
            'streams.force.topic': 'hand/force',
            'streams.force.msgtype': 'std_msgs/msg/Float64MultiArray', 'streams.force.offset': 1.0,
            'streams.elsewhere.topic': 'nowhere'}):
        yield robot
    robot.close()


@pytest.fixture
def robot(running, checkpoint):
    """Return a robot of which all is told, with a node that acts on it."""
    running.__dict__.update(cameras={'static', 'hand'}, sim_time_ns=None, rate_hz=20.0,
                            joints=dict(AT), change_joints=lambda message: None)
    running.bring_to('active', checkpoint=checkpoint, trigger='timer', instruction=WORDS,
                     deadline_s=1.0, max_image_age_s=0.5)
    running.until(running.acts)
    return running


def late(message):
    """Stamp as a driver whose clock lags."""
    message.header.stamp = stamp(nanoseconds(message) - 5 * 10**9)


def unstamped(message):
    """Forget the stamp."""
    message.header.stamp = stamp(0)


def renamed(message):
    """Call one of the joints otherwise."""
    message.name = ['joint_2' if name == 'elbow' else name for name in message.name]


def of_others(message):
    """Publish the joints of another robot."""
    message.name = [f'left_{name}' for name in message.name]


def not_a_number(message):
    """Publish what a broken encoder gives."""
    message.position[list(message.name).index('wrist')] = float('nan')


def short(message):
    """Leave a value out."""
    message.position = message.position[:2]


@pytest.mark.parametrize(('change', 'words'), [
    (late, 'joints: the newest state is'),
    (unstamped, 'joints: the header stamp is zero'),
    (renamed, '/joint_states: no joint elbow; the message has finger, joint_2, wrist, shoulder'),
    (of_others, '/joint_states has the joints left_finger, left_elbow, left_wrist, '
     'left_shoulder, and shoulder, elbow, wrist are wanted (streams.joints.names)'),
    (not_a_number, 'expected finite numbers, found [0.1, -0.4, nan]'),
    (short, '4 names and 2 values'),
])
def test_a_state_that_cannot_be_used_holds_with_its_reason_until_it_can(robot, change, words):
    """The policy would have been told of another robot than that which it moves."""
    robot.change_joints, bad_from_ns = change, time.time_ns()
    robot.until_holding(words)
    robot.until(lambda: words in robot.message('inputs'))
    robot.until(lambda: len(robot.arms) >= 3)
    assert all(nanoseconds(command) < bad_from_ns for command in robot.commands())
    robot.change_joints = lambda message: None
    robot.reset()
    robot.forget()
    robot.until(robot.acts)


def test_a_state_that_nobody_publishes_is_named_with_its_topic_and_parameter(robot):
    """Its silence, and that its publisher is there; then it comes again."""
    robot.joints = {}
    robot.until(robot.holds('joints: the newest state is'))
    assert '/joint_states has 1 publisher' in robot.message('commands')
    robot.node.destroy_publisher(robot._joints)
    robot.until(robot.holds('nobody publishes /joint_states; say where it is with '
                            'streams.joints.topic'))
    other = robot.node.create_publisher(Float64MultiArray, 'joint_states', 1)
    robot.until(robot.holds('/joint_states is published as std_msgs/msg/Float64MultiArray, and '
                            'JointState is wanted (parameter streams.joints.msgtype)'))
    robot.node.destroy_publisher(other)
    robot._joints = robot.node.create_publisher(JointState, 'joint_states', 10)
    robot.joints = dict(AT)
    robot.forget()
    robot.until(robot.acts)


def test_joints_are_taken_by_name_and_beside_those_of_another_device(robot):
    """An arm and a gripper with a driver each share the topic on most robots."""
    gripper = robot.node.create_publisher(JointState, 'joint_states', 10)

    def with_another_device(message):
        gripper.publish(JointState(header=message.header, name=['left_finger'], position=[0.0]))
    robot.change_joints = with_another_device
    try:
        robot.until(lambda: gripper.get_subscription_count() > 0)
        robot.forget()
        robot.until(lambda: len(robot.commands()) >= 5)
        robot.until(lambda: 'inputs' in robot.diagnostics
                    and float(robot.value('inputs', 'joints rate [Hz]')) > 22)
        assert robot.message('inputs') == 'all cameras are seen, all states heard'
        assert float(robot.value('inputs', 'joints last good value [s ago]')) < 0.5
    finally:
        robot.node.destroy_publisher(gripper)


def test_a_state_comes_from_the_topic_and_type_that_the_parameters_say(robot, tmp_path):
    """Given at the start, before a checkpoint is known; a second publisher there is doubt."""
    path = small_checkpoint(tmp_path / 'force', states=[FORCE])
    force = robot.node.create_publisher(Float64MultiArray, 'hand/force', 10)
    robot.change_joints = lambda message: force.publish(Float64MultiArray(data=[1.0, 2.0]))
    robot.bring_to('active', checkpoint=str(path), instruction=WORDS)
    robot.until(robot.acts)
    robot.change_joints = lambda message: force.publish(Float64MultiArray(data=[1.0]))
    robot.until(robot.holds('force (/hand/force): the policy takes 2 values, a message has 1'))
    robot.change_joints = lambda message: None
    other = robot.node.create_publisher(Float64MultiArray, 'hand/force', 10)
    robot.until(robot.holds('/hand/force (state force) has 2 publishers'))
    for publisher in (force, other):
        robot.node.destroy_publisher(publisher)


def test_frames_and_states_of_one_stamp_tick_together(robot, checkpoint):
    """With `trigger: frames` an observation is complete when every state has reached it."""
    robot.bring_to('active', checkpoint=checkpoint, trigger='frames', instruction=WORDS)
    robot.until(lambda: len(robot.commands()) >= 5)
    assert {nanoseconds(arm) for arm in robot.commands()} <= set(robot.shown)


@pytest.mark.parametrize(('values', 'words'), [
    ({'streams.joints.msgtype': 'nobody_msgs/msg/Joints'}, "no message type 'nobody_msgs/msg/"),
    ({'streams.joints.scale': 0.0}, 'streams.joints: offset and scale must be finite'),
    ({'streams.joints.offset': float('nan')}, 'streams.joints.offset is nan'),
])
def test_a_stream_that_means_nothing_is_refused_with_one_error(robot, checkpoint, values, words):
    """The node stays unconfigured, says why, and can be configured when the cause is gone."""
    good = {'streams.joints.msgtype': '', 'streams.joints.scale': 1.0,
            'streams.joints.offset': 0.0}
    robot.bring_to('unconfigured', checkpoint=checkpoint)
    refused = robot.give(**values)
    if refused:
        assert words in refused[0]
        return
    assert not robot.change(CONFIGURE)
    robot.until(lambda: words in robot.message('state'))
    assert robot.give(**{name: good[name] for name in values}) == []
    assert robot.change(CONFIGURE)


@pytest.fixture
def make_node():
    """Return a maker of nodes with parameters given at the start."""
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    nodes = []

    def make(**given):
        nodes.append(rclpy.create_node('named', context=context, parameter_overrides=[
            Parameter(name, value=value) for name, value in given.items()]))
        return nodes[-1]
    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_parameters_of_a_stream_are_known_before_the_checkpoint_and_mistakes_are_named(make_node):
    """A typing error must not go unseen, nor a value of another type or of no stream."""
    declared = Parameters(make_node(**{
        'streams.joints.topic': 'arm/joint_states', 'streams.joints.tpoic': 'a',
        'streams.Joints.topic': 'b', 'streams.joints.scale': 2}))
    assert sorted(declared.unknown) == [
        "there is no parameter 'streams.Joints.topic'; did you mean streams.joints.topic?",
        "there is no parameter 'streams.joints.tpoic'; did you mean streams.joints.topic?"]
    with pytest.raises(ParameterError, match='write 2.0'):
        declared.read()
    assert declared.unused_names('streams', ['joints']) == []
    assert declared.unused_names('streams', ['force']) == [
        'streams.joints is given, and the checkpoint uses none of that name; it uses force']

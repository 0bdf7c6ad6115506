"""Tests of policy nodes of their own: an added kind of actions, two groups on a topic, SIGINT."""

import gc
import signal
import threading

from node_robot import node_process, Robot, small_checkpoint, WAIT_S
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros2_lstm_policy.kinds import Kind, KINDS
from ros2_lstm_policy.manifest import ActionGroup, Normalisation, StateSpec
from ros2_lstm_policy.ros.policy.encoders import Encoder, ENCODERS
from ros2_lstm_policy.ros.policy.node import PolicyNode
from ros2_lstm_policy.runtime.safety import CHECKS, Slowed
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

WORDS = 'pick up the milk'
NAMES, AT = ('shoulder', 'elbow'), (0.1, -0.4)
JOINTS = StateSpec('joints', 2, Normalisation((0.0,) * 2, (1.0,) * 2), NAMES)
POSITIONS = ActionGroup('arm', 'joint_position', 2, Normalisation(AT, (0.02, 0.02)), names=NAMES)


@pytest.fixture
def robot():
    """Return a robot without a node."""
    robot = Robot()
    robot.joints = dict(zip(NAMES, AT))
    yield robot
    robot.close()


@pytest.fixture
def make_node():
    """Return a maker of policy nodes in this process, with the executor that they are for."""
    gc.collect()  # rclpy's lifecycle nodes are cycles: the last one would still be in the graph
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    nodes = []

    def make(checkpoint, arguments=()):
        given = (('checkpoint', str(checkpoint)), ('instruction', WORDS), ('deadline_s', 5.0),
                 ('max_image_age_s', 2.0))
        nodes.append(PolicyNode(context=context, cli_args=list(arguments), parameter_overrides=[
            Parameter(name, value=value) for name, value in given]))
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(nodes[-1])
        return nodes[-1], executor
    yield make
    for node in nodes:
        node.leave()
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_two_groups_on_one_topic_are_refused(make_node, tmp_path):
    """Their commands would be taken in turns."""
    delta = Normalisation((0.0,) * 6, (0.05,) * 6)
    arms = [ActionGroup(name, 'ee_delta', 6, delta, frame='base') for name in ('left', 'right')]
    path = small_checkpoint(tmp_path / 'two', actions=arms)
    node, _ = make_node(path, ['--ros-args', '-r', '~/left/arm_delta:=/same', '-r',
                               '~/right/arm_delta:=/same'])
    node.trigger_configure()
    assert 'two groups of actions would command on /same' in node.last_error
    assert node.state_label == 'unconfigured'


def test_a_kind_of_actions_of_ones_own_is_one_entry_in_each_table(
        robot, make_node, tmp_path, monkeypatch):
    """A blower, which takes a share of its power: added here, and acted with."""
    monkeypatch.setitem(KINDS, 'power', Kind())
    monkeypatch.setitem(CHECKS, 'power', lambda values, limits, now, before: Slowed(values, 1.0))
    monkeypatch.setitem(ENCODERS, 'power', Encoder(
        lambda target, stamp_ns, values: {
            target.topic('power'): Float64MultiArray(data=values.tolist())}))
    blower = ActionGroup('blower', 'power', 1, Normalisation((0.0,), (1.0,)))
    powers = []
    robot.node.create_subscription(Float64MultiArray, 'policy/blower/power', powers.append, 100)
    node, executor = make_node(small_checkpoint(tmp_path / 'blower', actions=[blower]))
    node.trigger_configure()
    node.trigger_activate()
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        robot.until(lambda: any(power.data[0] for power in powers))
    finally:
        executor.shutdown()
        thread.join()
    node.trigger_deactivate()
    robot.until(lambda: powers[-1].data[0] == 0)


def test_a_node_that_is_told_to_end_leaves_the_joints_where_they_are(robot, tmp_path):
    """SIGINT goes the way of a deactivation: the last target is where the joints are."""
    told = []
    robot.node.create_subscription(JointTrajectory, 'policy/arm/joint_trajectory', told.append,
                                   100)

    def targets():
        return [tuple(message.points[0].positions) for message in told]
    path = small_checkpoint(tmp_path / 'joints', states=[JOINTS], actions=[POSITIONS])
    with node_process(tmp_path / 'node.log', checkpoint=str(path), autostart=True,
                      instruction=WORDS, deadline_s=1.0, max_image_age_s=0.5) as process:
        robot.until(lambda: any(target != AT for target in targets()))
        process.send_signal(signal.SIGINT)
        robot.until(lambda: process.poll() is not None)
        assert process.wait(WAIT_S) == 0
        robot.until(lambda: targets()[-1] == AT)

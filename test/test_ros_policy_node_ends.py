"""Tests of a node that ends or breaks: it leaves a zero on every topic of motion."""

import gc
import signal
import threading

from lifecycle_msgs.msg import Transition
from node_robot import (node_process, Robot, small_checkpoint, until_it_moves, until_it_rests,
                        WAIT_S)
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros2_lstm_policy.ros.policy.node import PolicyNode

WORDS = 'pick up the milk'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two cameras."""
    return str(small_checkpoint(tmp_path_factory.mktemp('two') / 'checkpoint'))


@pytest.fixture(scope='module')
def beside():
    """Return a robot without a node."""
    robot = Robot()
    yield robot
    robot.close()


def many_signals(robot, process):
    """Send both signals again and again until the process is gone."""
    def send():
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        return process.poll() is not None
    robot.until(send)


@pytest.mark.parametrize('leave', [
    pytest.param(lambda robot, _: robot.change(Transition.TRANSITION_ACTIVE_SHUTDOWN),
                 id='shutdown'),
    pytest.param(lambda _, process: process.send_signal(signal.SIGTERM), id='SIGTERM'),
    pytest.param(many_signals, id='many signals'),
])
def test_a_node_that_ends_leaves_a_zero_on_every_topic_of_motion(
        beside, checkpoint, tmp_path, leave):
    """
    The status is zero, however many signals come.

    A second one used to end the interpreter while it was ending by itself: status -2.
    """
    beside.__dict__.update(cameras={'static', 'hand'}, sim_time_ns=None, rate_hz=20.0)
    with node_process(tmp_path / 'node.log', checkpoint=checkpoint, autostart=True,
                      instruction=WORDS, deadline_s=1.0) as process:
        until_it_moves(beside)
        leave(beside, process)
        until_it_rests(beside)
        if leave is not many_signals:
            process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0


@pytest.fixture
def node_inside(beside, checkpoint):
    """Return a node that acts in this process, to be broken."""
    gc.collect()  # rclpy's lifecycle nodes are cycles: the last one would still be in the graph
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    node = PolicyNode(context=context, parameter_overrides=[
        Parameter(name, value=value) for name, value in (
            ('checkpoint', checkpoint), ('instruction', WORDS), ('deadline_s', 1.0))])
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.trigger_configure()
    node.trigger_activate()
    beside.__dict__.update(cameras={'static', 'hand'}, sim_time_ns=None, rate_hz=20.0)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    until_it_moves(beside)
    yield node
    executor.shutdown()
    thread.join()
    node.leave()
    node.destroy_node()
    rclpy.shutdown(context=context)


def lose_the_worker(controller):
    """End the thread that decides."""
    assert controller.worker.stop(WAIT_S)


def break_the_tick(controller):
    """Take away what it needs to know of gaps."""
    controller._settings = None


def break_the_answer(controller):
    """Take away what shapes the gripper's command."""
    controller._gripper = None


@pytest.mark.parametrize(('breaks', 'words'), [
    (lose_the_worker, "the policy's thread has ended"),
    (break_the_tick, 'the node failed: AttributeError'),
    (break_the_answer, 'the node failed: AttributeError'),
])
def test_a_failure_inside_the_node_stops_the_robot(beside, node_inside, breaks, words):
    """An exception used to be logged, and nothing was sent."""
    breaks(node_inside._controller)
    until_it_rests(beside)
    beside.until(beside.holds(words))

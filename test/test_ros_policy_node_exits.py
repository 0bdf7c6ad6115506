"""Tests of every way out of acting: the last message on each topic of motion is a zero."""

import signal
import threading

from lifecycle_msgs.msg import Transition
from node_robot import (CLEANUP, DEACTIVATE, node_process, Robot, small_checkpoint, still,
                        WAIT_S)
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros2_lstm_policy.ros.policy_node import PolicyNode

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


@pytest.fixture(scope='module')
def running(beside, tmp_path_factory):
    """Return the robot beside a running node."""
    with node_process(tmp_path_factory.mktemp('log') / 'node.log'):
        yield beside


@pytest.fixture
def robot(running, checkpoint):
    """Return the robot beside a node that moves it."""
    running.__dict__.update(cameras={'static', 'hand'}, sim_time_ns=None, rate_hz=20.0)
    running.bring_to('active', checkpoint=checkpoint, trigger='timer', use_sim_time=False,
                     instruction=WORDS, shadow=False, deadline_s=1.0, max_image_age_s=0.5)
    until_it_moves(running)
    return running


def until_it_moves(robot):
    """Wait for commands on both topics of motion."""
    robot.forget()
    robot.until(lambda: robot.acts() and not all(still(twist) for twist in robot.twists))


def until_it_rests(robot):
    """Wait for a zero on both topics of motion after which, for a time, nothing else follows."""
    def rests():
        robot.until(lambda: still(robot.arms[-1]) and still(robot.twists[-1]))
        last = robot.arms[-1:], robot.twists[-1:]
        robot.forget()
        robot.arms[:], robot.twists[:] = last
        robot.listen(0.3)
        return all(still(message) for message in (*robot.arms, *robot.twists))
    robot.until(rests)


def no_more_cameras(robot):
    """Switch both cameras off."""
    robot.cameras = set()


@pytest.mark.parametrize('leave', [
    pytest.param(lambda robot: robot.change(DEACTIVATE), id='deactivate'),
    pytest.param(lambda robot: robot.change(DEACTIVATE) and robot.change(CLEANUP), id='cleanup'),
    pytest.param(lambda robot: robot.give(shadow=True), id='shadow'),
    pytest.param(lambda robot: robot.give(deadline_s=0.001), id='deadline'),
    pytest.param(lambda robot: robot.order(''), id='no instruction'),
    pytest.param(lambda robot: robot.order('milk ' * 190), id='an error of the policy'),
    pytest.param(no_more_cameras, id='no camera'),
])
def test_the_last_message_on_every_topic_of_motion_is_a_zero(robot, leave):
    """
    A velocity controller without a time-out drives on with what it heard last.

    After deactivation and in shadow that was the velocity of the last command: only its
    repetition would have sent the zero, and there was no repetition any more.
    """
    leave(robot)
    until_it_rests(robot)


def test_a_reset_stops_the_robot_before_the_next_episode_moves_it(robot):
    """The service answers after the zero."""
    robot.forget()
    assert robot.reset().success
    robot.until(lambda: any(map(still, robot.arms)) and any(map(still, robot.twists)))


def test_a_robot_whose_clock_stands_still_is_stopped(robot):
    """Its timer never comes again, so somebody else has to look at the time."""
    robot.bring_to('active', use_sim_time=True)
    robot.sim_time_ns = 10**12
    until_it_moves(robot)
    robot.rate_hz = 0
    until_it_rests(robot)
    robot.until(robot.holds('the clock stands still'))


def test_a_shadow_leaves_nothing_behind_that_moves_the_robot_later(robot):
    """What was computed in shadow was neither the arm's motion nor the gripper's state."""
    assert robot.give(shadow=True) == []
    until_it_rests(robot)
    robot.until(lambda: len(robot.chunks) >= 3)
    no_more_cameras(robot)
    robot.until(robot.holds('the newest image is'))
    robot.forget()
    assert robot.give(shadow=False) == []
    robot.until(lambda: len(robot.arms) >= 3 and len(robot.twists) >= 10)
    assert all(still(message) for message in (*robot.arms, *robot.twists))
    assert robot.grippers == []


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


def lose_the_worker(commander):
    """End the thread that decides."""
    assert commander.worker.stop(WAIT_S)


def break_the_tick(commander):
    """Take away what it needs to know of gaps."""
    commander._settings = None


def break_the_answer(commander):
    """Take away what shapes the gripper's command."""
    commander._gripper = None


@pytest.mark.parametrize(('breaks', 'words'), [
    (lose_the_worker, "the policy's thread has ended"),
    (break_the_tick, 'the node failed: AttributeError'),
    (break_the_answer, 'the node failed: AttributeError'),
])
def test_a_failure_inside_the_node_stops_the_robot(beside, node_inside, breaks, words):
    """An exception used to be logged, and nothing was sent."""
    breaks(node_inside._commander)
    until_it_rests(beside)
    beside.until(beside.holds(words))

"""Tests of what a person stops the robot with, and of stops by a ramp, over real DDS."""

from itertools import pairwise

from node_robot import (ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, node_process, Robot,
                        small_checkpoint, still, until_it_moves, until_it_rests)
import pytest
from rclpy.qos import qos_profile_sensor_data
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

WORDS = 'pick up the milk'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two cameras."""
    return str(small_checkpoint(tmp_path_factory.mktemp('two') / 'checkpoint'))


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Return a robot beside a running node."""
    robot = Robot()
    robot.hold_client = robot.node.create_client(SetBool, 'policy/hold')
    robot.switch = robot.node.create_publisher(Bool, 'dead_man', qos_profile_sensor_data)
    with node_process(tmp_path_factory.mktemp('log') / 'node.log'):
        yield robot
    robot.close()


def hold(robot, data):
    """Call ~/hold."""
    assert robot.call(robot.hold_client, SetBool.Request(data=data)).success


def begin(robot, checkpoint, **parameters):
    """Bring the node to act with parameters that differ from the defaults."""
    robot.bring_to('active', **{
        'checkpoint': checkpoint, 'instruction': WORDS, 'deadline_s': 1.0, 'max_image_age_s': 0.5,
        'dead_man_timeout_s': 0.0, 'hold_ramp_s': 0.0, **parameters})


def test_a_hold_lasts_until_it_is_taken_back_whatever_happens_to_the_node(running, checkpoint):
    """A reset, other words, deactivation and another configuration are not the person's word."""
    begin(running, checkpoint)
    until_it_moves(running)
    hold(running, True)
    until_it_rests(running)
    running.until(running.holds('~/hold was called'))
    assert running.reset().success
    running.order('pick up the butter')
    for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
        assert running.change(transition)
    running.order(WORDS)
    running.forget()
    running.until(running.holds('~/hold was called'))
    running.listen(0.5)
    assert all(still(message) for message in (*running.arms, *running.twists))
    assert int(running.value('commands', 'held: operator_hold')) > 0
    hold(running, False)
    until_it_moves(running)


def test_nothing_moves_the_robot_after_a_hold_was_answered(running, checkpoint):
    """What was being computed is dropped; answers and commands are compared by DDS's stamps."""
    begin(running, checkpoint)
    for _ in range(5):
        until_it_moves(running)
        hold(running, True)
        running.forget()
        running.listen(0.3)
        running.forget()  # what was on its way when the answer came
        running.listen(0.3)
        assert all(still(message) for message in (*running.arms, *running.twists))
        hold(running, False)


def test_the_robot_moves_only_while_the_dead_man_switch_is_held(running, checkpoint):
    """False stops it at once, silence after the time-out."""
    begin(running, checkpoint, dead_man_timeout_s=0.5)
    running.until(running.holds('the dead-man switch on /dead_man is not held'))

    def press():
        running.switch.publish(Bool(data=True))
        return running.acts()
    running.until_heard(running.switch)
    running.until(press)
    running.switch.publish(Bool(data=False))
    until_it_rests(running)
    running.until(running.holds('the dead-man switch'))
    running.forget()
    running.until(press)
    until_it_rests(running)  # nobody presses any more


def test_velocities_fall_by_a_ramp_where_a_controller_refuses_a_step(running, checkpoint):
    """Displacements are zero at once; the velocity is less with each message, and then zero."""
    begin(running, checkpoint, hold_ramp_s=0.6)
    until_it_moves(running)
    running.forget()
    hold(running, True)
    running.until(lambda: running.twists and still(running.twists[-1]))
    sizes = [abs(message.twist.linear.x) for message in running.twists]
    falling = sizes[sizes.index(max(sizes)):]
    assert len([size for size in falling if 0 < size < max(sizes)]) >= 3
    assert all(b <= a + 1e-9 for a, b in pairwise(falling))
    hold(running, False)
    until_it_moves(running)
    assert running.change(DEACTIVATE)
    running.until(lambda: running.twists and still(running.twists[-1]))

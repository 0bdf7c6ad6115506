"""Tests of every way out of acting: the last message on each topic of motion is a zero."""

from node_robot import (CLEANUP, DEACTIVATE, node_process, Robot, small_checkpoint, still,
                        until_it_moves, until_it_rests)
import pytest

WORDS = 'pick up the milk'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two cameras."""
    return str(small_checkpoint(tmp_path_factory.mktemp('two') / 'checkpoint'))


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Return a robot beside a running node."""
    robot = Robot()
    with node_process(tmp_path_factory.mktemp('log') / 'node.log'):
        yield robot
    robot.close()


@pytest.fixture
def robot(running, checkpoint):
    """Return the robot beside a node that moves it."""
    running.__dict__.update(cameras={'static', 'hand'}, sim_time_ns=None, rate_hz=20.0)
    running.bring_to('active', checkpoint=checkpoint, trigger='timer', use_sim_time=False,
                     instruction=WORDS, shadow=False, deadline_s=1.0, max_image_age_s=0.5)
    until_it_moves(running)
    return running


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

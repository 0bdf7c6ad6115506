"""Tests of what stands between a decision and a robot."""

from dataclasses import replace
import math

import numpy as np
import pytest
from ros2_lstm_policy.data.statistics import fitted_group
from ros2_lstm_policy.manifest import ActionGroup, Normalisation
from ros2_lstm_policy.runtime.safety import (blend_in, check, Command, GripperShaper, Limits, Pose,
                                             ramp_down, step_limit)
from ros2_lstm_policy.transforms import unnormalise
from ros2_lstm_policy.types import Action, Reason

LIMITS = Limits('base', period_s=0.1, max_linear_m_s=0.5, max_angular_rad_s=1.0, deadline_s=0.3)


def action(*arm, gripper_open=1.0):
    """Return an action; missing axes are zero."""
    return Action.one_arm(np.float32([*arm, *[0] * (6 - len(arm))]), gripper_open)


def refused(checked, code, words):
    """Hold that the action was refused for this reason."""
    assert isinstance(checked, Reason), checked
    assert checked.code == code
    assert words in checked.text


def test_an_action_within_every_limit_passes_unchanged():
    """Nothing is taken from a good action."""
    wanted = action(0.01, -0.02, 0.03, 0.01, 0.02, -0.03)
    command = check(wanted, 0.05, LIMITS)
    assert command.slowed == 1
    np.testing.assert_allclose(command.arm, wanted.arm)


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('axis', range(7))
def test_what_is_not_finite_is_refused(value, axis):
    """One bad number among seven is enough."""
    values = [0.0] * 7
    values[axis] = value
    refused(check(action(*values[:6], gripper_open=values[6]), 0, LIMITS), 'not_finite', 'finite')


def test_another_shape_is_refused():
    """A policy of another robot gives another number of axes."""
    refused(check(Action.one_arm(np.zeros(7), 1.0), 0, LIMITS), 'action_shape', 'shape (7,)')


def test_an_old_observation_is_not_answered():
    """The clock may also have jumped back in between."""
    assert isinstance(check(action(0.01), 0.3, LIMITS), Command)
    refused(check(action(0.01), 0.31, LIMITS), 'deadline', '0.310 s old')
    refused(check(action(0.01), -5, LIMITS), 'deadline', '-5.000 s old')


def test_speed_is_limited_without_a_change_of_direction():
    """Translation and rotation are slowed together, so the path stays the same."""
    command = check(action(0.08, 0, 0.06, 0.02), 0, LIMITS)
    assert command.slowed == pytest.approx(0.5)
    np.testing.assert_allclose(command.arm, [0.04, 0, 0.03, 0.01, 0, 0], rtol=1e-6)
    command = check(action(0, 0, 0.04, 0, 0, 0.4), 0, LIMITS)
    np.testing.assert_allclose(command.arm, [0, 0, 0.01, 0, 0, 0.1], rtol=1e-6)


def test_a_step_beyond_training_is_refused():
    """What the policy never saw is doubt, and doubt means hold."""
    limits = replace(LIMITS, max_step=np.array([0.03] * 3 + [0.1] * 3))
    assert isinstance(check(action(0.03), 0, limits), Command)
    refused(check(action(0, -0.031), 0, limits), 'step', '-0.0310 m on y is beyond 0.0300 m')
    refused(check(action(0, 0, 0, 0.2), 0, limits), 'step', '0.2000 rad on rx')


def group_of(largest, scale):
    """Return the group of a policy that was trained on such deltas."""
    return ActionGroup('arm', 'ee_delta', 6, Normalisation((0.0,) * 6, scale), largest=largest)


@pytest.mark.parametrize('arm_F6', [
    pytest.param([[0.02, 0.01, -0.03, 0, 0, 0.1], [-0.01, 0.0, 0.03, 0, 0, -0.2]],
                 id='four axes'),
    pytest.param([[0.02, 0.01, -0.03, 0, 0, 0], [-0.01, 0.0, 0.03, 0, 0, 0]], id='no rotation'),
    pytest.param([[0, 0, 0, 0.1, 0, 0], [0, 0, 0, -0.1, 0.2, 0]], id='no translation'),
    pytest.param([[0.02, 0, 0.001, 0, 0, 0.3]] * 9, id='a constant'),
    pytest.param([[0.02, 0, 0.001, 0.005, 0, 0.3]], id='one sample'),
    pytest.param([[0.0] * 6] * 3, id='nothing'),
])
@pytest.mark.parametrize('how', ['range', 'quantile'])
def test_nothing_that_a_policy_can_give_is_refused_for_an_axis_that_never_moved(arm_F6, how):
    """
    A robot of four axes never moved: the largest roll in training was 0, so 1e-9 was too much.

    The network's outputs are normalised values within -1 and 1, so these are all there are.
    """
    group = fitted_group(ActionGroup('arm', 'ee_delta', 6), np.array(arm_F6),
                         np.arange(len(arm_F6)) == 0, how)
    limits, norm = replace(LIMITS, max_step=step_limit(group, 1.5)), group.normalisation
    for output in np.vstack([np.eye(6), -np.eye(6), np.ones(6), -np.ones(6)]):
        given = Action.one_arm(unnormalise(output, norm), 1.0)
        assert isinstance(check(given, 0, limits), Command)


def test_noise_on_a_still_axis_passes_and_a_motion_on_it_does_not():
    """Where the scale is the user's own, too."""
    limits = replace(LIMITS, max_step=step_limit(
        group_of((0.02, 0.02, 0.02, 0, 0, 0), (0.05,) * 3 + (0.5,) * 3), 1.5))
    assert isinstance(check(action(0.02, 0, 0, 0.01, -0.01), 0, limits), Command)
    refused(check(action(0.02, 0, 0, 0.2), 0, limits), 'step', '0.2000 rad on rx')


def test_an_axis_that_moved_keeps_the_limit_of_its_own_largest_delta():
    """The floor lies far below what the axes of a task do."""
    largest = (0.02, 0.03, 0.004, 0.1, 0.05, 0.3)
    np.testing.assert_allclose(
        step_limit(group_of(largest, (1.0,) * 6), 1.5), [
            0.03, 0.045, 0.006, 0.15, 0.075, 0.45])
    assert step_limit(group_of(None, (1.0,) * 6), 1.5) is None


def test_the_workspace_is_never_left_but_can_be_returned_to():
    """Inside: stop at the wall; outside: only towards the inside."""
    limits = replace(LIMITS, workspace_m=np.array([[0.2, -0.5, 0.0], [0.7, 0.5, 0.6]]))
    inside = Pose(np.array([0.69, 0, 0.3]), np.eye(3))
    assert isinstance(check(action(0.005), 0, limits, inside), Command)
    refused(check(action(0.02), 0, limits, inside), 'workspace', 'x = 0.710 m, outside [0.2')
    outside = Pose(np.array([0.75, 0, 0.3]), np.eye(3))
    assert isinstance(check(action(-0.02), 0, limits, outside), Command)
    refused(check(action(0.001), 0, limits, outside), 'workspace', 'outside')
    refused(check(action(0.001), 0, limits, None), 'no_pose', 'pose is missing')


def test_tool_deltas_are_turned_into_the_base_before_the_workspace_is_asked():
    """The tool points down: its z is the base's -z."""
    limits = replace(LIMITS, frame='tool', workspace_m=np.array([[-1, -1, 0.1], [1, 1, 1]]))
    pose = Pose(np.array([0, 0, 0.11]), np.diag([1.0, -1.0, -1.0]))
    refused(check(action(0, 0, 0.02), 0, limits, pose), 'workspace', 'z = 0.090 m')
    assert isinstance(check(action(0, 0, -0.02), 0, limits, pose), Command)


def test_a_command_ramps_down_with_age_and_never_grows():
    """Full, then less, then nothing."""
    assert [ramp_down(age, 0.15, 0.25) for age in (0, 0.15, 0.2, 0.25, 9)] == pytest.approx(
        [1, 1, 0.5, 0, 0])


def test_an_episode_blends_in_where_asked():
    """Off unless a time is given."""
    assert blend_in(0, 0) == 1
    assert [blend_in(t, 2.0) for t in (0, 1, 2, 3)] == [0, 0.5, 1, 1]


def test_the_gripper_does_not_chatter_around_its_threshold():
    """Within the hysteresis the state stays."""
    shaper = GripperShaper(0.5, hysteresis=0.1, min_hold_s=0)
    wanted = [(0.55, True), (0.45, True), (0.39, False), (0.55, False), (0.61, True)]
    assert [shaper.update(p, i) for i, (p, _) in enumerate(wanted)] == [w for _, w in wanted]


def test_the_gripper_holds_a_state_for_a_least_time():
    """A flicker of one tick moves nothing; a lasting change does."""
    shaper = GripperShaper(0.5, hysteresis=0, min_hold_s=0.5)
    assert shaper.update(0.9, 10.0)
    assert shaper.update(0.1, 10.1)
    assert shaper.update(0.1, 10.4)
    assert not shaper.update(0.1, 10.5)
    assert not shaper.update(0.9, 10.6)


def test_a_clock_that_runs_back_never_blocks_the_gripper():
    """The least time is not waited for twice."""
    shaper = GripperShaper(0.5, hysteresis=0, min_hold_s=0.5)
    assert shaper.update(0.9, 1000.0)
    assert not shaper.update(0.1, 1.0)


def test_a_reset_gripper_decides_as_a_new_one():
    """Neither the hysteresis nor the least time reaches into the next episode."""
    shaper = GripperShaper(0.5, hysteresis=0.2, min_hold_s=5)
    assert shaper.update(0.9, 0)
    shaper.reset()
    assert not shaper.update(0.45, 0.1)


def test_a_pose_that_is_no_number_never_switches_the_workspace_off():
    """Every comparison with NaN is false, so 24 commands went out without a hold."""
    limits = box_limits()
    for position in ([np.nan, 0, 0], [0, 0, np.inf], [0, -np.inf, 0]):
        pose = Pose(np.array(position), np.eye(3))
        refused = check(action(0.001), 0.0, limits, pose)
        assert isinstance(refused, Reason) and refused.code == 'bad_pose', position
    why = Reason('pose_frame', 'another frame')
    assert check(action(0.001), 0.0, limits, why) is why


@pytest.mark.parametrize('name', ['period_s', 'max_linear_m_s', 'max_angular_rad_s', 'deadline_s'])
def test_a_limit_of_nan_is_refused_instead_of_being_none(name):
    """`min(1, nan)` is 1: the speed would have had no limit."""
    with pytest.raises(ValueError, match=name):
        replace(box_limits(), **{name: float('nan')})


def box_limits() -> Limits:
    """Return limits with a box around the origin."""
    return Limits('base', 0.1, 0.4, 0.8, 0.3,
                  workspace_m=np.array([[-0.5, -0.5, 0.0], [0.5, 0.5, 0.8]]))

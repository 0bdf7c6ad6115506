"""Tests of what stands between a decision and a robot."""

from dataclasses import replace
import math

import numpy as np
import pytest
from ros2_lstm_policy.data.statistics import fitted_group
from ros2_lstm_policy.manifest import ActionGroup, Normalisation
from ros2_lstm_policy.runtime import safety
from ros2_lstm_policy.runtime.safety import (blend_in, Command, GripperShaper, GroupLimits,
                                             Limits, Pose, ramp_down, step_limit)
from ros2_lstm_policy.transforms import unnormalise
from ros2_lstm_policy.types import Action, Reason
from scipy.spatial.transform import Rotation

ARM, HAND = ActionGroup('arm', 'ee_delta', 6, frame='base'), ActionGroup('gripper', 'gripper', 1)
LIMITS = GroupLimits(ARM, period_s=0.1, max_linear_m_s=0.5, max_angular_rad_s=1.0)


def check(given, age_s, limits, pose=None):
    """Hold an action of one arm and a gripper against the arm's limits."""
    groups = {'arm': limits, 'gripper': GroupLimits(HAND, 0.1)}
    return safety.check(given, age_s, Limits(0.3, groups), {'arm': pose})


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
    np.testing.assert_allclose(command.groups['arm'], wanted.arm)


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
    np.testing.assert_allclose(command.groups['arm'], [0.04, 0, 0.03, 0.01, 0, 0], rtol=1e-6)
    command = check(action(0, 0, 0.04, 0, 0, 0.4), 0, LIMITS)
    np.testing.assert_allclose(command.groups['arm'], [0, 0, 0.01, 0, 0, 0.1], rtol=1e-6)


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
    limits = replace(LIMITS, group=replace(ARM, frame='tool'),
                     workspace_m=np.array([[-1, -1, 0.1], [1, 1, 1]]))
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
        replace(Limits(0.3, {}) if name == 'deadline_s' else box_limits(),
                **{name: float('nan')})


def box_limits() -> GroupLimits:
    """Return limits with a box around the origin."""
    return GroupLimits(ARM, 0.1, 0.4, 0.8,
                       workspace_m=np.array([[-0.5, -0.5, 0.0], [0.5, 0.5, 0.8]]))


JOINTS = ActionGroup('arm', 'joint_position', 2, names=('elbow', 'wrist'))
JOINT_LIMITS = GroupLimits(JOINTS, 0.1, max_joint_s=1.0, max_lead_s=0.5,
                           max_step=np.array([0.2, 0.2]),
                           joint_limits=np.array([[-1.0, -2.0], [1.0, 2.0]]))
POSE = GroupLimits(ActionGroup('arm', 'ee_pose', 6), 0.1, 0.4, 0.8, max_lead_s=0.5,
                   workspace_m=np.array([[-0.5, -0.5, 0.0], [0.5, 0.5, 0.8]]))
AT = Pose(np.array([0.4, 0.0, 0.3]), np.eye(3))


def checked(limits, values, now=None, before=None):
    """Hold the values of one group against its limits."""
    told = {} if before is None else {'arm': np.array(before)}
    return safety.check(Action({'arm': np.array(values)}), 0, Limits(0.3, {'arm': limits}),
                        {'arm': now if now is None or isinstance(now, (Pose, Reason))
                         else np.array(now)}, told)


def of_kind(kind):
    """Return the limits of the two joints for another kind."""
    return replace(JOINT_LIMITS, group=replace(JOINTS, kind=kind))


def test_joint_positions_within_every_limit_pass_and_faster_ones_are_slowed_on_their_way():
    """The speed is that from where the joints are; one factor for all keeps the path."""
    command = checked(JOINT_LIMITS, [0.55, 0.05], [0.5, 0.0])
    assert command.slowed == 1
    np.testing.assert_allclose(command.groups['arm'], [0.55, 0.05])
    command = checked(JOINT_LIMITS, [0.3, 0.05], [0.5, 0.0])
    assert command.slowed == pytest.approx(0.5)
    np.testing.assert_allclose(command.groups['arm'], [0.4, 0.025])


@pytest.mark.parametrize(('values', 'now', 'before', 'code', 'words'), [
    ([0.8, 0.0], [0.5, 0.0], None, 'step', 'a step of 0.3000 rad on elbow is beyond 0.2000'),
    ([0.5, 0.6], [0.5, 0.0], [0.5, 0.5], 'far',
     'wrist is told to be 0.6000 rad from where it is, at most 0.5000 rad is allowed'),
    ([1.05, 0.0], [0.95, 0.0], None, 'joint_limit',
     'elbow would be at 1.0500, outside [-1.0000, 1.0000] (groups.arm.lower, .upper)'),
    ([0.5, 0.0], None, None, 'no_present', 'where it is now is not known'),
    ([0.5, 0.0], [0.5, math.nan], None, 'no_present', 'not known'),
    ([0.5, 0.0], [0.5], None, 'no_present', 'not known'),
])
def test_joint_positions_that_are_doubtful_are_refused(values, now, before, code, words):
    """A jump, a lead that cannot be meant, a limit, or nobody who says where the joints are."""
    refused(checked(JOINT_LIMITS, values, now, before), code, words)


def test_joints_beyond_their_limit_may_move_back():
    """Or nobody could free the robot but by hand."""
    assert isinstance(checked(JOINT_LIMITS, [1.05, 0], [1.1, 0]), Command)
    for kind, step in (('joint_delta', 0.05), ('joint_velocity', 0.15)):
        assert isinstance(checked(of_kind(kind), [-step, 0], [1.1, 0]), Command)
        refused(checked(of_kind(kind), [step, 0], [1.1, 0]), 'joint_limit', 'elbow would be at')
        refused(checked(of_kind(kind), [step, 0], None), 'no_present', 'not known')
        assert isinstance(checked(replace(of_kind(kind), joint_limits=None), [step, 0]), Command)


def test_joint_deltas_and_velocities_are_slowed_to_the_joint_speed():
    """A delta is of one period, a velocity of a second."""
    limits = replace(of_kind('joint_delta'), max_step=None, joint_limits=None)
    np.testing.assert_allclose(checked(limits, [0.2, 0.1]).groups['arm'], [0.1, 0.05])
    limits = replace(limits, group=replace(JOINTS, kind='joint_velocity'))
    np.testing.assert_allclose(checked(limits, [4.0, 1.0]).groups['arm'], [1.0, 0.25])


@pytest.mark.parametrize(('values', 'now', 'code', 'words'), [
    ([0.4, 0, 0.51, 0, 0, 0], AT, 'far', 'the pose is 0.2100 m from where the tool is, at most '
     '0.2000 m'),
    ([0.4, 0, 0.3, 0, 0, 0.5], AT, 'far', '0.5000 rad from where the tool is'),
    ([0.51, 0, 0.3, 0, 0, 0], Pose(np.array([0.45, 0.0, 0.3]), np.eye(3)), 'workspace',
     'x = 0.510 m'),
    ([0.4, 0, 0.3, 0, 0, 0], None, 'no_present', 'not known'),
    ([0.4, 0, 0.3, 0, 0, 0], Pose(np.array([math.nan] * 3), np.eye(3)), 'no_present', 'not known'),
    ([0.4, 0, 0.3, 0, 0, 0], Pose(np.zeros(3), np.full((3, 3), math.nan)), 'no_present', 'known'),
])
def test_poses_that_are_doubtful_are_refused(values, now, code, words):
    """Far from the tool, out of the box, or nobody who says where the tool is."""
    refused(checked(POSE, values, now), code, words)


def test_a_pose_is_slowed_on_its_way_in_place_and_rotation_together():
    """Half of the way and half of the turn."""
    command = checked(POSE, [0.4, 0, 0.38, 0, 0, 0.1], AT)
    assert command.slowed == pytest.approx(0.5)
    np.testing.assert_allclose(command.groups['arm'], [0.4, 0, 0.34, 0, 0, 0.05], atol=1e-9)


def test_a_pose_near_half_a_turn_is_not_far_from_its_like():
    """Rotation vectors of pi and of -pi are one rotation."""
    turned = Pose(AT.position_m, Rotation.from_rotvec([0, 0, math.pi - 0.01]).as_matrix())
    limits = replace(POSE, max_step=np.full(6, 0.05))
    assert isinstance(checked(limits, [0.4, 0, 0.3, 0, 0, -math.pi + 0.01], turned), Command)


@pytest.mark.parametrize('opening', [-0.1, 1.1])
def test_a_continuous_opening_beyond_its_range_is_refused(opening):
    """Where a network of no sigmoid gives it."""
    hand = replace(HAND, name='arm', size=2)
    refused(checked(GroupLimits(hand, 0.1), [0.3, opening]), 'not_finite', 'a gripper in [0, 1]')
    assert isinstance(checked(GroupLimits(hand, 0.1), [0.0, 1.0]), Command)


@pytest.mark.parametrize('kind', sorted(safety.CHECKS))
def test_no_kind_lets_a_number_through_that_is_none(kind):
    """Comparisons with NaN are false, whichever limit they are of."""
    size = 6 if kind.startswith('ee_') else 2
    group = ActionGroup('arm', kind, size, frame='base')
    now = AT if kind.startswith('ee_') else [0.0, 0.0]
    for value in (math.nan, math.inf):
        refused(checked(GroupLimits(group, 0.1), [0.0] * (size - 1) + [value], now), 'not_finite',
                'finite')


def test_an_action_of_other_groups_is_refused():
    """A policy of another body."""
    refused(safety.check(Action({'left': np.zeros(2)}), 0, Limits(0.3, {'arm': JOINT_LIMITS})),
            'action_shape', 'the policy gave the groups left, expected arm')


def test_a_gripper_each_is_shaped_by_itself():
    """Two hands of one body do not wait for each other."""
    groups = [ActionGroup(name, 'gripper', 1, binary=True) for name in ('left', 'right')]
    grippers = safety.Grippers(groups, hysteresis=0.1, min_hold_s=0.0)
    told = [grippers.update(Action({'left': np.array([a]), 'right': np.array([b])}), n)
            for n, (a, b) in enumerate([(0.9, 0.1), (0.45, 0.55), (0.1, 0.9)])]
    assert [(t['left'][0], t['right'][0]) for t in told] == [(1, 0), (1, 0), (0, 1)]

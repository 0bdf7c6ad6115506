"""Tests of the policy node over real DDS, with a real policy: one node process for all of them."""

import time

from geometry_msgs.msg import TwistStamped
from node_robot import (ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, image_message, nanoseconds,
                        node_process, Robot, small_checkpoint, stamp, values)
import numpy as np
import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros2_lstm_policy.manifest import Normalisation
from ros2_lstm_policy.model.checkpoint import fingerprint
from safetensors.torch import load_file, save_file
from sensor_msgs.msg import Image
from std_msgs.msg import Float64MultiArray, String

T0 = 1_000_000_000_000
MS = 1_000_000


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two cameras."""
    return str(small_checkpoint(tmp_path_factory.mktemp('two') / 'checkpoint'))


@pytest.fixture(scope='module')
def running(checkpoint, tmp_path_factory):
    """Return a robot beside a running node."""
    robot = Robot()
    robot.log = tmp_path_factory.mktemp('log') / 'node.log'
    with node_process(robot.log):
        yield robot
    robot.close()


@pytest.fixture
def robot(running, checkpoint):
    """Return the robot with cameras on and an active node that has no instruction."""
    running.__dict__.update(cameras={'static', 'hand'}, stamp_offset_s=0.0, sim_time_ns=None,
                            change_image=lambda name, message: None, rate_hz=20.0)
    running.bring_to('active', checkpoint=checkpoint, cameras=['static', 'hand'], trigger='timer',
                     instruction='', shadow=False, use_sim_time=False, control_rate_hz=0.0,
                     arm_frame='', gripper_initial='unknown', deadline_s=1.0,
                     max_image_age_s=0.5)
    return running


def test_nothing_is_commanded_unless_active(robot, checkpoint):
    """Silent while inactive; a hold, then silence, after deactivation; then no publishers."""
    robot.order('pick up the milk')
    robot.until(robot.acts)
    robot.forget()
    assert robot.change(DEACTIVATE)
    robot.until(lambda: robot.arms and values(robot.arms[-1]) == (0,) * 6)
    robot.until_silent()
    assert robot.change(CLEANUP)
    robot.until(lambda: not robot.node.get_publishers_info_by_topic('/policy/arm_delta'))


def test_every_observation_is_answered_by_one_gripper_and_then_one_arm_message(robot):
    """Stamps are those of frames that were shown, each at most once."""
    robot.order('pick up the milk')
    robot.until(lambda: len(robot.commands()) >= 12)
    robot.until_answered(12)
    stamps = [nanoseconds(arm) for arm in robot.commands()]
    assert len(set(stamps)) == len(stamps)
    assert set(stamps) <= set(robot.shown)
    assert robot.arms[-1].header.frame_id == 'base_link'


def test_a_hold_before_the_first_decision_leaves_the_gripper_alone(robot):
    """Nobody knows yet whether it holds something."""
    robot.until(lambda: len(robot.arms) >= 3)
    assert robot.grippers == []
    robot.bring_to('active', gripper_initial='closed')
    robot.until(lambda: len(robot.grippers) >= 3)
    assert {tuple(gripper.data) for gripper in robot.grippers} == {(0.0,)}


def test_reset_episode_names_the_new_episode_and_holds(robot):
    """The answer comes after the hold."""
    robot.order('pick up the milk')
    robot.until(robot.acts)
    first, second = robot.reset(), robot.reset()
    assert first.success
    numbers = [int(answer.message.removeprefix('episode ')) for answer in (first, second)]
    assert numbers[1] == numbers[0] + 1
    robot.forget()
    robot.until(robot.acts)


def test_reset_episode_of_an_inactive_node_says_so(robot):
    """There is no episode to reset."""
    assert robot.change(DEACTIVATE)
    answer = robot.reset()
    assert not answer.success
    assert answer.message == 'the node is inactive: there is no episode to reset'


def commands_for(robot, frames, first_ns, spacing_ns=100 * MS):
    """Show frames one by one, each after the answer to the one before; return the answers."""
    robot.forget()
    for index, frame in enumerate(frames):
        robot.show_until(lambda n=index: len(robot.commands()) > n,
                         first_ns + index * spacing_ns, frame)
    return [values(arm) for arm in robot.commands()]


def test_an_episode_after_a_reset_or_a_gap_equals_the_one_of_a_fresh_start(robot):
    """Same frames, same commands: nothing is left of what was before."""
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(6)]
    robot.rate_hz = 0
    robot.bring_to('active', trigger='frames', instruction='pick up the milk',
                   max_image_age_s=60.0, deadline_s=60.0, max_gap_s=1.0)
    robot.until_heard()
    now_ns = time.time_ns()
    fresh = commands_for(robot, frames, now_ns)
    assert len(set(fresh)) == len(frames)
    assert commands_for(robot, frames, now_ns + 1000 * MS) != fresh
    assert robot.reset().success
    assert commands_for(robot, frames, now_ns + 2000 * MS) == fresh
    assert commands_for(robot, frames, now_ns + 5000 * MS) == fresh


def test_frames_faster_than_the_period_are_thinned_out(robot):
    """A delta covers one period; three times as many would be three times as fast."""
    robot.rate_hz = 0
    robot.bring_to('active', trigger='frames', instruction='pick up the milk',
                   max_image_age_s=60.0, deadline_s=60.0)
    robot.until_heard()
    first_ns = time.time_ns()
    for index in range(7):
        stamp_ns = first_ns + index * 33 * MS
        if index % 3:
            robot.show(stamp_ns)
        else:  # what it answers here would come after an answer to any frame of before
            robot.show_until(lambda s=stamp_ns: s in map(nanoseconds, robot.arms), stamp_ns)
    assert [(nanoseconds(arm) - first_ns) // MS for arm in robot.arms] == [0, 99, 198]
    back_ns = first_ns - 5000 * MS
    robot.show_until(lambda: nanoseconds(robot.arms[-1]) == back_ns, back_ns)


def test_frames_of_one_stamp_are_answered_with_that_stamp(robot):
    """Lock-step: question and answer are matched by stamp."""
    robot.bring_to('active', trigger='frames', gripper_initial='open')
    robot.until(lambda: len(robot.arms) >= 5)
    stamps = [nanoseconds(arm) for arm in robot.arms]
    assert set(stamps) <= set(robot.shown)
    assert len(set(stamps)) == len(stamps)
    robot.until_answered(2)
    robot.until(robot.holds('there is no instruction'))


def test_an_empty_instruction_stops_and_another_one_begins_an_episode(robot):
    """The same text again changes nothing."""
    robot.order('pick up the milk')
    robot.until(robot.acts)
    robot.order('')
    robot.until_holding('there is no instruction')
    robot.until(lambda: len(robot.arms) >= 3)
    assert not robot.acts()
    robot.order('pick up the butter')
    robot.until(robot.acts)
    robot.until(lambda: robot.message('commands') == 'acting')
    episode = robot.value('commands', 'episode')
    robot.order(' pick up the butter ')
    robot.forget()
    robot.until(lambda: robot.message('commands') == 'acting')
    assert robot.value('commands', 'episode') == episode


def test_a_storm_of_instructions_leaves_a_line_a_second_and_the_last_word(robot):
    """A publisher that changed its mind a thousand times a second left 1988 lines in the log."""
    robot.until_heard(robot._orders)
    before, begun_s = len(robot.log.read_text().splitlines()), time.monotonic()
    for number in range(1000):
        robot._orders.publish(String(data=f'word {number}'))
        robot.executor.spin_once(timeout_sec=0)
    robot.until(lambda: "'word 999'" in robot.log.read_text())
    lines = robot.log.read_text().splitlines()[before:]
    seconds = time.monotonic() - begun_s
    assert sum(": 'word " in line for line in lines) <= 2 * seconds + 3
    assert len(lines) <= 3 * seconds + 10
    robot.until(lambda: robot.message('commands') == 'acting')
    assert robot.value('commands', 'instruction') == 'word 999'


def test_words_from_before_a_deactivation_move_nothing_after_it(robot):
    """
    Somebody may have reached in meanwhile, and the robot moved 0.14 s after the activation.

    Words that come while the node waits do count: they were said for what comes.
    """
    robot.bring_to('active', instruction='pick up the milk')
    robot.until(robot.acts)
    assert robot.change(DEACTIVATE) and robot.change(ACTIVATE)
    robot.until_holding('there is no instruction')
    robot.until(lambda: len(robot.arms) >= 3)
    assert not robot.acts()
    robot.order('pick up the milk')
    robot.until(robot.acts)


def test_a_very_long_instruction_holds_and_says_so(robot):
    """Too long for the node, or too long for the policy: a diagnostic each."""
    robot.order('milk ' * 1000)
    robot.until(robot.holds('the instruction has 4999 characters, at most 1000 are allowed'))
    robot.order('milk ' * 190)
    robot.until(robot.holds('the policy failed: InstructionTooLong'))
    assert not robot.acts()
    robot.order('pick up the milk')
    robot.until(robot.acts)


def test_an_instruction_beyond_ascii_is_acted_on(robot):
    """Words of any language reach the tokenizer."""
    robot.order('Nimm die Milch für Žofie 取牛奶 🥛')
    robot.until(robot.acts)


def test_a_missing_hand_camera_holds_and_is_named(robot):
    """The topic, and that nobody publishes it; then the camera comes."""
    robot.bring_to('active', instruction='pick up the milk')
    robot.cameras = {'static'}
    robot.until(robot.holds('hand: the newest image is'))
    assert '/hand_rgb has 1 publisher' in robot.message('commands')
    assert '/hand_rgb' in robot.message('inputs')
    robot.cameras = {'static', 'hand'}
    robot.until(robot.acts)


@pytest.mark.parametrize(('make', 'destroy', 'words'), [
    (lambda node: rclpy.create_node('policy', context=node.context),
     lambda node, twin: twin.destroy_node(), '2 nodes are named /policy'),
    (lambda node: node.create_publisher(TwistStamped, 'policy/arm_delta', 1),
     lambda node, other: node.destroy_publisher(other),
     '/policy/arm_delta (commands of this node) has 2 publishers: /policy, /robot'),
    (lambda node: node.create_publisher(TwistStamped, 'policy/delta_twist_cmds', 1),
     lambda node, other: node.destroy_publisher(other), '/policy/delta_twist_cmds (commands'),
    (lambda node: node.create_publisher(Float64MultiArray, 'policy/gripper_command', 1),
     lambda node, other: node.destroy_publisher(other), '/policy/gripper_command (commands'),
    (lambda node: node.create_publisher(Image, 'hand_rgb', 1),
     lambda node, other: node.destroy_publisher(other),
     '/hand_rgb (camera hand) has 2 publishers: /robot, /robot'),
], ids=['a node of the same name', 'arm', 'velocity', 'gripper', 'a second camera'])
def test_a_second_one_of_what_must_be_alone_stops_the_robot(robot, make, destroy, words):
    """
    Two nodes of one name were both told to act, did, and both said that all was well.

    Two cameras on one topic were taken in turns, as if they were one that jumps.
    """
    robot.order('pick up the milk')
    robot.until(robot.acts)
    other = make(robot.node)
    try:
        robot.until_holding(words)
        robot.until(lambda: words in robot.message('state'))
        robot.until(lambda: len(robot.arms) >= 3)
        assert not robot.acts()
    finally:
        destroy(robot.node, other)
    robot.until(robot.acts)


def test_a_node_that_waits_says_that_there_is_another_of_its_name(robot):
    """Both hear every transition, so it is too late once they act."""
    robot.bring_to('unconfigured')
    twin = rclpy.create_node('policy', context=robot.context)
    try:
        robot.until(lambda: '2 nodes are named /policy' in robot.message('state'))
    finally:
        twin.destroy_node()
    robot.until(lambda: robot.message('state') == 'unconfigured')


def test_a_policy_of_one_camera_acts_without_the_hand_camera(robot, tmp_path):
    """A checkpoint says which cameras it needs."""
    path = small_checkpoint(tmp_path / 'static', cameras=('static',))
    robot.cameras = {'static'}
    robot.bring_to('active', checkpoint=str(path), cameras=['static'],
                   instruction='pick up the milk')
    robot.until(robot.acts)


def wrong_encoding(name, message):
    """Publish depth as colour."""
    message.encoding = '16UC1'


def wrong_step(name, message):
    """Say that rows are shorter than they are."""
    message.step = 5


def empty(name, message):
    """Publish nothing."""
    message.height = message.width = message.step = 0
    message.data = b''


def other_size(name, message):
    """Publish an image of half the height."""
    message.height //= 2
    message.data = message.data[:message.height * message.step]


def black(name, message):
    """Publish what a dead sensor gives."""
    message.data = bytes(len(message.data))


def thumbnail(name, message):
    """Publish 4x4 pixels."""
    message.height, message.width, message.step = 4, 4, 12
    message.data = message.data[:48]


def no_stamp(name, message):
    """Forget the stamp."""
    message.header.stamp.sec = message.header.stamp.nanosec = 0


@pytest.mark.parametrize(('change', 'words'), [
    (wrong_encoding, "'16UC1' 64x48: this encoding has no known colour"),
    (wrong_step, 'step is 5 bytes, a row of 64 pixels needs 192'),
    (empty, 'the image is empty'),
    (other_size, 'images are now 64x24, and were 64x48'),
    (no_stamp, 'the header stamp is zero'),
    (black, 'hand: all 64x48 pixels have the colour (0, 0, 0)'),
    (thumbnail, 'hand: the image has 4x4 pixels, expected at least'),
])
def test_a_bad_image_holds_until_good_ones_come_again(robot, change, words):
    """One camera goes wrong; the node names it, holds, lives and goes on."""
    robot.order('pick up the milk')
    robot.until(robot.acts)
    robot.change_image = lambda name, message: change(name, message) if name == 'hand' else None
    bad_from_ns = time.time_ns()
    robot.until_holding(words)
    robot.until(lambda: len(robot.arms) >= 3)
    assert all(nanoseconds(command) < bad_from_ns for command in robot.commands())
    robot.change_image = lambda name, message: None
    robot.until(robot.acts)


def test_a_camera_that_shows_one_image_with_new_stamps_stops_a_robot_that_moves(robot):
    """
    A driver that hangs gives its last image for ever: 3 s of commands, and all was well.

    A reset lets the robot move for as long again; a new image ends it.
    """
    robot.order('pick up the milk')
    robot.until(robot.acts)
    frozen = image_message(np.random.default_rng(7).integers(0, 255, (48, 64, 3), np.uint8), 0)

    def freeze(name, message):
        if name == 'hand':
            message.data = frozen.data
    robot.change_image = freeze
    words = 'hand: no new image, only new stamps, in'
    robot.until_holding(words)
    robot.until(lambda: len(robot.arms) >= 3)
    assert not robot.acts()
    robot.until(lambda: robot.message('inputs').startswith(words))
    assert 'static: no new' not in robot.message('inputs')
    assert int(robot.value('inputs', 'hand repeated images')) > 5
    assert robot.value('inputs', 'static repeated images') == '0'
    assert robot.reset().success
    robot.until(robot.acts)
    robot.until_holding(words)
    robot.change_image = lambda name, message: None
    robot.until(robot.acts)


def test_frames_that_repeat_a_stamp_are_counted(robot):
    """A driver that stamps by its own counter, or a bridge that sends what it has twice."""
    robot.rate_hz, now_ns = 0, time.time_ns()
    robot.until_heard()

    def is_counted():
        robot.show(now_ns)
        return int(robot.value('inputs', 'hand repeated stamps')) > 0
    robot.until(lambda: 'inputs' in robot.diagnostics)
    robot.until(is_counted)


def test_a_new_image_size_is_accepted_by_a_reset(robot):
    """The other way out of a changed size."""
    robot.order('pick up the milk')
    robot.until(robot.acts)
    robot.change_image = other_size
    robot.until(robot.holds('images are now 64x24'))
    assert robot.reset().success
    robot.forget()
    robot.until(robot.acts)


def test_old_images_hold_until_new_ones_come(robot):
    """Stamps far behind the clock are a camera that hangs, or clocks that differ."""
    robot.order('pick up the milk')
    robot.until(robot.acts)
    robot.stamp_offset_s = -5
    robot.until(robot.holds('s old, at most 0.500 s is allowed (max_image_age_s)'))
    robot.stamp_offset_s = 5
    robot.until(robot.holds('s ahead of now'))
    robot.stamp_offset_s = 0
    robot.forget()
    robot.until(robot.acts)


def test_a_clock_that_jumps_back_begins_afresh(robot):
    """A simulation restarts: the node follows the clock without a restart of its own."""
    robot.bring_to('active', use_sim_time=True, instruction='pick up the milk')
    robot.sim_time_ns = T0
    robot.until(robot.acts)
    robot.until(lambda: robot.message('commands') == 'acting')
    episode = int(robot.value('commands', 'episode'))
    robot.sim_time_ns = T0 // 2
    robot.forget()
    robot.until(robot.acts)
    robot.until(lambda: robot.message('commands') == 'acting'
                and int(robot.value('commands', 'episode')) > episode)
    assert nanoseconds(robot.commands()[-1]) < T0


def test_a_clock_that_stands_still_does_not_hide_what_the_policy_takes(robot):
    """In lock-step no time passes between a frame's stamp and its command."""
    robot.rate_hz = 0
    robot.bring_to('active', use_sim_time=True, trigger='frames',
                   instruction='pick up the milk')
    next_s, robot.sim_time_ns = 0.0, T0

    def acts_again():
        """Show the next moment; frames that come before the time that they are of are refused."""
        nonlocal next_s
        if time.monotonic() >= next_s:
            robot.tell_time(robot.sim_time_ns + 10**8)
            robot.show(robot.sim_time_ns)
            next_s = time.monotonic() + 0.3
        return len(robot.commands()) >= 5
    robot.until(acts_again)
    robot.forget()
    robot.until(lambda: len(robot.diagnostics) == 4)
    policy_ms, total_ms = (float(robot.value('latency', f'{stage} p50 [ms]'))
                           for stage in ('policy', 'total'))
    assert 0 < policy_ms <= total_ms


def test_a_policy_of_a_robot_of_four_axes_moves_it(robot, tmp_path):
    """Roll and pitch were all zero in training, and every action was refused for them."""
    path = small_checkpoint(
        tmp_path / 'planar', arm={
            'largest': (0.05, 0.05, 0.05, 0.0, 0.0, 0.5),
            'normalisation': Normalisation((0.0,) * 6, (0.05, 0.05, 0.05, 0.025, 0.025, 0.5))})
    robot.bring_to('active', checkpoint=str(path), instruction='pick up the milk')
    robot.until(robot.acts)


def test_shadow_computes_and_shows_but_commands_nothing(robot):
    """It can be switched while the node acts."""
    assert robot.give(shadow=True) == []
    robot.order('pick up the milk')
    robot.until(lambda: 'in shadow: nothing is commanded' in robot.message('state'))
    robot.until_silent()
    robot.until(lambda: len(robot.chunks) >= 5)
    assert robot.heard == robot.twists == []
    assert len(robot.chunks[-1].poses) == 11
    assert robot.give(shadow=False) == []
    robot.until(robot.acts)


def test_servo_twists_are_velocities_stamped_now_that_fade_with_age(robot):
    """Displacement over period, repeated faster than the policy acts; zero when it is silent."""
    robot.bring_to('active', instruction='pick up the milk', max_linear_speed_m_s=10.0,
                   max_angular_speed_rad_s=20.0)

    def full():
        velocities = {tuple(np.round(np.divide(values(arm), 0.1), 9)) for arm in robot.commands()}
        return [t for t in robot.twists if tuple(np.round(values(t), 9)) in velocities]
    robot.until(lambda: len(full()) > len(robot.commands()) > 5)
    robot.until(lambda: abs(nanoseconds(robot.twists[-1]) / 1e9 - time.time()) < 1)
    robot.cameras = set()
    robot.forget()
    robot.until(lambda: len(robot.twists) > 0 and values(robot.twists[-1]) == (0,) * 6)


def test_commands_are_slowed_to_the_speed_limits(robot):
    """The limits can be set while the node acts."""
    assert robot.give(max_linear_speed_m_s=0.01) == []
    robot.order('pick up the milk')
    robot.until(lambda: len(robot.commands()) >= 3)
    speeds = [np.linalg.norm(values(arm)[:3]) / 0.1 for arm in robot.commands()]
    assert max(speeds) <= 0.01 + 1e-9
    assert robot.give(max_linear_speed_m_s=0.4) == []


def test_the_workspace_is_kept_with_the_pose_that_the_robot_tells(robot):
    """Without a pose nothing moves; at the wall nothing moves outwards."""
    box = [0.5, -1e-6, 0.2, 0.500001, 1e-6, 0.200001]
    robot.bring_to('active', instruction='pick up the milk', workspace_m=box)
    robot.until(robot.holds('the tool pose is missing or old'))
    robot.pose_m = (0.5, 0.0, 0.2)
    robot.until(robot.holds('the step would take the tool to'))
    assert not robot.acts()
    robot.pose_m = None
    robot.bring_to('unconfigured', workspace_m=[-np.inf] * 3 + [np.inf] * 3)


@pytest.mark.parametrize(('pose_m', 'frame', 'words'), [
    ((0.0, 0.0, float('nan')), 'base_link', 'not all finite'),
    ((0.0, 0.0, 0.3), 'camera_link', "ee_pose is in the frame 'camera_link'"),
])
def test_a_pose_that_says_nothing_holds_where_there_is_a_workspace(robot, pose_m, frame, words):
    """A NaN switched the box off: 24 commands, no hold, and diagnostics said that all is well."""
    box = [-0.5, -0.5, 0.0, 0.5, 0.5, 0.8]
    robot.pose_m = (0.0, 0.0, 0.3)
    robot.bring_to('active', instruction='pick up the milk', workspace_m=box)
    robot.until(robot.acts)
    robot.pose_m, robot.pose_frame = pose_m, frame
    robot.until_holding(words)
    robot.until(lambda: len(robot.arms) >= 5)
    assert not robot.acts()
    robot.pose_m, robot.pose_frame = None, 'base_link'
    robot.bring_to('unconfigured', workspace_m=[-np.inf] * 3 + [np.inf] * 3)


def test_cameras_slower_than_the_policy_are_answered_once_a_frame_and_are_told(robot):
    """At 5 Hz each observation was commanded twice, and the history took it twice."""
    robot.rate_hz = 4.0
    robot.order('pick up the milk')
    robot.until(robot.acts)
    robot.forget()
    robot.until(robot.holds('a camera is slower than the policy'))
    robot.until(lambda: len(robot.commands()) >= 5)
    stamps = [nanoseconds(arm) for arm in robot.commands()]
    assert len(set(stamps)) == len(stamps)


def test_frames_that_are_not_synchronised_tick_too_and_their_end_is_a_hold(robot):
    """Stamps had to be equal to the nanosecond: no command, no reason, "all cameras are seen"."""
    def late(name, message):
        if name == 'hand':
            message.header.stamp = stamp(nanoseconds(message) + 7_001_000)
    robot.change_image = late
    robot.bring_to('active', trigger='frames', instruction='pick up the milk')
    robot.until(lambda: len(robot.commands()) >= 5)
    stamps = [nanoseconds(arm) for arm in robot.commands()]
    assert len(set(stamps)) == len(stamps)
    robot.rate_hz = 0.0
    robot.until(robot.holds('max_image_age_s'))
    robot.until(lambda: values(robot.arms[-1]) == (0,) * 6)


def test_latched_words_are_heard_by_a_node_that_comes_later(robot):
    """After a crash and a restart the words were gone, though their publisher had latched them."""
    robot.bring_to('unconfigured')
    latched = robot.node.create_publisher(String, 'instruction', QoSProfile(
        depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    try:
        latched.publish(String(data='pick up the milk'))
        robot.forget()
        robot.bring_to('active')
        robot.until(robot.acts)
        robot.order('')
        robot.until(robot.holds('there is no instruction'))
    finally:
        robot.node.destroy_publisher(latched)


def test_answers_beyond_the_deadline_are_holds(robot):
    """Every observation is answered, once; a later deadline lets the robot act again."""
    robot.order('pick up the milk')
    robot.until(robot.acts)
    assert robot.give(deadline_s=0.001) == []
    robot.until_holding('at most 0.001 s is allowed (deadline_s)')
    robot.until(lambda: len(robot.arms) >= 5)
    assert not robot.acts()
    stamps = [nanoseconds(arm) for arm in robot.arms]
    assert len(set(stamps)) == len(stamps)
    assert robot.give(deadline_s=1.0) == []
    robot.until(robot.acts)


def test_diagnostics_tell_rates_latencies_and_the_checkpoint(robot, checkpoint):
    """What somebody needs to know before asking for help."""
    robot.order('pick up the milk')
    robot.until(lambda: len(robot.commands()) >= 20)
    robot.forget()
    robot.until(lambda: len(robot.diagnostics) == 4)
    assert robot.value('state', 'checkpoint sha256') == fingerprint(checkpoint)
    robot.until(lambda: 5 < float(robot.value('commands', 'tick rate [Hz]')) < 15)
    robot.until(lambda: float(robot.value('inputs', 'static rate [Hz]')) > 5)
    for stage in ('camera', 'decode', 'wait', 'tick', 'queue', 'policy', 'policy backbone',
                  'publish', 'overhead', 'total'):
        median_ms, p99_ms = (float(robot.value('latency', f'{stage} {p} [ms]'))
                             for p in ('p50', 'p99'))
        assert median_ms <= p99_ms


def spoil_long_instructions(policy):
    """Put numbers that overflow to NaN where only instructions of many words look."""
    policy.backbone.text_position.data[8:] = 3e38


def with_nan(tmp_path):
    """Return a checkpoint with NaN among its weights, which the package itself never writes."""
    path = small_checkpoint(tmp_path / 'nan')
    weights = load_file(path / 'model.safetensors')
    weights['decoder.actions.mlp.6.bias'].fill_(float('nan'))
    save_file(weights, path / 'model.safetensors', {'format': 'pt'})
    return path


def test_nan_from_the_policy_holds_until_it_gives_numbers_again(robot, tmp_path):
    """What the policy remembers of it is forgotten, too."""
    path = small_checkpoint(tmp_path / 'nan', spoil=spoil_long_instructions)
    robot.bring_to('active', checkpoint=str(path), instruction='milk ' * 10)
    robot.until(robot.holds('no finite number'))
    assert not robot.acts()
    assert robot.state() == 'active'
    robot.order('milk')
    robot.until(robot.acts)


def truncated(tmp_path):
    """Return a checkpoint whose weights were copied half."""
    path = small_checkpoint(tmp_path / 'truncated')
    weights = path / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:100_000])
    return path


@pytest.mark.parametrize(('make', 'parameters', 'words'), [
    (lambda tmp: tmp / 'nowhere', {}, 'config.yaml is missing'),
    (truncated, {}, 'are no whole safetensors file'),
    (lambda tmp: '', {}, 'the parameter checkpoint is empty'),
    (with_nan, {}, 'holds NaN or infinite numbers'),
    (lambda tmp: small_checkpoint(tmp / 'high', gripper={'threshold': 0.95}), {},
     'its gripper threshold of 0.95 with 0.1 around it'),
    (None, {'cameras': ['static']}, 'it needs the camera hand, and this robot has static'),
    (None, {'control_rate_hz': 20.0}, 'it acts at 10 Hz, and 20 Hz are asked for'),
    (None, {'arm_frame': 'tool'}, 'its deltas are in base axes, and this robot takes tool axes'),
    (None, {'device': 'cuda'}, "device 'cuda' cannot be used"),
    (None, {'execute': 'all'}, "execute: expected 'first'"),
    (None, {'gripper_action': 'GripperCommand'}, 'control_msgs is not installed'),
])
def test_a_checkpoint_that_does_not_fit_is_refused_with_one_error(
        robot, checkpoint, tmp_path, make, parameters, words):
    """The node stays unconfigured, says why, and can be configured when the cause is gone."""
    path = checkpoint if make is None else str(make(tmp_path))
    robot.bring_to('unconfigured', checkpoint=path, **parameters)
    assert not robot.change(CONFIGURE)
    assert robot.state() == 'unconfigured'
    robot.until(lambda: words in robot.message('state'))
    good = {'cameras': ['static', 'hand'], 'control_rate_hz': 0.0, 'arm_frame': '',
            'device': 'cpu', 'execute': 'first', 'gripper_action': ''}
    assert robot.give(checkpoint=checkpoint, **{key: good[key] for key in parameters}) == []
    assert robot.change(CONFIGURE)


def test_an_unknown_transition_does_not_end_the_node(robot):
    """Neither an id that does not exist nor one that this state does not have."""
    assert not robot.change(123)
    assert not robot.change(ACTIVATE)
    assert robot.state() == 'active'


def test_parameters_out_of_range_or_out_of_time_are_refused(robot):
    """Each refusal says what is allowed."""
    assert 'range' in robot.give(max_linear_speed_m_s=-1.0)[0]
    assert 'expected one of' in robot.give(trigger='never')[0]
    assert 'deactivate and clean up first' in robot.give(checkpoint='/elsewhere')[0]
    assert 'read only' in robot.give(autostart=True)[0].replace('-', ' ')
    assert robot.give(deadline_s=0.5) == []

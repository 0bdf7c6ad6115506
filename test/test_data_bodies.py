"""Bags of robots of other bodies: states by name, actions from commands or from the states."""

from pathlib import Path

from data_recordings import info, smooth_image, START_NS, WORDS
import numpy as np
import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.labels import SOURCES, Stream
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.rosbag import EpisodeBagWriter
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from scipy.spatial.transform import Rotation

MS = 1_000_000
JOINTS = ['shoulder', 'elbow', 'finger']
ARM = ActionGroup('arm', 'joint_position', 2, names=('elbow', 'shoulder'))
HAND = ActionGroup('gripper', 'gripper', 1, binary=True)
WANTED = Wanted(('static',), (ARM, HAND), (StateSpec('joints', 2), StateSpec('ee_pose', 9)))
LAYOUT = """
topics: {cameras: {static: camera/color/image_raw}}
instruction: pick up the milk
states:
  joints: {topic: joint_states, names: [elbow, shoulder]}
  opening: {topic: joint_states, names: [finger], scale: 0.08}
actions:
  arm: {state: joints}
  gripper: {state: opening}
"""
LENGTH_MS = 1500


def joints_at(time_s):
    """Return where the joints are: each moves in its own way."""
    return np.array([np.sin(time_s), 0.5 * time_s, 0.08 * (time_s < 0.8)])


def write_lab_bag(path: Path, late_ms: int = 0, joints=lambda time_ms: True) -> Path:
    """Write cameras at 30 Hz, joints at 100 Hz and a pose at 50 Hz, and not one command."""
    known = info(path.name, actor='operator')
    times = [(time_ms, kind) for kind, step in (('joints', 10), ('pose', 20), ('frame', 33))
             for time_ms in range(0, LENGTH_MS, step)]
    with EpisodeBagWriter(path, known, WORDS, START_NS) as writer:
        for time_ms, kind in sorted(times):
            stamp_ns, time_s = START_NS + time_ms * MS, time_ms / 1e3
            if kind == 'joints' and joints(time_ms):
                writer.write_joints(stamp_ns + late_ms * MS, JOINTS, joints_at(time_s))
            elif kind == 'pose':
                quaternion = Rotation.from_rotvec([0, 0, time_s]).as_quat()
                writer.write_pose(stamp_ns, np.array([time_s, 0, 0]), quaternion)
            elif kind == 'frame':
                writer.write_frame('camera/color/image_raw', stamp_ns, smooth_image(1, 'static'))
    return path


def read(path, text=LAYOUT, wanted=WANTED):
    """Return the one episode of a bag, and its problems."""
    spec = config.parse(SourceSpec, {'path': str(path), 'bag': parse_yaml(text)}, 'test')
    (recording,) = open_source(spec, wanted, 0.1)
    readings, problems = read_checked(recording, Limits())
    return readings, problems


def test_a_bag_without_commands_becomes_an_episode_by_what_the_robot_did_next(tmp_path):
    """The next joints are the action; whatever their order, and at the policy's rate."""
    (reading,), problems = read(write_lab_bag(tmp_path / 'bag'))
    episode = reading.episode
    assert [str(problem) for problem in problems if problem.fatal] == []
    assert set(np.diff(episode.stamps_ns)) == {100 * MS}
    assert len(episode) == 14
    for step, stamp_ns in enumerate(episode.stamps_ns):
        now_s = (stamp_ns - START_NS) / 1e9
        seen_s = np.floor(now_s * 1000 / 33) * 33 / 1000  # the frame, and the joints then
        joints_s = np.floor(seen_s * 100 + 1e-6) / 100
        np.testing.assert_allclose(episode.states['joints'][step],
                                   joints_at(joints_s)[[1, 0]], atol=1e-6)
        then = joints_at(np.floor((now_s + 0.1) * 100 + 1e-6) / 100)
        np.testing.assert_allclose(episode.actions['arm'][step], then[[1, 0]], atol=1e-6)
        assert episode.actions['gripper'][step] == (then[2] > 0.04)
    assert episode.states['ee_pose'].shape == (14, 9)
    assert episode.frames['static'][3].shape == (24, 32, 3)


@pytest.mark.parametrize(('change', 'said'), [
    (('elbow, shoulder', 'elbow, wrist'),
     'no joint wrist; the message has shoulder, elbow, finger'),
    (('topic: joint_states, names: [elbow', 'topic: left/joint_states, names: [elbow'),
     'bag.states.joints, one of /ee_pose, /joint_states'),
    (('[elbow, shoulder]', '[elbow]'), 'expected 2 values'),
])
def test_a_layout_that_does_not_fit_the_bag_says_what_there_is(tmp_path, change, said):
    """Found, wanted, and the key to change."""
    readings, problems = read(write_lab_bag(tmp_path / 'bag'), LAYOUT.replace(*change))
    assert not readings
    assert said in ' '.join(map(str, problems))
    assert {problem.rule for problem in problems} <= {'stream-values', 'state-size',
                                                      'missing-topic'}


@pytest.mark.parametrize(('change', 'error', 'said'), [
    (('arm: {state: joints}', 'arm: {state: joints, command: {topic: a}}'), config.ConfigError,
     'say either command'),
    (('gripper: {state: opening}', ''), RecordingError, 'says nothing of gripper'),
    (('arm: {state: joints}', 'arm: {state: joints, shift: 0}'), config.ConfigError,
     'shift must be at least 1'),
])
def test_actions_that_are_said_twice_or_not_at_all_are_refused(tmp_path, change, error, said):
    """Before the bag is read."""
    path = write_lab_bag(tmp_path / 'bag')
    with pytest.raises(error, match=said):
        read(path, LAYOUT.replace(*change))


@pytest.mark.parametrize(('joints', 'late_ms', 'rule'), [
    (lambda time_ms: time_ms < 700, 0, 'stream-ends'),
    (lambda time_ms: not 300 < time_ms < 900, 0, 'no-observation'),
    (lambda time_ms: True, 400, 'stream-ends')])
def test_a_state_that_stops_has_a_hole_or_is_of_another_clock_breaks_its_episode(
        tmp_path, joints, late_ms, rule):
    """Or the policy would be told of a robot that stands still."""
    readings, problems = read(write_lab_bag(tmp_path / 'bag', late_ms, joints))
    assert not readings
    assert rule in {problem.rule for problem in problems}


def stream(values, period_ms=50):
    """Return a stream that begins at 0."""
    values = np.atleast_2d(np.asarray(values, np.float64).T).T
    return Stream(np.arange(len(values)) * period_ms * MS, values)


def test_commands_become_actions_of_one_period_by_their_kind():
    """Displacements add up, positions hold, velocities are averaged."""
    ticks, period = np.array([0, 100]) * MS, 100 * MS
    values = stream([1, 2, 3, 4])
    for kind, wanted in (('joint_delta', [3, 7]), ('joint_position', [2, 4]), ('gripper', [2, 4])):
        assert SOURCES[kind].command(values, ticks, period).ravel().tolist() == wanted
    mean = SOURCES['joint_velocity'].command(values, ticks, period).ravel()
    np.testing.assert_allclose(mean, [1.5, 3.5], atol=0.06)
    turns = stream([[0, 0, 0, 0.3, 0, 0], [0, 0, 0, 0, 0.4, 0]])
    found = SOURCES['ee_delta'].command(turns, ticks[:1], period)[0, 3:]
    wanted = (Rotation.from_rotvec([0, 0.4, 0]) * Rotation.from_rotvec([0.3, 0, 0])).as_rotvec()
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_states_become_actions_of_one_period_by_their_kind():
    """What the robot became, or the way to there, in base axes."""
    ticks, period = np.array([0, 100]) * MS, 100 * MS
    values = stream([1, 2, 4, 7, 11])
    for kind, wanted in (('joint_delta', [3, 7]), ('joint_position', [4, 11]),
                         ('joint_velocity', [30, 70])):
        np.testing.assert_allclose(SOURCES[kind].state(values, ticks, period).ravel(), wanted)
    first, then = Rotation.from_rotvec([1, 0, 0]), Rotation.from_rotvec([0, 0.2, 0])
    poses = stream(np.array([[0, 0, 0, *first.as_matrix()[:, :2].T.ravel()],
                             [0.1, 0, 0, *(then * first).as_matrix()[:, :2].T.ravel()]]), 100)
    found = SOURCES['ee_delta'].state(poses, ticks[:1], period)[0]
    np.testing.assert_allclose(found, [0.1, 0, 0, 0, 0.2, 0], atol=1e-9)

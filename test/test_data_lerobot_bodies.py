"""LeRobot datasets of any body: states and groups by names, and nothing guessed."""

from dataclasses import replace

from data_aloha import action_of, CAMERAS, GROUPS, LEFT, RIGHT, state_of, STATES, write_aloha
import numpy as np
import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from scipy.spatial.transform import Rotation

NAMES = (*LEFT, *RIGHT)
WANTED = Wanted(CAMERAS, GROUPS, STATES)


def read(path, wanted=WANTED, **layout):
    """Return the readings of every episode; what is said of the layout is as in YAML."""
    spec = config.parse(SourceSpec, {'path': str(path), 'lerobot': layout}, 'test')
    readings, problems = [], []
    for recording in open_source(spec, wanted):
        good, found = read_checked(recording, Limits())
        readings += good
        problems += found
    assert [str(problem) for problem in problems if problem.fatal] == []
    return readings, problems


def group(kind, size=14, **rest):
    """Return a manifest's wish for one group."""
    return Wanted(CAMERAS, (ActionGroup('joints', kind, size, **rest),))


def steps_of(values):
    """Return what a function gives for every step of an episode."""
    return np.array([values(step) for step in range(8)], np.float32)


@pytest.mark.parametrize('version', ['v2.1', 'v3.0'])
def test_two_arms_are_read_by_the_names_of_their_joints(tmp_path, version):
    """Fourteen joints, fourteen states, three videos: nothing but the manifest is needed."""
    readings, problems = read(write_aloha(tmp_path / 'set', version))
    assert problems == []
    assert len(readings) == 2
    for reading in readings:
        episode = reading.episode
        np.testing.assert_array_equal(episode.actions['left_arm'], steps_of(action_of)[:, :7])
        np.testing.assert_array_equal(episode.actions['right_arm'], steps_of(action_of)[:, 7:])
        np.testing.assert_array_equal(episode.states['state'], steps_of(state_of))
        assert {name: len(frames) for name, frames in episode.frames.items()} == dict.fromkeys(
            CAMERAS, 8)
        assert (reading.groups, reading.states) == (GROUPS, STATES)
        assert reading.others == ()


def test_joints_come_in_the_order_of_the_manifest_whatever_the_order_of_the_columns(tmp_path):
    """A state of a few joints, another one of the rest, and a group that is turned round."""
    wanted = Wanted(CAMERAS, (ActionGroup('left_arm', 'joint_position', 7, names=LEFT[::-1]),),
                    (StateSpec('left', 7, names=LEFT[::-1]), StateSpec('rest', 2)))
    (reading, _), _ = read(write_aloha(tmp_path / 'set'), wanted, states={
        'rest': {'columns': ['right_gripper', 7]}})
    episode = reading.episode
    np.testing.assert_array_equal(episode.actions['left_arm'], steps_of(action_of)[:, 6::-1])
    np.testing.assert_array_equal(episode.states['left'], steps_of(state_of)[:, 6::-1])
    np.testing.assert_array_equal(episode.states['rest'], steps_of(state_of)[:, [13, 7]])


@pytest.mark.parametrize('layout', [{}, {'actions': {'hand': {'kind': 'ee_delta'}}},
                                    {'actions': {'hand': {'kind': 'ee_pose'}}}])
@pytest.mark.parametrize('kind', ['ee_delta', 'ee_pose'])
def test_joints_are_never_read_as_motions_or_poses_of_the_hand(tmp_path, kind, layout):
    """Whatever a person says: six joints are six numbers, too."""
    root = write_aloha(tmp_path / 'set')
    wanted = Wanted(CAMERAS, (ActionGroup('hand', kind, 6),))
    columns = {'columns': list(LEFT[:6])}
    said = {**columns, **layout.get('actions', {}).get('hand', {})}
    with pytest.raises(RecordingError, match=r'action-meaning.*(of joints|make them the same)'):
        read(root, wanted, actions={'hand': said})


@pytest.mark.parametrize(('names', 'kind'), [
    (NAMES, 'joint_delta'), (NAMES, 'joint_velocity'),
    ([f'{name}.vel' for name in NAMES], 'joint_position'),
    ([f'delta_{name}' for name in NAMES], 'joint_position'),
    ([f'motor_{n}' for n in range(14)], 'joint_position'), (None, 'joint_position'),
    (['action'], 'joint_position'), ([f'x_{n}' for n in range(14)], 'joint_position'),
    (NAMES, 'gripper')])
def test_a_kind_that_the_names_do_not_say_is_asked_for(tmp_path, names, kind):
    """Found names, wanted kind, and the key that says it; with the key it is read."""
    root = write_aloha(tmp_path / 'set', names=names)
    with pytest.raises(RecordingError) as refused:
        read(root, group(kind))
    assert f'wanted is {kind}' in str(refused.value)
    assert f'say lerobot.actions.joints.kind={kind}' in str(refused.value)
    (reading, _), _ = read(root, group(kind), actions={'joints': {
        'kind': kind, **({'offset': -1, 'scale': 2} if kind == 'gripper' else {})}})
    assert reading.episode.actions['joints'].shape == (8, 14)


@pytest.mark.parametrize(('names', 'kind'), [
    ([f'{name}.pos' for name in NAMES], 'joint_position'),
    ([f'{name}.vel' for name in NAMES], 'joint_velocity'),
    ([f'delta_{name}' for name in NAMES], 'joint_delta'),
    ({'motors': list(NAMES)}, 'joint_position'),
    ([f'gripper_{n}' for n in range(14)], 'gripper')])
def test_names_that_say_the_kind_are_enough(tmp_path, names, kind):
    """Positions, velocities and displacements of joints have names of their own."""
    root = write_aloha(tmp_path / 'set', names=names, action=lambda step: [0.5] * 14)
    (reading, _), _ = read(root, group(kind))
    assert reading.episode.actions['joints'].shape == (8, 14)


@pytest.mark.parametrize(('wanted', 'layout', 'said'), [
    (Wanted(CAMERAS, (GROUPS[0],), (StateSpec('joints', 14), StateSpec('wrench', 6))), {},
     r'nothing says which of them are state .joints..*lerobot.states.joints.columns'),
    (Wanted(CAMERAS, (GROUPS[0],), (StateSpec('joints', 7),)), {}, 'expected 7 columns'),
    (Wanted(CAMERAS, (GROUPS[0],), (StateSpec('joints', 2, names=('a', 'b')),)), {},
     "wants the names 'a', 'b'"),
    (Wanted(CAMERAS, GROUPS[:1], STATES), {'states': {'state': {'columns': ['thumb']}}},
     "0 columns are called 'thumb'"),
    (Wanted(CAMERAS, GROUPS[:1], STATES), {'states': {'state': {'columns': [14]}}},
     'there is no column 14 of 14'),
    (Wanted(CAMERAS, GROUPS[:1], STATES), {'states': {'state': {'feature': 'observation.q'}}},
     "no feature 'observation.q'; it has.*observation.state.*set lerobot.states.state.feature"),
    (Wanted(CAMERAS, GROUPS[:1], STATES), {'states': {'joint': {}}}, 'name it there'),
    (Wanted(CAMERAS, GROUPS[:1], STATES), {'actions': {'arm': {}}}, 'name it there'),
    (Wanted(CAMERAS, GROUPS[:1], STATES), {'gripper_closed': -1.0}, 'lerobot.gripper_closed is f'),
    (Wanted(CAMERAS, GROUPS[:1], STATES), {'states': {'state': {'scale': [1.0, 2.0]}}},
     'expected one value, or 14, found 2'),
    (Wanted(CAMERAS, GROUPS[:1], STATES),
     {'states': {'state': {'feature': 'observation.images.cam_high'}}}, 'expected numbers in one'),
])
def test_columns_that_are_not_there_or_may_be_several_are_asked_for(
        tmp_path, wanted, layout, said):
    """With the names that the dataset has, and the key to set."""
    root = write_aloha(tmp_path / 'set')
    with pytest.raises(RecordingError, match=said):
        read(root, wanted, **layout)


def test_states_of_which_the_dataset_has_no_names_are_taken_in_order_and_noted(tmp_path):
    """Nobody can compare the joints then; with columns it is said."""
    root = write_aloha(tmp_path / 'set', state_names=None)
    wanted = replace(WANTED, states=(StateSpec('joints', 14, names=NAMES),))
    readings, problems = read(root, wanted)
    assert [(problem.rule, problem.fatal) for problem in problems] == [('action-meaning', False)]
    assert 'in the order of the names' in problems[0].message
    np.testing.assert_array_equal(readings[0].episode.states['joints'], steps_of(state_of))
    assert read(root, wanted, states={'joints': {'columns': list(range(14))}})[1] == []


def test_stored_units_become_radians_and_openings(tmp_path):
    """SO-100 has degrees, and a gripper in percent that closes as it grows."""
    root = write_aloha(tmp_path / 'set', action=lambda step: [90.0] * 13 + [100.0 - 10 * step])
    wanted = Wanted(CAMERAS, (ActionGroup('arm', 'joint_position', 2, names=LEFT[:2]),
                              ActionGroup('hand', 'gripper', 1, binary=True)))
    said = {'arm': {'scale': 180 / np.pi},
            'hand': {'columns': ['right_gripper'], 'offset': 100, 'scale': -100}}
    (reading, _), _ = read(root, wanted, actions=said)
    np.testing.assert_allclose(reading.episode.actions['arm'], np.pi / 2, rtol=1e-6)
    assert reading.episode.actions['hand'][:, 0].tolist() == [0] * 6 + [1] * 2
    with pytest.raises(AssertionError, match=r'hand is 100; expected 0 .closed. to 1 .open.; set '
                       'lerobot.actions.hand.offset'):
        read(root, wanted, actions={**said, 'hand': {'columns': ['right_gripper']}})


@pytest.mark.parametrize('names', [['gripper_closed'], ['grasp']])
def test_a_gripper_that_is_named_the_other_way_round_is_refused(tmp_path, names):
    """One means closed, says its name; the scale says that one means open."""
    root = write_aloha(tmp_path / 'set', names=[*NAMES[:13], *names],
                       action=lambda step: [0.0] * 13 + [step % 2])
    wanted = Wanted(CAMERAS, (ActionGroup('arm', 'joint_position', 7, names=LEFT),
                              ActionGroup('hand', 'gripper', 1, binary=True)))
    with pytest.raises(RecordingError, match='larger value means closed'):
        read(root, wanted, actions={'hand': {'columns': names}})
    (reading, _), _ = read(root, wanted, actions={
        'hand': {'columns': names, 'offset': 1, 'scale': -1}})
    assert reading.episode.actions['hand'][:, 0].tolist() == [1, 0] * 4


def test_poses_are_read_whatever_says_their_rotation(tmp_path):
    """Quaternions, Euler angles and vectors become the same six numbers; a state nine."""
    turn = Rotation.from_euler('xyz', [0.3, -0.2, 0.5])
    quaternion, euler, vector = turn.as_quat(), turn.as_euler('xyz'), turn.as_rotvec()
    pose = [0.1, 0.2, 0.3]
    names = ['pose_x', 'pose_y', 'pose_z', 'pose_qx', 'pose_qy', 'pose_qz', 'pose_qw',
             'pose_x_', 'pose_y_', 'pose_z_', 'pose_roll', 'pose_pitch', 'pose_yaw', 'gripper']
    root = write_aloha(tmp_path / 'set', names=names,
                       action=lambda step: [*pose, *quaternion, *pose, *euler, 1.0])
    wanted = Wanted(CAMERAS, (ActionGroup('hand', 'ee_pose', 6),), (StateSpec('pose', 9),))
    for columns in (names[:7], names[7:13]):
        (reading, _), _ = read(
            root, wanted, actions={'hand': {'columns': columns}}, states={'pose': {
                'feature': 'action', 'columns': names[:7], 'rotation': 'quaternion_xyzw'}})
        np.testing.assert_allclose(reading.episode.actions['hand'][0], [*pose, *vector], atol=1e-6)
        np.testing.assert_allclose(reading.episode.states['pose'][3], [
            *pose, *turn.as_matrix()[:, 0], *turn.as_matrix()[:, 1]], atol=1e-6)
    bare = Wanted(CAMERAS, (ActionGroup('hand', 'ee_delta', 6),))
    with pytest.raises(RecordingError, match='say ee_pose; wanted is ee_delta'):
        read(root, bare, actions={'hand': {'columns': names[7:13]}})
    broken = write_aloha(tmp_path / 'broken', names=names, action=lambda step: [0.0] * 14)
    with pytest.raises(AssertionError, match='expected a unit quaternion'):
        read(broken, replace(wanted, states=()), actions={'hand': {'columns': names[:7]}})


def test_numbers_that_lerobot_keeps_alone_are_lists_of_one(tmp_path):
    """Its loader turns a feature of one column into a column of numbers."""
    root = write_aloha(tmp_path / 'set', names=['gripper'], action=lambda step: step % 2 / 1)
    root_names = root / 'meta' / 'info.json'
    assert '"shape": [1]' in root_names.read_text()
    (reading, _), _ = read(root, Wanted(CAMERAS, (ActionGroup('hand', 'gripper', 1),)))
    assert reading.episode.actions['hand'][:, 0].tolist() == [0, 1] * 4

"""Any body's episodes into LeRobot datasets and bags and back: states, groups, equal values."""

import json

from data_aloha import CAMERAS, GROUPS, LEFT, RIGHT, STATES, write_aloha
from data_recordings import WORDS, write_bag
import numpy as np
import pytest
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.convert import to_bag, ToLeRobot
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.episodes import Reading, Wanted
from ros2_lstm_policy.data.sources import describe, open_source, SourceSpec
from ros2_lstm_policy.kinds import rotation_6d
from ros2_lstm_policy.manifest import ActionGroup, ONE_ARM, StateSpec
from ros2_lstm_policy.types import Episode

MIXED = (ActionGroup('hand', 'ee_pose', 6), ActionGroup('push', 'ee_delta', 6, frame='tool'),
         ActionGroup('left_arm', 'joint_position', 2, names=('elbow', 'waist')),
         ActionGroup('right_arm', 'joint_velocity', 2, names=('elbow', 'waist')),
         ActionGroup('torso', 'joint_delta', 3), ActionGroup('fingers', 'gripper', 2),
         ActionGroup('suction', 'gripper', 1, binary=True))
MEASURED = (StateSpec('joints', 2, names=('waist', 'elbow')), StateSpec('ee_pose', 9),
            StateSpec('wrench', 6), StateSpec('bare', 2))
STAMPS_NS = 1_700_000_000_000_000_000 + np.arange(9) * 33_333_333 + np.arange(9) % 3


def made(groups=MIXED, states=MEASURED, name='one'):
    """Return an episode of many streams whose steps are not quite regular."""
    rng = np.random.default_rng(7)

    def values(size):
        return rng.normal(0, 0.02, (len(STAMPS_NS), size)).astype(np.float32)
    actions = {group.name: values(group.size) for group in groups}
    for group in groups:
        if group.kind == 'gripper':
            actions[group.name] = (values(group.size) > 0).astype(np.float32)
    found = {state.name: values(state.size) for state in states}
    if 'ee_pose' in found:
        found['ee_pose'] = np.concatenate([found['ee_pose'][:, :3],
                                           rotation_6d(50 * found['ee_pose'][:, 3:6])],
                                          1).astype(np.float32)
    frames = {'wrist': np.full((len(STAMPS_NS), 24, 32, 3), 90, np.uint8)
              + np.arange(32, dtype=np.uint8)[:, None]}
    return Reading(Episode(name, WORDS, STAMPS_NS, frames, actions, found, True), groups, states,
                   facts={'control_period_s': '0.0333333', 'frame': 'tool'})


def write(form, reading, folder):
    """Convert one episode."""
    if form == 'bag':
        to_bag(reading, folder, jpeg=False)
        return folder
    converter = ToLeRobot(folder)
    converter.append(reading)
    converter.close()
    return folder


def read(path, wanted=None):
    """Return the one episode of a source, by what it says itself."""
    spec = SourceSpec(path)
    recording, *_ = open_source(spec, wanted or describe(spec) or Wanted())
    readings, problems = read_checked(recording, Limits())
    assert [str(problem) for problem in problems if problem.fatal] == []
    return readings[0]


def assert_equal(found, wanted, tolerance=0.0):
    """Compare everything but the pixels."""
    one, other = found.episode, wanted.episode
    assert (one.instruction, one.success) == (other.instruction, other.success)
    np.testing.assert_array_equal(np.diff(one.stamps_ns), np.diff(other.stamps_ns))
    assert one.stamps_ns[0] == (other.stamps_ns[0] or one.stamps_ns[0])  # bags have no stamp 0
    for streams, wished in ((one.actions, other.actions), (one.states, other.states)):
        assert list(streams) == list(wished)
        for name, values in wished.items():
            np.testing.assert_allclose(streams[name], values, atol=tolerance, rtol=0, err_msg=name)
    assert (found.groups, found.states) == (wanted.groups, wanted.states)
    assert list(one.frames) == list(other.frames)


@pytest.mark.parametrize(('groups', 'states'), [(MIXED, MEASURED), (ONE_ARM, MEASURED),
                                                (GROUPS, STATES), (MIXED[3:4], ())])
@pytest.mark.parametrize('form', ['lerobot', 'bag'])
def test_any_body_is_read_back_equal_without_a_word(tmp_path, form, groups, states):
    """The recording itself says what its streams are, and each step keeps its own values."""
    reading = made(groups, states)
    found = read(write(form, reading, tmp_path / 'out'))
    # A pose in a message is a quaternion, which single precision leaves at 1e-7.
    assert_equal(found, reading, 0.0 if form == 'lerobot' else 1e-6)
    assert found.facts['frame'] == 'tool'


@pytest.mark.parametrize(('first', 'then'), [('lerobot', 'bag'), ('bag', 'lerobot')])
def test_both_conversions_one_after_the_other_change_nothing(tmp_path, first, then):
    """From a dataset into a bag and back, and the other way round."""
    reading = made()
    once = read(write(first, reading, tmp_path / 'once'))
    assert_equal(read(write(then, once, tmp_path / 'twice')), reading, 1e-6)


def test_a_manifest_may_take_the_joints_of_a_bag_in_another_order(tmp_path):
    """By their names, where the messages have them; numbers without names stay as they are."""
    reading = made()
    path = write('bag', reading, tmp_path / 'out')
    wanted = Wanted(('wrist',), (ActionGroup('left_arm', 'joint_position', 2,
                                             names=('waist', 'elbow')),),
                    (StateSpec('joints', 1, names=('elbow',)),))
    episode = read(path, wanted).episode
    np.testing.assert_array_equal(episode.actions['left_arm'],
                                  reading.episode.actions['left_arm'][:, ::-1])
    np.testing.assert_array_equal(episode.states['joints'],
                                  reading.episode.states['joints'][:, 1:])


@pytest.mark.parametrize(('group', 'said'), [
    (ActionGroup('left_arm', 'joint_delta', 2), 'was recorded as joint_position'),
    (ActionGroup('left_arm', 'joint_position', 2, names=('waist', 'wrist')), 'elbow, waist'),
    (ActionGroup('third_arm', 'joint_position', 2), 'says nothing of third_arm'),
    (ActionGroup('right_arm', 'joint_velocity', 2, names=('waist', 'elbow')), 'elbow, waist')])
@pytest.mark.parametrize('form', ['lerobot', 'bag'])
def test_a_manifest_of_another_body_is_refused(tmp_path, form, group, said):
    """Another kind, other joints, or a group that nobody recorded."""
    path = write(form, made(), tmp_path / 'out')
    problems = []
    try:
        for recording in open_source(SourceSpec(path), Wanted(('wrist',), (group,))):
            readings, problems = read_checked(recording, Limits())
    except ValueError as error:
        problems = [error]
    if form == 'bag':
        assert said in ' '.join(map(str, problems))
    elif group.kind == 'joint_velocity':  # whose columns are found by their names
        np.testing.assert_array_equal(readings[0].episode.actions['right_arm'],
                                      made().episode.actions['right_arm'][:, ::-1])
    else:
        assert problems


def test_a_dataset_of_two_arms_becomes_bags_and_a_dataset_again(tmp_path, capsys):
    """By the command, which carries states and every group over."""
    root = write_aloha(tmp_path / 'set')
    source = SourceSpec(root)
    reading = open_source(source, Wanted(CAMERAS, GROUPS, STATES))[0].read()[0]
    write('bag', reading, tmp_path / 'bags')
    assert main(['convert', str(tmp_path / 'bags'), str(tmp_path / 'again'), '--to',
                 'lerobot']) == 0
    assert 'not carried over' not in capsys.readouterr().out
    info = json.loads((tmp_path / 'again' / 'meta' / 'info.json').read_text())
    assert info['features']['observation.state'] == {
        'dtype': 'float32', 'shape': [14], 'names': [f'state.{n}' for n in range(1, 15)]}
    assert info['features']['action']['names'] == [
        *(f'left_arm.{name}' for name in LEFT), *(f'right_arm.{name}' for name in RIGHT)]
    statistics = json.loads((tmp_path / 'again' / 'meta' / 'stats.json').read_text())
    np.testing.assert_allclose(statistics['observation.state']['max'],
                               reading.episode.states['state'].max(0), rtol=1e-6)
    assert_equal(read(tmp_path / 'again'), reading)
    assert main(['validate', str(tmp_path / 'again')]) == 0
    assert main(['inspect', str(tmp_path / 'bags')]) == 0
    assert 'left_arm left_waist [rad]' in capsys.readouterr().out


def test_episodes_of_two_bodies_are_not_mixed_in_one_dataset(tmp_path):
    """One table has one width; the second is named and left out."""
    converter = ToLeRobot(tmp_path / 'out')
    converter.append(made())
    with pytest.raises(ValueError, match='are others than those of the first episode'):
        converter.append(made(GROUPS, STATES, 'two'))
    converter.append(made(name='three'))
    converter.close()
    assert len(open_source(SourceSpec(tmp_path / 'out'),
                           describe(SourceSpec(tmp_path / 'out')))) == 2


def test_a_bag_of_deltas_and_a_gripper_says_of_itself_what_it_always_did(tmp_path):
    """Its info has no word that an earlier version does not know."""
    from ros2_lstm_policy.data.rosbag.format import BagLayout, write_info
    from ros2_lstm_policy.data.rosbag.index import first_info
    info = first_info(write_bag(tmp_path / 'bag'), BagLayout())
    assert info.body is None
    assert 'body' not in write_info(info)
    assert describe(SourceSpec(tmp_path / 'bag')) is None


@pytest.mark.parametrize('form', ['lerobot', 'bag'])
def test_fewer_cameras_of_what_describes_itself_leave_its_streams(tmp_path, capsys, form):
    """Naming a camera does not make two arms one; the picture shows every stream."""
    path = write(form, made(GROUPS, STATES), tmp_path / 'out')
    look = tmp_path / 'look.png'
    assert main(['inspect', str(path), '--cameras', 'wrist', '--png', str(look)]) == 0
    assert 'right_arm right_waist [rad]' in capsys.readouterr().out
    assert look.stat().st_size > 10_000


@pytest.mark.parametrize('said', [3, [3], [{'name': 'arm'}], [{'name': 'arm', 'kind': 'x',
                                                              'size': 1}]])
def test_a_description_beside_a_dataset_that_is_none_is_named(tmp_path, capsys, said):
    """One line with the file; never a traceback, never a guess."""
    path = write('lerobot', made(GROUPS, STATES), tmp_path / 'out')
    sidecar = path / 'meta' / 'ros2_lstm_policy.json'
    content = json.loads(sidecar.read_text())
    content['0']['actions'] = said
    sidecar.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'ros2_lstm_policy.json: \[damaged\].*actions'):
        open_source(SourceSpec(path), Wanted(('wrist',), GROUPS, STATES))
    assert main(['inspect', str(path)]) == 2
    assert 'its streams: actions' in capsys.readouterr().err


@pytest.mark.parametrize('body', [3, {}, {'cameras': ['wrist'], 'actions': [{'name': 'arm'}]},
                                  {'cameras': ['wrist'], 'states': [{'name': 'a', 'size': 1}]}])
def test_a_bag_that_describes_itself_wrongly_is_named(tmp_path, body):
    """Its info is not what the recorder writes."""
    from data_recordings import info, START_NS
    from ros2_lstm_policy import config
    from ros2_lstm_policy.data.rosbag import BagFile
    file = BagFile(tmp_path / 'bag')
    file.add_topic('/episode/info', 'std_msgs/msg/String')
    text = config.dump({**config.plain(info('bag')), 'body': body})
    file.write('/episode/info', START_NS, file.serialise('std_msgs/msg/String', data=text))
    (recording,) = open_source(SourceSpec(file.close()), Wanted(('wrist',), GROUPS))
    _, (problem,) = read_checked(recording, Limits())
    assert problem.rule == 'episode-info'
    assert 'body' in problem.message

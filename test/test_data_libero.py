"""HDF5 demonstrations of LIBERO, of those who wrote them anew, and what only looks like them."""

import json

from data_recordings import smooth_image, WORDS, write_libero
import h5py
import numpy as np
import pytest
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.libero_hdf5 import LiberoLayout
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.manifest import ActionGroup, ONE_ARM, StateSpec

STATIC = 'data/demo_0/obs/agentview_rgb'


def read(path, **layout):
    """Return the readings, and (rule, episode) of every problem that breaks one."""
    readings, problems = [], []
    for recording in open_source(SourceSpec(path, libero=LiberoLayout(**layout))):
        good, found = read_checked(recording, Limits())
        readings += good
        problems += [(problem.rule, problem.episode) for problem in found if problem.fatal]
    return readings, problems


def edited(path, change):
    """Write two demonstrations and change the file."""
    write_libero(path)
    with h5py.File(path, 'r+') as file:
        change(file)
    return path


def replace(key, values):
    """Return a change that puts other values into a dataset."""
    def change(file):
        old = file[key][...]
        del file[key]
        file[key] = values(old)
    return change


@pytest.mark.parametrize(('key', 'values', 'rule'), [
    (STATIC, lambda old: np.concatenate([old[:1], old]), 'lengths'),
    (STATIC, lambda old: old[:-1], 'lengths'),
    ('data/demo_0/dones', lambda old: old[:-1], 'lengths'),
    (STATIC, lambda old: old.transpose(0, 3, 1, 2), 'damaged'),
    (STATIC, lambda old: old / np.float32(255), 'damaged'),
    (STATIC, lambda old: old[0], 'damaged'),
    ('data/demo_0/actions', lambda old: old[:, :6], 'damaged'),
    ('data/demo_0/actions', lambda old: old.astype('S8'), 'damaged'),
    ('data/demo_0/actions', lambda old: np.where(np.arange(7) == 2, np.nan, old), 'nan'),
    ('data/demo_0/actions', lambda old: old[:0], 'empty')])
def test_a_stream_of_another_length_or_type_leaves_its_demonstration_out(tmp_path, key, values,
                                                                         rule):
    """One image more than actions shifts all of them; floats and channels first are no images."""
    path = edited(tmp_path / 'milk_demo.hdf5', replace(key, values))
    readings, problems = read(path)
    assert problems[0] == (rule, 'milk_demo/demo_0')
    assert [reading.episode.name for reading in readings] == ['milk_demo/demo_1']


def test_a_number_of_samples_that_did_not_come_is_named(tmp_path):
    """The demonstration says how many steps it has."""
    path = edited(tmp_path / 'milk_demo.hdf5', lambda file: file['data/demo_1'].attrs.update(
        num_samples=12))
    assert read(path)[1] == [('counts', 'milk_demo/demo_1')]


def test_a_broken_file_leaves_the_others(tmp_path, capsys):
    """A download that was cut short, an empty file, one of another format."""
    write_libero(tmp_path / 'a_demo.hdf5')
    (tmp_path / 'b_demo.hdf5').write_bytes(b'')
    with h5py.File(tmp_path / 'c_demo.h5', 'w') as file:
        file['action'], file['observations/qpos'] = np.zeros((5, 14)), np.zeros((5, 14))
    readings, problems = read(tmp_path)
    assert [reading.episode.name for reading in readings] == ['a_demo/demo_0', 'a_demo/demo_1']
    assert problems == [('damaged', ''), ('no-dataset', '')]
    assert main(['validate', str(tmp_path)]) == 1
    assert '2 good, 2 broken of 4 recordings' in capsys.readouterr().out
    assert main(['validate', str(tmp_path / 'c_demo.h5')]) == 2
    assert 'an episode of ALOHA' in capsys.readouterr().err


def without_attributes(file):
    """Remove them, as the usual script that renders the demonstrations anew does."""
    for name in list(file['data'].attrs):
        del file['data'].attrs[name]


@pytest.mark.parametrize(('name', 'words'), [
    ('pick_up_the_milk_demo', 'pick up the milk'),
    ('KITCHEN_SCENE10_close_the_top_drawer_demo', 'close the top drawer'),
    ('LIVING_ROOM_SCENE2_pick_up_the_butter_demo', 'pick up the butter')])
def test_a_file_without_attributes_has_the_words_of_its_name(tmp_path, name, words, capsys):
    """LIBERO names its files by the task; a note says that the words come from there."""
    path = edited(tmp_path / f'{name}.hdf5', without_attributes)
    readings, problems = read(path)
    assert problems == []
    assert {reading.episode.instruction for reading in readings} == {words}
    assert main(['validate', str(path)]) == 0
    assert capsys.readouterr().out.count('the words are those of the name') == 1


@pytest.mark.parametrize('said', [{'language_instruction': None}, {}, {'language_instruction': 3}])
def test_words_that_are_no_text_can_be_given(tmp_path, said):
    """The attribute is there and says nothing; a key says it instead."""
    path = edited(tmp_path / 'milk_demo.hdf5', lambda file: file['data'].attrs.update(
        problem_info=json.dumps(said)))
    with pytest.raises(RecordingError, match=r'expected a text, .*libero\.instruction'):
        read(path)
    readings, _ = read(path, instruction='pick up the milk')
    assert readings[0].episode.instruction == 'pick up the milk'


def test_a_file_whose_name_says_nothing_needs_words(tmp_path):
    """Words are not made up of any name."""
    path = edited(tmp_path / 'merged.hdf5', without_attributes)
    with pytest.raises(RecordingError, match=r'libero\.instruction'):
        read(path)


def write_robomimic(path):
    """Write demonstrations with robomimic's names and upright images."""
    def change(file):
        without_attributes(file)
        for key, name in (('agentview_rgb', 'agentview_image'),
                          ('eye_in_hand_rgb', 'robot0_eye_in_hand_image')):
            for demo in file['data'].values():
                demo[f'obs/{name}'] = demo[f'obs/{key}'][...][:, ::-1]
                del demo[f'obs/{key}']
    return edited(path, change)


def test_robomimic_demonstrations_are_read_by_a_layout(tmp_path):
    """Other names, upright images, no words: the first try says what to set."""
    path = write_robomimic(tmp_path / 'lift.hdf5')
    with pytest.raises(RecordingError, match=r'libero\.instruction'):
        read(path)
    recording, _ = open_source(SourceSpec(path, libero=LiberoLayout(instruction='lift')))
    with pytest.raises(RecordingError, match='agentview_image.*libero.bottom_row_first=false'):
        recording.read()
    readings, problems = read(path, instruction='lift it', bottom_row_first=False, cameras={
        'static': 'agentview_image', 'hand': 'robot0_eye_in_hand_image'})
    assert problems == []
    np.testing.assert_array_equal(readings[0].episode.frames['hand'][4], smooth_image(4, 'hand'))


def controlled(controller, **kwargs):
    """Return a change that says which controller the simulator had."""
    return lambda file: file['data'].attrs.update(env_args=json.dumps(
        {'env_kwargs': {'control_freq': 20, 'controller_configs': controller, **kwargs}}))


@pytest.mark.parametrize('controller', [
    {'type': 'JOINT_POSITION'}, {'type': 'OSC_POSE', 'control_delta': False},
    {'type': 'OSC_POSITION'}, {'type': 'JOINT_VELOCITY'},
    {'type': 'BASIC', 'body_parts': {'right': {'type': 'OSC_POSE', 'input_type': 'absolute'}}}])
def test_another_controller_than_displacements_is_refused(tmp_path, controller):
    """The file says that its seven values are joints or poses."""
    path = edited(tmp_path / 'milk_demo.hdf5', controlled(controller))
    with pytest.raises(RecordingError, match=r'action-meaning.*its actions are none'):
        read(path)


def test_the_controller_says_what_an_action_of_one_means(tmp_path):
    """Not every simulator was set up with LIBERO's 0.05 m and 0.5 rad."""
    path = edited(tmp_path / 'milk_demo.hdf5', controlled(
        {'type': 'OSC_POSE', 'output_max': [0.1] * 3 + [0.2] * 3}))
    readings, _ = read(path)
    np.testing.assert_allclose(readings[0].episode.actions['arm'][0, 0], -0.1)


@pytest.mark.parametrize('kwargs', [
    {'control_freq': None}, {'control_freq': 0}, {'control_freq': float('nan')},
    {'control_freq': '20'}, {'controller_configs': 'OSC_POSE'}, {'controller_configs': {'kp': 1}},
    {'controller_configs': {'type': 'OSC_POSE', 'output_max': [1, 2]}},
    {'controller_configs': {'type': 'OSC_POSE', 'output_max': [None] * 6}}])
def test_a_value_of_another_type_in_an_attribute_is_named(tmp_path, kwargs):
    """A rate of null, a controller that is a text."""
    path = edited(tmp_path / 'milk_demo.hdf5', controlled({}, **kwargs))
    with pytest.raises(RecordingError, match=r'milk_demo.hdf5: \[damaged\] .*expected .*found'):
        read(path)


@pytest.mark.parametrize('kind', ['link', 'storage', 'virtual', 'group'])
def test_numbers_that_lie_in_another_file_are_refused(tmp_path, kind):
    """They are zeros, without an error, where that file is not there; nor would the cache know."""
    other = tmp_path / 'elsewhere.h5'
    with h5py.File(other, 'w') as file:
        file['images'] = np.zeros((9, 24, 32, 3), np.uint8)

    def change(file):
        del file[STATIC]
        if kind == 'link':
            file[STATIC] = h5py.ExternalLink(str(other), 'images')
        elif kind == 'group':
            file.create_group(STATIC)
        elif kind == 'storage':
            file.create_dataset(STATIC, (9, 24, 32, 3), np.uint8,
                                external=[(str(tmp_path / 'raw'), 0, 9 * 24 * 32 * 3)])
        else:
            layout = h5py.VirtualLayout((9, 24, 32, 3), np.uint8)
            layout[:] = h5py.VirtualSource(str(other), 'images', (9, 24, 32, 3))
            file.create_virtual_dataset(STATIC, layout)
    path = edited(tmp_path / 'demos' / 'milk_demo.hdf5', change)
    assert read(path)[1] == [('damaged', 'milk_demo/demo_0')]


def test_the_words_of_a_file_are_those_it_says(tmp_path):
    """Also where LIBERO kept them as a list of letters, in quotes."""
    path = edited(tmp_path / 'milk_demo.hdf5', lambda file: file['data'].attrs.update(
        problem_info=json.dumps({'language_instruction': list(f'"{WORDS}"')})))
    assert read(path)[0][0].episode.instruction == WORDS


def test_states_are_read_by_the_name_of_their_data_set_or_the_one_that_is_said(tmp_path):
    """What a manifest calls joints is joint_states here; another size is another robot."""
    joints = np.arange(14, dtype=np.float64).reshape(-1, 7)[np.zeros(12, int)]

    def add(file):
        for demo in file['data'].values():
            demo['obs/joint_states'] = joints[:len(demo['actions'])]
    path = edited(tmp_path / 'milk_demo.hdf5', add)

    def first(size, **layout):
        wanted = Wanted(states=(StateSpec('joints', size),))
        recording, *_ = open_source(SourceSpec(path, libero=LiberoLayout(**layout)), wanted)
        return read_checked(recording, Limits())
    (reading,), _ = first(7, states={'joints': 'joint_states'})
    np.testing.assert_array_equal(reading.episode.states['joints'],
                                  joints[:len(reading.episode)].astype(np.float32))
    assert 'joint_states' not in reading.others
    for size, layout, rule, said in (
            (6, {'states': {'joints': 'joint_states'}}, 'state-size', '6'),
            (7, {}, 'missing-topic', 'libero.states.joints')):
        readings, (problem,) = first(size, **layout)
        assert not readings and problem.rule == rule and said in problem.message


def test_other_groups_than_one_arm_s_are_refused(tmp_path):
    """The format holds deltas; a policy of joints would be trained on something else."""
    path = edited(tmp_path / 'milk_demo.hdf5', lambda file: None)
    wanted = Wanted(actions=(ActionGroup('arm', 'joint_position', 6), *ONE_ARM[1:]))
    with pytest.raises(RecordingError, match='arm: joint_position'):
        open_source(SourceSpec(path), wanted)

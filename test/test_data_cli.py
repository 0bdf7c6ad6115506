"""The command `dataset`: its tables, its files and its exit statuses."""

import json
import os
import resource
import subprocess
import sys

from data_recordings import (rewrite_info, write_bag, write_calvin, write_lerobot_v21,
                             write_libero)
import h5py
import numpy as np
import pytest
from ros2_lstm_policy.config import parse
from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.data import commands
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.rosbag import read_episodes
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.manifest import ActionGroup, ONE_ARM
import yaml


@pytest.fixture
def bags(tmp_path):
    """Two good bags, of which one failed, and a broken one."""
    write_bag(tmp_path / 'bags' / 'good', steps=20, words='open the drawer')
    write_bag(tmp_path / 'bags' / 'failed', steps=14, success=False)
    write_bag(tmp_path / 'bags' / 'wild', arm=lambda step: np.full(6, 4.0))
    return tmp_path / 'bags'


def episodes_of(path):
    """Read every episode at a path."""
    return [reading.episode for recording in open_source(SourceSpec(path))
            for reading in recording.read()]


def test_inspect_shows_episodes_rates_actions_and_instructions(bags, tmp_path, capsys):
    """The table counts what is good, names what is broken, and is drawn."""
    look = tmp_path / 'look.png'
    assert main(['inspect', str(bags), '--all', '--png', str(look), 'kind=bag']) == 1
    said = capsys.readouterr().out
    assert '2 episodes, 34 steps, 0.1 min; 1 broken' in said
    assert 'control rate: 10.0 Hz; hand camera: 10.0 Hz; static camera: 10.0 Hz' in said
    assert '1 failure, 1 success' in said
    assert '     1  open the drawer' in said
    assert '[action-range]' in said
    assert (tmp_path / 'look.png').read_bytes().startswith(b'\x89PNG')


def test_statistics_are_what_a_manifest_takes(bags, capsys):
    """Its YAML are the groups of one; the broken bag's metres are not in it."""
    assert main(['stats', str(bags)]) == 0
    values = parse_yaml(capsys.readouterr().out)
    arm, gripper = (parse(ActionGroup, group, 'stats') for group in values['actions'])
    assert max(arm.normalisation.scale) < 0.01
    assert max(arm.largest) == pytest.approx(0.006, rel=0.01)
    assert gripper.binary


def test_validate_names_what_is_broken_by_its_exit_status(bags, capsys):
    """0 for good recordings, 1 for broken ones, 2 for none."""
    assert main(['validate', str(bags)]) == 1
    said = capsys.readouterr().out
    assert 'BROKEN  ' in said
    assert '2 good, 1 broken of 3 recordings' in said
    assert main(['validate', str(bags / 'good')]) == 0
    assert main(['validate', str(bags / 'nothing')]) == 2
    assert 'nothing is there' in capsys.readouterr().err


def test_validate_by_several_processes_says_the_same(bags, capsys, monkeypatch):
    """In the same order."""
    assert main(['validate', str(bags)]) == 1
    alone = capsys.readouterr().out
    monkeypatch.setattr(commands, '_A_PROCESS', 1)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(2))
    assert main(['validate', str(bags)]) == 1
    assert capsys.readouterr().out == alone


def test_validate_decodes_every_image(tmp_path, capsys):
    """A torn JPEG in the middle of a bag is found, unless images are skipped."""
    path = write_bag(tmp_path / 'one', jpeg=True)
    file = path / 'one.mcap'
    data = bytearray(file.read_bytes())
    end = data.index(b'\xff\xd9', len(data) // 2)
    data[end:end + 2] = bytes(2)  # as if the rest of the image had not come
    file.write_bytes(bytes(data))
    assert main(['validate', str(path)]) == 1
    assert 'the JPEG is cut short' in capsys.readouterr().out
    assert main(['validate', str(path), '--skip-images']) == 0


def test_validate_holds_recordings_against_a_checkpoint(bags, tmp_path, capsys):
    """A policy for another rate cannot train on them."""
    from data_recordings import manifest
    from ros2_lstm_policy.config import dump
    (tmp_path / 'action.yaml').write_text(dump(manifest()))
    assert main(['validate', str(bags / 'good'), '--manifest',
                 str(tmp_path / 'action.yaml')]) == 0
    values = parse_yaml(dump(manifest())) | {'control_period_s': 0.05}
    values['actions'][0]['frame'] = 'tool'
    (tmp_path / 'action.yaml').write_text(yaml.safe_dump(values))
    assert main(['validate', str(bags / 'good'), '--manifest',
                 str(tmp_path / 'action.yaml')]) == 1
    said = capsys.readouterr().out
    assert '[period]' in said
    assert '[frame]' in said


def test_bags_to_lerobot_and_back_keep_everything_but_the_pixels(bags, tmp_path):
    """Stamps, actions, words, labels and names are equal; the broken bag is left out."""
    assert main(['convert', str(bags), str(tmp_path / 'lerobot'), '--to', 'lerobot']) == 1
    assert main(['convert', str(tmp_path / 'lerobot'), str(tmp_path / 'back'),
                 '--to', 'bag']) == 0
    found = {episode.name: episode for episode in episodes_of(tmp_path / 'back')}
    assert sorted(found) == ['failed', 'good']
    for expected in (*read_episodes(bags / 'good'), *read_episodes(bags / 'failed')):
        episode = found[expected.name]
        assert (episode.instruction, episode.success) == (expected.instruction, expected.success)
        np.testing.assert_array_equal(episode.stamps_ns, expected.stamps_ns)
        np.testing.assert_array_equal(episode.actions['arm'], expected.actions['arm'])
        np.testing.assert_array_equal(episode.actions['gripper'], expected.actions['gripper'])
        difference = episode.frames['hand'][9].astype(int) - expected.frames['hand'][9]
        assert np.abs(difference).mean() < 6


@pytest.mark.parametrize('write', [write_calvin, write_libero, write_lerobot_v21])
def test_every_source_becomes_bags(tmp_path, write):
    """The same steps, with stamps that are never zero."""
    source = tmp_path / ('demos.hdf5' if write is write_libero else 'source')
    write(source)
    assert main(['convert', str(source), str(tmp_path / 'bags'), '--to', 'bag', '--jpeg']) == 0
    for expected, found in zip(episodes_of(source), episodes_of(tmp_path / 'bags'), strict=True):
        np.testing.assert_allclose(found.actions['arm'], expected.actions['arm'], atol=1e-7)
        np.testing.assert_array_equal(found.actions['gripper'], expected.actions['gripper'])
        np.testing.assert_array_equal(np.diff(found.stamps_ns), np.diff(expected.stamps_ns))
        assert found.stamps_ns[0] > 0
        assert found.instruction == expected.instruction


def test_nothing_is_overwritten(bags, tmp_path, capsys):
    """An output that exists is refused before anything is read."""
    (tmp_path / 'there').mkdir()
    for kind in ('bag', 'lerobot'):
        assert main(['convert', str(bags / 'good'), str(tmp_path / 'there'), '--to', kind]) == 2
    assert 'another folder' in capsys.readouterr().err


def test_a_key_that_does_not_exist_is_named(bags, capsys):
    """With what was probably meant."""
    assert main(['inspect', str(bags), 'bag.gripper=1']) == 2
    assert "did you mean 'gripper_open'" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    """`--help` answers at once, on a robot without the learning libraries."""
    code = ('import sys; from ros2_lstm_policy.data.dataset import main\n'
            'try: main(["inspect", "--help"])\n'
            'except SystemExit: pass\n'
            'heavy = {"torch", "numpy", "rosbags", "cv2"} & set(sys.modules)\n'
            'assert not heavy, heavy')
    subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)


@pytest.mark.parametrize(('kind', 'most'), [('lerobot', 1000), ('bag', 60_000)])
def test_a_disk_that_fills_up_is_named_and_leaves_nothing_half_written(tmp_path, capsys, kind,
                                                                       most):
    """The operating system's own limit on the size of a file stands for a full disk."""
    write_bag(tmp_path / 'bags' / 'a_small', steps=3)
    write_bag(tmp_path / 'bags' / 'large', steps=200)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        assert main(['convert', str(tmp_path / 'bags'), str(tmp_path / 'out'), '--to', kind]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert f'{tmp_path / "out"}: cannot be written' in said
    assert 'make room' in said
    assert sorted(path.name for path in tmp_path.iterdir()) == (
        ['bags', 'out'] if kind == 'bag' else ['bags'])
    assert kind == 'lerobot' or [e.name for e in episodes_of(tmp_path / 'out')] == ['a_small']


def test_an_image_that_cannot_be_decoded_leaves_its_episode_out_of_a_conversion(tmp_path, capsys):
    """Named, and the others are written."""
    write_bag(tmp_path / 'bags' / 'whole')
    path = write_bag(tmp_path / 'bags' / 'torn', jpeg=True)
    data = bytearray((path / 'torn.mcap').read_bytes())
    end = data.index(b'\xff\xd9', len(data) // 2)
    data[end:end + 2] = bytes(2)
    (path / 'torn.mcap').write_bytes(bytes(data))
    for kind in ('lerobot', 'bag'):
        out = tmp_path / kind
        assert main(['convert', str(tmp_path / 'bags'), str(out), '--to', kind]) == 1
        assert 'the JPEG is cut short' in capsys.readouterr().out
        assert [episode.name for episode in episodes_of(out)] == ['whole']


def test_episodes_of_one_name_are_all_converted(tmp_path):
    """Two sources number theirs from one; a bag's folder is its name."""
    for folder in ('monday', 'tuesday'):
        write_bag(tmp_path / 'bags' / folder / 'one')
    assert main(['convert', str(tmp_path / 'bags'), str(tmp_path / 'out'), '--to', 'bag']) == 0
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['one', 'one-2']


@pytest.mark.parametrize(('other', 'rule'), [('rate', 'period'), ('size', 'image-size')])
def test_what_does_not_fit_into_one_lerobot_dataset_is_left_out(tmp_path, capsys, other, rule):
    """It has one rate, and one size of each camera."""
    write_libero(tmp_path / 'demos' / 'a_demo.hdf5', 1)
    write_libero(tmp_path / 'demos' / 'b_demo.hdf5', 1)
    with h5py.File(tmp_path / 'demos' / 'b_demo.hdf5', 'r+') as file:
        if other == 'rate':
            file['data'].attrs['env_args'] = '{"env_kwargs": {"control_freq": 10}}'
        else:
            images = file['data/demo_0/obs/eye_in_hand_rgb'][:, :16, :16]
            del file['data/demo_0/obs/eye_in_hand_rgb']
            file['data/demo_0/obs/eye_in_hand_rgb'] = images
    out = tmp_path / 'out'
    assert main(['convert', str(tmp_path / 'demos'), str(out), '--to', 'lerobot']) == 1
    assert f'[{rule}]' in capsys.readouterr().out
    assert [episode.name for episode in episodes_of(out)] == ['a_demo/demo_0']


@pytest.mark.parametrize('words', [
    ['--cameras', 'static', 'kind=bag'], ['--cameras', 'static', '--skip-images', 'kind=bag'],
    ['--cameras=static', 'kind=bag'], ['kind=bag', '--cameras', 'static'],
    ['--cameras', 'static,hand'], ['--cameras', 'hand', 'static', 'kind=bag']])
@pytest.mark.parametrize('path_last', [False, True])
def test_cameras_take_nothing_else_with_them(bags, words, path_last):
    """Neither the path nor a key=value behind them is the name of a camera."""
    path = [str(bags / 'good')]
    assert main(['validate', *([*words, *path] if path_last and 'kind=bag' not in words
                               else [*path, *words])]) == 0


@pytest.mark.parametrize('words', [['--cameras', '/top'], ['--cameras', 'static,static'],
                                   ['--period', 'nan'], ['--period', '0'], ['--period', 'x']])
def test_an_option_of_another_value_is_named(bags, capsys, words):
    """With what was wanted, before anything is read."""
    with pytest.raises(SystemExit) as ended:
        main(['validate', str(bags / 'good'), *words])
    assert ended.value.code == 2
    assert f'{words[0]}: expected' in capsys.readouterr().err


def test_a_conversion_says_what_it_does_not_carry_over(tmp_path, capsys):
    """Joint states, poses, further features: silence would be taken for a whole copy."""
    write_libero(tmp_path / 'milk_demo.hdf5', 1)
    with h5py.File(tmp_path / 'milk_demo.hdf5', 'r+') as file:
        file['data/demo_0/obs/joint_states'] = np.zeros((9, 7))
        file['data/demo_0/states'] = np.zeros((9, 20))
    assert main(['convert', str(tmp_path / 'milk_demo.hdf5'), str(tmp_path / 'a'),
                 '--to', 'lerobot']) == 0
    assert 'no place for it: states, joint_states\n' in capsys.readouterr().out
    root = rewrite_info(write_lerobot_v21(tmp_path / 'set', 1), lambda info: info[
        'features'].update({'observation.state': {'dtype': 'float32', 'shape': [8]}}))
    assert main(['convert', str(root), str(tmp_path / 'b'), '--to', 'bag']) == 0
    assert 'no place for it: observation.state\n' in capsys.readouterr().out
    source = write_calvin(tmp_path / 'calvin')
    np.savez(source / 'episode_0000100.npz', **dict(np.load(source / 'episode_0000100.npz')),
             robot_obs=np.zeros(15))
    assert main(['convert', str(source), str(tmp_path / 'c'), '--to', 'bag', '--cameras',
                 'static']) == 0
    assert 'no place for it: rgb_gripper, robot_obs\n' in capsys.readouterr().out
    bag = write_foreign_bag(tmp_path / 'bag', {'/joint_states': 3})
    assert main(['convert', str(bag), str(tmp_path / 'd'), '--to', 'lerobot']) == 0
    assert 'no place for it: /joint_states\n' in capsys.readouterr().out


def write_foreign_bag(path, further):
    """Copy a good bag, with empty joint states on further topics."""
    from rosbags.rosbag2 import Reader, StoragePlugin, Writer
    from rosbags.typesys import get_typestore, Stores
    types, source = get_typestore(Stores.ROS2_JAZZY), write_bag(path.with_name('whole'), steps=6)
    stamp = types.types['builtin_interfaces/msg/Time'](sec=1, nanosec=0)
    joints = types.types['sensor_msgs/msg/JointState'](
        header=types.types['std_msgs/msg/Header'](stamp=stamp, frame_id=''), name=[],
        position=np.zeros(0), velocity=np.zeros(0), effort=np.zeros(0))
    with Reader(source) as reader, Writer(path, version=9,
                                          storage_plugin=StoragePlugin.MCAP) as writer:
        new = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=types)
               for c in reader.connections}
        for connection, stamp_ns, raw in reader.messages():
            writer.write(new[connection.topic], stamp_ns, raw)
        for topic, count in further.items():
            added = writer.add_connection(topic, 'sensor_msgs/msg/JointState', typestore=types)
            for number in range(count):
                writer.write(added, reader.start_time + number, types.serialize_cdr(
                    joints, 'sensor_msgs/msg/JointState'))
    return path


@pytest.mark.parametrize('facts', [
    {'control_period_s': 'nan'}, {'control_period_s': None}, {'control_period_s': 0},
    {'control_period_s': 'soon'}, {'frame': 'camera'}, {'success': 'yes'}])
def test_facts_beside_a_dataset_are_looked_at_before_they_are_used(tmp_path, capsys, facts):
    """A bag that is written from them could not be read again."""
    root = write_lerobot_v21(tmp_path / 'set', 2)
    (root / 'meta' / 'ros2_lstm_policy.json').write_text(json.dumps({'0': facts, '1': {}}))
    assert main(['convert', str(root), str(tmp_path / 'bags'), '--to', 'bag']) == 1
    assert '[damaged]' in capsys.readouterr().out
    assert [episode.name for episode in episodes_of(tmp_path / 'bags')] == ['set-000001']


@pytest.mark.parametrize('facts', [{'name': '../outside'}, {'name': '.hidden'}, {'name': '/'},
                                   {'name': 3}, {'name': None}])
def test_names_beside_a_dataset_never_lead_out_of_the_output(tmp_path, facts):
    """A name becomes a folder's, whatever is in it."""
    root = write_lerobot_v21(tmp_path / 'set', 1)
    (root / 'meta' / 'ros2_lstm_policy.json').write_text(json.dumps({'0': facts}))
    assert main(['convert', str(root), str(tmp_path / 'out' / 'bags'), '--to', 'bag']) == 0
    assert len(episodes_of(tmp_path / 'out' / 'bags')) == 1
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['bags']


def test_a_policys_episode_without_its_fingerprint_is_named(tmp_path, capsys):
    """Its bag would be refused; the others are written."""
    root = write_lerobot_v21(tmp_path / 'set', 2)
    (root / 'meta' / 'ros2_lstm_policy.json').write_text(json.dumps(
        {'0': {'actor': 'policy'}, '1': {}}))
    assert main(['convert', str(root), str(tmp_path / 'bags'), '--to', 'bag']) == 1
    assert '[episode-info]' in capsys.readouterr().out
    assert len(episodes_of(tmp_path / 'bags')) == 1


def test_a_rate_that_lerobot_cannot_say_is_said_or_refused(tmp_path, capsys):
    """It counts whole frames a second."""
    near = write_lerobot_v21(tmp_path / 'set', 1)
    (near / 'meta' / 'ros2_lstm_policy.json').write_text(json.dumps(
        {'0': {'control_period_s': '0.15'}}))
    assert main(['convert', str(near), str(tmp_path / 'a'), '--to', 'lerobot']) == 0
    assert '7 frames a second are 5% off' in capsys.readouterr().out
    (near / 'meta' / 'ros2_lstm_policy.json').write_text(json.dumps(
        {'0': {'control_period_s': '0.4'}}))
    assert main(['convert', str(near), str(tmp_path / 'b'), '--to', 'lerobot']) == 2
    assert 'no good episode' in capsys.readouterr().err


def test_inspect_and_validate_say_which_topics_are_not_read(tmp_path, capsys):
    """A robot's joints and poses are recorded and not needed; nobody is to find that out late."""
    from data_bag_files import message, messages_of, store
    messages = messages_of(write_bag(tmp_path / 'whole'))
    extra = message('/battery', 'std_msgs/msg/Bool', messages[-1].log_ns, data=True)
    path = store(tmp_path / 'one', [*messages, extra])
    for command in ('inspect', 'validate'):
        assert main([command, str(path)]) == 0
        assert 'not read, since an episode has no place for it: /battery' in (
            capsys.readouterr().out)
        assert main([command, str(tmp_path / 'whole')]) == 0
        assert 'not read' not in capsys.readouterr().out


def test_the_picture_shows_some_of_every_instruction():
    """The first three episodes may all be of one."""
    from ros2_lstm_policy.data.summary import Drawn, drawn_episodes, EpisodeSummary
    drawn, episodes = Drawn(), []
    for number, words in enumerate(['pick'] * 5 + ['place', 'push', 'pick', 'pull']):
        images = {'static': np.zeros((4, 4, 3), np.uint8)} if drawn.wants(words) else {}
        episodes.append(EpisodeSummary(f'{number}', words, 0.1, None, 2, ONE_ARM, {}, {}, {}, '',
                                       images))
    assert [e.instruction for e in drawn_episodes(episodes)] == ['pick', 'place', 'push', 'pull']
    assert [e.name for e in drawn_episodes(episodes[:5])] == ['0', '1', '2']


def test_a_histogram_never_shows_rounding_as_motion():
    """An axis that rests is one bar, beside axes of its kind that move."""
    from ros2_lstm_policy.data.summary import Column, histogram_bins
    arm = np.zeros((50, 6))
    arm[:, 0] = np.linspace(-0.02, 0.03, 50)
    arm[:, 1:] = 1e-17 * np.random.default_rng(1).standard_normal((50, 5))
    columns = [Column(f'{axis}', arm[:, axis], ('arm', 'm' if axis < 3 else 'rad'))
               for axis in range(6)]
    counts = [np.histogram(column.values, histogram_bins(columns, column))[0]
              for column in columns]
    for axis in (1, 2, 3, 5):
        assert np.count_nonzero(counts[axis]) == 1
    assert counts[0].sum() == 50

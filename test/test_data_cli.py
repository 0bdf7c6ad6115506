"""The command `dataset`: its tables, its files and its exit statuses."""

import os
import resource
import subprocess
import sys

from data_recordings import write_bag, write_calvin, write_lerobot_v21, write_libero
import h5py
import numpy as np
import pytest
from ros2_lstm_policy.config import parse
from ros2_lstm_policy.data import commands
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.rosbag import read_episodes
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.manifest import ArmNormalisation
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
    """Its YAML is an ArmNormalisation; the broken bag's metres are not in it."""
    assert main(['stats', str(bags)]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    arm = parse(ArmNormalisation, values['arm'], 'stats')
    assert max(arm.scale) < 0.01
    assert max(values['max_arm_delta']) == pytest.approx(0.006, rel=0.01)


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
    values = yaml.safe_load(dump(manifest())) | {'control_period_s': 0.05, 'frame': 'tool'}
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
        np.testing.assert_array_equal(episode.arm, expected.arm)
        np.testing.assert_array_equal(episode.gripper_open, expected.gripper_open)
        difference = episode.frames['hand'][9].astype(int) - expected.frames['hand'][9]
        assert np.abs(difference).mean() < 6


@pytest.mark.parametrize('write', [write_calvin, write_libero, write_lerobot_v21])
def test_every_source_becomes_bags(tmp_path, write):
    """The same steps, with stamps that are never zero."""
    source = tmp_path / ('demos.hdf5' if write is write_libero else 'source')
    write(source)
    assert main(['convert', str(source), str(tmp_path / 'bags'), '--to', 'bag', '--jpeg']) == 0
    for expected, found in zip(episodes_of(source), episodes_of(tmp_path / 'bags'), strict=True):
        np.testing.assert_allclose(found.arm, expected.arm, atol=1e-7)
        np.testing.assert_array_equal(found.gripper_open, expected.gripper_open)
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

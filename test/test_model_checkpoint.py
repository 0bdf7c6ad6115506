"""Checkpoint directories: whole or an error that says what is wrong."""

import copy as copy_module
import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.checkpoint import CheckpointError
from ros2_lstm_policy.model.init_checkpoint import main as init_checkpoint
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.types import Observation
from safetensors.torch import load_file, save_file
import torch


def make_policy(width=32):
    """Return a small policy of two cameras."""
    torch.manual_seed(0)
    cameras = tuple(CameraSpec(name, 32, 32, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in ('static', 'hand'))
    manifest = one_arm('tool', 'euler_xyz', 0.05,
                       Normalisation((0.0,) * 6, (0.02,) * 6, 255.0), cameras,
                       threshold=0.4, largest=(0.02,) * 6)
    options = {'width': width, 'layers': 1, 'feed_forward': 32, 'vision_strides': [16]}
    decoder = DecoderConfig(hidden_size=16, num_layers=1, window_size=3, fwd_pred_next_n=2)
    return Policy(PolicyConfig(BackboneConfig('compact', options), decoder), manifest).eval()


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """Return a policy and its checkpoint."""
    policy = make_policy()
    directory = tmp_path_factory.mktemp('saved') / 'policy'
    checkpoint.save(directory, policy, '# A policy of the tests\n')
    return policy, directory


@pytest.fixture
def copy(saved, tmp_path):
    """Return a copy of the checkpoint to spoil."""
    return shutil.copytree(saved[1], tmp_path / 'copy')


def spoil_weights(directory, change):
    """Write the weights again after `change` was made to them."""
    weights = load_file(directory / checkpoint.WEIGHTS)
    change(weights)
    save_file(weights, directory / checkpoint.WEIGHTS)


def test_a_round_trip_is_bit_equal(saved):
    policy, directory = saved
    loaded = checkpoint.load(directory)
    assert loaded.config == policy.config
    assert loaded.manifest == policy.manifest
    assert not loaded.training
    wanted, found = policy.state_dict(), loaded.state_dict()
    assert list(wanted) == list(found)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_a_loaded_policy_acts_bit_equal(saved):
    policy, directory = saved
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    observation = Observation(0, {'static': image, 'hand': image[::-1].copy()})
    one, other = PolicyActor(policy), PolicyActor(checkpoint.load(directory))
    for _ in range(5):
        assert np.array_equal(one.act(observation, 'push it').chunk,
                              other.act(observation, 'push it').chunk)


def test_a_checkpoint_has_no_pickle_and_no_word_encoder(saved):
    _, directory = saved
    names = {path.name for path in directory.iterdir()}
    assert names == {'model.safetensors', 'config.yaml', 'action.yaml', 'README.md'}
    assert (directory / 'model.safetensors').stat().st_size < 15e6
    assert (directory / 'model.safetensors').stat().st_mode & 0o044 == 0o044


def test_every_option_is_written_out(saved):
    text = (saved[1] / 'config.yaml').read_text()
    for word in ('max_text_tokens: 24', 'sha256: 579344', 'history: window', 'film: false'):
        assert word in text


def test_shards_hold_the_same_weights_in_small_files(saved, tmp_path):
    policy, _ = saved
    limit = 2_500_000
    checkpoint.save(tmp_path / 'shards', policy, 'card', max_shard_bytes=limit)
    files = sorted((tmp_path / 'shards').glob('*.safetensors'))
    assert len(files) > 2
    assert all(file.stat().st_size <= limit for file in files)
    wanted, found = policy.state_dict(), checkpoint.load(tmp_path / 'shards').state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_a_tensor_larger_than_a_shard_is_refused(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r'weight: \d+ bytes do not fit'):
        checkpoint.save(tmp_path / 'shards', saved[0], 'card', max_shard_bytes=100_000)
    assert not list(tmp_path.iterdir())


def test_a_missing_shard_is_named(saved, tmp_path):
    checkpoint.save(tmp_path / 'shards', saved[0], 'card', max_shard_bytes=2_500_000)
    next((tmp_path / 'shards').glob('model-00002-of-*')).unlink()
    with pytest.raises(CheckpointError, match='model-00002-of-.* is missing'):
        checkpoint.load(tmp_path / 'shards')


def test_a_broken_index_is_named(saved, tmp_path):
    checkpoint.save(tmp_path / 'shards', saved[0], 'card', max_shard_bytes=2_500_000)
    (tmp_path / 'shards' / checkpoint.INDEX).write_text('{"weight_map": [')
    with pytest.raises(CheckpointError, match='index.json: is no index'):
        checkpoint.load(tmp_path / 'shards')


def test_tied_weights_are_saved_once_and_loaded_into_both(tmp_path):
    def tied():
        policy = make_policy()
        policy.decoder.rnn.bias_ih_l0 = policy.decoder.rnn.bias_hh_l0
        return policy
    checkpoint.save(tmp_path / 'tied', tied(), 'card')
    names = set(load_file(tmp_path / 'tied' / checkpoint.WEIGHTS))
    assert len({'decoder.rnn.bias_ih_l0', 'decoder.rnn.bias_hh_l0'} & names) == 1
    empty = tied()
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
    checkpoint._load_weights(tmp_path / 'tied', empty)
    assert all(torch.equal(a, b) for a, b in zip(empty.parameters(), tied().parameters()))


def test_saving_again_replaces_the_checkpoint(saved, tmp_path):
    directory = tmp_path / 'policy'
    checkpoint.save(directory, make_policy(width=16), 'old')
    (directory / 'stray.txt').write_text('of the old one')
    checkpoint.save(directory, saved[0], 'new')
    assert (directory / 'README.md').read_text() == 'new'
    assert not (directory / 'stray.txt').exists()
    assert [path.name for path in tmp_path.iterdir()] == ['policy']


def test_a_failure_while_saving_leaves_the_previous_checkpoint_whole(copy, monkeypatch):
    before = checkpoint.fingerprint(copy)

    def full_disk(*_):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(checkpoint, 'save_file', full_disk)
    with pytest.raises(OSError, match='No space left'):
        checkpoint.save(copy, make_policy(width=16), 'new')
    assert checkpoint.fingerprint(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ['copy']


def test_the_fingerprint_follows_what_acts_and_not_the_card(copy):
    before = checkpoint.fingerprint(copy)
    (copy / 'README.md').write_text('success: 49/50')
    assert checkpoint.fingerprint(copy) == before
    manifest = (copy / 'action.yaml').read_text()
    (copy / 'action.yaml').write_text(manifest.replace('0.05', '0.06', 1))
    assert checkpoint.fingerprint(copy) != before
    with pytest.raises(CheckpointError, match='is no checkpoint'):
        checkpoint.fingerprint(copy.parent)


def test_an_absent_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r'nowhere/config.yaml is missing: a checkpoint is'):
        checkpoint.load(tmp_path / 'nowhere')


@pytest.mark.parametrize('name', ['config.yaml', 'action.yaml', 'model.safetensors'])
def test_an_absent_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=f'{name} is missing'):
        checkpoint.load(copy)


@pytest.mark.parametrize('keep', [0, 7, 3000, -1])
def test_truncated_weights_are_named_with_their_size(copy, keep):
    path = copy / checkpoint.WEIGHTS
    os.truncate(path, keep % path.stat().st_size)
    with pytest.raises(CheckpointError, match=r'model.safetensors: \d+ bytes are no whole'):
        checkpoint.load(copy)


def test_a_pickle_is_never_opened(copy):
    torch.save({'a': torch.zeros(1)}, copy / checkpoint.WEIGHTS)
    with pytest.raises(CheckpointError, match='no whole safetensors file'):
        checkpoint.load(copy)


def test_missing_and_unexpected_keys_are_named(copy):
    spoil_weights(copy, lambda weights: weights.pop('decoder.gripper.mlp.6.bias'))
    with pytest.raises(CheckpointError, match=r'1 keys are missing: decoder.gripper.mlp.6.bias'):
        checkpoint.load(copy)
    spoil_weights(copy, lambda weights: weights.update(extra=torch.zeros(1)))
    with pytest.raises(CheckpointError, match='1 keys are unexpected: extra'):
        checkpoint.load(copy)


def test_another_shape_is_named_with_both(copy):
    spoil_weights(copy, lambda weights: weights.update(
        {'decoder.gripper.mlp.6.bias': torch.zeros(9)}))
    with pytest.raises(CheckpointError,
                       match=r'decoder.gripper.mlp.6.bias: found shape \(9,\), wanted \(2,\)'):
        checkpoint.load(copy)


def test_weights_of_other_cameras_are_refused(copy):
    manifest = (copy / 'action.yaml').read_text()
    begin, end = manifest.index('- name: hand'), manifest.index('actions:')
    one_camera = manifest[:begin] + manifest[end:]
    (copy / 'action.yaml').write_text(one_camera)
    with pytest.raises(CheckpointError, match='unexpected: backbone.map_positions.hand'):
        checkpoint.load(copy)
    (copy / 'action.yaml').write_text(manifest.replace('height: 32', 'height: 64'))
    with pytest.raises(CheckpointError, match=r'map_positions.*: found shape \(4, 32\), wanted'):
        checkpoint.load(copy)


@pytest.mark.parametrize(('file', 'old', 'new', 'message'), [
    ('config.yaml', 'family: compact', 'family: huge', "unknown family 'huge'"),
    ('config.yaml', 'hidden_size: 16', 'hidden_size: wide', 'hidden_size: expected int'),
    ('config.yaml', 'hidden_size: 16', 'hidden: 16', "unknown key 'hidden'"),
    ('action.yaml', 'frame: tool', 'frame: world', "'base', 'tool'"),
    ('action.yaml', 'frame: tool', 'frame: null', "frame: 'base' or 'tool' must be said"),
    ('action.yaml', 'rotation: euler_xyz', 'rotation: [', 'not valid YAML')])
def test_yaml_that_does_not_fit_is_named_by_file_and_key(copy, file, old, new, message):
    path = copy / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        checkpoint.load(copy)


def test_a_broken_index_names_only_files_of_the_directory(saved, tmp_path):
    checkpoint.save(tmp_path / 'shards', saved[0], 'card', max_shard_bytes=2_500_000)
    index = tmp_path / 'shards' / checkpoint.INDEX
    place = json.loads(index.read_text())
    place['weight_map']['x'] = '../elsewhere.safetensors'
    index.write_text(json.dumps(place))
    with pytest.raises(CheckpointError, match='elsewhere'):
        checkpoint.load(tmp_path / 'shards')


def test_yaml_of_other_bytes_is_named(copy):
    (copy / 'config.yaml').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ConfigError, match='config.yaml: is not valid YAML'):
        checkpoint.load(copy)


def test_init_checkpoint_makes_an_untrained_policy_that_says_so(tmp_path, capsys):
    out = tmp_path / 'untrained'
    arguments = ['--config', 'config/policy_compact.yaml', '--out', str(out)]
    small = ['policy.backbone.options.width=32', 'policy.decoder.hidden_size=8']
    root = os.path.dirname(os.path.dirname(__file__))
    arguments[1] = os.path.join(root, arguments[1])
    assert init_checkpoint([*arguments, *small]) == 0
    assert 'UNTRAINED' in (out / 'README.md').read_text().splitlines()[0]
    assert checkpoint.load(out).backbone.feature_dim == 32
    first = checkpoint.fingerprint(out)
    assert init_checkpoint([*arguments, *small]) == 0
    assert checkpoint.fingerprint(out) == first
    assert init_checkpoint([*arguments, 'policy.decoder.hiden_size=8']) == 2
    assert "did you mean 'hidden_size'" in capsys.readouterr().err


def test_what_could_not_be_loaded_again_is_never_written(saved, tmp_path):
    """
    A window of 8.0 was imported with exit status 0, and nothing could read the checkpoint.

    What was there before stays whole.
    """
    policy, directory = saved
    broken = copy_module.copy(policy)
    decoder = dataclasses.replace(policy.config.decoder, window_size=8.0)
    broken.config = dataclasses.replace(policy.config, decoder=decoder)
    target = tmp_path / 'policy'
    shutil.copytree(directory, target)
    with pytest.raises(CheckpointError, match='policy/config.yaml: decoder: window_size: expected '
                                              'int, found float 8.0; nothing was written'):
        checkpoint.save(target, broken, '# broken\n')
    assert checkpoint.load(target).config == policy.config
    assert [path.name for path in tmp_path.iterdir()] == ['policy']


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_neither_written_nor_loaded(copy, tmp_path, number):
    """Every command of such a policy is NaN, which the robot can only hold on."""
    def spoil(weights):
        weights['decoder.rnn.weight_hh_l0'][0, 0] = number
    spoil_weights(copy, spoil)
    with pytest.raises(CheckpointError, match='decoder.rnn.weight_hh_l0 holds NaN or infinite'):
        checkpoint.load(copy)
    policy = make_policy()
    with torch.no_grad():
        policy.decoder.rnn.weight_hh_l0[0, 0] = number
    with pytest.raises(CheckpointError, match='holds NaN or infinite'):
        checkpoint.save(tmp_path / 'new', policy, '# broken\n')
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(('index', 'said'), [
    ('{"metadata": {', 'is no index of weights'), ('{}', 'is no index of weights'),
    ('{"weight_map": {}}', 'names no file'), ('{"weight_map": []}', 'is no index of weights'),
    ('{"weight_map": {"a": "../other/model.safetensors"}}', 'names of files beside it'),
    ('{"weight_map": {"a": "/etc/passwd"}}', 'names of files beside it'),
    ('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}', 'is missing')])
def test_an_index_that_leads_nowhere_or_elsewhere_is_refused(copy, index, said):
    """The fingerprint covers what lies in the directory; weights from elsewhere would escape."""
    (copy / checkpoint.WEIGHTS).unlink()
    (copy / checkpoint.INDEX).write_text(index)
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(copy)

"""Imported RoboVLMs checkpoints compute what the reference computed; bad ones are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np
import pytest
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.robovlms import cli, files
from ros2_lstm_policy.robovlms.verify import Recording
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.runtime.engine import Seen
from ros2_lstm_policy.transforms import from_labels, normalise
from ros2_lstm_policy.types import Observation
from scipy.spatial.transform import Rotation
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / 'golden'
KOSMOS, PALIGEMMA = GOLDEN / 'robokosmos_tiny.pt', GOLDEN / 'robopaligemma_tiny.pt'
CONFIG = GOLDEN / 'robokosmos_tiny.config.json'
ANSWERS = ['--control-period', '0.0333', '--metres-per-unit', '0.02', '--radians-per-unit',
           '0.05', '--gripper-one', 'open']
CALVIN = [*ANSWERS, '--frame', 'base', '--rotation', 'euler_xyz']
Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs the command on the tiny Kosmos-2 run, with changes."""
    def command(*options: str, weights: Path = KOSMOS, changes: Mapping[str, Any] | None = None,
                backbone: Path = GOLDEN / 'tiny_kosmos2', configuration: Path = CONFIG,
                answers: list[str] = CALVIN) -> int:
        torch.set_num_threads(1)
        values = json.loads(configuration.read_text())
        for key, value in (changes or {}).items():
            *above, last = key.split('.')
            place = values
            for name in above:
                place = place[name]
            place[last] = value
        file = tmp_path / 'run.json'
        file.write_text(json.dumps(values))
        return cli.main([str(weights), str(file), '--backbone', str(backbone),
                         '--out', str(tmp_path / 'out'), *answers, *options])
    return command


@pytest.fixture
def imported(run: Run, tmp_path: Path) -> Policy:
    """Return the tiny Kosmos-2 policy, imported, saved and loaded."""
    assert run() == 0
    return checkpoint.load(tmp_path / 'out')


def verify(name: str, outputs: str | None = None) -> list[str]:
    """Return the option that compares with the golden values."""
    return ['--verify', str(GOLDEN / f'{name}.inputs.npz'),
            str(GOLDEN / f'{outputs or name}.outputs.npz')]


def test_kosmos_agrees_with_the_reference(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Features, actions, losses and 24 steps, through import and checkpoint."""
    assert run(*verify('robokosmos_tiny')) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ('features', 'actions', 'losses', 'streaming',
                                            'agrees'))


def test_kosmos_with_the_hand_camera_agrees_with_the_reference(run: Run) -> None:
    """The hand image's tokens stand before the static image's."""
    assert run(*verify('robokosmos_tiny', 'robokosmos_hand'), changes={'use_hand_rgb': True}) == 0


def test_paligemma_agrees_with_the_reference(run: Run) -> None:
    """The old layout, causal attention and the scale of the action token, from bfloat16."""
    assert run(*verify('robopaligemma_tiny'), weights=PALIGEMMA,
               backbone=GOLDEN / 'tiny_paligemma',
               configuration=GOLDEN / 'robopaligemma_tiny.config.json') == 0


def test_paligemma_2_is_refused(run: Run, tmp_path: Path,
                                capsys: pytest.CaptureFixture[str]) -> None:
    """The version that the reference ran with has no such model; its attention is not known."""
    backbone = Path(shutil.copytree(GOLDEN / 'tiny_paligemma', tmp_path / 'backbone'))
    values = json.loads((backbone / 'config.json').read_text())
    values['text_config']['model_type'] = 'gemma2'
    (backbone / 'config.json').write_text(json.dumps(values))
    assert run(weights=PALIGEMMA, backbone=backbone,
               configuration=GOLDEN / 'robopaligemma_tiny.config.json') == 2
    assert 'PaliGemma 2' in capsys.readouterr().err


def test_other_values_make_the_verification_fail(run: Run, tmp_path: Path) -> None:
    """A static camera alone is not the two-camera reference."""
    assert run(*verify('robokosmos_tiny', 'robokosmos_hand')) == 1
    arrays = dict(np.load(GOLDEN / 'robokosmos_tiny.outputs.npz'))
    arrays['stream/arm'] = arrays['stream/arm'] + np.where(np.arange(24) == 23, 2e-5, 0)[
        None, :, None, None]
    np.savez(tmp_path / 'changed.npz', **arrays)
    assert run('--verify', str(GOLDEN / 'robokosmos_tiny.inputs.npz'),
               str(tmp_path / 'changed.npz')) == 1


def test_gradients_agree_with_the_reference(imported: Policy) -> None:
    """The norm of every parameter's gradient, for the masked training loss."""
    inputs = Recording(GOLDEN / 'robokosmos_tiny.inputs.npz')
    chunk = imported(inputs.images(imported, ''), inputs.text(imported, ''))
    action = inputs.get('action')
    loss = action_loss(chunk, action[..., :6], action[..., 6:], inputs.get('chunck_mask').bool())
    (loss.arm + 0.01 * loss.gripper).backward()
    wanted = json.loads((GOLDEN / 'robokosmos_tiny.gradnorms.json').read_text())
    found = {}
    for key, parameter in imported.named_parameters():
        if parameter.grad is not None:
            name = key.replace('backbone.action_token', 'action_token')
            name = name.replace('backbone.model.', 'backbone.')
            found['model.' + name.replace('decoder.', 'act_head.')] = parameter.grad.norm().item()
    assert found.keys() == wanted.keys()
    assert max(abs(found[key] - wanted[key]) for key in wanted) <= 1e-5
    outputs = np.load(GOLDEN / 'robokosmos_tiny.outputs.npz')
    whole = {key for key in outputs.files if key.startswith('train/grad/')}
    parameters = dict(imported.named_parameters())
    for key in whole:
        ours = key.removeprefix('train/grad/').removeprefix('model.')
        ours = ours.replace('act_head.', 'decoder.').replace('backbone.', 'backbone.model.')
        ours = 'backbone.action_token' if ours == 'action_token' else ours
        gradient = parameters[ours].grad
        assert gradient is not None
        np.testing.assert_allclose(gradient, outputs[key], atol=1e-5)


class FloatActor(PolicyActor):
    """The actor, taking recorded images that are not rounded to whole levels."""

    def _preprocess(self, observation: Observation) -> Seen:
        images = {name: torch.from_numpy(image) for name, image in observation.images.items()}
        return Seen(images, torch.zeros(0))


@pytest.mark.parametrize(('hand', 'outputs'), [(False, 'robokosmos_tiny'),
                                               (True, 'robokosmos_hand')])
def test_24_steps_of_the_actor_agree_with_the_reference(
        run: Run, tmp_path: Path, hand: bool, outputs: str) -> None:
    """Instruction in words, state of the episode, chunk in physical units; after a reset too."""
    assert run(changes={'use_hand_rgb': hand}) == 0
    policy = checkpoint.load(tmp_path / 'out')
    actor = FloatActor(policy)
    inputs = np.load(GOLDEN / 'robokosmos_tiny.inputs.npz')
    wanted = np.load(GOLDEN / f'{outputs}.outputs.npz')
    for _ in range(2):
        actor.reset()
        for step in range(24):
            images = {}
            for camera in policy.manifest.cameras:
                key = {'static': 'stream_rgb', 'hand': 'stream_hand_rgb'}[camera.name]
                image = inputs[key][0, step].astype(np.float64).transpose(1, 2, 0)
                images[camera.name] = 255 * (image * camera.std + camera.mean)
            chunk = actor.act(Observation(step, images), 'pick up the red block').chunk
            arm = normalise(chunk[:, :6], policy.manifest.action('arm').normalisation)
            np.testing.assert_allclose(arm, as_rotation_vectors(wanted['stream/arm'][0, step],
                                                                policy), atol=1e-5)
            logit = wanted['stream/gripper_logit'][0, step, :, 0]
            np.testing.assert_allclose(chunk[:, 6], 1 / (1 + np.exp(-logit)), atol=1e-5)


def test_compact_layout_acts_as_the_published_one(run: Run, tmp_path: Path) -> None:
    """A robot has one instruction at a time: without padding both are the same sequence."""
    assert run() == 0
    published = checkpoint.load(tmp_path / 'out')
    file = tmp_path / 'out' / 'config.yaml'
    file.write_text(file.read_text().replace('layout: robovlms', 'layout: compact'))
    compact = checkpoint.load(tmp_path / 'out')
    images = {'static': torch.randn(1, 1, 3, 56, 56)}
    with torch.no_grad():
        found, wanted = (policy(images, policy.encode_instructions(['open the drawer']))
                         for policy in (compact, published))
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


def as_rotation_vectors(label: np.ndarray, policy: Policy) -> np.ndarray:
    """Return what the actor means by this label, normalised again."""
    arm = policy.manifest.action('arm')
    actions = from_labels(label, np.zeros((*label.shape[:-1], 1)), policy.manifest)
    return normalise(actions[..., :6], arm.normalisation)


@pytest.mark.parametrize('layout', ['lightning', 'deepspeed', 'plain', 'model_state_dict'])
def test_every_layout_of_a_checkpoint_is_the_same_policy(
        run: Run, tmp_path: Path, layout: str) -> None:
    """Prefixes, containers and a second name of the head make no difference."""
    weights = torch.load(KOSMOS, weights_only=True)['state_dict']
    files: dict[str, Any] = {
        'lightning': {'state_dict': weights, 'epoch': 1, 'hyper_parameters': {'configs': {}}},
        'deepspeed': {'_forward_module.' + key: value for key, value in weights.items()},
        'plain': {key.removeprefix('model.'): value for key, value in weights.items()
                  if 'text_model.lm_head' not in key},
        'model_state_dict': {'model_state_dict': {
            **{'module.' + key: value for key, value in weights.items()},
            **{key.replace('act_head', 'lm_head'): value for key, value in weights.items()
               if '.act_head.' in key}}}}
    torch.save(files[layout], tmp_path / 'file.pt')
    assert run(weights=tmp_path / 'file.pt') == 0
    found = checkpoint.load(tmp_path / 'out').state_dict()
    for key in ('action_token', 'backbone.text_model.model.layer_norm.weight',
                'act_head.rnn.weight_ih_l0'):
        ours = {'action_token': 'backbone.action_token'}.get(
            key, key.replace('backbone.', 'backbone.model.').replace('act_head', 'decoder'))
        assert torch.equal(found[ours], weights['model.' + key])


def test_configuration_fills_the_manifest_and_the_decoder(
        run: Run, tmp_path: Path) -> None:
    """The top-level window and chunk win; the range becomes metres and radians."""
    assert run(changes={'use_hand_rgb': True, 'norm_min': -0.5, 'norm_max': 0.7,
                        'use_mu_law': True, 'mu_val': 63}) == 0
    policy = checkpoint.load(tmp_path / 'out')
    assert policy.config.decoder.window_size == 8
    assert policy.config.decoder.fwd_pred_next_n == 3
    manifest = policy.manifest
    assert [camera.name for camera in manifest.cameras] == ['hand', 'static']
    assert {camera.interpolation for camera in manifest.cameras} == {'bicubic'}
    arm = manifest.action('arm')
    np.testing.assert_allclose(arm.normalisation.scale, [0.012] * 3 + [0.03] * 3)
    np.testing.assert_allclose(arm.normalisation.offset, [0.002] * 3 + [0.005] * 3, atol=1e-12)
    assert arm.normalisation.mu == 63
    assert (arm.frame, arm.rotation) == ('base', 'euler_xyz')
    assert not (tmp_path / 'out' / 'model.pt').exists()
    assert 'run.json' in (tmp_path / 'out' / 'README.md').read_text()


def test_tcp_rel_and_a_closing_gripper_turn_signs_in_the_last_layer(
        run: Run, imported: Policy, tmp_path: Path) -> None:
    """The rotation becomes old-to-new and the logit one of open; verification knows both."""
    answers = [*ANSWERS[:-1], 'closed']
    assert run(*verify('robokosmos_tiny'), changes={'tcp_rel': True}, answers=answers) == 0
    turned = checkpoint.load(tmp_path / 'out')
    arm = turned.manifest.action('arm')
    assert (arm.frame, arm.rotation) == ('tool', 'rotation_vector')
    features = torch.randn(1, 2, 1, 64)
    with torch.no_grad():
        before, after = imported.decoder(features), turned.decoder(features)
    torch.testing.assert_close(after[1], -before[1])
    torch.testing.assert_close(after[0][..., :3], before[0][..., :3])
    torch.testing.assert_close(after[0][..., 3:], -before[0][..., 3:])


def test_negated_tcp_rel_rotation_is_the_motion_of_the_tool() -> None:
    """The reference's labels, by its formula, against the rotation from old to new."""
    generator = np.random.default_rng(8)
    angles, delta = generator.uniform(-1, 1, 3), generator.uniform(-1, 1, 3)
    old = Rotation.from_euler('XYZ', angles)
    new = Rotation.from_euler('XYZ', angles + 0.01 * delta)
    label = 100 * (new.inv() * old).as_euler('XYZ')
    motion = 100 * (old.inv() * new).as_rotvec()
    np.testing.assert_allclose(-label, motion, atol=0.02)
    assert np.abs(label - motion).max() > 0.5


def test_open_questions_are_asked_together(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """What no configuration says has no silent default."""
    assert run(answers=['--gripper-one', 'open']) == 2
    asked = capsys.readouterr().err
    for option in ('--control-period', '--metres-per-unit', '--radians-per-unit', '--frame',
                   '--rotation'):
        assert option in asked
    assert '--gripper-one' not in asked


@pytest.mark.parametrize(('changes', 'said'), [
    ({'act_head.type': 'GPTDecoder'}, ["act_head.type is 'GPTDecoder'", 'LSTMDecoder']),
    ({'model': 'moondream'}, ["model is 'moondream'", 'kosmos']),
    ({'act_head.history_type': 'pre'}, ['history_type', 'post']),
    ({'act_head.action_space': 'discrete'}, ['action_space', 'continuous']),
    ({'use_vision_resampler': True}, ['use_vision_resampler']),
    ({'window_size': None}, ["missing key 'window_size'"]),
    ({'norm_min': 0.65}, ['norm_min 0.65', 'norm_max 0.65']),
    ({'tcp_rel': True}, ['tcp_rel', "'base'"]),
    ({'image_size': 224}, ['224x224', '56x56']),
    ({'act_head.hidden_size': 48}, ['rnn', 'found shape', 'wanted']),
    ({'act_head.down_sample': 'average'}, ['down_sample', 'average']),
    ({'act_head.with_history': False}, ['with_history']),
    ({'image_size': '56'}, ['run.json: image_size: expected int', "str '56'"]),
    ({'image_size': [56, 56]}, ['run.json: image_size: expected int', 'list [56, 56]']),
    ({'window_size': 8.0}, ['window_size: expected int, found float 8.0']),
    ({'window_size': True}, ['window_size: expected int, found bool True']),
    ({'norm_min': [-1] * 7}, ['norm_min: expected float, found list']),
    ({'norm_min': float('nan')}, ['norm_min: expected a finite number, found nan']),
    ({'norm_max': float('inf')}, ['norm_max: expected a finite number, found inf']),
    ({'norm_action': 'yes'}, ["norm_action: expected bool, found str 'yes'"]),
    ({'norm_min': None}, ["missing key 'norm_min'"]),
    ({'use_mu_law': True, 'mu_val': 0}, ['mu_val 0']),
    ({'use_hand_rgb': 'false'}, ["use_hand_rgb: expected bool, found str 'false'"]),
    ({'use_hand_rgb': None}, ["missing key 'use_hand_rgb'"]),
    ({'act_head': 'LSTMDecoder'}, ['act_head: expected keys and values', "'LSTMDecoder'"]),
    ({'act_head': None}, ["missing key 'act_head'"]),
    ({'act_head.hidden_size': '32'}, ['act_head: hidden_size: expected int']),
    ({'act_head.num_layers': 10**9}, ['num_layers must be at most']),
    ({'tcp_rel': 1}, ['tcp_rel: expected bool, found int 1']),
    ({'parent': ['a.json']}, ['parent: expected the name of a file, found list']),
    ({'parent': 'run.json'}, ['run.json: is its own parent']),
    ({'regular_action': True}, ['regular_action']),
    ({'use_state': True}, ['use_state']),
    ({'act_encoder': {'type': 'LinearActionEncoder'}}, ['act_encoder']),
    ({'train_dataset': None}, ["missing key 'train_dataset'"]),
    ({'train_dataset.type': 'GRDataset'}, ['train_dataset.type is GRDataset', 'known']),
    ({'train_dataset.type': None}, ['train_dataset.type is None']),
    ({'train_dataset': [{'type': 'DiskCalvinDataset'}, {'type': 'VideoLLaVADataset'}]},
     ['DiskCalvinDataset and VideoLLaVADataset']),
    ({'train_dataset.obs_space': {'actions': ['actions']}},
     ['train_dataset.obs_space', 'may change what the numbers']),
])
def test_configuration_that_does_not_fit_is_refused(
        run: Run, capsys: pytest.CaptureFixture[str], changes: Mapping[str, Any],
        said: list[str]) -> None:
    """The message says what was found and what is wanted."""
    assert run(changes=changes) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said), error


OPEN_X = {'use_hand_rgb': True, 'train_dataset': {
    'type': 'OpenVLADataset', 'data_mix': 'bridge', 'model_name': 'kosmos'}}
METRES = ['--control-period', '0.2', '--metres-per-unit', '1', '--radians-per-unit', '1',
          '--gripper-one', 'open', '--frame', 'base', '--rotation', 'euler_xyz']


def statistics(path: Path, **changes: Any) -> list[str]:
    """Write statistics of a data set, and return the option that names them."""
    action = {'q01': [-0.03, -0.04, -0.02, -0.08, -0.09, -0.2, 0.0],
              'q99': [0.02, 0.05, 0.04, 0.07, 0.08, 0.3, 1.0], 'mean': [0.0] * 7} | changes
    path.write_text(json.dumps({'action': action, 'num_transitions': 3}))
    return ['--statistics', str(path)]


def test_a_run_on_open_x_asks_for_the_statistics_of_its_data(
        run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The published Bridge and RT-1 runs were imported with one scale for all three axes."""
    assert run(changes=OPEN_X, answers=METRES) == 2
    assert '--statistics' in capsys.readouterr().err


def test_a_run_on_open_x_undoes_both_of_its_normalisations(run: Run, tmp_path: Path) -> None:
    """
    Each axis was mapped by its quantiles, then by norm_min and norm_max; one camera was loaded.

    The configuration says use_hand_rgb, but the network never saw a hand image.
    """
    option = statistics(tmp_path / 'bridge.json')
    changes = OPEN_X | {'norm_min': -0.5, 'norm_max': 0.7}
    assert run(*option, changes=changes, answers=METRES) == 0
    manifest = checkpoint.load(tmp_path / 'out').manifest
    assert [camera.name for camera in manifest.cameras] == ['static']
    action = json.loads((tmp_path / 'bridge.json').read_text())['action']
    low, high = (np.array(action[name][:6]) for name in ('q01', 'q99'))
    values = np.random.default_rng(3).uniform(1.2 * low, 1.2 * high, (200, 6))
    label = np.clip(2 * (values - low) / (high - low) - 1, -1, 1)
    label = 2 * (np.clip(label, -0.5, 0.7) + 0.5) / 1.2 - 1
    arm = manifest.action('arm')
    np.testing.assert_allclose(normalise(values, arm.normalisation), label, atol=1e-6)
    assert 'on OpenVLADataset' in (tmp_path / 'out' / 'README.md').read_text()


@pytest.mark.parametrize(('changes', 'statistic', 'said'), [
    ({'tcp_rel': True}, {}, ['tcp_rel', 'OpenVLADataset']),
    ({'use_mu_law': True, 'mu_val': 63}, {}, ['mu_val is 63', '255']),
    ({'train_dataset.organize_type': 'segment'}, {}, ['organize_type']),
    ({}, {'q01': [0.0] * 6}, ['bridge.json: action: q01: expected 7 values, found 6']),
    ({}, {'q99': [float('nan')] * 7}, ['action: q99[0]: expected a finite number']),
    ({}, {'q99': [-1.0] * 7}, ['q01 of axis 0', 'not below its q99']),
    ({}, {'q01': 'low'}, ['action: q01: expected', "'low'"]),
])
def test_open_x_that_cannot_be_undone_is_refused(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: Mapping[str, Any],
        statistic: Mapping[str, Any], said: list[str]) -> None:
    """What training ignored but acting would not, and statistics that are none."""
    option = statistics(tmp_path / 'bridge.json', **statistic)
    given = json.loads(json.dumps(OPEN_X)) | changes
    assert run(*option, changes=given, answers=METRES) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said), error


def test_statistics_are_refused_where_the_data_were_not_scaled(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Actions of CALVIN are in one unit; statistics beside them are of something else."""
    assert run(*statistics(tmp_path / 'bridge.json')) == 2
    assert 'DiskCalvinDataset' in capsys.readouterr().err


@pytest.mark.parametrize('option', [
    '--control-period=nan', '--metres-per-unit=0', '--radians-per-unit=-1',
    '--metres-per-unit=inf'])
def test_an_answer_that_no_robot_can_follow_is_refused(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    """An import with a scale of NaN was written, and moved no robot."""
    assert run(option) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('change', 'said'), [
    (lambda w: w['model.action_token'].fill_(float('nan')), ['action_token', 'NaN']),
    (lambda w: w.pop('model.action_token'), ['backbone.action_token', 'missing']),
    (lambda w: w.update({'model.fwd_head.x': torch.zeros(1)}), ['fwd_head.x', 'unexpected']),
    (lambda w: w.update({'model.act_head.rnn.weight_ih_l0': torch.zeros(2, 2)}),
     ['decoder.rnn.weight_ih_l0', '(2, 2)', '(128, 64)']),
    (lambda w: w.clear(), ['state_dict']),
])
def test_weights_that_do_not_fit_are_refused(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        change: Callable[[dict[str, Tensor]], Any], said: list[str]) -> None:
    """Missing, unexpected and misshapen tensors are named."""
    weights = dict(torch.load(KOSMOS, weights_only=True)['state_dict'])
    change(weights)
    torch.save({'state_dict': weights}, tmp_path / 'file.pt')
    assert run(weights=tmp_path / 'file.pt') == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said), error


class _Malice:
    """What a pickle could do."""

    def __reduce__(self) -> tuple:
        """Write a file when unpickled."""
        return Path.touch, (Path('/tmp/never_run_by_import_robovlms'),)


def test_pickle_with_code_is_refused_and_not_run(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only tensors and plain values are read."""
    torch.save({'state_dict': {}, 'extra': _Malice()}, tmp_path / 'bad.pt')
    assert run(weights=tmp_path / 'bad.pt') == 2
    assert 'would run code' in capsys.readouterr().err
    assert not Path('/tmp/never_run_by_import_robovlms').exists()


def test_files_that_are_no_checkpoint_are_refused(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sharded directory, a cut file, no file, a backbone of another family."""
    assert run(weights=tmp_path) == 2
    assert 'zero_to_fp32' in capsys.readouterr().err
    (tmp_path / 'cut.pt').write_bytes(KOSMOS.read_bytes()[:100_000])
    assert run(weights=tmp_path / 'cut.pt') == 2
    assert 'cut.pt' in capsys.readouterr().err
    assert run(weights=tmp_path / 'none.pt') == 2
    assert 'none.pt' in capsys.readouterr().err
    assert run(backbone=GOLDEN / 'tiny_paligemma') == 2
    error = capsys.readouterr().err
    assert "'paligemma'" in error and "'kosmos-2'" in error
    assert str(GOLDEN / 'tiny_paligemma' / 'config.json') in error


def test_parents_that_name_each_other_are_refused(tmp_path: Path) -> None:
    """A circle ended in a RecursionError; a key that stands twice has no meaning."""
    (tmp_path / 'one.json').write_text('{"parent": "two.json"}')
    (tmp_path / 'two.json').write_text('{"parent": "one.json"}')
    with pytest.raises(ValueError, match='one.json: is its own parent, found along one.json -> '):
        files.read_configuration(tmp_path / 'one.json')
    (tmp_path / 'twice.json').write_text('{"window_size": 8, "window_size": 16}')
    with pytest.raises(ValueError, match="twice.json.*'window_size' stands there twice"):
        files.read_configuration(tmp_path / 'twice.json')
    (tmp_path / 'deep.json').write_text('{"a": ' + '[' * 100_000)
    with pytest.raises(ValueError, match='deep.json: is not valid JSON: nested too deeply'):
        files.read_configuration(tmp_path / 'deep.json')


def test_verification_names_what_the_recording_lacks(
        run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without an array, or with images of another size."""
    arrays = dict(np.load(GOLDEN / 'robokosmos_tiny.inputs.npz'))
    np.savez(tmp_path / 'small.npz', **{**arrays, 'rgb': arrays['rgb'][..., :28, :28]})
    outputs = str(GOLDEN / 'robokosmos_tiny.outputs.npz')
    assert run('--verify', str(tmp_path / 'small.npz'), outputs) == 2
    assert '(2, 8, 3, 28, 28)' in capsys.readouterr().err
    del arrays['text']
    np.savez(tmp_path / 'less.npz', **arrays)
    assert run('--verify', str(tmp_path / 'less.npz'), outputs) == 2
    assert "missing array 'text'" in capsys.readouterr().err


def test_parents_of_a_configuration_are_read(tmp_path: Path) -> None:
    """A run's file changes single keys of its parent's."""
    (tmp_path / 'below.json').write_text('{"a": {"b": 1, "c": 2}, "d": 3}')
    (tmp_path / 'run.json').write_text('{"parent": "below.json", "a": {"c": 4}}')
    found = files.read_configuration(tmp_path / 'run.json')
    assert found['a'] == {'b': 1, 'c': 4} and found['d'] == 3

"""
A run of RoboVLMs (arXiv 2412.14058), checked and turned into a policy of ours.

What the run's configuration says (windows, chunk, normalisation, cameras) is taken from it; what
it does not say (what a unit of its actions is on a robot) is answered by the caller in `Answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
import tempfile
from typing import Any, Literal

from ros2_lstm_policy.manifest import ActionManifest, ArmNormalisation, CameraSpec
from ros2_lstm_policy.model.backbones import pretrained
from ros2_lstm_policy.model.backbones.hugging_face import ASSETS, HuggingFaceBackbone
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.model.robovlms_files import RoboVLMsError
from ros2_lstm_policy.types import ACTION_DIM, ARM_DIM, HAND_CAMERA, STATIC_CAMERA
import torch
from torch import nn, Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)
MAX_TEXT_TOKENS = 512  # the reference's tokenizer cuts there; ours refuses
LSTM_LAYERS = 4
MU = 255.0
POSITION_DIMS = 3
FAMILIES = {'kosmos': 'kosmos2', 'paligemma': 'paligemma'}
MODEL_TYPES = {'kosmos2': ('kosmos-2',), 'paligemma': ('paligemma',)}
_FAMILY_OPTIONS: dict[str, dict[str, Any]] = {
    'kosmos2': {},
    'paligemma': {'prompt': '<eos>{instruction}\n', 'prefix_attention': False}}


@dataclass(frozen=True)
class Answers:
    """
    What a RoboVLMs configuration does not say.

    :param control_period_s: time that one action covers.
    :param metres_per_unit: displacement of a position delta of 1 in the data (CALVIN: 0.02).
    :param radians_per_unit: rotation of a rotation delta of 1 in the data (CALVIN: 0.05).
    :param gripper_one: what a gripper label of 1 meant in the data.
    :param frame: axes of the deltas; None where the configuration says `tcp_rel`.
    :param rotation: convention of the rotation deltas; None where it says `tcp_rel`.
    """

    control_period_s: float
    metres_per_unit: float
    radians_per_unit: float
    gripper_one: Literal['open', 'closed']
    frame: Literal['base', 'tool'] | None = None
    rotation: Literal['rotation_vector', 'euler_xyz'] | None = None


def policy_config(run: Mapping[str, Any], where: Path, backbone: Path) -> PolicyConfig:
    """
    Return the network that the configuration describes.

    :raises RoboVLMsError: for a key that is absent, or a network that cannot be imported.
    """
    head = _get(run, where, 'act_head')
    _refuse_unknown_parts(run, head, where)
    decoder = DecoderConfig(
        hidden_size=head.get('hidden_size', 1024), num_layers=head.get('num_layers', LSTM_LAYERS),
        window_size=_get(run, where, 'window_size'),
        fwd_pred_next_n=_get(run, where, 'fwd_pred_next_n'),
        down_sample=_get(head, where, 'down_sample', 'act_head.'), latent=head.get('latent', 1),
        dropout=float(head.get('policy_rnn_dropout_p', 0.0)))
    options: dict[str, Any] = {
        'directory': str(backbone), 'layout': 'robovlms', 'attention': 'eager',
        'max_text_tokens': MAX_TEXT_TOKENS, 'action_tokens': decoder.latent}
    if head.get('action_space', 'continuous') == 'down_sample':
        options |= {'feature': head.get('token_source', 'all'), 'action_tokens': 1}
    family = FAMILIES[run['model']]
    return PolicyConfig(BackboneConfig(family, options | _FAMILY_OPTIONS[family]), decoder)


def manifest(run: Mapping[str, Any], where: Path, answers: Answers) -> ActionManifest:
    """
    Return what the policy's numbers mean.

    :raises RoboVLMsError: for a question without an answer, or settings that contradict.
    """
    frame, rotation = _frame_and_rotation(run, answers)
    return ActionManifest(frame, rotation, answers.control_period_s,
                          _normalisation(run, where, answers), _cameras(run, where))


def build(weights: Mapping[str, Tensor], run: Mapping[str, Any], where: Path, backbone: Path,
          answers: Answers) -> Policy:
    """
    Make the policy with the checkpoint's weights.

    Of the backbone directory only config.json and the tokenizer files are read.

    :param where: the configuration's file, for errors.
    :raises RoboVLMsError: for weights that do not fit, by key.
    """
    config = policy_config(run, where, backbone)
    directory = pretrained.check(backbone, MODEL_TYPES[config.backbone.family])
    if directory.text_type == 'gemma2':
        raise RoboVLMsError(f'{backbone}: is PaliGemma 2, which transformers 4.44.0 lacks: with '
                            'that version and causal attention RoboVLMs ran its PaliGemma '
                            'policies; later ones attend differently, and a run names none')
    with tempfile.TemporaryDirectory() as assets:
        pretrained.copy_assets(backbone, Path(assets) / ASSETS)
        policy = Policy(config, manifest(run, where, answers), Path(assets)).eval()
    _vlm(policy).directory = directory  # where `save_assets` finds them again
    _load(policy, _renamed(policy, weights))
    _turn_conventions(policy, bool(run.get('tcp_rel')), answers.gripper_one == 'closed')
    return policy


def sign_of_arm(run: Mapping[str, Any]) -> Tensor:
    """Return what our six normalised values are multiplied by to be the checkpoint's."""
    sign = torch.ones(ARM_DIM)
    if run.get('tcp_rel'):
        sign[POSITION_DIMS:] = -1
    return sign


def _get(values: Mapping[str, Any], where: Path, key: str, above: str = '') -> Any:
    if values.get(key) is None:
        raise RoboVLMsError(f'{where}: missing key {above + key!r}; is it the configuration of '
                            'this RoboVLMs run?')
    return values[key]


def _refuse_unknown_parts(run: Mapping[str, Any], head: Mapping[str, Any], where: Path) -> None:
    wanted: dict[str, tuple[Any, tuple[Any, ...]]] = {
        'model': (run.get('model'), tuple(FAMILIES)),
        'act_head.type': (head.get('type'), ('LSTMDecoder',)),
        'act_head.history_type': (head.get('history_type', 'post'), ('post',)),
        'act_head.action_space': (head.get('action_space', 'continuous'),
                                  ('continuous', 'down_sample')),
        'act_head.action_dim': (head.get('action_dim'), (ACTION_DIM,)),
        'act_head.fill_zero': (bool(head.get('fill_zero')), (False,)),
        'use_vision_resampler': (bool(run.get('use_vision_resampler')), (False,)),
        'regular_action': (bool(run.get('regular_action')), (False,)),
        'fwd_head': (run.get('fwd_head'), (None,)),
    }
    for key, (found, known) in wanted.items():
        if found not in known:
            raise RoboVLMsError(f'{where}: {key} is {found!r}, which cannot be imported; known: '
                                f'{", ".join(map(repr, known))}')


def _frame_and_rotation(run: Mapping[str, Any], answers: Answers) -> tuple[Any, Any]:
    if not run.get('tcp_rel'):
        if answers.frame is None or answers.rotation is None:
            raise RoboVLMsError('the configuration does not say in which frame and rotation '
                                'convention its deltas are: answer `frame` and `rotation`')
        return answers.frame, answers.rotation
    if answers.frame == 'base' or answers.rotation == 'euler_xyz':
        raise RoboVLMsError("the configuration says tcp_rel: frame 'tool' and rotation "
                            f"'rotation_vector', but the answers are {answers.frame!r} and "
                            f'{answers.rotation!r}; leave them out')
    return 'tool', 'rotation_vector'


def _normalisation(run: Mapping[str, Any], where: Path, answers: Answers) -> ArmNormalisation:
    low, high = -1.0, 1.0
    if run.get('norm_action'):
        low, high = (float(_get(run, where, key)) for key in ('norm_min', 'norm_max'))
        if low >= high:
            raise RoboVLMsError(f'{where}: norm_min {low} is not below norm_max {high}')
    mu = float(run.get('mu_val', MU)) if run.get('use_mu_law') else None
    if run.get('tcp_rel') and (mu is not None or low != -high):
        raise RoboVLMsError(
            f'{where}: tcp_rel with use_mu_law or an uneven norm range: the run turned values '
            'into the tool frame after bending them, which no manifest can undo')
    units = (answers.metres_per_unit,) * POSITION_DIMS + \
        (answers.radians_per_unit,) * (ARM_DIM - POSITION_DIMS)
    return ArmNormalisation(tuple(unit * (high + low) / 2 for unit in units),
                            tuple(unit * (high - low) / 2 for unit in units), mu)


def _cameras(run: Mapping[str, Any], where: Path) -> tuple[CameraSpec, ...]:
    size = _get(run, where, 'image_size')
    mean, std = (SIGLIP_MEAN, SIGLIP_STD) if FAMILIES[run['model']] == 'paligemma' else \
        (CLIP_MEAN, CLIP_STD)
    names = (HAND_CAMERA, STATIC_CAMERA) if run.get('use_hand_rgb') else (STATIC_CAMERA,)
    return tuple(CameraSpec(name, size, size, 'bicubic', mean, std) for name in names)


def _renamed(policy: Policy, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under our names."""
    vlm = {key.removeprefix('model.backbone.'): value for key, value in weights.items()
           if key.startswith('model.backbone.')}
    if policy.config.backbone.family == 'paligemma':
        vlm = _todays_names(policy, vlm)
    named = {f'backbone.model.{key}': value for key, value in vlm.items()}
    for key, value in weights.items():
        if key == 'model.action_token':
            named['backbone.action_token'] = value.float() * _embedding_scale(policy)
        elif key.startswith('model.act_head.'):
            named[key.replace('model.act_head.', 'decoder.', 1)] = value
        elif not key.startswith('model.backbone.'):
            named[key] = value
    return named


def _todays_names(policy: Policy, vlm: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let transformers rename the layout that it had before version 5."""
    model = _vlm(policy).model
    renamed, info = type(model).from_pretrained(
        None, config=model.config, state_dict=vlm, output_loading_info=True,
        ignore_mismatched_sizes=True)
    for key, found, wanted in info['mismatched_keys']:
        raise RoboVLMsError(f'model.backbone: {key}: found shape {tuple(found)}, wanted '
                            f'{tuple(wanted)} by the config.json of the backbone')
    try:
        pretrained.complain_of_keys('model.backbone', info['missing_keys'],
                                    info['unexpected_keys'])
    except ValueError as error:
        raise RoboVLMsError(str(error)) from error
    return renamed.state_dict()


def _vlm(policy: Policy) -> HuggingFaceBackbone:
    assert isinstance(policy.backbone, HuggingFaceBackbone)
    return policy.backbone


def _embedding_scale(policy: Policy) -> float:
    """Return sqrt(width) for Gemma: it scaled all embeddings then, the word embedding does now."""
    return policy.backbone.feature_dim ** 0.5 if policy.config.backbone.family == 'paligemma' \
        else 1.0


def _load(policy: Policy, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights strictly; of tied tensors one name is enough."""
    wanted = policy.state_dict()
    for key, value in weights.items():
        if key in wanted and value.shape != wanted[key].shape:
            raise RoboVLMsError(f'{key}: found shape {tuple(value.shape)}, wanted '
                                f'{tuple(wanted[key].shape)}; the backbone directory or the '
                                'configuration is of another run')
    names: dict[int, list[str]] = {}
    for key, value in wanted.items():
        names.setdefault(value.data_ptr(), []).append(key)
    for tied in names.values():
        there = [weights[key] for key in tied if key in weights]
        if any(not torch.equal(value, there[0]) for value in there):
            raise RoboVLMsError(f'{" and ".join(tied)} are one tensor in this network, but '
                                'differ in the checkpoint')
    filled = {key for tied in names.values() if any(key in weights for key in tied)
              for key in tied}
    try:
        pretrained.complain_of_keys('the checkpoint', set(wanted) - filled,
                                    set(weights) - set(wanted))
    except ValueError as error:
        raise RoboVLMsError(str(error)) from error
    with torch.no_grad():
        for key, value in weights.items():
            wanted[key].copy_(value)


def _turn_conventions(policy: Policy, tcp_rel: bool, one_is_closed: bool) -> None:
    """
    Change signs in the last layers where the run's conventions are the other way round.

    `tcp_rel` labels hold the rotation from the new tool frame to the old one; the tanh behind is
    odd, so negated rows give old to new. A gripper logit of "closed" is negated.
    """
    arm, gripper = policy.decoder.actions.mlp[-1], policy.decoder.gripper.mlp[-1]
    assert isinstance(arm, nn.Linear) and isinstance(gripper, nn.Linear)
    rotations = torch.arange(arm.out_features) % ARM_DIM >= POSITION_DIMS
    if tcp_rel:
        _negate(arm, rotations)
    if one_is_closed:
        _negate(gripper, torch.ones(gripper.out_features, dtype=torch.bool))


@torch.no_grad()
def _negate(layer: nn.Linear, rows: Tensor) -> None:
    layer.weight[rows] *= -1
    layer.bias[rows] *= -1

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

from ros2_lstm_policy.kinds import ARM_DIM
from ros2_lstm_policy.manifest import CameraSpec, Manifest, Normalisation, one_arm
from ros2_lstm_policy.model import memory
from ros2_lstm_policy.model.backbones.hugging_face import pretrained
from ros2_lstm_policy.model.backbones.hugging_face.backbone import ASSETS, HuggingFaceBackbone
from ros2_lstm_policy.model.policy import (BackboneConfig, DecoderConfig, outline, Policy,
                                           PolicyConfig)
from ros2_lstm_policy.robovlms.files import RoboVLMsError
from ros2_lstm_policy.robovlms.settings import FAMILIES, OPEN_X, Run
from ros2_lstm_policy.robovlms.statistics import Bounds
import torch
from torch import nn, Tensor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)
MAX_TEXT_TOKENS = 512  # the reference's tokenizer cuts there; ours refuses
POSITION_DIMS = 3
_TOO_LARGE = 1.25  # of the checkpoint: what differs less is told key by key
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
    :param bounds: what the data were scaled by before the run saw them; None for CALVIN.
    """

    control_period_s: float
    metres_per_unit: float
    radians_per_unit: float
    gripper_one: Literal['open', 'closed']
    frame: Literal['base', 'tool'] | None = None
    rotation: Literal['rotation_vector', 'euler_xyz'] | None = None
    bounds: Bounds | None = None


def policy_config(run: Run, backbone: Path) -> PolicyConfig:
    """
    Return the network that the configuration describes.

    :raises ValueError: for sizes that no network has.
    """
    head = run.act_head
    decoder = DecoderConfig(
        head.hidden_size, head.num_layers, run.window_size, run.fwd_pred_next_n,
        head.down_sample, head.latent, head.policy_rnn_dropout_p)
    options: dict[str, Any] = {
        'directory': str(backbone), 'layout': 'robovlms', 'attention': 'eager',
        'max_text_tokens': MAX_TEXT_TOKENS, 'action_tokens': decoder.latent}
    if head.action_space == 'down_sample':
        options |= {'feature': head.token_source, 'action_tokens': 1}
    family = FAMILIES[run.model]
    return PolicyConfig(BackboneConfig(family, options | _FAMILY_OPTIONS[family]), decoder)


def manifest(run: Run, where: Path, answers: Answers) -> Manifest:
    """
    Return what the policy's numbers mean.

    :raises RoboVLMsError: for a question without an answer, or settings that contradict.
    """
    frame, rotation = _frame_and_rotation(run, answers)
    return one_arm(frame, rotation, answers.control_period_s,
                   _normalisation(run, where, answers), _cameras(run))


def build(weights: Mapping[str, Tensor], run: Run, where: Path, backbone: Path,
          answers: Answers) -> Policy:
    """
    Make the policy with the checkpoint's weights.

    Of the backbone directory only config.json and the tokenizer files are read.

    :param where: the configuration's file, for errors.
    :raises RoboVLMsError: for weights that do not fit, by key.
    """
    config = policy_config(run, backbone)
    directory = pretrained.check(backbone, MODEL_TYPES[config.backbone.family])
    if directory.text_type == 'gemma2':
        raise RoboVLMsError(f'{backbone}: is PaliGemma 2, which transformers 4.44.0 lacks: with '
                            'that version and causal attention RoboVLMs ran its PaliGemma '
                            'policies; later ones attend differently, and a run names none')
    with tempfile.TemporaryDirectory() as assets:
        pretrained.copy_assets(backbone, Path(assets) / ASSETS)
        parts = config, manifest(run, where, answers), Path(assets)
        _check_size(outline(*parts), weights, backbone)
        policy = Policy(*parts).eval()
    _vlm(policy).directory = directory  # where `save_assets` finds them again
    _load(policy, _renamed(policy, weights))
    _turn_conventions(policy, run.tcp_rel, answers.gripper_one == 'closed')
    return policy


def sign_of_arm(run: Run) -> Tensor:
    """Return what our six normalised values are multiplied by to be the checkpoint's."""
    sign = torch.ones(ARM_DIM)
    if run.tcp_rel:
        sign[POSITION_DIMS:] = -1
    return sign


def _frame_and_rotation(run: Run, answers: Answers) -> tuple[Any, Any]:
    if not run.tcp_rel:
        if answers.frame is None or answers.rotation is None:
            raise RoboVLMsError('the configuration does not say in which frame and rotation '
                                'convention its deltas are: answer `frame` and `rotation`')
        return answers.frame, answers.rotation
    if answers.frame == 'base' or answers.rotation == 'euler_xyz':
        raise RoboVLMsError("the configuration says tcp_rel: frame 'tool' and rotation "
                            f"'rotation_vector', but the answers are {answers.frame!r} and "
                            f'{answers.rotation!r}; leave them out')
    return 'tool', 'rotation_vector'


def _normalisation(run: Run, where: Path, answers: Answers) -> Normalisation:
    """
    Return offset and scale by axis, of two maps that stand behind each other.

    The data's own, low and high of an axis to -1 and 1 (the identity for CALVIN), then the run's
    `norm_min` and `norm_max` to -1 and 1.
    """
    low, high = (run.norm_min, run.norm_max) if run.norm_action else (-1.0, 1.0)
    mu = run.mu_val if run.use_mu_law else None
    if run.tcp_rel and (mu is not None or low != -high):
        raise RoboVLMsError(
            f'{where}: tcp_rel with use_mu_law or an uneven norm range: the run turned values '
            'into the tool frame after bending them, which no manifest can undo')
    if (run.data == OPEN_X) != (answers.bounds is not None):
        raise RoboVLMsError(
            f'{where}: train_dataset.type is {run.data}; statistics are wanted for {OPEN_X}, '
            'whose actions are scaled axis by axis, and for nothing else')
    bounds = answers.bounds or Bounds((-1.0,) * ARM_DIM, (1.0,) * ARM_DIM)
    units = (answers.metres_per_unit,) * POSITION_DIMS + \
        (answers.radians_per_unit,) * (ARM_DIM - POSITION_DIMS)
    axes = list(zip(units, bounds.low, bounds.high))
    return Normalisation(
        tuple(u * ((b + a) / 2 + (b - a) / 2 * (high + low) / 2) for u, a, b in axes),
        tuple(u * (b - a) / 2 * (high - low) / 2 for u, a, b in axes), mu)


def _cameras(run: Run) -> tuple[CameraSpec, ...]:
    """Return the cameras that the network saw: an OpenVLADataset loads the primary one alone."""
    mean, std = (SIGLIP_MEAN, SIGLIP_STD) if FAMILIES[run.model] == 'paligemma' else \
        (CLIP_MEAN, CLIP_STD)
    hand = run.use_hand_rgb and run.data != OPEN_X
    names = ('hand', 'static') if hand else ('static',)
    return tuple(CameraSpec(name, run.image_size, run.image_size, 'bicubic', mean, std)
                 for name in names)


def _check_size(shape: Policy, weights: Mapping[str, Tensor], backbone: Path) -> None:
    """Refuse another model's config.json before a network of its size is built."""
    wanted = sum(value.numel() for value in shape.parameters())
    found = sum(value.numel() for value in weights.values())
    if wanted > _TOO_LARGE * found:
        raise RoboVLMsError(f'{backbone}: config.json and the configuration describe a network of '
                            f'{wanted:,} numbers, the checkpoint holds {found:,}; one of them is '
                            'of another run')
    memory.require(shape, str(backbone))


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
        if any(not torch.equal(value, there[0]) for value in there[1:]):
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
    assert policy.decoder.gripper is not None
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

"""
LeRobot's ACT and Diffusion Policy: their own classes, given this package's cameras and actions.

Neither takes words, so both get the instruction's MiniLM sentence embedding (the mean of the
token states that the compact policy reads) as `observation.state`, which is also the one input
besides images that Diffusion Policy demands. Nothing else is in it: no proprioception, as ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from lerobot_peers.samples import Scaling
import numpy as np
from ros2_lstm_policy import config
from ros2_lstm_policy.kinds import ACTION_DIM
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.compact import efficientnet_lite, minilm
from safetensors.torch import load_model, save_model
from torch import nn, Tensor

Name: TypeAlias = Literal['act', 'act_lite', 'diffusion']
Execute: TypeAlias = Literal['chunk', 'ensemble']
Peer: TypeAlias = ACTPolicy | DiffusionPolicy
NAMES: tuple[Name, ...] = ('act', 'act_lite', 'diffusion')

SPEC, WEIGHTS = 'peer.yaml', 'policy.safetensors'
_RESNET_MEAN, _RESNET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # LeRobot's default
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3  # EfficientNet-Lite's
_LITE_STRIDE, _LITE_CHANNELS = 32, efficientnet_lite.STAGES[-1].channels

# ACT: 100 actions at 50 Hz in the paper are two seconds, as 20 at 10 Hz are.
_ACT: dict[str, Any] = {'chunk_size': 20, 'pretrained_backbone_weights': None}
_ACT_EXECUTE: dict[Execute, dict[str, Any]] = {
    'chunk': {'n_action_steps': 20},  # LeRobot's default: the whole chunk, then the next
    'ensemble': {'n_action_steps': 1, 'temporal_ensemble_coeff': 0.01}}  # the paper's
# Diffusion Policy: the paper's setting for 10 Hz, whose ResNet starts from random weights with
# group normalisation; DDIM in 10 steps is the paper's for a real robot.
_DIFFUSION: dict[str, Any] = {
    'n_obs_steps': 2, 'horizon': 16, 'n_action_steps': 8, 'drop_n_last_frames': 7,
    'pretrained_backbone_weights': None, 'use_group_norm': True,
    'noise_scheduler_type': 'DDIM', 'num_inference_steps': 10}


@dataclass(frozen=True)
class Spec:
    """
    What a trained peer is, kept beside its weights; its scaling is in LeRobot's published modes.

    :param cameras: cut, size and normalisation of both images.
    :param actions: of arm deltas (m, rad) and gripper opening, 7 values.
    :param words: of the sentence embedding.
    """

    name: Name
    cameras: tuple[CameraSpec, ...]
    actions: Scaling
    words: Scaling


class LiteBackbone(nn.Module):
    """The compact policy's ImageNet network, EfficientNet-Lite0, as ACT expects its own."""

    def __init__(self) -> None:
        """Make it with random weights."""
        super().__init__()
        self.network = efficientnet_lite.EfficientNetLite0([_LITE_STRIDE])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to (B, 320, H / 32, W / 32)."""
        return {'feature_map': self.network(images, {})[0]}


def cameras(name: Name, stored: tuple[CameraSpec, ...]) -> tuple[CameraSpec, ...]:
    """Return the store's cameras with the normalisation that the peer's image network wants."""
    mean, std = ((_LITE_MEAN, _LITE_STD) if name == 'act_lite' else (_RESNET_MEAN, _RESNET_STD))
    return tuple(replace(camera, mean=mean, std=std) for camera in stored)


def image_key(camera: CameraSpec) -> str:
    """Return LeRobot's name of a camera's image."""
    return f'{OBS_IMAGES}.{camera.name}'


def build(name: Name, cameras: tuple[CameraSpec, ...], execute: Execute = 'chunk') -> Peer:
    """
    Return the peer with random weights, on the CPU.

    :param execute: how ACT carries out its chunks; Diffusion Policy always does 8 of 16 actions.
    :raises ValueError: for an ensemble of Diffusion Policy, which has none.
    """
    features = {
        'input_features': {image_key(c): PolicyFeature(FeatureType.VISUAL, (3, c.height, c.width))
                           for c in cameras}
        | {OBS_STATE: PolicyFeature(FeatureType.STATE, (minilm.STATE_DIM,))},
        'output_features': {ACTION: PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
        'device': 'cpu'}
    if name == 'diffusion':
        if execute != 'chunk':
            raise ValueError("Diffusion Policy has no temporal ensemble; use execute 'chunk'")
        return DiffusionPolicy(DiffusionConfig(**_DIFFUSION, **features))
    policy = ACTPolicy(ACTConfig(**_ACT, **_ACT_EXECUTE[execute], **features))
    if name == 'act_lite':
        policy.model.backbone = LiteBackbone()
        policy.model.encoder_img_feat_input_proj = nn.Conv2d(
            _LITE_CHANNELS, policy.config.dim_model, kernel_size=1)
    return policy


def load_pretrained(policy: Peer, name: Name) -> None:
    """
    Fill the image network where its ImageNet weights come in a package.

    :raises WeightsError: where that package is absent.
    """
    if name == 'act_lite':
        efficientnet_lite.load_pretrained(policy.model.backbone.network,
                                          efficientnet_lite.PRETRAINED)


def sentence(instruction: str) -> np.ndarray:
    """Return the embedding (384,) of an instruction: the mean of its token states."""
    encoder = minilm.load(minilm.PRETRAINED)
    return encoder.states(encoder.token_ids(instruction)).mean(0).numpy()


def save(directory: Path, policy: Peer, spec: Spec) -> None:
    """Write the weights and what they are."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SPEC).write_text(config.dump(spec))
    save_model(policy, str(directory / WEIGHTS))


def load(directory: Path, execute: Execute, device: str) -> tuple[Peer, Spec]:
    """
    Read what :func:`save` wrote.

    :raises ConfigError: where the directory holds no peer.
    """
    spec = config.load(Spec, directory / SPEC)
    policy = build(spec.name, spec.cameras, execute).to(device)
    load_model(policy, str(directory / WEIGHTS), device=device)
    return policy.eval(), spec


def name_of(directory: Path) -> Name:
    """Return which peer a directory holds."""
    return config.load(Spec, directory / SPEC).name

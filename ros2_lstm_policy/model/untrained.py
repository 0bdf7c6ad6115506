"""Policies with random weights, which say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.model import checkpoint, memory
from ros2_lstm_policy.model.backbones.hugging_face import pretrained
from ros2_lstm_policy.model.backbones.hugging_face.backbone import ASSETS
from ros2_lstm_policy.model.policy import build, outline, Policy, PolicyConfig
import torch

_SMALL = 0.02  # standard deviation of random weights

CARD = """# UNTRAINED policy: it moves at random

Made by `init_checkpoint` from `{source}` with seed {seed}. The {family} backbone starts from its
published weights; everything else is random. It shows that the way from camera to command works,
and nothing more.

- parameters: {parameters:,}
- cameras: {cameras}
- measured success: none
"""


@dataclass(frozen=True)
class InitConfig:
    """What a new policy is: its network and what its numbers mean."""

    policy: PolicyConfig
    manifest: Manifest


def untrained(chosen: InitConfig, seed: int, source: str = 'the configuration') -> Policy:
    """
    Make the policy with random weights of that seed.

    :param source: what describes it, for errors.
    """
    torch.manual_seed(seed)
    return build(chosen.policy, chosen.manifest, source).eval()


def random(chosen: InitConfig, seed: int, source: str,
           device: str | torch.device = 'cpu') -> Policy:
    """
    Make the policy with a backbone of random weights too, for measurements of time.

    The backbone's directory needs no weights: config.json and the tokenizer files are enough.

    :param source: what describes it, for errors.
    """
    with TemporaryDirectory() as folder:
        directory = chosen.policy.backbone.options.get('directory')
        if isinstance(directory, str):
            pretrained.copy_assets(Path(directory), Path(folder) / ASSETS)
        memory.require(outline(chosen.policy, chosen.manifest, Path(folder)), source)
        policy = Policy(chosen.policy, chosen.manifest, Path(folder)).to(device).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.backbone.parameters():  # type: ignore[attr-defined]
            parameter.normal_(0, _SMALL)
    return policy


def save(directory: Path, chosen: InitConfig, seed: int, source: str) -> None:
    """Write a checkpoint of it, whose card names the configuration that it came from."""
    policy = untrained(chosen, seed, source)
    checkpoint.save(directory, policy, CARD.format(
        source=source, seed=seed, family=chosen.policy.backbone.family,
        parameters=sum(p.numel() for p in policy.parameters()),
        cameras=', '.join(camera.name for camera in chosen.manifest.cameras)))

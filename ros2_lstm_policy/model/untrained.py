"""Policies with random weights, which say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ros2_lstm_policy.manifest import ActionManifest
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.policy import build, Policy, PolicyConfig
import torch

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
    manifest: ActionManifest


def untrained(chosen: InitConfig, seed: int, source: str = 'the configuration') -> Policy:
    """
    Make the policy with random weights of that seed.

    :param source: what describes it, for errors.
    """
    torch.manual_seed(seed)
    return build(chosen.policy, chosen.manifest, source).eval()


def save(directory: Path, chosen: InitConfig, seed: int, source: str) -> None:
    """Write a checkpoint of it, whose card names the configuration that it came from."""
    policy = untrained(chosen, seed, source)
    checkpoint.save(directory, policy, CARD.format(
        source=source, seed=seed, family=chosen.policy.backbone.family,
        parameters=sum(p.numel() for p in policy.parameters()),
        cameras=', '.join(camera.name for camera in chosen.manifest.cameras)))

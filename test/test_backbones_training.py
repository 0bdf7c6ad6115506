"""Every family trains: all losses fall; and whole, frozen or through LoRA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.training import tuning
from ros2_lstm_policy.training.auxiliary.forward_head import ForwardConfig
from ros2_lstm_policy.training.objective import LossConfig, Objective, total, Words
from ros2_lstm_policy.transforms import normalise_images
from ros2_lstm_policy.types import Batch, Observation
from test_backbones_policy import make_policy, WORDS
import torch

STEPS = 6
ONE_OF_EACH = ('kosmos2', 'paligemma', 'llava', 'smolvlm', 'qwen3_vl', 'florence2')
LOSSES = LossConfig(fwd_loss_ratio=0.1, caption=True,
                    forward=ForwardConfig(frames=1, size=16, patch=8, width=16))


def make_batch(policy: Policy) -> Batch:
    """Return two windows of two steps with random labels."""
    torch.manual_seed(6)
    side = policy.manifest.cameras[0].height
    images = {camera.name: torch.randint(0, 256, (2, 2, side, side, 3), dtype=torch.uint8)
              for camera in policy.manifest.cameras}
    future = {'static': torch.randint(0, 256, (2, 2, 1, side, side, 3), dtype=torch.uint8)}
    return Batch(images, WORDS, torch.rand(2, 2, 2, 6) - 0.5,
                 torch.randint(0, 2, (2, 2, 2, 1)).float(),
                 torch.ones(2, 2, 2, dtype=torch.bool), torch.zeros(2, 2, 0), future)


def train(policy: Policy) -> tuple[dict[str, float], dict[str, float]]:
    """Fit one batch; return every loss before, and its lowest value on the way."""
    objective = Objective(policy, LOSSES).train()
    batch = make_batch(policy)
    images = {camera.name: normalise_images(batch.images[camera.name], camera)
              for camera in policy.manifest.cameras}
    tokens = policy.backbone.tokenize(WORDS)
    words = Words({'static': images['static'][:, 0]}, policy.backbone.tokenize(WORDS[::-1]))
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, 1e-3)
    history = []
    for _ in range(STEPS):
        text = policy.encode_instructions(WORDS)
        terms = objective(images, text, batch, tokens, words).terms
        history.append({name: term.value.item() for name, term in terms.items()})
        optimiser.zero_grad()
        total(terms).backward()
        optimiser.step()
    return history[0], {name: min(terms[name] for terms in history) for name in history[0]}


@pytest.mark.parametrize('kind', ONE_OF_EACH)
def test_every_loss_falls_when_the_whole_model_is_trained(kind: str, tmp_path: Path) -> None:
    """Arm, gripper, forward prediction, caption and co-training, on one batch."""
    before, after = train(make_policy(kind, tmp_path / 'model'))
    assert set(before) == {'arm', 'gripper', 'forward_static', 'caption', 'cotrain'}
    assert all(after[name] < before[name] for name in before), (before, after)


@pytest.mark.parametrize('kind', ['kosmos2', 'qwen2_5_vl'])
def test_lora_trains_while_the_weights_of_the_model_stay(kind: str, tmp_path: Path) -> None:
    """Low-rank parts beside the language model's layers; they merge into the same policy."""
    policy = make_policy(kind, tmp_path / 'model')
    backbone = policy.backbone
    assert isinstance(backbone, HuggingFaceBackbone)
    kept = {name: value.clone() for name, value in backbone.model.named_parameters()}
    tuning.apply(policy, tuning.TuneConfig(lora=tuning.LoraConfig(rank=2, dropout=0.0)))
    before, after = train(policy)
    assert after['arm'] < before['arm'] and after['caption'] < before['caption']
    found = {name.replace('.base_layer', ''): value
             for name, value in backbone.model.named_parameters() if 'lora_' not in name}
    assert all(torch.equal(found[name], value) for name, value in kept.items())
    policy.eval()
    images = {camera.name: torch.randn(1, 1, 3, camera.height, camera.width)
              for camera in policy.manifest.cameras}
    with torch.no_grad():
        adapted = policy(images, policy.encode_instructions(WORDS[:1]))
        with tuning.merged(policy):
            plain = policy(images, policy.encode_instructions(WORDS[:1]))
    torch.testing.assert_close(plain, adapted, atol=1e-5, rtol=0)


def test_frozen_model_trains_the_action_token_and_the_head(tmp_path: Path) -> None:
    """The weights stay, the arm loss falls."""
    policy = make_policy('kosmos2', tmp_path / 'model')
    backbone = policy.backbone
    assert isinstance(backbone, HuggingFaceBackbone)
    tuning.apply(policy, tuning.TuneConfig(freeze_vision=True, freeze_language=True,
                                           freeze_embeddings=True))
    kept = {name: value.clone() for name, value in backbone.model.named_parameters()}
    token = backbone.action_token.detach().clone()
    before, after = train(policy)
    assert after['arm'] < before['arm']
    assert not torch.equal(backbone.action_token, token)
    assert all(torch.equal(value, kept[name])
               for name, value in backbone.model.named_parameters())


def test_training_goes_on_after_acting(tmp_path: Path) -> None:
    """What acting keeps for the next tick (in inference mode) does not break a backward pass."""
    policy = make_policy('llava', tmp_path / 'model')
    blank = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8)
             for camera in policy.manifest.cameras}
    PolicyActor(policy).act(Observation(0, blank), WORDS[0])
    before, after = train(policy)
    assert after['arm'] < before['arm']


@pytest.mark.parametrize('kind', ONE_OF_EACH)
def test_checkpointed_gradients_are_the_same(kind: str, tmp_path: Path) -> None:
    """Recomputing the layers in the backward pass changes memory alone."""
    policy = make_policy(kind, tmp_path / 'model').train()
    images = {camera.name: torch.randn(1, 2, 3, camera.height, camera.width)
              for camera in policy.manifest.cameras}
    found = []
    for again in (False, True):
        if again:
            tuning.checkpoint_gradients(policy)
        policy.zero_grad()
        torch.manual_seed(7)
        chunk = policy(images, policy.encode_instructions(WORDS[:1]))
        chunk.continuous_BTKC.square().sum().backward()
        found.append({name: p.grad.clone() for name, p in policy.named_parameters()
                      if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)

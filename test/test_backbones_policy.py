"""Every family in a policy: training equals acting, and a checkpoint needs no other directory."""

from __future__ import annotations

from pathlib import Path
import shutil
import socket

import numpy as np
import pytest
import random_vlms
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.runtime.engine import EagerEngine, Seen
from ros2_lstm_policy.transforms import normalise, normalise_images
from ros2_lstm_policy.types import Observation
import torch
import transformers

WORDS = ('open the drawer', 'pick up the red block')
STEPS, WINDOW = 6, 4


def make_policy(kind: str, directory: Path, **decoder: object) -> Policy:
    """Make a policy of two cameras whose action token and decoder are random."""
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(4)
    side = random_vlms.side(kind)
    cameras = tuple(CameraSpec(name, side, side, 'bicubic', (0.5,) * 3, (0.5,) * 3)
                    for name in ('hand', 'static'))
    options = {'directory': str(random_vlms.make(kind, directory))}
    feature = decoder.pop('feature', None)
    if feature:
        options['feature'] = str(feature)
    sizes = {'hidden_size': 16, 'num_layers': 2, 'window_size': WINDOW, 'fwd_pred_next_n': 2}
    policy = Policy(
        PolicyConfig(BackboneConfig(random_vlms.family(kind), options),
                     DecoderConfig(**{**sizes, **decoder})),  # type: ignore[arg-type]
        one_arm('base', 'rotation_vector', 0.05, Normalisation((0.0,) * 6, (1.0,) * 6),
                cameras))
    with torch.no_grad():
        for parameter in policy.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if not feature:
            policy.backbone.action_token.normal_()  # type: ignore[attr-defined]
    return policy.eval()


def random_frames(policy: Policy) -> dict[str, np.ndarray]:
    """Return camera name to (B, T, H, W, 3) uint8."""
    generator = np.random.default_rng(5)
    return {camera.name: generator.integers(
        0, 256, (len(WORDS), STEPS, camera.height, camera.width, 3), dtype=np.uint8)
        for camera in policy.manifest.cameras}


def act(policy: Policy, frames: dict[str, np.ndarray], row: int) -> np.ndarray:
    """Return the chunks (T, K, 7) of one episode through the actor, arm normalised."""
    actor = PolicyActor(policy)
    chunks = []
    for step in range(STEPS):
        images = {name: image[row, step] for name, image in frames.items()}
        chunk = actor.act(Observation(step, images), WORDS[row]).chunk.copy()
        chunk[:, :6] = normalise(chunk[:, :6], policy.manifest.action('arm').normalisation)
        chunks.append(chunk)
    return np.stack(chunks)


def train_forward(policy: Policy, frames: dict[str, np.ndarray], begin: int,
                  end: int) -> np.ndarray:
    """Return the chunks (B, T, K, 7) of a batch of windows, as training computes them."""
    images = {camera.name: normalise_images(torch.from_numpy(
        frames[camera.name][:, begin:end]), camera) for camera in policy.manifest.cameras}
    with torch.no_grad():
        arm, logit = policy(images, policy.encode_instructions(WORDS))
    return torch.cat([arm, logit.sigmoid()], -1).numpy()


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_batched_training_equals_acting_step_by_step(kind: str, tmp_path: Path) -> None:
    """Two instructions of different lengths in one padded batch, against two episodes."""
    policy = make_policy(kind, tmp_path / 'model')
    frames = random_frames(policy)
    acted = np.stack([act(policy, frames, row) for row in range(len(WORDS))])
    np.testing.assert_allclose(acted[:, :WINDOW], train_forward(policy, frames, 0, WINDOW),
                               atol=1e-4)
    last = train_forward(policy, frames, STEPS - WINDOW, STEPS)[:, -1]
    np.testing.assert_allclose(acted[:, -1], last, atol=1e-4)
    assert np.abs(acted[:, 0] - acted[:, 1]).max() > 1e-4


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_checkpoint_needs_neither_the_model_directory_nor_a_network(
        kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It acts the same after the original directory is gone, and can be saved again."""
    policy = make_policy(kind, tmp_path / 'model')
    frames = random_frames(policy)
    before = act(policy, frames, 0)
    checkpoint.save(tmp_path / 'first', policy, 'card')
    shutil.rmtree(tmp_path / 'model')

    def no_network(*_: object) -> None:
        raise AssertionError('a checkpoint asked for the network')

    monkeypatch.setattr(socket.socket, 'connect', no_network)
    loaded = checkpoint.load(tmp_path / 'first')
    np.testing.assert_array_equal(act(loaded, frames, 0), before)
    checkpoint.save(tmp_path / 'second', loaded, 'card')
    assert checkpoint.fingerprint(tmp_path / 'second') == \
        checkpoint.fingerprint(tmp_path / 'first')


@pytest.mark.parametrize('down_sample', ['pooling', 'resampler'])
def test_pooled_tokens_train_as_they_act(down_sample: str, tmp_path: Path) -> None:
    """Image tokens through the decoder's pooling or its Perceiver resampler."""
    policy = make_policy('smolvlm', tmp_path / 'model', feature='vision', latent=2,
                         down_sample=down_sample)
    frames = random_frames(policy)
    acted = np.stack([act(policy, frames, row) for row in range(len(WORDS))])
    np.testing.assert_allclose(acted[:, :WINDOW], train_forward(policy, frames, 0, WINDOW),
                               atol=1e-4)


@pytest.mark.parametrize('kind', ['paligemma', 'qwen2_5_vl', 'llava'])
def test_bfloat16_keeps_the_rotary_frequencies(kind: str, tmp_path: Path) -> None:
    """Converted as the actor does on a GPU: in bfloat16 far positions would fall together."""
    backbone = make_policy(kind, tmp_path / 'model').backbone
    assert isinstance(backbone, HuggingFaceBackbone)
    before = {name: buffer.clone() for name, buffer in backbone.named_buffers()
              if name.endswith('inv_freq')}
    backbone.to(torch.bfloat16)
    after = dict(backbone.named_buffers())
    assert before
    assert all(torch.equal(after[name], buffer) for name, buffer in before.items())
    assert next(backbone.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_bfloat16_acts_nearly_as_float32(kind: str, tmp_path: Path) -> None:
    """The actor's half precision runs for every family and stays close."""
    policy = make_policy(kind, tmp_path / 'model')
    frames = random_frames(policy)
    exact = act(policy, frames, 0)
    actor = PolicyActor(policy, precision='bf16')
    images = {name: image[0, 0] for name, image in frames.items()}
    found = actor.act(Observation(0, images), WORDS[0]).chunk
    np.testing.assert_allclose(found[:, :6], exact[0, :, :6], atol=0.1)


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_a_text_that_is_padded_to_a_length_that_the_backbone_names_acts_the_same(
        kind: str, tmp_path: Path) -> None:
    """One CUDA graph then serves instructions of many lengths; a new one is no new capture."""
    policy = make_policy(kind, tmp_path / 'model')
    frames = random_frames(policy)
    seen = Seen({name: torch.from_numpy(image[0, 0]) for name, image in frames.items()},
                torch.zeros(0))
    lengths = policy.backbone.parts().text_lengths
    assert lengths and list(lengths) == sorted(lengths)
    plain, padded = EagerEngine(policy), EagerEngine(policy, text_lengths=lengths)
    shapes = set()
    for words in WORDS:
        text = padded.encode_text(words)
        shapes.add(tuple(part.shape for part in text))
        wanted = plain.encode(seen, plain.encode_text(words))
        assert (padded.encode(seen, text) - wanted).abs().max() <= 1e-5
    assert len(shapes) == 1

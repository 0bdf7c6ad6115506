"""What a robot's CPU runs in place of the compact backbone gives the same feature."""

import numpy as np
import pytest
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model import backbones
from ros2_lstm_policy.model.backbones.base import EncodedText
from ros2_lstm_policy.model.backbones.compact import packed
from ros2_lstm_policy.model.backbones.compact.acting import ActingCompact
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.types import Observation
import torch

SHORT, LONG = 'push it', 'pick up the tomato sauce and put it in the basket'
SQUARE, WIDE, ODD = (64, 64), (112, 160), (45, 83)


def make_cameras(*sizes):
    """Return a camera of each size."""
    return tuple(CameraSpec(name, *size, 'area', (0.5,) * 3, (0.5,) * 3)
                 for name, size in zip(('static', 'hand'), sizes))


@torch.no_grad()
def make_backbone(cameras, **options):
    """Return a small backbone in eval mode whose words and action tokens matter."""
    torch.manual_seed(0)
    small = {'width': 32, 'layers': 2, 'feed_forward': 32, 'film': True, **options}
    backbone = backbones.create('compact', small, cameras).eval()
    for name, parameter in backbone.named_parameters():
        if name.startswith(('film', 'action_tokens')) or name.endswith('bias'):
            parameter.add_(0.1 * torch.randn_like(parameter))
    return backbone


def make_images(cameras, seed=0):
    """Return a normalised image of noise for each camera."""
    generator = torch.Generator().manual_seed(seed)
    return {camera.name: torch.randn(1, 3, camera.height, camera.width, generator=generator)
            for camera in cameras}


@torch.no_grad()
def largest_difference(backbone, acting, cameras, instructions=(SHORT, LONG, SHORT)):
    """Return how far the features of both are apart over some frames, by their largest value."""
    found = []
    for seed, instruction in enumerate(instructions):
        text = backbone.encode_text(backbone.tokenize([instruction]))
        images = make_images(cameras, seed)
        wanted, got = backbone(images, text), acting(images, text)
        assert got.shape == wanted.shape
        found.append(float((got - wanted).abs().max() / wanted.abs().max()))
    return max(found)


@pytest.mark.parametrize('sizes', [(SQUARE, SQUARE), (WIDE, WIDE), (ODD, ODD), (WIDE,),
                                   (SQUARE, WIDE), (ODD,)])
@pytest.mark.parametrize('options', [{'vision_strides': [16, 32]},
                                     {'vision_strides': [8], 'film': False, 'action_tokens': 3}])
def test_the_form_for_acting_gives_the_same_feature(sizes, options):
    cameras = make_cameras(*sizes)
    backbone = make_backbone(cameras, **options)
    assert largest_difference(backbone, ActingCompact(backbone, cameras), cameras) <= 1e-5


def test_images_and_words_change_the_feature_far_more_than_the_tolerance():
    cameras = make_cameras(SQUARE, SQUARE)
    backbone = make_backbone(cameras)
    other = make_backbone(cameras)
    with torch.no_grad():
        other.film.layers['4'].bias.add_(0.1)
    assert largest_difference(other, ActingCompact(backbone, cameras), cameras) > 1e-3


def test_without_packeds_the_feature_is_the_same(monkeypatch):
    cameras = make_cameras(WIDE, WIDE)
    backbone = make_backbone(cameras)
    monkeypatch.setattr(packed, 'packs_convolutions', lambda: False)
    assert largest_difference(backbone, ActingCompact(backbone, cameras), cameras) <= 1e-5


def test_a_pytorch_with_onednn_packs_convolutions():
    """The operators are not public: an update that takes them away would only be slower."""
    assert packed.packs_convolutions() == torch.backends.mkldnn.is_available()


@pytest.mark.parametrize('gives', [RuntimeError('not on this processor'), 0.0])
def test_operators_that_fail_or_err_are_not_used(monkeypatch, gives):
    def convolved(images, *_, **__):
        if isinstance(gives, Exception):
            raise gives
        return torch.full_like(images, gives)
    monkeypatch.setattr(packed, '_convolved', convolved)
    assert not packed.packs_convolutions.__wrapped__()


def test_weights_that_change_later_do_not_reach_it():
    cameras = make_cameras(SQUARE)
    backbone = make_backbone(cameras)
    text = backbone.encode_text(backbone.tokenize([SHORT]))
    acting, images = ActingCompact(backbone, cameras), make_images(cameras)
    with torch.no_grad():
        before = acting(images, text)
        for parameter in backbone.parameters():
            parameter.mul_(1.5)
        assert torch.equal(acting(images, EncodedText(*text)), before)  # FiLM is run once a text


def test_an_actor_decides_alike_with_and_without_it_over_an_episode():
    torch.manual_seed(0)
    manifest = one_arm('base', 'rotation_vector', 0.1,
                       Normalisation((0.0,) * 6, (1.0,) * 6),
                       make_cameras(WIDE, WIDE))
    config = PolicyConfig(BackboneConfig('compact', {'film': True, 'vision_strides': [16, 32]}),
                          DecoderConfig(hidden_size=64, num_layers=2, window_size=4))
    policy = Policy(config, manifest).eval()
    rng = np.random.default_rng(0)
    plain, prepared = PolicyActor(policy, prepare=False), PolicyActor(policy)
    for t in range(10):
        if t == 7:
            plain.reset()
            prepared.reset()
        images = {camera.name: rng.integers(0, 256, (256, 256, 3), np.uint8)
                  for camera in manifest.cameras}
        observation, words = Observation(t, images), (SHORT, LONG)[t // 3 % 2]
        wanted, got = plain.act(observation, words), prepared.act(observation, words)
        assert np.abs(wanted.chunk - got.chunk).max() <= 1e-5, t

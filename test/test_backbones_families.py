"""Every family behind the one face: agreement with the library's own forward, padding, batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
import pytest
import random_vlms
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model import backbones
from ros2_lstm_policy.model.backbones.base import EncodedText
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.training.auxiliary.language import language_loss
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
import transformers

WORDS = ('open the drawer', 'pick up the red block')
MEAN_STD = (0.5, 0.5, 0.5)
Maker = Callable[..., HuggingFaceBackbone]


@pytest.fixture(scope='session')
def directories(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a kind's model directory once a session."""
    made: dict[str, Path] = {}

    def directory(kind: str) -> Path:
        if kind not in made:
            transformers.utils.logging.disable_progress_bar()
            made[kind] = random_vlms.make(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return directory


def cameras(kind: str, *names: str) -> list[CameraSpec]:
    """Return cameras of the size that the tiny kind takes."""
    side = random_vlms.side(kind)
    return [CameraSpec(name, side, side, 'bicubic', MEAN_STD, MEAN_STD) for name in names]


@pytest.fixture
def make(directories: Callable[[str], Path]) -> Maker:
    """Return a function that loads a kind's backbone with a random action token."""
    def backbone(kind: str, names: tuple[str, ...] = ('static', 'hand'),
                 **options: Any) -> HuggingFaceBackbone:
        torch.manual_seed(1)
        made = backbones.create(random_vlms.family(kind),
                                {'directory': str(directories(kind)), **options},
                                cameras(kind, *names))
        assert isinstance(made, HuggingFaceBackbone)
        if made.options.feature == 'action_token':
            made.action_token.data.normal_()
        return made.eval()
    return backbone


def frames(kind: str, batch: int,
           names: tuple[str, ...] = ('static', 'hand')) -> dict[str, Tensor]:
    """Return random normalised frames."""
    side = random_vlms.side(kind)
    generator = torch.Generator().manual_seed(2)
    return {name: torch.randn(batch, 3, side, side, generator=generator) for name in names}


def library_feature(kind: str, backbone: HuggingFaceBackbone, image: Tensor, words: str,
                    token: int) -> Tensor:
    """Run the library's own forward on one frame with `token` where the action token stands."""
    net, config = backbone.model, backbone.model.config
    text = backbone.tokenize([words]).ids_BN[0].tolist()
    before = [] if kind == 'kosmos2' else backbone._prompt.before(1)
    side = image.shape[-1]
    if kind == 'kosmos2':
        count = config.latent_query_num
        ids = torch.tensor([[text[0]] + [5] * count + text[1:] + [token]])
        places = torch.zeros_like(ids)
        places[:, 1:1 + count] = 1
        return net(pixel_values=image, input_ids=ids, image_embeds_position_mask=places,
                   output_hidden_states=True).hidden_states[-1][:, -1]
    count = {'paligemma': 4, 'paligemma2': 4, 'llava': 4, 'smolvlm': 4, 'idefics3': 4,
             'qwen2_5_vl': 4, 'qwen3_vl': 4, 'florence2': 5}[kind]
    place = backbone.tokenizer.convert_tokens_to_ids(backbone.family.traits.image_token)
    first = [i for chunk in before for i in (chunk if chunk else [place] * count)]
    ids = torch.tensor([first + text + [token]])
    if kind.startswith('paligemma'):
        kinds = torch.zeros_like(ids)
        kinds[:, -1] = 1
        return net.model(pixel_values=image, input_ids=ids, token_type_ids=kinds,
                         attention_mask=torch.ones_like(ids)).last_hidden_state[:, -1]
    if kind == 'florence2':
        return net(pixel_values=image, input_ids=ids).encoder_last_hidden_state[:, -1]
    if kind.startswith('qwen'):
        patch = config.vision_config.patch_size
        picture = ((image[0] * 0.5 + 0.5) * 255).round().byte()
        processor = transformers.models.qwen2_vl.Qwen2VLImageProcessorPil(
            patch_size=patch, do_resize=False, image_mean=MEAN_STD, image_std=MEAN_STD)
        found = processor([Image.fromarray(picture.permute(1, 2, 0).numpy())], return_tensors='pt')
        assert found['image_grid_thw'].tolist() == [[1, side // patch, side // patch]]
        return net.model(input_ids=ids, **found, mm_token_type_ids=(ids == place).int(),
                         attention_mask=torch.ones_like(ids)).last_hidden_state[:, -1]
    pixels = image[:, None] if kind in ('smolvlm', 'idefics3') else image
    return net.model(pixel_values=pixels, input_ids=ids).last_hidden_state[:, -1]


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_feature_equals_the_librarys_own_forward(kind: str, make: Maker) -> None:
    """Words, image tokens, positions, masks and scales are those of the family."""
    backbone = make(kind, ('static',))
    token = 40
    with torch.no_grad():
        embedding = backbone.model.get_input_embeddings()(torch.tensor([token]))[0]
        backbone.action_token.data.copy_(embedding)
        side = random_vlms.side(kind)
        levels = torch.randint(0, 256, (1, 3, side, side))
        image = (levels / 255.0 - 0.5) / 0.5
        text = backbone.encode_text(backbone.tokenize(WORDS[:1]))
        found = backbone({'static': image}, text)[:, 0]
        wanted = library_feature(kind, backbone, image, WORDS[0], token)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


class NothingComesOver(TorchDispatchMode):
    """Refuses what moves from the CPU to the device, which a CUDA graph would not do again."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        """Look at where the operands and the outcome of one operation are."""
        made = func(*args, **(kwargs or {}))
        operands = [each for each in tree_flatten((args, kwargs, made))[0]
                    if isinstance(each, Tensor) and each.dim()]
        assert len({each.device.type for each in operands}) < 2, func
        return made


class Products(TorchDispatchMode):
    """Counts products of matrices, and the widths that they come out with."""

    def __init__(self) -> None:
        """Begin at none."""
        super().__init__()
        self.count, self.convolutions, self.widths = 0, 0, set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        """Count one operation."""
        made = func(*args, **(kwargs or {}))
        if func._schema.name in ('aten::mm', 'aten::addmm', 'aten::linear'):
            self.count += 1
            self.widths.add(made.shape[-1])
        self.convolutions += 'conv' in func._schema.name
        return made


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_a_frame_is_encoded_without_a_look_back_at_the_cpu(kind: str, make: Maker) -> None:
    """
    A CUDA graph holds it: after the first frame nothing is read back, and nothing comes over.

    Stands in for a GPU: the device `meta`, which has no numbers that could be read back.
    """
    backbone = make(kind).to('meta')
    text = EncodedText(*(part.to('meta') for part in backbone.encode_text(
        backbone.tokenize(WORDS[:1]))))
    images = {name: image.to('meta') for name, image in frames(kind, 1).items()}
    with torch.no_grad():
        first = backbone(images, text)
        with NothingComesOver():
            assert backbone(images, text).shape == first.shape


def of_random_biases(backbone: HuggingFaceBackbone) -> HuggingFaceBackbone:
    """Let biases matter, which are made as zeros."""
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name.endswith('bias'):
                parameter.normal_(0, 0.1)
    return backbone


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_joined_products_are_those_of_the_single_layers(kind: str, make: Maker) -> None:
    """For a GPU that acts; the parameters stay, under their names, and are trained as before."""
    backbone = of_random_biases(make(kind))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    images, text = frames(kind, 2), backbone.tokenize(WORDS)
    lay_out = backbone.parts().for_gpu
    assert lay_out is not None
    with torch.inference_mode():
        wanted = backbone(images, backbone.encode_text(text))
        lay_out()
        with Products() as joined:
            found = backbone(images, backbone.encode_text(text))
        lay_out()
        with Products() as again:
            backbone(images, backbone.encode_text(text))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    trained = backbone(images, backbone.encode_text(text))
    torch.testing.assert_close(trained, wanted, atol=1e-5, rtol=0)
    trained.square().sum().backward()
    assert {name: value.shape for name, value in backbone.state_dict().items()} == \
        {name: value.shape for name, value in before.items()}
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    plain = make(kind)
    plain(images, plain.encode_text(text)).square().sum().backward()
    assert [each.grad is None for each in backbone.parameters()] == \
        [each.grad is None for each in plain.parameters()]
    with torch.inference_mode(), Products() as single:
        plain(images, plain.encode_text(text))
    assert joined.count == again.count < single.count + single.convolutions
    assert joined.convolutions == 0 or kind == 'florence2'  # whose patches overlap


def test_a_feed_forward_of_an_odd_width_is_filled_up_with_zeros(tmp_path: Path) -> None:
    """Qwen2.5-VL's tower has 3420 features there, for which a GPU has slow kernels alone."""
    directory = random_vlms.make('qwen2_5_vl', tmp_path, {'vision': {'intermediate_size': 50}})
    torch.manual_seed(1)
    backbone: Any = backbones.create('qwen_vl', {'directory': str(directory)},
                                     cameras('qwen2_5_vl', 'static'))
    of_random_biases(backbone)
    images = frames('qwen2_5_vl', 1, ('static',))
    with torch.inference_mode():
        text = backbone.encode_text(backbone.tokenize(WORDS[:1]))
        wanted = backbone(images, text)
        backbone.parts().for_gpu()
        with Products() as products:
            found = backbone(images, text)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert products.widths and not any(width % 8 for width in products.widths)


@pytest.mark.parametrize('layer', [-2, -1, 1, [-2, -1]])
@pytest.mark.parametrize('strategy', ['default', 'full'])
def test_llava_reads_the_layer_that_its_config_names(layer: int | list[int], strategy: str,
                                                     tmp_path: Path) -> None:
    """And computes none behind it."""
    sizes = {'vision_feature_layer': layer, 'vision_feature_select_strategy': strategy}
    directory = random_vlms.make('llava', tmp_path, {'top': sizes})
    backbone: Any = backbones.create('llava', {'directory': str(directory)},
                                     cameras('llava', 'static'))
    pixels = frames('llava', 2, ('static',))['static']
    with torch.no_grad():
        wanted = backbone.model.model.get_image_features(
            pixel_values=pixels, vision_feature_layer=layer,
            vision_feature_select_strategy=strategy).pooler_output
        found = backbone.family.image_tokens(backbone.model, pixels).tokens_BND
    torch.testing.assert_close(found, torch.stack(list(wanted)), atol=1e-6, rtol=0)


@pytest.mark.parametrize('size', [(112, 112), (112, 168), (84, 140)])
@pytest.mark.parametrize('kind', ['qwen2_5_vl', 'qwen3_vl'])
def test_a_qwen_tower_whose_sizes_are_known_gives_the_librarys_tokens(
        kind: str, size: tuple[int, int], make: Maker) -> None:
    """Of one window and of several, equal or cut off at the edge; and after another size."""
    backbone = make(kind)
    patch = backbone.model.config.vision_config.patch_size
    pixels = torch.randn(2, 3, *(side * patch // 14 for side in size))
    rows, columns = (side // 14 for side in size)
    family: Any = backbone.family
    with torch.no_grad():
        family.image_tokens(backbone.model, pixels[:1, :, :2 * patch, :2 * patch])
        patches = family.patches(backbone.model, pixels)
        wanted = backbone.model.model.visual(
            patches, grid_thw=torch.tensor([[1, rows, columns]] * 2))
        found = family.image_tokens(backbone.model, pixels)
    torch.testing.assert_close(found.tokens_BND.flatten(0, 1), wanted.pooler_output, atol=1e-6,
                               rtol=0)
    for ours, theirs in zip(found.deep, wanted.get('deepstack_features', ())):
        torch.testing.assert_close(ours.flatten(0, 1), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize('attention', ['eager', 'sdpa'])
@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_padded_batch_equals_each_instruction_alone(kind: str, attention: str,
                                                    make: Maker) -> None:
    """Padding of the instruction never changes the feature."""
    backbone = make(kind, attention=attention)
    images = frames(kind, 2)
    with torch.no_grad():
        together = backbone(images, backbone.encode_text(backbone.tokenize(WORDS)))
        for i, words in enumerate(WORDS):
            alone = backbone({name: image[i:i + 1] for name, image in images.items()},
                             backbone.encode_text(backbone.tokenize([words])))
            torch.testing.assert_close(together[i:i + 1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_both_cameras_and_the_words_reach_the_feature(kind: str, make: Maker) -> None:
    """Another static frame, hand frame or instruction gives another feature."""
    backbone = make(kind)
    with torch.no_grad():
        words = [backbone.encode_text(backbone.tokenize([w])) for w in WORDS]
        images = frames(kind, 1)
        base = backbone(images, words[0])
        for name in images:
            assert (backbone({**images, name: -images[name]}, words[0]) - base).abs().max() > 1e-4
        assert (backbone(images, words[1]) - base).abs().max() > 1e-4
        swapped = {'static': images['hand'], 'hand': images['static']}
        assert (backbone(swapped, words[0]) - base).abs().max() > 1e-5


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_words_are_predicted_from_images_and_earlier_words_alone(kind: str, make: Maker) -> None:
    """A logit changes with the image and never with its own or a later word."""
    backbone = make(kind)
    assert backbone.parts().speaker is backbone
    images = frames(kind, 1, ('static',))
    text = backbone.tokenize(WORDS[:1])
    length = text.ids_BN.shape[1]
    with torch.no_grad():
        base = backbone.next_token_logits(images, text)
        other_image = backbone.next_token_logits({'static': -images['static']}, text)
        changed = text.ids_BN.clone()
        changed[0, -1] = 50
        late = backbone.next_token_logits(images, text._replace(ids_BN=changed))
        changed[0, 1] = 50
        early = backbone.next_token_logits(images, text._replace(ids_BN=changed))
    assert base.shape[:2] == (1, length - 1)
    assert (other_image - base).abs().max() > 1e-4
    torch.testing.assert_close(late, base, atol=1e-5, rtol=0)
    torch.testing.assert_close(early[:, 0], base[:, 0], atol=1e-5, rtol=0)
    assert (early[:, 1] - base[:, 1]).abs().max() > 1e-4


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_every_loss_reaches_the_parts_that_it_trains(kind: str, make: Maker) -> None:
    """Action features and captions give gradients to vision, words and the action token."""
    backbone = make(kind)
    images = frames(kind, 2)
    text = backbone.tokenize(WORDS)
    backbone(images, backbone.encode_text(text)).square().sum().backward()
    embedding = backbone.model.get_input_embeddings().weight
    assert backbone.action_token.grad is not None
    assert backbone.action_token.grad.abs().sum() > 0
    assert embedding.grad.abs().sum() > 0
    vision = [p.grad for module in backbone.vision_modules() for p in module.parameters()
              if p.grad is not None]
    assert sum(g.abs().sum() for g in vision) > 0
    backbone.zero_grad()
    language_loss(backbone.next_token_logits(images, text), text).backward()
    assert embedding.grad.abs().sum() > 0


@pytest.mark.parametrize('feature', ['text', 'vision', 'all'])
@pytest.mark.parametrize('kind', ['kosmos2', 'qwen2_5_vl'])
def test_pooled_tokens_do_not_depend_on_padding(kind: str, feature: str, make: Maker) -> None:
    """The maximum over the chosen tokens is that of the instruction alone."""
    backbone = make(kind, feature=feature)
    images = frames(kind, 2)
    with torch.no_grad():
        together = backbone(images, backbone.encode_text(backbone.tokenize(WORDS)))
        alone = backbone({name: image[:1] for name, image in images.items()},
                         backbone.encode_text(backbone.tokenize(WORDS[:1])))
    assert together.ndim == 3
    torch.testing.assert_close(together[:1].amax(1), alone.amax(1), atol=1e-5, rtol=0)
    if feature == 'vision':
        assert together.shape[1] == 2 * 4


def test_grey_image_is_an_image_for_smolvlm(make: Maker) -> None:
    """The library drops images that are exactly zero; a grey camera is not padding."""
    backbone = make('smolvlm')
    images = frames('smolvlm', 1)
    images['hand'] = torch.zeros_like(images['hand'])
    with torch.no_grad():
        found = backbone(images, backbone.encode_text(backbone.tokenize(WORDS[:1])))
    assert found.isfinite().all()


def test_action_tokens_are_as_many_as_asked_for(make: Maker) -> None:
    """`action_tokens` is the decoder's `latent`."""
    backbone = make('kosmos2', action_tokens=3)
    with torch.no_grad():
        found = backbone(frames('kosmos2', 2), backbone.encode_text(backbone.tokenize(WORDS)))
    assert found.shape[:2] == (2, 3)

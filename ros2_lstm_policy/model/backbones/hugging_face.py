"""
One machine for all Hugging Face vision-language models; a family file says what is different.

One frame is one sequence: the words before the images, the image tokens of each camera in the
manifest's order, the words with the instruction, and a learned action token. The feature is the
last hidden state at the action token ("continuous action token" of RoboVLMs, arXiv 2412.14058),
or, without one, the hidden states of the text, of the images or of all. The vocabulary projection
runs for language losses alone.

Padding stands after the action token, where a causal model cannot see it, so that a padded batch
equals the same instructions one by one. Letters beside those of `types`: P action tokens, M text
tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones import pretrained
from ros2_lstm_policy.model.backbones.base import EncodedText, InstructionTooLong, TextTokens
import torch
from torch import nn, Tensor
from torch.nn import functional

INSTRUCTION, IMAGES = '{instruction}', '{images}'
ASSETS = 'backbone'  # where config.json and the tokenizer files lie in a checkpoint


@dataclass(frozen=True)
class Options:
    """
    What a configuration says about a Hugging Face backbone.

    :param directory: the model: a local directory, or the hub name of a cached model.
    :param prompt: the words around `{instruction}` (and `{images}`); empty for the family's own.
    :param feature: where the feature is read: at the learned action token(s), or all hidden states
        of the text, of the images or of both, for a decoder that pools them.
    :param action_tokens: copies of the action token, the decoder's `latent`.
    :param layout: 'compact' puts the action token behind the last word. 'robovlms' puts it before
        the last column of the padded text, as the published checkpoints were trained.
    :param attention: kernel; eager is the reference, sdpa is faster.
    :param dtype: of the weights; features come in the images' dtype.
    :param max_text_tokens: a longer prompt is refused, never cut.
    :param allow_download: fetch a model that is not on this machine.
    :param freeze_vision: keep the vision tower and its projector as they are.
    :param freeze_language: keep the language model as it is.
    """

    directory: str
    prompt: str = ''
    feature: Literal['action_token', 'text', 'vision', 'all'] = 'action_token'
    action_tokens: int = 1
    layout: Literal['compact', 'robovlms'] = 'compact'
    attention: Literal['eager', 'sdpa'] = 'sdpa'
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    max_text_tokens: int = 128
    allow_download: bool = False
    freeze_vision: bool = False
    freeze_language: bool = False

    def __post_init__(self) -> None:
        """Refuse what no sequence can have."""
        if self.action_tokens < 1 or self.max_text_tokens < 2:
            raise ValueError('action_tokens must be at least 1 and max_text_tokens at least 2')
        if self.prompt and INSTRUCTION not in self.prompt:
            raise ValueError(f'prompt {self.prompt!r} lacks {INSTRUCTION}')


class ImageTokens(NamedTuple):
    """
    One camera's image as the language model takes it.

    :param tokens_BND: in the language model's width.
    :param grid: rows and columns of tokens.
    :param deep: more features of the same shape, added to the first layers (Qwen3-VL).
    """

    tokens_BND: Tensor
    grid: tuple[int, int]
    deep: tuple[Tensor, ...] = ()


class Span(NamedTuple):
    """Where one image stands in the sequence."""

    start: int
    image: ImageTokens


class Frame(NamedTuple):
    """
    One frame as a sequence.

    :param embeds_BND: word embeddings and image tokens.
    :param valid_BN: bool, False for padding.
    :param mask_BN: the same, or None where padding stands last and causality hides it.
    :param spans: the images, in order.
    :param prefix_B: columns that see each other in models with prefix attention.
    """

    embeds_BND: Tensor
    valid_BN: Tensor
    mask_BN: Tensor | None
    spans: tuple[Span, ...]
    prefix_B: Tensor


class Family(Protocol):
    """
    What differs between families.

    :param model_types: `model_type` in config.json.
    :param prompt: words around `{images}` and `{instruction}`; without `{images}` they stand
        behind the first token.
    :param image_text: what the prompt shows for one image, with one `image_token`.
    :param image_token: the placeholder in the vocabulary; empty where there is none.
    :param adds_special_tokens: whether the tokenizer adds its own at both ends of the prompt.
    :param causal: whether a token sees earlier ones only.
    :param vision_parts: submodules from the pixels to the language model's width.
    :param capturable: whether a CUDA graph can hold it, with nothing read back on the way.
    """

    model_types: tuple[str, ...]
    prompt: str
    image_text: str
    image_token: str
    adds_special_tokens: bool
    causal: bool
    vision_parts: tuple[str, ...]
    capturable: bool

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Raise ValueError for an image size that the vision tower does not take."""

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Encode images, through the projector into the language model's width."""

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Return the last hidden states (B, N, D), without the vocabulary projection."""

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Return (B, M - 1, D): what the vocabulary projection reads each next text token from."""


class HuggingFaceBackbone(nn.Module):
    """A Hugging Face model behind the `Backbone` Protocol, and a `LanguageModel` too."""

    def __init__(self, families: Sequence[Family], options: Options,
                 cameras: Sequence[CameraSpec], checkpoint: Path | None = None) -> None:
        """
        Load the model's weights, or only build it where a checkpoint's weights follow.

        :param families: the variants that the module knows; config.json chooses one.
        :param checkpoint: a directory that :meth:`save_assets` wrote into; None to load
            `options.directory`.
        :raises ValueError: for a model that is not here, is another or does not fit.
        """
        super().__init__()
        self.options = options
        self.cameras = tuple(camera.name for camera in cameras)
        where = checkpoint / ASSETS if checkpoint else \
            pretrained.find(options.directory, options.allow_download)
        known = {name: family for family in families for name in family.model_types}
        self.directory = pretrained.check(where, tuple(known))
        self.family = known[self.directory.model_type]
        self.capturable = self.family.capturable
        self.tokenizer = pretrained.load_tokenizer(self.directory)
        make = pretrained.build_model if checkpoint else pretrained.load_model
        self.model = make(self.directory, options.dtype, options.attention)
        for camera in cameras:
            self.family.check_image(self.model.config, camera)
        self.feature_dim = self.model.get_input_embeddings().weight.shape[1]
        if options.feature == 'action_token':
            self.action_token = nn.Parameter(torch.zeros(self.feature_dim))
        self._prompt = _Prompt(self.family, options, self.tokenizer, len(self.cameras))
        self._before: dict[tuple[int, torch.device], list[Tensor | None]] = {}
        self._freeze()

    def tokenize(self, instructions: Sequence[str]) -> TextTokens:
        """Turn instructions into the tokens that follow the images, padded on the right."""
        rows = [self._prompt.text_ids(instruction) for instruction in instructions]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, :len(row)], mask[i, :len(row)] = torch.tensor(row), True
        return TextTokens(ids, mask)

    def encode_text(self, text: TextTokens) -> EncodedText:
        """Look the words up: (B, M, D) embeddings."""
        embed = self.model.get_input_embeddings()
        device = embed.weight.device
        return EncodedText(embed(text.ids_BN.to(device)), text.mask_BN.to(device))

    def forward(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """Return (B, P, D) at the action tokens, or (B, N, D) of the chosen tokens."""
        frame = self._frame({name: images[name] for name in self.cameras}, text)
        dtype = images[self.cameras[0]].dtype
        if self.options.feature != 'action_token':
            hidden = self.family.hidden_states(self.model, frame)
            return self._pool(hidden, frame, text).to(dtype)
        frame, start_B = self._with_action(frame, text)
        hidden = self.family.hidden_states(self.model, frame)
        columns_BP = start_B[:, None] + torch.arange(self.options.action_tokens,
                                                     device=start_B.device)
        return _columns(hidden, columns_BP).to(dtype)

    def next_token_logits(self, images: Mapping[str, Tensor], text: TextTokens) -> Tensor:
        """Return (B, M - 1, V): row i is for text token i + 1, after the images and tokens to i."""
        frame = self._frame(images, self.encode_text(text))
        states = self.family.text_states(self.model, frame, text)
        return self.model.get_output_embeddings()(states)

    def save_assets(self, directory: Path) -> None:
        """Write config.json and the tokenizer files into a checkpoint."""
        pretrained.copy_assets(self.directory.path, directory / ASSETS)

    def _frame(self, images: Mapping[str, Tensor], text: EncodedText) -> Frame:
        words_BMD, lead = text.states_BND, self._prompt.lead
        parts: list[Tensor] = [words_BMD[:, :lead]]
        spans: list[Span] = []
        encoded = iter(self._encode_images(images))
        for ids in self._words_before(len(images), words_BMD.device):
            if ids is None:
                image = next(encoded)
                spans.append(Span(sum(part.shape[1] for part in parts), image))
                parts.append(image.tokens_BND)
            else:
                words = self.model.get_input_embeddings()(ids)
                parts.append(words.expand(len(words_BMD), -1, -1))
        added = sum(part.shape[1] for part in parts[1:])
        parts.append(words_BMD[:, lead:])
        embeds = torch.cat([part.to(words_BMD.dtype) for part in parts], 1)
        valid = torch.cat([text.mask_BN[:, :lead],
                           text.mask_BN.new_ones(len(words_BMD), added),
                           text.mask_BN[:, lead:]], 1)
        prefix = torch.full((len(words_BMD),), lead + added, device=embeds.device)
        return Frame(embeds, valid, self._mask(valid), tuple(spans), prefix)

    def _mask(self, valid_BN: Tensor) -> Tensor | None:
        """Return the mask to pass on: none where padding stands last and causality hides it."""
        hidden = self.family.causal and self.options.layout == 'compact'
        return None if hidden else valid_BN

    def _words_before(self, cameras: int, device: torch.device) -> list[Tensor | None]:
        key = (cameras, device)
        if key not in self._before:
            self._before[key] = [chunk and torch.tensor([chunk], device=device)
                                 for chunk in self._prompt.before(cameras)]
        return self._before[key]

    def _encode_images(self, images: Mapping[str, Tensor]) -> list[ImageTokens]:
        pixels = [image.to(self.model.dtype) for image in images.values()]
        if len({image.shape for image in pixels}) > 1:
            return [self.family.image_tokens(self.model, image) for image in pixels]
        together = self.family.image_tokens(self.model, torch.cat(pixels))
        tokens = together.tokens_BND.chunk(len(pixels))
        deep = [layer.chunk(len(pixels)) for layer in together.deep]
        return [ImageTokens(tokens[i], together.grid, tuple(layer[i] for layer in deep))
                for i in range(len(pixels))]

    def _with_action(self, frame: Frame, text: EncodedText) -> tuple[Frame, Tensor]:
        count = self.options.action_tokens
        action = self.action_token.to(frame.embeds_BND.dtype)
        if self.options.layout == 'robovlms':
            actions = action.expand(len(frame.embeds_BND), count, -1)
            embeds = torch.cat([frame.embeds_BND[:, :-1], actions], 1)
            valid = torch.cat([frame.valid_BN[:, :-1],
                               frame.valid_BN.new_ones(len(embeds), count)], 1)
            start_B = torch.full_like(frame.prefix_B, frame.embeds_BND.shape[1] - 1)
            return frame._replace(embeds_BND=embeds, valid_BN=valid, mask_BN=valid,
                                  prefix_B=start_B), start_B
        padding = text.mask_BN.shape[1] - text.mask_BN.sum(1)
        start_B = frame.embeds_BND.shape[1] - padding
        embeds = functional.pad(frame.embeds_BND, (0, 0, 0, count))
        offset_BN = torch.arange(embeds.shape[1], device=embeds.device) - start_B[:, None]
        is_action_BN = (offset_BN >= 0) & (offset_BN < count)
        embeds = torch.where(is_action_BN[..., None], action, embeds)
        valid = functional.pad(frame.valid_BN, (0, count)) | is_action_BN
        return frame._replace(embeds_BND=embeds, valid_BN=valid, mask_BN=self._mask(valid),
                              prefix_B=start_B), start_B

    def _pool(self, hidden: Tensor, frame: Frame, text: EncodedText) -> Tensor:
        """Choose tokens; padding repeats the last word, which a maximum over tokens ignores."""
        length, words = hidden.shape[1], text.mask_BN.shape[1] - self._prompt.lead
        reference = self.options.layout == 'robovlms'
        columns = torch.arange(length, device=hidden.device)
        if self.options.feature == 'vision':
            columns = torch.cat([columns[span.start:span.start + span.image.tokens_BND.shape[1]]
                                 for span in frame.spans])
        elif self.options.feature == 'text':
            columns = columns[length - words:length - reference]  # not the last: the end token
        columns_BP = columns.expand(len(hidden), -1)
        if not reference:
            last_B = length - 1 - (~text.mask_BN).sum(1)
            columns_BP = torch.minimum(columns_BP, last_B[:, None])
        return _columns(hidden, columns_BP)

    def _freeze(self) -> None:
        inside = {id(p) for name in self.family.vision_parts
                  for p in self.model.get_submodule(name).parameters()}
        for parameter in self.model.parameters():
            if id(parameter) in inside and self.options.freeze_vision:
                parameter.requires_grad_(False)
            if id(parameter) not in inside and self.options.freeze_language:
                parameter.requires_grad_(False)


class _Prompt:
    """The prompt of one policy: what stands before the images, and the text after them."""

    def __init__(self, family: Family, options: Options, tokenizer: Any, cameras: int) -> None:
        self._family, self._options, self._tokenizer = family, options, tokenizer
        self._template = options.prompt or family.prompt
        self._cameras = cameras
        self.lead = 0 if IMAGES in self._template else 1
        self._image_id = tokenizer.convert_tokens_to_ids(family.image_token) \
            if family.image_token else None
        if not self.lead and self._template.index(IMAGES) > self._template.index(INSTRUCTION):
            raise ValueError(f'prompt {self._template!r}: {IMAGES} must stand before '
                             f'{INSTRUCTION}')
        if not self.lead and self._image_id in (None, tokenizer.unk_token_id):
            raise ValueError(f'{tokenizer.name_or_path}: the tokenizer has no '
                             f'{family.image_token!r}, which the prompt needs for {IMAGES}')

    def before(self, cameras: int) -> list[list[int] | None]:
        """Return token ids up to the last image, with None where an image stands."""
        if self.lead:
            return [None] * cameras
        chunks: list[list[int] | None] = []
        words: list[int] = []
        ids = self._ids('', cameras)
        for token in ids[:self._after_images(ids)]:
            if token == self._image_id:
                chunks += [words, None] if words else [None]
                words = []
            else:
                words.append(token)
        return chunks

    def text_ids(self, instruction: str) -> list[int]:
        """
        Return the token ids after the last image (with `lead`, all of them).

        :raises InstructionTooLong: where there are more than `max_text_tokens`.
        """
        ids = self._ids(instruction.strip(), self._cameras)
        ids = ids if self.lead else ids[self._after_images(ids):]
        compact = self._options.layout == 'compact'
        if compact and self._family.adds_special_tokens and len(ids) > 1 \
                and ids[-1] == self._tokenizer.eos_token_id:
            ids = ids[:-1]
        if len(ids) > self._options.max_text_tokens:
            raise InstructionTooLong(
                f'the instruction makes {len(ids)} tokens, max_text_tokens is '
                f'{self._options.max_text_tokens}: {instruction!r}')
        return ids

    def _ids(self, instruction: str, cameras: int) -> list[int]:
        if not self.lead and self._family.image_token in instruction:
            raise ValueError(f'the instruction holds {self._family.image_token!r}, which stands '
                             f'for an image: {instruction!r}')
        text = self._template.replace(IMAGES, self._family.image_text * cameras)
        text = text.replace(INSTRUCTION, instruction)
        return self._tokenizer(text, add_special_tokens=self._family.adds_special_tokens).input_ids

    def _after_images(self, ids: list[int]) -> int:
        return len(ids) - ids[::-1].index(self._image_id)


def causal_states(language_model: Any, frame: Frame, **extra: Any) -> Tensor:
    """Run a decoder-only language model on embeddings."""
    return language_model(inputs_embeds=frame.embeds_BND, attention_mask=frame.mask_BN,
                          use_cache=False, **extra).last_hidden_state


def check_square(config: Any, camera: CameraSpec) -> None:
    """
    Check the image size for a tower whose positions were learned for one size.

    :raises ValueError: where the camera gives another size.
    """
    side = config.vision_config.image_size
    if (camera.height, camera.width) != (side, side):
        raise ValueError(f'camera {camera.name!r}: {camera.height}x{camera.width}, but the vision '
                         f'tower of this {config.model_type} takes {side}x{side}; set height and '
                         'width of the camera in the manifest')


def _columns(hidden_BND: Tensor, columns_BP: Tensor) -> Tensor:
    return hidden_BND.gather(1, columns_BP[..., None].expand(-1, -1, hidden_BND.shape[-1]))

"""
What a family of vision-language models says about itself, and the values that pass to and from it.

A family file is a class with `traits` and four methods; `hugging_face` does the rest.
Letters beside those of `types`: P action tokens, M text tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import TextTokens
from torch import Tensor

INSTRUCTION, IMAGES = '{instruction}', '{images}'


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
    """

    TRAINS_EVERY_PARAMETER: ClassVar[bool] = False  # the vocabulary projection never acts

    directory: str
    prompt: str = ''
    feature: Literal['action_token', 'text', 'vision', 'all'] = 'action_token'
    action_tokens: int = 1
    layout: Literal['compact', 'robovlms'] = 'compact'
    attention: Literal['eager', 'sdpa'] = 'sdpa'
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    max_text_tokens: int = 128
    allow_download: bool = False

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


@dataclass(frozen=True)
class Traits:
    """
    What is fixed for a family.

    :param model_types: `model_type` in config.json.
    :param prompt: words around `{images}` and `{instruction}`; without `{images}` they stand
        behind the first token.
    :param vision_parts: submodules from the pixels to the language model's width.
    :param image_text: what the prompt shows for one image, with one `image_token`.
    :param image_token: the placeholder in the vocabulary; empty where there is none.
    :param adds_special_tokens: whether the tokenizer adds its own at both ends of the prompt.
    :param other_text: language models in directories of the same `model_type` that are laid out
        otherwise, and what to take instead.
    :param causal: whether a token sees earlier ones only.
    """

    model_types: tuple[str, ...]
    prompt: str
    vision_parts: tuple[str, ...]
    image_text: str = ''
    image_token: str = ''
    adds_special_tokens: bool = False
    other_text: Mapping[str, str] = field(default_factory=dict)
    causal: bool = True


class Family(Protocol):
    """
    What differs between families.

    :param traits: what is fixed.
    """

    traits: Traits

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Raise ConfigError for an image size that the vision tower does not take."""

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Encode images, through the projector into the language model's width."""

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Return the last hidden states (B, N, D), without the vocabulary projection."""

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Return (B, M - 1, D): what the vocabulary projection reads each next text token from."""


def causal_states(language_model: Any, frame: Frame, **extra: Any) -> Tensor:
    """Run a decoder-only language model on embeddings."""
    with _causality_alone() if frame.mask_BN is None else nullcontext():
        return language_model(inputs_embeds=frame.embeds_BND, attention_mask=frame.mask_BN,
                              use_cache=False, **extra).last_hidden_state


@contextmanager
def _causality_alone() -> Iterator[None]:
    """
    Keep the library from making a mask where causality is all that there is to mask.

    Without a mask it looks for several sequences packed into one row. While a CUDA graph is
    captured it cannot read what it found, and then builds a mask of all pairs, which rules flash
    attention out and differs from what ran before the capture.
    """
    from transformers import masking_utils
    needless, packed = (masking_utils._ignore_causal_mask_sdpa,
                        masking_utils.find_packed_sequence_indices)

    def is_needless(*arguments: Any, **named: Any) -> bool:
        given = signature(needless).bind(*arguments, **named).arguments
        return given.get('local_attention_size') is None

    masking_utils._ignore_causal_mask_sdpa = is_needless
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils._ignore_causal_mask_sdpa = needless
        masking_utils.find_packed_sequence_indices = packed


def check_square(config: Any, camera: CameraSpec) -> None:
    """
    Check the image size for a tower whose positions were learned for one size.

    :raises ConfigError: where the camera gives another size.
    """
    side = config.vision_config.image_size
    if (camera.height, camera.width) != (side, side):
        raise ConfigError(f'camera {camera.name!r}: {camera.height}x{camera.width}, but the '
                          f'tower of this {config.model_type} takes {side}x{side}; set height '
                          'and width of the camera in the manifest')

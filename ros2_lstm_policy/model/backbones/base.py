"""The face that every vision-language backbone has, and the values that pass through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from ros2_lstm_policy.manifest import CameraSpec
from torch import nn, Tensor


class InstructionTooLong(ValueError):
    """An instruction with more tokens than the policy was made for; it is never cut silently."""


class TextTokens(NamedTuple):
    """
    Token ids of B instructions.

    :param ids_BN: int64, padded on the right.
    :param mask_BN: bool, True where there is a token.
    """

    ids_BN: Tensor
    mask_BN: Tensor


class EncodedText(NamedTuple):
    """
    All that depends on the words alone, so that it is computed once an instruction.

    :param states_BND: one vector a token, in whatever width the family needs.
    :param mask_BN: bool, True where there is a token.
    """

    states_BND: Tensor
    mask_BN: Tensor

    def repeat(self, times: int) -> EncodedText:
        """Repeat each instruction for `times` frames in a row: B becomes B * times."""
        return EncodedText(self.states_BND.repeat_interleave(times, 0),
                           self.mask_BN.repeat_interleave(times, 0))


# camera name to (B, 3, H, W), and the words of the same B, to feature tokens (B, N, D)
Encode: TypeAlias = Callable[[Mapping[str, Tensor], EncodedText], Tensor]


class SplitEncoder(NamedTuple):
    """
    A backbone in two halves, so that what a frozen image network gives may be computed once.

    :param encode_images: camera name to (B, 3, H, W), to feature maps (B, C, H, W) by camera, by
        level. They depend on the images alone.
    :param fuse: these maps and the words of the same B, to the feature tokens (B, N, D).
    """

    encode_images: Callable[[Mapping[str, Tensor]], Sequence[Sequence[Tensor]]]
    fuse: Callable[[Sequence[Sequence[Tensor]], EncodedText], Tensor]


class LanguageModel(Protocol):
    """A backbone that can also say words."""

    def next_token_logits(self, images: Mapping[str, Tensor], text: TextTokens) -> Tensor:
        """
        Predict each text token from the images and the tokens before it.

        :param images: camera name to (B, 3, H, W), normalised; co-training gives one camera.
        :param text: B texts of L tokens, right-padded.
        :return: (B, L - 1, V) logits; row i is for token i + 1 and has seen tokens 0 ... i.
        """


class ContextEncoder(Protocol):
    """A backbone without a language model of its own, for which a word decoder can speak."""

    feature_dim: int
    cameras: tuple[str, ...]

    def context(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """Return all fused tokens (B, N, D) of one frame, not only those of the policy head."""

    def word_embeddings(self) -> Tensor:
        """Return the frozen embeddings (V, E) of the vocabulary that `tokenize` uses."""


@dataclass(frozen=True)
class Parts:
    """
    What a backbone offers beyond `__call__`: to tune it, to speed it up, to make it speak.

    Every field may be left out. What needs it is then refused by name, or done in the plain way.

    :param vision: parameters between the pixels and the fusion with the words.
    :param language: parameters of the language model, without its word embeddings.
    :param embeddings: parameters of the word embeddings.
    :param layers: blocks from first to last, of which the last ones may be trained alone.
    :param adaptable: linear layers that low-rank adapters can go on.
    :param recompute: from now on, recomputes the blocks in the backward pass to save memory.
    :param compiled: blocks that are worth one compilation each; none where the whole is.
    :param split: the two halves; None where images and words meet from the start.
    :param speaker: the language model, for language losses.
    :param context: what a word decoder reads, where there is no language model.
    :param text_lengths: numbers of tokens to which a text may be padded without a change of what
        comes out, rising; none where padding is not free. Few lengths mean few CUDA graphs.
    :param own_precision: whether it computes in the precision of its weights, whatever that of the
        images; else bfloat16 weights need autocast.
    :param for_gpu: lays its weights out for a GPU that acts, in place; parameters keep their names
        and values, and training goes on as before.
    :param for_cpu: makes a copy, laid out for a CPU, that acts on one frame of these cameras in
        float32.
    """

    vision: Sequence[nn.Parameter] = ()
    language: Sequence[nn.Parameter] = ()
    embeddings: Sequence[nn.Parameter] = ()
    layers: Sequence[nn.Module] = ()
    adaptable: Sequence[nn.Linear] = ()
    recompute: Callable[[], None] | None = None
    compiled: Sequence[nn.Module] = ()
    split: SplitEncoder | None = None
    speaker: LanguageModel | None = None
    context: ContextEncoder | None = None
    text_lengths: Sequence[int] = ()
    own_precision: bool = False
    for_gpu: Callable[[], None] | None = None
    for_cpu: Callable[[Sequence[CameraSpec]], Encode] | None = None


class Backbone(Protocol):
    """
    One frame of each camera and an instruction in, feature tokens out.

    An implementation is an `nn.Module` too, without any state of an episode. Nothing outside
    `model/backbones/` asks of which family it is: what there is to know, it says here.

    :param feature_dim: the width D of the tokens that `__call__` gives.
    :param capturable: whether a CUDA graph can hold `__call__`: nothing is read back on the way.
    """

    feature_dim: int
    capturable: bool

    def tokenize(self, instructions: Sequence[str]) -> TextTokens:
        """
        Turn words into token ids, on the CPU.

        :raises InstructionTooLong: where an instruction does not fit.
        """

    def encode_text(self, text: TextTokens) -> EncodedText:
        """Encode the words; trainable parts keep their gradient."""

    def __call__(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """
        Encode one frame a camera: what `forward` of the module does.

        :param images: camera name to (B, 3, H, W), normalised by the manifest's camera.
        :param text: of the same B.
        :return: (B, N, D) tokens for the policy head.
        """

    def parts(self) -> Parts:
        """Return what it offers beyond `__call__`."""

    def save_assets(self, directory: Path) -> None:
        """Write into a checkpoint what is no weight: tokenizer files, descriptions."""

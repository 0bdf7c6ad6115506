"""The face that every vision-language backbone has, and the values that pass through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor


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


class Backbone(Protocol):
    """
    One frame of each camera and an instruction in, feature tokens out.

    An implementation is an `nn.Module` too, without any state of an episode.

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

    def save_assets(self, directory: Path) -> None:
        """Write into a checkpoint what is no weight: tokenizer files, descriptions."""

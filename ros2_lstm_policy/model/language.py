"""
Language losses: next-token prediction of words after images.

The caption loss predicts the instruction from what the cameras see; vision-language
co-training predicts the texts of image-text pairs mixed into training, so that a fine-tuned model
keeps the words that it came with (as in RT-2, Brohan et al. 2023, arXiv 2307.15818).
Letters beside those of :mod:`ros2_lstm_policy.types`: L text token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable, TYPE_CHECKING

from einops import rearrange
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from ros2_lstm_policy.model.backbones.base import TextTokens


@runtime_checkable
class LanguageModel(Protocol):
    """A backbone that can also say words."""

    def next_token_logits(self, images: Mapping[str, Tensor], text: TextTokens) -> Tensor:
        """
        Predict each text token from the images and the tokens before it.

        :param images: camera name to (B, 3, H, W), normalised; co-training gives one camera.
        :param text: B texts of L tokens, right-padded.
        :return: (B, L - 1, V) logits; row i is for token i + 1 and has seen tokens 0 ... i.
        """


def language_loss(logits_BLV: Tensor, text: TextTokens) -> Tensor:
    """
    Return the next-token cross-entropy, averaged over the tokens that exist.

    :param logits_BLV: (B, L - 1, V), as :meth:`LanguageModel.next_token_logits` gives them.
    :return: a scalar in nats; 0 where no text has a second token.
    """
    wanted_BL, exists_BL = text.ids_BN[:, 1:], text.mask_BN[:, 1:]
    labels = rearrange(wanted_BL.masked_fill(~exists_BL, -100), 'b l -> (b l)')
    logits = rearrange(logits_BLV.float(), 'b l v -> (b l) v')
    total = functional.cross_entropy(logits, labels, ignore_index=-100, reduction='sum')
    return total / exists_BL.sum().clamp_min(1)

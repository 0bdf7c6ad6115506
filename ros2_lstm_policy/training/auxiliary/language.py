"""
Language losses: next-token prediction of words after images.

The caption loss predicts the instruction from what the cameras see; vision-language
co-training predicts the texts of image-text pairs mixed into training, so that a fine-tuned model
keeps the words that it came with (as in RT-2, Brohan et al. 2023, arXiv 2307.15818).
Letters beside those of `types`: L text token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from einops import rearrange
from ros2_lstm_policy.model.backbones.base import ContextEncoder, EncodedText, TextTokens
import torch
from torch import nn, Tensor
from torch.nn import functional


@dataclass(frozen=True)
class LanguageConfig:
    """
    The word decoder.

    :param layers: transformer layers.
    :param heads: attention heads; a divisor of the backbone's feature width.
    :param max_tokens: the longest text.
    """

    layers: int = 2
    heads: int = 4
    max_tokens: int = 64


class WordDecoder(nn.Module):
    """
    A small causal transformer that says what a backbone sees.

    It reads the backbone's tokens for images and no words, so it cannot copy what it is to
    say. Word vectors are the frozen ones of the backbone's vocabulary, on both ends.
    """

    words_VE: Tensor

    def __init__(self, backbone: ContextEncoder, config: LanguageConfig) -> None:
        """Create a decoder for that backbone's tokens."""
        super().__init__()
        width = backbone.feature_dim
        words_VE = backbone.word_embeddings()
        self.register_buffer('words_VE', words_VE, persistent=False)
        self.into = nn.Linear(words_VE.shape[1], width)
        self.out = nn.Linear(width, words_VE.shape[1])
        self.positions = nn.Parameter(torch.randn(config.max_tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, config.heads, 2 * width, 0.0, 'gelu',
                                       batch_first=True, norm_first=True)
            for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, context_BND: Tensor, ids_BL: Tensor) -> Tensor:
        """
        Return the logits (B, L, V) of the token after each given one.

        :raises ValueError: for a text with more tokens than there are positions.
        """
        length = ids_BL.shape[1]
        if length > len(self.positions):
            raise ValueError(f'a text has {length} tokens, losses.language.max_tokens is '
                             f'{len(self.positions)}; raise it or shorten the text')
        hidden = self.into(functional.embedding(ids_BL, self.words_VE)) + self.positions[:length]
        later = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)
        for layer in self.layers:
            hidden = layer(hidden, context_BND, tgt_mask=later)
        return self.out(self.norm(hidden)) @ self.words_VE.to(hidden.dtype).T


def decoded_logits(decoder: WordDecoder, backbone: ContextEncoder, no_words: EncodedText,
                   images: Mapping[str, Tensor], text: TextTokens) -> Tensor:
    """
    Let a word decoder speak for a backbone.

    :param no_words: the encoded empty instruction, of one row.
    :param images: some of the backbone's cameras; an absent one shows the mean image.
    :return: as :meth:`LanguageModel.next_token_logits`.
    """
    like = next(iter(images.values()))
    every = {name: images.get(name, torch.zeros_like(like)) for name in backbone.cameras}
    context = backbone.context(every, no_words.repeat(len(like)))
    return decoder(context, text.ids_BN[:, :-1])


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

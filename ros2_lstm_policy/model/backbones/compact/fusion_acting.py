"""
Layers of the fusion transformer as a robot's CPU runs them: frozen, one sequence, none absent.

Shape letters: N token, L last token, D feature, M head, E feature of a head.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from ros2_lstm_policy.model.backbones.compact.backbone import FusionLayer
from ros2_lstm_policy.model.backbones.compact.packed import RowsLinear
import torch
from torch import nn, Tensor
import torch.nn.functional as F


class ActingNorm(NamedTuple):
    """A layer normalisation."""

    weight: Tensor
    bias: Tensor
    epsilon: float

    @classmethod
    def of(cls, layer: nn.LayerNorm) -> ActingNorm:
        """Copy a layer's weights."""
        return cls(layer.weight.detach().clone(), layer.bias.detach().clone(), layer.eps)

    def __call__(self, tokens_ND: Tensor) -> Tensor:
        """Normalise each token."""
        return F.layer_norm(tokens_ND, self.weight.shape, self.weight, self.bias, self.epsilon)


class ActingLayer:
    """A `FusionLayer` for all tokens."""

    def __init__(self, layer: FusionLayer) -> None:
        """Copy and lay out the weights."""
        own = layer.self_attn
        self._heads = own.num_heads
        self._attention = RowsLinear(own.in_proj_weight, own.in_proj_bias)
        self._out = RowsLinear.of(own.out_proj)
        self._norm, self._rest = ActingNorm.of(layer.norm1), _FeedForward(layer)

    def __call__(self, tokens_ND: Tensor) -> Tensor:
        """Map (N, D) to (N, D)."""
        parts = self._attention(self._norm(tokens_ND)).view(len(tokens_ND), 3, self._heads, -1)
        query, key, value = parts.permute(1, 2, 0, 3).unsqueeze(1)
        output = F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1).flatten(1)
        return self._rest(self._out(output).add_(tokens_ND))


class ActingFinalLayer:
    """
    A `FusionLayer` for its last tokens, of which nothing else is used.

    A token asks with query q, and q . (K x) = (K' q) . x for each token x: keys need not be
    formed, nor values: attention weighs the tokens themselves. That a key has a bias adds the
    same to the scores of all tokens, which softmax forgets; weights of 1 in all keep a value's.
    """

    def __init__(self, layer: FusionLayer) -> None:
        """Copy and lay out the weights."""
        own = layer.self_attn
        width, self._heads = own.embed_dim, own.num_heads
        query, key, value = own.in_proj_weight.detach().chunk(3)
        query_bias, _, value_bias = own.in_proj_bias.detach().chunk(3)
        scale = 1 / sqrt(width // self._heads)
        self._query = RowsLinear(query * scale, query_bias * scale)
        self._key_MED = key.unflatten(0, (self._heads, -1)).clone()
        self._value_MDE = value.unflatten(0, (self._heads, -1)).transpose(1, 2).contiguous()
        self._value_bias_M1E = value_bias.view(self._heads, 1, -1).clone()
        self._out = RowsLinear.of(own.out_proj)
        self._norm, self._rest = ActingNorm.of(layer.norm1), _FeedForward(layer)

    def __call__(self, tokens_ND: Tensor, last: int) -> Tensor:
        """Map (N, D) to what comes out at the last ones (L, D)."""
        normed_ND = self._norm(tokens_ND)
        query_MLE = self._query(normed_ND[-last:]).view(last, self._heads, -1).transpose(0, 1)
        key_query_MLD = torch.bmm(query_MLE, self._key_MED)
        weights_MLN = (key_query_MLD @ normed_ND.t()).softmax(-1)
        output_MLE = torch.baddbmm(self._value_bias_M1E, weights_MLN @ normed_ND,
                                   self._value_MDE)
        output_LD = output_MLE.transpose(0, 1).flatten(1)
        return self._rest(self._out(output_LD).add_(tokens_ND[-last:]))


class _FeedForward:
    """The second half of a layer, with its residual."""

    def __init__(self, layer: FusionLayer) -> None:
        self._norm = ActingNorm.of(layer.norm2)
        self._first, self._second = RowsLinear.of(layer.linear1), RowsLinear.of(layer.linear2)

    def __call__(self, tokens_ND: Tensor) -> Tensor:
        return self._second(F.gelu(self._first(self._norm(tokens_ND)))).add_(tokens_ND)

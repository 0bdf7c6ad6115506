"""
What takes the LSTM's place in a head without recurrence: attention over the last inputs.

Each step asks, layer after layer, what lies in the last `span` inputs. Keys and values are made
of the inputs alone, not of what other steps found in theirs, so nothing older than `span` steps
has any effect, in training and in acting alike, whatever the length of a training window.

Layer by layer it has the weights of an LSTM of the same width: 8 H^2.
Shape letters as in `types`, and H width, M attention head, E width of one of these, W the span.
"""

from __future__ import annotations

import math
from typing import cast

from einops import rearrange
import torch
from torch import nn, Tensor
from torch.nn import functional

_MOST_HEADS = 8


class StackLayer(nn.Module):
    """Attention from each step to the inputs it can see, then an MLP; both with a residual."""

    def __init__(self, width: int, span: int, dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        self.heads = math.gcd(width, _MOST_HEADS)
        self.query_norm, self.input_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.age_bias_MW = nn.Parameter(torch.zeros(self.heads, span))
        self.output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(),
                                 nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)

    def remember(self, input_BTH: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values (B, T, H) of inputs."""
        keys, values = self.key_value(self.input_norm(input_BTH)).chunk(2, -1)
        return keys, values

    def forward(self, query_BQH: Tensor, keys_BTH: Tensor, values_BTH: Tensor, age_QT: Tensor,
                visible_QT: Tensor) -> Tensor:
        """
        Return what the Q steps know after this layer (B, Q, H).

        :param age_QT: how many steps before each of these an input came, 0 to W - 1.
        :param visible_QT: bool; whether the step can see it.
        """
        bias_MQT = self.age_bias_MW[:, age_QT].masked_fill(~visible_QT, -math.inf)
        query = self.query(self.query_norm(query_BQH))
        query, keys, values = (rearrange(part, 'b t (m e) -> b m t e', m=self.heads)
                               for part in (query, keys_BTH, values_BTH))
        found = functional.scaled_dot_product_attention(query, keys, values,
                                                        bias_MQT[None].to(query.dtype))
        found = self.output(rearrange(found, 'b m t e -> b t (m e)'))
        query_BQH = query_BQH + self.dropout(found)
        return query_BQH + self.dropout(self.mlp(query_BQH))


class FrameStack(nn.Module):
    """
    Attention over the last inputs, in place of an LSTM.

    :param in_features: width of an input.
    :param width: H, of everything else.
    :param span: the inputs that a step sees, itself among them.
    """

    def __init__(self, in_features: int, width: int, layers: int, span: int,
                 dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        self.span, self.width = span, width
        self.input = nn.Linear(in_features, width)
        self.layers = nn.ModuleList(StackLayer(width, span, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_BTD: Tensor, state: None = None) -> tuple[Tensor, None]:
        """
        Return an output (B, T, H) for each step of windows that begin with no history.

        :param state: none is taken and none returned: windows hold all that is seen.
        """
        input_BTH = self.input(input_BTD)
        steps = torch.arange(input_BTH.shape[1], device=input_BTH.device)
        age_TT = steps[:, None] - steps
        visible_TT = (age_TT >= 0) & (age_TT < self.span)
        known_BTH = input_BTH
        for layer in self.blocks():
            known_BTH = layer(known_BTH, *layer.remember(input_BTH),
                              age_TT.clamp(0, self.span - 1), visible_TT)
        return self.norm(known_BTH), None

    def blocks(self) -> list[StackLayer]:
        """Return the layers as what they are."""
        return cast(list[StackLayer], list(self.layers))

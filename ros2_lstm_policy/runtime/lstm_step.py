"""
One step of an LSTM for all lanes of a history, which all take the same input.

Shape letters: L layer, W lane, H hidden, D input, P panel, K row of a panel, C its columns.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import TypeAlias

import torch
from torch import nn, Tensor

_PANEL_COLUMNS = 128  # measured in benchmarks/history.py

# input (D), h and c (L, W, H) to the new h and c
Step: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def of_lstm(rnn: nn.LSTM) -> Step:
    """Return the step of an LSTM, for the device that it is on."""
    if rnn.weight_hh_l0.is_cuda:
        return _CudaStep(rnn)
    return _CpuStep(rnn)


class _CudaStep:
    """cuDNN's."""

    def __init__(self, rnn: nn.LSTM) -> None:
        self._rnn = rnn

    def __call__(self, input_D: Tensor, h_LWH: Tensor, c_LWH: Tensor) -> tuple[Tensor, Tensor]:
        lanes_W1D = input_D.expand(h_LWH.shape[1], 1, -1).contiguous()
        return self._rnn(lanes_W1D, (h_LWH, c_LWH))[1]


class _CpuStep:
    """
    What `nn.LSTM` does for one step, several times as fast on a CPU, from a copy of its weights.

    `nn.LSTM` reorders its weights at each call (oneDNN), or multiplies by few columns slowly; and
    a BLAS product of few rows with a large matrix copies the matrix first. Here both matrices of a
    layer lie in one, in narrow panels that a product reads from beginning to end.
    """

    def __init__(self, rnn: nn.LSTM) -> None:
        self._columns = math.gcd(rnn.hidden_size, _PANEL_COLUMNS)
        self._layers = [self._laid_out(rnn, layer) for layer in range(rnn.num_layers)]

    def __call__(self, input_D: Tensor, h_LWH: Tensor, c_LWH: Tensor) -> tuple[Tensor, Tensor]:
        below_WD = input_D.expand(h_LWH.shape[1], -1)
        h_new, c_new = [], []
        for (weight_PKC, bias_P1C), h_WH, c_WH in zip(self._layers, h_LWH, c_LWH):
            seen_PWK = torch.cat([below_WD, h_WH], 1).expand(len(weight_PKC), -1, -1)
            gates_PWC = torch.baddbmm(bias_P1C, seen_PWK, weight_PKC)
            gates = gates_PWC.unflatten(0, (4, -1)).transpose(1, 2)
            take, keep, show = gates[:3].sigmoid()
            c_panels = c_WH.unflatten(1, (-1, self._columns))
            c_panels = torch.addcmul(keep * c_panels, take, gates[3].tanh())
            below_WD = (show * c_panels.tanh()).flatten(1)
            h_new.append(below_WD)
            c_new.append(c_panels.flatten(1))
        return torch.stack(h_new), torch.stack(c_new)

    def _laid_out(self, rnn: nn.LSTM, layer: int) -> tuple[Tensor, Tensor]:
        """Return a layer's weights (P, K, C) and bias (P, 1, C); gates input, forget, out, cell."""
        w_ih, w_hh, b_ih, b_hh = (getattr(rnn, f'{name}_l{layer}').detach() for name in
                                  ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'))
        order = torch.tensor([0, 1, 3, 2])
        weight = torch.cat([w_ih, w_hh], 1).unflatten(0, (4, -1))[order].flatten(0, 1)
        bias = (b_ih + b_hh).unflatten(0, (4, -1))[order]
        panels = weight.unflatten(0, (-1, self._columns)).transpose(1, 2).contiguous()
        return panels, bias.view(-1, 1, self._columns)

"""
One step of an LSTM for all lanes of a history, which all take the same input.

Shape letters: L layer, W lane, H hidden, D input, G gate (4 H), K what a layer sees (D + H).
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import TypeAlias

import torch
from torch import nn, Tensor

_BLOCK_ROWS = 16  # of a weight matrix; measured in benchmarks/history.py

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

    `nn.LSTM` reorders its weights at each call (oneDNN), or multiplies by few columns slowly. Here
    both matrices of a layer lie in one. What comes out is (L, W, H) in shape and (L, H, W) in
    memory: the next step takes it as it is.
    """

    def __init__(self, rnn: nn.LSTM) -> None:
        self._layers = [_laid_out(rnn, layer) for layer in range(rnn.num_layers)]

    def __call__(self, input_D: Tensor, h_LWH: Tensor, c_LWH: Tensor) -> tuple[Tensor, Tensor]:
        below_DW = input_D.unsqueeze(1).expand(-1, h_LWH.shape[1])
        h_new, c_new = [], []
        for (weight_GK, bias_G), h_WH, c_WH in zip(self._layers, h_LWH, c_LWH):
            seen_KW = torch.cat([below_DW, h_WH.t()])
            gates = _product_plus(weight_GK, seen_KW, bias_G).unflatten(0, (4, -1))
            input_gate, forget_gate, output_gate = gates[:3].sigmoid()
            c_HW = torch.addcmul(forget_gate * c_WH.t(), input_gate, gates[3].tanh())
            below_DW = output_gate * c_HW.tanh()
            h_new.append(below_DW)
            c_new.append(c_HW)
        return torch.stack(h_new).transpose(1, 2), torch.stack(c_new).transpose(1, 2)


def _laid_out(rnn: nn.LSTM, layer: int) -> tuple[Tensor, Tensor]:
    """Return a layer's weights (G, K) and bias (G); gates in order input, forget, out, cell."""
    w_ih, w_hh, b_ih, b_hh = (getattr(rnn, f'{name}_l{layer}').detach() for name in
                              ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'))
    order = torch.tensor([0, 1, 3, 2])
    weight, bias = (rows.unflatten(0, (4, -1))[order].flatten(0, 1)
                    for rows in (torch.cat([w_ih, w_hh], 1), b_ih + b_hh))
    return weight, bias


def _product_plus(weight_GK: Tensor, seen_KW: Tensor, bias_G: Tensor) -> Tensor:
    """
    Return weight @ seen + bias (G, W) for few columns.

    In blocks of rows: BLAS would first copy a tall matrix into an order of its own.
    """
    if seen_KW.shape[1] == 1:
        return torch.addmv(bias_G, weight_GK, seen_KW[:, 0]).unsqueeze(1)
    rows = math.gcd(len(weight_GK), _BLOCK_ROWS)
    blocks = weight_GK.view(-1, rows, weight_GK.shape[1])
    return torch.baddbmm(bias_G.view(-1, rows, 1), blocks,
                         seen_KW.expand(len(blocks), -1, -1)).flatten(0, 1)

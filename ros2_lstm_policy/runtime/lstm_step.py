"""
One step of an LSTM, cut in two: what an action waits for, and what can follow when it is out.

Half of a step's weights meet the state and not the new input, so their products are made after the
step before; they wait as `recurrent`: W_hh h + b of every layer. With a new input only W_ih x is
left, for the one lane that is read. All lanes go on afterwards, in one batch.

Shape letters: L layer, W lane, H hidden, D input, G gate (4 H).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
import math
import time
from typing import NamedTuple, TypeAlias

import torch
from torch import nn, Tensor

_BLOCK_ROWS = 16  # of a weight matrix; measured in benchmarks/history.py
_TRIALS = 4

# rows (W, K) and a matrix (G, K), to (W, G)
Product: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class _Layer(NamedTuple):
    """Weights; gates in order input, forget, output, cell on a CPU, and cuDNN's on a GPU."""

    input_GD: Tensor
    recurrent_GH: Tensor
    bias_G: Tensor


class LSTMStep:
    """
    What `nn.LSTM` does for one step of all lanes of a history, which take the same input.

    It has its own copy of the weights on a CPU, where `nn.LSTM` reorders its own at every call.

    :param rnn: on its device.
    :param lanes: W.
    """

    def __init__(self, rnn: nn.LSTM, lanes: int) -> None:
        """Lay the weights out, and choose how they are multiplied here."""
        on_gpu = rnn.weight_hh_l0.is_cuda
        order = (0, 1, 2, 3) if on_gpu else (0, 1, 3, 2)
        self._layers = [_laid_out(rnn, layer, order) for layer in range(rnn.num_layers)]
        self._cell = _cuda_cell if on_gpu else _cell
        self._product = _multiply_rows if on_gpu else fastest_product(
            lanes, rnn.num_layers, rnn.hidden_size)

    def zero_state(self) -> tuple[Tensor, Tensor]:
        """Return `recurrent` and c of a lane that has seen nothing, (L, G) and (L, H)."""
        recurrent_LG = torch.stack([layer.bias_G for layer in self._layers])
        hidden = recurrent_LG.shape[1] // 4
        return recurrent_LG, recurrent_LG.new_zeros(len(self._layers), hidden)

    def read(self, input_D: Tensor, recurrent_LG: Tensor, c_LH: Tensor) -> Tensor:
        """Return the top layer's output (H) of one lane."""
        below_K = input_D
        for layer, recurrent_G, c_H in zip(self._layers, recurrent_LG, c_LH):
            product_G = torch.mv(layer.input_GD, below_K)
            below_K = self._cell(product_G[None], recurrent_G[None], c_H[None])[0][0]
        return below_K

    def follow(self, input_D: Tensor, recurrent_LWG: Tensor,
               c_LWH: Tensor) -> tuple[Tensor, Tensor]:
        """Return `recurrent` and c of all lanes after the same input."""
        recurrent, c = [], []
        below_WK = input_D[None]
        for layer, recurrent_WG, c_WH in zip(self._layers, recurrent_LWG, c_LWH):
            product_WG = self._multiply(below_WK, layer.input_GD).expand_as(recurrent_WG)
            below_WK, c_WH = self._cell(product_WG, recurrent_WG, c_WH)
            recurrent.append(self._multiply(below_WK, layer.recurrent_GH) + layer.bias_G)
            c.append(c_WH)
        return torch.stack(recurrent), torch.stack(c)

    def _multiply(self, rows_WK: Tensor, weight_GK: Tensor) -> Tensor:
        if len(rows_WK) == 1:  # the input of all lanes, or the only lane
            return torch.mv(weight_GK, rows_WK[0])[None]
        return self._product(rows_WK, weight_GK)


def _laid_out(rnn: nn.LSTM, layer: int, order: Sequence[int]) -> _Layer:
    w_ih, w_hh, b_ih, b_hh = (getattr(rnn, f'{name}_l{layer}').detach() for name in
                              ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'))
    return _Layer(*(rows.unflatten(0, (4, -1))[list(order)].flatten(0, 1)
                    for rows in (w_ih, w_hh, b_ih + b_hh)))


def _cell(product_WG: Tensor, recurrent_WG: Tensor, c_WH: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new h and c."""
    gates_WG, hidden = product_WG + recurrent_WG, c_WH.shape[1]
    input_gate, forget_gate, output_gate = gates_WG[:, :3 * hidden].sigmoid().chunk(3, 1)
    c_WH = torch.addcmul(forget_gate * c_WH, input_gate, gates_WG[:, 3 * hidden:].tanh())
    return output_gate * c_WH.tanh(), c_WH


def _cuda_cell(product_WG: Tensor, recurrent_WG: Tensor,
               c_WH: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new h and c, from one kernel: that of `nn.LSTMCell`."""
    h_WH, c_WH, _ = torch.ops.aten._thnn_fused_lstm_cell(product_WG, recurrent_WG, c_WH)
    return h_WH, c_WH


def _multiply_rows(rows_WK: Tensor, weight_GK: Tensor) -> Tensor:
    """Multiply as BLAS does by itself: the faster way for few rows."""
    return rows_WK @ weight_GK.t()


def _multiply_blocks(rows_WK: Tensor, weight_GK: Tensor) -> Tensor:
    """Multiply blocks of the matrix: BLAS would first copy a tall one into an order of its own."""
    height = math.gcd(len(weight_GK), _BLOCK_ROWS)
    blocks = weight_GK.view(-1, height, weight_GK.shape[1])
    return torch.bmm(blocks, rows_WK.t().expand(len(blocks), -1, -1)).flatten(0, 1).t()


PRODUCTS: dict[str, Product] = {'rows': _multiply_rows, 'blocks': _multiply_blocks}


@cache
def fastest_product(lanes: int, layers: int, hidden: int) -> Product:
    """
    Try the products on this CPU; which is faster differs between makes of CPU and numbers of rows.

    Once a process and size, so that all actors of a process give the same bits; with as many
    matrices as there are layers, so that they are as little in the caches as they will be.
    """
    if lanes == 1:
        return _multiply_rows
    rows_WK = torch.ones(lanes, hidden)
    weights = [torch.ones(4 * hidden, hidden) for _ in range(layers)]
    seconds: dict[str, list[float]] = {name: [] for name in PRODUCTS}
    with torch.inference_mode():
        for _ in range(_TRIALS):
            for name, product in PRODUCTS.items():
                begin = time.perf_counter()
                for weight_GK in weights:
                    product(rows_WK, weight_GK)
                seconds[name].append(time.perf_counter() - begin)
    return PRODUCTS[min(seconds, key=lambda name: min(seconds[name]))]

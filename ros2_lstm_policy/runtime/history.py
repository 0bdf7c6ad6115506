"""
The recurrent history of one episode, as a value that goes in and comes out.

Training sees windows that begin with a zero state, so on the robot each output must be that of an
LSTM that saw the last `window` inputs and nothing before. Recomputing them costs `window` steps a
tick. Here `window` lanes of (h, c), each begun one tick after the other, take every input as one
batch; the lane that has seen exactly the last `window` inputs is read, and then begins again. One
batched step a tick, whatever the window, and the same shapes at every tick (CUDA graphs).

Shape letters: L layer, W lane, H hidden, D input.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from ros2_lstm_policy.model.policy import Policy
import torch
from torch import nn, Tensor

_BLOCK_ROWS = 16  # of a weight matrix; measured in benchmarks/history.py


class HistoryState(NamedTuple):
    """
    What an episode has left behind so far.

    :param step: (1,) int64, inputs seen.
    """

    h_LWH: Tensor
    c_LWH: Tensor
    step: Tensor


class History(Protocol):
    """A rule for how far an LSTM looks back."""

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""

    def advance(self, input_D: Tensor, state: HistoryState) -> tuple[Tensor, HistoryState]:
        """Take one input; return the top layer's output (H) and the state after it."""


class SlidingWindow:
    """Zero state over the last `window` inputs: what training sees."""

    def __init__(self, rnn: nn.LSTM, window: int) -> None:
        """Make a rule; it keeps no episode."""
        self._rnn, self._window = rnn, window

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return _zeros(self._rnn, self._window)

    def advance(self, input_D: Tensor, state: HistoryState) -> tuple[Tensor, HistoryState]:
        """Take one input; return the top layer's output (H) and the state after it."""
        newest = state.step % self._window
        h_LWH = state.h_LWH.index_fill(1, newest, 0.0)
        c_LWH = state.c_LWH.index_fill(1, newest, 0.0)
        h_LWH, c_LWH = lstm_step(self._rnn, input_D, h_LWH, c_LWH)
        oldest = (state.step + 1) % self._window * (state.step >= self._window)
        output_H = h_LWH[-1].index_select(0, oldest).squeeze(0)
        return output_H, HistoryState(h_LWH, c_LWH, state.step + 1)


class Carry:
    """The state of the whole episode, for policies that were trained so."""

    def __init__(self, rnn: nn.LSTM) -> None:
        """Make a rule; it keeps no episode."""
        self._rnn = rnn

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return _zeros(self._rnn, 1)

    def advance(self, input_D: Tensor, state: HistoryState) -> tuple[Tensor, HistoryState]:
        """Take one input; return the top layer's output (H) and the state after it."""
        h_LWH, c_LWH = lstm_step(self._rnn, input_D, state.h_LWH, state.c_LWH)
        return h_LWH[-1, 0], HistoryState(h_LWH, c_LWH, state.step + 1)


def of_policy(policy: Policy) -> History:
    """Return the rule that the policy was trained for."""
    decoder = policy.config.decoder
    if decoder.history == 'carry':
        return Carry(policy.decoder.rnn)
    return SlidingWindow(policy.decoder.rnn, decoder.window_size)


def lstm_step(rnn: nn.LSTM, input_D: Tensor, h_LWH: Tensor,
              c_LWH: Tensor) -> tuple[Tensor, Tensor]:
    """Advance all lanes by the same input; return their new (h, c)."""
    if input_D.is_cuda:
        lanes_W1D = input_D.expand(h_LWH.shape[1], 1, -1).contiguous()
        return rnn(lanes_W1D, (h_LWH, c_LWH))[1]
    return _lstm_step_cpu(rnn, input_D, h_LWH, c_LWH)


def _lstm_step_cpu(rnn: nn.LSTM, input_D: Tensor, h_LWH: Tensor,
                   c_LWH: Tensor) -> tuple[Tensor, Tensor]:
    """
    Do what `nn.LSTM` does for one step, two to eight times as fast on a CPU.

    `nn.LSTM` reorders its weights at each call (oneDNN), or multiplies by few columns slowly.
    What comes out is (L, W, H) in shape and (L, H, W) in memory: the next step takes it as it is.
    """
    below = input_D.unsqueeze(1)
    h_new, c_new = [], []
    for layer in range(rnn.num_layers):
        w_ih, w_hh, b_ih, b_hh = (getattr(rnn, f'{name}_l{layer}') for name in
                                  ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh'))
        gates = _add_product((b_ih + b_hh).unsqueeze(1), w_ih, below)
        i, f, g, o = _add_product(gates, w_hh, h_LWH[layer].t()).chunk(4)
        c_HW = torch.addcmul(f.sigmoid() * c_LWH[layer].t(), i.sigmoid(), g.tanh())
        below = o.sigmoid() * c_HW.tanh()
        h_new.append(below)
        c_new.append(c_HW)
    return torch.stack(h_new).transpose(1, 2), torch.stack(c_new).transpose(1, 2)


def _add_product(plus: Tensor, weight: Tensor, columns: Tensor) -> Tensor:
    """
    Return plus + weight @ columns for few columns.

    In blocks of rows: BLAS would first copy a tall matrix into an order of its own.

    :param plus: (R, 1) or (R, W).
    :param weight: (R, D).
    :param columns: (D, W).
    """
    if columns.shape[1] == 1:
        return plus + weight @ columns
    rows = math.gcd(len(weight), _BLOCK_ROWS)
    blocks = weight.view(-1, rows, weight.shape[1])
    columns = columns.contiguous().expand(len(blocks), -1, -1)
    product = torch.baddbmm(plus.view(len(blocks), rows, -1), blocks, columns)
    return product.view(len(weight), -1)


def _zeros(rnn: nn.LSTM, lanes: int) -> HistoryState:
    zeros = next(rnn.parameters()).new_zeros(rnn.num_layers, lanes, rnn.hidden_size)
    return HistoryState(zeros, zeros, torch.zeros(1, dtype=torch.int64, device=zeros.device))

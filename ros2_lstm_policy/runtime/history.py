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

from typing import NamedTuple, Protocol

from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime import lstm_step
import torch
from torch import nn, Tensor


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
        self._rnn, self._step, self._window = rnn, lstm_step.of_lstm(rnn), window

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return _zeros(self._rnn, self._window)

    def advance(self, input_D: Tensor, state: HistoryState) -> tuple[Tensor, HistoryState]:
        """Take one input; return the top layer's output (H) and the state after it."""
        newest = state.step % self._window
        h_LWH = state.h_LWH.index_fill(1, newest, 0.0)
        c_LWH = state.c_LWH.index_fill(1, newest, 0.0)
        h_LWH, c_LWH = self._step(input_D, h_LWH, c_LWH)
        oldest = (state.step + 1) % self._window * (state.step >= self._window)
        output_H = h_LWH[-1].index_select(0, oldest).squeeze(0)
        return output_H, HistoryState(h_LWH, c_LWH, state.step + 1)


class Carry:
    """The state of the whole episode, for policies that were trained so."""

    def __init__(self, rnn: nn.LSTM) -> None:
        """Make a rule; it keeps no episode."""
        self._rnn, self._step = rnn, lstm_step.of_lstm(rnn)

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return _zeros(self._rnn, 1)

    def advance(self, input_D: Tensor, state: HistoryState) -> tuple[Tensor, HistoryState]:
        """Take one input; return the top layer's output (H) and the state after it."""
        h_LWH, c_LWH = self._step(input_D, state.h_LWH, state.c_LWH)
        return h_LWH[-1, 0], HistoryState(h_LWH, c_LWH, state.step + 1)


def of_policy(policy: Policy) -> History:
    """Return the rule that the policy was trained for."""
    decoder = policy.config.decoder
    if decoder.history == 'carry':
        return Carry(policy.decoder.rnn)
    return SlidingWindow(policy.decoder.rnn, decoder.window_size)


def _zeros(rnn: nn.LSTM, lanes: int) -> HistoryState:
    zeros = next(rnn.parameters()).new_zeros(rnn.num_layers, lanes, rnn.hidden_size)
    return HistoryState(zeros, zeros, torch.zeros(1, dtype=torch.int64, device=zeros.device))

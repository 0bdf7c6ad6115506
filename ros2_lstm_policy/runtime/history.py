"""
The recurrent history of one episode, as a value that goes in and comes out.

Training sees windows that begin with a zero state, so on the robot each output must be that of an
LSTM that saw the last `window` inputs and nothing before. Recomputing them costs `window` steps a
tick. Here `window` lanes, each begun one tick after the other, take every input as one batch; the
lane that has seen exactly the last `window` inputs is read, and then begins again. The read lane
alone stands between an input and its action (`read`); the batch is for the time after (`follow`).
The shapes are the same at every tick (CUDA graphs).

Shape letters: L layer, W lane, H hidden, D input, G gate (4 H).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime.lstm_step import LSTMStep
import torch
from torch import nn, Tensor


class HistoryState(NamedTuple):
    """
    What an episode has left behind so far.

    :param recurrent_LWG: what each lane's h will add to the gates, W_hh h + b.
    :param step: (1,) int64, inputs seen.
    """

    recurrent_LWG: Tensor
    c_LWH: Tensor
    step: Tensor


class History(Protocol):
    """A rule for how far an LSTM looks back."""

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""

    def read(self, input_D: Tensor, state: HistoryState) -> Tensor:
        """Return the top layer's output (H) for one more input."""

    def follow(self, input_D: Tensor, state: HistoryState) -> HistoryState:
        """Return the state after it."""


def advance(rule: History, input_D: Tensor, state: HistoryState) -> tuple[Tensor, HistoryState]:
    """Take one input; return the top layer's output (H) and the state after it."""
    return rule.read(input_D, state), rule.follow(input_D, state)


class SlidingWindow:
    """Zero state over the last `window` inputs: what training sees."""

    def __init__(self, rnn: nn.LSTM, window: int) -> None:
        """Make a rule; it keeps no episode."""
        self._step, self._window = LSTMStep(rnn, window), window
        self._zero = _zero_lane(self._step)

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return HistoryState(self._zero.recurrent_LWG.repeat(1, self._window, 1),
                            self._zero.c_LWH.repeat(1, self._window, 1), self._zero.step)

    def read(self, input_D: Tensor, state: HistoryState) -> Tensor:
        """Read the lane that began `window` inputs ago, or with the episode."""
        oldest = (state.step + 1) % self._window * (state.step >= self._window)
        return self._step.read(input_D, state.recurrent_LWG.index_select(1, oldest).squeeze(1),
                               state.c_LWH.index_select(1, oldest).squeeze(1))

    def follow(self, input_D: Tensor, state: HistoryState) -> HistoryState:
        """Let all lanes take the input; the one that has seen the window begins again."""
        recurrent_LWG, c_LWH = self._step.follow(input_D, state.recurrent_LWG, state.c_LWH)
        step = state.step + 1
        begins = step % self._window
        return HistoryState(recurrent_LWG.index_copy(1, begins, self._zero.recurrent_LWG),
                            c_LWH.index_copy(1, begins, self._zero.c_LWH), step)


class Carry:
    """The state of the whole episode, for policies that were trained so."""

    def __init__(self, rnn: nn.LSTM) -> None:
        """Make a rule; it keeps no episode."""
        self._step = LSTMStep(rnn, 1)
        self._zero = _zero_lane(self._step)

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return self._zero

    def read(self, input_D: Tensor, state: HistoryState) -> Tensor:
        """Read the only lane."""
        return self._step.read(input_D, state.recurrent_LWG[:, 0], state.c_LWH[:, 0])

    def follow(self, input_D: Tensor, state: HistoryState) -> HistoryState:
        """Let the only lane take the input."""
        return HistoryState(*self._step.follow(input_D, state.recurrent_LWG, state.c_LWH),
                            state.step + 1)


def of_policy(policy: Policy) -> History:
    """Return the rule that the policy was trained for."""
    decoder = policy.config.decoder
    if decoder.history == 'carry':
        return Carry(policy.decoder.rnn)
    return SlidingWindow(policy.decoder.rnn, decoder.window_size)


def _zero_lane(step: LSTMStep) -> HistoryState:
    recurrent_LG, c_LH = step.zero_state()
    return HistoryState(recurrent_LG[:, None], c_LH[:, None],
                        torch.zeros(1, dtype=torch.int64, device=c_LH.device))

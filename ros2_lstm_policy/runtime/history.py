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

from typing import NamedTuple, Protocol, TypeAlias

from ros2_lstm_policy.model.frame_stack import FrameStack
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime.lstm_step import LSTMStep
import torch
from torch import nn, Tensor


# What an episode has left behind so far; its last part is (1,) int64, inputs seen.
HistoryState: TypeAlias = tuple[Tensor, ...]


class LaneState(NamedTuple):
    """
    What the lanes of an LSTM know.

    :param recurrent_LWG: what each lane's h will add to the gates, W_hh h + b.
    :param step: (1,) int64, inputs seen.
    """

    recurrent_LWG: Tensor
    c_LWH: Tensor
    step: Tensor


class StackState(NamedTuple):
    """
    The last inputs of a frame stack, the oldest first.

    :param keys_LWH: of each layer's attention.
    :param values_LWH: likewise.
    :param step: (1,) int64, inputs seen.
    """

    keys_LWH: Tensor
    values_LWH: Tensor
    step: Tensor


class History(Protocol):
    """A rule for how far a policy looks back."""

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
        return LaneState(self._zero.recurrent_LWG.repeat(1, self._window, 1),
                         self._zero.c_LWH.repeat(1, self._window, 1), self._zero.step)

    def read(self, input_D: Tensor, state: HistoryState) -> Tensor:
        """Read the lane that began `window` inputs ago, or with the episode."""
        recurrent_LWG, c_LWH, step = state
        oldest = (step + 1) % self._window * (step >= self._window)
        return self._step.read(input_D, recurrent_LWG.index_select(1, oldest).squeeze(1),
                               c_LWH.index_select(1, oldest).squeeze(1))

    def follow(self, input_D: Tensor, state: HistoryState) -> HistoryState:
        """Let all lanes take the input; the one that has seen the window begins again."""
        recurrent_LWG, c_LWH, step = state
        recurrent_LWG, c_LWH = self._step.follow(input_D, recurrent_LWG, c_LWH)
        step = step + 1
        begins = step % self._window
        return LaneState(recurrent_LWG.index_copy(1, begins, self._zero.recurrent_LWG),
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
        recurrent_L1G, c_L1H, _ = state
        return self._step.read(input_D, recurrent_L1G[:, 0], c_L1H[:, 0])

    def follow(self, input_D: Tensor, state: HistoryState) -> HistoryState:
        """Let the only lane take the input."""
        recurrent_L1G, c_L1H, step = state
        return LaneState(*self._step.follow(input_D, recurrent_L1G, c_L1H), step + 1)


class LastInputs:
    """
    A frame stack over the last `window` inputs: each is made keys and values of once.

    :param window: at most the stack's span.
    """

    def __init__(self, stack: FrameStack, window: int) -> None:
        """
        Make a rule; it keeps no episode.

        :raises ValueError: for a window that the stack has not learned to look back on.
        """
        if window > stack.span:
            raise ValueError(f'history: this head looks back on {stack.span} steps at most, found '
                             f'{window}')
        self._stack, self._window = stack, window
        device = next(stack.parameters()).device
        self._age_W = torch.arange(window - 1, -1, -1, device=device)

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        nothing = torch.zeros(len(self._stack.layers), self._window, self._stack.width,
                              device=self._age_W.device)
        return StackState(nothing, nothing, torch.zeros(1, dtype=torch.int64,
                                                        device=self._age_W.device))

    def read(self, input_D: Tensor, state: HistoryState) -> Tensor:
        """Attend from the input to the last ones and itself."""
        keys_LWH, values_LWH, step = self.follow(input_D, state)
        there_W, known_11H = self._age_W < step, self._stack.input(input_D)[None, None]
        for layer, keys_WH, values_WH in zip(self._stack.blocks(), keys_LWH, values_LWH):
            known_11H = layer(known_11H, keys_WH[None], values_WH[None], self._age_W[None],
                              there_W[None])
        return self._stack.norm(known_11H)[0, 0]

    def follow(self, input_D: Tensor, state: HistoryState) -> HistoryState:
        """Forget the oldest input for this one."""
        keys_LWH, values_LWH, step = state
        input_11H = self._stack.input(input_D)[None, None]
        new = [layer.remember(input_11H) for layer in self._stack.blocks()]
        keys_L1H, values_L1H = (torch.cat(part) for part in zip(*new))
        return StackState(torch.cat([keys_LWH[:, 1:], keys_L1H], 1),
                          torch.cat([values_LWH[:, 1:], values_L1H], 1), step + 1)


def of_policy(policy: Policy) -> History:
    """Return the rule that the policy was trained for."""
    decoder, rnn = policy.config.decoder, policy.decoder.rnn
    if isinstance(rnn, FrameStack):
        return LastInputs(rnn, decoder.window_size)
    if decoder.history == 'carry':
        return Carry(rnn)
    return SlidingWindow(rnn, decoder.window_size)


def _zero_lane(step: LSTMStep) -> LaneState:
    recurrent_LG, c_LH = step.zero_state()
    return LaneState(recurrent_LG[:, None], c_LH[:, None],
                     torch.zeros(1, dtype=torch.int64, device=c_LH.device))

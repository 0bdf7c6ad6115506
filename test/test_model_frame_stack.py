"""The head without recurrence: what it sees, its size, and that it trains and acts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.evaluation.actors import looking_back
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.frame_stack import FrameStack
from ros2_lstm_policy.model.lstm_decoder import LSTMDecoder
from ros2_lstm_policy.runtime import engine
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.runtime.history import advance, LastInputs
from ros2_lstm_policy.training import run
from ros2_lstm_policy.training.callbacks import LAST
from ros2_lstm_policy.types import Observation
import torch
from torch import Tensor
from training_data import configured, values, write_store

SPAN = 4


def make_stack() -> FrameStack:
    """Return a stack whose weights are large enough that every input matters."""
    torch.manual_seed(0)
    stack = FrameStack(20, 32, layers=3, span=SPAN, dropout=0.0).eval()
    with torch.no_grad():
        for layer in stack.blocks():
            layer.age_bias_MW.normal_()
            layer.key_value.weight.mul_(3)
    return stack


@torch.no_grad()
def acted(stack: FrameStack, inputs_TD: Tensor, window: int = SPAN) -> Tensor:
    """Return the outputs (T, H) of one episode, step by step."""
    rule, outputs = LastInputs(stack, window), []
    state = rule.start()
    for input_D in inputs_TD:
        output, state = advance(rule, input_D, state)
        outputs.append(output)
    return torch.stack(outputs)


@torch.no_grad()
def test_acting_step_by_step_equals_a_window_of_any_length() -> None:
    """From the first steps, that have seen little, to those that have forgotten the first."""
    stack, inputs = make_stack(), torch.randn(5 * SPAN, 20)
    found = acted(stack, inputs)
    assert (found - stack(inputs[None])[0][0]).abs().max() <= 5e-6
    for t in range(SPAN - 1, len(inputs)):
        window = stack(inputs[None, t - SPAN + 1:t + 1])[0][0]
        assert (found[t] - window[-1]).abs().max() <= 5e-6


def test_nothing_older_than_the_span_has_any_effect() -> None:
    """Through layers an older step could come in, and a control would then remember longer."""
    stack, inputs = make_stack(), torch.randn(12, 20)
    oldest_in, newest_out = inputs.clone(), inputs.clone()
    oldest_in[-SPAN] += 1
    newest_out[:-SPAN] += 1
    last = acted(stack, inputs)[-1]
    assert (acted(stack, oldest_in)[-1] - last).abs().max() > 1e-3
    assert acted(stack, newest_out)[-1].equal(last)


@torch.no_grad()
def test_order_matters_to_it() -> None:
    """It knows how old an input is."""
    stack, inputs = make_stack(), torch.randn(SPAN, 20)
    other = inputs[[1, 0, 2, 3]]
    assert (stack(inputs[None])[0][0, -1] - stack(other[None])[0][0, -1]).abs().max() > 1e-3


@pytest.mark.parametrize(('hidden', 'layers'), [(1024, 4), (512, 2)])
def test_it_is_as_large_as_the_lstm(hidden: int, layers: int) -> None:
    """A peer of another size would be no comparison."""
    with torch.device('meta'):
        sizes = [sum(p.numel() for p in LSTMDecoder(
            hidden, hidden_size=hidden, num_layers=layers, window_size=16, kind=kind).parameters())
            for kind in ('lstm', 'attention')]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.06)


def test_it_trains_is_kept_and_acts_as_it_was_trained(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """From a configuration to the robot, eagerly and as a graph's replay."""
    torch.set_num_threads(1)
    store = write_store(tmp_path / 'store', episodes=4, steps=9)
    settings = configured(values(tmp_path / 'run', tmp_path / 'store', 2),
                          'policy.decoder.kind=attention')
    run.fit(settings)
    policy = checkpoint.load(tmp_path / 'run' / LAST)
    assert policy.config.decoder.kind == 'attention'
    told = store.episodes[0].instruction
    frames = [Observation(step, {name: store.images[name][step].copy() for name in store.images})
              for step in range(9)]
    actor = PolicyActor(policy, prepare=False)
    chunks = [actor.act(frame, told).chunk for frame in frames]
    monkeypatch.setattr(engine, 'create', lambda policy, *_: engine.GraphEngine(
        engine.EagerEngine(policy), lambda action: action))
    replayed = PolicyActor(policy)
    for _ in range(2):  # a second episode knows nothing of the first
        for frame, chunk in zip(frames, chunks):
            assert np.abs(replayed.act(frame, told).chunk - chunk).max() <= 1e-6
        replayed.reset()


def test_what_it_cannot_do_is_refused_by_name(tmp_path: Path) -> None:
    """It has no state to carry, and has learned as many ages as its window has steps."""
    with pytest.raises(ConfigError, match="'carry' needs kind: lstm"):
        configured(values(tmp_path, tmp_path), 'policy.decoder.kind=attention',
                   'policy.decoder.history=carry')
    decoder = configured(values(tmp_path, tmp_path),
                         'policy.decoder.kind=attention').policy.decoder
    with pytest.raises(ValueError, match="'carry' needs kind: lstm"):
        looking_back(decoder, 'carry')
    with pytest.raises(ValueError, match='looks back on 4 steps at most, found 5'):
        LastInputs(make_stack(), SPAN + 1)
    assert acted(make_stack(), torch.randn(5, 20), window=1).shape == (5, 32)

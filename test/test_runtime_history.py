"""Looking back through lanes equals the reference's streaming and the recompute it stands for."""

import json
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.model.lstm_decoder import LSTMDecoder
from ros2_lstm_policy.runtime import lstm_step
from ros2_lstm_policy.runtime.history import advance, Carry, SlidingWindow
import torch
from torch.utils._python_dispatch import TorchDispatchMode

GOLDEN = Path(__file__).parent / 'golden'


def make_rnn(hidden=32, layers=3, features=20):
    """Return an LSTM with weights large enough that old inputs matter."""
    torch.manual_seed(0)
    rnn = torch.nn.LSTM(features, hidden, layers, batch_first=True).eval()
    with torch.no_grad():
        for parameter in rnn.parameters():
            parameter.mul_(2)
    return rnn


@torch.no_grad()
def advance_all(rule, inputs_TD):
    """Return the outputs (T, H) of one episode."""
    state, outputs = rule.start(), []
    for input_D in inputs_TD:
        output, state = advance(rule, input_D, state)
        outputs.append(output)
    return torch.stack(outputs)


@pytest.mark.parametrize('name', ['lstm_none_w8', 'lstm_pooling_w12'])
@torch.no_grad()
def test_streaming_equals_the_reference_with_resets(name):
    arrays = np.load(GOLDEN / f'{name}.npz')
    decoder = LSTMDecoder(**json.loads(bytes(arrays['config'].tolist()))).eval()
    decoder.load_state_dict({key.removeprefix('state_dict/'): torch.from_numpy(arrays[key])
                             for key in arrays.files if key.startswith('state_dict/')})
    tokens = torch.from_numpy(arrays['stream/tokens'])
    rule = SlidingWindow(decoder.rnn, decoder.window_size)
    inputs_TD = decoder.reduce_tokens(tokens)[0]
    assert len(inputs_TD) > 2 * decoder.window_size - 1
    for t, input_D in enumerate(inputs_TD):
        if t in arrays['stream/resets']:
            state = rule.start()
        output, state = advance(rule, input_D, state)
        arm, logit = decoder.heads(output[None, None])
        assert np.abs(arm[0, 0].numpy() - arrays['stream/arm'][t]).max() <= 1e-5, t
        apart = logit[0, 0, :, 0].numpy() - arrays['stream/gripper_logits'][t]
        assert np.abs(apart).max() <= 1e-5, t


@pytest.mark.parametrize('window', [1, 2, 3, 8])
@torch.no_grad()
def test_a_sliding_window_equals_recomputing_it_at_every_step(window):
    rnn = make_rnn()
    inputs = torch.randn(3 * window + 5, 20)
    got = advance_all(SlidingWindow(rnn, window), inputs)
    for t, output in enumerate(got):
        wanted = rnn(inputs[None, max(0, t - window + 1):t + 1])[0][0, -1]
        assert (output - wanted).abs().max() <= 1e-6, t


@torch.no_grad()
def test_the_window_is_neither_shorter_nor_longer():
    rnn, window = make_rnn(), 4
    inputs = torch.randn(12, 20)
    last = advance_all(SlidingWindow(rnn, window), inputs)[-1]
    oldest_in, newest_out = inputs.clone(), inputs.clone()
    oldest_in[-window] += 1
    newest_out[-window - 1] += 1
    assert (advance_all(SlidingWindow(rnn, window), oldest_in)[-1] - last).abs().max() > 1e-4
    assert torch.equal(advance_all(SlidingWindow(rnn, window), newest_out)[-1], last)


@torch.no_grad()
def test_carrying_equals_one_pass_over_the_episode():
    rnn = make_rnn()
    inputs = torch.randn(15, 20)
    assert (advance_all(Carry(rnn), inputs) - rnn(inputs[None])[0][0]).abs().max() <= 1e-6


@pytest.mark.parametrize('rule', [SlidingWindow(make_rnn(), 3), Carry(make_rnn())])
@torch.no_grad()
def test_a_state_is_a_value_that_can_be_used_again(rule):
    inputs = torch.randn(6, 20)
    state = rule.start()
    for input_D in inputs[:4]:
        _, state = advance(rule, input_D, state)
    before = [part.clone() for part in state]
    one, _ = advance(rule, inputs[4], state)
    advance(rule, inputs[5], state)
    again, _ = advance(rule, inputs[4], state)
    assert torch.equal(one, again)
    assert all(torch.equal(part, kept) for part, kept in zip(state, before))


@pytest.mark.parametrize('hidden', [7, 24, 33])
@pytest.mark.parametrize('product', lstm_step.PRODUCTS)
@torch.no_grad()
def test_any_width_is_multiplied_right(hidden, product, monkeypatch):
    monkeypatch.setattr(lstm_step, 'fastest_product', lambda *_: lstm_step.PRODUCTS[product])
    rnn = make_rnn(hidden=hidden)
    step = lstm_step.LSTMStep(rnn, 5)
    recurrent_LWG, c_LWH = (part[:, None].repeat(1, 5, 1) for part in step.zero_state())
    state = None
    for input_D in torch.randn(4, 20):
        output, state = rnn(input_D.expand(5, 1, 20), state)
        found_H = step.read(input_D, recurrent_LWG[:, 2], c_LWH[:, 2])
        recurrent_LWG, c_LWH = step.follow(input_D, recurrent_LWG, c_LWH)
        assert (found_H - output[2, 0]).abs().max() <= 1e-6
        assert (c_LWH - state[1]).abs().max() <= 1e-6


class Reads(TorchDispatchMode):
    """Counts how many numbers of matrices the operations read."""

    def __init__(self):
        """Begin at none."""
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count the operands of one operation that are no vectors."""
        if func._schema.name.removeprefix('aten::') in ('mm', 'mv', 'addmm', 'addmv', 'bmm'):
            self.numbers += sum(arg.numel() for arg in args if arg.dim() > 1)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_an_action_waits_for_half_of_one_step_whatever_the_window():
    """
    Counted, not timed: before the action one lane meets the input's weights, and no others.

    The batch of all lanes once stood before the action: 4.7 times a step of window 1 on one CPU.
    """
    rnn = make_rnn(hidden=32, layers=3, features=32)
    counted = {}
    for window in (1, 8, 16):
        rule = SlidingWindow(rnn, window)
        state = rule.start()
        with Reads() as reads:
            rule.read(torch.randn(32), state)
        counted[window] = reads.numbers
    assert set(counted.values()) == {3 * (4 * 32 * 32)}


def test_a_process_chooses_one_product_a_size():
    """Else two actors of one process would differ in their last bits."""
    chosen = {lstm_step.fastest_product(8, 2, 16) for _ in range(5)}
    assert len(chosen) == 1
    assert chosen < set(lstm_step.PRODUCTS.values())

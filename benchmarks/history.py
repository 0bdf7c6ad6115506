"""
What looking back costs: one step of the recurrent head for several windows, on the CPU.

One thread; its CPU time, so that other processes count as little as may be, and rows are measured
in turn, step by step, so that a busy machine slows all of them alike. The ratio is against window
1; recompute is what the reference does: the last `window` inputs from zero.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
import statistics
import time

from ros2_lstm_policy.runtime.history import History, SlidingWindow
import torch
from torch import nn, Tensor


def lanes_step(history: History) -> Callable[[Tensor], Tensor]:
    """Return a function that takes one input and looks back through lanes."""
    state = history.start()

    def step(input_D: Tensor) -> Tensor:
        nonlocal state
        output, state = history.advance(input_D, state)
        return output
    return step


def recompute_step(rnn: nn.LSTM, window: int) -> Callable[[Tensor], Tensor]:
    """Return a function that takes one input and recomputes the last `window` of them."""
    inputs: deque[Tensor] = deque(maxlen=window)

    def step(input_D: Tensor) -> Tensor:
        inputs.append(input_D)
        return rnn(torch.stack(tuple(inputs)).unsqueeze(0))[0][0, -1]
    return step


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--windows', type=int, nargs='+', default=[1, 8, 16])
    parser.add_argument('--features', type=int, default=1024, help='inputs of the LSTM')
    parser.add_argument('--hidden', type=int, default=1024)
    parser.add_argument('--layers', type=int, default=4)
    parser.add_argument('--steps', type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rnn = nn.LSTM(options.features, options.hidden, options.layers, batch_first=True).eval()
    steps = {('lanes', w): lanes_step(SlidingWindow(rnn, w)) for w in options.windows}
    steps |= {('recompute', w): recompute_step(rnn, w) for w in options.windows}
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
    worst = dict.fromkeys(options.windows, 0.0)
    with torch.inference_mode():
        for _ in range(options.steps):
            input_D, outputs = torch.randn(options.features), {}
            for key, step in steps.items():
                start = time.thread_time()
                outputs[key] = step(input_D)
                seconds[key].append(time.thread_time() - start)
            for w in options.windows:
                error = (outputs['lanes', w] - outputs['recompute', w]).abs().max().item()
                worst[w] = max(worst[w], error)
    base = statistics.median(seconds['lanes', options.windows[0]])
    print(f'LSTM {options.features} -> {options.hidden} x {options.layers}, '
          f'one thread, {options.steps} steps, median ms')
    print('| window | lanes | ratio | recompute | ratio | largest difference |')
    print('|---|---|---|---|---|---|')
    for w in options.windows:
        ours, theirs = (statistics.median(seconds[k, w][w:]) for k in ('lanes', 'recompute'))
        print(f'| {w} | {1e3 * ours:.1f} | {ours / base:.2f} | {1e3 * theirs:.1f} | '
              f'{theirs / base:.2f} | {worst[w]:.1e} |')


if __name__ == '__main__':
    main()

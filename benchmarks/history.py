"""
What looking back costs: one step of the recurrent head for several windows, on the CPU.

One thread; its CPU time, so that other processes count as little as may be, and rows are measured
in turn, step by step, so that a busy machine slows all of them alike. An action waits for the
first column alone; its ratio is against window 1. Recompute is what the reference does: the last
`window` inputs from zero.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
import statistics
import time
from typing import NamedTuple

from ros2_lstm_policy.evaluation.benchmark import device_name
from ros2_lstm_policy.runtime import lstm_step
from ros2_lstm_policy.runtime.history import SlidingWindow
import torch
from torch import nn, Tensor


class Taken(NamedTuple):
    """CPU seconds of one step."""

    before_s: float
    after_s: float


def lanes_step(rnn: nn.LSTM, window: int) -> Callable[[Tensor], tuple[Tensor, Taken]]:
    """Return a function that takes one input and looks back through lanes."""
    rule = SlidingWindow(rnn, window)
    state = rule.start()

    def step(input_D: Tensor) -> tuple[Tensor, Taken]:
        nonlocal state
        start = time.thread_time()
        output_H = rule.read(input_D, state)
        read = time.thread_time()
        state = rule.follow(input_D, state)
        return output_H, Taken(read - start, time.thread_time() - read)
    return step


def recompute_step(rnn: nn.LSTM, window: int) -> Callable[[Tensor], tuple[Tensor, Taken]]:
    """Return a function that takes one input and recomputes the last `window` of them."""
    inputs: deque[Tensor] = deque(maxlen=window)

    def step(input_D: Tensor) -> tuple[Tensor, Taken]:
        inputs.append(input_D)
        start = time.thread_time()
        output_H = rnn(torch.stack(tuple(inputs)).unsqueeze(0))[0][0, -1]
        return output_H, Taken(time.thread_time() - start, 0.0)
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
    steps = {('lanes', w): lanes_step(rnn, w) for w in options.windows}
    steps |= {('recompute', w): recompute_step(rnn, w) for w in options.windows}
    taken: dict[tuple[str, int], list[Taken]] = {key: [] for key in steps}
    worst = dict.fromkeys(options.windows, 0.0)
    with torch.inference_mode():
        for _ in range(options.steps):
            input_D, outputs = torch.randn(options.features), {}
            for key, step in steps.items():
                outputs[key], seconds = step(input_D)
                taken[key].append(seconds)
            for w in options.windows:
                error = (outputs['lanes', w] - outputs['recompute', w]).abs().max().item()
                worst[w] = max(worst[w], error)

    def median_ms(kind: str, w: int) -> list[float]:
        return [1e3 * statistics.median(part) for part in zip(*taken[kind, w][w:])]

    base = median_ms('lanes', options.windows[0])[0]
    names = {product: name for name, product in lstm_step.PRODUCTS.items()}
    cpu = device_name(torch.device('cpu'))
    print(f'LSTM {options.features} -> {options.hidden} x {options.layers}, {cpu}, torch '
          f'{torch.__version__}, one thread, {options.steps} steps, median ms')
    print('| window | before the action | ratio | after it | products | recompute | ratio | '
          'largest difference |\n|---|---|---|---|---|---|---|---|')
    for w in options.windows:
        (before, after), theirs = median_ms('lanes', w), median_ms('recompute', w)[0]
        chosen = names[lstm_step.fastest_product(w, options.layers, options.hidden)]
        print(f'| {w} | {before:.1f} | {before / base:.2f} | {after:.1f} | {chosen} | '
              f'{theirs:.1f} | {theirs / base:.2f} | {worst[w]:.1e} |')


if __name__ == '__main__':
    main()

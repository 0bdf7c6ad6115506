"""
What one decision costs: the compact policy's stages, from two 640 x 480 frames to an action.

Policies are measured one after the other: wall-clock time by stage, the CPU time of the acting
thread (what it takes without other processes on its core), and the wall-clock time of the whole.
Each decides in turn as it was trained and as it acts: on a CPU laid out for it, on a GPU as one
CUDA graph. How many times as fast that is, and the largest difference between the two chunks, are
printed last.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
import time
from typing import Any

import numpy as np
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.types import Observation
import torch

INSTRUCTION = 'pick up the tomato sauce and put it in the basket'
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    '128, stride 16': (128, {}),
    '128, stride 32': (128, {'vision_strides': [32]}),
    '128, stride 16, film': (128, {'film': True}),
    '224, stride 16': (224, {}),
    '224, stride 32': (224, {'vision_strides': [32]}),
}


def make_policy(size: int, backbone: dict[str, Any], hidden: int, layers: int) -> Policy:
    """Return an untrained policy of two cameras."""
    torch.manual_seed(0)
    cameras = tuple(CameraSpec(name, size, size, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in ('static', 'hand'))
    manifest = one_arm('base', 'rotation_vector', 0.1,
                       Normalisation((0.0,) * 6, (0.05,) * 3 + (0.5,) * 3), cameras)
    decoder = DecoderConfig(hidden_size=hidden, num_layers=layers)
    return Policy(PolicyConfig(BackboneConfig('compact', backbone), decoder), manifest).eval()


def policies(options: argparse.Namespace) -> Iterator[tuple[str, Policy]]:
    """Yield what is to be measured, by name."""
    if options.checkpoint is not None:
        yield options.checkpoint.name, checkpoint.load(options.checkpoint, options.device)
        return
    for name, (size, backbone) in VARIANTS.items():
        policy = make_policy(size, backbone, options.hidden, options.layers)
        yield f'{name}, LSTM {options.hidden} x {options.layers}', policy.to(options.device)


def observations(count: int) -> list[Observation]:
    """Return frames of noise at a camera's size."""
    rng = np.random.default_rng(0)
    return [Observation(t, {name: rng.integers(0, 256, (480, 640, 3), np.uint8)
                            for name in ('static', 'hand')}) for t in range(count)]


def measure(actors: dict[str, PolicyActor], count: int) -> dict[str, list[dict[str, float]]]:
    """Return seconds by stage of every decision, with its thread's CPU time and its wall time."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in actors}
    for actor in actors.values():
        actor.warm_up(INSTRUCTION)
    for observation in observations(count):
        for name, actor in actors.items():
            cpu, wall = time.thread_time(), time.perf_counter()
            decision = actor.act(observation, INSTRUCTION)
            rows[name].append({**decision.stage_s, 'thread': time.thread_time() - cpu,
                               'wall': time.perf_counter() - wall})
    return rows


def largest_difference(one: PolicyActor, other: PolicyActor, count: int) -> float:
    """Return how far the chunks of two actors are apart over an episode."""
    one.reset()
    other.reset()
    return max(float(np.abs(one.act(o, INSTRUCTION).chunk - other.act(o, INSTRUCTION).chunk).max())
               for o in observations(count))


def print_table(rows: dict[str, list[dict[str, float]]]) -> None:
    """Print medians in ms, and the 99th percentile of the wall time."""
    stages = list(dict.fromkeys(stage for table in rows.values() for stage in table[0]))
    print(f'| policy | {" | ".join(stages)} | wall p99 |')
    print('|---' * (len(stages) + 2) + '|')
    for name, table in rows.items():
        cells = [f'{1e3 * np.median([row[stage] for row in table]):.2f}' if stage in table[0]
                 else '' for stage in stages]
        p99 = 1e3 * np.percentile([row['wall'] for row in table], 99)
        print(f'| {name} | ' + ' | '.join(cells) + f' | {p99:.2f} |')


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precision', choices=['fp32', 'bf16'], default='fp32')
    parser.add_argument('--hidden', type=int, default=512)
    parser.add_argument('--layers', type=int, default=2)
    parser.add_argument('--decisions', type=int, default=100)
    parser.add_argument('--checkpoint', type=Path, help='this policy, and no untrained ones')
    options = parser.parse_args()
    rows: dict[str, list[dict[str, float]]] = {}
    endings: list[str] = []
    for name, policy in policies(options):
        plain = PolicyActor(policy, precision=options.precision, cuda_graph=False, prepare=False)
        acting = PolicyActor(policy, precision=options.precision)
        found = measure({f'{name}, as trained': plain, name: acting}, options.decisions)
        rows |= found
        trained, acts = (float(np.median([row['thread'] for row in table]))
                         for table in found.values())
        endings.append(f'{name}: {trained / acts:.2f} times as fast as it was trained, largest '
                       f'difference {largest_difference(plain, acting, 20):.1e}')
    print(f'{options.device}, {options.precision}, {options.decisions} decisions, median ms')
    print_table(rows)
    print('\n'.join(endings))


if __name__ == '__main__':
    main()

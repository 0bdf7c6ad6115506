"""
Decisions a second of the peers and of ours on one CPU, taken in turn in one process.

A decision is what a control period needs: two frames of 256 x 256 and an instruction in, an action
out, preprocessing included. The peers have random weights, on which their time does not depend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
import time
from typing import NamedTuple

from lerobot_peers import policies
from lerobot_peers.closed_loop import PeerActor
from lerobot_peers.policies import Execute, Name, Spec
from lerobot_peers.samples import Scaling
import numpy as np
from ros2_lstm_policy.kinds import ACTION_DIM
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.backbones.compact import minilm
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.types import Observation
import torch
from tqdm import tqdm

INSTRUCTION = 'pick up the tomato sauce and put it in the basket'
OURS = 'ours, a network call every period'


class Contender(NamedTuple):
    """
    Somebody who decides.

    :param decide: makes that many decisions.
    """

    name: str
    decide: Callable[[], None]
    decisions: int


class Cost(NamedTuple):
    """
    One decision, medians over the rounds.

    :param wall_ms: wall-clock time.
    :param cpu_ms: CPU time of all threads; on a busy machine the better measure of one thread.
    """

    wall_ms: float
    cpu_ms: float


def contenders(ours: Path, names: Sequence[Name], threads: int) -> list[Contender]:
    """Return ours and the peers; each peer with one network call a period, and with its chunks."""
    observation = _observation()
    actor = PolicyActor(checkpoint.load(ours), threads=threads)
    found = [Contender(OURS, lambda: _decide(actor, observation, 1), 1)]
    for name in names:
        peer = random_peer(name, actor.manifest.cameras, 'chunk')
        actions = peer.policy.config.n_action_steps
        found += [_every_period(peer, name, observation),
                  _in_chunks(peer, name, observation, actions)]
    return found


def random_peer(name: Name, cameras: tuple, execute: Execute) -> PeerActor:
    """Return a peer with random weights on the CPU."""
    spec = Spec(name, policies.cameras(name, cameras), Scaling.identity(ACTION_DIM),
                Scaling.identity(minilm.STATE_DIM))
    torch.manual_seed(0)
    return PeerActor(policies.build(name, spec.cameras, execute).eval(), spec, 'cpu')


def measure(of: Sequence[Contender], threads: int, rounds: int) -> dict[str, Cost]:
    """Let all decide in turn, round by round, and return what a decision of each costs."""
    torch.set_num_threads(threads)
    found: dict[str, list[tuple[float, float]]] = {each.name: [] for each in of}
    for number in tqdm(range(rounds + 1), desc=f'{threads} threads', unit='round'):
        for each in of:
            wall, cpu = time.perf_counter(), time.process_time()
            each.decide()
            wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
            if number:  # the first round warms up
                each_ms = 1e3 / each.decisions
                found[each.name].append((each_ms * wall_s, each_ms * cpu_s))
    return {name: Cost(*np.median(rows, axis=0).tolist()) for name, rows in found.items()}


def table(costs: dict[str, Cost]) -> str:
    """Return Markdown; a ratio above 1 says that ours is faster."""
    lines = ['| policy | ms a decision | decisions/s | CPU ms | ours is faster by | by CPU time |',
             '|---|---|---|---|---|---|']
    ours = costs[OURS]
    for name, cost in costs.items():
        lines.append(f'| {name} | {cost.wall_ms:.1f} | {1e3 / cost.wall_ms:.1f} | '
                     f'{cost.cpu_ms:.1f} | {cost.wall_ms / ours.wall_ms:.2f} | '
                     f'{cost.cpu_ms / ours.cpu_ms:.2f} |')
    return '\n'.join(lines)


def _every_period(peer: PeerActor, name: Name, observation: Observation) -> Contender:
    def decide() -> None:
        peer.reset()  # an empty queue asks the network
        _decide(peer, observation, 1)
    return Contender(f'{name}, a network call every period', decide, 1)


def _in_chunks(peer: PeerActor, name: Name, observation: Observation, actions: int) -> Contender:
    def decide() -> None:
        peer.reset()
        _decide(peer, observation, actions)
    return Contender(f'{name}, a network call every {actions} periods', decide, actions)


def _decide(actor: PolicyActor | PeerActor, observation: Observation, decisions: int) -> None:
    for _ in range(decisions):
        actor.act(observation, INSTRUCTION)


def _observation() -> Observation:
    rng = np.random.default_rng(0)
    return Observation(0, {name: rng.integers(0, 256, (256, 256, 3), np.uint8)
                           for name in ('static', 'hand')})

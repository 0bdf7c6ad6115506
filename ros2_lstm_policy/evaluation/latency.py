"""How long the decisions of a policy take, by stage, one after the other and at its own rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import gc
import resource
import sys
import time
from typing import Any

import numpy as np
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.types import Observation
import torch

AFTER = 'after the action'
_FRAMES = 8  # different ones, over and over


@dataclass(frozen=True)
class Scene:
    """
    What the policy is shown.

    :param image_size: rows and columns of the raw images.
    """

    image_size: tuple[int, int]
    instruction: str

    def observations(self, policy: Policy) -> list[Observation]:
        """Return noise of all cameras."""
        generator, shape = np.random.default_rng(0), (*self.image_size, 3)
        return [Observation(number, {camera.name: generator.integers(0, 256, shape, np.uint8)
                                     for camera in policy.manifest.cameras})
                for number in range(_FRAMES)]


@dataclass(frozen=True)
class Times:
    """
    Milliseconds of ticks.

    :param total: from the raw images to the action, of each tick.
    :param stages: those of its parts, by stage; what follows the action is none of the total.
    """

    total: np.ndarray
    stages: Mapping[str, np.ndarray]

    def median(self) -> float:
        """Return the median tick."""
        return float(np.median(self.total))

    def p99(self) -> float:
        """Return what one tick of a hundred exceeds."""
        return float(np.percentile(self.total, 99))

    def stage_medians(self) -> dict[str, float]:
        """Return the median of each stage."""
        return {name: float(np.median(taken)) for name, taken in self.stages.items()}


@dataclass(frozen=True)
class Way:
    """
    What was measured of one way to run the policy.

    :param first_action_s: from the loaded policy to the first action: weights laid out, graphs
        captured, layers compiled.
    :param paced: at the policy's control rate; None where that was left out.
    :param difference: largest of a chunk's to the first way's, of its largest value.
    :param gpu_gb: the most that was in use on the GPU; 0 on a CPU.
    """

    name: str
    first_action_s: float
    back_to_back: Times
    paced: Times | None
    difference: float
    gpu_gb: float
    process_gb: float = field(default_factory=lambda: peak_process_gb())


def measure(policy: Policy, scene: Scene, ways: Sequence[str], ticks: int, paced_ticks: int,
            **options: Any) -> list[Way]:
    """
    Run the same episode in each way.

    :param ways: in the order 'eager', 'prepared', 'graph', 'compiled': later ones change the
        policy's layers in place.
    :param options: of the actor, the same for all.
    """
    observations, measured = scene.observations(policy), list[Way]()
    first: np.ndarray | None = None
    for name in ways:
        gc.collect()
        if _is_on_gpu(policy):
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        actor = PolicyActor(policy, cuda_graph=name != 'eager', prepare=name != 'eager',
                            compiled=name == 'compiled', **options)
        actor.act(observations[0], scene.instruction)
        first_s = time.perf_counter() - begin
        chunks = _episode(actor, observations, scene, 2 * _FRAMES)
        first = chunks if first is None else first
        alone = _run(actor, observations, scene, ticks, 0.0)
        paced = _run(actor, observations, scene, paced_ticks, policy.manifest.control_period_s) \
            if paced_ticks else None
        measured.append(Way(
            name, first_s, alone, paced, float(np.abs(chunks - first).max() / np.abs(first).max()),
            torch.cuda.max_memory_allocated() / 1e9 if _is_on_gpu(policy) else 0.0))
    return measured


def peak_process_gb() -> float:
    """Return the most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == 'darwin' else peak / 1e6


def _is_on_gpu(policy: Policy) -> bool:
    return next(policy.parameters()).is_cuda


def _episode(actor: PolicyActor, observations: Sequence[Observation], scene: Scene,
             ticks: int) -> np.ndarray:
    """Return the chunks (T, K, A) of an episode."""
    actor.reset()
    return np.stack([actor.act(observations[tick % _FRAMES], scene.instruction).chunk
                     for tick in range(ticks)])


def _run(actor: PolicyActor, observations: Sequence[Observation], scene: Scene, ticks: int,
         period_s: float) -> Times:
    total, stages = [], dict[str, list[float]]()
    due = time.perf_counter()
    for tick in range(ticks):
        if period_s:
            due += period_s
            time.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        decision = actor.act(observations[tick % _FRAMES], scene.instruction)
        acted = time.perf_counter()
        decision.settle()
        stage_s = {**decision.stage_s, AFTER: time.perf_counter() - acted}
        total.append(acted - begin)
        for name, seconds in stage_s.items():
            stages.setdefault(name, []).append(seconds)
    return Times(1e3 * np.array(total), {name: 1e3 * np.array(taken)
                                         for name, taken in stages.items()})

"""What a memory task says of itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ros2_lstm_policy.sim.stages import Stage
from ros2_lstm_policy.sim.world import World

CUE_PERIODS = 10  # one second


class Setting(NamedTuple):
    """
    What tells one episode of a task from another, once its objects stand in their places.

    :param cue: what is to be remembered, a number below the task's `cues`.
    :param gap_periods: control periods of each gap.
    :param seed: for what else is drawn.
    """

    cue: int
    gap_periods: int
    seed: int


@dataclass(frozen=True)
class MemoryTask:
    """
    One task of benchmark M.

    :param name: such as 'memory/shown_object'.
    :param benchmark: its short name, such as 'm1'.
    :param scene: which :class:`SimRobot` serves it.
    :param cues: how many different things there are to be remembered.
    :param movable: how many objects are permuted over the scene's places.
    :param instruction: what the robot is told, by cue.
    :param target: LIBERO's name of the object that is to be moved at last, by cue.
    :param container: where it belongs, by cue.
    :param chance: by cue, the best rate of success of who knows everything but the past.
    :param plan: an episode's stages, made when all is at rest.
    """

    name: str
    benchmark: str
    scene: str
    cues: int
    movable: int
    instruction: Callable[[int], str]
    target: Callable[[int], str]
    container: Callable[[int], str | None]
    chance: Callable[[int], float]
    plan: Callable[[World, Setting], Sequence[Stage]]

"""
Which memory tasks there are, and how an episode of one is drawn.

An episode is decided by its cue (what is to be remembered), the objects' places and the length of
its gaps. One combination of cue and places in five is kept for evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from ros2_lstm_policy.sim.memory import (alternate, count, put_back, shown_object, wait,
                                         where_it_was)
from ros2_lstm_policy.sim.memory.task import MemoryTask

TASKS: tuple[MemoryTask, ...] = (
    shown_object.TASK, put_back.TASK, where_it_was.TASK, count.TASK,
    alternate.TASK, wait.TASK)
HELD_OUT_ONE_IN = 5
DEFAULT_GAP_S = 10.0
LONGEST_GAP_S = 3600.0


class Drawn(NamedTuple):
    """
    What decides an episode of a task.

    :param slots: object k stands in the place of object slots[k].
    """

    cue: int
    slots: tuple[int, ...]
    gap_s: float


def find(name: str) -> MemoryTask | None:
    """Return the task of a name such as 'memory/shown_object' or 'm1'; None for no such task."""
    return next((task for task in TASKS if name in (task.name, task.benchmark)), None)


def is_held_out(cue: int, slots: Sequence[int]) -> bool:
    """Return whether a combination of cue and places is kept for evaluation; 1 in 5 is."""
    # powers of 3 have all remainders by 5, whatever the number of objects
    number = sum(value * 3 ** i for i, value in enumerate((*slots, cue)))
    return number % HELD_OUT_ONE_IN == 0


def draw(task: MemoryTask, seed: int, held_out: bool, cue: int | None = None,
         gap_s: tuple[float, float] = (DEFAULT_GAP_S, DEFAULT_GAP_S)) -> Drawn:
    """
    Draw an episode.

    :param held_out: whether of the combinations that are kept for evaluation, or of the others.
    :param cue: None for one that is drawn, too.
    :param gap_s: shortest and longest gap; its logarithm is uniform between theirs.
    :raises ValueError: for a cue or a gap that there is not.
    """
    check_gap(gap_s)
    if cue is not None and not 0 <= cue < task.cues:
        raise ValueError(f'{task.name}: cue must be 0 to {task.cues - 1}, found {cue}')
    rng = np.random.default_rng(seed)
    length_s = gap_s[0]
    if gap_s[0] < gap_s[1]:
        length_s = round(math.exp(rng.uniform(math.log(gap_s[0]), math.log(gap_s[1]))), 1)
    chosen = int(rng.integers(task.cues)) if cue is None else cue
    slots = rng.permutation(task.movable).tolist()
    while is_held_out(chosen, slots) != held_out:
        slots = rng.permutation(task.movable).tolist()
    return Drawn(chosen, tuple(slots), length_s)


def check_gap(gap_s: tuple[float, float]) -> None:
    """
    Make sure that gaps can be drawn from a range.

    :raises ValueError: where they cannot.
    """
    shortest, longest = gap_s
    if not 0 <= shortest <= longest <= LONGEST_GAP_S or shortest == 0 < longest:
        raise ValueError(f'gap_s: expected [shortest, longest] of 0 to {LONGEST_GAP_S:.0f} s, '
                         'equal for a fixed gap, and a shortest above 0 for a range; found '
                         f'[{shortest}, {longest}]')

"""
M6, wait: five or ten seconds, then one of seven objects into the basket.

The robot is held until it is told to move by more than 2 cm, so that all frames of the wait are
one image: the arm cannot drift as the hand of a clock. Who does not remember moves with one and
the same probability at each period.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_lstm_policy.sim.memory.shown_object import OnlyThisIntoTheBasket
from ros2_lstm_policy.sim.memory.task import MemoryTask, Setting
from ros2_lstm_policy.sim.seven_objects import BASKET, OBJECTS, SCENE
from ros2_lstm_policy.sim.stages import Put, Stage, Standing, Stay, Wanted
from ros2_lstm_policy.sim.world import Snapshot, World

WAITS = {'five': 50, 'ten': 100}  # in words and in control periods
TOLERANCE = 10  # periods, to both sides
MOVES_M = 0.02


class Wait:
    """
    No move until a time has passed, to a second; then the first one.

    :param periods: control periods to be waited.
    :param then: what the robot is to do after them.
    """

    def __init__(self, world: World, scene: Snapshot, periods: int, then: Wanted) -> None:
        """Ask for patience."""
        self._world, self._scene, self._periods, self._then = world, scene, periods, then

    def begin(self) -> None:
        """Set the scene."""
        self._world.load(self._scene)
        self._waited, self._version = -1, self._world.version

    def holds(self, arm: np.ndarray) -> bool:
        """Hold the robot until it is told to move."""
        return bool(np.linalg.norm(arm[:3]) <= MOVES_M)

    def look(self) -> Standing:
        """Count, and judge the first move."""
        if self._world.version != self._version:  # the world went on
            is_early = self._waited < self._periods - TOLERANCE
            return Standing(failure='moved too early') if is_early else Standing(done=True)
        self._waited += 1
        if self._waited > self._periods + TOLERANCE:
            return Standing(failure='waited too long')
        return Standing()

    def wanted(self) -> Wanted:
        """Want nothing, then the task."""
        return Stay() if self._waited < self._periods else self._then


def chance(periods: int) -> float:
    """
    Return how often the best constant probability of moving, h, moves in time.

    It stays for a periods and moves within the next b: (1 - h)^a (1 - (1 - h)^b), which is
    greatest where (1 - h)^b = a / (a + b).
    """
    a, b = periods - TOLERANCE, 2 * TOLERANCE + 1
    return float((a / (a + b)) ** (a / b) * b / (a + b))


def plan(world: World, setting: Setting) -> Sequence[Stage]:
    """Wait, then go on from there."""
    wait, target = _meant(setting.cue)
    return [Wait(world, world.save(), WAITS[wait], Put(target, BASKET)),
            OnlyThisIntoTheBasket(world, None, target)]


def _instruction(cue: int) -> str:
    wait, target = _meant(cue)
    thing = target.rpartition('_')[0].replace('_', ' ')
    return f'wait {wait} seconds, then pick up the {thing} and put it in the basket'


def _meant(cue: int) -> tuple[str, str]:
    """Return how long is to be waited, in words, and for which object."""
    return list(WAITS)[cue % len(WAITS)], OBJECTS[cue // len(WAITS)]


TASK = MemoryTask(
    name='memory/wait', benchmark='m6', scene=SCENE, cues=len(WAITS) * len(OBJECTS),
    movable=len(OBJECTS), instruction=_instruction, target=lambda cue: _meant(cue)[1],
    container=lambda cue: BASKET, chance=lambda cue: chance(WAITS[_meant(cue)[0]]), plan=plan)

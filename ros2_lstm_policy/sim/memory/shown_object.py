"""
M1, shown object: one of seven objects stands alone for a second; that one into the basket.

After the gap all seven stand in permuted places. Who does not remember takes one of the seven.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_lstm_policy.sim.memory.task import CUE_PERIODS, MemoryTask, Setting
from ros2_lstm_policy.sim.seven_objects import BASKET, OBJECTS, SCENE
from ros2_lstm_policy.sim.stages import Put, Show, Stage, Standing
from ros2_lstm_policy.sim.world import Snapshot, World

OTHER_LIFTED_M = 0.03


class OnlyThisIntoTheBasket:
    """
    One object into the basket, and no other one lifted.

    :param scene: with which it begins; None for the present one.
    """

    def __init__(self, world: World, scene: Snapshot | None, target: str) -> None:
        """Ask for an object."""
        self._world, self._scene, self._put = world, scene, Put(target, BASKET)

    def begin(self) -> None:
        """Set the scene, and look where all stand."""
        if self._scene is not None:
            self._world.load(self._scene)
        self._heights = {name: self._world.position(name)[2]
                         for name in OBJECTS if name != self._put.target}

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Judge the seven objects."""
        for name, height in self._heights.items():
            if self._world.position(name)[2] - height > OTHER_LIFTED_M:
                return Standing(failure='wrong object lifted')
        return Standing(self._world.inside(*self._put))

    def wanted(self) -> Put:
        """Want the object in the basket."""
        return self._put


def plan(world: World, setting: Setting) -> Sequence[Stage]:
    """Show one object alone in the place of any, then none, then all."""
    choice = world.save()
    shown = OBJECTS[setting.cue]
    places = [world.position(name)[:2] for name in OBJECTS]
    world.hide([name for name in OBJECTS if name != shown])
    world.place(shown, places[np.random.default_rng([setting.seed, 1]).integers(len(places))])
    cue = world.save()
    world.hide(OBJECTS)
    gap = world.save()
    world.load(choice)
    return [Show(world, cue, CUE_PERIODS), Show(world, gap, setting.gap_periods),
            OnlyThisIntoTheBasket(world, choice, shown)]


TASK = MemoryTask(
    name='memory/shown_object', benchmark='m1', scene=SCENE, cues=len(OBJECTS),
    movable=len(OBJECTS),
    instruction=lambda cue: 'pick up the object that was shown and put it in the basket',
    target=lambda cue: OBJECTS[cue], container=lambda cue: BASKET,
    chance=lambda cue: 1 / len(OBJECTS), plan=plan)

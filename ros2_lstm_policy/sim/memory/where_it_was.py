"""
M3, where it was: the butter stands on one of four equal plates for a second; the bowl goes there.

Who does not remember takes one of the four.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_lstm_policy.sim.memory import plates
from ros2_lstm_policy.sim.memory.plates import BOWL, BUTTER, PLATES, TRAY
from ros2_lstm_policy.sim.memory.task import CUE_PERIODS, MemoryTask, Setting
from ros2_lstm_policy.sim.stages import Put, Show, Stage, Standing
from ros2_lstm_policy.sim.world import Snapshot, World

RESTS_PERIODS = 5


class BowlOntoThePlate:
    """
    The bowl on one plate for half a second, let go of, without touching another one.

    :param scene: with which it begins.
    """

    def __init__(self, world: World, scene: Snapshot, plate: str) -> None:
        """Ask for a plate."""
        self._world, self._scene, self._plate = world, scene, plate

    def begin(self) -> None:
        """Set the scene."""
        self._world.load(self._scene)
        self._rests = 0

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Judge where the bowl is."""
        if any(self._world.privileged.touch(BOWL, plate) for plate in PLATES
               if plate != self._plate):
            return Standing(failure='wrong plate touched')
        rests = plates.rests_on(self._world, BOWL) == self._plate
        self._rests = self._rests + 1 if rests else 0
        return Standing(self._rests >= RESTS_PERIODS)

    def wanted(self) -> Put:
        """Want the bowl on the plate."""
        return Put(BOWL, self._plate)


def plan(world: World, setting: Setting) -> Sequence[Stage]:
    """Show the butter on a plate, then the plates alone."""
    plate = PLATES[setting.cue]
    world.hide([BUTTER, TRAY])
    choice = world.save()
    plates.put_onto(world, BUTTER, plate)
    cue = world.save()
    world.load(choice)
    return [Show(world, cue, CUE_PERIODS), Show(world, choice, setting.gap_periods),
            BowlOntoThePlate(world, choice, plate)]


TASK = MemoryTask(
    name='memory/where_it_was', benchmark='m3', scene=plates.SCENE, cues=len(PLATES),
    movable=plates.MOVABLE,
    instruction=lambda cue: 'put the bowl on the plate where the butter was',
    target=lambda cue: BOWL, container=lambda cue: PLATES[cue],
    chance=lambda cue: 1 / len(PLATES), plan=plan)

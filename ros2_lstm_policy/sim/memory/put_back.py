"""
M2, put back: the butter from one of four equal plates into the tray, and back to where it was.

Once it is in the tray the arm is brought home and the butter to one place in the tray, whichever
plate it came from. Who does not remember takes one of the four.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_lstm_policy.sim.memory import plates
from ros2_lstm_policy.sim.memory.plates import BOWL, BUTTER, PLATES, TRAY
from ros2_lstm_policy.sim.memory.task import CUE_PERIODS, MemoryTask, Setting
from ros2_lstm_policy.sim.stages import Put, Show, Stage, Standing
from ros2_lstm_policy.sim.world import Snapshot, World

IN_TRAY_PERIODS, BACK_PERIODS = 5, 10
ALONG_THE_TRAY = np.pi / 2  # so that the open gripper fits between the tray's walls


class IntoTheTray:
    """
    The butter in the tray for half a second, let go of.

    :param scene: with which it begins.
    """

    def __init__(self, world: World, scene: Snapshot) -> None:
        """Ask for the way there."""
        self._world, self._scene = world, scene

    def begin(self) -> None:
        """Set the scene."""
        self._world.load(self._scene)
        self._there = 0

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Judge where the butter is."""
        there = self._world.inside(BUTTER, TRAY) and not self._world.privileged.held(BUTTER)
        self._there = self._there + 1 if there else 0
        return Standing(self._there >= IN_TRAY_PERIODS)

    def wanted(self) -> Put:
        """Want the butter in the tray."""
        return Put(BUTTER, TRAY)


class BackToThePlate:
    """
    The butter on its plate, let go of, and still there a second later.

    :param scene: with which it begins.
    """

    def __init__(self, world: World, scene: Snapshot, plate: str) -> None:
        """Ask for the way back."""
        self._world, self._scene, self._plate = world, scene, plate

    def begin(self) -> None:
        """Set the scene."""
        self._world.load(self._scene)
        self._on, self._rests = '', 0

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Judge on which plate the butter rests."""
        plate = plates.rests_on(self._world, BUTTER) or ''
        self._rests = self._rests + 1 if plate == self._on else 0
        self._on = plate
        rests = bool(plate) and self._rests >= BACK_PERIODS
        if rests and plate != self._plate:
            return Standing(failure='put on another plate')
        return Standing(rests)

    def wanted(self) -> Put:
        """Want the butter on its plate."""
        return Put(BUTTER, self._plate)


def plan(world: World, setting: Setting) -> Sequence[Stage]:
    """Begin with the butter on a plate; after the first act, with the butter in the tray."""
    plate = PLATES[setting.cue]
    world.hide([BOWL])
    start = world.save()
    plates.put_onto(world, BUTTER, TRAY, ALONG_THE_TRAY)
    in_tray = world.save()
    world.load(start)
    plates.put_onto(world, BUTTER, plate)
    on_plate = world.save()
    return [Show(world, on_plate, CUE_PERIODS), IntoTheTray(world, on_plate),
            Show(world, in_tray, setting.gap_periods), BackToThePlate(world, in_tray, plate)]


TASK = MemoryTask(
    name='memory/put_back', benchmark='m2', scene=plates.SCENE, cues=len(PLATES),
    movable=plates.MOVABLE,
    instruction=lambda cue: 'put the butter in the tray, then put it back where it came from',
    target=lambda cue: BUTTER, container=lambda cue: PLATES[cue],
    chance=lambda cue: 1 / len(PLATES), plan=plan)

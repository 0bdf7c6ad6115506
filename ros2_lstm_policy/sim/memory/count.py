"""
M4, count and stop: lift the bowl and put it back so many times as is said, then push the plate.

Nothing ends by itself. Each time the bowl is back, all is as at the beginning, the arm too, so
that nothing but memory tells how often it was lifted. Who does not remember pushes with one and
the same probability p at each return to that scene: it succeeds with p (1 - p)^N, at best
N^N / (N + 1)^(N + 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_lstm_policy.sim.memory import scenes
from ros2_lstm_policy.sim.memory.task import MemoryTask, Setting
from ros2_lstm_policy.sim.stages import Push, Raise, SetDown, Show, Stage, Standing, Wanted
from ros2_lstm_policy.sim.world import Snapshot, World

BOWL, PLATE = 'akita_black_bowl_1', 'plate_1'
LIFTED_M, BACK_M, PUSHED_M = 0.08, 0.02, 0.04
TIMES = ('once', 'twice', 'three times')
AISLE_X = -0.04  # between the two rows of places


class _Table:
    """What became of bowl and plate since a stage began."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._bowl, self._plate = world.position(BOWL), world.position(PLATE)

    @property
    def height(self) -> float:
        """Return how far the bowl is above where it stood, m."""
        return float(self._world.position(BOWL)[2] - self._bowl[2])

    @property
    def pushed(self) -> bool:
        """Return whether the plate is no longer where it was."""
        moved = self._world.position(PLATE) - self._plate
        return bool(np.linalg.norm(moved[:2]) > PUSHED_M)


class LiftAndPutBack:
    """
    The bowl up by more than 8 cm and down again, let go of; the plate stays.

    :param scene: with which it begins.
    """

    def __init__(self, world: World, scene: Snapshot) -> None:
        """Ask for one lift."""
        self._world, self._scene = world, scene

    def begin(self) -> None:
        """Set the scene."""
        self._world.load(self._scene)
        self._table, self._is_up = _Table(self._world), False
        points = self._world.privileged.points(BOWL)
        self._foot = float(points[:, 2].min())
        self._middle = (points.max(0) + points.min(0)) / 2

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Judge bowl and plate."""
        self._is_up = self._is_up or self._table.height > LIFTED_M
        if self._table.pushed:
            return Standing(failure='too few lifts')
        back = self._table.height < BACK_M and not self._world.privileged.held(BOWL)
        return Standing(self._is_up and back)

    def wanted(self) -> Wanted:
        """Want the bowl up, then down again."""
        if not self._is_up:
            return Raise(BOWL, self._foot + 1.4 * LIFTED_M)
        return SetDown(BOWL, float(self._middle[0]), float(self._middle[1]), self._foot)


class PushThePlate:
    """
    The plate pushed by more than 4 cm; the bowl stays.

    :param scene: with which it begins.
    """

    def __init__(self, world: World, scene: Snapshot) -> None:
        """Ask for the final act."""
        self._world, self._scene = world, scene

    def begin(self) -> None:
        """Set the scene."""
        self._world.load(self._scene)
        self._table = _Table(self._world)

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Judge plate and bowl."""
        if self._table.height > LIFTED_M:
            return Standing(failure='too many lifts')
        return Standing(self._table.pushed)

    def wanted(self) -> Push:
        """Want the plate pushed."""
        return Push(PLATE, AISLE_X)


def plan(world: World, setting: Setting) -> Sequence[Stage]:
    """Let the bowl be lifted N times, each time from the same scene, then the plate be pushed."""
    world.hide([name for name in scenes.SCENES[scenes.PLATES] if name not in (BOWL, PLATE)])
    scene = world.save()
    stages: list[Stage] = []
    for _ in range(setting.cue + 1):
        stages += [LiftAndPutBack(world, scene), Show(world, scene, setting.gap_periods)]
    return [*stages, PushThePlate(world, scene)]


TASK = MemoryTask(
    name='memory/count', benchmark='m4', scene=scenes.PLATES, cues=len(TIMES),
    movable=len(scenes.SCENES[scenes.PLATES]) - 1,
    instruction=lambda cue: f'lift the bowl and put it back {TIMES[cue]}, then push the plate',
    target=lambda cue: BOWL, container=lambda cue: None,
    chance=lambda cue: (cue + 1) ** (cue + 1) / (cue + 2) ** (cue + 2), plan=plan)

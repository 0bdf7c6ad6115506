"""
An episode as a course of stages: what the robot may do, what the scene shows, when it is done.

An episode of LIBERO is one stage, which ends where its goal holds. Memory tasks have several: a
cue and a gap, in which the robot is held still, and stages in which it acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ros2_lstm_policy.sim.world import Snapshot, World


class Standing(NamedTuple):
    """
    How a stage stands.

    :param done: whether it is over, and well; of an episode's last stage: whether it holds now.
    :param failure: why it cannot end well any more; empty while it can.
    """

    done: bool = False
    failure: str = ''


class Stay(NamedTuple):
    """Wanted of the robot: not to move."""


class Put(NamedTuple):
    """Wanted of the robot: an object into, or onto, another one, and the gripper away."""

    target: str
    container: str


class Raise(NamedTuple):
    """Wanted of the robot: an object lifted so high that its lowest point is at a height, m."""

    target: str
    height: float


class SetDown(NamedTuple):
    """Wanted of the robot: an object on the table, its middle over (x, y), lowest point at z."""

    target: str
    x: float
    y: float
    z: float


class Push(NamedTuple):
    """Wanted of the robot: an object pushed away from the table's line of that x, m."""

    target: str
    from_x: float


class LiftTogether(NamedTuple):
    """Wanted of two arms: an object lifted by its two handles."""

    target: str


class Unknown(NamedTuple):
    """Wanted of the robot: what no skill of the scripted expert is for."""

    instruction: str


Movement = Put | Raise | SetDown
Wanted = Stay | Movement | Push | LiftTogether | Unknown


class Stage(Protocol):
    """One part of an episode."""

    def begin(self) -> None:
        """Set the scene."""

    def holds(self, arm: np.ndarray) -> bool:
        """Return whether the world stands still in the coming period, whatever else is told."""

    def look(self) -> Standing:
        """Judge the scene: called once when the stage has begun and once after each period."""

    def wanted(self) -> Wanted:
        """Return what the robot is to do now, for who knows the simulator's state."""


class Course:
    """
    The stages of one episode, one after the other.

    :param stages: at least one.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        """Begin the first stage."""
        self._stages = stages
        self.stage, self.standing = -1, Standing()
        self._next()

    def __len__(self) -> int:
        """Return the number of stages."""
        return len(self._stages)

    @property
    def success(self) -> bool:
        """Return whether all is done."""
        return self.standing.done and self.stage == len(self._stages) - 1

    def holds(self, arm: np.ndarray) -> bool:
        """Return whether the world stands still in the coming period."""
        return self._stage.holds(arm)

    def wanted(self) -> Wanted:
        """Return what the robot is to do now."""
        return self._stage.wanted()

    def advance(self) -> None:
        """Judge the scene after a control period, and go on where a stage is over."""
        failure = self.standing.failure
        self.standing = self._stage.look()
        if failure:  # what has failed stays so
            self.standing = Standing(False, failure)
        self._go_on()

    @property
    def _stage(self) -> Stage:
        return self._stages[self.stage]

    def _next(self) -> None:
        self.stage += 1
        self._stage.begin()
        self.standing = self._stage.look()
        self._go_on()

    def _go_on(self) -> None:
        if self.standing.done and self.stage < len(self._stages) - 1:
            self._next()


class ReachGoal:
    """The one stage of an episode of LIBERO: its goal holds, or does not."""

    def __init__(self, world: World, wanted: Wanted) -> None:
        """Look at a scene."""
        self._world, self._wanted = world, wanted

    def begin(self) -> None:
        """Leave the scene as it is."""

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Ask LIBERO."""
        return Standing(self._world.goal_holds())

    def wanted(self) -> Wanted:
        """Return what the goal asks for."""
        return self._wanted


class Show:
    """
    A scene that is shown for a time, while the robot is held still: a cue, or a gap.

    :param periods: control periods; 0 shows nothing.
    """

    def __init__(self, world: World, scene: Snapshot, periods: int) -> None:
        """Show a scene."""
        self._world, self._scene, self._periods = world, scene, periods

    def begin(self) -> None:
        """Set the scene."""
        self._world.load(self._scene)
        self._looks = 0

    def holds(self, arm: np.ndarray) -> bool:
        """Hold the robot, whatever it is told."""
        return True

    def look(self) -> Standing:
        """Count."""
        self._looks += 1
        return Standing(self._looks > self._periods)

    def wanted(self) -> Wanted:
        """Want nothing."""
        return Stay()

"""
A scripted expert that sees what no robot sees: what the episode wants now, done by a skill.

What is wanted follows from the episode's present stage, and a skill decides from the simulator's
present state, so that the expert can take over, or label, any state that another actor brought
about.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ros2_lstm_policy.kinds import ARM_DIM
from ros2_lstm_policy.sim.lift import LiftingTogether
from ros2_lstm_policy.sim.move import Moving
from ros2_lstm_policy.sim.push import Pushing
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.sim.stages import Push, Put, Raise, SetDown, Stay, Wanted
from ros2_lstm_policy.sim.two_arms import TwoArmRobot
from ros2_lstm_policy.types import Action


class Skill(Protocol):
    """One thing that the expert can do."""

    def act(self) -> Action:
        """Return what to do for the next control period, in world axes."""


class ScriptedExpert:
    """
    Acts in a simulated robot's present episode.

    :param robot: the robot; its episode says what is wanted.
    """

    def __init__(self, robot: SimRobot | TwoArmRobot) -> None:
        """Begin without a skill."""
        self._robot = robot
        self._wanted: Wanted | None = None
        self.skill: Skill = Staying()

    def act(self) -> Action:
        """
        Return what to do for the next control period, in world axes.

        :raises ValueError: where the episode wants what no skill is for.
        """
        wanted = self._robot.wanted()
        if wanted != self._wanted:
            self.skill, self._wanted = self._skill_for(wanted), wanted
        return self.skill.act()

    def _skill_for(self, wanted: Wanted) -> Skill:
        robot = self._robot
        if isinstance(robot, TwoArmRobot):
            return LiftingTogether(robot)
        match wanted:
            case Put() | Raise() | SetDown():
                return Moving(robot, wanted)
            case Push():
                return Pushing(robot, wanted)
            case Stay():
                return Staying()
        raise ValueError(f'{robot.episode.name}: the scripted expert only puts one object into a '
                         f'basket or a tray; {robot.episode.instruction!r} asks for something '
                         'else')


class Staying:
    """Does not move."""

    def act(self) -> Action:
        """Stay, with an open gripper."""
        return Action.one_arm(np.zeros(ARM_DIM, np.float32), 1.0)

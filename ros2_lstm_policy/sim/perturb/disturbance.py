"""All changed conditions of a robot's episodes together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ros2_lstm_policy.sim.perturb.bodies import move_arm, MovingObject
from ros2_lstm_policy.sim.perturb.pictures import ChangedPictures
from ros2_lstm_policy.sim.perturb.scene import ChangedScene
from ros2_lstm_policy.sim.perturb.settings import PerturbConfig
from ros2_lstm_policy.sim.robot import SimRobot


class Perturber:
    """
    A :class:`robot.Disturbance`, of one robot after another.

    :param config: what is changed, and how strongly.
    """

    def __init__(self, config: PerturbConfig) -> None:
        """Begin without an episode."""
        self._config = config
        self._robot: SimRobot | None = None
        self._notes: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was changed in the episode under way, in words."""
        return (*self._notes, *self._pictures.notes, *self._object.notes)

    def begin(self, robot: SimRobot) -> None:
        """Change what an episode begins with."""
        if robot is not self._robot:
            self._robot, self._scene = robot, ChangedScene(robot)
        self._scene.restore(robot)
        self._notes = move_arm(robot, self._config) + self._scene.begin(robot, self._config)
        self._scene.place(robot)
        self._pictures = ChangedPictures(self._config, robot.episode.name)
        self._object = MovingObject(robot, self._config)

    def step(self, robot: SimRobot, step: int) -> None:
        """Change what is to be changed on the way."""
        self._object.step(robot, step)

    def see(self, images: Mapping[str, np.ndarray], step: int) -> Mapping[str, np.ndarray]:
        """Return what the robot gets of the cameras' pictures."""
        return self._pictures.see(images, step)

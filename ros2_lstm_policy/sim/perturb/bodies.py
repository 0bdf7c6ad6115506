"""What stands elsewhere: the arm at the beginning, and the object that is meant on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from ros2_lstm_policy.sim.perturb.settings import PerturbConfig
from ros2_lstm_policy.sim.robot import SimRobot

NEAR_M = 0.09  # of the hand from the object's surface, when it is moved
DEEPEST_M = 0.003  # what an object at rest sinks into the table at most
_TRIES = 32


def move_arm(robot: SimRobot, config: PerturbConfig) -> list[str]:
    """
    Put the arm into another pose, at rest and touching nothing.

    :return: what was changed, in words.
    """
    if not config.start_rad:
        return []
    environment = robot.environment
    arm = environment.robots[0]
    data, rng = environment.sim.data, config.rng(robot.episode.name, 'start_rad')
    before = data.qpos[arm._ref_joint_pos_indexes].copy()
    low, high = environment.sim.model.jnt_range[arm._ref_joint_indexes].T
    for _ in range(_TRIES):
        changes = rng.uniform(-config.start_rad, config.start_rad, len(before))
        data.qpos[arm._ref_joint_pos_indexes] = np.clip(before + changes, low, high)
        data.qvel[arm._ref_joint_vel_indexes] = 0.0
        environment.sim.forward()
        if not _touches(environment, arm):
            break
    else:
        data.qpos[arm._ref_joint_pos_indexes] = before
        environment.sim.forward()
        return ['start pose: unchanged, as the arm touched something in all that were drawn']
    arm.controller.update(force=True)
    arm.controller.reset_goal()
    changed = data.qpos[arm._ref_joint_pos_indexes] - before
    return [f'joints moved by {" ".join(f"{value:+.3f}" for value in changed)} rad']


class MovingObject:
    """
    The object that is meant, moved once, when the hand comes near it.

    :param robot: whose episode has begun.
    """

    def __init__(self, robot: SimRobot, config: PerturbConfig) -> None:
        """Find the object."""
        self._config = config
        self._name = meant(robot) if config.object_move_m else None
        self.notes = ['no object to be moved in this task'
                      if self._name is None else f'{self._name} was not moved: the hand did not '
                      'come near it'] if config.object_move_m else []

    def step(self, robot: SimRobot, step: int) -> None:
        """Move it if this is the moment."""
        if self._name is None:
            return
        gripper = robot.privileged.hand.position
        away = np.linalg.norm(robot.privileged.points(self._name) - gripper, axis=1).min()
        if away > NEAR_M or robot.privileged.held(self._name):
            return
        way = self._move(robot, self._name)
        self.notes = [f'{self._name} was not moved: no place is free' if way is None else
                      f'{self._name} moved by {way[0]:.3g} {way[1]:.3g} m at step {step}']
        self._name = None

    def _move(self, robot: SimRobot, name: str) -> np.ndarray | None:
        """Move it to the first free place in a drawn order; None where there is none."""
        simulation = robot.environment.sim
        joint = robot.environment.objects_dict[name].joints[-1]
        pose = simulation.data.get_joint_qpos(joint).copy()
        first = self._config.rng(robot.episode.name, 'object_move_m').uniform(0, 2 * np.pi)
        for turn in np.linspace(0, 2 * np.pi, _TRIES, endpoint=False):
            angle = first + turn
            way = self._config.object_move_m * np.array([np.cos(angle), np.sin(angle)])
            simulation.data.set_joint_qpos(joint, np.append(pose[:2] + way, pose[2:]))
            simulation.forward()
            if robot.privileged.depth(name) < DEEPEST_M and not robot.privileged.objects_touch():
                simulation.data.set_joint_qvel(joint, np.zeros(6))
                simulation.forward()
                return way
        simulation.data.set_joint_qpos(joint, pose)
        simulation.forward()
        return None


def meant(robot: SimRobot) -> str | None:
    """Return the object that the episode's goal is about; None where it is about furniture."""
    if robot.episode.target is not None:
        return robot.episode.target
    named = [name for predicate in robot.episode.goal for name in predicate[1:]]
    return next((name for name in named if name in robot.movable), None)


def _touches(environment: Any, arm: Any) -> bool:
    return bool(environment.check_contact(arm.robot_model)
                or environment.check_contact(arm.gripper))

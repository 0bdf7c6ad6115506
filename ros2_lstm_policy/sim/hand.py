"""What is felt and seen of one arm's hand: where it is, how far it is open, whether it grips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

FINGER_STROKE_M = 0.08
ROBOTIQ_CLOSED_RAD = 0.52  # of its outer joints, where the finger tips meet
FIRM = 0.9  # of robosuite's gripper command, which goes from -1 open to 1 closed in 0.4 s


class Pose(NamedTuple):
    """
    A pose in world axes.

    :param position: (3,) m.
    :param quaternion: (4,) x y z w.
    """

    position: np.ndarray
    quaternion: np.ndarray


class Gripper(NamedTuple):
    """
    What is known of one kind of gripper.

    :param opening: of the positions of its joints: how far it is open, 0 to 1.
    :param at_rest: speed of its joints below which it has come to rest, m/s or rad/s.
    """

    opening: Callable[[np.ndarray], float]
    at_rest: float


GRIPPERS: Mapping[str, Gripper] = {  # by robosuite's name
    'PandaGripper': Gripper(lambda joints: np.abs(joints).sum() / FINGER_STROKE_M, 0.01),
    'Robotiq85Gripper': Gripper(
        lambda joints: 1.0 - joints[[0, 3]].mean() / ROBOTIQ_CLOSED_RAD, 0.2)}


class Hand:
    """
    Reads one arm of a simulation.

    :param robot: robosuite's.
    """

    def __init__(self, robot: Any) -> None:
        """Look up the arm's bodies and joints once."""
        self._model, self._data = robot.sim.model._model, robot.sim.data._data
        self._site = int(robot.eef_site_id)
        self._base = self._body(robot.robot_model.root_body)
        self._body_id = self._body(robot.robot_model.eef_name)
        self._arm_joints = list(robot._ref_joint_pos_indexes)
        self._gripper = robot.gripper
        self._finger_joints = list(robot._ref_gripper_joint_pos_indexes)
        self._finger_speeds = list(robot._ref_gripper_joint_vel_indexes)
        geoms = robot.gripper.important_geoms
        self.finger_bodies = tuple(int(self._model.geom(geoms[f'{side}_finger'][0]).bodyid[0])
                                   for side in ('left', 'right'))
        self._pads = [self._model.geom(geoms[f'{side}_fingerpad'][0]).id
                      for side in ('left', 'right')]
        self._kind = GRIPPERS[type(robot.gripper).__name__]
        self.joint_names = tuple(robot.robot_joints)

    @property
    def base_position(self) -> np.ndarray:
        """Return the arm's base, (3,) m."""
        return self._data.xpos[self._base].copy()

    @property
    def position(self) -> np.ndarray:
        """Return the point between the finger tips, (3,) m."""
        return self._data.site_xpos[self._site].copy()

    @property
    def rotation(self) -> np.ndarray:
        """Return the gripper's axes in world axes, (3, 3); the third points along the fingers."""
        return self._data.site_xmat[self._site].reshape(3, 3).copy()

    @property
    def pose(self) -> Pose:
        """Return the point between the finger tips with the hand's axes, as LIBERO's data do."""
        return Pose(self.position, np.roll(self._data.xquat[self._body_id], -1))

    @property
    def finger_yaw(self) -> float:
        """Return the angle of the line on which the fingers close, rad in world axes."""
        x, y, _ = self._data.geom_xpos[self._pads[0]] - self._data.geom_xpos[self._pads[1]]
        return float(np.arctan2(y, x))

    @property
    def opening(self) -> float:
        """Return the gripper's opening: 0 closed, 1 open."""
        return float(np.clip(self._kind.opening(self._data.qpos[self._finger_joints]), 0.0, 1.0))

    @property
    def grip_is_firm(self) -> bool:
        """Return whether the gripper was told to close for long enough and has come to rest."""
        told_closed = self._gripper.current_action[-1] > FIRM
        at_rest = np.abs(self._data.qvel[self._finger_speeds]).max() < self._kind.at_rest
        return bool(told_closed and at_rest)

    @property
    def joint_positions(self) -> np.ndarray:
        """Return the arm's joint positions, rad."""
        return self._data.qpos[self._arm_joints].copy()

    def touching(self, body: int) -> int:
        """Return how many of the two fingers touch a body, or a part of it."""
        touching: set[int] = set()
        for contact in self._data.contact[:self._data.ncon]:
            bodies = [int(self._model.geom_bodyid[g]) for g in (contact.geom1, contact.geom2)]
            for finger, other in (bodies, bodies[::-1]):
                if is_part(self._model, other, body):
                    touching.update(f for f in self.finger_bodies
                                    if is_part(self._model, finger, f))
        return len(touching)

    def _body(self, name: str) -> int:
        return int(self._model.body(name).id)


def is_part(model: Any, body: int, root: int) -> bool:
    """Return whether a body is another one, or hangs on it."""
    while body and body != root:
        body = int(model.body_parentid[body])
    return body == root

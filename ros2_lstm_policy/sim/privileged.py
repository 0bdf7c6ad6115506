"""What the simulator knows and a robot's cameras do not: where every object is, what is held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ros2_lstm_policy.sim.hand import Hand, is_part

POINTS_PER_OBJECT = 1000
VISUAL_GROUP = 1
GRASP_REACH_M = 0.12  # of an object's origin: closer, closing is an attempt to grasp


class Privileged:
    """
    Reads one simulation.

    :param environment: LIBERO's, without its wrapper.
    """

    def __init__(self, environment: Any) -> None:
        """Look up the model's bodies, joints and meshes once."""
        self._model = environment.sim.model._model
        self._data = environment.sim.data._data
        self.hand = Hand(environment.robots[0])
        self._roots = {name: self._body(thing.root_body)
                       for name, thing in environment.objects_dict.items()}
        self._points = {name: self._local_points(root) for name, root in self._roots.items()}

    @property
    def objects(self) -> tuple[str, ...]:
        """Return the names of all movable objects and containers, in the scene file's order."""
        return tuple(self._roots)

    def position(self, name: str) -> np.ndarray:
        """Return an object's origin, (3,) m."""
        return self._data.xpos[self._roots[name]].copy()

    def rotation(self, name: str) -> np.ndarray:
        """Return an object's axes in world axes, (3, 3)."""
        return self._data.xmat[self._roots[name]].reshape(3, 3).copy()

    def points(self, name: str) -> np.ndarray:
        """Return points on an object's surface, (n, 3) m."""
        return self._points[name] @ self.rotation(name).T + self.position(name)

    def held(self, name: str) -> bool:
        """Return whether both fingers touch an object."""
        return self.hand.touching(self._roots[name]) == 2

    def depth(self, name: str) -> float:
        """Return how deep an object is within anything else, m; 0 where it touches nothing."""
        root = self._roots[name]
        depths = [-float(contact.dist) for contact in self._data.contact[:self._data.ncon]
                  if any(is_part(self._model, int(self._model.geom_bodyid[g]), root)
                         for g in (contact.geom1, contact.geom2))]
        return max([0.0, *depths])

    def touch(self, one: str, other: str) -> bool:
        """Return whether two objects touch each other."""
        wanted = {one, other}
        return any({self._object_of(int(self._model.geom_bodyid[g]))
                    for g in (contact.geom1, contact.geom2)} == wanted
                   for contact in self._data.contact[:self._data.ncon])

    def objects_touch(self) -> bool:
        """Return whether any two objects touch each other."""
        for contact in self._data.contact[:self._data.ncon]:
            pair = {self._object_of(int(self._model.geom_bodyid[g]))
                    for g in (contact.geom1, contact.geom2)}
            if len(pair - {None}) == 2:
                return True
        return False

    def _object_of(self, body: int) -> str | None:
        return next((name for name, root in self._roots.items()
                     if is_part(self._model, body, root)), None)

    def _body(self, name: str) -> int:
        return int(self._model.body(name).id)

    def _local_points(self, root: int) -> np.ndarray:
        """Return the vertices of an object's visual meshes in its own axes."""
        import mujoco
        parts = []
        origin = self._data.xpos[root]
        axes = self._data.xmat[root].reshape(3, 3)
        for geom in range(self._model.ngeom):
            is_mesh = self._model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH
            is_visual = self._model.geom_group[geom] == VISUAL_GROUP
            body = int(self._model.geom_bodyid[geom])
            if is_mesh and is_visual and is_part(self._model, body, root):
                vertices = self._vertices(int(self._model.geom_dataid[geom]))
                world = (vertices @ self._data.geom_xmat[geom].reshape(3, 3).T
                         + self._data.geom_xpos[geom])
                parts.append((world - origin) @ axes)
        if not parts:
            return np.zeros((1, 3))
        points = np.concatenate(parts)
        return points[::max(1, len(points) // POINTS_PER_OBJECT)].copy()

    def _vertices(self, mesh: int) -> np.ndarray:
        start = int(self._model.mesh_vertadr[mesh])
        return self._model.mesh_vert[start:start + int(self._model.mesh_vertnum[mesh])]


def nearest(gripper_m: np.ndarray, places: Mapping[str, np.ndarray]) -> str | None:
    """
    Return the object nearest to a gripper sideways, None where it reaches none.

    :param gripper_m: (3,) the point between the finger tips.
    :param places: by object, its origin, (3,) m.
    """
    away = {name: place - gripper_m for name, place in places.items()}
    reached = {name: float(np.linalg.norm(offset[:2])) for name, offset in away.items()
               if np.linalg.norm(offset) < GRASP_REACH_M}
    return min(reached, key=reached.__getitem__, default=None)

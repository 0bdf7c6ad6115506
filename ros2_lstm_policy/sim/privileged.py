"""What the simulator knows and a robot's cameras do not: where every object is, what is held."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

FINGER_STROKE_M = 0.08
POINTS_PER_OBJECT = 1000
VISUAL_GROUP = 1
FIRM = 0.9  # of robosuite's gripper command, which goes from -1 open to 1 closed in 0.4 s
AT_REST_M_S = 0.01


class Pose(NamedTuple):
    """
    A pose in world axes.

    :param position: (3,) m.
    :param quaternion: (4,) x y z w.
    """

    position: np.ndarray
    quaternion: np.ndarray


class Privileged:
    """
    Reads one simulation.

    :param environment: LIBERO's, without its wrapper.
    """

    def __init__(self, environment: Any) -> None:
        """Look up the model's bodies, joints and meshes once."""
        self._model = environment.sim.model._model
        self._data = environment.sim.data._data
        robot = environment.robots[0]
        self._gripper_site = int(robot.eef_site_id)
        self._base = self._body(robot.robot_model.root_body)
        self._hand = self._body(robot.robot_model.eef_name)
        self._arm_joints = list(robot._ref_joint_pos_indexes)
        self._gripper = robot.gripper
        self._finger_joints = list(robot._ref_gripper_joint_pos_indexes)
        self._finger_speeds = list(robot._ref_gripper_joint_vel_indexes)
        self._finger_bodies = [self._body(f'gripper0_{side}finger') for side in ('left', 'right')]
        self._pads = [self._model.geom(f'gripper0_finger{i}_pad_collision').id for i in (1, 2)]
        self._roots = {name: self._body(thing.root_body)
                       for name, thing in environment.objects_dict.items()}
        self._points = {name: self._local_points(root) for name, root in self._roots.items()}
        self.joint_names = tuple(robot.robot_joints)

    @property
    def objects(self) -> tuple[str, ...]:
        """Return the names of all movable objects and containers, in the scene file's order."""
        return tuple(self._roots)

    @property
    def base_position(self) -> np.ndarray:
        """Return the robot's base, (3,) m."""
        return self._data.xpos[self._base].copy()

    @property
    def gripper_position(self) -> np.ndarray:
        """Return the point between the finger tips, (3,) m."""
        return self._data.site_xpos[self._gripper_site].copy()

    @property
    def gripper_rotation(self) -> np.ndarray:
        """Return the gripper's axes in world axes, (3, 3); the third points along the fingers."""
        return self._data.site_xmat[self._gripper_site].reshape(3, 3).copy()

    @property
    def gripper_pose(self) -> Pose:
        """Return the point between the finger tips with the hand's axes, as LIBERO's data do."""
        return Pose(self.gripper_position, np.roll(self._data.xquat[self._hand], -1))

    @property
    def finger_yaw(self) -> float:
        """Return the angle of the line on which the fingers close, rad in world axes."""
        x, y, _ = self._data.geom_xpos[self._pads[0]] - self._data.geom_xpos[self._pads[1]]
        return float(np.arctan2(y, x))

    @property
    def opening(self) -> float:
        """Return the gripper's opening: 0 closed, 1 open."""
        width = np.abs(self._data.qpos[self._finger_joints]).sum()
        return float(np.clip(width / FINGER_STROKE_M, 0.0, 1.0))

    @property
    def grip_is_firm(self) -> bool:
        """Return whether the gripper was told to close for long enough and has come to rest."""
        told_closed = self._gripper.current_action[-1] > FIRM
        at_rest = np.abs(self._data.qvel[self._finger_speeds]).max() < AT_REST_M_S
        return bool(told_closed and at_rest)

    @property
    def joint_positions(self) -> np.ndarray:
        """Return the arm's joint positions, (7,) rad."""
        return self._data.qpos[self._arm_joints].copy()

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
        touching: set[int] = set()
        root = self._roots[name]
        for contact in self._data.contact[:self._data.ncon]:
            bodies = [int(self._model.geom_bodyid[g]) for g in (contact.geom1, contact.geom2)]
            for finger, other in (bodies, bodies[::-1]):
                if self._is_part(other, root):
                    touching.update(f for f in self._finger_bodies if self._is_part(finger, f))
        return len(touching) == 2

    def depth(self, name: str) -> float:
        """Return how deep an object is within anything else, m; 0 where it touches nothing."""
        root = self._roots[name]
        depths = [-float(contact.dist) for contact in self._data.contact[:self._data.ncon]
                  if any(self._is_part(int(self._model.geom_bodyid[g]), root)
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
        return next((name for name, root in self._roots.items() if self._is_part(body, root)),
                    None)

    def _body(self, name: str) -> int:
        return int(self._model.body(name).id)

    def _is_part(self, body: int, root: int) -> bool:
        while body and body != root:
            body = int(self._model.body_parentid[body])
        return body == root

    def _local_points(self, root: int) -> np.ndarray:
        """Return the vertices of an object's visual meshes in its own axes."""
        import mujoco
        parts = []
        origin = self._data.xpos[root]
        axes = self._data.xmat[root].reshape(3, 3)
        for geom in range(self._model.ngeom):
            is_mesh = self._model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH
            is_visual = self._model.geom_group[geom] == VISUAL_GROUP
            if is_mesh and is_visual and self._is_part(int(self._model.geom_bodyid[geom]), root):
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

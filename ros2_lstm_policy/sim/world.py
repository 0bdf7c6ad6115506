"""
What a stage of an episode may do to a scene: look, move objects by their joints, save and load.

A scene that is loaded is the saved one bit for bit, and so is all that follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ros2_lstm_policy.sim.privileged import Privileged

# where objects are that nobody is to see: out of both cameras' sight, touching nothing
HIDDEN_M = np.array([50.0, 50.0, 100.0])
HIDDEN_APART_M = 2.0


class Snapshot(NamedTuple):
    """
    All that decides how a scene goes on.

    :param state: MuJoCo's, with what its solver starts from.
    :param hidden: objects that are out of sight.
    :param gripper: robosuite's gripper command.
    :param goal_rotation: of LIBERO's arm controller, which keeps it while no turn is told; None
        of a controller of joints.
    """

    state: np.ndarray
    hidden: frozenset[str]
    gripper: np.ndarray
    goal_rotation: np.ndarray | None


class World:
    """
    One scene.

    :param environment: LIBERO's, without its wrapper.
    :param settle: lets the scene come to rest with an open gripper, the arm at its place.
    """

    def __init__(self, environment: Any, privileged: Privileged,
                 settle: Callable[[], object]) -> None:
        """Look up each object's free joint."""
        self._environment, self.privileged, self._settle = environment, privileged, settle
        self._joints = {name: thing.joints[-1]
                        for name, thing in environment.objects_dict.items()}
        self._hidden: frozenset[str] = frozenset()
        self.version = 0  # of the scene: another number wherever it may look otherwise

    def begin(self) -> None:
        """Begin an episode: nothing is hidden."""
        self._hidden = frozenset()
        self.version += 1

    def moved(self) -> None:
        """Note that the scene went on by a control period; hidden objects, which fell, go back."""
        self._keep_hidden()
        self.version += 1

    def save(self) -> Snapshot:
        """Return the scene as it is."""
        import mujoco
        model, data = self._raw
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, state, kind)
        robot = self._environment.robots[0]
        goal_rotation = getattr(robot.controller, 'goal_ori', None)
        return Snapshot(state, self._hidden, np.array(robot.gripper.current_action),
                        None if goal_rotation is None else np.array(goal_rotation))

    def load(self, scene: Snapshot) -> None:
        """Make the scene what it was."""
        import mujoco
        model, data = self._raw
        mujoco.mj_setState(model, data, scene.state, mujoco.mjtState.mjSTATE_INTEGRATION)
        robot = self._environment.robots[0]
        robot.gripper.current_action = scene.gripper.copy()
        self._hidden = scene.hidden
        self._changed()
        robot.controller.update(force=True)
        if scene.goal_rotation is None:
            robot.controller.reset_goal()
        else:
            robot.controller.goal_ori = scene.goal_rotation.copy()

    def place(self, name: str, position: np.ndarray, turn: float = 0.0) -> None:
        """
        Move an object by its free joint, at rest, into sight.

        :param position: (3,) m of its origin; with two values its height stays.
        :param turn: rad about the vertical, from how it is turned.
        """
        data = self._environment.sim.data
        pose = data.get_joint_qpos(self._joints[name]).copy()
        pose[:len(position)] = position
        if turn:
            import mujoco
            rotated, about_z = np.empty(4), np.array([np.cos(turn / 2), 0, 0, np.sin(turn / 2)])
            mujoco.mju_mulQuat(rotated, about_z, pose[3:].copy())
            pose[3:] = rotated
        self._set(name, pose)
        self._hidden -= {name}
        self._changed()

    def hide(self, names: Sequence[str]) -> None:
        """Move objects out of sight, until they are placed or another scene is loaded."""
        self._hidden |= frozenset(names)
        self._keep_hidden()
        self._changed()

    def settle(self) -> None:
        """Let everything come to rest while the robot stays where it is."""
        self._settle()

    def visible(self) -> tuple[str, ...]:
        """Return the objects that are not hidden, in the scene's order."""
        return tuple(name for name in self._joints if name not in self._hidden)

    def position(self, name: str) -> np.ndarray:
        """Return an object's origin, (3,) m."""
        return self.privileged.position(name)

    def middle(self, name: str) -> np.ndarray:
        """Return an object's middle, seen from above, (2,) m."""
        points = self.privileged.points(name)[:, :2]
        return np.asarray((points.max(0) + points.min(0)) / 2)

    def inside(self, name: str, container: str) -> bool:
        """Return whether an object is in a basket or a tray, as LIBERO says."""
        return bool(self._environment._eval_predicate(['in', name, f'{container}_contain_region']))

    def goal_holds(self) -> bool:
        """Return whether the episode's goal holds."""
        return bool(self._environment._check_success())

    @property
    def _raw(self) -> tuple[Any, Any]:
        simulation = self._environment.sim
        return simulation.model._model, simulation.data._data

    def _keep_hidden(self) -> None:
        for number, name in enumerate(self._joints):
            if name in self._hidden:
                pose = np.array([*HIDDEN_M, 1.0, 0.0, 0.0, 0.0])
                pose[0] += HIDDEN_APART_M * number
                self._set(name, pose)

    def _set(self, name: str, pose: np.ndarray) -> None:
        data, joint = self._environment.sim.data, self._joints[name]
        data.set_joint_qpos(joint, pose)
        data.set_joint_qvel(joint, np.zeros(6))

    def _changed(self) -> None:
        self._environment.sim.forward()
        self.version += 1

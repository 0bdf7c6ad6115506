"""
One arm of a simulation, commanded by a group of actions of any kind.

Cartesian displacements go to robosuite's operational space controller, which is what LIBERO's data
were recorded with. Everything else is turned into joint positions, which robosuite's joint
controller reaches within the control period.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ros2_lstm_policy.kinds import ARM_DIM
from scipy.spatial.transform import Rotation

ROBOTS = {'panda': 'Panda', 'ur5e': 'UR5e'}  # robosuite's names
PANDA_JOINTS = 9  # with its fingers
STEP_LIMIT = np.array([0.05] * 3 + [0.5] * 3)  # m, rad: what LIBERO's controller takes at most
ROUNDING = 1e-6  # 0.05 in float32 is a little more than 0.05
FOLLOWED = 0.42  # of a displacement: how far LIBERO's controller gets in one period
JOINT_SPEED_RAD_S = 2.175  # of the Panda's slowest joints
CARTESIAN, BY_JOINTS = 'OSC_POSE', 'JOINT_POSITION'
# reaches its target in the period, of which robosuite's own stiffness of 50 covers a tenth
STIFF = {'kp': 2500, 'kp_limits': [0, 2500], 'interpolation': 'linear', 'ramp_ratio': 0.3}
SOLVER_STEPS, DAMPING, HOMING = 6, 0.03, 0.02


class Move(NamedTuple):
    """
    What one command asks of an arm.

    :param values: what robosuite's controller takes, each in [-1, 1].
    :param clipped: whether the command was beyond what one control period allows.
    :param displacement: (6,) m and a rotation vector in rad: what LIBERO's controller would be
        told for the same way of the tool; of joints to the first order, by their Jacobian.
    """

    values: np.ndarray
    clipped: bool
    displacement: np.ndarray


class Arm:
    """
    Commands one arm, and says in its kind of action what somebody else means.

    :param robot: robosuite's.
    :param kind: of the group of actions, see `ARM_KINDS`.
    :param period_s: control period.
    """

    def __init__(self, robot: Any, kind: str, period_s: float) -> None:
        """Keep a scratch copy of the simulation, in which inverse kinematics is computed."""
        import mujoco
        self._robot, self._kind, self._period_s = robot, ARM_KINDS[kind], period_s
        self._model, self._data = robot.sim.model._model, robot.sim.data._data
        self._scratch = mujoco.MjData(self._model)
        self._joints = list(robot._ref_joint_pos_indexes)
        self._speeds = list(robot._ref_joint_vel_indexes)
        self._site = int(robot.eef_site_id)
        self._hand = int(self._model.body(robot.robot_model.eef_name).id)
        limits = [self._model.joint(name).range for name in robot.robot_joints]
        self._lowest, self._highest = np.array(limits).T
        self._reach = np.full(len(self._joints), JOINT_SPEED_RAD_S * period_s)
        self.size = ARM_DIM if self._kind.is_cartesian else len(self._joints)

    @property
    def joint_positions(self) -> np.ndarray:
        """Return where its joints are, rad."""
        return self._data.qpos[self._joints].copy()

    def move(self, values: np.ndarray) -> Move:
        """
        Return what the controller is to be told.

        :param values: (size,) of the group of actions.
        :raises ValueError: for another shape or values that are not finite.
        """
        values = np.asarray(values, np.float64)
        if values.shape != (self.size,) or not np.isfinite(values).all():
            raise ValueError(f'arm: expected {self.size} finite values, found {values}')
        if self._kind.controller == CARTESIAN:
            wanted, limit, displacement = values, STEP_LIMIT, values
        else:
            wanted = self._kind.to_joints(self, values) - self.joint_positions
            limit, displacement = self._reach, self._jacobian(self._data) @ wanted / FOLLOWED
        within = np.clip(wanted, -limit, limit)
        return Move(within / limit, bool(np.abs(within - wanted).max() > ROUNDING), displacement)

    def hold(self) -> np.ndarray:
        """Return what the controller is to be told to stay."""
        return np.zeros(self._robot.controller.control_dim)

    def begin(self) -> None:
        """Let the joints' controller start from where they are, after the arm was placed."""
        if self._kind.controller == BY_JOINTS:
            self._robot.controller.update(force=True)
            self._robot.controller.reset_goal()

    def express(self, displacement: np.ndarray) -> np.ndarray:
        """
        Return what this arm is to be told to do as one commanded by displacements would.

        :param displacement: (6,) as told to LIBERO's controller, which gets FOLLOWED of the way.
        :return: (size,) values of the group.
        """
        if self._kind.controller == CARTESIAN:
            return np.asarray(displacement, np.float32)
        followed = FOLLOWED * np.asarray(displacement, np.float64)
        wanted = self.joints_after(followed[:3], followed[3:]) - self.joint_positions
        joints = self.joint_positions + np.clip(wanted, -self._reach, self._reach)
        return self._kind.from_joints(self, joints, followed).astype(np.float32)

    def joints_after(self, move_m: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """
        Return the joint positions at which the tool has moved and turned (damped least squares).

        What freedom that leaves brings the joints nearer to where they began.

        :param move_m: (3,) in world axes.
        :param turn: (3,) rotation vector in world axes, rad.
        """
        scratch, joints = self._scratch, self._joints
        scratch.qpos[:] = self._data.qpos
        self._solve_positions()
        goal_m = scratch.site_xpos[self._site] + move_m
        goal = Rotation.from_rotvec(turn) * self._rotation(scratch)
        for _ in range(SOLVER_STEPS):
            off = np.concatenate([goal_m - scratch.site_xpos[self._site],
                                  (goal * self._rotation(scratch).inv()).as_rotvec()])
            own = self._jacobian(scratch)
            inverse = own.T @ np.linalg.inv(own @ own.T + DAMPING**2 * np.eye(6))
            home = HOMING * (self._robot.init_qpos - scratch.qpos[joints])
            step = inverse @ off + home - inverse @ (own @ home)
            scratch.qpos[joints] = np.clip(scratch.qpos[joints] + step, self._lowest,
                                           self._highest)
            self._solve_positions()
        return scratch.qpos[joints].copy()

    def _jacobian(self, data: Any) -> np.ndarray:
        """Return how the tool moves (m) and turns (rad) with the arm's joints, (6, joints)."""
        import mujoco
        found = np.empty((6, self._model.nv))
        mujoco.mj_jacSite(self._model, data, found[:3], found[3:], self._site)
        return found[:, self._speeds]

    def _solve_positions(self) -> None:
        import mujoco
        mujoco.mj_kinematics(self._model, self._scratch)
        mujoco.mj_comPos(self._model, self._scratch)

    def _rotation(self, data: Any) -> Rotation:
        return Rotation.from_matrix(data.site_xmat[self._site].reshape(3, 3))

    def _pose_to_joints(self, pose: np.ndarray) -> np.ndarray:
        """Return the joints for x y z and a rotation vector of the hand, in world axes."""
        hand = Rotation.from_quat(np.roll(self._data.xquat[self._hand], -1))
        turn = Rotation.from_rotvec(pose[3:]) * hand.inv()
        return self.joints_after(pose[:3] - self._data.site_xpos[self._site], turn.as_rotvec())

    def _pose_after(self, joints: np.ndarray, displacement: np.ndarray) -> np.ndarray:
        hand = Rotation.from_quat(np.roll(self._data.xquat[self._hand], -1))
        turned = Rotation.from_rotvec(displacement[3:]) * hand
        return np.concatenate([self._data.site_xpos[self._site] + displacement[:3],
                               turned.as_rotvec()])


class ArmKind(NamedTuple):
    """
    How an arm is commanded by one kind of action.

    :param controller: robosuite's.
    :param to_joints: of an arm and values: the joint positions that are meant.
    :param from_joints: of an arm, joint positions and the tool's way to there: the values.
    """

    controller: str
    to_joints: Callable[[Arm, np.ndarray], np.ndarray]
    from_joints: Callable[[Arm, np.ndarray, np.ndarray], np.ndarray]
    is_cartesian: bool = False


def controller_of(kind: str) -> str:
    """
    Return robosuite's name of the controller for a kind of action.

    :raises ValueError: for a kind that no arm is commanded by.
    """
    if kind not in ARM_KINDS:
        raise ValueError(f'a simulated arm is commanded by {", ".join(ARM_KINDS)}, not by {kind}')
    return ARM_KINDS[kind].controller


def prepare(robot: Any, period_s: float) -> None:
    """Set robosuite's joint controller up, before the first reset makes it."""
    if robot.controller_config['type'] == BY_JOINTS:
        reach = JOINT_SPEED_RAD_S * period_s
        robot.controller_config.update(STIFF, output_max=reach, output_min=-reach)


def with_own_arm(state: np.ndarray, positions: np.ndarray, speeds: np.ndarray,
                 joints: int) -> np.ndarray:
    """
    Return one of LIBERO's states, which begin with the Panda, for the arm that stands there.

    :param state: (1 + nq + nv,) time, positions, speeds.
    :param positions: (nq,) of this simulation, and `speeds` (nv,): the arm keeps its own.
    :param joints: of the arm and its gripper; they are the first.
    """
    if joints == PANDA_JOINTS:
        return state
    others = len(positions) - joints
    begin = 1 + PANDA_JOINTS
    of_speeds = begin + others + PANDA_JOINTS
    return np.concatenate([state[:1], positions[:joints], state[begin:begin + others],
                           speeds[:joints], state[of_speeds:]])


def _no_joints(arm: Arm, values: np.ndarray) -> np.ndarray:
    raise AssertionError('displacements are no joints')


ARM_KINDS: dict[str, ArmKind] = {
    'ee_delta': ArmKind(CARTESIAN, _no_joints, lambda arm, joints, way: way, True),
    'ee_pose': ArmKind(BY_JOINTS, Arm._pose_to_joints, Arm._pose_after, True),
    'joint_position': ArmKind(BY_JOINTS, lambda arm, values: values,
                              lambda arm, joints, way: joints),
    'joint_delta': ArmKind(BY_JOINTS, lambda arm, values: arm.joint_positions + values,
                           lambda arm, joints, way: joints - arm.joint_positions),
    'joint_velocity': ArmKind(
        BY_JOINTS, lambda arm, values: arm.joint_positions + values * arm._period_s,
        lambda arm, joints, way: (joints - arm.joint_positions) / arm._period_s),
}

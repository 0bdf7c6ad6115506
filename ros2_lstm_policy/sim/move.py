"""
The scripted expert's skill of moving one object: into a container, onto a plate, up or down.

It decides from the simulator's present state, so that it can take over, or label, any state that
another actor brought about. All it remembers is its grasp plan, until the object moves, and that a
grasp missed, until the gripper is open again.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np

from ros2_lstm_policy.sim.grasp import Grasp, plan_grasp, turn
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.sim.stages import Movement, Put, Raise, SetDown
from ros2_lstm_policy.types import Action

LARGEST_MOVE_M, LARGEST_TURN_RAD, LARGEST_TILT_RAD = 0.05, 0.5, 0.15
GAIN = 1.5  # the controller covers about 0.4 of what it is told in one period
HOVER_M = 0.10  # above the grasp, while turning over the object
CLEAR_M = 0.04  # between what passes and what is passed over
GRASP_M, GRASP_RAD = 0.012, 0.12
PLAN_KEPT_M = 0.004
CORRIDOR_M, AHEAD_M = 0.08, 0.12
STILL_M, STILL_PERIODS = 0.002, 3
OVER_CONTAINER_M = 0.035
FLAT_DROP_M, SET_DOWN_M = 0.01, 0.008  # onto a plate or the table
NEAR_M, FAR_M, NEAR_TILT_RAD = 0.30, 0.42, 0.35


class Phase(enum.Enum):
    """What the expert is doing; it follows from the state."""

    APPROACH = 'comes down over the object, the higher the farther it is sideways'
    CLOSE = 'closes where it can grasp'
    REOPEN = 'missed: opens, going up'
    LIFT = 'lifts the held object above all that is on its way'
    CARRY = 'carries it to the container'
    LOWER = 'lowers it over the container'
    RELEASE = 'opens over the container'
    RETREAT = 'goes up from the container'


class _Scene(NamedTuple):
    """
    What one decision looks at: m, world axes.

    :param grasp: where the gripper is to grasp the target.
    :param middle: (2,) the target's, `bottom` and `top` its lowest and highest points.
    :param centre: (2,) the container's.
    :param passage: height of the tallest thing between target and container.
    :param ahead: the same for the next few centimetres.
    """

    gripper: np.ndarray
    grasp: Grasp
    middle: np.ndarray
    bottom: float
    top: float
    centre: np.ndarray
    rim: float
    passage: float
    ahead: float


class Moving:
    """
    Moves one object.

    :param robot: the robot.
    :param wanted: what goes where.
    """

    def __init__(self, robot: SimRobot, wanted: Movement) -> None:
        """Begin without a plan."""
        self._robot, self._wanted = robot, wanted
        self.phase = Phase.APPROACH
        self._grasp: Grasp | None = None
        self._planned_for = np.full(12, np.inf)
        self._missed = False
        self._last, self._still = np.full(3, np.inf), 0

    def act(self) -> Action:
        """Return what to do for the next control period, in world axes."""
        scene = self._look()
        is_still = np.abs(scene.gripper - self._last).max() < STILL_M
        self._last, self._still = scene.gripper, self._still + 1 if is_still else 0
        self.phase = self._decide(scene)
        goal, gripper_open = self._goal(scene)
        return Action.one_arm(self._command(scene, goal), float(gripper_open))

    def _look(self) -> _Scene:
        known = self._robot.privileged
        points = {name: known.points(name) for name in known.objects}
        target = points.pop(self._target)
        middle = _middle(target)
        place = self._place(target, middle, points)
        centre, rim = _middle(place), place[:, 2].max()
        others = np.concatenate(list(points.values()))
        way = centre - middle
        soon = middle + way * min(1.0, AHEAD_M / max(float(np.linalg.norm(way)), 1e-9))
        return _Scene(
            gripper=known.hand.position, grasp=self._plan(target, others), middle=middle,
            bottom=target[:, 2].min(), top=target[:, 2].max(), centre=centre, rim=rim,
            passage=max(rim, _tallest_between(others, middle, centre)),
            ahead=max(place[:, 2].min(), _tallest_between(
                np.concatenate([others, place]), middle, soon)))

    def _place(self, target: np.ndarray, middle: np.ndarray,
               points: dict[str, np.ndarray]) -> np.ndarray:
        """Return points of where the target is to go; a container is taken out of the others."""
        wanted = self._wanted
        if isinstance(wanted, Put):
            return points.pop(wanted.container)
        if isinstance(wanted, SetDown):
            return np.array([wanted[1:]]) + np.array([0.0, 0.0, SET_DOWN_M])
        return np.array([[*middle, wanted.height]])

    def _plan(self, target: np.ndarray, others: np.ndarray) -> Grasp:
        name, known = self._target, self._robot.privileged
        pose = np.append(known.position(name), 0.05 * known.rotation(name))
        moved = np.abs(pose - self._planned_for).max() > PLAN_KEPT_M
        if self._grasp is None or (moved and not known.held(name)):  # held, it moves at each step
            self._grasp = plan_grasp(target, known.hand.finger_yaw, others)
            self._planned_for = pose
        return self._grasp

    def _decide(self, scene: _Scene) -> Phase:
        known, target = self._robot.privileged, self._target
        over = np.linalg.norm(scene.middle - scene.centre) < OVER_CONTAINER_M
        held = known.held(target)
        self._missed = not held and known.hand.opening < (0.9 if self._missed else 0.1)
        falls = self._over_container(scene) and scene.bottom < scene.rim + 2 * CLEAR_M
        if not held:
            if falls and scene.bottom < scene.rim:
                return Phase.RETREAT
            if falls and known.hand.opening < 0.9:
                return Phase.RELEASE
            if self._missed:
                return Phase.REOPEN
            return Phase.CLOSE if self._can_grasp(scene) else Phase.APPROACH
        if isinstance(self._wanted, Raise):
            return Phase.LIFT if known.hand.grip_is_firm else Phase.CLOSE
        if over and scene.bottom < scene.rim + self._drop_m:
            return Phase.RELEASE
        if not known.hand.grip_is_firm:
            # on its way out of the opening gripper it may swing off the middle
            return Phase.RELEASE if falls else Phase.CLOSE
        if over:
            return Phase.LOWER
        return Phase.LIFT if _carry_share(scene) == 0 else Phase.CARRY

    def _goal(self, scene: _Scene) -> tuple[np.ndarray, bool]:
        """Return where the gripper is to go, (3,) m, and whether it is to be open."""
        here, grasp, known = scene.gripper, scene.grasp.position, self._robot.privileged
        above = here[2] - scene.bottom
        if self.phase is Phase.APPROACH:
            return self._funnel(scene), True
        if self.phase is Phase.CLOSE:
            return (here if known.held(self._target) else grasp), False
        if self.phase is Phase.REOPEN:
            return np.append(here[:2], grasp[2] + HOVER_M), True
        if self.phase in (Phase.LIFT, Phase.CARRY):
            sideways = _carry_share(scene) * (scene.centre - scene.middle)
            return np.append(here[:2] + sideways, scene.passage + CLEAR_M + above), False
        if self.phase is Phase.LOWER:
            sideways = scene.centre - scene.middle
            return np.append(here[:2] + sideways, scene.rim + above), False
        if self.phase is Phase.RELEASE:
            return here, True
        return np.append(here[:2], scene.rim + 2 * HOVER_M), True

    def _funnel(self, scene: _Scene) -> np.ndarray:
        """Return a point over the grasp: the lower, the nearer the gripper is sideways."""
        here, grasp = scene.gripper, scene.grasp.position
        aside = np.linalg.norm(grasp[:2] - here[:2])
        aside += 0.1 * max(0.0, abs(self._turn(scene)) - GRASP_RAD)
        hover = grasp[2] + HOVER_M
        travel = max(hover, self._tallest_on_the_way(scene) + CLEAR_M)
        height = np.interp(aside, (0.8 * GRASP_M, 0.03, 0.10), (grasp[2], hover, travel))
        # low among the objects it goes up first
        free = np.interp(height - here[2], (0.02, 0.06), (1.0, 0.0)) if aside > 0.03 else 1.0
        return np.append(here[:2] + free * (grasp[:2] - here[:2]), height)

    def _command(self, scene: _Scene, goal: np.ndarray) -> np.ndarray:
        """Return the (6,) displacement towards the goal, as far as one period reaches."""
        move = GAIN * (goal - scene.gripper)
        move = move / max(1.0, np.abs(move).max() / LARGEST_MOVE_M)
        turning = self.phase in (Phase.APPROACH, Phase.CLOSE)
        yaw = self._turn(scene) if turning else 0.0
        pointing = self._robot.privileged.hand.rotation[:, 2]
        tilt = np.cross(pointing, self._pointing_wanted(scene))[:2]
        rotation = np.append(np.clip(tilt, -LARGEST_TILT_RAD, LARGEST_TILT_RAD),
                             np.clip(yaw, -LARGEST_TURN_RAD, LARGEST_TURN_RAD))
        return np.concatenate([move, rotation]).astype(np.float32)

    def _pointing_wanted(self, scene: _Scene) -> np.ndarray:
        """
        Return where the fingers are to point: down, and near the robot's base a little inwards.

        There the forearm is folded to its limit, and fingers that point straight down bring the
        wrist into its singularity (joint 6 at 180 degrees), where the arm loses its way.
        """
        outwards = (scene.gripper - self._robot.privileged.hand.base_position)[:2]
        reach = np.linalg.norm(outwards)
        angle = np.interp(reach, (NEAR_M, FAR_M), (NEAR_TILT_RAD, 0.0))
        return np.append(-np.sin(angle) * outwards / max(reach, 1e-9), -np.cos(angle))

    @property
    def _drop_m(self) -> float:
        """Return from how high above its place the object may be let go."""
        is_flat = not isinstance(self._wanted, Put) or self._wanted.container.startswith('plate')
        return FLAT_DROP_M if is_flat else 0.75 * CLEAR_M

    @property
    def _target(self) -> str:
        return self._wanted.target

    def _turn(self, scene: _Scene) -> float:
        return turn(self._robot.privileged.hand.finger_yaw, scene.grasp.yaw)

    def _can_grasp(self, scene: _Scene) -> bool:
        away = scene.grasp.position - scene.gripper
        aside = np.linalg.norm(away[:2])
        if self._still >= STILL_PERIODS and aside < 2 * GRASP_M:
            return bool(scene.gripper[2] < scene.top)  # something is in the way: try from here
        return bool(aside < GRASP_M and abs(away[2]) < GRASP_M
                    and abs(self._turn(scene)) < GRASP_RAD)

    def _over_container(self, scene: _Scene) -> bool:
        if isinstance(self._wanted, Raise):
            return False
        if isinstance(self._wanted, SetDown):
            return bool(np.linalg.norm(scene.middle - scene.centre) < OVER_CONTAINER_M)
        points = self._robot.privileged.points(self._wanted.container)[:, :2]
        return bool((scene.middle > points.min(0)).all() and (scene.middle < points.max(0)).all())

    def _tallest_on_the_way(self, scene: _Scene) -> float:
        known = self._robot.privileged
        others = [known.points(name) for name in known.objects if name != self._target]
        return _tallest_between(np.concatenate(others), scene.gripper[:2],
                                scene.grasp.position[:2])


def _middle(points: np.ndarray) -> np.ndarray:
    """Return the (2,) middle of points, seen from above."""
    middle: np.ndarray = (points[:, :2].max(0) + points[:, :2].min(0)) / 2
    return middle


def _carry_share(scene: _Scene) -> float:
    """Return how much of the way to the container may be gone at this height, 0 to 1."""
    above = scene.bottom - scene.ahead
    return float(np.interp(above, (0.0, 0.75 * CLEAR_M), (0.0, 1.0)))


def _tallest_between(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Return the height of the tallest point near a straight way, -inf where there is none."""
    way = end - start
    share = np.clip((points[:, :2] - start) @ way / max(way @ way, 1e-9), 0.0, 1.0)
    near = np.linalg.norm(points[:, :2] - start - share[:, None] * way, axis=1) < CORRIDOR_M
    return float(points[near, 2].max()) if near.any() else -np.inf

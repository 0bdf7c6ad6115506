"""The scripted expert's skill of lifting a pot with two arms, each by its handle."""

from __future__ import annotations

import numpy as np

from ros2_lstm_policy.sim.grasp import turn
from ros2_lstm_policy.sim.two_arms import SIDES, TwoArmRobot
from ros2_lstm_policy.types import Action

LARGEST_MOVE_M, LARGEST_TURN_RAD, LARGEST_TILT_RAD = 0.05, 0.5, 0.15
GAIN = 1.5  # the controller covers about 0.4 of what it is told in one period
GRASP_M, GRASP_RAD, HOVER_M = 0.012, 0.12, 0.08
LIFT_M = 0.04
MISSED, OPEN = 0.1, 0.9  # openings


class LiftingTogether:
    """
    Comes down over both handles, closes, and lifts once both are gripped.

    It decides from the present state; all it remembers is which side missed its handle, until that
    gripper is open again.

    :param robot: the two arms.
    """

    def __init__(self, robot: TwoArmRobot) -> None:
        """Begin without a miss."""
        self._robot = robot
        self._missed = dict.fromkeys(SIDES, False)

    def act(self) -> Action:
        """Return what to do for the next control period, in world axes."""
        firm = all(self._is_firm(side) for side in SIDES)
        ready = all(self._is_ready(side) or self._robot.grips(side) for side in SIDES)
        groups: dict[str, np.ndarray] = {}
        for side in SIDES:
            opening = self._robot.hands[side].opening
            missed = not self._robot.grips(side) and opening < (OPEN if self._missed[side]
                                                                else MISSED)
            self._missed[side] = missed
            move = self._lift(side) if firm else self._approach(side)
            groups[f'{side}_arm'] = self._command(side, move, not firm)
            groups[f'{side}_gripper'] = np.array([not ready or missed], np.float32)
        return Action(groups)

    def _is_firm(self, side: str) -> bool:
        return self._robot.grips(side) and self._robot.hands[side].grip_is_firm

    def _is_ready(self, side: str) -> bool:
        away = self._robot.handle(side) - self._robot.hands[side].position
        return bool(np.abs(away).max() < GRASP_M and abs(self._turn(side)) < GRASP_RAD)

    def _approach(self, side: str) -> np.ndarray:
        """Return the way to a point over the handle: the lower, the nearer it is sideways."""
        away = self._robot.handle(side) - self._robot.hands[side].position
        aside = np.linalg.norm(away[:2]) + 0.1 * max(0.0, abs(self._turn(side)) - GRASP_RAD)
        height = np.interp(aside, (0.8 * GRASP_M, 0.03), (0.0, HOVER_M))
        return GAIN * (away + np.array([0.0, 0.0, height]))

    def _lift(self, side: str) -> np.ndarray:
        """Return the way up, as fast as the other side, so that the pot stays level."""
        heights = [self._robot.handle(each)[2] for each in SIDES]
        own = self._robot.handle(side)[2]
        return np.array([0.0, 0.0, LIFT_M + GAIN * (np.mean(heights) - own)])

    def _turn(self, side: str) -> float:
        """Return the turn that lets the fingers close across the handle, rad."""
        outwards = self._robot.handle(side) - self._robot.handle(_other(side))
        yaw = float(np.arctan2(outwards[1], outwards[0]))
        return turn(self._robot.hands[side].finger_yaw, yaw)

    def _command(self, side: str, move: np.ndarray, turns: bool) -> np.ndarray:
        move = move / max(1.0, np.abs(move).max() / LARGEST_MOVE_M)
        tilt = np.cross(self._robot.hands[side].rotation[:, 2], [0.0, 0.0, -1.0])[:2]
        yaw = self._turn(side) if turns else 0.0
        rotation = np.append(np.clip(tilt, -LARGEST_TILT_RAD, LARGEST_TILT_RAD),
                             np.clip(yaw, -LARGEST_TURN_RAD, LARGEST_TURN_RAD))
        return np.concatenate([move, rotation]).astype(np.float32)


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]

"""The scripted expert's skill of pushing a flat object over the table with closed fingers."""

from __future__ import annotations

import numpy as np

from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.sim.stages import Push
from ros2_lstm_policy.types import Action

GAIN, LARGEST_MOVE_M = 1.5, 0.05
LARGEST_TILT_RAD = 0.15
ABOVE_M, FAR_M = 0.08, 0.2  # travelling height over the object, how far the push aims
TIP_M = 0.008  # height of the finger tips over the object's foot
ASIDE_M = 0.035  # of its edge: where the fingers come down
AT_M = 0.015


class Pushing:
    """
    Pushes one object along x, away from a line on the table.

    :param robot: the robot.
    :param wanted: what is pushed, and from where.
    """

    def __init__(self, robot: SimRobot, wanted: Push) -> None:
        """Look where the object is when it begins."""
        self._robot, self._wanted = robot, wanted

    def act(self) -> Action:
        """Return what to do for the next control period, in world axes."""
        known = self._robot.privileged
        here, goal = known.hand.position, self._goal(known.hand.position)
        move = GAIN * (goal - here)
        move = move / max(1.0, np.abs(move).max() / LARGEST_MOVE_M)
        tilt = np.cross(known.hand.rotation[:, 2], [0.0, 0.0, -1.0])[:2]
        rotation = np.append(np.clip(tilt, -LARGEST_TILT_RAD, LARGEST_TILT_RAD), 0.0)
        return Action.one_arm(np.concatenate([move, rotation]).astype(np.float32), 0.0)

    def _goal(self, here: np.ndarray) -> np.ndarray:
        """Return where the finger tips are to go, (3,) m."""
        points = self._robot.privileged.points(self._wanted.target)
        low, high = points.min(0), points.max(0)
        middle = (low + high) / 2
        side = 1.0 if middle[0] > self._wanted.from_x else -1.0
        edge = low[0] if side > 0 else high[0]
        start = np.array([edge - side * ASIDE_M, middle[1]])
        down = low[2] + TIP_M
        is_low = here[2] < down + AT_M
        is_behind = side * (edge - here[0]) > 0 and abs(here[1] - middle[1]) < 2 * AT_M
        if is_low and is_behind:
            return np.array([here[0] + side * FAR_M, middle[1], down])
        if np.linalg.norm(here[:2] - start) < AT_M:
            return np.append(start, down - AT_M)
        return np.append(start, high[2] + ABOVE_M)

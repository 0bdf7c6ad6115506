"""What the simulated robot was told, between the thread that hears and the thread that moves."""

from __future__ import annotations

from dataclasses import dataclass
import threading

import numpy as np
from ros2_lstm_policy.kinds import ARM_DIM

# How long an arm command waits for its gripper command, which another topic brings: longer where
# the actor has commanded the gripper before, for then it does so with every arm command.
GRIPPER_GRACE_S, KNOWN_GRIPPER_GRACE_S = 0.2, 10.0


@dataclass(frozen=True)
class ArmCommand:
    """
    One displacement.

    :param stamp_ns: stamp of the observation that it answers.
    :param arm: (6,) m and rad, for one control period.
    """

    stamp_ns: int
    arm: np.ndarray


class CommandInbox:
    """The newest commands; each arm command is executed at most once, as it is a displacement."""

    def __init__(self) -> None:
        """Begin with an open gripper and nothing heard."""
        self._changed = threading.Condition()
        self._arm: ArmCommand | None = None
        self._gripper_open = True
        self._gripper_heard = self._gripper_known = False
        self._interrupted = False

    def put_arm(self, stamp_ns: int, values: tuple[float, ...]) -> str | None:
        """Take an arm command; return why it was refused, None where it was not."""
        arm = np.asarray(values, dtype=np.float64)
        refusal = None
        if not np.isfinite(arm).all():
            refusal = f'arm_delta: values must be finite, found {arm.tolist()}; the arm holds'
            arm = np.zeros(ARM_DIM)
        with self._changed:
            self._arm = ArmCommand(stamp_ns, arm)
            self._changed.notify_all()
        return refusal

    def put_gripper(self, values: tuple[float, ...]) -> str | None:
        """Take a gripper command, 0 closed to 1 open; return why it was refused."""
        good = len(values) == 1 and 0.0 <= values[0] <= 1.0
        with self._changed:
            if good:
                self._gripper_open = values[0] >= 0.5
            self._gripper_heard = self._gripper_known = True
            self._changed.notify_all()
        if good:
            return None
        return (f'gripper_command: expected one value from 0 closed to 1 open, found '
                f'{list(values)}; the gripper holds')

    def clear(self, gripper_open: bool | None = None) -> None:
        """
        Forget what was heard before the observation that is about to be published.

        :param gripper_open: at the beginning of an episode: what the gripper is.
        """
        with self._changed:
            self._arm, self._gripper_heard = None, False
            if gripper_open is not None:
                self._gripper_open, self._gripper_known = gripper_open, False

    def answer(self, stamp_ns: int, timeout_s: float) -> tuple[np.ndarray, bool] | None:
        """
        Wait for the arm command of a stamp and for the gripper command.

        The gripper command comes first, so an arm command without one is an answer, too, a
        moment later, of an actor that has not commanded the gripper in this episode: it holds.

        :return: arm (6,) and whether the gripper is to be open; None after the time-out or an
            interruption.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._interrupted or self._has_arm_of(stamp_ns), timeout_s)
            if not self._has_arm_of(stamp_ns):
                return None
            self._changed.wait_for(
                lambda: self._interrupted or self._gripper_heard,
                KNOWN_GRIPPER_GRACE_S if self._gripper_known else GRIPPER_GRACE_S)
            assert self._arm is not None
            return self._arm.arm, self._gripper_open

    def newest(self, oldest_stamp_ns: int) -> tuple[np.ndarray | None, bool]:
        """
        Take the newest arm command, if it is not older than a stamp; it is not taken twice.

        :return: arm (6,) or None, and whether the gripper is to be open.
        """
        with self._changed:
            command, self._arm = self._arm, None
            if command is None or command.stamp_ns < oldest_stamp_ns:
                return None, self._gripper_open
            return command.arm, self._gripper_open

    def interrupt(self) -> None:
        """Wake who waits; waits return at once until :meth:`resume`."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Let waits wait again."""
        with self._changed:
            self._interrupted = False

    def _has_arm_of(self, stamp_ns: int) -> bool:
        return self._arm is not None and self._arm.stamp_ns == stamp_ns

"""What the columns of a LeRobot dataset mean; the defaults are those that `convert` writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ros2_lstm_policy.types import HAND_CAMERA, STATIC_CAMERA


@dataclass(frozen=True)
class LeRobotLayout:
    """
    How to read a LeRobot dataset whose action is six arm deltas and a gripper.

    :param static: feature of the third-person camera.
    :param hand: feature of the wrist camera.
    :param action: feature of seven values: six arm deltas, then the gripper.
    :param arm_scale: factors from the stored deltas to m and rad.
    :param rotation: convention of the stored rotations.
    :param gripper_closed: stored value that means closed.
    :param gripper_open: stored value that means open.
    """

    static: str = 'observation.images.static'
    hand: str = 'observation.images.hand'
    action: str = 'action'
    arm_scale: tuple[float, ...] = (1.0,) * 6
    rotation: Literal['rotation_vector', 'euler_xyz'] = 'rotation_vector'
    gripper_closed: float = 0.0
    gripper_open: float = 1.0

    def __post_init__(self) -> None:
        """Refuse scales and grippers that mean nothing."""
        if len(self.arm_scale) != 6:
            raise ValueError(f'arm_scale needs 6 values, found {len(self.arm_scale)}')
        if self.gripper_closed == self.gripper_open:
            raise ValueError('gripper_closed and gripper_open must differ')

    def camera(self, name: str) -> str:
        """Return the image feature of that camera, 'static' or 'hand'."""
        return {STATIC_CAMERA: self.static, HAND_CAMERA: self.hand}[name]

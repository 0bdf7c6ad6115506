"""What the columns of a LeRobot dataset mean; the defaults are those that `convert` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import math
from typing import Any, Literal

from ros2_lstm_policy.data.conventions import cameras_by_name

Rotation = Literal['rotation_vector', 'euler_xyz']


@dataclass(frozen=True)
class LeRobotLayout:
    """
    How to read a LeRobot dataset whose action is six arm deltas and a gripper.

    :param cameras: feature by the name of the camera; one that is not named here has
        `observation.images.NAME`.
    :param action: feature of seven values: six arm deltas and the gripper, in the order of their
        names in info.json, or the gripper last where they have none.
    :param arm: 'displacement': the deltas are motions of one control period, which names of axes
        alone do not say; None to go by the names, and to ask where they leave it open.
    :param arm_scale: factors from the stored deltas to m and rad.
    :param rotation: convention of the stored rotations; None to go by the names: Euler angles
        where they are roll, pitch and yaw, else rotation vectors.
    :param gripper_closed: stored value that means closed.
    :param gripper_open: stored value that means open.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    action: str = 'action'
    arm: Literal['displacement'] | None = None
    arm_scale: tuple[float, ...] = (1.0,) * 6
    rotation: Rotation | None = None
    gripper_closed: float = 0.0
    gripper_open: float = 1.0

    def __post_init__(self) -> None:
        """Refuse scales and grippers that mean nothing."""
        if len(self.arm_scale) != 6:
            raise ValueError(f'arm_scale needs 6 values, found {len(self.arm_scale)}')
        if not all(map(math.isfinite, (*self.arm_scale, self.gripper_closed, self.gripper_open))):
            raise ValueError('arm_scale, gripper_closed and gripper_open must be finite numbers')
        if self.gripper_closed == self.gripper_open:
            raise ValueError('gripper_closed and gripper_open must differ')

    def camera(self, name: str) -> str:
        """Return the image feature of that camera."""
        return self.cameras.get(name, f'observation.images.{name}')

    @staticmethod
    def upgrade(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read 0.1's keys `static` and `hand`, a camera each."""
        return cameras_by_name(values)

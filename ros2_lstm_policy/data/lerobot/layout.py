"""What the columns of a LeRobot dataset mean; the defaults are those that `convert` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import math
from typing import Any, Literal

from ros2_lstm_policy.data.conventions import cameras_by_name

Rotation = Literal['rotation_vector', 'euler_xyz']
StoredRotation = Literal['rotation_vector', 'euler_xyz', 'quaternion_xyzw']


@dataclass(frozen=True)
class FeatureColumns:
    """
    Which columns of a feature are a state or a group of actions, and how they are stored.

    A value is (stored - offset) / scale: a gripper that is stored in percent has the opening 1
    with 100, joints in degrees are rad with 57.29578.

    :param feature: its name; empty for `observation.state`, or for `lerobot.action`.
    :param columns: their names in info.json, or their numbers from 0 on, in the wanted order;
        empty to find them by the names of the manifest, or to take all where that is sure.
    :param offset: what is subtracted, one for all or one a column,
    :param scale: and what the rest is divided by, likewise.
    :param kind: of a group of actions: what its values are, which is asked for where the names
        do not say it; the same as in the manifest.
    :param rotation: of a pose: how its columns behind x y z say the rotation; None to go by the
        names. A state that has one becomes nine numbers, as the robot's poses do.
    """

    feature: str = ''
    columns: tuple[Any, ...] = ()
    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    kind: str | None = None
    rotation: StoredRotation | None = None

    def __post_init__(self) -> None:
        """Refuse columns that cannot be, and scales that mean nothing."""
        if any(type(column) not in (int, str) for column in self.columns):
            raise ValueError(f'columns: expected names or numbers, found {list(self.columns)}')
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f'columns: expected each once, found {list(self.columns)}')
        if not (all(map(math.isfinite, (*self.offset, *self.scale))) and all(self.scale)):
            raise ValueError('offset and scale must be finite, scale not 0; found '
                             f'{list(self.offset)} and {list(self.scale)}')

    @staticmethod
    def upgrade(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a single number for a list of one."""
        return {key: [value] if key in ('offset', 'scale') and not isinstance(value, (list, tuple))
                else value for key, value in values.items()}


@dataclass(frozen=True)
class LeRobotLayout:
    """
    How to read a LeRobot dataset.

    `arm` to `gripper_open` are for an action of seven values: six arm deltas and a gripper.

    :param cameras: feature by the name of the camera; one that is not named here has
        `observation.images.NAME`.
    :param action: feature of the actions; of the seven values the gripper is last where they
        have no names in info.json.
    :param arm: 'displacement': the deltas are motions of one control period, which names of axes
        alone do not say; None to go by the names, and to ask where they leave it open.
    :param arm_scale: factors from the stored deltas to m and rad.
    :param rotation: convention of the stored rotations; None to go by the names: Euler angles
        where they are roll, pitch and yaw, else rotation vectors.
    :param gripper_closed: stored value that means closed.
    :param gripper_open: stored value that means open.
    :param states: where states are, by name; one that is not named here is found in
        `observation.state` by its names in the manifest, or is the whole of it where it is the
        only one or is called `state`.
    :param actions: where groups of actions are, by name, likewise in `action`.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    action: str = 'action'
    arm: Literal['displacement'] | None = None
    arm_scale: tuple[float, ...] = (1.0,) * 6
    rotation: Rotation | None = None
    gripper_closed: float = 0.0
    gripper_open: float = 1.0
    states: Mapping[str, FeatureColumns] = field(default_factory=dict)
    actions: Mapping[str, FeatureColumns] = field(default_factory=dict)

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

"""A UR5e with its Robotiq gripper where LIBERO has a Panda: on a mount, or on the table."""

from __future__ import annotations

import numpy as np

# the fingers where the Panda has them at the beginning, and down
BEGIN_RAD = np.array([-0.301, -1.693, 1.903, -1.78, -1.57, -1.871])


def register() -> None:
    """Tell robosuite of it, under the names that LIBERO makes of an arm's: once."""
    from libero.libero.envs.robots import MountedPanda, OnTheGroundPanda
    from robosuite.models.robots import UR5e
    from robosuite.robots import ROBOT_CLASS_MAPPING
    from robosuite.robots.single_arm import SingleArm

    class MountedUR5e(UR5e):  # type: ignore[misc]
        base_xpos_offset = MountedPanda.base_xpos_offset

        @property
        def init_qpos(self) -> np.ndarray:
            return BEGIN_RAD.copy()

    class OnTheGroundUR5e(MountedUR5e):
        base_xpos_offset = OnTheGroundPanda.base_xpos_offset
        default_mount = OnTheGroundPanda.default_mount

    for cls in (MountedUR5e, OnTheGroundUR5e):
        ROBOT_CLASS_MAPPING[cls.__name__] = SingleArm

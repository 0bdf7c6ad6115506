"""
What the values of a group of actions mean, and the numbers that a network gives for them.

A kind of your own is one entry in `KINDS`, and one in each of the tables that check it
(`runtime.safety.CHECKS`), send it (`ros.encoders.ENCODERS`) and find it in recordings
(`data.labels.SOURCES`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Rotation = Literal['rotation_vector', 'euler_xyz']
Conversion: TypeAlias = Callable[[np.ndarray, Rotation], np.ndarray]

ARM_DIM = 6  # values of a Cartesian delta or pose
ACTION_DIM = 7  # an action of LIBERO, CALVIN and the reference: such a delta and a gripper
POSE_AXES = ('x', 'y', 'z', 'rx', 'ry', 'rz')  # the last three: a rotation vector
POSE_UNITS = ('m', 'm', 'm', 'rad', 'rad', 'rad')


def _as_they_are(values: np.ndarray, rotation: Rotation) -> np.ndarray:
    return values


@dataclass(frozen=True)
class Kind:
    """
    One kind.

    :param axes: names of its values; empty where they are as many as the robot has joints.
    :param units: of these; one for all where there are no axes.
    :param is_absolute: its values say where to be, not how far to go.
    :param numbers: how many the network gives for a group; None for as many as values.
    :param to_numbers: values (..., size) to the network's numbers, not normalised, float64.
    :param to_values: the inverse.
    """

    axes: tuple[str, ...] = ()
    units: tuple[str, ...] = ('',)
    is_absolute: bool = False
    numbers: int | None = None
    to_numbers: Conversion = _as_they_are
    to_values: Conversion = _as_they_are


def rotation_6d(vectors: np.ndarray) -> np.ndarray:
    """
    Return the first two columns of rotation matrices, side by side.

    They are continuous where vectors and quaternions jump: Zhou et al., arXiv 1812.07035.

    :param vectors: (..., 3) rotation vectors, rad.
    :return: (..., 6).
    """
    from scipy.spatial.transform import Rotation as Rotations
    flat = np.asarray(vectors, np.float64).reshape(-1, 3)
    columns = Rotations.from_rotvec(flat).as_matrix()[:, :, :2]
    return columns.transpose(0, 2, 1).reshape(*np.shape(vectors)[:-1], 6)


def rotation_vector(columns: np.ndarray) -> np.ndarray:
    """
    Return the rotation vectors nearest to pairs of columns, by Gram and Schmidt.

    :param columns: (..., 6), as of :func:`rotation_6d`, of any length.
    :return: (..., 3) rad.
    """
    from scipy.spatial.transform import Rotation as Rotations
    flat = np.asarray(columns, np.float64).reshape(-1, 2, 3)
    first = flat[:, 0] / np.linalg.norm(flat[:, 0], axis=1, keepdims=True)
    second = flat[:, 1] - (first * flat[:, 1]).sum(1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    matrix = np.stack([first, second, np.cross(first, second)], axis=2)
    return Rotations.from_matrix(matrix).as_rotvec().reshape(*np.shape(columns)[:-1], 3)


def _delta_to_numbers(values: np.ndarray, rotation: Rotation) -> np.ndarray:
    if rotation == 'rotation_vector':
        return values
    from scipy.spatial.transform import Rotation as Rotations
    return _map_rotation(values, lambda v: Rotations.from_rotvec(v).as_euler('xyz'))


def _delta_to_values(numbers: np.ndarray, rotation: Rotation) -> np.ndarray:
    if rotation == 'rotation_vector':
        return numbers
    from scipy.spatial.transform import Rotation as Rotations
    return _map_rotation(numbers, lambda v: Rotations.from_euler('xyz', v).as_rotvec())


def _pose_to_numbers(values: np.ndarray, rotation: Rotation) -> np.ndarray:
    return np.concatenate([values[..., :3], rotation_6d(values[..., 3:])], -1)


def _pose_to_values(numbers: np.ndarray, rotation: Rotation) -> np.ndarray:
    return np.concatenate([numbers[..., :3], rotation_vector(numbers[..., 3:])], -1)


def _map_rotation(values: np.ndarray,
                  change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert the last three of the six values."""
    flat = np.asarray(values, np.float64).reshape(-1, 6)
    changed = np.concatenate([flat[:, :3], change(flat[:, 3:])], axis=1)
    return changed.reshape(np.shape(values)).astype(np.float32)


KINDS: dict[str, Kind] = {
    'ee_delta': Kind(POSE_AXES, POSE_UNITS, to_numbers=_delta_to_numbers,
                     to_values=_delta_to_values),
    'ee_pose': Kind(POSE_AXES, POSE_UNITS, is_absolute=True, numbers=9,
                    to_numbers=_pose_to_numbers, to_values=_pose_to_values),
    'joint_delta': Kind(units=('rad',)),
    'joint_position': Kind(units=('rad',), is_absolute=True),
    'joint_velocity': Kind(units=('rad/s',)),
    'gripper': Kind(is_absolute=True),
}

"""Rotation conventions of recordings; an episode has rotation vectors, whatever was recorded."""

from __future__ import annotations

import numpy as np


def to_rotation_vectors(arm: np.ndarray, rotation: str) -> np.ndarray:
    """
    Convert recorded deltas.

    :param arm: (T, 6), m and rad.
    :param rotation: 'rotation_vector', or 'euler_xyz' (about fixed axes x, then y, then z).
    :return: (T, 6) float32 with rotation vectors.
    """
    if rotation == 'rotation_vector' or not len(arm):
        return arm.astype(np.float32)
    from scipy.spatial.transform import Rotation
    vectors = Rotation.from_euler('xyz', arm[:, 3:]).as_rotvec()
    return np.concatenate([arm[:, :3], vectors], 1).astype(np.float32)

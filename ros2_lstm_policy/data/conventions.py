"""What recordings of different origin say differently: rotations, and the names of cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.problems import refuse


def cameras_by_name(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Turn 0.1's keys `static` and `hand` of a layout into entries of its mapping `cameras`."""
    old = {name: values[name] for name in ('static', 'hand') if name in values}
    rest = {key: value for key, value in values.items() if key not in old}
    return {**rest, 'cameras': {**old, **rest.get('cameras', {})}} if old else rest


def check_cameras(wanted: Sequence[str], known: Mapping[str, str], where: Path,
                  form: str) -> None:
    """
    Refuse cameras that a format does not have.

    :param known: camera name to the format's own name.
    :raises RecordingError: naming those that it has.
    """
    if unknown := [name for name in wanted if name not in known]:
        raise refuse('missing-topic', where, '', f'{form} has the cameras {", ".join(known)}; '
                     f'{", ".join(unknown)} was asked for')


def to_rotation_vectors(arm: np.ndarray, rotation: str) -> np.ndarray:
    """
    Convert recorded deltas.

    :param arm: (T, 6), m and rad; (T, 7) with quaternions.
    :param rotation: 'rotation_vector', 'euler_xyz' (about fixed axes x, then y, then z), or
        'quaternion_xyzw'.
    :return: (T, 6) float32 with rotation vectors.
    """
    if rotation == 'rotation_vector' or not len(arm):
        return arm[:, :6].astype(np.float32)
    from scipy.spatial.transform import Rotation
    turns = (Rotation.from_quat(arm[:, 3:]) if rotation == 'quaternion_xyzw'
             else Rotation.from_euler('xyz', arm[:, 3:]))
    vectors = turns.as_rotvec()
    return np.concatenate([arm[:, :3], vectors], 1).astype(np.float32)

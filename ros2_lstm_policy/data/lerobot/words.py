"""
The words in the names of columns, and what they say of them.

The same shape holds joint positions, poses and displacements; the names are all that tells them
apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import re
from typing import Any

GRIPPER_PLACE = 6
_WORDS = re.compile(r'[a-z]+|\d+')
JOINT = {'joint', 'joints', 'jnt', 'qpos', 'shoulder', 'elbow', 'wrist', 'waist', 'forearm',
         'pan', 'lift', 'flex', 'hip', 'knee', 'ankle', 'servo', 'j', 'q', 'theta'}
GRIPPERS = {'gripper', 'grip', 'grasp', 'claw', 'jaw', 'finger', 'fingers'}
CLOSING = {'close', 'closed', 'closedness', 'closing', 'grasp'}
OPENING = {'open', 'opening', 'openness', 'opened'}
DELTA = {'delta', 'deltas', 'rel', 'relative', 'displacement', 'increment', 'dx', 'dy', 'dz',
         'drx', 'dry', 'drz', 'droll', 'dpitch', 'dyaw'}
POSE = {'pose', 'abs', 'absolute', 'target', 'goal', 'pos', 'position', 'ee', 'quat', 'qx', 'qy',
        'qz', 'qw'}
VELOCITY = {'vel', 'velocity', 'speed', 'twist', 'vx', 'vy', 'vz'}
_TURN = {'rot', 'rotation', 'rotvec', 'axisangle', 'angle', 'angular', 'ori', 'orientation'}
EULER = {'roll': 3, 'pitch': 4, 'yaw': 5}
_AXES = ({name: axis for axis, name in enumerate('xyz')}
         | {f'{turn}{name}': 3 + axis for turn in 'rwa' for axis, name in enumerate('xyz')}
         | {f'v{name}': axis for axis, name in enumerate('xyz')} | EULER)
_AXES |= {f'd{name}': axis for name, axis in _AXES.items()}


def words_of(names: Sequence[str]) -> list[list[str]]:
    """Return the words of each name, in lower case."""
    return [_WORDS.findall(name.lower()) for name in names]


def is_joint(words: Sequence[str]) -> bool:
    """Return whether a name is that of a joint, other than the gripper's."""
    return bool(JOINT & set(words) and not GRIPPERS & set(words))


def flat(names: Any) -> list[str]:
    """Return the names as a list; LeRobot has lists, lists by group, and numbers by name."""
    if isinstance(names, Mapping):
        if names and all(isinstance(value, int) for value in names.values()):
            return sorted(map(str, names), key=lambda name: names[name])
        return [name for group in names.values() for name in flat(group)]
    if isinstance(names, (list, tuple)):
        return [name for each in names for name in flat(each)]
    return [names] if isinstance(names, str) else []


def place(words: Sequence[str]) -> int | None:
    """Return which part of an action a name means: 0 to 5, or 6 for the gripper."""
    if GRIPPERS & set(words):
        return GRIPPER_PLACE
    turned = bool(_TURN & set(words))
    for word in words:
        if word in _AXES:
            return _AXES[word] % 3 + 3 if turned else _AXES[word]
    if words and words[-1] in ('0', '1', '2') and (turned or 'vector' in words):
        return int(words[-1]) + (3 if turned else 0)
    return None


def listed(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names))

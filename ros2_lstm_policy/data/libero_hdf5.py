"""
LIBERO's demonstrations: one HDF5 file a task, one group a demonstration.

Actions are seven values in [-1, 1]: three positions in units of 0.05 m and a rotation vector in
units of 0.5 rad, in the world's axes, and the gripper, -1 open, 1 closed. Images are stored bottom
row first (OpenGL's order) and turned upright here.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.episodes import Reading, Recording
from ros2_lstm_policy.data.problems import reading, refuse
from ros2_lstm_policy.types import Episode, HAND_CAMERA, STATIC_CAMERA

SCALE = np.array([0.05] * 3 + [0.5] * 3)
_KEYS = {STATIC_CAMERA: 'agentview_rgb', HAND_CAMERA: 'eye_in_hand_rgb'}
_DEFAULT_HZ = 20


def list_libero(root: Path, cameras: tuple[str, ...]) -> list[Recording]:
    """
    List the demonstrations of one file or of a folder of files.

    :raises RecordingError: for a file that is damaged or holds no demonstrations.
    """
    root = Path(root)
    found: list[Recording] = []
    for path in [root] if root.is_file() else sorted(root.glob('*.hdf5')):
        instruction, rate_hz, demos = _describe(path)
        found += [LiberoRecording(path, demo, instruction, rate_hz, cameras) for demo in demos]
    return found


@dataclass(frozen=True)
class LiberoRecording:
    """One demonstration that has not been read yet."""

    path: Path
    demo: str
    instruction: str
    rate_hz: float
    cameras: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the file's and the demonstration's name."""
        return f'{self.path.stem}/{self.demo}'

    @property
    def where(self) -> Path:
        """Return the file."""
        return self.path

    def read(self) -> tuple[Reading, ...]:
        """Read the actions; :raises RecordingError: for a damaged demonstration."""
        actions = self._dataset('actions')
        if actions.ndim != 2 or actions.shape[1] != 7:
            raise refuse('damaged', self.path, self.name,
                         f'expected (T, 7) actions, found {actions.shape}')
        period_ns = round(1e9 / self.rate_hz)
        frames = {camera: HdfFrames(self.path, f'data/{self.demo}/obs/{_KEYS[camera]}', self.name,
                                    len(actions)) for camera in self.cameras}
        episode = Episode(
            self.name, self.instruction, np.arange(len(actions), dtype=np.int64) * period_ns,
            frames, (actions[:, :6] * SCALE).astype(np.float32),
            (1 - actions[:, 6]).astype(np.float32) / 2, self._success())
        facts = {'frame': 'base', 'control_period_s': f'{1 / self.rate_hz:g}'}
        return (Reading(episode, (), facts),)

    def _success(self) -> bool | None:
        dones = self._dataset('dones', None)
        return None if dones is None or not len(dones) else bool(dones[-1])

    def _dataset(self, key: str, *default: Any) -> Any:
        return read_hdf5(self.path, f'data/{self.demo}/{key}', self.name, ..., *default)


class HdfFrames:
    """A `types.FrameSequence` over one dataset of an HDF5 file."""

    def __init__(self, path: Path, key: str, episode: str, length: int) -> None:
        """Remember where the images are; nothing is opened yet."""
        self._path, self._key, self._episode, self._length = path, key, episode, length

    def __len__(self) -> int:
        """Return T."""
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one upright (H, W, 3) uint8 image; :raises RecordingError: where it is none."""
        image = read_hdf5(self._path, self._key, self._episode, index)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise refuse('damaged', self._path, self._episode,
                         f'{self._key}: expected (H, W, 3) uint8, found {image.shape}')
        return np.ascontiguousarray(image[::-1])


def read_hdf5(path: Path, key: str, episode: str, index: Any, *default: Any) -> Any:
    """
    Read one dataset, or a part of it.

    :param default: what to return where it is not there; without it that is an error.
    :raises RecordingError: where it cannot be read.
    """
    import h5py
    with reading(path, episode), h5py.File(path, 'r') as file:
        if key in file:
            return file[key][index]
    if default:
        return default[0]
    raise refuse('missing-topic', path, episode, f'no dataset {key!r}')


def _describe(path: Path) -> tuple[str, float, list[str]]:
    """Return the words, the rate in Hz and the names of the demonstrations of a file."""
    import h5py
    with reading(path), h5py.File(path, 'r') as file:
        data = file['data']
        words = json.loads(data.attrs['problem_info'])['language_instruction']
        arguments = json.loads(data.attrs.get('env_args', '{}')).get('env_kwargs', {})
        rate_hz = float(arguments.get('control_freq', _DEFAULT_HZ))
        demos = sorted((name for name in data if name.startswith('demo_')),
                       key=lambda name: int(name.removeprefix('demo_')))
    if not demos:
        raise refuse('no-dataset', path, '', 'the file holds no demonstration')
    text = words if isinstance(words, str) else ''.join(words)
    return text.strip().strip('"'), rate_hz, demos

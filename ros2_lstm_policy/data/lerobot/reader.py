"""Episodes from LeRobot datasets, v2.1 and v3.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.conventions import to_rotation_vectors
from ros2_lstm_policy.data.episodes import Reading, Recording
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.lerobot.meta import EpisodeLine, LeRobotMeta, read_meta
from ros2_lstm_policy.data.lerobot.video import VideoFrames
from ros2_lstm_policy.data.problems import reading, refuse
from ros2_lstm_policy.types import ACTION_DIM, Episode, FrameSequence

STAMPS = 'stamp_ns'
_GRIPPER_TOLERANCE = 0.02


def list_lerobot(root: Path, layout: LeRobotLayout, cameras: tuple[str, ...]) -> list[Recording]:
    """
    List the episodes of a dataset.

    :raises RecordingError: where its tables are damaged or a feature is missing.
    """
    meta = read_meta(root)
    for feature in (layout.action, *(layout.camera(name) for name in cameras)):
        if feature not in meta.features:
            raise refuse('missing-topic', meta.root, '', f'no feature {feature!r}; it has '
                         f'{", ".join(meta.features)}; set lerobot.static, lerobot.action')
    return [LeRobotRecording(meta, line, layout, cameras) for line in meta.episodes]


@dataclass(frozen=True)
class LeRobotRecording:
    """One episode that has not been read yet."""

    meta: LeRobotMeta
    line: EpisodeLine
    layout: LeRobotLayout
    cameras: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the name that the episode had before it was converted, or its number."""
        ours = self.meta.ours.get(self.line.number, {})
        return str(ours.get('name', f'{self.meta.root.name}-{self.line.number:06d}'))

    @property
    def where(self) -> Path:
        """Return the file of the episode's rows."""
        return self.line.data

    def read(self) -> tuple[Reading, ...]:
        """Read the rows; :raises RecordingError: where they are damaged."""
        import pyarrow.parquet as pq
        with reading(self.line.data, self.name):
            names = pq.read_schema(self.line.data).names
            images = [self.layout.camera(camera) for camera in self.cameras
                      if self.layout.camera(camera) not in self.line.videos]
            columns = [self.layout.action, 'task_index', 'frame_index', *images]
            columns += [name for name in (STAMPS, 'timestamp') if name in names][:1]
            rows = pq.read_table(self.line.data, columns=columns, filters=[
                ('episode_index', '=', self.line.number)]).sort_by('frame_index')
            actions = np.array(rows[self.layout.action].to_pylist(), np.float64)
            tasks = rows['task_index'].to_pylist()
            stamps_ns = self._stamps_ns(rows)
        if actions.shape != (self.line.length, ACTION_DIM):
            raise refuse('lengths', self.line.data, self.name, f'expected {self.line.length} rows '
                         f'of {ACTION_DIM} values in {self.layout.action!r}, found '
                         f'{actions.shape}')
        task = self._task(tasks)
        ours = self.meta.ours.get(self.line.number, {})
        return (Reading(Episode(
            self.name, self.meta.tasks[task], stamps_ns, self._frames(rows),
            to_rotation_vectors(actions[:, :6] * self.layout.arm_scale, self.layout.rotation),
            self._gripper_open(actions[:, 6]), ours.get('success')), (), self._facts(ours)),)

    def _task(self, tasks: Sequence[int]) -> int:
        """Return the one task of all rows, which has words."""
        changes = [step for step, task in enumerate(tasks) if task != tasks[0]]
        if changes:
            raise refuse('several-tasks', self.line.data, self.name, 'its task changes; expected '
                         'one instruction an episode', changes[0] / self.meta.fps)
        if not tasks or tasks[0] not in self.meta.tasks:
            raise refuse('no-instruction', self.line.data, self.name,
                         f'task {tasks[0] if tasks else None} has no words')
        return tasks[0]

    def _stamps_ns(self, rows: Any) -> np.ndarray:
        if STAMPS in rows.column_names:
            return np.array(rows[STAMPS].to_pylist(), np.int64)
        return np.round(np.array(rows['timestamp'].to_pylist(), np.float64) * 1e9).astype(np.int64)

    def _frames(self, rows: Any) -> Mapping[str, FrameSequence]:
        frames: dict[str, FrameSequence] = {}
        for camera in self.cameras:
            key = self.layout.camera(camera)
            part = self.line.videos.get(key)
            frames[camera] = (
                PngFrames(self.line.data, self.name, rows[key].to_pylist()) if part is None
                else VideoFrames(part.path, self.name, part.begin_s, len(rows), self.meta.fps))
        return frames

    def _gripper_open(self, stored: np.ndarray) -> np.ndarray:
        closed, opened = self.layout.gripper_closed, self.layout.gripper_open
        opening = (stored - closed) / (opened - closed)
        bad = np.flatnonzero(np.abs(opening - np.round(np.clip(opening, 0, 1)))
                             > _GRIPPER_TOLERANCE)
        if len(bad):
            raise refuse('gripper-values', self.line.data, self.name,
                         f'the gripper is {stored[bad[0]]:g}; expected {closed:g} (closed) or '
                         f'{opened:g} (open); set lerobot.gripper_closed and '
                         'lerobot.gripper_open', bad[0] / self.meta.fps)
        return np.round(opening).astype(np.float32)

    def _facts(self, ours: Mapping[str, Any]) -> Mapping[str, str]:
        known = {key: str(value) for key, value in ours.items() if key not in ('name', 'success')}
        return {'control_period_s': f'{1 / self.meta.fps:g}'} | known


class PngFrames:
    """A `types.FrameSequence` over images that are stored in the rows."""

    def __init__(self, path: Path, episode: str, cells: Sequence[Mapping[str, bytes]]) -> None:
        """Remember the encoded images."""
        self._path, self._episode, self._cells = path, episode, cells

    def __len__(self) -> int:
        """Return T."""
        return len(self._cells)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) uint8 image; :raises RecordingError: where it is none."""
        import cv2
        data = self._cells[index].get('bytes')
        image = None if not data else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise refuse('damaged', self._path, self._episode, f'row {index} holds no image')
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

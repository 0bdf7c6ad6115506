"""
Writes episodes as a LeRobot v3.0 dataset with H.264 video.

What LeRobot has no place for goes into a column `stamp_ns` (exact stamps) and into
meta/ros2_lstm_policy.json (names, labels, the manifest's facts), which its loader passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from ros2_lstm_policy.data.episodes import Reading
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.lerobot.meta import INFO, SIDECAR
from ros2_lstm_policy.data.lerobot.reader import STAMPS
from ros2_lstm_policy.data.lerobot.video import write_video
from ros2_lstm_policy.types import ACTION_DIM, Episode, FrameSequence

CHUNK = 1000
DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
_ACTION_NAMES = ['x_m', 'y_m', 'z_m', 'rx_rad', 'ry_rad', 'rz_rad', 'gripper_open']
_LOOK_EVERY = 10


class LeRobotWriter:
    """
    Appends episodes to a new dataset; each has a data file and a video a camera of its own.

    The dataset lies under `ROOT.partial` until :meth:`close`.
    """

    def __init__(self, root: Path, fps: int, robot: str = 'ros2_lstm_policy') -> None:
        """Begin; :raises FileExistsError: where something is there already."""
        self.root = Path(root)
        if self.root.exists():
            raise FileExistsError(f'{self.root}: exists already; name another folder')
        self._partial = self.root.with_name(self.root.name + '.partial')
        if self._partial.exists():
            shutil.rmtree(self._partial)
        self._fps, self._robot = fps, robot
        self._layout = LeRobotLayout()
        self._tasks: dict[str, int] = {}
        self._lines: list[dict[str, Any]] = []
        self._steps = 0
        self._ours: dict[int, dict[str, Any]] = {}
        self._actions: list[np.ndarray] = []
        self._pixels: dict[str, _PixelStatistics] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def append(self, reading: Reading) -> None:
        """Write the rows and the videos of one episode."""
        episode, number = reading.episode, len(self._lines)
        place = {'chunk_index': number // CHUNK, 'file_index': number % CHUNK}
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        first = self._steps
        action = np.concatenate([episode.arm, episode.gripper_open[:, None]], 1)
        action = action.astype(np.float32)
        self._write_rows(self._partial / DATA_PATH.format(**place), episode, action,
                         (number, first, task))
        line = {'episode_index': number, 'tasks': [episode.instruction], 'length': len(episode),
                'dataset_from_index': first, 'dataset_to_index': first + len(episode),
                'data/chunk_index': place['chunk_index'], 'data/file_index': place['file_index'],
                'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0}
        for camera, frames in episode.frames.items():
            key = self._layout.camera(camera)
            write_video(self._partial / VIDEO_PATH.format(video_key=key, **place),
                        self._watched(key, frames), self._fps)
            line |= {f'videos/{key}/chunk_index': place['chunk_index'],
                     f'videos/{key}/file_index': place['file_index'],
                     f'videos/{key}/from_timestamp': 0.0,
                     f'videos/{key}/to_timestamp': len(episode) / self._fps}
        self._lines.append(line)
        self._steps += len(episode)
        self._actions.append(action)
        self._ours[number] = {'name': episode.name, 'success': episode.success, **reading.facts}

    def close(self) -> Path:
        """Write the tables and move the dataset to its place."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        if not self._lines:
            raise ValueError(f'{self.root}: no episode to write')
        meta = self._partial / 'meta'
        (meta / 'episodes' / 'chunk-000').mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._lines),
                       meta / 'episodes' / 'chunk-000' / 'file-000.parquet')
        pq.write_table(_tasks_table(self._tasks), meta / 'tasks.parquet')
        for path, content in ((INFO, self._info()), (SIDECAR, self._ours),
                              (Path('meta') / 'stats.json', self._statistics())):
            (self._partial / path).write_text(json.dumps(content, indent=4))
        self._partial.rename(self.root)
        return self.root

    def _write_rows(self, path: Path, episode: Episode, action: np.ndarray,
                    place: tuple[int, int, int]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq
        number, first, task = place
        steps = np.arange(len(episode))
        flat = pa.array(action.reshape(-1))
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({
            self._layout.action: pa.FixedSizeListArray.from_arrays(flat, ACTION_DIM),
            STAMPS: pa.array(episode.stamps_ns, pa.int64()),
            'timestamp': pa.array((steps / self._fps).astype(np.float32)),
            'frame_index': pa.array(steps, pa.int64()),
            'episode_index': pa.array(np.full(len(episode), number), pa.int64()),
            'index': pa.array(first + steps, pa.int64()),
            'task_index': pa.array(np.full(len(episode), task), pa.int64())}), path)

    def _watched(self, key: str, frames: FrameSequence) -> Iterator[np.ndarray]:
        """Pass the images on and keep the size and the statistics of some of them."""
        statistics = self._pixels.setdefault(key, _PixelStatistics())
        for index in range(len(frames)):
            image = frames[index]
            size = self._sizes.setdefault(key, image.shape[:2])  # type: ignore[arg-type]
            if image.shape[:2] != size:
                raise ValueError(f'{key}: expected images of {size[1]}x{size[0]} as in the first '
                                 f'episode, found {image.shape[1]}x{image.shape[0]}')
            if index % _LOOK_EVERY == 0:
                statistics.add(image)
            yield image

    def _info(self) -> dict[str, Any]:
        one = {'shape': [1], 'names': None}
        features: dict[str, Any] = {self._layout.action: {
            'dtype': 'float32', 'shape': [ACTION_DIM], 'names': _ACTION_NAMES}}
        for key, (height, width) in self._sizes.items():
            features[key] = {
                'dtype': 'video', 'shape': [height, width, 3],
                'names': ['height', 'width', 'channels'],
                'info': {'video.height': height, 'video.width': width, 'video.codec': 'h264',
                         'video.pix_fmt': 'yuv420p', 'video.is_depth_map': False,
                         'video.fps': self._fps, 'video.channels': 3, 'has_audio': False}}
        features |= {name: {'dtype': 'int64', **one} for name in (
            STAMPS, 'frame_index', 'episode_index', 'index', 'task_index')}
        features['timestamp'] = {'dtype': 'float32', **one}
        return {
            'codebase_version': 'v3.0', 'robot_type': self._robot,
            'total_episodes': len(self._lines),
            'total_frames': self._steps,
            'total_tasks': len(self._tasks), 'chunks_size': CHUNK,
            'data_files_size_in_mb': 100, 'video_files_size_in_mb': 200, 'fps': self._fps,
            'splits': {'train': f'0:{len(self._lines)}'},
            'data_path': DATA_PATH, 'video_path': VIDEO_PATH, 'features': features}

    def _statistics(self) -> Mapping[str, Any]:
        action = np.concatenate(self._actions).astype(np.float64)
        table: dict[str, Any] = {self._layout.action: {
            'min': action.min(0).tolist(), 'max': action.max(0).tolist(),
            'mean': action.mean(0).tolist(), 'std': action.std(0).tolist(),
            'count': [len(action)]}}
        return table | {key: pixels.table() for key, pixels in self._pixels.items()}


class _PixelStatistics:
    """Mean, deviation and range by channel of images in [0, 1]."""

    def __init__(self) -> None:
        self._images = self._pixels = 0
        self._sum = np.zeros(3)
        self._squares = np.zeros(3)
        self._low, self._high = np.full(3, 1.0), np.zeros(3)

    def add(self, image: np.ndarray) -> None:
        pixels = image.reshape(-1, 3) / 255
        self._images, self._pixels = self._images + 1, self._pixels + len(pixels)
        self._sum += pixels.sum(0)
        self._squares += (pixels ** 2).sum(0)
        self._low = np.minimum(self._low, pixels.min(0))
        self._high = np.maximum(self._high, pixels.max(0))

    def table(self) -> Mapping[str, Any]:
        mean = self._sum / self._pixels
        std = np.sqrt(np.maximum(self._squares / self._pixels - mean ** 2, 0))
        columns = {'min': self._low, 'max': self._high, 'mean': mean, 'std': std}
        return {name: values.reshape(3, 1, 1).tolist() for name, values in columns.items()} | {
            'count': [self._images]}


def _tasks_table(tasks: Mapping[str, int]) -> Any:
    """Return the table that pandas reads with the words as its index, as LeRobot does."""
    import pyarrow as pa
    table = pa.table({'task_index': pa.array(list(tasks.values()), pa.int64()),
                      'task': pa.array(list(tasks), pa.string())})
    column = {'field_name': None, 'metadata': None}
    pandas = {
        'index_columns': ['task'],
        'column_indexes': [{'name': None, 'pandas_type': 'unicode', 'numpy_type': 'object',
                            'field_name': None, 'metadata': {'encoding': 'UTF-8'}}],
        'columns': [
            column | {'name': 'task_index', 'field_name': 'task_index', 'pandas_type': 'int64',
                      'numpy_type': 'int64'},
            column | {'name': 'task', 'field_name': 'task', 'pandas_type': 'unicode',
                      'numpy_type': 'object'}],
        'creator': {'library': 'pyarrow', 'version': pa.__version__}, 'pandas_version': '2.0.0'}
    return table.replace_schema_metadata({'pandas': json.dumps(pandas)})

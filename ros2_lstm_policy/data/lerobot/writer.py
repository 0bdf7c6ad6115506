"""
Writes episodes as a LeRobot v3.0 dataset with H.264 video.

The groups of actions lie side by side in `action`, the states in `observation.state`, each column
with the name STREAM.AXIS. What LeRobot has no place for goes into a column `stamp_ns` (exact
stamps) and into meta/ros2_lstm_policy.json (names, labels, the manifest's facts, what the streams
are), which its loader passes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from ros2_lstm_policy.data.body import short_streams, Streams
from ros2_lstm_policy.data.episodes import Reading
from ros2_lstm_policy.data.lerobot.columns import STATE
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.lerobot.meta import INFO, SIDECAR
from ros2_lstm_policy.data.lerobot.names import ACTION_NAMES
from ros2_lstm_policy.data.lerobot.reader import STAMPS
from ros2_lstm_policy.data.lerobot.stats import of_rows, PixelStatistics, sampled
from ros2_lstm_policy.data.lerobot.video import pixel_format, write_video
from ros2_lstm_policy.data.problems import refuse
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from ros2_lstm_policy.types import Episode, FrameSequence

CHUNK = 1000
DATA_PATH = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO_PATH = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'


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
        self._columns: dict[str, list[np.ndarray]] = {}
        self._pixels: dict[str, PixelStatistics] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._streams: Streams | None = None

    def append(self, reading: Reading) -> None:
        """
        Write the rows and the videos of one episode.

        :raises RecordingError: for an image that cannot be read, or of another size than those of
            the episodes before, and for other streams; the dataset is then as it was.
        """
        episode, number = reading.episode, len(self._lines)
        self._check_streams(reading)
        place = {'chunk_index': number // CHUNK, 'file_index': number % CHUNK}
        data = self._partial / DATA_PATH.format(**place)
        videos = {key: self._partial / VIDEO_PATH.format(video_key=key, **place)
                  for key in map(self._layout.camera, episode.frames)}
        try:
            pixels = self._write_videos(episode, videos)
        except BaseException:
            for path in videos.values():
                path.unlink(missing_ok=True)
            if not self._lines:
                self._sizes.clear()
                self._streams = None
            raise
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        columns = self._rows(reading, number, task)
        _write_rows(data, columns)
        self._lines.append(self._line(episode, columns, pixels, place))
        self._steps += len(episode)
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        for key, statistics in pixels.items():
            self._pixels.setdefault(key, PixelStatistics()).merge(statistics)
        self._ours[number] = {'name': episode.name, 'success': episode.success, **reading.facts,
                              **short_streams(Streams.of(reading))}

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

    def discard(self) -> None:
        """Delete what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _write_videos(self, episode: Episode,
                      paths: Mapping[str, Path]) -> dict[str, PixelStatistics]:
        pixels = {}
        for (key, path), frames in zip(paths.items(), episode.frames.values()):
            pixels[key] = PixelStatistics()
            self._check_size(key, frames[0], episode)
            write_video(path, _watched(frames, pixels[key]), self._fps)
        return pixels

    def _check_streams(self, reading: Reading) -> None:
        found = Streams.of(reading)
        if self._streams not in (None, found):
            raise refuse('lengths', self.root, reading.episode.name, 'its actions or states are '
                         'others than those of the first episode; convert episodes of one body '
                         'into one dataset')
        self._streams = found

    def _check_size(self, key: str, image: np.ndarray, episode: Episode) -> None:
        height, width = self._sizes.get(key, image.shape[:2])
        if image.shape[:2] != (height, width):
            raise refuse('image-size', self.root, episode.name,
                         f'{key}: images are {image.shape[1]}x{image.shape[0]}, those of the '
                         f'first episode are {width}x{height}; convert episodes of one size into '
                         'one dataset')
        self._sizes[key] = height, width

    def _rows(self, reading: Reading, number: int, task: int) -> dict[str, np.ndarray]:
        """Return the columns of an episode, (T,) or (T, D)."""
        episode = reading.episode
        steps = np.arange(len(episode))
        action = [episode.actions[group.name] for group in reading.groups]
        state = [episode.states[state.name] for state in reading.states]
        rows = {self._layout.action: np.concatenate(action, 1).astype(np.float32)}
        if state:
            rows[STATE] = np.concatenate(state, 1).astype(np.float32)
        return {**rows, STAMPS: episode.stamps_ns.astype(np.int64),
                'timestamp': (steps / self._fps).astype(np.float32),
                'frame_index': steps, 'episode_index': np.full_like(steps, number),
                'index': self._steps + steps, 'task_index': np.full_like(steps, task)}

    def _line(self, episode: Episode, columns: Mapping[str, np.ndarray],
              pixels: Mapping[str, PixelStatistics], place: Mapping[str, int]) -> dict[str, Any]:
        """Return the episode's row of the table of episodes, with its statistics."""
        line = {'episode_index': len(self._lines), 'tasks': [episode.instruction],
                'length': len(episode), 'dataset_from_index': self._steps,
                'dataset_to_index': self._steps + len(episode),
                'data/chunk_index': place['chunk_index'], 'data/file_index': place['file_index'],
                'meta/episodes/chunk_index': 0, 'meta/episodes/file_index': 0}
        for key in pixels:
            line |= {f'videos/{key}/chunk_index': place['chunk_index'],
                     f'videos/{key}/file_index': place['file_index'],
                     f'videos/{key}/from_timestamp': 0.0,
                     f'videos/{key}/to_timestamp': len(episode) / self._fps}
        tables = {name: of_rows(values) for name, values in columns.items()}
        tables |= {key: statistics.table() for key, statistics in pixels.items()}
        return line | {f'stats/{name}/{key}': value for name, table in tables.items()
                       for key, value in table.items()}

    def _info(self) -> dict[str, Any]:
        one = {'shape': [1], 'names': None}
        features: dict[str, Any] = {
            feature: {'dtype': 'float32', 'shape': [len(names)], 'names': names}
            for feature, names in self._names().items()}
        for key, (height, width) in self._sizes.items():
            features[key] = {
                'dtype': 'video', 'shape': [height, width, 3],
                'names': ['height', 'width', 'channels'],
                'info': {'video.height': height, 'video.width': width, 'video.codec': 'h264',
                         'video.pix_fmt': pixel_format(height, width),
                         'video.is_depth_map': False, 'video.fps': self._fps,
                         'video.channels': 3, 'has_audio': False}}
        features |= {name: {'dtype': str(parts[0].dtype), **one}
                     for name, parts in self._columns.items() if name not in features}
        return {
            'codebase_version': 'v3.0', 'robot_type': self._robot,
            'total_episodes': len(self._lines),
            'total_frames': self._steps,
            'total_tasks': len(self._tasks), 'chunks_size': CHUNK,
            'data_files_size_in_mb': 100, 'video_files_size_in_mb': 200, 'fps': self._fps,
            'splits': {'train': f'0:{len(self._lines)}'},
            'data_path': DATA_PATH, 'video_path': VIDEO_PATH, 'features': features}

    def _names(self) -> dict[str, list[str]]:
        """Return the names of the columns of the actions, and of the states if there are any."""
        streams = self._streams or Streams()
        names = {self._layout.action: axis_names(streams.actions) or list(ACTION_NAMES),
                 STATE: axis_names(streams.states)}
        return {feature: each for feature, each in names.items() if each}

    def _statistics(self) -> dict[str, Any]:
        tables = {name: of_rows(np.concatenate(parts)) for name, parts in self._columns.items()}
        return tables | {key: pixels.table() for key, pixels in self._pixels.items()}


def axis_names(streams: Sequence[ActionGroup] | Sequence[StateSpec]) -> list[str]:
    """Return a name for each column of streams that lie side by side."""
    return [f'{stream.name}.{axis}' for stream in streams for axis in stream.axes]


def _watched(frames: FrameSequence, statistics: PixelStatistics) -> Iterator[np.ndarray]:
    """Pass images on, and count the pixels of some of them."""
    looked_at = sampled(len(frames))
    for index in range(len(frames)):
        image = frames[index]
        if index in looked_at:
            statistics.add(image)
        yield image


def _write_rows(path: Path, columns: Mapping[str, np.ndarray]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({
        name: pa.array(values) if values.ndim == 1 else
        pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        for name, values in columns.items()}), path)


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

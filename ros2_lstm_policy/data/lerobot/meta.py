"""The tables that describe a LeRobot dataset, of v2.1 and v3.0, as one list of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from ros2_lstm_policy.data.problems import reading, refuse

INFO = Path('meta') / 'info.json'
SIDECAR = Path('meta') / 'ros2_lstm_policy.json'
VERSIONS = ('v2.1', 'v3.0')


@dataclass(frozen=True)
class VideoPart:
    """Where an episode lies in a video file."""

    path: Path
    begin_s: float


@dataclass(frozen=True)
class EpisodeLine:
    """One episode of a dataset: where its rows and its videos are."""

    number: int
    length: int
    data: Path
    videos: Mapping[str, VideoPart]


@dataclass(frozen=True)
class LeRobotMeta:
    """
    What a dataset says about itself.

    :param features: name to its entry in info.json.
    :param tasks: number to words.
    :param ours: what `convert` wrote beside it, by episode number; empty for others' datasets.
    """

    root: Path
    version: str
    fps: float
    features: Mapping[str, Any]
    tasks: Mapping[int, str]
    episodes: tuple[EpisodeLine, ...]
    ours: Mapping[int, Mapping[str, Any]]


def read_meta(root: Path) -> LeRobotMeta:
    """Read the tables of a dataset; :raises RecordingError: where they are missing or damaged."""
    root = Path(root)
    with reading(root / INFO):
        info = json.loads((root / INFO).read_text())
        version, fps, features = info['codebase_version'], float(info['fps']), info['features']
    if version not in VERSIONS:
        raise refuse('no-dataset', root / INFO, '',
                     f'LeRobot {version} is not supported; known: {", ".join(VERSIONS)}')
    read = _read_v3 if version == 'v3.0' else _read_v2
    tasks, episodes = read(root, info)
    expected = info.get('total_episodes', len(episodes))
    if not episodes or len(episodes) != expected:
        raise refuse('damaged', root / 'meta', '',
                     f'expected {expected} episodes, the tables list {len(episodes)}')
    sidecar = root / SIDECAR
    ours = {}
    if sidecar.exists():
        with reading(sidecar):
            ours = {int(key): value for key, value in json.loads(sidecar.read_text()).items()}
    return LeRobotMeta(root, version, fps, features, tasks, tuple(episodes), ours)


def _videos_of(info: Mapping[str, Any]) -> list[str]:
    return [key for key, feature in info['features'].items() if feature['dtype'] == 'video']


def _read_v2(root: Path, info: Mapping[str, Any]) -> tuple[dict[int, str], list[EpisodeLine]]:
    def lines(name: str) -> list[dict[str, Any]]:
        with reading(root / 'meta' / name):
            text = (root / 'meta' / name).read_text()
            return [json.loads(line) for line in text.splitlines() if line.strip()]

    with reading(root / INFO):
        tasks = {line['task_index']: line['task'] for line in lines('tasks.jsonl')}
        episodes = []
        for line in lines('episodes.jsonl'):
            number = line['episode_index']
            place = {'episode_chunk': number // info['chunks_size'], 'episode_index': number}
            videos = {key: VideoPart(root / info['video_path'].format(video_key=key, **place), 0.0)
                      for key in _videos_of(info)}
            episodes.append(EpisodeLine(number, line['length'],
                                        root / info['data_path'].format(**place), videos))
    return tasks, episodes


def _read_v3(root: Path, info: Mapping[str, Any]) -> tuple[dict[int, str], list[EpisodeLine]]:
    import pyarrow.parquet as pq
    path = root / 'meta' / 'tasks.parquet'
    with reading(path):
        table = pq.read_table(path)
        words = next(name for name in table.column_names if name != 'task_index')
        tasks = dict(zip(table['task_index'].to_pylist(), table[words].to_pylist()))
    episodes: list[EpisodeLine] = []
    folder = root / 'meta' / 'episodes'
    files = sorted(folder.glob('*/*.parquet'))
    if not files:
        raise refuse('damaged', folder, '', 'no table of episodes')
    for file in files:
        with reading(file):
            names = [name for name in pq.read_schema(file).names if not name.startswith('stats/')]
            rows = pq.read_table(file, columns=names).to_pylist()
            episodes += [_line_v3(root, info, row) for row in rows]
    return tasks, sorted(episodes, key=lambda line: line.number)


def _line_v3(root: Path, info: Mapping[str, Any], row: Mapping[str, Any]) -> EpisodeLine:
    videos = {}
    for key in _videos_of(info):
        path = info['video_path'].format(video_key=key,
                                         chunk_index=row[f'videos/{key}/chunk_index'],
                                         file_index=row[f'videos/{key}/file_index'])
        videos[key] = VideoPart(root / path, float(row[f'videos/{key}/from_timestamp']))
    data = info['data_path'].format(chunk_index=row['data/chunk_index'],
                                    file_index=row['data/file_index'])
    return EpisodeLine(row['episode_index'], row['length'], root / data, videos)

"""The tables that describe a LeRobot dataset, of v2.1 and v3.0, as one list of episodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ros2_lstm_policy.data.problems import reading, RecordingError, refuse
from ros2_lstm_policy.data.promises import check_promises, Promise
from ros2_lstm_policy.data.values import parse_object, shown, Values

INFO = Path('meta') / 'info.json'
SIDECAR = Path('meta') / 'ros2_lstm_policy.json'
VERSIONS = ('v2.1', 'v3.0')


@dataclass(frozen=True)
class VideoPart:
    """
    Where an episode lies in a video file.

    :param begin_s: time of its first frame.
    :param end_s: time at which its last frame ends; None where the file ends with it.
    """

    path: Path
    begin_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True)
class EpisodeLine:
    """
    One episode of a dataset: where its rows and its videos are.

    :param words: the tasks that the table of episodes names.
    """

    number: int
    length: int
    data: Path
    videos: Mapping[str, VideoPart]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class BrokenLine:
    """An episode whose line in the table cannot be read; `number` counts lines."""

    number: int
    error: RecordingError


@dataclass(frozen=True)
class LeRobotMeta:
    """
    What a dataset says about itself.

    :param features: name to its entry in info.json.
    :param tasks: number to words, as they stand there.
    :param tasks_file: where they stand.
    :param ours: what `convert` wrote beside it, by episode number; empty for others' datasets.
    :param total_frames: rows of all episodes, if info.json says it.
    """

    root: Path
    version: str
    fps: float
    features: Mapping[str, Any]
    tasks: Mapping[int, Any]
    tasks_file: Path
    episodes: tuple[EpisodeLine, ...]
    ours: Mapping[int, Mapping[str, Any]]
    broken: tuple[BrokenLine, ...] = ()
    total_frames: int | None = None


@dataclass
class _Tables:
    """What the tables hold while they are read."""

    tasks: dict[int, Any] = field(default_factory=dict)
    episodes: list[EpisodeLine] = field(default_factory=list)
    broken: list[BrokenLine] = field(default_factory=list)

    def add_task(self, values: Values, text: Any) -> None:
        """Add the words of a task; :raises RecordingError: for a second line that differs."""
        number = values.whole('task_index')
        if number in self.tasks and self.tasks[number] != text:
            raise values.wrong('task_index', 'one line for each task', f'{number}: '
                               f'{shown(self.tasks[number])} and {shown(text)}')
        self.tasks[number] = text

    def add_episodes(self, lines: Iterable[tuple[int, Values | RecordingError]],
                     read: Callable[[Values], EpisodeLine]) -> None:
        """Add every line that can be read, and keep the error of every other one."""
        for number, values in lines:
            try:
                if isinstance(values, RecordingError):
                    raise values
                self.episodes.append(read(values))
            except RecordingError as error:
                self.broken.append(BrokenLine(number, error))


def read_meta(root: Path) -> LeRobotMeta:
    """Read the tables of a dataset; :raises RecordingError: where they are missing or damaged."""
    root = Path(root)
    with reading(root / INFO):
        text = (root / INFO).read_text()
    info = parse_object(text, root / INFO)
    version = info.text('codebase_version')
    if version not in VERSIONS:
        raise refuse('no-dataset', root / INFO, '',
                     f'LeRobot {version} is not supported; known: {", ".join(VERSIONS)}')
    fps, features = info.number('fps'), info.mapping('features')
    if fps <= 0:
        raise info.wrong('fps', 'a number above 0', fps)
    for name in features:
        Values(info.mapping('features'), root / INFO, 'features').mapping(name)
    tables, tasks_file = (_read_v3 if version == 'v3.0' else _read_v2)(root, info)
    _check_counts(root, info, tables)
    total = info.whole('total_frames') if 'total_frames' in info.content else None
    return LeRobotMeta(root, version, fps, features, tables.tasks, tasks_file,
                       tuple(tables.episodes), _read_sidecar(root / SIDECAR),
                       tuple(tables.broken), total)


def _check_counts(root: Path, info: Values, tables: _Tables) -> None:
    found = len(tables.episodes) + len(tables.broken)
    if not found:
        raise refuse('damaged', root / 'meta', '', 'the tables list no episode')
    if 'total_episodes' in info.content:
        check_promises([Promise('episodes', '', info.whole('total_episodes'), found, str(INFO))],
                       root, '', 'the tables in meta/ list the episodes')
    repeated = {number for number, count in Counter(
        line.number for line in tables.episodes).items() if count > 1}
    for line in tables.episodes:
        if line.number in repeated:
            tables.broken.append(BrokenLine(line.number, refuse(
                'damaged', root / 'meta', '', f'episode {line.number} is listed twice')))
    tables.episodes = [line for line in tables.episodes if line.number not in repeated]


def _read_sidecar(path: Path) -> dict[int, Mapping[str, Any]]:
    if not path.exists():
        return {}
    with reading(path):
        text = path.read_text()
        values = parse_object(text, path)
        return {int(key): values.mapping(key) for key in values.content}


def videos_of(features: Mapping[str, Any]) -> list[str]:
    """Return the features that are kept as video."""
    return [key for key, feature in features.items() if feature.get('dtype') == 'video']


def _path(info: Values, key: str, **place: Any) -> Path:
    """Fill in a file name's pattern from info.json."""
    with reading(info.where):
        return Path(info.text(key).format(**place))


def _read_v2(root: Path, info: Values) -> tuple[_Tables, Path]:
    tables, path = _Tables(), root / 'meta' / 'tasks.jsonl'
    for _, line in _json_lines(path):
        if isinstance(line, RecordingError):
            raise line
        tables.add_task(line, line.content.get('task'))
    chunk = info.whole('chunks_size', 1)
    videos = videos_of(info.mapping('features'))

    def read(line: Values) -> EpisodeLine:
        number = line.whole('episode_index')
        place = {'episode_chunk': number // chunk, 'episode_index': number}
        parts = {key: VideoPart(root / _path(info, 'video_path', video_key=key, **place))
                 for key in videos}
        return EpisodeLine(number, line.whole('length'), root / _path(info, 'data_path', **place),
                           parts, _words(line))

    tables.add_episodes(_json_lines(root / 'meta' / 'episodes.jsonl'), read)
    return tables, path


def _json_lines(path: Path) -> list[tuple[int, Values | RecordingError]]:
    """Return every line of a file with its number: its values, or what is wrong with it."""
    with reading(path):
        lines = path.read_text().splitlines()
    found: list[tuple[int, Values | RecordingError]] = []
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                found.append((number, parse_object(text, path, f'line {number}')))
            except RecordingError as error:
                found.append((number, error))
    return found


def _words(line: Values) -> tuple[str, ...]:
    tasks = line.content.get('tasks')
    return tuple(text for text in tasks if isinstance(text, str)) \
        if isinstance(tasks, list) else ()


def _read_v3(root: Path, info: Values) -> tuple[_Tables, Path]:
    import pyarrow.parquet as pq
    tables, path = _Tables(), root / 'meta' / 'tasks.parquet'
    with reading(path):
        rows = pq.read_table(path).to_pylist()
    for number, row in enumerate(rows):
        words = [key for key in row if key != 'task_index']
        if len(words) != 1:
            raise refuse('damaged', path, '', 'expected the columns task_index and one of words, '
                         f'found {", ".join(row)}')
        tables.add_task(Values(row, path, f'row {number}'), row[words[0]])
    folder = root / 'meta' / 'episodes'
    files = sorted(folder.glob('*/*.parquet'))
    if not files:
        raise refuse('damaged', folder, '', 'no table of episodes')
    videos = videos_of(info.mapping('features'))
    for file in files:
        with reading(file):
            names = [name for name in pq.read_schema(file).names if not name.startswith('stats/')]
            rows = pq.read_table(file, columns=names).to_pylist()
        tables.add_episodes([(number, Values(row, file, f'row {number}'))
                             for number, row in enumerate(rows)],
                            lambda row: _line_v3(root, info, videos, row))
    tables.episodes.sort(key=lambda line: line.number)
    return tables, path


def _line_v3(root: Path, info: Values, keys: list[str], row: Values) -> EpisodeLine:
    videos = {}
    for key in keys:
        path = _path(info, 'video_path', video_key=key,
                     chunk_index=row.whole(f'videos/{key}/chunk_index'),
                     file_index=row.whole(f'videos/{key}/file_index'))
        videos[key] = VideoPart(root / path, row.number(f'videos/{key}/from_timestamp'),
                                row.number(f'videos/{key}/to_timestamp'))
    data = _path(info, 'data_path', chunk_index=row.whole('data/chunk_index'),
                 file_index=row.whole('data/file_index'))
    return EpisodeLine(row.whole('episode_index'), row.whole('length'), root / data, videos,
                       _words(row))

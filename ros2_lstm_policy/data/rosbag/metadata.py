"""What `metadata.yaml` says of a bag; only what reading it needs, of any version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.data.problems import RecordingError, refuse
from ros2_lstm_policy.data.rosbag.storage import bag_name

FILE_NAME = 'metadata.yaml'


@dataclass(frozen=True)
class Metadata:
    """
    The promises of a `metadata.yaml`.

    :param files: names of the storage files in the bag's folder.
    :param counts: (topic, message type) to its number of messages.
    :param total: number of all messages; None where it is not said.
    :param seconds: time from the first message to the last; None where it is not said.
    """

    files: tuple[str, ...]
    counts: Mapping[tuple[str, str], int]
    total: int | None
    seconds: float | None


def read_metadata(folder: Path) -> Metadata:
    """Read the file of a bag's folder; :raises RecordingError: where it is damaged."""
    path = folder / FILE_NAME
    try:
        values = parse_yaml(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise _damaged(folder, f'cannot be read ({" ".join(str(error).split())})') from error
    information = _item(values, 'rosbag2_bagfile_information', dict, folder)
    paths = _item(information, 'relative_file_paths', list, folder)
    if not all(isinstance(name, str) for name in paths):
        raise _damaged(folder, f'relative_file_paths: expected names, found {paths}')
    duration = information.get('duration')
    nanoseconds = duration.get('nanoseconds') if isinstance(duration, dict) else None
    total = information.get('message_count')
    return Metadata(
        # Early versions told the bag's folder as well; all files lie in it.
        tuple(dict.fromkeys(PurePosixPath(name).name for name in paths)),
        _counts(information.get('topics_with_message_count') or [], folder),
        total if isinstance(total, int) else None,
        nanoseconds / 1e9 if isinstance(nanoseconds, (int, float)) else None)


def _counts(topics: Any, folder: Path) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for topic in topics if isinstance(topics, list) else ():
        described = _item(topic, 'topic_metadata', dict, folder)
        key = (_item(described, 'name', str, folder), _item(described, 'type', str, folder))
        counts[key] = counts.get(key, 0) + _item(topic, 'message_count', int, folder)
    return counts


def _item(values: Any, key: str, kind: type, folder: Path) -> Any:
    value = values.get(key) if isinstance(values, dict) else None
    if not isinstance(value, kind):
        raise _damaged(folder, f'{key}: expected {kind.__name__}, found {value!r:.80}')
    return value


def _damaged(folder: Path, found: str) -> RecordingError:
    return refuse('damaged', folder, bag_name(folder), f'{FILE_NAME}: {found}; '
                  f'`ros2 bag reindex {folder}` writes it anew')

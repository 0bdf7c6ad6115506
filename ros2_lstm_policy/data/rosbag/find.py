"""Finds the bags at or under a path; a folder that may be one is never passed over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ros2_lstm_policy.data.folders import walk
from ros2_lstm_policy.data.problems import reading, RecordingError
from ros2_lstm_policy.data.rosbag.metadata import FILE_NAME
from ros2_lstm_policy.data.rosbag.storage import is_storage, OpenFiles
from ros2_lstm_policy.data.rosbag.stored import StoredTopic
from ros2_lstm_policy.data.rosbag.writer import INCOMPLETE, PARTIAL

_PAUSE_NS = 1_000_000_000
_OVERLAP_NS = 5_000_000_000


def find_bags(root: Path) -> list[Path]:
    """
    Return the bags at or under a path: folders, or storage files that are one by themselves.

    A folder has a metadata.yaml, or several files that may belong together: reading it says so.
    Folders that are linked are entered. What a recorder left under `partial/` or `incomplete/` is
    no bag.
    """
    root = Path(root)
    if root.is_file():
        return [root] if is_storage(root) else []
    found: list[Path] = []
    for folder, folders, files in walk(root):
        folders[:] = sorted(set(folders) - {PARTIAL, INCOMPLETE})
        if FILE_NAME in files:
            found.append(folder)
        else:
            found += _without_metadata(folder, [
                folder / file for file in files if is_storage(folder / file)])
    return sorted(found)


def _without_metadata(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return the files that are recordings of their own; the folder where that is in doubt."""
    if len(files) > 1 and _may_be_one(files):
        return [folder]
    return list(files)


class _Part(NamedTuple):
    begin_ns: int
    end_ns: int
    topics: frozenset[StoredTopic]


def _may_be_one(files: Sequence[Path]) -> bool:
    """
    Return whether a file goes on where another one ends, or has the topics that it lacks.

    Recordings of their own lie apart in time, or are of the same topics at the same (simulated)
    time. A file that cannot be read is told when it is.
    """
    parts = sorted(part for path in files if (part := _part(path)) is not None)
    for number, part in enumerate(parts):
        for other in parts[number + 1:]:
            gap_ns = other.begin_ns - part.end_ns
            if -_OVERLAP_NS < gap_ns < _PAUSE_NS and other.end_ns > part.end_ns:
                return True
            if gap_ns <= 0 and other.topics != part.topics:
                return True
    return False


def _part(path: Path) -> _Part | None:
    try:
        with reading(path), OpenFiles() as files:
            file = files.file(path)
            span = file.span()
            topics = file.promised() or {}
    except RecordingError:
        return None
    return None if span is None else _Part(*span, frozenset(topics))

"""
All messages of one bag, over all of its files, held against what the bag promises.

Files are opened by their names in `metadata.yaml`; what is in them is taken from them alone,
so that a stale count, an edited QoS profile or another version of the metadata changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ros2_lstm_policy.data.problems import Problem, reading, refuse
from ros2_lstm_policy.data.promises import check_promises, Promise
from ros2_lstm_policy.data.rosbag.metadata import FILE_NAME, Metadata, read_metadata
from ros2_lstm_policy.data.rosbag.storage import bag_name, is_storage, OpenFiles
from ros2_lstm_policy.data.rosbag.stored import StoredMessage, StoredTopic

_SPAN_TOLERANCE_S = 0.1


@dataclass(frozen=True)
class Bag:
    """
    The files of one bag.

    :param metadata: what its `metadata.yaml` says; None where there is none.
    """

    path: Path
    files: tuple[Path, ...]
    metadata: Metadata | None


def locate(path: Path) -> Bag:
    """
    Return the files of a bag.

    :param path: a folder, or one storage file.
    :raises RecordingError: where files are missing, or lie there that may not belong to it.
    """
    folder = path if path.is_dir() else path.parent
    metadata = read_metadata(folder) if (folder / FILE_NAME).exists() else None
    if not path.is_dir():
        if metadata is None or path.name not in metadata.files:
            return Bag(path, (path,), None)
        if len(metadata.files) > 1:
            raise refuse('counts', path, bag_name(path), f'it is one of {len(metadata.files)} '
                         f'files of a bag; name its folder, {folder}')
        return Bag(path, (path,), metadata)
    there = {file.name: file for file in sorted(folder.iterdir()) if is_storage(file)}
    if metadata is None:
        if len(there) != 1:
            raise refuse('counts', path, bag_name(path), f'has no {FILE_NAME}, and {len(there)} '
                         f'files that may be parts of one bag ({", ".join(there)}); '
                         f'`ros2 bag reindex {path}` makes them one; recordings of their own '
                         'belong in folders of their own')
        return Bag(path, tuple(there.values()), None)
    _compare_files(path, metadata, there)
    return Bag(path, tuple(there[name] for name in metadata.files), metadata)


def _compare_files(path: Path, metadata: Metadata, there: dict[str, Path]) -> None:
    lost = [name for name in metadata.files if name not in there]
    extra = [name for name in there if name not in metadata.files]
    if not lost and not extra and metadata.files:
        return
    found = []
    if not metadata.files:
        found.append('names no file')
    if lost:
        found.append(f'names {", ".join(lost)}, which is not there')
    if extra:
        found.append(f'does not name {", ".join(extra)}')
    raise refuse('counts', path, bag_name(path), f'{FILE_NAME} {" and ".join(found)}: if what '
                 f'lies there is this bag, `ros2 bag reindex {path}` writes it anew; files of '
                 'another recording belong in a folder of their own')


class Contents:
    """
    One pass over the messages of a bag, counted on the way.

    :param counts: messages of each topic, complete when the pass is.
    :param begin_ns: log time of the first message; likewise.
    """

    def __init__(self, bag: Bag, files: OpenFiles) -> None:
        """Read nothing yet."""
        self.counts: Counter[StoredTopic] = Counter()
        self._bag, self._files = bag, files
        self.begin_ns, self._end_ns = 2**63, -1
        self._promises: list[Promise] = []

    def messages(self) -> Iterator[StoredMessage]:
        """Read every message: file after file, each in its own order, which is none of time."""
        for path in self._bag.files:
            counts: Counter[StoredTopic] = Counter()
            with reading(path, bag_name(self._bag.path)):
                file = self._files.file(path)
                for message in file.messages():
                    counts[message.topic] += 1
                    self.begin_ns = min(self.begin_ns, message.log_ns)
                    self._end_ns = max(self._end_ns, message.log_ns)
                    yield message
                promised = file.promised() or {}
            self.counts += counts
            self._promises += [
                Promise('messages', topic.name, number, counts[topic], path.name,
                        more_is_fine=True) for topic, number in promised.items()]

    def check(self) -> list[Problem]:
        """
        Compare what came with what the files and the metadata promise.

        :return: what is only said wrongly.
        :raises RecordingError: where messages are missing.
        """
        path, name = self._bag.path, bag_name(self._bag.path)
        notes = check_promises(self._promises, path, name,
                               'copy it again from where it was recorded')
        if self._bag.metadata is None:
            return notes + _unnamed(self._bag)
        remedy = f'if no file is missing, `ros2 bag reindex {path}` writes it anew'
        notes += check_promises(self._promised_by(self._bag.metadata), path, name, remedy)
        span = self._span(self._bag.metadata)
        if span is not None and not span.is_kept:
            notes.append(Problem('counts', path, name, f'{span}: {remedy}', fatal=False))
        return notes

    def _promised_by(self, metadata: Metadata) -> list[Promise]:
        came: Counter[tuple[str, str]] = Counter()
        for topic, count in self.counts.items():
            came[topic.name, topic.msgtype] += count
        promises = [Promise('messages', topic, number, came[topic, msgtype], FILE_NAME,
                            more_is_fine=True)
                    for (topic, msgtype), number in metadata.counts.items()]
        if metadata.total is not None:
            promises.append(Promise('messages', '', metadata.total, came.total(), FILE_NAME,
                                    more_is_fine=True))
        return promises

    def _span(self, metadata: Metadata) -> Promise | None:
        """Return the span, which a recorder that wrote a part of what it got tells too long."""
        if metadata.seconds is None or self._end_ns < 0:
            return None
        return Promise('seconds', '', metadata.seconds, (self._end_ns - self.begin_ns) / 1e9,
                       FILE_NAME, _SPAN_TOLERANCE_S)


def _unnamed(bag: Bag) -> list[Problem]:
    """Say that a file that lies as `ros2 bag record` makes it has lost its metadata."""
    folder = bag.files[0].parent
    if not bag_name(bag.files[0]).startswith(folder.name):
        return []
    return [Problem('counts', bag.path, bag_name(bag.path), f'there is no {FILE_NAME} to compare '
                    'it with, as where a recorder was killed; the file itself was read to its '
                    f'end; `ros2 bag reindex {folder}` writes one', fatal=False)]

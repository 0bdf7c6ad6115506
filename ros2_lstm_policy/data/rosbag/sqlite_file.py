"""
The older storage of rosbag2: one sqlite3 database a file.

What a killed recorder left in a write-ahead log (`-wal`) is a part of the database and is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
import sqlite3
from urllib.parse import quote

from ros2_lstm_policy.data.problems import refuse
from ros2_lstm_policy.data.rosbag.stored import Place, Span, StoredMessage, StoredTopic

MAGIC = b'SQLite format 3\0'
_LOGS = ('-wal', '-journal')


class SqliteFile:
    """A `stored.StorageFile` of the format sqlite3."""

    def __init__(self, path: Path, shown: Path) -> None:
        """
        Open a database.

        :param shown: the file that messages name; another one where it is unpacked.
        :raises RecordingError: where it is none, or its log cannot be read.
        """
        self._shown = shown
        self._database = _connect(path, shown)
        try:
            rows = self._database.execute('SELECT id, name, type, serialization_format '
                                          'FROM topics').fetchall()
        except sqlite3.Error as error:
            raise refuse('damaged', shown, shown.stem, f'cannot be read ({error})') from error
        self._topics = {number: StoredTopic(*map(str, row)) for number, *row in rows}

    def promised(self) -> Mapping[StoredTopic, int] | None:
        """Return None: a database says no more of itself than its rows."""
        return None

    def span(self) -> Span | None:
        """Return the span of its rows."""
        begin, end = self._database.execute(
            'SELECT min(timestamp), max(timestamp) FROM messages').fetchone()
        return None if begin is None else Span(begin, end)

    def messages(self) -> Iterator[StoredMessage]:
        """Read every message, in the order of their rows."""
        for row, topic, log_ns, data in self._database.execute(
                'SELECT id, topic_id, timestamp, data FROM messages ORDER BY id'):
            if topic not in self._topics:
                raise refuse('damaged', self._shown, self._shown.stem, f'row {row} is of topic '
                             f'{topic}, which nothing describes')
            yield StoredMessage(self._topics[topic], log_ns, Place(self._shown, -1, row), data)

    def read(self, place: Place) -> bytes:
        """Read one message again."""
        data, = self._database.execute('SELECT data FROM messages WHERE id = ?',
                                       (place.at,)).fetchone()
        return data


def _connect(path: Path, shown: Path) -> sqlite3.Connection:
    """Open for reading, with the log that lies beside it where there is one."""
    logs = [log for suffix in _LOGS
            if (log := path.with_name(path.name + suffix)).exists() and log.stat().st_size]
    # An immutable database takes no lock and writes no index of a log, but does not read one.
    how = 'mode=ro' if logs else 'mode=ro&immutable=1'
    try:
        database = sqlite3.connect(f'file:{quote(str(path))}?{how}', uri=True,
                                   check_same_thread=False)
        database.execute('SELECT count(*) FROM sqlite_master').fetchone()
    except sqlite3.Error as error:
        left = '' if not logs else (
            f'; a part of it is in {logs[0].name}: both must be whole and lie in a folder that '
            f"can be written; `sqlite3 {path.name} 'PRAGMA wal_checkpoint'` joins them")
        raise refuse('damaged', shown, shown.stem, f'cannot be read ({error}){left}') from error
    return database

"""
A bag that is written on a thread of its own, from serialised messages, in bounded memory.

Whoever receives messages only appends to a queue. When the disk fills up the thread stops in time
to complete the bag.
"""

from __future__ import annotations

from collections import Counter, deque
import contextlib
from pathlib import Path
import shutil
import threading
from typing import NamedTuple

from ros2_lstm_policy.data.rosbag.writer import BagFile

_LOOK_AT_DISK_EVERY = 32 * 2**20


class Message(NamedTuple):
    """One serialised message."""

    topic: str
    log_ns: int
    cdr: bytes


class BackgroundBag:
    """
    One bag and the thread that writes it.

    `problem` is None while all is well; then it says why nothing more is taken.
    """

    def __init__(self, path: Path, queue_bytes: int, min_free_bytes: int) -> None:
        """
        Begin a bag.

        :param queue_bytes: memory for messages that wait for the disk.
        :param min_free_bytes: stop when the disk has less than this.
        :raises OSError: where the folder cannot be written, or the disk is full already.
        """
        free = _free_bytes(path.parent)
        if free < min_free_bytes:
            raise OSError(f'{path.parent}: only {free / 1e6:.0f} MB are free, at least '
                          f'{min_free_bytes / 1e6:.0f} MB are needed')
        self.problem: str | None = None
        self.written: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._file = BagFile(path)
        self._queue_bytes, self._min_free_bytes = queue_bytes, min_free_bytes
        self._queue: deque[Message] = deque()
        self._waiting_bytes = self._since_look = 0
        self._is_ending = self._has_failed = False
        self._changed, self._file_lock = threading.Condition(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name='bag writer', daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """Return where the bag will be."""
        return self._file.path

    @property
    def waiting_bytes(self) -> int:
        """Return the memory that waits for the disk."""
        return self._waiting_bytes

    def add_topic(self, topic: str, msgtype: str, latched: bool = False) -> None:
        """Declare a topic; a disk that refuses it is a problem, as for messages."""
        try:
            with self._file_lock:
                self._file.add_topic(topic, msgtype, latched)
        except OSError as error:
            self._fail(error)

    def serialise(self, msgtype: str, **fields: object) -> bytes:
        """Serialise one message given by its fields."""
        return bytes(self._file.serialise(msgtype, **fields))

    def put(self, message: Message, always: bool = False) -> None:
        """
        Append a message of a declared topic; count it as dropped where it finds no place.

        :param always: for the last words of a bag, such as its label: never dropped.
        """
        with self._changed:
            size = len(message.cdr)
            is_full = self.problem or self._waiting_bytes + size > self._queue_bytes
            if is_full and not always:
                self.dropped[message.topic] += 1
                return
            self._queue.append(message)
            self._waiting_bytes += size
            self._changed.notify()

    def close(self) -> Path:
        """Write what waits and complete the bag; :raises OSError: where that failed."""
        self._join()
        if self._has_failed:
            self._file.abort()
            raise OSError(self.problem)
        try:
            return self._file.close()
        except Exception as error:  # what the bag's library raises is its own
            self._file.abort()
            raise OSError(f'{self.path}: the bag cannot be completed: {error}') from error

    def discard(self) -> None:
        """Delete the bag."""
        with self._changed:
            self._queue.clear()
        self._join()
        self._file.discard()

    def _join(self) -> None:
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._is_ending:
                    self._changed.wait()
                if not self._queue:
                    return
                message = self._queue.popleft()
                self._waiting_bytes -= len(message.cdr)
            self._write(message)

    def _write(self, message: Message) -> None:
        if self._has_failed:
            self.dropped[message.topic] += 1
            return
        try:
            with self._file_lock:
                self._file.write(*message)
        except Exception as error:  # the thread's edge: else nobody would hear of it
            self._fail(error)
            return
        self.written[message.topic] += 1
        self._since_look += len(message.cdr)
        if self._since_look >= _LOOK_AT_DISK_EVERY:
            self._since_look = 0
            self._look_at_disk()

    def _fail(self, error: Exception) -> None:
        self._has_failed = True
        self.problem = f'{self.path}: the bag cannot be written: {error}'

    def _look_at_disk(self) -> None:
        try:
            free = _free_bytes(self.path.parent)
        except OSError as error:
            self.problem = f'{self.path.parent}: the disk is gone: {error}'
            return
        if free < self._min_free_bytes + self._waiting_bytes:
            self.problem = (f'{self.path.parent}: only {free / 1e6:.0f} MB are free; the bag ends '
                            'here so that it stays whole')


def _free_bytes(folder: Path) -> int:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free

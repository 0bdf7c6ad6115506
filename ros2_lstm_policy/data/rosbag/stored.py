"""What every storage file of a bag gives: topics, messages and their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

CDR = 'cdr'


class StoredTopic(NamedTuple):
    """
    A topic of a bag: its name and what its messages are.

    The QoS that its publishers offered is no part of it: files of one bag may tell it differently.
    """

    name: str
    msgtype: str
    encoding: str = CDR


class Place(NamedTuple):
    """
    Where a message lies: what to read it again by, whatever else is in the bag.

    :param chunk: where its chunk begins in the file; -1 for a message outside of any.
    :param at: where it begins in the chunk or in the file; in sqlite3 its row.
    """

    file: Path
    chunk: int
    at: int


class StoredMessage(NamedTuple):
    """One message as it lies in a file, of any topic."""

    topic: StoredTopic
    log_ns: int
    place: Place
    data: bytes | memoryview


class Span(NamedTuple):
    """Log times of the first and of the last message."""

    begin_ns: int
    end_ns: int


class StorageFile(Protocol):
    """One MCAP or sqlite3 file, opened for reading."""

    def promised(self) -> Mapping[StoredTopic, int] | None:
        """Return how many messages the file says it has by topic; None where it says nothing."""

    def span(self) -> Span | None:
        """Return the span that the file says, without reading its messages; None for unknown."""

    def messages(self) -> Iterator[StoredMessage]:
        """Read every message, in the order of the file."""

    def read(self, place: Place) -> bytes | memoryview:
        """Read one message again."""

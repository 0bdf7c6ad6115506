"""
What a recording says is in it, held against what was found there: one check for all formats.

A table of episodes, a bag's metadata and a video's span all promise a number. Where another one
is found, something is lost or shifted, and images no longer belong to their actions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ros2_lstm_policy.data.problems import Problem, refuse

_NAMED = 3


class Promise(NamedTuple):
    """
    One number that a recording says about itself, and the one that was found.

    :param kind: what is counted, in the plural: 'messages', 'files', 'frames', 'rows', 'seconds'.
    :param name: of what: a topic, a file, a camera; empty for the whole recording.
    :param promised: the number that the recording says; NaN is never kept.
    :param came: the number that was found; likewise.
    :param said_by: what says so: 'metadata.yaml', 'meta/episodes.jsonl'.
    :param tolerance: difference that is none, in the unit of the numbers.
    :param more_is_fine: whether more than promised is a note instead of an error: where the
        number counts what was written down late, never where position decides what belongs
        together.
    """

    kind: str
    name: str
    promised: float
    came: float
    said_by: str
    tolerance: float = 0.0
    more_is_fine: bool = False

    @property
    def is_kept(self) -> bool:
        """Return whether as much came as was promised."""
        return abs(self.came - self.promised) <= self.tolerance

    def __str__(self) -> str:
        """Say what was promised and what came."""
        of = f' of {self.name}' if self.name else ''
        return (f'{self.said_by} promises {self.promised:.12g} {self.kind}{of}, found '
                f'{self.came:.12g}')


def check_promises(promises: Iterable[Promise], where: Path, episode: str,
                   remedy: str = '') -> list[Problem]:
    """
    Compare every promise with what came.

    :param where: the file or folder that is meant.
    :param episode: the episode; empty where all of them are meant.
    :param remedy: what to do about it, for the message; it must be true of all of them.
    :return: one note of the numbers that are only larger, where that is fine.
    :raises RecordingError: rule `counts`, where a promise is broken.
    """
    broken = [promise for promise in promises if not promise.is_kept]
    notes = [p for p in broken if p.more_is_fine and p.came > p.promised]
    fatal = [p for p in broken if not (p.more_is_fine and p.came > p.promised)]
    if fatal:
        raise refuse('counts', where, episode, _told(fatal, remedy))
    return [Problem('counts', where, episode, _told(notes, remedy), fatal=False)] if notes else []


def _told(broken: list[Promise], remedy: str) -> str:
    more = f'; and {len(broken) - _NAMED} more' if len(broken) > _NAMED else ''
    text = '; '.join(str(promise) for promise in broken[:_NAMED]) + more
    return f'{text}: {remedy}' if remedy else text

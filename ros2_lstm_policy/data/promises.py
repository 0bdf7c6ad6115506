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
    :return: a note for each number that is only larger, where that is fine.
    :raises RecordingError: rule `counts`, where a promise is broken.
    """
    broken = [promise for promise in promises if not promise.is_kept]
    notes = [p for p in broken if p.more_is_fine and p.came > p.promised]
    fatal = [p for p in broken if p not in notes]
    if fatal:
        more = f'; and {len(fatal) - _NAMED} more' if len(fatal) > _NAMED else ''
        raise refuse('counts', where, episode,
                     '; '.join(str(p) for p in fatal[:_NAMED]) + more + _after(remedy))
    return [Problem('counts', where, episode, f'{note}{_after(remedy)}', fatal=False)
            for note in notes]


def _after(remedy: str) -> str:
    return f': {remedy}' if remedy else ''

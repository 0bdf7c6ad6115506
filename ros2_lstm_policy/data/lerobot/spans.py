"""
Whether the spans of a v3.0 dataset's episodes in their video files can be right.

Many episodes share one video file. One span that is too short or begins late shifts images against
actions without any error, so spans are held against the episodes' lengths and their neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ros2_lstm_policy.data.lerobot.meta import EpisodeLine, VideoPart
from ros2_lstm_policy.data.lerobot.video import TOLERANCE_S
from ros2_lstm_policy.data.promises import Promise

_Span = tuple[VideoPart, EpisodeLine]


def length_promises(line: EpisodeLine, fps: float) -> list[Promise]:
    """Return what the table promises of an episode's spans: as many frames as rows."""
    return [Promise('frames', key, line.length, (part.end_s - part.begin_s) * fps,
                    'the length in meta/episodes', TOLERANCE_S * fps)
            for key, part in line.videos.items() if part.end_s is not None]


def misplaced(lines: Sequence[EpisodeLine], keys: Sequence[str]) -> Mapping[int, str]:
    """
    Find the episodes whose span overlaps another's, or leaves frames out before it.

    Frames that belong to no episode are left by an episode that was deleted; where none is
    missing, one of the two spans is wrong.

    :param keys: the videos that are read.
    :return: the episode's number to what is wrong.
    """
    files: dict[tuple[str, Path], list[_Span]] = defaultdict(list)
    for line in lines:
        for key in keys:
            if key in line.videos:
                files[key, line.videos[key].path].append((line.videos[key], line))
    numbers = {line.number for line in lines}
    found: dict[int, str] = {}
    for (key, _), spans in files.items():
        spans.sort(key=lambda span: (span[0].begin_s, span[1].number))
        _compare(key, spans, numbers, found)
    return found


def _compare(key: str, spans: Sequence[_Span], numbers: set[int], found: dict[int, str]) -> None:
    """Hold each span of a file against the furthest end before it."""
    end_s, before = 0.0, None
    for part, line in spans:
        if part.begin_s < end_s - TOLERANCE_S and before is not None:
            for one, other in ((line, before), (before, line)):
                found.setdefault(one.number, f'{key}: its span in the video overlaps that of '
                                 f'episode {other.number} ({part.begin_s:g} s is before '
                                 f'{end_s:g} s)')
        elif part.begin_s > end_s + TOLERANCE_S and _follows(line, before, numbers):
            found.setdefault(line.number, f'{key}: its span in the video begins at '
                             f'{part.begin_s:g} s, what is before it ends at {end_s:g} s')
        if part.end_s is not None and part.end_s > end_s:
            end_s, before = part.end_s, line


def _follows(line: EpisodeLine, before: EpisodeLine | None, numbers: set[int]) -> bool:
    """Return whether no episode is missing between two that follow each other in a file."""
    if before is None:
        return line.number == 0 or line.number - 1 in numbers
    return line.number == before.number + 1

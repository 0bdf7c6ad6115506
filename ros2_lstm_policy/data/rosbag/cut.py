"""
Cuts a bag into its episodes, by what it says or by what the user says of it.

Without a word from the user an episode ends where the instruction changes, as on the robot. A
recording of a whole session may hold several episodes of one instruction and the way home
between them: whether it does is not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ros2_lstm_policy.data.problems import RecordingError, refuse
from ros2_lstm_policy.data.rosbag.format import BagLayout, EpisodeCut
from ros2_lstm_policy.data.rosbag.index import ArmMessage, BagIndex, matches
from ros2_lstm_policy.data.rosbag.storage import bag_name

_NS = 1_000_000_000
_LAST = 2**63
_REPUBLISHED_NS = 1_500_000_000  # words that come again sooner are a publisher's way to say them
_STARTS = frozenset({'start', 'begin', 'record', 'start_episode', 'episode_start', 'new_episode'})
_STOPS = frozenset({'stop', 'end', 'stop_episode', 'episode_stop', 'episode_end'})


@dataclass(frozen=True)
class Segment:
    """
    The part of a bag that is one episode.

    :param arm: its actions, in the order of the bag.
    :param success: the label that was given in this part; None where nobody said.
    """

    name: str
    instruction: str
    arm: tuple[ArmMessage, ...]
    success: bool | None


class Part(NamedTuple):
    """
    Log times from which on and before which messages belong to an episode.

    :param label_end_ns: where its label may still come; a person says it after the last action.
    :param success: its label, where the cut itself says it.
    """

    begin_ns: int
    end_ns: int
    label_end_ns: int
    success: bool | None = None


def segments(index: BagIndex, layout: BagLayout) -> list[Segment]:
    """
    Cut a bag into its episodes.

    :raises RecordingError: where there is no instruction, or what the cut goes by is not there or
        contradicts itself, or nobody said how to cut a bag that may hold several.
    """
    name = index.info.name if index.info else bag_name(index.path)
    cut = layout.episodes
    if layout.instruction is None and not index.instructions:
        raise refuse('no-instruction', index.path, name, 'the instruction topic is silent; say '
                     'the words with bag.instruction')
    parts = _PARTS[cut.by or 'instruction'](index, layout)
    if cut.by is None and index.info is None:
        for part in parts:
            _refuse_doubt(index, part, cut, name)
    found = []
    for number, part in enumerate(parts, 1):
        words = _words(index, layout, part, name)
        if words.strip():
            found.append(Segment(
                name if len(parts) == 1 else f'{name}#{number}', words,
                tuple(a for a in index.arm if part.begin_ns <= a.log_ns < part.end_ns),
                part.success if part.success is not None else _label(index, part)))
    # The next task may be said before the recording ends; where nothing was done is no episode.
    return [segment for segment in found if segment.arm] or found[:1]


def _words(index: BagIndex, layout: BagLayout, part: Part, name: str) -> str:
    """Return the words of a part: those said in it, or else the last ones before it."""
    if layout.instruction is not None:
        return layout.instruction
    inside = [(log_ns, words) for log_ns, words in index.instructions
              if part.begin_ns <= log_ns < part.end_ns]
    for (_, first), (log_ns, words) in pairwise(inside):
        if words != first:
            raise refuse('several-tasks', index.path, name, f'the instruction changes inside of '
                         f'an episode, from {first!r} to {words!r}; bag.episodes says where '
                         'episodes begin', _seconds(index, log_ns))
    before = [words for log_ns, words in index.instructions if log_ns < part.begin_ns]
    if not inside and not before:
        raise refuse('no-instruction', index.path, name, 'nothing is said before or in the '
                     'episode; say the words with bag.instruction', _seconds(index, part.begin_ns))
    return inside[-1][1] if inside else before[-1]


def _label(index: BagIndex, part: Part) -> bool | None:
    """Return the last label of a part; None where nobody said one."""
    labels = [success for log_ns, success in index.labels
              if part.begin_ns <= log_ns < part.label_end_ns]
    return labels[-1] if labels else None


def _between(begins: Sequence[int]) -> list[Part]:
    """Return parts that begin at these times; the first one has what came before as well."""
    return [Part(begin, end, end) for begin, end in pairwise([-1, *begins[1:], _LAST])]


def _by_instruction(index: BagIndex, layout: BagLayout) -> list[Part]:
    """Return the parts between which the words change; one where they are given."""
    if layout.instruction is not None:
        return _between([-1])
    first, *others = index.instructions
    return _between([first[0], *(log_ns for (_, before), (log_ns, words)
                                 in pairwise([first, *others]) if words != before)])


def _by_message(index: BagIndex, layout: BagLayout) -> list[Part]:
    """Return the parts that each message on the instruction topic begins."""
    if not index.instructions:
        raise refuse('several-episodes', index.path, bag_name(index.path),
                     'bag.episodes.by=message goes by the instruction topic, and bag.instruction '
                     'says not to read it')
    return _between([log_ns for log_ns, _ in index.instructions])


def _by_pause(index: BagIndex, layout: BagLayout) -> list[Part]:
    """Return the parts between which no command came for long; what is said there begins one."""
    begins = [before.log_ns for before, after in pairwise(index.arm)
              if after.log_ns - before.log_ns > layout.episodes.pause_s * _NS]
    firsts = [after.log_ns for before, after in pairwise(index.arm)
              if after.log_ns - before.log_ns > layout.episodes.pause_s * _NS]
    edges = [-1, *(begin + 1 for begin in begins), _LAST]
    return [Part(begin, end, label_end)
            for (begin, end), label_end in zip(pairwise(edges), [*firsts, _LAST])]


def _by_times(index: BagIndex, layout: BagLayout) -> list[Part]:
    """Return the parts that the user gave in seconds since the first message."""
    cut = layout.episodes
    if not cut.times:
        raise refuse('several-episodes', index.path, bag_name(index.path), 'bag.episodes.by=times '
                     "needs 'bag.episodes.times=[[BEGIN, END], ...]' in s since the first message")
    edges = [(index.begin_ns + round(begin * _NS), index.begin_ns + round(end * _NS))
             for begin, end in cut.times]
    nexts = [begin for begin, _ in edges[1:]]
    return [Part(begin, end, label_end) for (begin, end), label_end in zip(edges, [*nexts, _LAST])]


def _by_marker(index: BagIndex, layout: BagLayout) -> list[Part]:
    """Return the parts from a start word to the next stop word on the marker topic."""
    cut, parts = layout.episodes, []
    begin_ns: int | None = None
    for log_ns, text in _markers(index, cut):
        if _says(text, cut.start):
            if begin_ns is not None and cut.stop:
                raise _marker_error(index, log_ns, f'{text!r} comes before the last one was '
                                    f'ended by one of {", ".join(cut.stop)}')
            if begin_ns is not None:
                parts.append(Part(begin_ns, log_ns, log_ns))
            begin_ns = log_ns
        elif _says(text, cut.discard):
            begin_ns = None
        elif _says(text, cut.stop):
            if begin_ns is None:
                raise _marker_error(index, log_ns, f'{text!r} ends an episode that nothing began')
            parts.append(Part(begin_ns, log_ns, log_ns, _outcome(text, cut)))
            begin_ns = None
        else:
            raise _marker_error(index, log_ns, f'{text!r} is none of the words of '
                                'bag.episodes.start, stop and discard')
    if begin_ns is not None and cut.stop:
        raise _marker_error(index, begin_ns, 'the last episode is never ended: its recording was '
                            'cut short')
    if begin_ns is not None:
        parts.append(Part(begin_ns, _LAST, _LAST))
    if not parts:
        raise _marker_error(index, index.begin_ns, 'no episode is begun and ended')
    return parts


def _markers(index: BagIndex, cut: EpisodeCut) -> Sequence[tuple[int, str]]:
    found = [topic for topic in index.texts if matches(topic, cut.marker)]
    if len(found) != 1:
        there = ', '.join(index.texts) or 'none'
        raise refuse('missing-topic', index.path, bag_name(index.path),
                     f'{len(found)} topics of std_msgs/msg/String with messages fit to '
                     f'{cut.marker!r}; topics of this type: {there}; name one with '
                     'bag.episodes.marker')
    return index.texts[found[0]]


def _says(text: str, words: Sequence[str]) -> bool:
    """Return whether a text is one of these, or begins with one as a word."""
    said = text.strip().lower()
    return any(said == word.lower() or said.startswith(word.lower() + ' ') for word in words)


def _outcome(text: str, cut: EpisodeCut) -> bool | None:
    words = text.lower().split()
    said = {outcome for outcome, names in ((True, cut.success), (False, cut.failure))
            if any(name.lower() in words for name in names)}
    return said.pop() if len(said) == 1 else None


def _marker_error(index: BagIndex, log_ns: int, found: str) -> RecordingError:
    return refuse('several-episodes', index.path, bag_name(index.path),
                  f'marker {found}', _seconds(index, log_ns))


_PARTS = {'instruction': _by_instruction, 'message': _by_message, 'pause': _by_pause,
          'times': _by_times, 'marker': _by_marker}


def _refuse_doubt(index: BagIndex, part: Part, cut: EpisodeCut, name: str) -> None:
    """Refuse a part that may hold several episodes, and say how to cut it."""
    found, ways = [], []
    words = [log_ns for log_ns, _ in index.instructions
             if part.begin_ns <= log_ns < part.end_ns]
    again = [b for a, b in pairwise(words) if b - a > _REPUBLISHED_NS]
    if again:
        found.append(f'its instruction is said {len(again) + 1} times')
        ways.append('message (each of them begins one)')
    arm = [a.log_ns for a in index.arm if part.begin_ns <= a.log_ns < part.end_ns]
    pauses = [(b - a) / _NS for a, b in pairwise(arm) if b - a > cut.pause_s * _NS]
    if pauses:
        found.append(f'no command comes for {max(pauses):.1f} s')
        ways.append('pause (longer than bag.episodes.pause_s)')
    for topic, texts in index.texts.items():
        said = _marked(texts, part, arm, cut)
        if said:
            found.append(f'{topic} says {said}')
            ways.append(f'marker bag.episodes.marker={topic}')
    if found:
        raise refuse('several-episodes', index.path, name, f'it may hold several episodes: '
                     f'{", ".join(found)}; say how to cut it: bag.episodes.by='
                     f'{", or ".join([*ways, "times"])}; or =instruction where it is one')


def _marked(texts: Sequence[tuple[int, str]], part: Part, arm: Sequence[int],
            cut: EpisodeCut) -> str:
    """Return what the words of a topic say against one episode; empty for nothing."""
    inside = [(log_ns, text) for log_ns, text in texts
              if part.begin_ns <= log_ns < part.end_ns and text.split()]
    firsts = [(log_ns, text.lower().split()[0]) for log_ns, text in inside]
    starts = [text for (log_ns, text), (_, first) in zip(inside, firsts)
              if first in _STARTS and arm and log_ns <= arm[-1]]
    if len(starts) > 1:
        return f'{starts[0]!r} {len(starts)} times'
    stops = [log_ns for log_ns, first in firsts if first in _STOPS]
    if stops and arm and arm[-1] - stops[0] > cut.pause_s * _NS:
        return f'that it ended {(arm[-1] - stops[0]) / _NS:.1f} s before the last command'
    return ''


def _seconds(index: BagIndex, log_ns: int) -> float:
    return (log_ns - index.begin_ns) / _NS

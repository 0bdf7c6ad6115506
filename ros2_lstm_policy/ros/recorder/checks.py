"""
What a recording promises, held against what came of each topic; counting alone, no ROS.

A stream is measured by its header stamps, because training pairs by them and a simulator that
waits leaves no hole in them; one without stamps by the times of sending. Times are in ns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

# A 'stream' is a state that the policy is told of; other states need not be there.
Role = Literal['camera', 'stream', 'arm', 'gripper', 'state']
_SEEN = ('camera', 'stream')

_NS = 1_000_000_000
_INTERVALS = 20_000  # of each stream, the newest: ten minutes at 30 Hz
_SLOW, _SLOW_SHARE = 3.0, 0.2  # frames this much rarer than usual, for this part of the time
_MOST_LOST = 0.01  # of a camera's frames
_PERIOD_TOLERANCE = 0.2  # as training's rule `period`
_ENOUGH = 10  # messages from which a rate is told
_WALL_S, _WALL_SPREAD_S, _SIMULATED_SPREAD_S = 10.0, 1.0, 10.0


class Tally:
    """Counts and times of one topic's messages, of which none is kept."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = self.unstamped = self.backward = 0
        self.repeats_of_sequence = 0
        self.first_ns = self.last_ns = self.first_sent_ns = 0
        self.gap_ns = self.gap_at_ns = 0
        self.offset_ns: int | None = None
        self.newest: tuple[int, int, int | None, int] = (0, 0, None, 0)
        self._sequence = 0
        self._intervals: deque[int] = deque(maxlen=_INTERVALS)

    def add(self, sent_ns: int, received_ns: int, stamp_ns: int | None, sequence: int) -> None:
        """
        Count one message.

        :param stamp_ns: of its header; None for a message without one.
        :param sequence: its publisher's count of messages; 0 where the middleware has none.
        """
        self.newest = (sent_ns, received_ns, stamp_ns, sequence)
        time_ns = stamp_ns or sent_ns
        if stamp_ns is not None:
            self.unstamped += stamp_ns == 0
            offset_ns = received_ns - stamp_ns
            self.offset_ns = (offset_ns if self.offset_ns is None
                              else min(self.offset_ns, offset_ns))
        if self.count:
            self._follow(time_ns - self.last_ns)
        else:
            self.first_ns, self.first_sent_ns = time_ns, sent_ns
        # One publisher counts up; one that begins again does it once, two do it all the time.
        self.repeats_of_sequence += 0 < sequence <= self._sequence
        self._sequence = sequence
        self.count, self.last_ns = self.count + 1, time_ns

    def of_newest(self) -> Tally:
        """Return what the newest message alone says."""
        tally = Tally()
        tally.add(*self.newest)
        return tally

    def _follow(self, interval_ns: int) -> None:
        self.backward += interval_ns < 0
        self._intervals.append(interval_ns)
        if interval_ns > self.gap_ns:
            self.gap_ns, self.gap_at_ns = interval_ns, self.last_ns

    @property
    def is_of_wall_time(self) -> bool:
        """Return whether its times run with the wall clock; simulated ones do not."""
        return self.offset_ns is None or abs(self.offset_ns) < _WALL_S * _NS

    def interval_s(self) -> float:
        """Return the usual time between two messages."""
        return float(np.median(self._intervals)) / _NS if self._intervals else 0.0

    def slow_share(self) -> float:
        """Return the part of the time in which messages were much rarer than usual."""
        intervals = np.array(self._intervals, np.float64)
        rare = intervals > _SLOW * np.median(intervals)
        return float(intervals[rare].sum() / max(intervals.sum(), 1.0))


class Came(NamedTuple):
    """
    What came of one topic that was promised.

    :param label: what a person calls it: its name and where it is wired to.
    :param lost: messages that the middleware or the queue lost.
    """

    label: str
    role: Role
    tally: Tally
    lost: int = 0


@dataclass(frozen=True)
class Expected:
    """
    What must hold.

    :param camera_gap_s: longest time without a frame.
    :param action_gap_s: longest time without an action.
    :param action_period_s: time between two actions; None where any will do.
    """

    camera_gap_s: float
    action_gap_s: float
    action_period_s: float | None

    def gap_s(self, role: Role) -> float:
        """Return the longest silence of a stream."""
        return self.camera_gap_s if role in _SEEN else self.action_gap_s


def problems(came: Mapping[str, Came], expected: Expected, began_ns: int, now_ns: int,
             is_over: bool) -> list[str]:
    """
    Return what is missing or wrong, one line each.

    :param came: the topics that training needs, by name.
    :param now_ns: wall time, as `began_ns`.
    :param is_over: whether the recording ends here; until then what has not come yet may come.
    """
    found: list[str] = []
    for one in came.values():
        waited_s = (now_ns - began_ns) / _NS
        if one.tally.count:
            found += _of_stream(one, expected, came, now_ns)
        elif is_over or waited_s > expected.gap_s(one.role):
            found.append(f'no message came on {one.label}')
    found += clock_problems(came)
    if is_over:
        found += _of_actions(came, expected)
    return found


def clock_problems(came: Mapping[str, Came]) -> list[str]:
    """Say which streams are not stamped, or by clocks of which one is wrong."""
    stamped = {name: one for name, one in came.items()
               if one.tally.offset_ns is not None and not one.tally.unstamped}
    found = [f'{one.tally.unstamped} messages of {one.label} have the header stamp 0; the driver '
             'must stamp them' for one in came.values() if one.tally.unstamped]
    if len(stamped) < 2:
        return found
    offset_s = {name: (one.tally.offset_ns or 0) / _NS for name, one in stamped.items()}
    low, high = min(offset_s, key=offset_s.__getitem__), max(offset_s, key=offset_s.__getitem__)
    is_simulated = not any(one.tally.is_of_wall_time for one in stamped.values())
    spread_s = _SIMULATED_SPREAD_S if is_simulated else _WALL_SPREAD_S
    if offset_s[high] - offset_s[low] > spread_s:
        found.append(f'{stamped[high].label} is stamped {offset_s[high] - offset_s[low]:.1f} s '
                     f'behind {stamped[low].label}: two clocks; synchronise the machines, and '
                     'use simulated time everywhere or nowhere')
    return found


def _of_stream(one: Came, expected: Expected, came: Mapping[str, Came],
               now_ns: int) -> Iterator[str]:
    tally, limit_s = one.tally, expected.gap_s(one.role)
    if one.role != 'gripper':  # one that says only what changes is complete
        if tally.gap_ns > limit_s * _NS:
            yield (f'{one.label} was silent for {tally.gap_ns / _NS:.1f} s, '
                   f'{(tally.gap_at_ns - tally.first_ns) / _NS:.1f} s after its first message')
        silent_s = (_end_ns(one, came, now_ns) - tally.last_ns) / _NS
        if silent_s > limit_s:
            yield (f'{one.label} ended after {(tally.last_ns - tally.first_ns) / _NS:.1f} s and '
                   f'has been silent for {silent_s:.1f} s')
    if one.role in _SEEN and tally.count >= _ENOUGH and tally.slow_share() > _SLOW_SHARE:
        yield (f'{one.label} came at {1 / max(tally.interval_s(), 1e-9):.1f} Hz, but much more '
               f'slowly for {tally.slow_share():.0%} of the time')
    if one.lost > (_MOST_LOST * tally.count if one.role in _SEEN else 0):
        yield f'{one.lost} messages of {one.label} were lost'
    if tally.backward:
        yield f'{tally.backward} messages of {one.label} are stamped before the one before them'
    if tally.repeats_of_sequence > 1:
        yield f'two publishers are mixed on {one.label}'


def _end_ns(one: Came, came: Mapping[str, Came], now_ns: int) -> int:
    """Return the time, by the stream's own clock, at which it should still be there."""
    if one.tally.is_of_wall_time:
        return now_ns
    return max(other.tally.last_ns for other in came.values()
               if other.tally.count and not other.tally.is_of_wall_time)


def _of_actions(came: Mapping[str, Came], expected: Expected) -> Iterator[str]:
    """Say what is wrong with the actions of a whole episode, where there are any."""
    arm = next((one for one in came.values() if one.role == 'arm' and one.tally.count), None)
    if arm is None:
        return
    for one in came.values():
        late_s = (one.tally.first_ns - arm.tally.first_ns) / _NS
        if one.role in _SEEN and one.tally.count and late_s > expected.camera_gap_s:
            yield f'{one.label} began {late_s:.1f} s after the first action'
        if (one.role == 'gripper' and one.tally.count
                and one.tally.first_sent_ns > arm.tally.first_sent_ns):
            yield (f'{one.label} came after the first action, whose gripper is unknown; command '
                   'the gripper once the recording has begun')
    wanted_s, found_s = expected.action_period_s, arm.tally.interval_s()
    if (wanted_s is not None and arm.tally.count >= _ENOUGH
            and abs(found_s - wanted_s) > _PERIOD_TOLERANCE * wanted_s):
        yield (f'{arm.label} came every {found_s:.3f} s; control_period_s says {wanted_s:g} s')

"""From the index of a bag to the steps of its episodes, through the live sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from ros2_lstm_policy.data.conventions import to_rotation_vectors
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.labels import as_vectors, SOURCES, Stream
from ros2_lstm_policy.data.problems import Problem, refuse
from ros2_lstm_policy.data.rosbag.cut import Segment
from ros2_lstm_policy.data.rosbag.format import BagLayout
from ros2_lstm_policy.data.rosbag.index import ArmMessage, BagIndex, FrameRef, ImageTopic
from ros2_lstm_policy.data.rosbag.storage import bag_name
from ros2_lstm_policy.kinds import ARM_DIM, POSE_AXES
from ros2_lstm_policy.manifest import ActionGroup
from ros2_lstm_policy.resample import Missing, StreamSampler
from ros2_lstm_policy.types import ARM, GRIPPER, Observation, Reason

_NS = 1_000_000_000
SERVO_TIMEOUT_S = 0.1
_GRIPPER_TOLERANCE = 0.02
_CHANGED_PLACES = 2.5  # frame periods that a neighbour may come late
OTHER_STAMP = 'other_stamp'
_OTHER_STAMP = Reason(OTHER_STAMP, 'no frame has the stamp that this action answers')


@dataclass(frozen=True)
class Steps:
    """
    The steps of one episode; T of them.

    :param frames: camera name to T references.
    :param actions: group name to (T, size), as recorded.
    :param states: state name to (T, size).
    :param missing: actions without an observation: (stamp in ns, why).
    """

    stamps_ns: np.ndarray
    frames: dict[str, list[FrameRef]]
    actions: dict[str, np.ndarray]
    states: dict[str, np.ndarray]
    missing: tuple[tuple[int, Reason], ...]


def steps(index: BagIndex, segment: Segment, layout: BagLayout, wanted: Wanted,
          period_s: float | None) -> Steps:
    """
    Pair each action with the observation that the robot had, or say what it lacked.

    :param period_s: control period; needed for velocities, and where the layout says where the
        actions are.
    """
    if layout.actions:
        return _steps_of_time(index, segment, layout, wanted, period_s)
    if layout.arm == 'velocity':
        actions = integrate(segment.arm, period_s, index.path)
    else:
        actions = list(segment.arm)
    _check_stamps(index, segment, actions)
    grippers = [_gripper_open(action, layout, index, segment) for action in actions]
    free = layout.stamps == 'now' or layout.arm == 'velocity'
    kept: list[int] = []
    observations: list[Observation] = []
    missing: list[tuple[int, Reason]] = []
    seen_at = _observe(index, [action.stamp_ns for action in actions], layout)
    for number, (action, seen) in enumerate(zip(actions, seen_at)):
        if isinstance(seen, Missing):
            missing.append((action.stamp_ns, seen.reasons[0]))
        elif not free and seen.stamp_ns != action.stamp_ns:
            missing.append((action.stamp_ns, _OTHER_STAMP))
        else:
            kept.append(number)
            observations.append(seen)
    return Steps(
        np.array([actions[i].stamp_ns for i in kept], np.int64),
        {name: [cast(FrameRef, seen.images[name]) for seen in observations]
         for name in index.cameras},
        {ARM: to_rotation_vectors(
            np.array([actions[i].values for i in kept], np.float32).reshape(-1, ARM_DIM),
            layout.rotation),
         GRIPPER: np.array([grippers[i] for i in kept], np.float32)[:, None]},
        _states(observations, wanted), tuple(missing))


def _steps_of_time(index: BagIndex, segment: Segment, layout: BagLayout, wanted: Wanted,
                   period_s: float | None) -> Steps:
    """Take a step each control period, whenever commands came."""
    if period_s is None:
        raise ValueError(f'{index.path}: bag.actions needs the control period (--period)')
    _check_stamps(index, segment, segment.arm)
    answers = _answer(layout)
    period_ns, ahead_ns = round(period_s * _NS), _ahead_ns(layout, period_s)
    begin_ns, end_ns = segment.arm[0].stamp_ns, segment.arm[-1].stamp_ns
    ticks_ns = (np.array([beat.stamp_ns for beat in segment.arm], np.int64) if answers else
                np.arange(begin_ns, end_ns - ahead_ns + 1, period_ns))
    kept: list[int] = []
    observations: list[Observation] = []
    missing: list[tuple[int, Reason]] = []
    for number, seen in enumerate(_observe(index, ticks_ns.tolist(), layout)):
        if isinstance(seen, Missing):
            missing.append((int(ticks_ns[number]), seen.reasons[0]))
        elif answers and seen.stamp_ns != ticks_ns[number]:
            missing.append((int(ticks_ns[number]), _OTHER_STAMP))
        else:
            kept.append(number)
            observations.append(seen)
    chosen_ns = ticks_ns[np.array(kept, int)]
    return Steps(
        chosen_ns, {name: [cast(FrameRef, seen.images[name]) for seen in observations]
                    for name in index.cameras},
        {group.name: _labels(index, layout, group, chosen_ns, period_ns)
         for group in wanted.actions}, _states(observations, wanted), tuple(missing))


def _ahead_ns(layout: BagLayout, period_s: float) -> int:
    """Return how far behind a step its label may lie."""
    shifts = [action.shift for action in layout.actions.values() if action.state]
    return round(max(shifts, default=0) * period_s * _NS)


def _labels(index: BagIndex, layout: BagLayout, group: ActionGroup, ticks_ns: np.ndarray,
            period_ns: int) -> np.ndarray:
    """Return the actions of a group at each step."""
    said = layout.actions[group.name]
    topic = index.commands[group.name] if said.command else index.states[said.state]
    order = np.argsort(topic.stamps_ns, kind='stable')
    stream = Stream(topic.stamps_ns[order], topic.values[order])
    if said.answers:
        values = _answers(stream, group, ticks_ns, topic.topic, index)
    else:
        find = SOURCES[group.kind].command if said.command else SOURCES[group.kind].state
        values = find(stream, ticks_ns + (said.shift - 1) * period_ns, period_ns)
    if values.shape[1] != group.size:
        raise refuse('state-size', index.path, bag_name(index.path), f'{topic.topic}: expected '
                     f'{group.size} values for {group.name} ({group.kind}), found '
                     f'{values.shape[1]}')
    if group.binary:
        values = values > group.threshold
    return values.astype(np.float32)


def _answer(layout: BagLayout) -> bool:
    """Return whether there is a step for each command, not one each control period."""
    found = {action.answers for action in layout.actions.values()}
    if len(found) > 1:
        raise ValueError('bag.actions: answers: expected the same of all groups')
    return found.pop()


def _answers(stream: Stream, group: ActionGroup, ticks_ns: np.ndarray, topic: str,
             index: BagIndex) -> np.ndarray:
    """Return the commands that have these stamps; :raises RecordingError: where one is missing."""
    places = np.minimum(np.searchsorted(stream.stamps_ns, ticks_ns), len(stream.stamps_ns) - 1)
    bad = np.flatnonzero(stream.stamps_ns[places] != ticks_ns)
    if len(bad):
        raise refuse('counts', index.path, bag_name(index.path), f'{topic}: no command answers '
                     f'the observation of step {bad[0]}, as those of the other groups do')
    values = stream.values[places]
    return as_vectors(values) if group.meaning.axes == POSE_AXES else values


def _states(observations: Sequence[Observation], wanted: Wanted) -> dict[str, np.ndarray]:
    return {state.name: np.array([seen.states[state.name] for seen in observations],
                                 np.float32).reshape(-1, state.size)
            for state in wanted.states}


def _observe(index: BagIndex, stamps_ns: Sequence[int],
             layout: BagLayout) -> Iterator[Observation | Missing]:
    """Sample at each stamp, with every frame pushed that is not newer, in order of stamps."""
    sampler = StreamSampler(tuple(index.cameras), layout.max_image_age_s, layout.max_skew_s,
                            tuple(index.states))
    arrivals = iter(sorted(_arrivals(index), key=lambda item: item[0]))
    waiting = next(arrivals, None)
    for stamp_ns in stamps_ns:
        while waiting is not None and waiting[0] <= stamp_ns:
            _push(sampler, *waiting)
            waiting = next(arrivals, None)
        yield sampler.sample(stamp_ns)


def _arrivals(index: BagIndex) -> Iterator[tuple[int, str, FrameRef | np.ndarray]]:
    """Return what came of each stream: its stamp, the stream, and a frame or values."""
    for camera, topic in index.cameras.items():
        yield from ((frame.stamp_ns, camera, frame) for frame in topic.frames)
    for state, stream in index.states.items():
        yield from zip(stream.stamps_ns.tolist(), [state] * len(stream.values), stream.values)


def _push(sampler: StreamSampler, stamp_ns: int, name: str,
          content: FrameRef | np.ndarray) -> None:
    if not isinstance(content, FrameRef):
        sampler.push_state(name, stamp_ns, content)
    elif content.shape is None:
        sampler.refuse(name, Reason('bad_image', f'{name}: {content.fault}', name))
    else:  # the sampler looks at the shape alone, which a reference has too
        sampler.push(name, stamp_ns, content)  # type: ignore[arg-type]


def integrate(commands: Sequence[ArmMessage], period_s: float | None,
              path: Path) -> list[ArmMessage]:
    """
    Turn velocities into the displacement of each control period.

    A velocity holds until the next command, at most as long as MoveIt Servo would follow it.
    """
    if period_s is None:
        raise ValueError(f'{path}: velocities need the control period (--period)')
    if not commands:
        return []
    period_ns, hold_ns = round(period_s * _NS), round(SERVO_TIMEOUT_S * _NS)
    begins = np.array([c.stamp_ns for c in commands], np.int64)
    ends = np.minimum(np.append(begins[1:], begins[-1] + hold_ns), begins + hold_ns)
    velocities = np.array([c.values for c in commands])
    ticks = np.arange(begins[0], begins[-1] + 1, period_ns)
    result = []
    for tick in ticks:
        overlap_ns = np.minimum(ends, tick + period_ns) - np.maximum(begins, tick)
        displacement = (np.maximum(overlap_ns, 0) / _NS) @ velocities
        newest = commands[int(np.searchsorted(begins, tick, side='right')) - 1]
        result.append(ArmMessage(newest.log_ns, int(tick), tuple(displacement), newest.gripper))
    return result


def _check_stamps(index: BagIndex, segment: Segment, actions: Sequence[ArmMessage]) -> None:
    """Refuse stamps that order nothing: zeros, repeats, and actions that go back in time."""
    streams = {'the actions': [a.stamp_ns for a in actions]}
    streams |= {topic.topic: [f.stamp_ns for f in topic.frames]
                for topic in index.cameras.values()}
    streams |= {stream.topic: stream.stamps_ns.tolist() for stream in index.states.values()}
    for stream, stamps in streams.items():
        values = np.array(stamps, np.int64)
        zeros = np.flatnonzero(values <= 0)
        if len(zeros):
            raise refuse('zero-stamps', index.path, segment.name,
                         f'{stream}: {len(zeros)} of {len(values)} header stamps are zero; the '
                         'driver must stamp its messages')
        repeats = np.flatnonzero(np.diff(np.sort(values)) == 0)
        if len(repeats):
            raise refuse('duplicate-stamps', index.path, segment.name,
                         f'{stream}: {len(repeats)} messages repeat the stamp of another; is the '
                         'topic published twice?',
                         (np.sort(values)[repeats[0]] - values.min()) / _NS)
    for topic in index.cameras.values():
        _refuse_jumps(index, segment, topic)
    stamps_ns = np.array(streams['the actions'], np.int64)
    back = np.flatnonzero(np.diff(stamps_ns) < 0)
    if len(back):
        raise refuse('backward-stamps', index.path, segment.name,
                     f'{len(back)} actions are stamped before the one before them; did the clock '
                     'jump, or do two nodes publish them?',
                     (stamps_ns[back[0]] - stamps_ns[0]) / _NS)


def _refuse_jumps(index: BagIndex, segment: Segment, topic: ImageTopic) -> None:
    """
    Refuse a camera whose clock jumped back: later frames would pass for earlier ones.

    Neighbours that only changed places on their way are put in order by their stamps.
    """
    stamps_ns = np.array([frame.stamp_ns for frame in topic.frames], np.int64)
    if len(stamps_ns) < 3:
        return
    steps_ns = np.diff(stamps_ns)
    back = np.flatnonzero(-steps_ns > _CHANGED_PLACES * np.median(np.abs(steps_ns)))
    if len(back):
        raise refuse('backward-stamps', index.path, segment.name,
                     f'{topic.topic}: an image is stamped {-steps_ns[back[0]] / _NS:.3f} s before '
                     "the one before it; did the camera's clock jump, or do two cameras publish "
                     'on it?', (stamps_ns[back[0]] - stamps_ns[0]) / _NS)


def _gripper_open(action: ArmMessage, layout: BagLayout, index: BagIndex,
                  segment: Segment) -> float:
    width = layout.gripper_open - layout.gripper_closed
    value = action.gripper
    opening = float('nan') if value is None else (value - layout.gripper_closed) / width
    for target in (0.0, 1.0):
        if abs(opening - target) <= _GRIPPER_TOLERANCE:
            return target
    found = 'no gripper command came before it' if value is None else f'the gripper is {value:g}'
    advice = ('set bag.gripper_closed and bag.gripper_open' if index.info is None else
              'its /episode/info says so')
    raise refuse('gripper-values', index.path, segment.name,
                 f'{found}; expected {layout.gripper_closed:g} (closed) or '
                 f'{layout.gripper_open:g} (open): {advice}',
                 (action.stamp_ns - segment.arm[0].stamp_ns) / _NS)


def missing_remarks(found: Steps, path: Path, name: str) -> list[Problem]:
    """Say once for each reason which actions had no observation."""
    by_code: dict[str, list[tuple[int, Reason]]] = {}
    for stamp_ns, reason in found.missing:
        by_code.setdefault(reason.code, []).append((stamp_ns, reason))
    first = min([*found.stamps_ns[:1].tolist(), *(stamp for stamp, _ in found.missing)],
                default=0)
    return [Problem('no-observation', path, name,
                    f'{len(items)} actions have no observation and are left out: '
                    f'{items[0][1].text}',
                    (items[0][0] - first) / _NS, fatal=False)
            for items in by_code.values()]

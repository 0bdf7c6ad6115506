"""From the index of a bag to the steps of its episodes, through the live sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from ros2_lstm_policy.data.problems import Problem, refuse
from ros2_lstm_policy.data.rosbag.cut import Segment
from ros2_lstm_policy.data.rosbag.format import BagLayout
from ros2_lstm_policy.data.rosbag.index import ArmMessage, BagIndex, FrameRef, ImageTopic
from ros2_lstm_policy.resample import Missing, StreamSampler
from ros2_lstm_policy.types import Observation, Reason

_NS = 1_000_000_000
SERVO_TIMEOUT_S = 0.1
_GRIPPER_TOLERANCE = 0.02
_CHANGED_PLACES = 2.5  # frame periods that a neighbour may come late
OTHER_STAMP = 'other_stamp'


@dataclass(frozen=True)
class Steps:
    """
    The steps of one episode; T of them.

    :param frames: camera name to T references.
    :param arm: (T, 6) m and rad.
    :param missing: actions without an observation: (stamp in ns, why).
    """

    stamps_ns: np.ndarray
    frames: dict[str, list[FrameRef]]
    arm: np.ndarray
    gripper_open: np.ndarray
    missing: tuple[tuple[int, Reason], ...]


def steps(index: BagIndex, segment: Segment, layout: BagLayout, period_s: float | None) -> Steps:
    """
    Pair each action with the observation that the robot had, or say what it lacked.

    :param period_s: control period, needed for velocities only.
    """
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
            missing.append((action.stamp_ns, Reason(
                OTHER_STAMP, 'no frame has the stamp that this action answers')))
        else:
            kept.append(number)
            observations.append(seen)
    return Steps(
        np.array([actions[i].stamp_ns for i in kept], np.int64),
        {name: [cast(FrameRef, seen.images[name]) for seen in observations]
         for name in index.cameras},
        np.array([actions[i].values for i in kept], np.float32).reshape(-1, 6),
        np.array([grippers[i] for i in kept], np.float32), tuple(missing))


def _observe(index: BagIndex, stamps_ns: Sequence[int],
             layout: BagLayout) -> Iterator[Observation | Missing]:
    """Sample at each stamp, with every frame pushed that is not newer, in order of stamps."""
    sampler = StreamSampler(tuple(index.cameras), layout.max_image_age_s, layout.max_skew_s)
    frames = iter(sorted((f for topic in index.cameras.values() for f in topic.frames),
                         key=lambda frame: frame.stamp_ns))
    waiting = next(frames, None)
    for stamp_ns in stamps_ns:
        while waiting is not None and waiting.stamp_ns <= stamp_ns:
            if waiting.shape is None:
                sampler.refuse(waiting.camera, Reason(
                    'bad_image', f'{waiting.camera}: {waiting.fault}', waiting.camera))
            else:  # the sampler looks at the shape alone, which a reference has too
                sampler.push(waiting.camera, waiting.stamp_ns, waiting)  # type: ignore[arg-type]
            waiting = next(frames, None)
        yield sampler.sample(stamp_ns)


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

"""Episodes from rosbag2 bags, by the live decoding and the live resampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.body import Streams
from ros2_lstm_policy.data.episodes import Reading, Recording, Wanted
from ros2_lstm_policy.data.problems import Problem, RecordingError, refuse
from ros2_lstm_policy.data.rosbag.cut import Segment, segments
from ros2_lstm_policy.data.rosbag.find import find_bags
from ros2_lstm_policy.data.rosbag.format import BagLayout, EpisodeInfo
from ros2_lstm_policy.data.rosbag.frames import BagFrames
from ros2_lstm_policy.data.rosbag.index import BagIndex, first_info, index_bag
from ros2_lstm_policy.data.rosbag.steps import missing_remarks, OTHER_STAMP, Steps, steps
from ros2_lstm_policy.data.rosbag.storage import bag_name
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from ros2_lstm_policy.streams import StreamConfig
from ros2_lstm_policy.types import Episode, Reason

_NS = 1_000_000_000
_MAX_MISSING = 0.1
_RATE_TOLERANCE = 0.2


@dataclass(frozen=True)
class BagRecording:
    """
    One bag that has not been read yet.

    :param wanted: the streams that its episodes must have.
    :param period_s: the control period; needed where the bag has velocities.
    """

    path: Path
    layout: BagLayout
    wanted: Wanted = Wanted()  # noqa: RUF009 (a frozen value)
    period_s: float | None = None

    @property
    def name(self) -> str:
        """Return the bag's name."""
        return bag_name(self.path)

    @property
    def where(self) -> Path:
        """Return the bag."""
        return self.path

    def read(self) -> tuple[Reading, ...]:
        """Index the bag and sample its steps; :raises RecordingError: see docs/recordings.md."""
        described = self._described(first_info(self.path, self.layout))
        _check_groups(self.path, described, self.wanted)
        index = index_bag(self.path, described, self.wanted)
        layout = described.described_by(index.info)
        period_s = index.info.control_period_s if index.info else self.period_s
        found = segments(index, layout)
        if not found:
            raise refuse('no-instruction', self.path, self.name, 'every instruction is empty')
        first, *others = (_read_segment(index, segment, layout, self.wanted, period_s)
                          for segment in found)
        return replace(first, remarks=(*index.remarks, *first.remarks)), *others

    def _described(self, info: EpisodeInfo | None) -> BagLayout:
        """Return the layout with what the bag says itself, in the order that is wanted."""
        layout = self.layout.described_by(info)
        if info is None or info.body is None:
            return layout
        states = {state.name: self._ordered(state, layout.states[state.name])
                  for state in self.wanted.states
                  if state.name in info.body.streams and state.name not in self.layout.states}
        layout = replace(layout, states={**layout.states, **states})
        if self.layout.actions:
            return layout
        recorded = {group.name: group for group in info.body.actions}
        actions = dict(layout.actions)
        for group in self.wanted.actions:
            found, action = recorded.get(group.name), layout.actions.get(group.name)
            if found is None or action is None or action.command is None:
                continue
            if found.kind != group.kind:
                raise refuse('action-meaning', self.path, self.name, f'{group.name!r} was '
                             f'recorded as {found.kind}; the manifest wants {group.kind}: set '
                             'its kind there')
            actions[group.name] = replace(action, command=self._ordered(
                group, action.command, found.names))
        return replace(layout, actions=actions)

    def _ordered(self, wanted: ActionGroup | StateSpec, stream: StreamConfig,
                 recorded: tuple[str, ...] = ()) -> StreamConfig:
        """Return where a stream comes from, with the wanted names in the wanted order."""
        names = stream.names or recorded
        if not wanted.names or not names or wanted.names == names:
            return stream
        if not stream.names or not set(wanted.names) <= set(names):
            raise refuse('stream-values', self.path, self.name, f'{wanted.name!r} was recorded '
                         f'with the names {", ".join(names)}; the manifest wants '
                         f'{", ".join(wanted.names)}')
        return replace(stream, names=wanted.names)


def read_episodes(root: Path, layout: BagLayout | None = None,
                  wanted: Wanted = Wanted(),  # noqa: B008 (a frozen value)
                  period_s: float | None = None) -> Iterator[Episode]:
    """
    Read every episode of the bags at or under a path, refusing the first broken one.

    :param root: a bag, a single file or a folder of bags.
    :param period_s: the control period; needed where the bags have velocities.
    :raises RecordingError: for a path without bags and for a broken episode.
    """
    for recording in list_bags(root, layout or BagLayout(), wanted, period_s):
        for reading in recording.read():
            yield reading.episode


def list_bags(root: Path, layout: BagLayout, wanted: Wanted,
              period_s: float | None) -> list[Recording]:
    """List the bags at or under a path; :raises RecordingError: where there is none."""
    if layout.actions:
        _check_groups(Path(root), layout, wanted)
    bags = find_bags(root)
    if not bags:
        raise refuse('no-dataset', Path(root), '', 'no rosbag2 bag (metadata.yaml, .mcap, .db3)')
    return [BagRecording(path, layout, wanted, period_s) for path in bags]


def describe_bags(root: Path, layout: BagLayout) -> Wanted | None:
    """
    Return what the first good bag at or under a path says that it holds; None for nothing.

    What is damaged is left to reading, which names it.
    """
    for path in find_bags(root):
        try:
            info = first_info(path, layout)
        except RecordingError:
            continue
        if info is None or info.body is None:
            return None
        return Streams(info.body.actions, info.body.states).wanted(info.body.cameras)
    return None


def _check_groups(where: Path, layout: BagLayout, wanted: Wanted) -> None:
    """Refuse groups of which nothing says where they come from."""
    if not layout.actions:
        wanted.require_one_arm(where, 'a bag of which bag.actions says nothing')
    elif lacking := [group.name for group in wanted.actions if group.name not in layout.actions]:
        raise refuse('action-meaning', where, '', f'bag.actions says nothing of '
                     f'{", ".join(lacking)}; it says where {", ".join(layout.actions)} come from')


def _read_segment(index: BagIndex, segment: Segment, layout: BagLayout, wanted: Wanted,
                  period_s: float | None) -> Reading:
    found = steps(index, segment, layout, wanted, period_s)
    _refuse_gaps(index, segment, found, layout)
    episode = Episode(
        segment.name, segment.instruction, found.stamps_ns,
        {name: BagFrames(index.path, topic, found.frames[name])
         for name, topic in index.cameras.items()},
        found.actions, found.states, segment.success)
    remarks = [*missing_remarks(found, index.path, segment.name),
               *_rate_remarks(index, segment.name),
               *(Problem('recorder', index.path, segment.name, f'its recorder said: {text}',
                         fatal=False) for text in index.problems)]
    return Reading(episode, wanted.actions, wanted.states, tuple(remarks),
                   facts=_facts(index) | _axes(layout, wanted), others=index.others)


def _refuse_gaps(index: BagIndex, segment: Segment, found: Steps, layout: BagLayout) -> None:
    """Refuse an episode whose cameras stopped early, or that lacks too many observations."""
    if not len(found.missing) + len(found.stamps_ns):
        raise refuse('empty', index.path, segment.name, 'no action was recorded')
    begin = min([*found.stamps_ns[:1].tolist(), found.missing[0][0]] if found.missing
                else found.stamps_ns[:1].tolist())
    end = max([*found.stamps_ns[-1:].tolist(), *(stamp for stamp, _ in found.missing[-1:])])
    for topic in index.cameras.values():
        last = max((frame.stamp_ns for frame in topic.frames), default=begin)
        if end - last > layout.max_image_age_s * _NS:
            raise refuse('stream-ends', index.path, segment.name,
                         f'{topic.topic} stops {(end - last) / _NS:.2f} s before the last action',
                         (last - begin) / _NS)
    seen_ns = min(frame.stamp_ns for topic in index.cameras.values()
                  for frame in topic.frames[-1:]) if index.cameras else end
    for stream in index.states.values():
        last = int(stream.stamps_ns.max())
        if seen_ns - last > layout.max_image_age_s * _NS:
            raise refuse('stream-ends', index.path, segment.name, f'{stream.topic} stops '
                         f'{(seen_ns - last) / _NS:.2f} s before the cameras',
                         (last - begin) / _NS)
    # A robot that waits for its first image or instruction holds, and that is no fault.
    inner = [item for item in found.missing
             if not len(found.stamps_ns) or item[0] > found.stamps_ns[0]]
    count = len(inner) + len(found.stamps_ns)
    if len(inner) > _MAX_MISSING * count:
        stamp_ns, reason = inner[0]
        raise refuse('no-observation', index.path, segment.name,
                     f'{len(inner)} of {count} actions have no observation, more than '
                     f'{_MAX_MISSING:.0%}; the first: {reason.text}{_advice(index, reason)}',
                     (stamp_ns - begin) / _NS)


def _advice(index: BagIndex, reason: Reason) -> str:
    """Return what to do about missing observations, where it would help."""
    if reason.code in ('old_image', 'skew'):
        return '; bag.max_image_age_s and bag.max_skew_s are to be what the robot uses'
    if reason.code != OTHER_STAMP:
        return ''
    if index.info is not None:
        return "; its /episode/info says 'stamps: observation'"
    return '; bag.stamps=now is for actions that are stamped when they are sent'


def _rate_remarks(index: BagIndex, name: str) -> list[Problem]:
    """Say where the cameras' rates differ; the sampler takes the newest frame of each."""
    rates = stream_rates(index)
    if len(rates) < 2 or max(rates.values()) <= (1 + _RATE_TOLERANCE) * min(rates.values()):
        return []
    text = ', '.join(f'{camera} {rate:.1f} Hz' for camera, rate in rates.items())
    return [Problem('stream-rates', index.path, name,
                    f'the cameras run at different rates ({text}); each step takes the newest '
                    'frame of each', fatal=False)]


def stream_rates(index: BagIndex) -> dict[str, float]:
    """Return the median rate of each camera in Hz."""
    return {camera: _NS / float(np.median(np.diff(sorted(f.stamp_ns for f in topic.frames))))
            for camera, topic in index.cameras.items() if len(topic.frames) > 1}


def _axes(layout: BagLayout, wanted: Wanted) -> dict[str, str]:
    """Return the axes of displacements that were made of poses: the base's."""
    made = any(group.kind == 'ee_delta' and layout.actions[group.name].state
               for group in wanted.actions if group.name in layout.actions)
    return {'frame': 'base'} if made else {}


def _facts(index: BagIndex) -> dict[str, str]:
    facts = {f'{camera}_hz': f'{rate:.1f}' for camera, rate in stream_rates(index).items()}
    if index.info:
        facts |= {'actor': index.info.actor, 'model': index.info.model or '',
                  'frame': index.info.frame,
                  'control_period_s': f'{index.info.control_period_s:g}'}
    return facts

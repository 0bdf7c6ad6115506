"""Episodes from LeRobot datasets, v2.1 and v3.0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.episodes import BrokenRecording, Reading, Recording, Wanted
from ros2_lstm_policy.data.lerobot.columns import Body, described, find_body, require, state_values
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.lerobot.meta import (EpisodeLine, INFO, LeRobotMeta, read_meta,
                                                SIDECAR, VideoPart)
from ros2_lstm_policy.data.lerobot.rows import ImageCells, Rows
from ros2_lstm_policy.data.lerobot.spans import length_promises, misplaced
from ros2_lstm_policy.data.lerobot.video import FrameTimes, VideoFrames
from ros2_lstm_policy.data.problems import Problem, reading, refuse
from ros2_lstm_policy.data.promises import check_promises, Promise
from ros2_lstm_policy.data.values import as_period, shown, Values
from ros2_lstm_policy.manifest import ActionGroup
from ros2_lstm_policy.types import Episode, FrameSequence

STAMPS = 'stamp_ns'
_COUNTERS = {STAMPS, 'timestamp', 'frame_index', 'episode_index', 'index', 'task_index'}
_GRIPPER_TOLERANCE = 0.02
_OPENING_TOLERANCE = 0.05


def list_lerobot(root: Path, layout: LeRobotLayout, wanted: Wanted) -> list[Recording]:
    """
    List the episodes of a dataset.

    :raises RecordingError: where its tables are damaged, a feature is missing, or its action is
        something else than what is wanted.
    """
    meta = read_meta(root)
    images = [layout.camera(name) for name in wanted.cameras]
    body = find_body(meta, layout, wanted)
    for feature in images:  # whose names are worth setting where the action can be read
        require(meta, feature)
        _require_colour(meta, feature)
    faults = misplaced(meta.episodes, images)
    first = meta.episodes[0].number if meta.episodes else -1
    good = [LeRobotRecording(meta, line, layout, wanted, body, faults.get(line.number, ''),
                             _remarks(meta, body) if line.number == first else ())
            for line in meta.episodes]
    broken = [BrokenRecording(f'{meta.root.name}-line-{line.number}', line.error.problem)
              for line in meta.broken]
    return [*good, *broken]


def describe_lerobot(root: Path) -> Wanted | None:
    """Return what `convert` wrote beside a dataset that it holds; None for others' datasets."""
    meta = read_meta(root)
    streams = described(meta)
    if streams is None:
        return None
    prefix = LeRobotLayout().camera('')
    return streams.wanted(tuple(name.removeprefix(prefix) for name in meta.features
                                if name.startswith(prefix)))


def _require_colour(meta: LeRobotMeta, feature: str) -> None:
    """Refuse a camera that info.json says is no camera, or one of depths."""
    entry = meta.features[feature]
    if entry.get('dtype') not in ('video', 'image'):
        raise refuse('missing-topic', meta.root / INFO, '', f'{feature}: expected images, found '
                     f'dtype {shown(entry.get("dtype"))}')
    details = [entry, *(entry[key] for key in ('info', 'video_info')
                        if isinstance(entry.get(key), Mapping))]
    if any(each.get(key) is True for each in details for key in ('video.is_depth_map',
                                                                 'is_depth_map')):
        raise refuse('missing-topic', meta.root / INFO, '', f'{feature}: expected a colour '
                     'camera, found a depth map; name another with lerobot.cameras.NAME')


def _remarks(meta: LeRobotMeta, body: Body) -> tuple[Problem, ...]:
    """Return the notes about a dataset as a whole, which its first episode carries."""
    notes = [Problem('action-meaning', meta.root / INFO, '', remark, fatal=False)
             for remark in body.remarks]
    rows = sum(line.length for line in meta.episodes)
    if meta.total_frames not in (None, rows) and not meta.broken:
        notes.append(Problem('counts', meta.root / INFO, '', f'total_frames is '
                             f'{meta.total_frames}, the lengths of the episodes add up to {rows}',
                             fatal=False))
    return tuple(notes)


@dataclass(frozen=True)
class LeRobotRecording:
    """
    One episode that has not been read yet.

    :param body: where its actions and states lie.
    :param fault: what is wrong with its place in a video file; empty for nothing.
    :param remarks: notes that it carries.
    """

    meta: LeRobotMeta
    line: EpisodeLine
    layout: LeRobotLayout
    wanted: Wanted
    body: Body
    fault: str = ''
    remarks: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """Return the name that the episode had before it was converted, or its number."""
        ours = self.meta.ours.get(self.line.number, {})
        return str(ours.get('name', f'{self.meta.root.name}-{self.line.number:06d}'))

    @property
    def where(self) -> Path:
        """Return the file of the episode's rows."""
        return self.line.data

    def read(self) -> tuple[Reading, ...]:
        """Read the rows; :raises RecordingError: where they are damaged."""
        rows = self._rows()
        actions = {group.name: self._actions(group, rows) for group in self.wanted.actions}
        states = {name: state_values(columns, rows)
                  for name, columns in self.body.states.items()}
        words = self._words(rows)
        stamps_ns = self._stamps_ns(rows)
        self._check_spans()
        ours = self.meta.ours.get(self.line.number, {})
        episode = Episode(self.name, words, stamps_ns, self._frames(rows), actions, states,
                          self._success(ours))
        return (Reading(episode, self.wanted.actions, self.wanted.states,
                        (*self.remarks, *self._word_remarks(words)), self._facts(ours),
                        self._others()),)

    def _actions(self, group: ActionGroup, rows: Rows) -> np.ndarray:
        """Return the values of a group, (T, size) float32."""
        columns = self.body.groups[group.name]
        if columns.rotation is not None:
            return columns.pose_of(rows)
        if not group.binary:
            return columns.of(rows).astype(np.float32)
        if self.wanted.is_one_arm and not self.layout.actions:
            return self._gripper_open(rows.vectors(columns.feature, columns.width)
                                      [:, columns.places])
        return self._opened(group, columns.of(rows))

    def _others(self) -> tuple[str, ...]:
        """Return the features that an episode has no place for."""
        read = {*self.body.features, *map(self.layout.camera, self.wanted.cameras), *_COUNTERS}
        return tuple(name for name in self.meta.features if name not in read)

    def _rows(self) -> Rows:
        images = [self.layout.camera(camera) for camera in self.wanted.cameras
                  if self.layout.camera(camera) not in self.line.videos]
        rows = Rows.of(self.line.data, self.name, self.line.number, [
            *self.body.features, 'task_index', 'timestamp', *images], (STAMPS, 'index'))
        if len(rows) != self.line.length:
            first = next(iter(self.body.groups.values()))
            raise refuse('lengths', self.line.data, self.name, f'expected {self.line.length} rows '
                         f'of {first.width} values in {first.feature!r}, found {len(rows)}')
        if self.meta.version == 'v2.1':  # a file an episode
            check_promises([Promise('rows', self.line.data.name, self.line.length, rows.in_file,
                                    'meta/episodes.jsonl')], self.line.data, self.name,
                           'the others have another episode_index')
        if STAMPS in rows:  # where not, the rules for every episode look at the order of times
            rows.require_order('timestamp', rows.numbers('timestamp'))
        return rows

    def _words(self, rows: Rows) -> str:
        """Return the words of the one task of all rows."""
        tasks = rows.whole('task_index')
        changes = np.flatnonzero(tasks != tasks[:1])
        if len(changes):
            raise refuse('several-tasks', self.line.data, self.name, 'its task changes; expected '
                         'one instruction an episode', changes[0] / self.meta.fps)
        task = int(tasks[0]) if len(tasks) else -1
        if task not in self.meta.tasks:
            raise refuse('no-instruction', self.line.data, self.name, f'task {task} has no words')
        words = self.meta.tasks[task]
        if not isinstance(words, str):
            raise refuse('no-instruction', self.line.data, self.name, f'row 0: task_index {task}: '
                         f'expected a text in {self.meta.tasks_file}, found {shown(words)}')
        return words

    def _word_remarks(self, words: str) -> list[Problem]:
        """Say where the table of episodes names another task than the rows."""
        if not self.line.words or words in self.line.words or not words.strip():
            return []
        return [Problem('several-tasks', self.line.data, self.name, f'its rows say {words!r}, the '
                        f'table of episodes {", ".join(map(repr, self.line.words))}; the words of '
                        'the rows are taken', fatal=False)]

    def _stamps_ns(self, rows: Rows) -> np.ndarray:
        if STAMPS in rows:
            return rows.whole(STAMPS)
        return np.round(rows.numbers('timestamp') * 1e9).astype(np.int64)

    def _check_spans(self) -> None:
        """Refuse a place in a video file that cannot be right."""
        keys = [self.layout.camera(camera) for camera in self.wanted.cameras]
        check_promises([promise for promise in length_promises(self.line, self.meta.fps)
                        if promise.name in keys], self.line.data, self.name)
        if self.fault:
            raise refuse('counts', self.line.data, self.name, self.fault)

    def _frames(self, rows: Rows) -> Mapping[str, FrameSequence]:
        frames: dict[str, FrameSequence] = {}
        for camera in self.wanted.cameras:
            key = self.layout.camera(camera)
            part = self.line.videos.get(key)
            frames[camera] = (ImageCells(rows, key) if part is None
                              else self._video(key, part, rows.numbers('timestamp')))
        return frames

    def _video(self, key: str, part: VideoPart, times_s: np.ndarray) -> VideoFrames:
        """Find the frame of each row by its time; :raises RecordingError: where it has none."""
        with reading(part.path, self.name):
            times = FrameTimes.of(part.path)
        numbers, apart_s = times.nearest(part.begin_s + times_s)
        bad = np.flatnonzero(apart_s > times.tolerance_s)
        if len(bad):
            row = bad[0]
            raise refuse('no-frame', part.path, self.name,
                         f'row {row} is at {part.begin_s + times_s[row]:.4f} s in {key}, whose '
                         f'nearest frame is {apart_s[row]:.4f} s away; expected one within '
                         f'{times.tolerance_s:g} s, as by the loader of LeRobot',
                         float(times_s[row] - times_s[0]))
        self._refuse_more_frames(key, part, times, numbers)
        return VideoFrames(part.path, self.name, times, numbers, times_s - times_s[:1])

    def _refuse_more_frames(self, key: str, part: VideoPart, times: FrameTimes,
                            numbers: np.ndarray) -> None:
        """
        Refuse a file that goes on behind its last row.

        Nothing says then which of its frames belong to the rows. Frames that are left out before
        or between rows are what their times say: those rows were removed.
        """
        if not len(numbers) or np.any(np.diff(numbers) <= 0) or not self._ends_file(key, part):
            return  # times that order nothing have a rule of their own
        rest_s = (times.pts[-1] - times.pts[numbers[-1]]) * times.tick_s
        if rest_s >= 1 / self.meta.fps - times.tolerance_s:
            more = len(times.pts) - 1 - numbers[-1]
            raise refuse('lengths', part.path, self.name,
                         f'{key}: {more} frames follow that of the last of {len(numbers)} rows; '
                         'expected as many frames as rows')

    def _ends_file(self, key: str, part: VideoPart) -> bool:
        """Return whether no other episode, also none that was deleted, can follow in the file."""
        following = [line for line in self.meta.episodes if line.number > self.line.number]
        if any(line.videos[key].path == part.path for line in following):
            return False
        return part.end_s is None or not following or following[0].number == self.line.number + 1

    def _gripper_open(self, stored: np.ndarray) -> np.ndarray:
        closed, opened = self.layout.gripper_closed, self.layout.gripper_open
        opening = (stored - closed) / (opened - closed)
        # NaN is not within the tolerance, and left to the rule that names it.
        bad = np.flatnonzero((np.abs(opening - np.round(np.clip(opening, 0, 1)))
                              > _GRIPPER_TOLERANCE).any(1))
        if len(bad):
            raise refuse('gripper-values', self.line.data, self.name,
                         f'the gripper is {stored[bad[0], 0]:g}; expected {closed:g} (closed) or '
                         f'{opened:g} (open); set lerobot.gripper_closed and '
                         'lerobot.gripper_open', bad[0] / self.meta.fps)
        return np.round(opening).astype(np.float32)

    def _opened(self, group: ActionGroup, opening: np.ndarray) -> np.ndarray:
        """Return 0 or 1 by the group's threshold; :raises RecordingError: for other units."""
        bad = np.argwhere((opening < -_OPENING_TOLERANCE) | (opening > 1 + _OPENING_TOLERANCE))
        if len(bad):
            step, axis = bad[0]
            key = f'lerobot.actions.{group.name}'
            raise refuse('gripper-values', self.line.data, self.name,
                         f'{group.name} is {opening[step, axis]:g}; expected 0 (closed) to 1 '
                         f'(open); set {key}.offset and {key}.scale', step / self.meta.fps)
        return np.where(np.isnan(opening), np.nan, opening > group.threshold).astype(np.float32)

    def _success(self, ours: Mapping[str, Any]) -> bool | None:
        label = ours.get('success')
        if label is not None and not isinstance(label, bool):
            raise refuse('damaged', self.meta.root / SIDECAR, self.name,
                         f'success: expected true, false or null, found {shown(label)}')
        return label

    def _facts(self, ours: Mapping[str, Any]) -> Mapping[str, str]:
        known = {key: str(value) for key, value in ours.items()
                 if key not in ('name', 'success', 'actions', 'states')}
        said = Values(ours, self.meta.root / SIDECAR, f'episode {self.line.number}')
        if 'control_period_s' in ours and not as_period(ours['control_period_s']):
            raise said.wrong('control_period_s', 'seconds above 0', ours['control_period_s'])
        if ours.get('frame', 'base') not in ('base', 'tool'):
            raise said.wrong('frame', "'base' or 'tool'", ours['frame'])
        return {'control_period_s': f'{1 / self.meta.fps:g}'} | known

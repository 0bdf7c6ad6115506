"""Episodes of any source into LeRobot v3 datasets and into rosbag2 bags."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.body import Streams
from ros2_lstm_policy.data.checks import Limits
from ros2_lstm_policy.data.episodes import Reading
from ros2_lstm_policy.data.lerobot.writer import LeRobotWriter
from ros2_lstm_policy.data.problems import refuse
from ros2_lstm_policy.data.rosbag.format import EpisodeInfo, RecordedAction, RecordedBody
from ros2_lstm_policy.data.rosbag.values import command_stream, state_stream
from ros2_lstm_policy.data.rosbag.writer import EpisodeBagWriter
from ros2_lstm_policy.data.values import as_period
from ros2_lstm_policy.types import ARM, Episode, GRIPPER

_NS = 1_000_000_000
_NOTED = 0.01  # a rate that is further off is said


class ToLeRobot:
    """Writes a dataset whose rate is that of the first episode, in whole frames a second."""

    def __init__(self, output: Path) -> None:
        """Begin; nothing is written before the first episode."""
        self._output = output
        self._writer: LeRobotWriter | None = None
        self._period_s = float('nan')
        self.remarks: list[str] = []  # what is said when all is written

    def append(self, reading: Reading) -> None:
        """Write one episode; :raises RecordingError: for one that does not fit to the others."""
        step_s = period_s(reading, self._output)
        if self._writer is None:
            self._begin(step_s, reading.episode.name)
        if abs(step_s - self._period_s) > Limits().period_tolerance * self._period_s:
            raise refuse('period', self._output, reading.episode.name,
                         f'one step takes {step_s:g} s, those of the first episode '
                         f'{self._period_s:g} s; convert episodes of one rate into one dataset')
        assert self._writer is not None
        self._writer.append(reading)

    def _begin(self, step_s: float, episode: str) -> None:
        fps = max(1, round(1 / step_s))
        apart = abs(1 / fps - step_s) / step_s
        if apart > Limits().period_tolerance:
            raise refuse('period', self._output, episode, f'one step takes {step_s:g} s; LeRobot '
                         f'counts whole frames a second, and {fps} of them are {apart:.0%} off')
        if apart > _NOTED:
            self.remarks.append(f'one step takes {step_s:g} s, {fps} frames a second are '
                                f'{apart:.0%} off; the exact stamps are in the column stamp_ns')
        self._period_s, self._writer = step_s, LeRobotWriter(self._output, fps)

    def close(self) -> None:
        """Complete the dataset; :raises ValueError: where nothing was written."""
        if self._writer is None:
            raise ValueError(f'{self._output}: no good episode to write')
        self._writer.close()

    def discard(self) -> None:
        """Delete what was written."""
        if self._writer is not None:
            self._writer.discard()


def to_bag(reading: Reading, folder: Path, jpeg: bool) -> None:
    """
    Write one episode as a bag of the recorder's format.

    An episode whose first stamp is zero is moved to begin after one control period, since a bag's
    stamps are never zero.

    :raises RecordingError: where it says of itself what no bag may say.
    """
    episode, facts = reading.episode, reading.facts
    step_s = period_s(reading, folder)
    shift_ns = 0 if episode.stamps_ns[0] > 0 else round(step_s * _NS) - int(episode.stamps_ns[0])
    # A dot in front would hide the folder; nothing at all would be none.
    plain = episode.name.replace('/', '-').replace('#', '-').lstrip('.') or 'episode'
    name = _free_name(folder, plain)
    try:
        info = EpisodeInfo(name, _actor(facts.get('actor')),  # type: ignore[arg-type]
                           facts.get('frame', 'base'),  # type: ignore[arg-type]
                           'rotation_vector', step_s, facts.get('model') or None,
                           body=_body(reading))
    except ValueError as error:
        raise refuse('episode-info', folder, episode.name, str(error)) from error
    with EpisodeBagWriter(folder / name, info, episode.instruction,
                          int(episode.stamps_ns[0]) + shift_ns, jpeg=jpeg) as writer:
        _write_steps(writer, episode, episode.stamps_ns + shift_ns, info.body)
        if episode.success is not None:
            writer.label(episode.success)


def _free_name(folder: Path, name: str) -> str:
    """Return the name, with a number where another episode of the output has it already."""
    names = itertools.chain([name], (f'{name}-{number}' for number in itertools.count(2)))
    return next(free for free in names if not (folder / free).exists())


def _body(reading: Reading) -> RecordedBody | None:
    """Return what the bag has to say of an episode; None for deltas and a gripper alone."""
    episode, streams = reading.episode, Streams.of(reading)
    if streams == Streams():
        return None
    return RecordedBody(
        tuple(episode.frames), streams.actions, streams.states,
        {group.name: RecordedAction(command_stream(group), answers=True)
         for group in streams.actions},
        {state.name: state_stream(state, episode.states[state.name])
         for state in streams.states})


def _write_steps(writer: EpisodeBagWriter, episode: Episode, stamps_ns: np.ndarray,
                 body: RecordedBody | None) -> None:
    for step, stamp_ns in enumerate(stamps_ns.tolist()):
        for camera, frames in episode.frames.items():
            writer.write_frame(camera, stamp_ns, frames[step])
        for name, stream in (body.streams if body else {}).items():
            writer.write_values(stream, stamp_ns, episode.states[name][step])
        if body is None or not body.actions:
            writer.write_action(stamp_ns, episode.actions[ARM][step],
                                float(episode.actions[GRIPPER][step, 0]))
            continue
        for name, action in body.sources.items():
            assert action.command is not None
            writer.write_values(action.command, stamp_ns, episode.actions[name][step])


def period_s(reading: Reading, output: Path) -> float:
    """
    Return the control period that a recording says, or that its stamps show.

    :param output: what is written, for the error.
    :raises RecordingError: where neither is so.
    """
    said = as_period(reading.facts.get('control_period_s'))
    if said is not None:
        return said
    steps_ns = np.diff(reading.episode.stamps_ns)
    if not len(steps_ns):
        raise refuse('period', output, reading.episode.name, 'one step alone has no control '
                     'period')
    return float(np.median(steps_ns)) / _NS


def _actor(said: str | None) -> str:
    """Return who acted; demonstrations that do not say were shown by a person."""
    return said if said in ('expert', 'policy', 'operator') else 'operator'

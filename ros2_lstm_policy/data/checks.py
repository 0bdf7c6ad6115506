"""
The rules that every episode has to hold, whatever it was recorded as.

docs/recordings.md lists them with what happens; `dataset validate`, training and `convert` apply
the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.episodes import Reading, Recording
from ros2_lstm_policy.data.problems import Problem, RecordingError, refuse
from ros2_lstm_policy.image_checks import fault_of
from ros2_lstm_policy.manifest import CameraSpec, Manifest
from ros2_lstm_policy.types import Episode

_NS = 1_000_000_000
_OPENING_TOLERANCE = 0.05


@dataclass(frozen=True)
class Limits:
    """
    What a plausible recording holds.

    :param max_step_m: largest |x|, |y|, |z| of one control period.
    :param max_step_rad: largest rotation about one axis of one control period.
    :param period_s: control period of the manifest; None to accept any.
    :param period_tolerance: accepted relative distance of the median step from it.
    :param frame: axes of the deltas that the manifest wants; None to accept any.
    :param failures: whether episodes that are labelled as failures are accepted; those in which a
        policy failed and an expert said what would have been right are worth it.
    """

    max_step_m: float = 0.2
    max_step_rad: float = 1.0
    period_s: float | None = None
    period_tolerance: float = 0.2
    frame: str | None = None
    failures: bool = True

    def for_policy(self, manifest: Manifest) -> Limits:
        """
        Return these limits with the period and the axes that a policy wants.

        :raises ValueError: where these are said here as well.
        """
        if self.period_s is not None or self.frame is not None:
            raise ValueError('limits: period_s and frame are those of the manifest; remove them '
                             'from the limits')
        frames = {group.frame for group in manifest.actions if group.kind == 'ee_delta'}
        return replace(self, period_s=manifest.control_period_s,
                       frame=frames.pop() if len(frames) == 1 else None)

    def largest_step(self, unit: str) -> float:
        """Return the most that a value of a unit may change in one control period."""
        period_s = self.period_s or 1.0
        return {'m': self.max_step_m, 'rad': self.max_step_rad,
                'm/s': self.max_step_m / period_s,
                'rad/s': self.max_step_rad / period_s}.get(unit, float('inf'))


@dataclass(frozen=True)
class _Finding:
    rule: str
    message: str
    step: int | None = None
    fatal: bool = True


def read_checked(recording: Recording, limits: Limits, cameras: Sequence[CameraSpec] = (),
                 ) -> tuple[list[Reading], list[Problem]]:
    """
    Read a recording.

    :param cameras: what a policy takes, where one is meant: smaller images are refused then.
    :return: its good episodes, whose images raise a RecordingError where one of them breaks a
        rule; and every problem that was found.
    """
    good, problems = [], []
    try:
        for reading in recording.read():
            found = check(reading, recording.where, limits)
            problems += found
            if not any(problem.fatal for problem in found):
                good.append(_watched(reading, recording.where, cameras))
    except RecordingError as error:
        problems.append(error.problem)
    return good, problems


def _watched(reading: Reading, where: Path, cameras: Sequence[CameraSpec]) -> Reading:
    episode, specs = reading.episode, {spec.name: spec for spec in cameras}
    frames = {camera: CheckedFrames(episode, camera, where, specs.get(camera))
              for camera in episode.frames}
    return replace(reading, episode=replace(episode, frames=frames))


def check(reading: Reading, where: Path, limits: Limits) -> list[Problem]:
    """
    Return every problem of an episode, with those found while reading; no frame is decoded.

    :param where: its file, for the message.
    """
    episode = reading.episode
    if len(episode) == 0:
        return [*reading.remarks, Problem('empty', where, episode.name, 'the episode has no step')]
    seconds = (episode.stamps_ns - episode.stamps_ns[0]) / _NS
    found = [finding for rule in _RULES if (finding := rule(reading, limits)) is not None]
    found += _frame(reading, limits)
    return [*reading.remarks,
            *(Problem(f.rule, where, episode.name, f.message,
                      None if f.step is None else float(seconds[f.step]), f.fatal)
              for f in found)]


class CheckedFrames:
    """
    A `types.FrameSequence` that refuses the images that a robot refuses.

    Those of a dead sensor, those that are too small for the policy, and a camera whose images
    change their size.
    """

    def __init__(self, episode: Episode, camera: str, where: Path,
                 spec: CameraSpec | None = None) -> None:
        """Watch the images of one camera of an episode."""
        self._spec = spec
        self._episode, self._camera, self._where = episode, camera, where
        self._frames = episode.frames[camera]
        self._shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        """Return T."""
        return len(self._frames)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) image; :raises RecordingError: for one that cannot be used."""
        image = self._frames[index]
        first = self._shape = self._shape or image.shape
        if image.shape != first:
            raise self._refusal('image-size', index, f'the {self._camera} images are now '
                                f'{image.shape[1]}x{image.shape[0]}, and were '
                                f'{first[1]}x{first[0]} before')
        fault = fault_of(self._camera, image, self._spec)
        if fault is not None:
            raise self._refusal(fault.code.replace('_', '-'), index, fault.text)
        return image

    def _refusal(self, rule: str, index: int, text: str) -> RecordingError:
        stamps_ns = self._episode.stamps_ns
        return refuse(rule, self._where, self._episode.name, text,
                      float(stamps_ns[index] - stamps_ns[0]) / _NS)


def _frame(reading: Reading, limits: Limits) -> list[_Finding]:
    found = reading.facts.get('frame', limits.frame)
    if limits.frame is None or found == limits.frame:
        return []
    return [_Finding('frame', f'its deltas are in the axes of {found!r}, the policy wants '
                     f'{limits.frame!r}')]


def _lengths(reading: Reading, limits: Limits) -> _Finding | None:
    episode = reading.episode
    streams: dict[str, Sized] = {**episode.actions, **episode.states, **episode.frames}
    wrong = {name: len(values) for name, values in streams.items() if len(values) != len(episode)}
    if not wrong:
        return None
    text = ', '.join(f'{name} {size}' for name, size in wrong.items())
    return _Finding('lengths', f'expected {len(episode)} of each stream, found {text}')


def _instruction(reading: Reading, limits: Limits) -> _Finding | None:
    if reading.episode.instruction.strip():
        return None
    return _Finding('no-instruction', 'the instruction is empty')


def _numbers(reading: Reading, limits: Limits) -> _Finding | None:
    episode = reading.episode
    for what, streams in (('actions', episode.actions), ('states', episode.states)):
        finite = np.ones(len(episode), bool)
        for values in streams.values():
            finite &= np.isfinite(values).all(1)
        bad = np.flatnonzero(~finite)
        if len(bad):
            return _Finding('nan', f'{len(bad)} {what} hold NaN or infinity; the first is step '
                            f'{bad[0]}', int(bad[0]))
    return None


def _range(reading: Reading, limits: Limits) -> _Finding | None:
    """Refuse a step of one period that no robot does: its units are others, most likely."""
    for group in reading.groups:
        values = reading.episode.actions[group.name].astype(np.float64)
        if group.meaning.is_absolute:
            values = np.diff(values, axis=0)
        limit = np.array([limits.largest_step(unit) for unit in group.units])
        bad = np.argwhere(np.abs(values) > limit)
        if len(bad):
            step, axis = bad[0]
            unit = group.units[axis]
            return _Finding('action-range', f'step {step} moves {group.axes[axis]} by '
                            f'{values[step, axis]:.3g} {unit} in one control period, more than '
                            f'{limit[axis]:g} {unit}; are the units m and rad?', int(step))
    return None


def _gripper(reading: Reading, limits: Limits) -> _Finding | None:
    for group in reading.groups:
        values = reading.episode.actions[group.name]
        if group.binary:
            bad = np.argwhere(~np.isin(values, (0, 1)))
            wanted = 'neither 0 (closed) nor 1 (open)'
        elif group.kind == 'gripper':
            bad = np.argwhere((values < -_OPENING_TOLERANCE) | (values > 1 + _OPENING_TOLERANCE))
            wanted = 'not within 0 (closed) to 1 (open)'
        else:
            continue
        if len(bad):
            step, axis = bad[0]
            return _Finding('gripper-values', f'{len(bad)} gripper values are {wanted}; step '
                            f'{step} is {values[step, axis]:g}', int(step))
    return None


def _stamps(reading: Reading, limits: Limits) -> _Finding | None:
    episode = reading.episode
    steps_ns = np.diff(episode.stamps_ns)
    if (episode.stamps_ns == 0).all() and len(episode) > 1:
        return _Finding('zero-stamps', 'every stamp is zero')
    bad = np.flatnonzero(steps_ns <= 0)
    if not len(bad):
        return None
    rule = 'duplicate-stamps' if steps_ns[bad[0]] == 0 else 'backward-stamps'
    return _Finding(rule, f'{len(bad)} steps do not come after the one before; the first is step '
                    f'{bad[0] + 1}', int(bad[0]))


def _period(reading: Reading, limits: Limits) -> _Finding | None:
    episode = reading.episode
    if limits.period_s is None or len(episode) < 2:
        return None
    period_s = float(np.median(np.diff(episode.stamps_ns))) / _NS
    if abs(period_s - limits.period_s) <= limits.period_tolerance * limits.period_s:
        return None
    return _Finding('period', f'one step takes {period_s:.4f} s, expected {limits.period_s:g} s; '
                    'its displacements are not those of one control period')


def _gaps(reading: Reading, limits: Limits) -> _Finding | None:
    episode = reading.episode
    steps_ns = np.diff(episode.stamps_ns)
    if len(steps_ns) < 2:
        return None
    period_ns = np.median(steps_ns)
    bad = np.flatnonzero(steps_ns > 1.5 * period_ns)
    if not len(bad) or period_ns <= 0:
        return None
    return _Finding('gap', f'{len(bad)} steps lie more than 1.5 periods after the one before, the '
                    f'widest {steps_ns.max() / _NS:.3f} s', int(bad[0]), fatal=False)


def _stillness(reading: Reading, limits: Limits) -> _Finding | None:
    for group in reading.groups:
        values = reading.episode.actions[group.name]
        moves = np.diff(values, axis=0) if group.meaning.is_absolute else values
        if group.kind != 'gripper' and np.any(moves != 0):
            return None
    return _Finding('no-motion', 'no action moves the arm', fatal=False)


def _failure(reading: Reading, limits: Limits) -> _Finding | None:
    if limits.failures or reading.episode.success is not False:
        return None
    return _Finding('failure', 'it is labelled as a failure')


_RULES: tuple[Callable[[Reading, Limits], _Finding | None], ...] = (
    _lengths, _instruction, _numbers, _range, _gripper, _stamps, _period, _gaps, _stillness,
    _failure)

"""
The rules that every episode has to hold, whatever it was recorded as.

docs/recordings.md lists them with what happens; `dataset validate`, training and `convert` apply
the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.episodes import Reading, Recording
from ros2_lstm_policy.data.problems import Problem, RecordingError, refuse
from ros2_lstm_policy.image_checks import fault_of
from ros2_lstm_policy.manifest import ActionManifest, CameraSpec
from ros2_lstm_policy.types import Episode

_NS = 1_000_000_000


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

    def for_policy(self, manifest: ActionManifest) -> Limits:
        """
        Return these limits with the period and the axes that a policy wants.

        :raises ValueError: where these are said here as well.
        """
        if self.period_s is not None or self.frame is not None:
            raise ValueError('limits: period_s and frame are those of the manifest; remove them '
                             'from the limits')
        return replace(self, period_s=manifest.control_period_s, frame=manifest.frame)


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
    found = [finding for rule in _RULES if (finding := rule(episode, limits)) is not None]
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


def _lengths(episode: Episode, limits: Limits) -> _Finding | None:
    sizes = {'arm': len(episode.arm), 'gripper': len(episode.gripper_open)}
    sizes |= {name: len(frames) for name, frames in episode.frames.items()}
    wrong = {name: size for name, size in sizes.items() if size != len(episode)}
    if not wrong:
        return None
    text = ', '.join(f'{name} {size}' for name, size in wrong.items())
    return _Finding('lengths', f'expected {len(episode)} of each stream, found {text}')


def _instruction(episode: Episode, limits: Limits) -> _Finding | None:
    if episode.instruction.strip():
        return None
    return _Finding('no-instruction', 'the instruction is empty')


def _numbers(episode: Episode, limits: Limits) -> _Finding | None:
    bad = np.flatnonzero(~np.isfinite(episode.arm).all(1) | ~np.isfinite(episode.gripper_open))
    if not len(bad):
        return None
    return _Finding('nan', f'{len(bad)} actions hold NaN or infinity; the first is step {bad[0]}',
                    int(bad[0]))


def _range(episode: Episode, limits: Limits) -> _Finding | None:
    limit = np.repeat([limits.max_step_m, limits.max_step_rad], 3)
    bad = np.argwhere(np.abs(episode.arm) > limit)
    if not len(bad):
        return None
    step, axis = bad[0]
    unit = 'm' if axis < 3 else 'rad'
    return _Finding('action-range', f'step {step} moves {"xyzxyz"[axis]} by '
                    f'{episode.arm[step, axis]:.3g} {unit} in one control period, more than '
                    f'{limit[axis]:g} {unit}; are the units m and rad?', int(step))


def _gripper(episode: Episode, limits: Limits) -> _Finding | None:
    bad = np.flatnonzero(~np.isin(episode.gripper_open, (0, 1)))
    if not len(bad):
        return None
    return _Finding('gripper-values', f'{len(bad)} gripper values are neither 0 (closed) nor 1 '
                    f'(open); step {bad[0]} is {episode.gripper_open[bad[0]]:g}', int(bad[0]))


def _stamps(episode: Episode, limits: Limits) -> _Finding | None:
    steps_ns = np.diff(episode.stamps_ns)
    if (episode.stamps_ns == 0).all() and len(episode) > 1:
        return _Finding('zero-stamps', 'every stamp is zero')
    bad = np.flatnonzero(steps_ns <= 0)
    if not len(bad):
        return None
    rule = 'duplicate-stamps' if steps_ns[bad[0]] == 0 else 'backward-stamps'
    return _Finding(rule, f'{len(bad)} steps do not come after the one before; the first is step '
                    f'{bad[0] + 1}', int(bad[0]))


def _period(episode: Episode, limits: Limits) -> _Finding | None:
    if limits.period_s is None or len(episode) < 2:
        return None
    period_s = float(np.median(np.diff(episode.stamps_ns))) / _NS
    if abs(period_s - limits.period_s) <= limits.period_tolerance * limits.period_s:
        return None
    return _Finding('period', f'one step takes {period_s:.4f} s, expected {limits.period_s:g} s; '
                    'its displacements are not those of one control period')


def _gaps(episode: Episode, limits: Limits) -> _Finding | None:
    steps_ns = np.diff(episode.stamps_ns)
    if len(steps_ns) < 2:
        return None
    period_ns = np.median(steps_ns)
    bad = np.flatnonzero(steps_ns > 1.5 * period_ns)
    if not len(bad) or period_ns <= 0:
        return None
    return _Finding('gap', f'{len(bad)} steps lie more than 1.5 periods after the one before, the '
                    f'widest {steps_ns.max() / _NS:.3f} s', int(bad[0]), fatal=False)


def _stillness(episode: Episode, limits: Limits) -> _Finding | None:
    if np.any(episode.arm != 0):
        return None
    return _Finding('no-motion', 'no action moves the arm', fatal=False)


def _failure(episode: Episode, limits: Limits) -> _Finding | None:
    if limits.failures or episode.success is not False:
        return None
    return _Finding('failure', 'it is labelled as a failure')


_RULES: tuple[Callable[[Episode, Limits], _Finding | None], ...] = (
    _lengths, _instruction, _numbers, _range, _gripper, _stamps, _period, _gaps, _stillness,
    _failure)

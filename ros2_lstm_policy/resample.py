"""
Stamped streams of images and states to one observation a tick: the same live and from bags.

Time is given, never read, and nothing is locked: whoever owns a sampler pushes and samples on one
thread. Rules, by header stamp:

- the newest frame of each camera counts, if these lie within `max_skew_s`; else, as a camera may
  be late on its way, the set around the newest moment that every camera has reached;
- of each state the newest value counts that is no later than the newest frame of that set, at most
  `max_skew_s` before it; a set is complete when every state has reached it;
- a frame that arrives after a newer one of its camera is dropped;
- a stamp more than `JUMP_BACK_S` behind the newest, or frames ahead of now by more than
  `max_age_s`, mean that the clock jumped back: everything is forgotten and begins afresh;
- a stamp of zero (a driver that does not stamp) is refused;
- the first frame after :meth:`StreamSampler.reset` fixes a camera's image size; frames of
  another size are refused until the next reset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ros2_lstm_policy.types import Observation, Reason

JUMP_BACK_S = 1.0
KEPT_VALUES = 1024  # of a state at most: those of the last `max_age_s` at 1 kHz and more
KEPT_FRAMES = 32  # of a camera at most; those of the last `max_age_s` are enough for any pairing
_NS = 1_000_000_000


class Frame(NamedTuple):
    """One camera's newest image, (H, W, 3) uint8 RGB."""

    stamp_ns: int
    image: np.ndarray


class Value(NamedTuple):
    """What a state was at one moment, (size,) float64."""

    stamp_ns: int
    values: np.ndarray


@dataclass(frozen=True)
class Missing:
    """Why there is no observation: at least one reason, each about one camera or all."""

    reasons: tuple[Reason, ...]


class StreamSampler:
    """
    The newest frames of a robot's cameras and its states then, put together by stamp.

    :param cameras: the names of the cameras that an observation needs.
    :param states: the names of its states.
    :param max_age_s: how old a frame may be when sampled.
    :param max_skew_s: how far the stamps of one observation may lie apart.
    """

    def __init__(self, cameras: Sequence[str], max_age_s: float, max_skew_s: float,
                 states: Sequence[str] = ()) -> None:
        """Begin with nothing seen."""
        self._values: dict[str, deque[Value]] = {
            state: deque(maxlen=KEPT_VALUES) for state in states}
        self._cameras = tuple(cameras)
        self._max_age_s, self._max_skew_s = max_age_s, max_skew_s
        self._frames: dict[str, Frame] = {}
        self._recent: dict[str, deque[Frame]] = {
            camera: deque(maxlen=KEPT_FRAMES) for camera in self._cameras}
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._refused: dict[str, Reason] = {}

    @property
    def frames(self) -> Mapping[str, Frame]:
        """Return the newest frame of each camera that has one."""
        return self._frames

    def reset(self) -> None:
        """Begin an episode: any image size is accepted again; good newest frames stay."""
        for camera in self._refused:
            self._frames.pop(camera, None)
            if camera in self._values:
                self._values[camera].clear()
        for recent in self._recent.values():
            recent.clear()  # of the episode before; the newest frames are what there is now
        for camera, frame in self._frames.items():
            self._recent[camera].append(frame)
        self._sizes.clear()
        self._refused.clear()

    def flush(self) -> None:
        """Forget every frame and what was fixed by it."""
        self._frames.clear()
        for frames in self._recent.values():
            frames.clear()
        for values in self._values.values():
            values.clear()
        self._sizes.clear()
        self._refused.clear()

    def push_state(self, state: str, stamp_ns: int, values: np.ndarray) -> Reason | None:
        """Take what a state was; answers as :meth:`push`."""
        kept = self._values[state]
        if stamp_ns <= 0:
            return self.refuse(state, Reason('no_stamp', f'{state}: the header stamp is zero; '
                                             'whoever publishes it must stamp it', state))
        if kept and stamp_ns <= kept[-1].stamp_ns:
            if kept[-1].stamp_ns - stamp_ns <= JUMP_BACK_S * _NS:
                return Reason('out_of_order', f'{state}: a value of '
                              f'{_seconds(kept[-1].stamp_ns - stamp_ns)} before the newest', state)
            self.flush()
        self._refused.pop(state, None)
        while kept and stamp_ns - kept[0].stamp_ns > (self._max_age_s + self._max_skew_s) * _NS:
            kept.popleft()
        kept.append(Value(stamp_ns, values))
        return None

    def push(self, camera: str, stamp_ns: int, image: np.ndarray) -> Reason | None:
        """
        Take a frame.

        :return: None, or why the frame was not taken; the same reason answers the next
            :meth:`sample`, unless a good frame comes first (a frame out of order is dropped
            without holding anything up).
        """
        if camera not in self._cameras:
            raise ValueError(f'camera {camera!r} is none of {", ".join(self._cameras)}')
        if stamp_ns <= 0:
            return self.refuse(camera, Reason('no_stamp', f'{camera}: the header stamp is zero; '
                                              'the camera driver must stamp its images', camera))
        newest = self._frames.get(camera)
        if newest is not None and stamp_ns <= newest.stamp_ns:
            if newest.stamp_ns - stamp_ns <= JUMP_BACK_S * _NS:
                return Reason('out_of_order', f'{camera}: a frame of '
                              f'{_seconds(newest.stamp_ns - stamp_ns)} before the newest', camera)
            self.flush()
        size = self._sizes.setdefault(camera, image.shape)
        if image.shape != size:
            return self.refuse(camera, Reason(
                'image_size', f'{camera}: images are now {_size(image.shape)}, and were '
                f'{_size(size)} when the episode began; reset the episode to accept the new size',
                camera))
        self._refused.pop(camera, None)
        self._frames[camera] = Frame(stamp_ns, image)
        self._keep(camera, self._frames[camera])
        return None

    def refuse(self, camera: str, reason: Reason) -> Reason:
        """Say that a camera's newest frame cannot be used; a good frame clears it."""
        self._refused[camera] = reason
        return reason

    def complete_set(self) -> int | None:
        """
        Return the stamp of the newest set of frames that no later frame can improve.

        Its moment is the newest that every camera has reached; of each camera it has the frame
        nearest to that. Frames of one stamp are a set as soon as the last of them has come.

        :return: None while there is no such set within `max_skew_s`.
        """
        matched = self._matched()
        if matched is None or _skew_ns(matched.values()) > self._max_skew_s * _NS:
            return None
        newest_ns = max(frame.stamp_ns for frame in matched.values())
        if any(not kept or kept[-1].stamp_ns < newest_ns for kept in self._values.values()):
            return None
        return newest_ns

    def sample(self, now_ns: int, complete: bool = False) -> Observation | Missing:
        """
        Return the observation of this moment, or every reason why there is none.

        :param complete: take the set of :meth:`complete_set`, not the newest frames.
        """
        ahead = [name for name, stamp_ns in self._newest().items()
                 if stamp_ns - now_ns > self._max_age_s * _NS]
        if ahead:
            reasons = tuple(self._ahead(name, now_ns) for name in ahead)
            self.flush()
            return Missing(reasons)
        reasons = tuple(reason for name in (*self._cameras, *self._values)
                        if (reason := self._unusable(name, now_ns)) is not None)
        if reasons:
            return Missing(reasons)
        chosen: Mapping[str, Frame] = self._frames
        if complete or _skew_ns(chosen.values()) > self._max_skew_s * _NS:
            chosen = self._matched() or chosen
        skew_ns = _skew_ns(chosen.values())
        if skew_ns > self._max_skew_s * _NS:
            return Missing((Reason('skew', f'the frames lie {_seconds(skew_ns)} apart, at most '
                                   f'{self._max_skew_s:.3f} s is allowed (max_skew_s)'),))
        images = {name: chosen[name].image for name in self._cameras}
        moment_ns = max(chosen[name].stamp_ns for name in self._cameras)
        states = {name: self._state_at(name, moment_ns) for name in self._values}
        reasons = tuple(value for value in states.values() if isinstance(value, Reason))
        if reasons:
            return Missing(reasons)
        return Observation(moment_ns, images, states)  # type: ignore[arg-type]

    def _newest(self) -> dict[str, int]:
        """Return the newest stamp of every stream that has one."""
        newest = {name: frame.stamp_ns for name, frame in self._frames.items()}
        return newest | {name: kept[-1].stamp_ns for name, kept in self._values.items() if kept}

    def _state_at(self, state: str, moment_ns: int) -> np.ndarray | Reason:
        """Return the newest value that is no later than a moment, as a bag would have it."""
        kept = self._values[state]
        value = next((value for value in reversed(kept) if value.stamp_ns <= moment_ns), None)
        apart_ns = kept[0].stamp_ns - moment_ns if value is None else moment_ns - value.stamp_ns
        if value is None or apart_ns > self._max_skew_s * _NS:
            where = 'after' if value is None else 'before'
            return Reason('state_skew', f'{state}: its nearest value is {_seconds(apart_ns)} '
                          f'{where} the images, at most {self._max_skew_s:.3f} s before them is '
                          'allowed (max_skew_s)', state)
        return value.values

    def _keep(self, camera: str, frame: Frame) -> None:
        recent = self._recent[camera]
        while recent and frame.stamp_ns - recent[0].stamp_ns > self._max_age_s * _NS:
            recent.popleft()
        recent.append(frame)

    def _matched(self) -> Mapping[str, Frame] | None:
        """Return the frames nearest to the newest moment that every camera has reached."""
        if len(self._frames) < len(self._cameras):
            return None
        moment_ns = min(frame.stamp_ns for frame in self._frames.values())
        return {camera: min(reversed(self._recent[camera]),
                            key=lambda frame: abs(frame.stamp_ns - moment_ns))
                for camera in self._cameras}

    def _unusable(self, camera: str, now_ns: int) -> Reason | None:
        if camera in self._refused:
            return self._refused[camera]
        what = 'state' if camera in self._values else 'image'
        stamp_ns = self._newest().get(camera)
        if stamp_ns is None:
            return Reason(f'no_{what}', f'{camera}: no {what} yet', camera)
        age_ns = now_ns - stamp_ns
        if age_ns > self._max_age_s * _NS:
            return Reason(f'old_{what}', f'{camera}: the newest {what} is {_seconds(age_ns)} old, '
                          f'at most {self._max_age_s:.3f} s is allowed (max_image_age_s)', camera)
        return None

    def _ahead(self, camera: str, now_ns: int) -> Reason:
        ahead_ns = self._newest()[camera] - now_ns
        what, whose = ('state', 'its') if camera in self._values else ('image', "the camera's")
        return Reason('clock', f'{camera}: the newest {what} is {_seconds(ahead_ns)} ahead of '
                      f"now: the clock jumped back, or {whose} clock is not this one's", camera)


def _skew_ns(frames: Iterable[Frame]) -> int:
    stamps = [frame.stamp_ns for frame in frames]
    return max(stamps) - min(stamps)


def _seconds(duration_ns: int) -> str:
    return f'{duration_ns / _NS:.3f} s'


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}x{shape[0]}'

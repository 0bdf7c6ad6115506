"""
Notices a camera that shows one image while the arm moves: a driver or a link that hangs.

Such images have new stamps, so nothing else is wrong with them. One that equals an earlier one
shows nothing new, since every real sensor has noise. It may come while all is at rest (a
simulator, a strong codec); beyond a time in which the arm was told to move, it is doubt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
import threading

import numpy as np

from ros2_lstm_policy.types import Reason

FROZEN = 'frozen_image'  # the reason's code
# What must have been commanded meanwhile, added up: so much is seen by every camera of an arm.
LEAST_M, LEAST_RAD = 0.005, 0.05
_KEPT = 4  # a driver that hangs may go round its buffers, of which there are about so many
_SAMPLE = 48  # pixels between two that are compared first: with noise, nearly all of them differ
_ROWS = 32


@dataclass
class _Seen:
    """
    What one camera shows, and what the arm was told to do since that has changed.

    :ivar images: the last that differ from each other.
    :ivar repeats: how many equalled one of these, since the beginning.
    :ivar is_repeat: whether the newest did.
    """

    images: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=_KEPT))
    repeats: int = 0
    is_repeat: bool = False
    moved_s: float = 0.0
    moved_m: float = 0.0
    moved_rad: float = 0.0

    def begin(self) -> None:
        """Count motion from here."""
        self.moved_s = self.moved_m = self.moved_rad = 0.0


class FrozenCameras:
    """
    Holds what each camera shows against what the arm is told to do.

    Images come on one thread, commands on another.

    :param max_frozen_s: how long the arm may be told to move under one image; 0: for ever.
    """

    def __init__(self, cameras: Sequence[str], max_frozen_s: float) -> None:
        """Begin with nothing seen."""
        self._max_frozen_s = max_frozen_s
        self._seen = {camera: _Seen() for camera in cameras}
        self._lock = threading.Lock()

    def repeats(self, camera: str) -> int:
        """Return how many images of a camera equalled an earlier one."""
        return self._seen[camera].repeats

    def see(self, camera: str, image: np.ndarray) -> None:
        """Take an image of a new stamp; it is kept, and must not change any more."""
        seen = self._seen[camera]
        is_repeat = any(_equal(image, before) for before in seen.images)
        with self._lock:
            seen.is_repeat = is_repeat
            seen.repeats += is_repeat
            if not is_repeat:
                seen.images.append(image)
                seen.begin()

    def move(self, arm: np.ndarray, period_s: float) -> None:
        """
        Note that the arm is told to move.

        :param arm: (6,) m and a rotation vector in rad.
        :param period_s: time that this takes.
        """
        moved_m, moved_rad = float(np.linalg.norm(arm[:3])), float(np.linalg.norm(arm[3:]))
        if moved_m == moved_rad == 0:
            return
        with self._lock:
            for seen in self._seen.values():
                seen.moved_s += period_s
                seen.moved_m += moved_m
                seen.moved_rad += moved_rad

    def reset(self) -> None:
        """Count motion from here: somebody says that a new episode may begin."""
        with self._lock:
            for seen in self._seen.values():
                seen.begin()

    def reasons(self) -> tuple[Reason, ...]:
        """Return a reason for each camera that is frozen."""
        if self._max_frozen_s <= 0:
            return ()
        with self._lock:
            return tuple(self._reason(camera, seen) for camera, seen in self._seen.items()
                         if self._is_frozen(seen))

    def _is_frozen(self, seen: _Seen) -> bool:
        return (seen.is_repeat and seen.moved_s > self._max_frozen_s
                and (seen.moved_m >= LEAST_M or seen.moved_rad >= LEAST_RAD))

    def _reason(self, camera: str, seen: _Seen) -> Reason:
        return Reason(
            FROZEN, f'{camera}: no new image, only new stamps, in {seen.moved_s:.1f} s in '
            f'which the arm was told to move ({seen.moved_m:.3f} m, {seen.moved_rad:.2f} rad); '
            f'at most {self._max_frozen_s:g} s is allowed (max_frozen_s); start the driver '
            'of the camera again: a new image ends this, so does a reset of the episode', camera)


def _equal(image: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two images are equal; where they have noise, after a look at few pixels."""
    if image.shape != other.shape:
        return False
    few = np.s_[::_SAMPLE, ::_SAMPLE]
    if (image[few] != other[few]).any():
        return False
    # in parts: comparing whole images at once makes a third one, in memory asked for each time
    return all((image[row:row + _ROWS] == other[row:row + _ROWS]).all()
               for row in range(0, len(image), _ROWS))

"""Video files in and out: frames of one episode inside a file, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.problems import reading

TOLERANCE_S = 1e-4  # LeRobot's own between the time that a row says and that of a frame

CODEC = 'libx264'
QUALITY = '18'
_KEY_FRAME_EVERY = '2'
_NEAR = 16
_COARSE_S = 1e-3  # Matroska's tick, to which it rounds


class FrameTimes:
    """When the frames of a video file are shown, without decoding them."""

    def __init__(self, pts: np.ndarray, tick_s: float) -> None:
        """
        Keep the stamps.

        :param pts: (F,) int64, increasing, in ticks of the stream.
        """
        self.pts, self.tick_s = pts, tick_s

    @classmethod
    def of(cls, path: Path) -> FrameTimes:
        """Read the stamps of a file; the last files' are kept."""
        status = path.stat()
        return _frame_times(path, status.st_size, status.st_mtime_ns)

    @property
    def tolerance_s(self) -> float:
        """Return how far a frame may be from its time: LeRobot's own, and half a coarse tick."""
        return TOLERANCE_S + (self.tick_s / 2 if self.tick_s <= _COARSE_S else 0.0)

    def nearest(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Find the frames nearest to some times.

        :return: their numbers in the file, and how far each is, in s.
        """
        shown_s = self.pts * self.tick_s
        after = np.searchsorted(shown_s, times_s).clip(1, max(len(shown_s) - 1, 1))
        numbers = np.where(times_s - shown_s[after - 1] <= shown_s[after % len(shown_s)] - times_s,
                           after - 1, after % len(shown_s))
        return numbers, np.abs(shown_s[numbers] - times_s)


@lru_cache(maxsize=16)
def _frame_times(path: Path, size: int, changed_ns: int) -> FrameTimes:
    """Read the stamps of a file of this size and time of change."""
    import av
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        stamps = [packet.pts for packet in container.demux(stream)
                  if packet.pts is not None and not packet.is_discard]
        if not stamps:
            raise EOFError('it has no frame')
        return FrameTimes(np.unique(np.array(stamps, np.int64)), float(stream.time_base))


class VideoFrames:
    """
    A `types.FrameSequence` over some frames of a video file.

    Reading in order decodes each frame once; a jump seeks to the key frame before it.
    """

    def __init__(self, path: Path, episode: str, times: FrameTimes, numbers: np.ndarray,
                 seconds: np.ndarray) -> None:
        """
        Remember the frames; nothing is decoded yet.

        :param times: when the frames of the file are shown.
        :param numbers: (T,) which of them are the episode's.
        :param seconds: (T,) since the episode's beginning, for errors.
        """
        self._path, self._episode = path, episode
        self._pts, self._numbers, self._seconds = times.pts, numbers, seconds
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._next = -1  # number of the frame that decoding has come to

    def __len__(self) -> int:
        """Return T."""
        return len(self._numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) uint8 image; :raises RecordingError: where there is none."""
        wanted, seconds = int(self._numbers[index]), float(self._seconds[index])
        with reading(self._path, self._episode, time_s=seconds):
            return self._seek(wanted)

    def _seek(self, wanted: int) -> np.ndarray:
        pts = int(self._pts[wanted])
        if not 0 <= self._next <= wanted <= self._next + _NEAR:
            self._frames = self._decode(pts)
        self._next = -1  # what an error leaves
        for stamp, frame in self._frames:
            if stamp == pts:
                if frame.is_corrupt:
                    raise ValueError(f'frame {wanted} is damaged')
                self._next = wanted + 1
                return frame.to_ndarray(format='rgb24')
            if stamp > pts:
                break
        raise EOFError(f'frame {wanted} cannot be decoded')

    def _decode(self, pts: int) -> Iterator[tuple[int, Any]]:
        """Decode from the key frame before a frame on, or from the first that comes out."""
        import av
        with av.open(str(self._path)) as container:
            stream = container.streams.video[0]
            container.seek(pts, stream=stream)
            frames = _stamped(container, stream)
            first = next(frames, None)
            if first is None or first[0] > pts:  # the seek went too far
                container.seek(int(self._pts[0]), stream=stream)
                frames = _stamped(container, stream)
            else:
                yield first
            yield from frames


def _stamped(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    return ((frame.pts, frame) for frame in container.decode(stream) if frame.pts is not None)


def pixel_format(height: int, width: int) -> str:
    """Return how pixels of such a video are stored; odd sizes keep full colour planes."""
    return 'yuv444p' if height % 2 or width % 2 else 'yuv420p'


def write_video(path: Path, images: Iterable[np.ndarray], fps: int) -> None:
    """
    Encode at least one (H, W, 3) uint8 image as H.264, a key frame at every second.

    :raises ValueError: where the images change their size.
    """
    import av
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(CODEC, rate=Fraction(fps), options={
            'crf': QUALITY, 'g': _KEY_FRAME_EVERY})
        assert isinstance(stream, av.VideoStream)
        for number, image in enumerate(images):
            height, width = image.shape[:2]
            if number == 0:
                stream.width, stream.height = width, height
                stream.pix_fmt = pixel_format(height, width)
            elif (height, width) != (stream.height, stream.width):
                raise ValueError(f'image {number} is {width}x{height}, the first was '
                                 f'{stream.width}x{stream.height}')
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())

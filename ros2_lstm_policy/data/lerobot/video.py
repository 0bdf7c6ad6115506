"""Video files in and out: frames of one episode inside a file, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.problems import reading

CODEC = 'libx264'
QUALITY = '18'
_KEY_FRAME_EVERY = '2'
_NEAR = 16


class VideoFrames:
    """
    A `types.FrameSequence` over a part of a video file.

    Reading in order decodes each frame once; a jump seeks to the key frame before it.
    """

    def __init__(self, path: Path, episode: str, begin_s: float, length: int, fps: float) -> None:
        """
        Remember the part; nothing is opened yet.

        :param begin_s: time of the episode's first frame in the file.
        :param fps: frames a second of the file.
        """
        self._path, self._episode = path, episode
        self._begin, self._length, self._fps = round(begin_s * fps), length, fps
        self._frames: Iterator[tuple[int, np.ndarray]] = iter(())
        self._next = 0
        self._started = False

    def __len__(self) -> int:
        """Return T."""
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) uint8 image; :raises RecordingError: where there is none."""
        index = range(self._length)[index]
        with reading(self._path, self._episode, time_s=index / self._fps):
            return self._seek(self._begin + index)

    def _seek(self, wanted: int) -> np.ndarray:
        if not self._started or not self._next <= wanted <= self._next + _NEAR:
            self._frames, self._started = self._decode(wanted), True
        for number, image in self._frames:
            self._next = number + 1
            if number == wanted:
                return image
            if number > wanted:
                break
        raise EOFError(f'it has no frame {wanted}')

    def _decode(self, first: int) -> Iterator[tuple[int, np.ndarray]]:
        import av
        with av.open(str(self._path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(int(first / self._fps / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is not None:
                    yield round(frame.time * self._fps), frame.to_ndarray(format='rgb24')


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

"""An episode as H.264 video, through PyAV, or as a moving picture for a page, through Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from ros2_lstm_policy.evaluation.pictures import draw, Shot, title_bar

WEBP_QUALITY = 50  # of 100: a tenth of the size of the video's frames as PNG
OPTIONS = {'crf': '20', 'preset': 'veryfast', 'threads': '1'}


def write_mp4(path: Path, shots: Sequence[Shot], title: str, rate_hz: float) -> None:
    """
    Write an episode's shots, one frame each.

    :raises ValueError: without a shot.
    """
    if not shots:
        raise ValueError(f'{path}: a video needs at least one shot, found none')
    import av
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = (_frame(shot, title) for shot in shots)
    first = next(frames)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=Fraction(rate_hz).limit_denominator(1000))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt, stream.options = 'yuv420p', dict(OPTIONS)
        for frame in (first, *frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_webp(path: Path, shots: Sequence[Shot], title: str, rate_hz: float) -> None:
    """
    Write an episode as a WebP that repeats: browsers and READMEs play it as they show a picture.

    :raises ValueError: without a shot.
    """
    if not shots:
        raise ValueError(f'{path}: a moving picture needs at least one shot, found none')
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = (Image.fromarray(_frame(shot, title)) for shot in shots)
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / rate_hz), loop=0,
               quality=WEBP_QUALITY)


def _frame(shot: Shot, title: str) -> np.ndarray:
    picture = draw(shot)
    return np.concatenate([title_bar(title, picture.shape[1]), picture], axis=0)

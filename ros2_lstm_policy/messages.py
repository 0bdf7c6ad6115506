"""
ROS image messages to RGB arrays, by their attributes: nothing of ROS is imported.

Live messages (rclpy) and recorded ones (rosbags) pass through the same functions. The common
encodings take a NumPy and OpenCV path that honours `step` and `is_bigendian` and copies nothing
for rgb8; Bayer and YUV images go through cv_bridge. Depth and float images have no colour and
are refused, as cv_bridge does.

The `format` of a CompressedImage is read as compressed_image_transport writes it: the encoding
before compression, `;`, the codec, and the encoding that was compressed where that is another one
(`rgb8; jpeg compressed bgr8`). What has no colour or needs demosaicing as a raw image does so
when it is compressed.
"""

from __future__ import annotations

from io import BytesIO
import re
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np


# Of a compressed image: a few bytes can claim any size, and a decoder takes the memory first.
MAX_PIXELS = 4096 * 4096


class ImageError(ValueError):
    """An image message that cannot be shown to a policy, with what was found and wanted."""


class _Layout(NamedTuple):
    channels: int
    bytes_per_channel: int
    to_rgb: int | None


_LAYOUTS = {
    'rgb8': _Layout(3, 1, None),
    'bgr8': _Layout(3, 1, cv2.COLOR_BGR2RGB),
    'rgba8': _Layout(4, 1, cv2.COLOR_RGBA2RGB),
    'bgra8': _Layout(4, 1, cv2.COLOR_BGRA2RGB),
    'mono8': _Layout(1, 1, cv2.COLOR_GRAY2RGB),
    'rgb16': _Layout(3, 2, None),
    'bgr16': _Layout(3, 2, cv2.COLOR_BGR2RGB),
    'rgba16': _Layout(4, 2, cv2.COLOR_RGBA2RGB),
    'bgra16': _Layout(4, 2, cv2.COLOR_BGRA2RGB),
    'mono16': _Layout(1, 2, cv2.COLOR_GRAY2RGB),
}
_CV_BRIDGE_BYTES_PER_PIXEL = {
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
    'bayer_rggb16': 2, 'bayer_bggr16': 2, 'bayer_gbrg16': 2, 'bayer_grbg16': 2,
    'yuv422': 2, 'yuv422_yuy2': 2, 'uyvy': 2, 'yuyv': 2,
}
# The last: what some cameras write after the end, such as a time; padding is not counted.
_JPEG_START, _JPEG_END, _JPEG_TAIL = b'\xff\xd8', b'\xff\xd9', 1024
_DEPTH = re.compile(r'(8|16|32|64)(U|S|F)C1$')
_VIDEO = re.compile(r'\b(h\.?26[45]|hevc|av1|vp[89]|theora)\b', re.IGNORECASE)


def stamp_ns(message: Any) -> int:
    """Return the header stamp of a message in nanoseconds."""
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def image_to_rgb(message: Any) -> np.ndarray:
    """
    Decode a sensor_msgs Image or CompressedImage.

    :return: (H, W, 3) uint8 RGB. For rgb8 it is a view of the message's own memory.
    :raises ImageError: naming encoding, size, step and bytes, found and wanted.
    """
    if not hasattr(message, 'encoding'):
        return _decode_compressed(message)
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        return _decode_with_cv_bridge(message)
    pixels = _pixels(message, layout)
    return pixels if layout.to_rgb is None else cv2.cvtColor(pixels, layout.to_rgb)


def image_shape(message: Any) -> tuple[int, int, int]:
    """
    Return the size that :func:`image_to_rgb` gives, by the message's header alone.

    :raises ImageError: for what is seen to be no image without decoding it.
    """
    if not hasattr(message, 'encoding'):
        return _compressed_shape(message)
    layout = _LAYOUTS.get(message.encoding)
    size = (_cv_bridge_bytes(message) if layout is None else
            layout.channels * layout.bytes_per_channel)
    _rows(message, size)
    return message.height, message.width, 3


def _pixels(message: Any, layout: _Layout) -> np.ndarray:
    """Return (H, W) or (H, W, channels) uint8; 16 bits are scaled to 8 as cv_bridge does."""
    channels, size, _ = layout
    rows = _rows(message, channels * size)
    if size == 2:
        values = rows.view('>u2' if message.is_bigendian else '<u2').astype(np.uint32)
        rows = ((values + 128) // 257).astype(np.uint8)
    shape = (message.height, message.width, channels)
    return rows.reshape(shape[:2] if channels == 1 else shape)


def _rows(message: Any, bytes_per_pixel: int) -> np.ndarray:
    """Return the pixels' bytes as (H, W * bytes_per_pixel), without the padding of `step`."""
    height, width, step = message.height, message.width, message.step
    if height < 1 or width < 1:
        raise ImageError(f'{_named(message)}: the image is empty')
    row_bytes = width * bytes_per_pixel
    if step < row_bytes:
        raise ImageError(f'{_named(message)}: step is {step} bytes, '
                         f'a row of {width} pixels needs {row_bytes}')
    data = np.frombuffer(message.data, np.uint8)
    if data.size != step * height:
        raise ImageError(f'{_named(message)}: found {data.size} bytes of data, expected step x '
                         f'height = {step} x {height} = {step * height}')
    return data.reshape(height, step)[:, :row_bytes]


def _cv_bridge_bytes(message: Any) -> int:
    bytes_per_pixel = _CV_BRIDGE_BYTES_PER_PIXEL.get(message.encoding)
    if bytes_per_pixel is None:
        known = ', '.join((*_LAYOUTS, *_CV_BRIDGE_BYTES_PER_PIXEL))
        raise ImageError(f'{_named(message)}: this encoding has no known colour; known: {known}')
    return bytes_per_pixel


def _decode_with_cv_bridge(message: Any) -> np.ndarray:
    bytes_per_pixel = _cv_bridge_bytes(message)
    # Some cv_bridge releases ignore step, so they are given rows without padding.
    tight = SimpleNamespace(
        height=message.height, width=message.width, encoding=message.encoding,
        is_bigendian=message.is_bigendian, step=message.width * bytes_per_pixel,
        data=np.ascontiguousarray(_rows(message, bytes_per_pixel)).tobytes())
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError as error:
        raise ImageError(f'{_named(message)}: needs cv_bridge, which is not installed '
                         '(rosdep key cv_bridge); or publish rgb8') from error
    try:
        return np.ascontiguousarray(CvBridge().imgmsg_to_cv2(tight, 'rgb8'))
    except (CvBridgeError, KeyError) as error:
        raise ImageError(f'{_named(message)}: this cv_bridge cannot convert it to rgb8 ({error}); '
                         'publish rgb8 or bgr8, for example through image_proc') from error


def _content(form: str) -> str:
    """Return the encoding that was compressed; empty where `format` does not say it."""
    before, separator, codec = form.partition(';')
    if not separator:
        return ''
    words = codec.partition('compressed')[2].split()
    return words[0] if words else before.strip()


def _check_compressed(message: Any) -> np.ndarray:
    """Return the bytes of a CompressedImage whose format is that of an image."""
    data, form = np.frombuffer(message.data, np.uint8), message.format
    if 'compressedDepth' in form or _DEPTH.match(_content(form)):
        raise ImageError(f'CompressedImage {form!r}: a depth image has no colour; subscribe to '
                         "the colour camera's topic")
    if data.size == 0:
        raise ImageError(f'CompressedImage {form!r}: the image is empty')
    return data


def _check_jpeg_end(data: np.ndarray, form: str) -> None:
    """Refuse a JPEG without its end, of which some decoders make a picture that is half grey."""
    if data[:2].tobytes() != _JPEG_START or _JPEG_END in data[-_JPEG_TAIL:].tobytes():
        return
    if _JPEG_END not in data.tobytes().rstrip(b'\0')[-_JPEG_TAIL:]:
        raise ImageError(f'CompressedImage {form!r}: the JPEG is cut short at {data.size} bytes')


def _compressed_size(message: Any, data: np.ndarray) -> tuple[int, int, str]:
    """Return height, width and mode by the file's header, before anything is decoded."""
    from PIL import Image
    try:
        with Image.open(BytesIO(data.tobytes())) as image:
            (width, height), mode = image.size, image.mode
    except Image.DecompressionBombError as error:
        raise ImageError(f'CompressedImage {message.format!r}: {data.size} bytes: {error}'
                         ) from None
    except (OSError, ValueError, SyntaxError):
        raise _undecodable(message, data.size) from None
    if width * height > MAX_PIXELS:
        raise ImageError(f'CompressedImage {message.format!r}: {width}x{height} pixels in '
                         f'{data.size} bytes, at most {MAX_PIXELS} pixels are decoded')
    return height, width, mode


def _compressed_shape(message: Any) -> tuple[int, int, int]:
    height, width, mode = _compressed_size(message, _check_compressed(message))
    if mode.startswith(('I', 'F')):
        _check_grey16(message)
    return height, width, 3


def _check_grey16(message: Any) -> None:
    if _content(message.format) != 'mono16' and not _content(message.format).startswith('bayer'):
        raise ImageError(f'CompressedImage {message.format!r}: 16 bits of grey are depth unless '
                         "the format says 'mono16'; a depth image has no colour")


def _decode_compressed(message: Any) -> np.ndarray:
    data = _check_compressed(message)
    _check_jpeg_end(data, message.format)
    _compressed_size(message, data)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise _undecodable(message, data.size)
    content = _content(message.format)
    if image.ndim == 2 and content in _CV_BRIDGE_BYTES_PER_PIXEL:
        return _decode_with_cv_bridge(SimpleNamespace(
            height=image.shape[0], width=image.shape[1], encoding=content, step=image.strides[0],
            is_bigendian=0, data=image.tobytes()))
    if image.dtype == np.uint16:
        if image.ndim == 2:
            _check_grey16(message)
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ImageError(f'CompressedImage {message.format!r}: pixels of {image.dtype} have no '
                         'colour')
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _undecodable(message: Any, size: int) -> ImageError:
    form = message.format
    video = ('; one message of a video stream is no image: publish jpeg or png as well, or '
             'decode the stream first' if _VIDEO.search(form) else '')
    return ImageError(f'CompressedImage {form!r}: {size} bytes are no image that OpenCV can '
                      f'decode (it reads jpeg and png){video}')


def _named(message: Any) -> str:
    return f'Image {message.encoding!r} {message.width}x{message.height}'

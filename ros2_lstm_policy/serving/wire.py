"""
Messages between a policy's server and who asks it: msgpack in binary websocket frames.

The format is that of the vla-eval harness (protocol version 1): a map of `type`, `payload`, `seq`
and `timestamp`. An array is a map marked `__ndarray__`, an image may be one marked `__image__`
that holds a PNG or a JPEG. An answer has the `seq` of its question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
import math
import time
from typing import Any, cast, get_args, Literal

import msgpack
import numpy as np

PROTOCOL_VERSION = 1
NODE = 'ros2_lstm_policy node'  # how the policy node greets; anyone else is a benchmark
# Of a message: two raw images of 2448 x 2048 pixels; what is larger is no observation.
MAX_BYTES = 64 << 20
_MAX_PIXELS = 4096 * 4096  # of a compressed image, which may be small and grow to anything
_ARRAY, _IMAGE = '__ndarray__', '__image__'
_KINDS = 'biuf'  # of dtypes: numbers, and nothing that holds objects

Kind = Literal['hello', 'observation', 'action', 'episode_start', 'episode_end', 'error']


class WireError(ValueError):
    """
    Bytes that are no message, with what is wrong in one line.

    :ivar seq: the number of the question, where that much can be read.
    """

    seq = 0


@dataclass(frozen=True)
class Message:
    """
    One message.

    :param kind: what it is about.
    :param payload: its content; arrays are NumPy arrays.
    :param seq: number of the question, repeated in its answer.
    """

    kind: Kind
    payload: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0


def pack(message: Message) -> bytes:
    """Return a message as bytes."""
    return msgpack.packb({'type': message.kind, 'payload': message.payload, 'seq': message.seq,
                          'timestamp': time.time()}, default=_encode)


def unpack(data: bytes | str) -> Message:
    """Return the message that the bytes are. :raises WireError: where they are none."""
    if isinstance(data, str):
        raise WireError('expected msgpack in a binary frame, found a text frame')
    try:
        raw = msgpack.unpackb(data, object_hook=_decode)
    except WireError as error:
        error.seq = _seq(data)
        raise
    except Exception as error:  # of many kinds: bytes from outside
        raise WireError(f'expected msgpack, found {len(data)} bytes that are none: '
                        f'{type(error).__name__}') from error
    if not isinstance(raw, dict):
        raise WireError(f'expected a message, found {type(raw).__name__}')
    kind, payload, seq = (raw.get(key) for key in ('type', 'payload', 'seq'))
    if kind not in get_args(Kind):
        raise WireError(f'type: expected one of {", ".join(get_args(Kind))}, found {kind!r:.40}')
    if not isinstance(payload, dict) or type(seq) is not int:
        raise WireError('expected a payload of keys and values and a whole seq, found '
                        f'{type(payload).__name__} and {type(seq).__name__}')
    return Message(cast(Kind, kind), payload, seq)


def _seq(data: bytes) -> int:
    """Return the number of a message whose arrays are none; 0 where nothing can be read."""
    try:
        raw = msgpack.unpackb(data)
    except Exception:  # of many kinds: bytes from outside, and an answer needs no more
        return 0
    seq = raw.get('seq') if isinstance(raw, dict) else 0
    return seq if type(seq) is int else 0


def _encode(value: Any) -> Any:
    """Turn an array or a number of NumPy into what msgpack knows."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: True, 'data': np.ascontiguousarray(value).data, 'dtype': value.dtype.str,
                'shape': list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f'{type(value).__name__} cannot be sent')


def _decode(value: dict[Any, Any]) -> Any:
    if _IMAGE in value and value.get('format') != 'raw':
        return _decoded_image(value.get('data'))
    return _array(value) if _ARRAY in value or _IMAGE in value else value


def _array(value: Mapping[str, Any]) -> np.ndarray:
    data, shape = value.get('data'), value.get('shape')
    try:
        dtype = np.dtype(value.get('dtype'))
    except (TypeError, ValueError):
        raise WireError(f'an array: dtype {value.get("dtype")!r:.40} is none') from None
    if dtype.kind not in _KINDS:
        raise WireError(f'an array: expected numbers, found dtype {dtype}')
    if not isinstance(data, bytes) or not isinstance(shape, list) or not all(
            type(length) is int and length >= 0 for length in shape):
        raise WireError('an array: expected data in bytes and a shape of whole numbers')
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f'an array: shape {shape} of {dtype} needs '
                        f'{math.prod(shape) * dtype.itemsize} bytes, found {len(data)}')
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _decoded_image(data: Any) -> np.ndarray:
    """Return (H, W, channels) uint8 out of a PNG or a JPEG."""
    from PIL import Image, UnidentifiedImageError
    if not isinstance(data, bytes):
        raise WireError(f'an image: expected data in bytes, found {type(data).__name__}')
    try:
        with Image.open(BytesIO(data), formats=('PNG', 'JPEG')) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise WireError(f'an image: {image.width}x{image.height} pixels are more than '
                                'any camera of a policy has')
            return np.array(image)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f'an image: {len(data)} bytes that are no whole PNG or JPEG') from error

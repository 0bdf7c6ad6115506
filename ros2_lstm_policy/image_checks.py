"""
What an image must be to be acted on or learned from: the same live and in every recording.

A decoded image may still show nothing: a sensor that died gives one colour, a driver in a wrong
mode a thumbnail. Each is refused by the name of its camera.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.types import Reason

# Of the network's input, on each side: what is smaller is no mode of a camera, and would be
# blown up to something that no training image looked like.
LEAST_SIZE = 1 / 8
_SAMPLE = 48  # pixels between two that are looked at first: no scene agrees in all of them


def fault_of(camera: str, image: np.ndarray, spec: CameraSpec | None = None) -> Reason | None:
    """
    Return why an image cannot be used.

    :param image: (H, W, 3) uint8 RGB.
    :param spec: the network's input, where it is known; without it no size is too small.
    """
    if spec is not None and (reason := _too_small(camera, image.shape, spec)) is not None:
        return reason
    if not _is_constant(image):
        return None
    colour = ', '.join(map(str, image[0, 0]))
    return Reason('constant_image', f'{camera}: all {_size(image.shape)} pixels have the colour '
                  f'({colour}): a dead sensor, a covered lens without any noise, or no signal; '
                  'look at the camera', camera)


def _too_small(camera: str, shape: Sequence[int], spec: CameraSpec) -> Reason | None:
    """Refuse an image of which the part that the network sees is a fraction of its input."""
    top, left, bottom, right = spec.crop or (0.0, 0.0, 1.0, 1.0)
    height, width = shape[0] * (bottom - top), shape[1] * (right - left)
    if height >= LEAST_SIZE * spec.height and width >= LEAST_SIZE * spec.width:
        return None
    least = (np.ceil(LEAST_SIZE * spec.height / (bottom - top)),
             np.ceil(LEAST_SIZE * spec.width / (right - left)))
    return Reason('small_image', f'{camera}: the image has {_size(shape)} pixels, expected at '
                  f'least {least[1]:.0f}x{least[0]:.0f} (an eighth of the {spec.width}x'
                  f'{spec.height} that the policy takes); set the camera to its usual mode',
                  camera)


def _is_constant(image: np.ndarray) -> bool:
    """Return whether all pixels are equal: exactly, as the darkest lab has noise."""
    if (image[::_SAMPLE, ::_SAMPLE] != image[0, 0]).any():
        return False
    row = image[:1]
    return bool((row == row[:, :1]).all() and (image == row).all())


def _size(shape: Sequence[int]) -> str:
    return f'{shape[1]}x{shape[0]}'

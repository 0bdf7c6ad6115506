"""
Image, action and state transforms: the one copy that training and the robot share.

Images are uint8 RGB until they are on the device; `normalise_images` is the first operation of the
model's input there. Actions are float32 in the units of their kind. Shape letters as in `types`.
Euler angles are about the fixed axes x, y, z in this order (SciPy's 'xyz', Bullet's convention).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ros2_lstm_policy.manifest import ActionGroup, CameraSpec, Manifest, Normalisation

if TYPE_CHECKING:
    from torch import device, Tensor

Image = TypeVar('Image', 'np.ndarray', 'Tensor')


def resize(image_HWC: np.ndarray, camera: CameraSpec) -> np.ndarray:
    """
    Cut the camera's crop out of one image, and resize it straight to the camera's size.

    :param image_HWC: (H, W, 3) uint8 RGB.
    :return: (camera.height, camera.width, 3) uint8, contiguous; the same array where it fits.
    :raises ValueError: for another type or shape, or an empty image.
    """
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise ValueError(f'camera {camera.name!r}: expected (H, W, 3) uint8 RGB, found '
                         f'{image_HWC.shape} {image_HWC.dtype}')
    if image_HWC.size == 0:
        raise ValueError(f'camera {camera.name!r}: the image is empty: {image_HWC.shape}')
    if camera.crop is not None:
        image_HWC = cropped(image_HWC, camera.crop)
    if image_HWC.shape[:2] == (camera.height, camera.width):
        return np.ascontiguousarray(image_HWC)
    size_wh = (camera.width, camera.height)
    if camera.interpolation == 'area':
        import cv2
        return cv2.resize(image_HWC, size_wh, interpolation=cv2.INTER_AREA)
    from PIL import Image as PillowImage
    resized = PillowImage.fromarray(image_HWC).resize(
        size_wh, PillowImage.Resampling.BICUBIC)
    return np.array(resized)


def check_resized(image_HWC: np.ndarray, camera: CameraSpec) -> None:
    """Refuse what :func:`resize` cannot have given. :raises ValueError: where it is that."""
    wanted = (camera.height, camera.width, 3)
    if image_HWC.dtype != np.uint8 or image_HWC.shape != wanted:
        raise ValueError(f"camera {camera.name!r}: expected the policy's {wanted} uint8, found "
                         f'{image_HWC.shape} {image_HWC.dtype}')


def cropped(image_HWC: Image, crop: tuple[float, float, float, float]) -> Image:
    """Return the part of an image, array or tensor, at least one pixel, as a view."""
    height, width = image_HWC.shape[:2]
    top, left = min(round(crop[0] * height), height - 1), min(round(crop[1] * width), width - 1)
    bottom, right = max(round(crop[2] * height), top + 1), max(round(crop[3] * width), left + 1)
    return image_HWC[top:bottom, left:right]


def normalise_images(images_u8: Tensor, camera: CameraSpec) -> Tensor:
    """
    Turn uint8 images into the model's input, on the device that they are on.

    :param images_u8: (..., H, W, 3) uint8 RGB.
    :return: (..., 3, H, W) float32, (value / 255 - mean) / std by channel.
    """
    width = images_u8.shape[-2]
    scale, shift = _constants(camera, width, images_u8.device)
    rows = images_u8.flatten(-2) / scale - shift  # whole rows: a last axis of 3 would be slow
    return rows.unflatten(-1, (width, 3)).movedim(-1, -3)


def normalise(values: np.ndarray, norm: Normalisation) -> np.ndarray:
    """
    Return clip((value - offset) / scale, -1, 1), then the mu-law where there is one.

    :param values: (..., size).
    :return: (..., size) float32 in [-1, 1].
    """
    value = np.clip(_scaled(values, norm), -1, 1)
    if norm.mu is not None:
        value = np.sign(value) * np.log1p(norm.mu * np.abs(value)) / np.log1p(norm.mu)
    return value.astype(np.float32)


def unnormalise(normalised: np.ndarray, norm: Normalisation) -> np.ndarray:
    """
    Invert :func:`normalise` for values that it did not clip.

    :param normalised: (..., size).
    :return: (..., size) float32.
    """
    value = np.asarray(normalised, np.float64)
    if norm.mu is not None:
        value = np.sign(value) * np.expm1(np.abs(value) * np.log1p(norm.mu)) / norm.mu
    return (value * np.asarray(norm.scale) + norm.offset).astype(np.float32)


def to_labels(actions: Mapping[str, np.ndarray],
              manifest: Manifest) -> tuple[np.ndarray, np.ndarray]:
    """
    Turn actions into what the policy is trained on.

    :param actions: group name to (..., size), in physical units, as in :class:`Action`.
    :return: continuous (..., C), normalised, and binary (..., G), both float32.
    """
    continuous = [normalise(group.meaning.to_numbers(actions[group.name], group.rotation),
                            _normalisation(group)) for group in manifest.continuous]
    shape = continuous[0].shape[:-1]
    binary = [np.asarray(actions[group.name], np.float32) for group in manifest.binary]
    return (_beside(continuous, shape), _beside(binary, shape))


def from_labels(continuous: np.ndarray, binary: np.ndarray, manifest: Manifest) -> np.ndarray:
    """
    Turn what the policy gives into actions; inverts :func:`to_labels`.

    :param continuous: (..., C), normalised.
    :param binary: (..., G), probabilities.
    :return: (..., A) float32 in physical units, the groups side by side in the manifest's order.
    """
    values, begin_c, begin_g = [], 0, 0
    for group in manifest.actions:
        if group.binary:
            values.append(binary[..., begin_g:begin_g + group.size])
            begin_g += group.size
            continue
        numbers = unnormalise(continuous[..., begin_c:begin_c + group.label_size],
                              _normalisation(group))
        values.append(group.meaning.to_values(numbers, group.rotation).astype(np.float32))
        begin_c += group.label_size
    return np.concatenate(values, axis=-1)


def by_group(values: np.ndarray, manifest: Manifest) -> dict[str, np.ndarray]:
    """Cut (..., A) values into the manifest's groups, (..., size) each; copies."""
    ends = np.cumsum([group.size for group in manifest.actions])
    return {group.name: values[..., end - group.size:end].copy()
            for group, end in zip(manifest.actions, ends)}


def normalise_states(states: Mapping[str, np.ndarray], manifest: Manifest) -> np.ndarray:
    """
    Return all states side by side, (value - offset) / scale, not clipped.

    :param states: state name to (..., size) in physical units.
    :return: (..., S) float32.
    :raises ValueError: for one that is not there or of another size.
    """
    values = []
    for state in manifest.states:
        if state.name not in states:
            raise ValueError(f'the policy needs the state {state.name!r}; there is '
                             f'{", ".join(states) or "none"}')
        found = np.shape(states[state.name])
        if found[-1:] != (state.size,):
            raise ValueError(f'state {state.name!r}: expected {state.size} values, found shape '
                             f'{found}')
        assert state.normalisation is not None
        values.append(_scaled(states[state.name], state.normalisation).astype(np.float32))
    return np.concatenate(values, axis=-1) if values else np.zeros(0, np.float32)


def _scaled(values: np.ndarray, norm: Normalisation) -> np.ndarray:
    return (np.asarray(values, np.float64) - norm.offset) / np.asarray(norm.scale)


def _normalisation(group: ActionGroup) -> Normalisation:
    assert group.normalisation is not None  # a manifest's continuous groups have one
    return group.normalisation


def _beside(parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    if not parts:
        return np.zeros((*shape, 0), np.float32)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


@cache
def _constants(camera: CameraSpec, width: int, place: device) -> tuple[Tensor, Tensor]:
    """
    Return 255 * std and mean / std for the values of one row (width * 3).

    They are made once: a CUDA graph cannot be captured around it.
    """
    import torch
    with torch.inference_mode(False):
        scale = torch.tensor([255 * s for s in camera.std], device=place)
        shift = torch.tensor([m / s for m, s in zip(camera.mean, camera.std)], device=place)
        return scale.repeat(width), shift.repeat(width)

"""
Image and arm transforms: the one copy that training and the robot share.

Images are uint8 RGB until they are on the device; `normalise_images` is the first operation of the
model's input there. Arm deltas are float32, metres and radians. Shape letters as in `types`.
Euler angles are about the fixed axes x, y, z in this order (SciPy's 'xyz', Bullet's convention).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ros2_lstm_policy.manifest import ActionManifest, ArmNormalisation, CameraSpec
from ros2_lstm_policy.types import ARM_DIM

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


def normalise_arm(arm: np.ndarray, norm: ArmNormalisation) -> np.ndarray:
    """
    Return clip((value - offset) / scale, -1, 1), then the mu-law where the manifest has one.

    :param arm: (..., 6), m and rad, rotation in the manifest's convention.
    :return: (..., 6) float32 in [-1, 1].
    """
    scaled = (np.asarray(arm, np.float64) - norm.offset) / np.asarray(norm.scale)
    value = np.clip(scaled, -1, 1)
    if norm.mu is not None:
        value = np.sign(value) * np.log1p(norm.mu * np.abs(value)) / np.log1p(norm.mu)
    return value.astype(np.float32)


def unnormalise_arm(normalised: np.ndarray, norm: ArmNormalisation) -> np.ndarray:
    """
    Invert :func:`normalise_arm` for values that it did not clip.

    :param normalised: (..., 6).
    :return: (..., 6) float32, m and rad, rotation in the manifest's convention.
    """
    value = np.asarray(normalised, np.float64)
    if norm.mu is not None:
        value = np.sign(value) * np.expm1(np.abs(value) * np.log1p(norm.mu)) / norm.mu
    return (value * np.asarray(norm.scale) + norm.offset).astype(np.float32)


def arm_to_label(arm: np.ndarray, manifest: ActionManifest) -> np.ndarray:
    """
    Turn an :class:`Action`'s arm delta into what the policy is trained on.

    :param arm: (..., 6), m and a rotation vector in rad.
    :return: (..., 6) float32, in the manifest's rotation convention and normalised.
    """
    if manifest.rotation == 'euler_xyz':
        from scipy.spatial.transform import Rotation
        arm = _map_rotation(arm, lambda v: Rotation.from_rotvec(v).as_euler('xyz'))
    return normalise_arm(arm, manifest.arm)


def label_to_arm(label: np.ndarray, manifest: ActionManifest) -> np.ndarray:
    """
    Turn the policy's normalised output into an :class:`Action`'s arm delta.

    :param label: (..., 6), normalised, in the manifest's rotation convention.
    :return: (..., 6) float32, m and a rotation vector in rad.
    """
    arm = unnormalise_arm(label, manifest.arm)
    if manifest.rotation == 'euler_xyz':
        from scipy.spatial.transform import Rotation
        arm = _map_rotation(arm, lambda v: Rotation.from_euler('xyz', v).as_rotvec())
    return arm


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


def _map_rotation(arm: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert the last three of the six values."""
    values = np.asarray(arm, np.float64).reshape(-1, ARM_DIM)
    changed = np.concatenate([values[:, :3], change(values[:, 3:])], axis=1)
    return changed.reshape(np.shape(arm)).astype(np.float32)

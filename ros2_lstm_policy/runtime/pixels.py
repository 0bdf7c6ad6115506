"""
From the images of the cameras to the model's pixels: resized, uint8, on the policy's device.

On a CPU it is `transforms.resize`. On a GPU the raw images are copied over and resized there, by
products with the very coefficients of that transform: Pillow's bicubic filter, which rounds to
uint8 after each axis, and OpenCV's average over areas. A test holds both against the libraries.

Letters beside those of `types`: h w the size that the model takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.manifest import CameraSpec
import torch
from torch import Tensor

# Runs a function and captures it; returns what replays it.
Capture: TypeAlias = Callable[[Callable[[], None]], Callable[[], None]]
_FIXED_POINT = 1 << 22  # Pillow holds its coefficients in so many parts of one
_BICUBIC_A, _BICUBIC_REACH = -0.5, 2.0
_KEPT_SIZES = 8


class Pixels(Protocol):
    """Makes the model's pixels."""

    def __call__(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """
        Resize the image of each camera.

        :param images: camera name to (H, W, 3) uint8 RGB of any size.
        :return: camera name to (h, w, 3) uint8 on the device; valid until the next call.
        """

    def place(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """
        Bring images onto the device that have the model's size already.

        :raises ValueError: where one has not.
        """


class HostPixels:
    """Resizes on the CPU, and copies the small images over."""

    def __init__(self, cameras: Sequence[CameraSpec], device: torch.device) -> None:
        """Keep the cameras."""
        self._cameras, self._device = tuple(cameras), device

    def __call__(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """Resize each image."""
        return {camera.name: torch.from_numpy(transforms.resize(images[camera.name], camera))
                .to(self._device) for camera in self._cameras}

    def place(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """Bring images onto the device that have the model's size already."""
        for camera in self._cameras:
            transforms.check_resized(images[camera.name], camera)
        return {camera.name: torch.from_numpy(images[camera.name]).to(self._device)
                for camera in self._cameras}


class DevicePixels:
    """
    Copies raw images over through pinned memory and resizes them there.

    :param capture: makes a graph of each camera's copy and products for the present sizes of the
        images; None to run them one by one.
    :ivar places: where the pixels are written, at every call.
    """

    def __init__(self, cameras: Sequence[CameraSpec], device: torch.device,
                 capture: Capture | None = None) -> None:
        """Make the places of the pixels; those of the images follow with their sizes."""
        self._cameras, self._device, self._capture = tuple(cameras), device, capture
        self._host = HostPixels(cameras, torch.device('cpu'))
        self.places = {camera.name: torch.zeros(camera.height, camera.width, 3, device=device,
                                                dtype=torch.uint8) for camera in cameras}
        self._routes: dict[tuple[tuple[int, ...], ...], _Route] = {}

    def __call__(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """Copy and resize each image."""
        sizes = tuple(images[camera.name].shape for camera in self._cameras)
        if not all(can_resize(camera, size) for camera, size in zip(self._cameras, sizes)):
            return self._put(self._host(images))
        if sizes not in self._routes:
            if len(self._routes) >= _KEPT_SIZES:  # cameras whose size keeps changing
                self._routes.clear()
            self._routes[sizes] = _Route(self._cameras, sizes, self.places, self._capture)
        self._routes[sizes].send(images)
        return self.places

    def place(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """Bring images onto the device that have the model's size already."""
        return self._put(self._host.place(images))

    def _put(self, pixels: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        for name, image in pixels.items():
            self.places[name].copy_(image)
        return self.places


class _Route:
    """The way of images of fixed sizes."""

    def __init__(self, cameras: Sequence[CameraSpec], sizes: Sequence[tuple[int, ...]],
                 places: Mapping[str, Tensor], capture: Capture | None) -> None:
        device = next(iter(places.values())).device
        self._pinned = {camera.name: torch.empty(size, dtype=torch.uint8,
                                                 pin_memory=device.type == 'cuda')
                        for camera, size in zip(cameras, sizes)}
        self._raw = {name: image.to(device) for name, image in self._pinned.items()}
        self._places = places
        for camera, size in zip(cameras, sizes):
            coefficients(camera, *_cropped_size(camera, size), device)  # none are made in a graph
        sends = {camera.name: partial(self._send, camera) for camera in cameras}
        self._launches = sends if capture is None else {
            name: capture(send) for name, send in sends.items()}

    def send(self, images: Mapping[str, np.ndarray]) -> None:
        """Send camera by camera: while one is on its way, the next is copied."""
        for name, place in self._pinned.items():
            np.copyto(place.numpy(), images[name])
            self._launches[name]()

    def _send(self, camera: CameraSpec) -> None:
        raw = self._raw[camera.name]
        raw.copy_(self._pinned[camera.name], non_blocking=True)
        self._places[camera.name].copy_(resize(raw, camera))


def can_resize(camera: CameraSpec, size: tuple[int, ...]) -> bool:
    """Return whether :func:`resize` does it: areas are only averaged, never spread out."""
    height, width = _cropped_size(camera, size)
    return camera.interpolation == 'bicubic' or (
        height >= camera.height and width >= camera.width)


def resize(image_HW3: Tensor, camera: CameraSpec) -> Tensor:
    """
    Do what `transforms.resize` does, on the image's device.

    Float32 products may not be rounded to TF32, which PyTorch by default does not do.

    :return: (h, w, 3) uint8; of values that lie between two, one in thousands differs by one.
    """
    if camera.crop is not None:
        image_HW3 = transforms.cropped(image_HW3, camera.crop)
    height, width = image_HW3.shape[:2]
    if (height, width) == (camera.height, camera.width):
        return image_HW3
    return _apply(image_HW3, coefficients(camera, height, width, image_HW3.device))


class Coefficients(NamedTuple):
    """
    How images of one size become those of another.

    :param rows_hH: weights of the rows in each new one.
    :param columns_Ww: weights of the columns.
    :param is_rounded: whether the values are uint8 between the two axes.
    :param rows_first: which axis comes first.
    """

    rows_hH: Tensor
    columns_Ww: Tensor
    is_rounded: bool = False
    rows_first: bool = False


@lru_cache(maxsize=64)
def coefficients(camera: CameraSpec, height: int, width: int,
                 device: torch.device) -> Coefficients:
    """
    Return the coefficients for images of a size.

    Which axis Pillow filters first depends on the sizes and on its version: both are tried on
    noise, and the one that agrees with it is taken.
    """
    is_bicubic = camera.interpolation == 'bicubic'
    make = _bicubic if is_bicubic else _area
    with torch.inference_mode(False):
        found = Coefficients(torch.from_numpy(make(height, camera.height)).float(),
                             torch.from_numpy(make(width, camera.width).T.copy()).float(),
                             is_bicubic)
        if is_bicubic:
            noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
            wanted = torch.from_numpy(transforms.resize(noise, replace(camera, crop=None))).int()
            found = min((found, found._replace(rows_first=True)), key=lambda each: (
                _apply(torch.from_numpy(noise), each).int() - wanted).abs().sum().item())
        return found._replace(rows_hH=found.rows_hH.to(device),
                              columns_Ww=found.columns_Ww.to(device))


def _apply(image_HW3: Tensor, by: Coefficients) -> Tensor:
    planes_3HW = image_HW3.movedim(-1, 0).float()
    first = by.rows_hH @ planes_3HW if by.rows_first else planes_3HW @ by.columns_Ww
    if by.is_rounded:
        first = (first + 0.5).floor().clamp(0, 255)
    second = first @ by.columns_Ww if by.rows_first else by.rows_hH @ first
    second = (second + 0.5).floor() if by.is_rounded else second.round()
    return second.clamp(0, 255).to(torch.uint8).movedim(0, -1)


def _bicubic(size: int, wanted: int) -> np.ndarray:
    """Return Pillow's filter (wanted, size): Keys' cubic, widened where the image shrinks."""
    if size == wanted:
        return np.eye(size)
    scale = size / wanted
    wide = max(scale, 1.0)
    weights = np.zeros((wanted, size))
    for out in range(wanted):
        centre = (out + 0.5) * scale
        first = max(int(centre - _BICUBIC_REACH * wide + 0.5), 0)
        last = min(int(centre + _BICUBIC_REACH * wide + 0.5), size)
        row = _cubic((np.arange(first, last) - centre + 0.5) / wide)
        weights[out, first:last] = np.round(row / row.sum() * _FIXED_POINT) / _FIXED_POINT
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), _BICUBIC_A
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _area(size: int, wanted: int) -> np.ndarray:
    """Return the share that each pixel has in the area of each new one, (wanted, size)."""
    edges = np.arange(wanted + 1)[:, None] * (size / wanted)
    pixels = np.arange(size)[None]
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.maximum(overlap, 0) * (wanted / size)


def _cropped_size(camera: CameraSpec, size: tuple[int, ...]) -> tuple[int, int]:
    if camera.crop is None:
        return size[0], size[1]
    seen = transforms.cropped(np.broadcast_to(np.uint8(0), size), camera.crop)
    return seen.shape[0], seen.shape[1]

"""Pixels that are made on the device are those of the training transform."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ros2_lstm_policy import transforms
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.runtime.pixels import can_resize, DevicePixels, HostPixels, resize
import torch

BICUBIC = CameraSpec('static', 28, 36, 'bicubic', (0.5,) * 3, (0.5,) * 3)
AREA = dataclasses.replace(BICUBIC, interpolation='area')


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a noisy image, the hardest for any filter."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('size', [(48, 64), (120, 160), (97, 211), (28, 64), (48, 36), (12, 20)])
@pytest.mark.parametrize('crop', [None, (0.1, 0.0, 0.9, 0.77)])
@pytest.mark.parametrize('camera', [BICUBIC, AREA])
def test_an_image_is_resized_as_the_library_of_the_training_does(
        camera: CameraSpec, crop: tuple[float, ...] | None, size: tuple[int, int]) -> None:
    """A value that lies just between two may be rounded the other way, and no other differs."""
    camera = dataclasses.replace(camera, crop=crop)
    image = make_image(*size)
    if not can_resize(camera, image.shape):
        assert camera.interpolation == 'area'
        return
    wanted = transforms.resize(image, camera).astype(int)
    found = resize(torch.from_numpy(image), camera).numpy().astype(int)
    assert np.abs(found - wanted).max() <= 1
    assert (found != wanted).mean() < (2e-3 if camera.interpolation == 'bicubic' else 1e-2)


@pytest.mark.parametrize('camera', [BICUBIC, AREA])
def test_one_colour_stays_that_colour(camera: CameraSpec) -> None:
    """The weights of a filter add up to one."""
    for value in (0, 1, 127, 254, 255):
        image = torch.full((91, 133, 3), value, dtype=torch.uint8)
        assert (resize(image, camera) == value).all()


def test_pixels_of_changing_sizes_are_the_same_on_both_ways() -> None:
    """Sizes that only the CPU can resize too; the places stay the same ones."""
    cameras = (AREA, dataclasses.replace(BICUBIC, name='hand'))
    host, device = (kind(cameras, torch.device('cpu')) for kind in (HostPixels, DevicePixels))
    places = dict(device.places)
    for number, (height, width) in enumerate([(48, 64), (12, 20), (48, 64), (90, 70)] * 4):
        images = {'static': make_image(height + number % 3, width, number),
                  'hand': make_image(width, height, number)}
        wanted, found = host(images), device(images)
        for name, place in places.items():
            assert found[name] is place
            assert (place.int() - wanted[name].int()).abs().max() <= 1

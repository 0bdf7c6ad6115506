"""Tests of what an image must be to be acted on or learned from."""

import numpy as np
import pytest
from ros2_lstm_policy.image_checks import fault_of
from ros2_lstm_policy.manifest import CameraSpec

SPEC = CameraSpec('hand', 112, 160, 'area', (0.5,) * 3, (0.5,) * 3)
HALF = CameraSpec('hand', 112, 160, 'area', (0.5,) * 3, (0.5,) * 3, crop=(0.5, 0.0, 1.0, 1.0))


def noise(height, width):
    """Return an image of random pixels."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.mark.parametrize('size', [(480, 640), (48, 64), (1, 1)])
@pytest.mark.parametrize('colour', [(0, 0, 0), (255, 255, 255), (0, 0, 255)])
def test_an_image_of_one_colour_shows_nothing(size, colour):
    """A dead sensor is black, a lost signal may be blue; both were acted on."""
    image = np.tile(np.array(colour, np.uint8), (*size, 1))
    fault = fault_of('hand', image)
    assert (fault.code, fault.camera) == ('constant_image', 'hand')
    assert f'hand: all {size[1]}x{size[0]} pixels have the colour' in fault.text
    assert ', '.join(map(str, colour)) in fault.text


@pytest.mark.parametrize('place', [(0, 0), (0, 1), (1, 0), (47, 47), (48, 48), (479, 639)])
def test_a_single_other_pixel_is_an_image(place):
    """A dark lab is dark, and has noise: nothing but exact equality is refused."""
    image = np.zeros((480, 640, 3), np.uint8)
    image[place][2] = 1
    assert fault_of('hand', image) is None


def test_one_row_or_column_of_many_colours_is_an_image():
    """Stripes along either side are not one colour."""
    for image in (np.repeat(noise(1, 640), 480, 0), np.repeat(noise(480, 1), 640, 1)):
        assert fault_of('hand', image, SPEC) is None


def test_rows_with_padding_are_looked_at_without_it():
    """A raw image is a view of its message."""
    padded = noise(48, 64)
    padded[:, :60] = 7
    assert fault_of('hand', padded[:, :60]).code == 'constant_image'


@pytest.mark.parametrize(('spec', 'size', 'fits'), [
    (SPEC, (4, 4), False), (SPEC, (13, 640), False), (SPEC, (480, 19), False),
    (SPEC, (14, 20), True), (SPEC, (112, 160), True), (HALF, (20, 640), False),
    (HALF, (28, 20), True), (None, (4, 4), True)])
def test_an_image_much_smaller_than_the_network_takes_is_refused(spec, size, fits):
    """4x4 pixels were blown up and acted on; what counts is the part that the network sees."""
    fault = fault_of('hand', noise(*size), spec)
    assert (fault is None) == fits
    if fault is not None:
        least = '20x14' if spec is SPEC else '20x28'
        assert fault.code == 'small_image'
        assert (f'hand: the image has {size[1]}x{size[0]} pixels, expected at least {least}'
                in fault.text)

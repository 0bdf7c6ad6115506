"""The one copy of preprocessing and normalisation."""

import dataclasses

import numpy as np
from PIL import Image
import pytest
from ros2_lstm_policy import transforms
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from scipy.spatial.transform import Rotation
import torch

CAMERA = CameraSpec('static', 24, 32, 'area', (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
NORM = Normalisation((0.01, 0.0, -0.01, 0.1, 0.0, 0.0), (0.05, 0.04, 0.03, 0.5, 0.4, 0.3))
RNG = np.random.default_rng(0)


def manifest_of(rotation):
    """Return a manifest with this convention of rotations."""
    return one_arm('base', rotation, 0.1, NORM, (CAMERA,))


MANIFEST = manifest_of('euler_xyz')


def labels_of(arm, manifest):
    """Return the labels of an arm's deltas."""
    gripper = np.zeros((*arm.shape[:-1], 1))
    return transforms.to_labels({'arm': arm, 'gripper': gripper}, manifest)[0]


def arm_of(labels, manifest):
    """Return the arm's deltas of labels."""
    gripper = np.zeros((*labels.shape[:-1], 1), np.float32)
    return transforms.from_labels(labels, gripper, manifest)[..., :6]


def make_image(height=48, width=64):
    """Return noise."""
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def test_area_halves_an_image_by_averaging_four_pixels():
    image = make_image()
    wanted = image.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(transforms.resize(image, CAMERA) - wanted).max() <= 0.5


def test_bicubic_is_pillows():
    camera = dataclasses.replace(CAMERA, interpolation='bicubic')
    image = make_image(50, 70)
    wanted = np.asarray(Image.fromarray(image).resize((32, 24), Image.Resampling.BICUBIC))
    assert np.array_equal(transforms.resize(image, camera), wanted)


@pytest.mark.parametrize('interpolation', ['area', 'bicubic'])
@pytest.mark.parametrize('size', [(24, 32), (480, 640), (10, 11)])
def test_every_image_gets_the_cameras_size(interpolation, size):
    camera = dataclasses.replace(CAMERA, interpolation=interpolation)
    resized = transforms.resize(make_image(*size), camera)
    assert resized.shape == (24, 32, 3)
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous


def test_an_image_of_the_right_size_keeps_its_bytes_even_as_a_view():
    image = make_image(24, 64)[:, ::2]
    resized = transforms.resize(image, CAMERA)
    assert np.array_equal(resized, image)
    assert resized.flags.c_contiguous


@pytest.mark.parametrize('size', [(48, 64), (480, 640)])
def test_a_crop_is_the_same_part_at_any_resolution(size: tuple[int, int]) -> None:
    """The lower right quarter alone is seen."""
    image = np.zeros((*size, 3), np.uint8)
    image[size[0] // 2:, size[1] // 2:] = 200
    seen = transforms.resize(image, dataclasses.replace(CAMERA, crop=(0.5, 0.5, 1.0, 1.0)))
    assert seen.shape == (24, 32, 3)
    assert (seen == 200).all()
    assert seen.flags.c_contiguous


@pytest.mark.parametrize('crop', [(0.5, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1)])
def test_a_crop_outside_the_image_is_refused(crop: tuple[float, ...]) -> None:
    """Shares, in their order, of which none is empty."""
    with pytest.raises(ValueError, match='crop must be top, left, bottom, right'):
        dataclasses.replace(CAMERA, crop=crop)


@pytest.mark.parametrize('image', [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
                                   np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_rgb_image_is_refused_by_its_camera(image):
    with pytest.raises(ValueError, match="camera 'static'"):
        transforms.resize(image, CAMERA)


def test_images_are_normalised_by_channel_and_put_channels_first():
    image = make_image(24, 32)
    got = transforms.normalise_images(torch.from_numpy(image)[None, None], CAMERA)
    wanted = ((image / 255 - CAMERA.mean) / CAMERA.std).transpose(2, 0, 1)
    assert got.shape == (1, 1, 3, 24, 32)
    assert got.dtype == torch.float32
    assert np.abs(got[0, 0].numpy() - wanted).max() <= 1e-6


@pytest.mark.parametrize('mu', [None, 255.0])
def test_unnormalising_inverts_normalising_within_the_limits(mu):
    norm = dataclasses.replace(NORM, mu=mu)
    arm = RNG.uniform(-1, 1, (7, 5, 6)) * norm.scale + norm.offset
    back = transforms.unnormalise(transforms.normalise(arm, norm), norm)
    assert back.shape == arm.shape
    assert back.dtype == np.float32
    assert np.abs(back - arm).max() <= 1e-6


def test_values_beyond_the_scale_are_clipped_to_one():
    far = np.array(NORM.offset) + 3 * np.array(NORM.scale) * [1, -1, 1, -1, 1, -1]
    assert transforms.normalise(far, NORM).tolist() == [1, -1, 1, -1, 1, -1]


def test_mu_law_is_that_of_the_standard():
    norm = Normalisation((0.0,) * 6, (1.0,) * 6, mu=255.0)
    got = transforms.normalise(np.array([0.5, -0.5, 0, 1, -1, 0.01]), norm)
    wanted = np.log1p(255 * 0.5) / np.log(256)
    assert got[:5] == pytest.approx([wanted, -wanted, 0, 1, -1])
    assert got[5] == pytest.approx(np.log1p(2.55) / np.log(256))


def test_labels_of_an_euler_manifest_are_angles_about_the_fixed_axes():
    arm = np.array([0.01, 0.02, -0.01, 0.2, -0.1, 0.15])
    label = labels_of(arm, MANIFEST)
    euler = Rotation.from_rotvec(arm[3:]).as_euler('xyz')
    wanted = (np.concatenate([arm[:3], euler]) - NORM.offset) / NORM.scale
    assert np.abs(label - wanted).max() <= 1e-6


@pytest.mark.parametrize('rotation', ['euler_xyz', 'rotation_vector'])
def test_labels_turn_back_into_the_arm_delta(rotation):
    manifest = manifest_of(rotation)
    arm = RNG.uniform(-0.7, 0.7, (3, 4, 6)) * [0.03, 0.03, 0.02, 0.3, 0.3, 0.2]
    back = arm_of(labels_of(arm, manifest), manifest)
    assert np.abs(back - arm).max() <= 1e-6


def test_inputs_are_not_changed():
    arm = RNG.uniform(-0.02, 0.02, (4, 6))
    kept = arm.copy()
    arm_of(labels_of(arm, MANIFEST), MANIFEST)
    assert np.array_equal(arm, kept)

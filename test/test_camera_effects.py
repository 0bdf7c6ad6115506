"""What a camera does to a picture, held to OpenCV's own blur and JPEG."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from ros2_lstm_policy import camera_effects
from ros2_lstm_policy.camera_effects import CameraEffects
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.training.augmentation import augment, AugmentationConfig
from ros2_lstm_policy.transforms import normalise_images
import torch
from torch import Tensor

PICTURE = Path(__file__).parents[1] / 'docs' / 'images' / 'episode.jpg'
CAMERA = CameraSpec('static', 44, 60, 'area', (0.5,) * 3, (0.5,) * 3)
STILL = {'static_shift': 0.0, 'hand_shift': 0.0}


def picture() -> np.ndarray:
    """Return a part of a real picture, of an odd size."""
    read = cv2.imread(str(PICTURE))
    assert read is not None
    return np.ascontiguousarray(read[100:221, 40:211, ::-1])


def windows(count: int = 2, steps: int = 3) -> Tensor:
    """Return windows of one standing picture."""
    small = np.ascontiguousarray(cv2.resize(picture(), (60, 44)))
    return torch.from_numpy(small).expand(count, steps, -1, -1, -1).contiguous()


def seen(image_HWC: np.ndarray, **strengths: float) -> np.ndarray:
    """Return one image after the effects."""
    effects = CameraEffects(**{k: torch.tensor([float(v)]) for k, v in strengths.items()})
    generator = torch.Generator().manual_seed(3)
    return camera_effects.apply(torch.from_numpy(image_HWC)[None, None], effects,
                                generator)[0, 0].numpy()


@pytest.mark.parametrize('sigma', [0.5, 1.0, 2.0])
def test_blur_is_open_cvs(sigma: float) -> None:
    """A Gaussian of the width that it says, mirrored at the border."""
    expected = cv2.GaussianBlur(picture(), (0, 0), sigma)
    assert np.abs(seen(picture(), blur_px=sigma).astype(int) - expected).max() <= 2


@pytest.mark.parametrize('quality', [95, 50, 20, 5])
def test_jpeg_looks_as_libjpegs_of_the_same_quality_does(quality: int) -> None:
    """What is trained against on a GPU is what a camera's compression does."""
    image = picture()
    coded = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    expected = decoded[..., ::-1].astype(int)
    found = seen(image, jpeg_quality=quality).astype(int)
    loss = np.abs(expected - image).mean()
    assert np.abs(found - expected).mean() < 1, 'more than a grey level apart'
    assert np.abs(found - image).mean() == pytest.approx(loss, rel=0.05, abs=0.2)


def test_noise_has_the_deviation_that_it_says_and_differs_from_frame_to_frame() -> None:
    """A mid-grey picture clips nothing."""
    grey = torch.full((2, 3, 64, 64, 3), 128, dtype=torch.uint8)
    noisy = camera_effects.apply(grey, CameraEffects(noise=torch.tensor([5.0, 20.0]))).float()
    assert noisy[0].std().item() == pytest.approx(5, rel=0.05)
    assert noisy[1].std().item() == pytest.approx(20, rel=0.05)
    assert noisy.mean().item() == pytest.approx(128, abs=0.5)
    assert not noisy[0, 0].equal(noisy[0, 1])


def test_a_stop_doubles_the_light_and_white_balance_moves_red_against_blue() -> None:
    """Light, not pixel values: these are 2.2nd roots of it."""
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert seen(grey, exposure_stops=1)[0, 0].tolist() == [round(100 * 2 ** (1 / 2.2))] * 3
    assert seen(grey, exposure_stops=-2)[0, 0].tolist() == [round(100 * 2 ** (-2 / 2.2))] * 3
    assert seen(grey, exposure_stops=9).max() == 255
    assert seen(grey, white_balance=0.2)[0, 0].tolist() == [120, 100, 80]
    assert seen(grey, white_balance=-0.2)[0, 0].tolist() == [80, 100, 120]


def test_every_window_has_its_own_strength() -> None:
    """One of strength zero stays as it is, whatever the others have."""
    two = windows()
    for effects in (CameraEffects(blur_px=torch.tensor([0.0, 3.0])),
                    CameraEffects(noise=torch.tensor([0.0, 9.0])),
                    CameraEffects(exposure_stops=torch.tensor([0.0, 1.0])),
                    CameraEffects(white_balance=torch.tensor([0.0, 0.2]))):
        changed = camera_effects.apply(two, effects)
        assert changed[0].equal(two[0]) and not changed[1].equal(two[1])
    assert camera_effects.apply(two, CameraEffects()) is two


@pytest.mark.parametrize('option', [{'blur': 3.0}, {'jpeg': 5}, {'exposure': 1.0},
                                    {'white_balance': 0.3}])
def test_a_camera_keeps_its_blur_its_light_and_its_compression_over_a_window(
        option: dict[str, float]) -> None:
    """A standing picture stays standing; windows differ."""
    torch.manual_seed(0)
    found = augment(windows(), CAMERA, AugmentationConfig(**STILL, **option))  # type: ignore
    assert found[:, 1].equal(found[:, 0]) and found[:, 2].equal(found[:, 0])
    assert not found[0].equal(found[1])
    assert not found[0].equal(normalise_images(windows()[0], CAMERA))


def test_noise_is_drawn_for_every_frame_in_training() -> None:
    """Each window has its own deviation, each frame its own noise."""
    torch.manual_seed(0)
    found = augment(windows(), CAMERA, AugmentationConfig(**STILL, noise=20.0))
    assert not found[0, 0].equal(found[0, 1])
    spread = [(found[i] - found[i].mean(0)).std().item() for i in range(2)]
    assert abs(spread[0] - spread[1]) > 0.01


def test_trainings_without_camera_effects_draw_what_they_always_drew() -> None:
    """They are off by default, and what is off takes no random number."""
    config = AugmentationConfig(0.1, 0.1, 0.2, 0.1, 0.1, 0.1)
    torch.manual_seed(0)
    first = augment(windows(), CAMERA, config)
    after = torch.rand(1)
    torch.manual_seed(0)
    named = AugmentationConfig(0.1, 0.1, 0.2, 0.1, 0.1, 0.1, noise=0.0, blur=0.0, jpeg=None,
                               exposure=0.0, white_balance=0.0)
    assert augment(windows(), CAMERA, named).equal(first) and torch.rand(1).equal(after)
    assert AugmentationConfig(0, 0).is_off
    assert not AugmentationConfig(0, 0, jpeg=50).is_off


@pytest.mark.parametrize(('option', 'complaint'), [
    ({'noise': -1.0}, 'noise'), ({'noise': 256.0}, 'noise'), ({'blur': float('nan')}, 'blur'),
    ({'jpeg': 0}, 'jpeg'), ({'jpeg': 101}, 'jpeg'), ({'exposure': 9.0}, 'exposure'),
    ({'white_balance': 1.0}, 'white_balance')])
def test_strengths_that_no_camera_has_are_refused(option: dict, complaint: str) -> None:
    """Also what is no number at all."""
    with pytest.raises(ValueError, match=complaint):
        AugmentationConfig(**option)

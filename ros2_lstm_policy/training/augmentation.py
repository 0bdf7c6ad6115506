"""
Image augmentation on the device: a camera's imperfections, random shift, crop and colour.

One draw a window and camera, the same for all its steps, so that what moves in a window is the
robot and not the picture; noise alone differs from frame to frame, as a sensor's does. Camera
effects and shifts work on uint8; colour is one affine map of the normalised values, equal to
brightness, contrast and tint on the pixels. Letter: X a window of one camera.

Where windows are the segments of an episode, one draw holds for all of them (`Hold`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from einops import rearrange
from ros2_lstm_policy import camera_effects
from ros2_lstm_policy.camera_effects import CameraEffects
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.transforms import normalise_images
import torch
from torch import Tensor
from torch.nn import functional

_GREY = 0.5  # contrast turns about this value
_FINEST_JPEG = 95  # quality, of the windows that are compressed least
# Takes a name and a fresh draw for each window; returns the draw that holds for it.
Hold: TypeAlias = Callable[[str, Tensor], Tensor]
_LIMITS = {'noise': 255.0, 'blur': 50.0, 'exposure': 8.0}


@dataclass(frozen=True)
class AugmentationConfig:
    """
    How far each draw may go; 0 for none.

    :param static_shift: shift of every camera but `hand`, a share of its side; borders are
        repeated. The reference's 10 of 224 pixels.
    :param hand_shift: shift of a camera named `hand`; the reference's 4 of 224 pixels.
    :param crop: the largest share of a side that a random crop cuts away before the resize back.
    :param brightness: added to all channels, of values in [0, 1].
    :param contrast: relative change about mid-grey.
    :param tint: added to each channel, of values in [0, 1].
    :param noise: standard deviation of a sensor's noise, of 255 and at the size that the policy
        sees; drawn anew for each frame.
    :param blur: standard deviation of a Gaussian, pixels of the size that the policy sees.
    :param jpeg: the lowest quality of JPEG compression, 1 to 100; None for none.
    :param exposure: stops to either side; one doubles or halves the light.
    :param white_balance: share by which red grows and blue falls, or the reverse.
    """

    static_shift: float = 10 / 224
    hand_shift: float = 4 / 224
    crop: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    tint: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    jpeg: int | None = None
    exposure: float = 0.0
    white_balance: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what would leave no image."""
        for name in ('static_shift', 'hand_shift', 'crop', 'brightness', 'contrast', 'tint',
                     'white_balance'):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f'{name} must be in [0, 1), found {value}')
        for name, most in _LIMITS.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f'{name} must be in [0, {most:g}], found {getattr(self, name)}')
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise ValueError(f'jpeg must be a quality, 1 to 100, found {self.jpeg}')

    @property
    def is_off(self) -> bool:
        """Return whether every draw leaves the image as it is."""
        return not any((self.static_shift, self.hand_shift, self.crop, self.brightness,
                        self.contrast, self.tint, self.noise, self.blur, self.jpeg,
                        self.exposure, self.white_balance))


def each_anew(name: str, draw: Tensor) -> Tensor:
    """Hold nothing: every window has its own draw."""
    return draw


def augment(images_BTHWC: Tensor, camera: CameraSpec, config: AugmentationConfig,
            hold: Hold = each_anew) -> Tensor:
    """
    Augment and normalise the windows of one camera.

    :param images_BTHWC: uint8 RGB.
    :param hold: what holds of earlier draws.
    :return: (B, T, 3, H, W) float32, as :func:`transforms.normalise_images` gives it.
    """
    images_BTHWC = camera_effects.apply(
        images_BTHWC, random_effects(config, len(images_BTHWC), images_BTHWC.device, hold))
    share = config.hand_shift if camera.name == 'hand' else config.static_shift
    if share:
        images_BTHWC = random_shift(images_BTHWC, share, hold)
    normalised = normalise_images(images_BTHWC, camera)
    if config.crop:
        normalised = random_crop(normalised, config.crop, hold)
    if config.brightness or config.contrast or config.tint:
        normalised = random_colour(normalised, camera, config, hold)
    return normalised


def random_effects(config: AugmentationConfig, windows: int, device: torch.device,
                   hold: Hold = each_anew) -> CameraEffects:
    """Draw what each window's camera does to its pictures; what is off draws nothing."""
    def up_to(name: str, most: float) -> Tensor | None:
        return hold(name, most * torch.rand(windows, device=device)) if most else None

    def to_either_side(name: str, most: float) -> Tensor | None:
        return hold(name, most * _signed(windows, 1, device)[:, 0]) if most else None

    quality = None
    if config.jpeg is not None:
        finest = max(config.jpeg, _FINEST_JPEG)
        quality = hold('jpeg', config.jpeg
                       + (finest - config.jpeg) * torch.rand(windows, device=device))
    return CameraEffects(
        blur_px=up_to('blur', config.blur),
        exposure_stops=to_either_side('exposure', config.exposure),
        noise=up_to('noise', config.noise),
        white_balance=to_either_side('white_balance', config.white_balance),
        jpeg_quality=quality)


def random_shift(images_BTHWC: Tensor, share: float, hold: Hold = each_anew) -> Tensor:
    """Shift each window by whole pixels, up to `share` of a side; borders are repeated."""
    batch, _, height, width, _ = images_BTHWC.shape
    device = images_BTHWC.device
    rows = hold('rows', _shifted(batch, height, share, device))
    columns = hold('columns', _shifted(batch, width, share, device))
    b = torch.arange(batch, device=device)[:, None, None]
    moved = rearrange(images_BTHWC, 'b t h w c -> b h w t c')[
        b, rows[:, :, None], columns[:, None, :]]
    return rearrange(moved, 'b h w t c -> b t h w c')


def random_crop(images_BTCHW: Tensor, share: float, hold: Hold = each_anew) -> Tensor:
    """Cut up to `share` of each side away, at a random place, and resize back (bilinear)."""
    batch, steps = images_BTCHW.shape[:2]
    kept = hold('kept', 1 - share * torch.rand(batch, device=images_BTCHW.device))
    off = hold('off', 2 * torch.rand(batch, 2, device=images_BTCHW.device) - 1)
    centre = off * (1 - kept)[:, None]
    theta = torch.diag_embed(kept[:, None].expand(-1, 2))
    theta = torch.cat([theta, centre[:, :, None]], dim=-1).repeat_interleave(steps, 0)
    flat = rearrange(images_BTCHW, 'b t c h w -> (b t) c h w')
    grid = functional.affine_grid(theta, list(flat.shape), align_corners=False)
    cropped = functional.grid_sample(flat, grid, padding_mode='border', align_corners=False)
    return rearrange(cropped, '(b t) c h w -> b t c h w', b=batch)


def random_colour(images_BTCHW: Tensor, camera: CameraSpec, config: AugmentationConfig,
                  hold: Hold = each_anew) -> Tensor:
    """Change brightness, contrast and tint of normalised windows."""
    batch, device = images_BTCHW.shape[0], images_BTCHW.device
    mean, std = (images_BTCHW.new_tensor(values) for values in (camera.mean, camera.std))
    gain_X1 = 1 + config.contrast * hold('contrast', _signed(batch, 1, device))
    offset_XC = (config.brightness * hold('brightness', _signed(batch, 1, device))
                 + config.tint * hold('tint', _signed(batch, 3, device)))
    # x -> (x - grey) gain + grey + offset, written for n = (x - mean) / std
    bias_XC = (gain_X1 * (mean - _GREY) + _GREY + offset_XC - mean) / std
    return torch.addcmul(bias_XC[:, None, :, None, None], images_BTCHW,
                         gain_X1[:, None, :, None, None])


def _signed(batch: int, values: int, device: torch.device) -> Tensor:
    return 2 * torch.rand(batch, values, device=device) - 1


def _shifted(batch: int, side: int, share: float, device: torch.device) -> Tensor:
    """Return the source row (or column) of each row, (B, side), for one shift a window."""
    most = round(share * side)
    shift = torch.randint(-most, most + 1, (batch, 1), device=device)
    return (torch.arange(side, device=device) + shift).clamp_(0, side - 1)

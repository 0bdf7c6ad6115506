"""
What a camera does to a picture: blur, exposure, noise, white balance and JPEG, in this order.

The one copy for training's augmentation and for evaluation under changed conditions. Everything is
computed where the images are, on a CPU or a GPU. Letters: X a window of one camera, each with
strengths of its own, T its steps, H W C the image. Values are 0 to 255.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from einops import rearrange
import torch
from torch import Tensor
from torch.nn import functional

GAMMA = 2.2  # of the pixels: a stop doubles the light, not the value
_BLOCK = 8  # JPEG transforms blocks of 8 x 8
_LARGEST = 255.0
_SHARPEST_PX = 1e-3  # a Gaussian as narrow as this is one pixel

# ITU-T T.81, tables K.1 and K.2
_LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
         14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
         18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
         49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)
_CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
           24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
           *(99,) * 32)


class CameraEffects(NamedTuple):
    """
    How strongly each window is changed; None for not at all.

    :param blur_px: standard deviation of a Gaussian, (X,) pixels.
    :param exposure_stops: (X,), above 0 is brighter; each stop is twice the light.
    :param noise: standard deviation of each value of each frame, (X,) of 255.
    :param white_balance: (X,) share by which red grows and blue falls, above -1 and below 1.
    :param jpeg_quality: (X,) as libjpeg counts it, 1 to 100.
    """

    blur_px: Tensor | None = None
    exposure_stops: Tensor | None = None
    noise: Tensor | None = None
    white_balance: Tensor | None = None
    jpeg_quality: Tensor | None = None


def apply(images_XTHWC: Tensor, effects: CameraEffects,
          generator: torch.Generator | None = None) -> Tensor:
    """
    Change windows as cameras would.

    :param images_XTHWC: uint8 RGB.
    :param generator: of the noise, on the images' device; None for torch's own.
    :return: uint8, the same shape; the same tensor where nothing changes.
    """
    if all(strength is None for strength in effects):
        return images_XTHWC
    values = images_XTHWC.float()
    if effects.blur_px is not None:
        values = blur(values, effects.blur_px)
    if effects.exposure_stops is not None:
        values = values * _to_windows(torch.exp2(effects.exposure_stops / GAMMA))
    if effects.noise is not None:
        drawn = torch.empty_like(values).normal_(generator=generator)
        values = values + drawn * _to_windows(effects.noise)
    if effects.white_balance is not None:
        shift_X = effects.white_balance
        gains_XC = torch.stack([1 + shift_X, torch.ones_like(shift_X), 1 - shift_X], -1)
        values = values * gains_XC[:, None, None, None, :]
    values = _rounded(values)
    if effects.jpeg_quality is not None:
        values = jpeg(values, effects.jpeg_quality)
    return values.to(torch.uint8)


def blur(values_XTHWC: Tensor, sigma_X: Tensor) -> Tensor:
    """Smooth with a Gaussian of each window's own width; borders are mirrored."""
    height, width = values_XTHWC.shape[2:4]
    wanted = math.ceil(3 * float(sigma_X.max()))
    for axis, side in ((2, height), (3, width)):
        radius = min(wanted, side - 1)
        offsets = torch.arange(-radius, radius + 1, device=sigma_X.device)
        weights_XK = torch.exp(-0.5 * (offsets / sigma_X.clamp(min=_SHARPEST_PX)[:, None]) ** 2)
        weights_XK = weights_XK / weights_XK.sum(1, keepdim=True)
        places = (torch.arange(side, device=sigma_X.device)[:, None] + offsets).abs()
        places = torch.where(places >= side, 2 * (side - 1) - places, places)  # (side, K)
        smooth = torch.zeros_like(values_XTHWC)
        for k in range(len(offsets)):
            moved = values_XTHWC.index_select(axis, places[:, k])
            smooth.addcmul_(moved, _to_windows(weights_XK[:, k]))
        values_XTHWC = smooth
    return values_XTHWC


def jpeg(values_XTHWC: Tensor, quality_X: Tensor) -> Tensor:
    """
    Compress and decompress as baseline JPEG does, with half the colour resolution (4:2:0).

    ITU-T T.81 and JFIF, with libjpeg's quality and its smooth upsampling of colour. What is lost
    is lost in rounding the cosine transform's values; the lossless rest is left out.

    :param values_XTHWC: whole numbers.
    """
    height, width = values_XTHWC.shape[2:4]
    even = rearrange(values_XTHWC, 'x t h w c -> (x t) c h w')
    bottom, right = -height % (2 * _BLOCK), -width % (2 * _BLOCK)
    even = functional.pad(even, (0, right, 0, bottom), mode='replicate')
    red, green, blue = even.unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round()
    colours = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1).round()
    steps = values_XTHWC.shape[1]
    luma = _coded(luma[:, None] - 128, _quantiser(_LUMA, quality_X, steps)) + 128
    small = _coded(functional.avg_pool2d(colours, 2), _quantiser(_CHROMA, quality_X, steps))
    cb, cr = functional.interpolate(small, scale_factor=2, mode='bilinear',
                                    align_corners=False).unbind(1)
    y = luma[:, 0]
    rgb = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    whole = _rounded(rgb[..., :height, :width])
    return rearrange(whole, '(x t) c h w -> x t h w c', t=steps)


def _coded(planes_NCHW: Tensor, steps_N88: Tensor) -> Tensor:
    """Round the cosine transform of each block of 8 x 8 to multiples of the quantiser's steps."""
    cosines = _cosines(planes_NCHW.device)
    rows = planes_NCHW.shape[2] // _BLOCK
    blocks = rearrange(planes_NCHW, 'n c (h i) (w j) -> n (c h w) i j', i=_BLOCK, j=_BLOCK)
    steps = steps_N88[:, None]
    whole = torch.round(cosines @ blocks @ cosines.T / steps) * steps
    return rearrange(cosines.T @ whole @ cosines, 'n (c h w) i j -> n c (h i) (w j)',
                     c=planes_NCHW.shape[1], h=rows)


def _quantiser(base: tuple[int, ...], quality_X: Tensor, steps: int) -> Tensor:
    """Return libjpeg's table of a quality for every frame, (X T, 8, 8)."""
    quality_X = quality_X.float().clamp(1, 100)
    scale_X = torch.where(quality_X < 50, 5000 / quality_X, 200 - 2 * quality_X)
    table = torch.tensor(base, dtype=torch.float32, device=quality_X.device)
    scaled = torch.floor((table.view(_BLOCK, _BLOCK) * scale_X[:, None, None] + 50) / 100)
    return scaled.clamp(1, _LARGEST).repeat_interleave(steps, 0)


@functools.cache
def _cosines(device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II, (8, 8): row k has frequency k."""
    places = torch.arange(_BLOCK, dtype=torch.float64)
    rows = torch.cos(math.pi / _BLOCK * (places[None] + 0.5) * places[:, None])
    rows *= math.sqrt(2 / _BLOCK)
    rows[0] /= math.sqrt(2)
    return rows.float().to(device)


def _rounded(values: Tensor) -> Tensor:
    return values.round().clamp(0, _LARGEST)


def _to_windows(strength_X: Tensor) -> Tensor:
    return strength_X[:, None, None, None, None]

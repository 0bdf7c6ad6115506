"""
Forward prediction: the next frames of a camera, from the feature stream.

Letters beside those of `types`: F future frame, P patch, C values of a patch.
An auxiliary task of training only: a feature that foresees the next frames knows what moves and
how. Acting never runs it. As in GR-1 (Wu et al. 2023, arXiv 2312.13139), targets are
pixels normalised patch by patch (He et al. 2022, arXiv 2111.06377).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from einops import rearrange
import torch
from torch import nn, Tensor
from torch.nn import functional

_PATCH_EPSILON = 1e-4  # of pixel values in [0, 1]: a flat patch has no noise to predict


@dataclass(frozen=True)
class ForwardConfig:
    """
    What is predicted ahead.

    :param cameras: names of the cameras whose frames are predicted.
    :param frames: how many next frames, one control period apart.
    :param size: side of the predicted frames in pixels; targets are averaged down to it.
    :param patch: side of a patch in pixels; a divisor of `size`.
    :param width: features of the head.
    """

    cameras: tuple[str, ...] = ('static',)
    frames: int = 2
    size: int = 32
    patch: int = 8
    width: int = 256

    def __post_init__(self) -> None:
        """Refuse sizes that no frame can have."""
        if min(self.frames, self.size, self.patch, self.width) < 1:
            raise ValueError('frames, size, patch and width must be at least 1')
        if self.size % self.patch:
            raise ValueError(f'size {self.size} is no multiple of patch {self.patch}')

    @staticmethod
    def upgrade(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read 0.1's switches `static` and `hand` as the names of cameras."""
        if not {'static', 'hand'} & values.keys():
            return values
        on = {'static': values.get('static', True), 'hand': values.get('hand', False)}
        rest = {key: value for key, value in values.items() if key not in on}
        return {'cameras': [name for name, wanted in on.items() if wanted], **rest}


class ForwardHead(nn.Module):
    """One camera's next frames from one feature: a query a patch, mixed with the feature."""

    def __init__(self, feature_dim: int, config: ForwardConfig) -> None:
        """Create a head for features of width `feature_dim`."""
        super().__init__()
        patches = config.frames * (config.size // config.patch) ** 2
        self.frames = config.frames
        self.condition = nn.Linear(feature_dim, config.width)
        self.queries = nn.Parameter(torch.randn(patches, config.width) * 0.02)
        self.mlp = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, 2 * config.width), nn.GELU(),
            nn.Linear(2 * config.width, 3 * config.patch ** 2))

    def forward(self, feature_BTD: Tensor) -> Tensor:
        """Return the predicted patches (B, T, F, P, C) of normalised pixels."""
        mixed = self.condition(feature_BTD).unsqueeze(2) + self.queries
        return rearrange(self.mlp(mixed), 'b t (f p) c -> b t f p c', f=self.frames)


def target_patches(future_BTFHWC: Tensor, config: ForwardConfig) -> Tensor:
    """
    Return what the head is to predict.

    :param future_BTFHWC: uint8 RGB frames; F may exceed the configured number.
    :return: (B, T, F, P, C) float32, each patch with mean 0 and deviation 1.
    """
    frames = future_BTFHWC[:, :, :config.frames]
    flat = rearrange(frames, 'b t f h w c -> (b t f) c h w').float() / 255
    small = functional.interpolate(flat, (config.size, config.size), mode='area')
    patches = rearrange(small, '(b t f) c (y p) (x q) -> b t f (y x) (p q c)',
                        b=frames.shape[0], t=frames.shape[1], p=config.patch, q=config.patch)
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True, correction=0)
    return (patches - mean) / (variance + _PATCH_EPSILON).sqrt()


def forward_loss(predicted_BTFPC: Tensor, target_BTFPC: Tensor, valid_BTF: Tensor) -> Tensor:
    """
    Return the mean squared error over the frames that exist.

    :param valid_BTF: bool; False where the episode had ended before that frame.
    :return: a scalar; 0 where nothing is valid.
    """
    error_BTF = (predicted_BTFPC.float() - target_BTFPC).square().mean(dim=(-2, -1))
    count = valid_BTF.sum().clamp_min(1)
    return torch.where(valid_BTF, error_BTF, 0.0).sum() / count

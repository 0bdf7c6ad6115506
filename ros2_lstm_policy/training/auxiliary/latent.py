"""
A learned latent of the action chunk: how this chunk was done, beyond what was seen and said.

As in ACT (Zhao et al. 2023, arXiv 2304.13705) and HULC (Mees et al. 2022, arXiv 2204.06252): in
training an encoder sees the labels and gives z ~ N(mean, variance), which is added to the feature;
a KL term holds it to the prior N(0, I). Acting uses the prior's mean, zero, and the map from z
to the feature has no bias, so a policy acts exactly as if the latent were not there: it is no part
of the checkpoint.
Letter beside those of `types`: Z latent dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from einops import rearrange
import torch
from torch import nn, Tensor


@dataclass(frozen=True)
class LatentConfig:
    """
    Size of the latent.

    :param size: dimensions Z.
    :param width: features of the encoder.
    """

    size: int = 32
    width: int = 256

    def __post_init__(self) -> None:
        """Refuse an empty latent."""
        if min(self.size, self.width) < 1:
            raise ValueError(f'size and width must be at least 1, found {self.size}, {self.width}')


class Posterior(NamedTuple):
    """
    A Gaussian a step.

    :param mean_BTZ: its mean.
    :param log_variance_BTZ: logarithm of its variance.
    """

    mean_BTZ: Tensor
    log_variance_BTZ: Tensor

    def sample(self) -> Tensor:
        """Return z (B, T, Z), differentiable (the reparametrisation of Kingma and Welling)."""
        return self.mean_BTZ + torch.randn_like(self.mean_BTZ) * (self.log_variance_BTZ / 2).exp()


class ActionLatent(nn.Module):
    """The encoder of the labels and the map from z into the feature."""

    def __init__(self, feature_dim: int, chunk: int, action_dim: int,
                 config: LatentConfig) -> None:
        """Create an encoder for chunks of `chunk` actions of `action_dim` numbers."""
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(feature_dim + chunk * (action_dim + 1), config.width), nn.GELU(),
            nn.Linear(config.width, 2 * config.size))
        self.into_feature = nn.Linear(config.size, feature_dim, bias=False)

    def encode(self, feature_BTD: Tensor, continuous_BTKC: Tensor, binary_BTKG: Tensor,
               valid_BTK: Tensor) -> Posterior:
        """Return the posterior of each step's chunk; labels that are not valid are not seen."""
        labels = torch.cat([continuous_BTKC, binary_BTKG], dim=-1)
        seen = torch.where(valid_BTK.unsqueeze(-1), labels, 0.0)
        seen = torch.cat([seen, valid_BTK.unsqueeze(-1).to(seen.dtype)], dim=-1)
        flat = rearrange(seen, 'b t k a -> b t (k a)')
        mean, log_variance = self.encoder(torch.cat([feature_BTD, flat], -1)).float().chunk(2, -1)
        return Posterior(mean, log_variance)

    def condition(self, features_BTND: Tensor, z_BTZ: Tensor) -> Tensor:
        """Return the features with z mixed into every token."""
        return features_BTND + self.into_feature(z_BTZ).unsqueeze(2)


def kl_loss(posterior: Posterior, valid_BTK: Tensor) -> Tensor:
    """
    Return the divergence from N(0, I), summed over Z, averaged over the steps with a valid action.

    :return: a scalar; 0 where nothing is valid.
    """
    mean, log_variance = posterior
    divergence_BT = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
    valid_BT = valid_BTK.any(-1)
    return torch.where(valid_BT, divergence_BT, 0.0).sum() / valid_BT.sum().clamp_min(1)

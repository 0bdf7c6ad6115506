"""The two heads that turn a recurrent feature into a chunk of actions."""

from __future__ import annotations

from itertools import pairwise

from torch import nn, Tensor

HIDDEN_WIDTHS = (1024, 512, 256)


class MLPHead(nn.Module):
    """
    Three hidden layers with ReLU, as the published checkpoints have it (keys `mlp.0` to `mlp.6`).

    Linear weights start xavier-uniform and biases at zero.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        """Make a head of these widths."""
        super().__init__()
        widths = (in_features, *HIDDEN_WIDTHS)
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], out_features))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return self.mlp(features)


class ArmHead(MLPHead):
    """Normalised continuous values, held in (-1, 1) by a tanh."""

    def forward(self, features: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features) in (-1, 1)."""
        return super().forward(features).tanh()

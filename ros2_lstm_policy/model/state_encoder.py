"""
The robot's states into the backbone's feature.

Shape letters as in `types`: B batch, T step, N token, D feature, S values of the states.
"""

from __future__ import annotations

import torch
from torch import nn, Tensor


class StateEncoder(nn.Module):
    """
    Adds what the states say to every feature token of a step.

    The last layer begins at zero, so that a policy that is given states for the first time acts as
    it did without them until training changes that. In training the states of a whole window are
    left out at times, so that the policy looks instead of copying: what the robot did last says
    all too well what it does next (causal confusion: de Haan et al., arXiv 1905.11979).

    :param size: values S of all states.
    :param feature_dim: width D of a token.
    :param width: of the hidden layer.
    :param dropout: share of the windows that are trained without states.
    """

    def __init__(self, size: int, feature_dim: int, width: int, dropout: float) -> None:
        """Make the layers."""
        super().__init__()
        self.dropout = dropout
        first, last = nn.Linear(size, width), nn.Linear(width, feature_dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(first, nn.GELU(), nn.Linear(width, width),
                                 nn.GELU(), last)

    def forward(self, tokens_BTND: Tensor, states_BTS: Tensor) -> Tensor:
        """Return the tokens with the states in them."""
        added_BTD = self.mlp(states_BTS)
        if self.training and self.dropout:
            kept_B = torch.rand(len(added_BTD), device=added_BTD.device) >= self.dropout
            added_BTD = added_BTD * kept_B[:, None, None]
        return tokens_BTND + added_BTD.unsqueeze(2).to(tokens_BTND.dtype)

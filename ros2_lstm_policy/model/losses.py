"""
Losses of an action chunk: means over the valid entries.

Shape letters as in `types`: B batch, T step, K action in the chunk, C continuous values, G binary.
"""

from __future__ import annotations

from typing import NamedTuple

from ros2_lstm_policy.types import ActionChunk

import torch
from torch import Tensor
from torch.nn import functional as F


class ActionLoss(NamedTuple):
    """
    What an action chunk costs.

    :param arm: Huber loss (delta 1) on the normalised continuous values.
    :param gripper: binary cross-entropy with logits on the binary ones; 0 without any.
    :param gripper_accuracy: share of the binary values that are right at probability 0.5.
    """

    arm: Tensor
    gripper: Tensor
    gripper_accuracy: Tensor


def action_loss(chunk: ActionChunk, continuous_BTKC: Tensor, binary_BTKG: Tensor,
                valid_BTK: Tensor | None = None,
                weights_BT: Tensor | None = None) -> ActionLoss:
    """
    Compare a chunk with its labels.

    :param continuous_BTKC: labels, normalised by the manifest.
    :param binary_BTKG: labels 0 or 1.
    :param valid_BTK: entries that count; None for all. Where none counts, the losses are 0.
    :param weights_BT: what each step weighs in the losses; None for all alike.
    :raises ValueError: for labels or a mask of another shape than the chunk's.
    """
    value, logit = chunk
    every = torch.ones_like(value[..., 0], dtype=torch.bool)
    valid = every if valid_BTK is None else valid_BTK.bool()
    _require_shape('arm labels', continuous_BTKC, value)
    _require_shape('gripper labels', binary_BTKG, logit)
    _require_shape('validity mask', valid, every)
    label = binary_BTKG.to(logit.dtype)
    arm_BTK = F.huber_loss(value, continuous_BTKC.to(value.dtype), reduction='none').mean(-1)
    gripper_BTK = _mean(F.binary_cross_entropy_with_logits(logit, label, reduction='none'))
    right_BTK = _mean(((logit > 0) == (label > 0.5)).to(logit.dtype))
    return ActionLoss(weighted_mean(arm_BTK, valid, weights_BT),
                      weighted_mean(gripper_BTK, valid, weights_BT),
                      masked_mean(right_BTK, valid).detach())


def _mean(values_BTKG: Tensor) -> Tensor:
    """Return the mean over G, 0 where G is 0."""
    return values_BTKG.sum(-1) / max(values_BTKG.shape[-1], 1)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of the entries where `valid` is true, 0 where there is none."""
    kept = torch.where(valid, values, values.new_zeros(()))
    return kept.sum() / valid.sum().clamp(min=1)


def weighted_mean(values_BTK: Tensor, valid_BTK: Tensor, weights_BT: Tensor | None) -> Tensor:
    """Return that mean where each step has a weight; None for all alike."""
    if weights_BT is None:
        return masked_mean(values_BTK, valid_BTK)
    weights_BTK = weights_BT.unsqueeze(-1) * valid_BTK
    kept = torch.where(valid_BTK, values_BTK, values_BTK.new_zeros(()))
    total = weights_BTK.sum()
    return (weights_BTK * kept).sum() / torch.where(total > 0, total, torch.ones_like(total))


def _require_shape(what: str, found: Tensor, like: Tensor) -> None:
    if found.shape != like.shape:
        raise ValueError(f'{what}: expected shape {tuple(like.shape)} as predicted, found '
                         f'{tuple(found.shape)}')

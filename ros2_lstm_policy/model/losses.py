"""
Losses of an action chunk: means over the valid entries.

Shape letters as in `types`: B batch, T step, K action in the chunk, A arm dimension.
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

    :param arm: Huber loss (delta 1) on the normalised deltas.
    :param gripper: binary cross-entropy with logits.
    :param gripper_accuracy: share of gripper commands that are right at probability 0.5.
    """

    arm: Tensor
    gripper: Tensor
    gripper_accuracy: Tensor


def action_loss(chunk: ActionChunk, arm_BTKA: Tensor, gripper_open_BTK: Tensor,
                valid_BTK: Tensor | None = None) -> ActionLoss:
    """
    Compare a chunk with its labels.

    :param arm_BTKA: labels, normalised by the manifest.
    :param gripper_open_BTK: labels 0 or 1.
    :param valid_BTK: entries that count; None for all. Where none counts, the losses are 0.
    :raises ValueError: for labels or a mask of another shape than the chunk's.
    """
    arm, logit = chunk.arm_BTKA, chunk.gripper_logit_BTK
    valid = torch.ones_like(logit, dtype=torch.bool) if valid_BTK is None else valid_BTK.bool()
    _require_shape('arm labels', arm_BTKA, arm)
    _require_shape('gripper labels', gripper_open_BTK, logit)
    _require_shape('validity mask', valid, logit)
    label = gripper_open_BTK.to(logit.dtype)
    arm_BTK = F.huber_loss(arm, arm_BTKA.to(arm.dtype), reduction='none').mean(-1)
    gripper_BTK = F.binary_cross_entropy_with_logits(logit, label, reduction='none')
    right_BTK = ((logit > 0) == (label > 0.5)).to(logit.dtype)
    return ActionLoss(masked_mean(arm_BTK, valid), masked_mean(gripper_BTK, valid),
                      masked_mean(right_BTK, valid).detach())


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of the entries where `valid` is true, 0 where there is none."""
    kept = torch.where(valid, values, values.new_zeros(()))
    return kept.sum() / valid.sum().clamp(min=1)


def _require_shape(what: str, found: Tensor, like: Tensor) -> None:
    if found.shape != like.shape:
        raise ValueError(f'{what}: expected shape {tuple(like.shape)} as predicted, found '
                         f'{tuple(found.shape)}')

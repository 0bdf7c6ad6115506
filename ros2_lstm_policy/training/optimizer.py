"""AdamW over groups of parameters, with the reference's settings as defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class GroupConfig:
    """
    Parameters with a learning rate of their own.

    :param match: pattern of parameter names, as `policy.backbone.vision*`; the first group that
        matches a name takes it.
    :param lr_scale: factor on the learning rate.
    :param weight_decay: None for the common one.
    """

    match: str
    lr_scale: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class OptimiserConfig:
    """
    AdamW and its step.

    :param lr: learning rate after the warm-up; the reference's, for fine-tuning a whole model.
    :param weight_decay: decoupled; biases, norms and other vectors are never decayed.
    :param betas: decay of AdamW's averages of the gradient and of its square.
    :param clip_norm: largest norm of the whole gradient; 0 for no clipping.
    :param accumulate: batches whose gradients make one step.
    :param groups: parameters treated differently.
    """

    lr: float = 2e-5
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    accumulate: int = 4
    groups: tuple[GroupConfig, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a step that cannot be taken."""
        if not self.lr > 0 or self.weight_decay < 0 or self.clip_norm < 0 or self.accumulate < 1:
            raise ValueError('lr must be positive, weight_decay and clip_norm not negative, '
                             'accumulate at least 1')
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f'betas must be in [0, 1), found {self.betas}')


def create(module: nn.Module, config: OptimiserConfig, fused: bool) -> torch.optim.AdamW:
    """
    Return the optimiser of everything that is trained.

    :param fused: one kernel for all parameters, where the device has it.
    :raises ValueError: for a group that matches nothing, or where nothing is trained.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError('nothing is left to train: everything is frozen')
    return torch.optim.AdamW(parameter_groups(named, config), lr=config.lr, betas=config.betas,
                             fused=fused)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]],
                     config: OptimiserConfig) -> list[dict[str, Any]]:
    """
    Sort parameters into groups; each splits into decayed and undecayed ones.

    A group's `base_lr` is its rate at full scale; the schedule sets `lr` from it at every step.
    """
    taken: dict[tuple[int, bool], list[nn.Parameter]] = {}
    everything = (*config.groups, GroupConfig('*'))
    for name, parameter in named:
        number = next(i for i, group in enumerate(everything) if fnmatchcase(name, group.match))
        taken.setdefault((number, parameter.ndim > 1), []).append(parameter)
    for number, group in enumerate(config.groups):
        if not any(key[0] == number for key in taken):
            raise ValueError(f'optimiser.groups: {group.match!r} matches no trained parameter')
    return [_group(everything[number], decayed, parameters, config)
            for (number, decayed), parameters in sorted(taken.items(), key=lambda item: item[0])]


def _group(group: GroupConfig, decayed: bool, parameters: list[nn.Parameter],
           config: OptimiserConfig) -> dict[str, Any]:
    decay = config.weight_decay if group.weight_decay is None else group.weight_decay
    lr = config.lr * group.lr_scale
    return {'params': parameters, 'lr': lr, 'base_lr': lr,
            'weight_decay': decay if decayed else 0.0}

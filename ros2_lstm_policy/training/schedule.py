"""
Learning rate over a run whose end is a number of steps, of passes over the data, or of seconds.

Warm-up is linear in steps. After it the rate follows how far the run is, from 0 to 1: the most
advanced of its limits. So a run under a time limit ends at the lowest rate on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Literal


@dataclass(frozen=True)
class ScheduleConfig:
    """
    When the run ends and how the learning rate gets there.

    :param kind: 'constant' after the warm-up; 'half-cosine' from the full rate down to
        `min_lr_scale` of it along half a cosine, at every step; 'cosine' the same, changed
        once a pass over the data (cosine annealing per epoch).
    :param warmup_steps: optimiser steps of linear warm-up.
    :param warmup_epochs: the same in passes over the data; the two add up.
    :param min_lr_scale: the lowest rate of a cosine, as a share of the full one.
    :param max_steps: optimiser steps; None for no such limit.
    :param max_epochs: passes over the training windows; None for no such limit.
    :param max_time_s: seconds of training, validation included; None for no such limit.
    """

    kind: Literal['constant', 'cosine', 'half-cosine'] = 'cosine'
    warmup_steps: int = 0
    warmup_epochs: float = 0.0
    min_lr_scale: float = 0.01
    max_steps: int | None = None
    max_epochs: float | None = None
    max_time_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse a run without an end."""
        limits = (self.max_steps, self.max_epochs, self.max_time_s)
        if all(limit is None for limit in limits):
            raise ValueError('set at least one of max_steps, max_epochs and max_time_s')
        if any(limit is not None and limit <= 0 for limit in limits):
            raise ValueError('max_steps, max_epochs and max_time_s must be positive')
        if self.warmup_steps < 0 or self.warmup_epochs < 0:
            raise ValueError('warmup_steps and warmup_epochs must not be negative')
        if not 0 <= self.min_lr_scale <= 1:
            raise ValueError(f'min_lr_scale must be in [0, 1], found {self.min_lr_scale}')


@dataclass(frozen=True)
class Schedule:
    """
    A :class:`ScheduleConfig` that knows how long a pass over the data is.

    :param steps_per_epoch: optimiser steps of one pass over the training windows.
    """

    config: ScheduleConfig
    steps_per_epoch: float

    @property
    def max_steps(self) -> int | None:
        """Return the last optimiser step, None where only time ends the run."""
        limits = [self.config.max_steps]
        if self.config.max_epochs is not None:
            limits.append(math.ceil(self.config.max_epochs * self.steps_per_epoch))
        known = [limit for limit in limits if limit is not None]
        return min(known) if known else None

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return how far the run is, 0 at its start to 1 at its end."""
        done = [0.0]
        if self.max_steps is not None:
            done.append(step / self.max_steps)
        if self.config.max_time_s is not None:
            done.append(elapsed_s / self.config.max_time_s)
        return min(1.0, max(done))

    def scale(self, step: int, elapsed_s: float) -> float:
        """Return the factor on every group's learning rate for optimiser step `step` (from 0)."""
        warmup = self.config.warmup_steps + self.config.warmup_epochs * self.steps_per_epoch
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.config.kind == 'constant':
            return 1.0
        progress = self.progress(step, elapsed_s)
        if self.config.kind == 'cosine' and self.max_steps is not None:
            epochs = self.max_steps / self.steps_per_epoch
            progress = math.floor(progress * epochs) / epochs
        low = self.config.min_lr_scale
        return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2

"""
The configuration of a training run: one frozen dataclass a topic, read strictly from YAML.

Defaults are the reference's training settings (RoboVLMs, arXiv 2412.14058) unless a field says
otherwise. docs/training.md explains each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ros2_lstm_policy.model.policy import PolicyConfig
from ros2_lstm_policy.training.augmentation import AugmentationConfig
from ros2_lstm_policy.training.data_config import DataConfig, ManifestConfig
from ros2_lstm_policy.training.objective import LossConfig
from ros2_lstm_policy.training.optimizer import OptimiserConfig
from ros2_lstm_policy.training.schedule import ScheduleConfig
from ros2_lstm_policy.training.tuning import TuneConfig


@dataclass(frozen=True)
class ValidationConfig:
    """
    Measuring on episodes that training never sees.

    :param every_steps: optimiser steps between two validations.
    :param max_windows: windows measured, spread evenly over the held-out episodes; under
        `history: carry` the segments of as many whole episodes.
    :param batch_size: windows (or episodes) at once.
    """

    every_steps: int = 1000
    max_windows: int = 2048
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Refuse a validation that never happens."""
        if min(self.every_steps, self.max_windows, self.batch_size) < 1:
            raise ValueError('every_steps, max_windows and batch_size must be at least 1')


@dataclass(frozen=True)
class RecurrenceConfig:
    """
    How a policy with `policy.decoder.history: carry` learns over whole episodes.

    :param segment: steps between two cuts of the gradient (truncated backpropagation through
        time); the state goes on beyond them.
    :param state_dropout: share of the segments that begin with an empty state, as after a reset
        in the middle of an episode.
    :param chrono: the longest time that something is to be kept, in steps: forget gates begin so
        that the LSTM's cells keep for 1 to so many steps (Tallec and Ollivier, arXiv 1804.11188);
        0 begins as PyTorch does.
    """

    segment: int = 32
    state_dropout: float = 0.0
    chrono: int = 0

    def __post_init__(self) -> None:
        """Refuse segments of nothing, and a state that is never there."""
        if not 1 <= self.segment <= 10_000:
            raise ValueError(f'segment must be from 1 to 10000 steps, found {self.segment}')
        if not 0 <= self.state_dropout < 1:
            raise ValueError(f'state_dropout must be at least 0 and below 1, found '
                             f'{self.state_dropout}')
        if self.chrono and self.chrono < 3:
            raise ValueError(f'chrono must be 0, or at least 3 steps, found {self.chrono}')


@dataclass(frozen=True)
class EngineConfig:
    """
    What the run computes on, and in which numbers.

    :param accelerator: 'auto' takes a GPU where there is one.
    :param devices: GPUs (or processes on a CPU) of each node; 0 takes all.
    :param nodes: machines, each started with the same command by torchrun.
    :param strategy: 'auto' is one process, or 'ddp' where there are several devices; 'fsdp'
        shards the weights; 'deepspeed_stage_2' needs DeepSpeed installed.
    :param precision: 'fp32', or autocast to 'bf16' or 'fp16' over fp32 weights.
    :param torch_compile: compile the backbone (minutes at first, then faster); on one GPU and
        with `optimiser.accumulate: 1` the compact one's kernels are replayed as CUDA graphs.
    :param gradient_checkpointing: recompute the backbone in the backward pass: less memory.
    :param log_every_steps: optimiser steps between two rows of the curves.
    :param save_every_steps: optimiser steps between two saves of the state that resume needs.
    """

    accelerator: Literal['auto', 'cpu', 'gpu'] = 'auto'
    devices: int = 1
    nodes: int = 1
    strategy: Literal['auto', 'ddp', 'fsdp', 'deepspeed_stage_2'] = 'auto'
    precision: Literal['fp32', 'bf16', 'fp16'] = 'bf16'
    torch_compile: bool = False
    gradient_checkpointing: bool = False
    log_every_steps: int = 10
    save_every_steps: int = 1000

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        if self.devices < 0 or min(self.nodes, self.log_every_steps, self.save_every_steps) < 1:
            raise ValueError('nodes, log_every_steps and save_every_steps must be at least 1, '
                             'devices at least 0')


@dataclass(frozen=True)
class TrainConfig:
    """
    A whole run.

    :param output: directory of the run: checkpoints, curves, the configuration as it was used.
    :param data: recordings and how they become batches.
    :param manifest: what the policy's numbers mean on the robot.
    :param policy: the model.
    :param recurrence: how a state that is carried is trained.
    :param init_from: checkpoint directory to start from; its model must be `policy`.
    :param init_strict: whether every weight of `init_from` must fit. False takes those that fit,
        by name and shape, and begins the rest anew: cameras, states and heads of another body.
    :param ema_decay: decay of the exponential moving average of the weights, which is what is
        validated and saved; 0 for none. Ours; the reference saves the raw weights.
    :param seed: of the weights, the order of the data and the augmentation.
    """

    output: Path
    data: DataConfig
    manifest: ManifestConfig
    policy: PolicyConfig
    losses: LossConfig = field(default_factory=LossConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    recurrence: RecurrenceConfig = field(default_factory=RecurrenceConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    ema_decay: float = 0.999
    init_from: Path | None = None
    init_strict: bool = True
    seed: int = 123

    def __post_init__(self) -> None:
        """Refuse what no single section can see."""
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f'ema_decay must be in [0, 1), found {self.ema_decay}')
        if self.policy.decoder.history == 'window' and self.recurrence != RecurrenceConfig():
            raise ValueError('recurrence: policy.decoder.history is window, which hands no state '
                             'on; set policy.decoder.history: carry, or remove the section')
        if self.recurrence.chrono and self.init_from is not None and self.init_strict:
            raise ValueError('recurrence.chrono says how a new LSTM begins, and init_from brings '
                             'one that has learned; set one of them, or init_strict: false')
        if self.engine.strategy == 'fsdp' and (self.optimiser.weight_decay
                                               or self.optimiser.groups):
            raise ValueError('under engine.strategy: fsdp weights lose their shapes and names, so '
                             'optimiser.weight_decay and optimiser.groups cannot be kept; remove '
                             'them, or use ddp')

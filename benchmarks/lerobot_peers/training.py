"""
Train a peer for some seconds of one device, with its own optimiser and schedule.

The episodes held out, the augmentation and the seed are those of our own run's file.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
import json
from pathlib import Path
import time
from typing import Any

from lerobot import __version__ as lerobot_version
from lerobot_peers import demonstrations, policies
from lerobot_peers.demonstrations import Demonstrations
from lerobot_peers.policies import Name, Peer, Spec
import numpy as np
from ros2_lstm_policy import config
from ros2_lstm_policy.data.sampler import Stream
from ros2_lstm_policy.data.store import FrameStore
from ros2_lstm_policy.training.augmentation import AugmentationConfig
from ros2_lstm_policy.training.config import TrainConfig
from ros2_lstm_policy.training.schedule import Schedule, ScheduleConfig
import torch
from tqdm import tqdm


# The batch that a published learning rate was chosen for: LeRobot's default, and the paper's.
_PUBLISHED_BATCH: dict[Name, int] = {'act': 8, 'act_lite': 8, 'diffusion': 64}
_LOG_EVERY = 50
_VALIDATED = 1024  # samples
_STILL = AugmentationConfig(static_shift=0, hand_shift=0)


@dataclass(frozen=True)
class TrainSettings:
    """
    One run.

    :param store: frame store of the demonstrations.
    :param ours: our own run's file, for what both share.
    :param seconds: of training, without reading and saving.
    :param steps: fewer optimiser steps than time allows, None for as many as fit.
    """

    name: Name
    store: Path
    output: Path
    ours: Path
    seconds: float
    steps: int | None
    batch_size: int
    device: str


class Run:
    """A peer, its samples, and what changes its weights."""

    def __init__(self, settings: TrainSettings) -> None:
        """
        Read the demonstrations and make the peer.

        :raises ValueError: where there is no store.
        """
        self.settings, ours = settings, config.load(TrainConfig, settings.ours)
        torch.manual_seed(ours.seed)
        store = FrameStore.load(settings.store)
        cameras = policies.cameras(settings.name, demonstrations.cameras(settings.store))
        self.policy = policies.build(settings.name, cameras)
        policies.load_pretrained(self.policy, settings.name)
        self.policy.to(settings.device).train()
        self.training_E = demonstrations.split(store, ours.data.loader.validation_share)
        self.spec = Spec(settings.name, cameras,
                         *demonstrations.fit(store, self.training_E, self.policy))
        self.data = Demonstrations(store.to(settings.device), self.spec, self.policy,
                                   settings.device)
        self.samples = self.data.samples(self.training_E)
        self._stream = Stream(len(self.samples), ours.seed)
        self._augmentation = ours.augmentation
        self._make_optimiser(len(self.samples) / settings.batch_size)

    def _make_optimiser(self, steps_per_epoch: float) -> None:
        settings = self.policy.config
        preset, plan = settings.get_optimizer_preset(), settings.get_scheduler_preset()
        self._clip_norm = preset.grad_clip_norm
        self.optimiser = preset.build(self.policy.get_optim_params())
        factor = self.settings.batch_size / _PUBLISHED_BATCH[self.settings.name]
        self._rates = [group['lr'] * factor for group in self.optimiser.param_groups]
        limits: dict[str, Any] = {'max_steps': self.settings.steps,
                                  'max_time_s': self.settings.seconds, 'min_lr_scale': 0.0}
        if plan is None:
            self.schedule = Schedule(ScheduleConfig('constant', **limits), steps_per_epoch)
        else:
            self.schedule = Schedule(ScheduleConfig(
                'half-cosine', warmup_steps=plan.num_warmup_steps, **limits), steps_per_epoch)

    def step(self, number: int, elapsed_s: float) -> torch.Tensor:
        """Take optimiser step `number`; return its loss."""
        scale = self.schedule.scale(number, elapsed_s)
        for group, rate in zip(self.optimiser.param_groups, self._rates):
            group['lr'] = scale * rate
        size = self.settings.batch_size
        batch = self.data.batch(self.samples[self._stream.take(number * size, size)],
                                self._augmentation)
        with self._autocast():
            loss, _ = self.policy.forward(batch)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self._clip_norm)
        self.optimiser.step()
        return loss.detach()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Return the loss on held-out episodes, the peer's own measure."""
        self.policy.eval()
        samples = self.data.samples(~self.training_E)
        spread = samples[np.linspace(0, len(samples) - 1, min(_VALIDATED, len(samples))
                                     ).round().astype(int)]
        size, total = self.settings.batch_size, 0.0
        for begin in range(0, len(spread), size):
            part = spread[begin:begin + size]
            with self._autocast():
                total += len(part) * float(self.policy.forward(self.data.batch(part, _STILL))[0])
        self.policy.train()
        return total / len(spread)

    def _autocast(self) -> torch.autocast:
        kind = torch.device(self.settings.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=kind == 'cuda')


def train(settings: TrainSettings) -> dict[str, Any]:
    """Train, and write the peer, its curve and a summary, which is returned."""
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision('high')
    run = Run(settings)
    settings.output.mkdir(parents=True, exist_ok=True)
    steps, elapsed_s, loss = _steps(run, settings.output / 'curve.csv')
    policies.save(settings.output, run.policy, run.spec)
    summary = {
        'policy': settings.name, 'lerobot': lerobot_version, 'store': str(settings.store),
        'episodes': int(run.training_E.sum()), 'samples': len(run.samples),
        'batch_size': settings.batch_size, 'steps': steps, 'seconds': round(elapsed_s, 1),
        'passes': round(steps * settings.batch_size / len(run.samples), 2),
        'learning_rates': run._rates, 'train_loss': loss,
        'validation_loss': run.validation_loss(), 'parameters': _count(run.policy),
        'device': torch.cuda.get_device_name(settings.device)
        if settings.device.startswith('cuda') else 'CPU'}
    (settings.output / 'training.json').write_text(json.dumps(summary, indent=1) + '\n')
    return summary


def _steps(run: Run, curve: Path) -> tuple[int, float, float]:
    """Train to the end; return steps, seconds and the mean loss of the last logged ones."""
    begin, number, losses = time.perf_counter(), 0, []
    total = run.settings.seconds
    with open(curve, 'w', newline='') as file, tqdm(
            total=round(total), unit='s', desc=run.settings.name) as bar:
        rows = csv.writer(file)
        rows.writerow(('step', 'elapsed_s', 'loss', 'lr'))
        elapsed_s = 0.0
        while run.schedule.progress(number, elapsed_s) < 1:
            losses.append(run.step(number, elapsed_s))
            number += 1
            if number % _LOG_EVERY == 0:
                mean = float(torch.stack(losses[-_LOG_EVERY:]).mean())  # waits for the device
                rows.writerow((number, f'{elapsed_s:.2f}', f'{mean:.5f}',
                               f'{run.optimiser.param_groups[0]["lr"]:.3g}'))
                del losses[:-_LOG_EVERY]
                bar.set_postfix_str(f'step {number}, loss {mean:.4f}')
            elapsed_s = time.perf_counter() - begin
            bar.update(min(round(elapsed_s), bar.total) - bar.n)
    return number, elapsed_s, float(torch.stack(losses[-_LOG_EVERY:]).mean())


def _count(policy: Peer) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())

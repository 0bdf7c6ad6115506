"""The Lightning module: one training step and one validation step, without the maths of either."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
import time
from typing import Any

import pytorch_lightning as pl
from ros2_lstm_policy.data.datamodule import DataModule, TrainingBatch
from ros2_lstm_policy.data.image_text import PairBatch
from ros2_lstm_policy.data.repeats import Distinct
from ros2_lstm_policy.model.lstm_decoder import LSTMState
from ros2_lstm_policy.training import optimizer
from ros2_lstm_policy.training.agreement import Agreement
from ros2_lstm_policy.training.augmentation import augment, AugmentationConfig, each_anew, Hold
from ros2_lstm_policy.training.carried import CarriedState
from ros2_lstm_policy.training.config import TrainConfig
from ros2_lstm_policy.training.feature_cache import FeatureCache
from ros2_lstm_policy.training.metrics import Measures
from ros2_lstm_policy.training.objective import (
    Maps, Objective, Outcome, Term, Tokens, total, Words)
from ros2_lstm_policy.training.schedule import Schedule
from ros2_lstm_policy.training.texts import Texts
from ros2_lstm_policy.transforms import normalise_images
import torch
from torch import distributed, Tensor

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


class LossIsNotFinite(RuntimeError):
    """A loss or a gradient became NaN or infinite; the message names the episodes."""


class Clock:
    """Seconds that a run has trained, over all its parts."""

    def __init__(self) -> None:
        """Begin at zero, stopped."""
        self.before_s = 0.0
        self._started_s: float | None = None

    def start(self) -> None:
        """Begin to count."""
        self._started_s = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Return the seconds counted so far."""
        now = 0.0 if self._started_s is None else time.monotonic() - self._started_s
        return self.before_s + now


class TrainingModule(pl.LightningModule):
    """
    Joins the objective, the data and the schedule for Lightning's loops.

    :param validation: the values of the last validation, by name.
    :param carried: what each lane knows; stays empty where windows begin with nothing.
    """

    def __init__(self, objective: Objective, config: TrainConfig, data: DataModule,
                 schedule: Schedule) -> None:
        """Bind the parts."""
        super().__init__()
        self.objective, self.config = objective, config
        self.data, self.schedule, self.clock = data, schedule, Clock()
        self.validation: dict[str, float] = {}
        self.carried = CarriedState(config.recurrence.state_dropout)
        self._measured, self._swapped = CarriedState(), CarriedState()
        self._measures = Measures([e.instruction for e in data.episodes],
                                  config.losses.arm_gripper_loss_ratio)
        self._texts = self._fresh_texts()
        self._recent: deque[tuple[Tensor, tuple[str, ...]]] = deque()
        self._row = _RunningMean()
        self._elapsed_s, self._lr_scale = 0.0, 1.0
        self._agreement: Agreement | None = None
        self._cache: FeatureCache | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create AdamW, fused where the device can."""
        return optimizer.create(self.objective, self.config.optimiser,
                                fused=self.device.type == 'cuda')

    def on_after_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """Look the frames up that lie on the device."""
        return self.data.on_device(batch, self.device)

    def on_fit_start(self) -> None:
        """Connect the processes, see what is cached, and start the clock."""
        self._agreement = Agreement(self.trainer.world_size)
        if self.config.data.loader.cached_features:
            self._cached()  # its time is not training's: `max_time_s` would be over before it
        self.clock.start()

    def on_train_start(self) -> None:
        """Go by this configuration's rates, whatever rates a loaded optimiser state had."""
        named = [(name, p) for name, p in self.objective.named_parameters() if p.requires_grad]
        wanted = optimizer.parameter_groups(named, self.config.optimiser)
        for group, fresh in zip(self._optimizer.param_groups, wanted, strict=True):
            group.update(base_lr=fresh['base_lr'], weight_decay=fresh['weight_decay'])

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Set the learning rate of this step."""
        self._lr_scale = self.schedule.scale(self.global_step, self._elapsed_s)
        for group in self._optimizer.param_groups:
            group['lr'] = group['base_lr'] * self._lr_scale

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Return the weighted total of a batch."""
        outcome = self._going_on(batch, self.config.augmentation, self.carried)
        terms, metrics = self._shared(outcome.terms), self._shared(outcome.metrics)
        loss = total(terms)
        self._watch(loss.detach(), batch)
        self._row.add({'loss': loss, **{f'loss_{name}': t.value for name, t in terms.items()},
                       **{name: metric.value for name, metric in metrics.items()}})
        return loss

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer,
                                    gradient_clip_val: float | None = None,
                                    gradient_clip_algorithm: str | None = None) -> None:
        """Clip the whole gradient by its norm, and watch that norm."""
        strategy, most = self.config.engine.strategy, gradient_clip_val or float('inf')
        if strategy == 'deepspeed_stage_2':  # it clips by itself
            return
        if strategy == 'fsdp':  # each process has a part of the gradient
            sharded: Any = self.trainer.strategy.model
            norm = sharded.clip_grad_norm_(most)
        else:
            norm = torch.nn.utils.clip_grad_norm_(self.objective.parameters(), most)
        if self.config.engine.precision != 'fp16':  # whose scaler skips a step that overflowed
            _, names = self._recent[-1]
            self._recent.append((norm.isfinite(), names))

    def on_train_batch_end(self, outputs: Any, batch: TrainingBatch, batch_idx: int) -> None:
        """Write a row of the curves where one is due: this alone waits for a GPU."""
        stepped = (batch_idx + 1) % self.config.optimiser.accumulate == 0
        due = stepped and self.global_step % self.config.engine.log_every_steps == 0
        if due or self.device.type == 'cpu':
            self.require_finite()
        if due:
            self._log_row()

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Measure held-out windows, and the same ones under wrong instructions."""
        if batch_idx == 0:
            self._measured, self._swapped = CarriedState(), CarriedState()
        self._measures.add(self._going_on(batch, None, self._measured))
        wrong = self._measures.swapped(batch.windows.instructions)
        if wrong is not None and not (self._cache is not None and self._cache.of_own_words):
            other = TrainingBatch(batch.windows._replace(instructions=wrong),
                                  begins_B=batch.begins_B, weights_BT=batch.weights_BT,
                                  distinct=batch.distinct)
            self._measures.add_swapped(self._going_on(other, None, self._swapped))

    def on_validation_epoch_end(self) -> None:
        """Write the measures."""
        self.validation = self._measures.finish(self._summed_everywhere)
        self._write({f'val_{name}': value for name, value in self.validation.items()})
        self.log('val_loss', self.validation['loss'], prog_bar=True, logger=False)

    def agree(self, stop: bool) -> bool:
        """
        Take over the first process's clock; every process calls this at each batch.

        :param stop: whether this process was asked to stop.
        :return: whether any was, up to the batch before.
        """
        assert self._agreement is not None
        stop, self._elapsed_s = self._agreement.exchange(stop, self.clock.elapsed_s)
        return stop

    def on_train_end(self) -> None:
        """Part from the other processes."""
        assert self._agreement is not None
        self._agreement.finish()

    def to_cpu(self) -> None:
        """Leave the device, with everything that was kept there."""
        self.cpu()
        self._texts, self._cache = self._fresh_texts(), None
        torch.cuda.empty_cache()

    def progress(self) -> float:
        """Return how far the run is, from 0 to 1, the same in every process."""
        return self.schedule.progress(self.global_step, self._elapsed_s)

    def require_finite(self) -> None:
        """
        Look at all losses since the last look.

        :raises LossIsNotFinite: naming the episodes of the first batch that was not.
        """
        recent, self._recent = self._recent, deque()
        if not recent or bool(torch.stack([flag for flag, _ in recent]).all()):
            return
        names = next(names for flag, names in recent if not bool(flag))
        raise LossIsNotFinite(f'the loss is NaN or infinite at step {self.global_step}, in a '
                              f'batch of the episodes {", ".join(sorted(set(names)))}')

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self.optimizers(use_pl_optimizer=False)  # type: ignore[return-value]

    def _fresh_texts(self) -> Texts:
        return Texts(self.objective.policy.backbone,
                     {episode.instruction for episode in self.data.episodes})

    def _going_on(self, batch: TrainingBatch, augmentation: AugmentationConfig | None,
                  carried: CarriedState) -> Outcome:
        """Return every loss of a batch whose rows may go on from what they knew."""
        if batch.begins_B is None:
            return self.losses(batch, augmentation)
        outcome = self.losses(batch, augmentation, carried.before(batch.begins_B),
                              carried.holding(batch.begins_B))
        carried.keep(outcome.state)
        return outcome

    def losses(self, batch: TrainingBatch, augmentation: AugmentationConfig | None,
               state: LSTMState | None = None, hold: Hold = each_anew) -> Outcome:
        """Return every loss of a batch; its images are augmented where that is given."""
        windows = batch.windows
        images = self._images(windows.images, augmentation, hold)
        text = self._texts.encode(windows.instructions, self.device)
        tokens = (self._texts.tokenise(windows.instructions, self.device)
                  if self.objective.config.caption else None)
        return self.objective(images, text, windows, tokens, self._words(batch.pairs), state,
                              batch.weights_BT, self._distinct(batch, augmentation))

    def _distinct(self, batch: TrainingBatch,
                  augmentation: AugmentationConfig | None) -> Distinct | None:
        """Return the steps to be encoded; None for all, as where shapes must not change."""
        noisy = augmentation is not None and augmentation.noise
        return None if noisy or self.config.engine.torch_compile else batch.distinct

    @torch.no_grad()
    def _images(self, images: Mapping[str, Tensor], augmentation: AugmentationConfig | None,
                hold: Hold = each_anew) -> Mapping[str, Tensor] | Maps | Tokens:
        if self.config.data.loader.cached_features:
            return self._cached().windows(images, augmentation is not None, hold)
        if augmentation is None:
            return {camera.name: normalise_images(images[camera.name], camera)
                    for camera in self.data.manifest.cameras}
        return {camera.name: augment(images[camera.name], camera, augmentation,
                                     partial(_of_camera, hold, camera.name))
                for camera in self.data.manifest.cameras}

    def _cached(self) -> FeatureCache:
        """Return the cache; all frames are seen when it is asked for first."""
        if self._cache is None:
            self._cache = FeatureCache(
                self.objective.policy, self.data.store, self.config.augmentation,
                self.config.data.loader.cached_features, self.device,
                DTYPES[self.config.engine.precision], self.config.seed)
        return self._cache

    def _words(self, pairs: PairBatch | None) -> Words | None:
        if pairs is None:
            return None
        assert self.objective.config.cotrain is not None
        camera = self.data.manifest.camera(self.objective.config.cotrain.camera)
        return Words({camera.name: normalise_images(pairs.images_BHWC, camera)},
                     self._texts.tokenise(pairs.texts, self.device))

    def _shared(self, terms: Mapping[str, Term]) -> dict[str, Term]:
        """
        Weigh each process by its valid entries.

        The mean over the processes is then the mean over the global batch, as one process has it.
        """
        if self.trainer.world_size == 1:
            return dict(terms)
        counts = torch.stack([term.entries for term in terms.values()]).float()
        everyone = counts.clone()
        distributed.all_reduce(everyone)
        factors = (counts * self.trainer.world_size / everyone.clamp(min=1)).unbind()
        return {name: term._replace(value=term.value * factor)
                for (name, term), factor in zip(terms.items(), factors)}

    def _summed_everywhere(self, values: Tensor) -> Tensor:
        if self.trainer.world_size > 1:
            distributed.all_reduce(values)
        return values

    def _watch(self, loss: Tensor, batch: TrainingBatch) -> None:
        self._recent.append((loss.isfinite(), tuple(batch.windows.episode_names)))

    def _log_row(self) -> None:
        names, means = self._row.finish()
        means = self._summed_everywhere(means) / self.trainer.world_size
        row = dict(zip(names, means.tolist()))
        self._write({**row, 'lr': self.config.optimiser.lr * self._lr_scale,
                     'elapsed_s': self.clock.elapsed_s})
        self.log('loss', row['loss'], prog_bar=True, logger=False)

    def _write(self, row: Mapping[str, float]) -> None:
        if self.trainer.is_global_zero:
            for logger in self.loggers:
                logger.log_metrics(dict(row), self.global_step)


def _of_camera(hold: Hold, camera: str, name: str, draw: Tensor) -> Tensor:
    return hold(f'{camera}.{name}', draw)


class _RunningMean:
    """Means of some scalars over the batches of one row, on the device until the end."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self._names = tuple(values)
        self._sum = stacked if self._sum is None else self._sum + stacked
        self._count += 1

    def finish(self) -> tuple[tuple[str, ...], Tensor]:
        assert self._sum is not None
        means = self._sum / self._count
        self._sum, self._count = None, 0
        return self._names, means

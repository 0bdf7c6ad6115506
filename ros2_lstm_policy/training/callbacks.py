"""
What a run keeps: the averaged weights, checkpoints that act, and the state that resume needs.

The state is saved between two batches, at the beginning of the next one, when every counter has
settled; so N steps equal N/2 steps, a kill and N/2 steps more. Everything is written beside and
moved into place: a full disk or a kill leaves the previous one whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import copy
import os
from pathlib import Path
import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.training import carried, tuning
from ros2_lstm_policy.training.card import model_card
from ros2_lstm_policy.training.ema import WeightAverage
from ros2_lstm_policy.training.module import TrainingModule
from ros2_lstm_policy.training.state import LAST, STATE
from safetensors import SafetensorError
import torch
from torch import distributed, Tensor

_POLICY = 'objective.policy.'
BEST = 'checkpoints/best'


class Interrupted(RuntimeError):
    """Someone asked the run to stop; its state is saved."""


class NotSaved(RuntimeError):
    """A checkpoint could not be written; the previous one is whole."""


class Keeper(Callback):
    """
    Averages weights, ends the run on time, and saves.

    :param started: whether training has begun, and a state of before was taken up.
    """

    def __init__(self, module: TrainingModule, output: Path) -> None:
        """Keep a run in a directory."""
        self._module, self._output = module, output
        self._average: WeightAverage | None = None
        self._loaded: dict[str, Any] | None = None
        self._batches, self._saved_step = 0, 0
        self._best = float('inf')
        self._interrupted, self.started = False, False
        self._shell: Policy | None = None
        if module.config.engine.strategy == 'fsdp':  # before the weights are cut into pieces
            self._shell = copy.deepcopy(module.objective.policy).to('meta')

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the average at the weights as they are."""
        if self._module.config.ema_decay:
            self._average = WeightAverage(pl_module.parameters(), self._module.config.ema_decay)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up a loaded state; listen for Ctrl-C and for a polite kill."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        self._saved_step = trainer.global_step
        self.started = True
        if self._loaded is not None:
            self._module.clock.before_s = self._loaded['elapsed_s']
            if self._average is not None:
                self._average.load_state_dict(self._loaded['average'])

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule,
                             batch: Any, batch_idx: int) -> None:
        """Between two batches: take up random states, or save."""
        if self._loaded is not None:
            _set_random_states(self._loaded['random'])
            self._loaded = None
        interrupted = self._module.agree(self._interrupted)
        if batch_idx % trainer.accumulate_grad_batches:
            return
        due = trainer.global_step - self._saved_step >= self._module.config.engine.save_every_steps
        if due or interrupted:
            self._save_state(trainer)
            self._export_average(trainer, (LAST,))  # something that acts, measured or not
        if interrupted:
            raise Interrupted(f'stopped at step {trainer.global_step}')

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average the weights after each optimiser step, and end the run when it is time."""
        self._batches += 1
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self._average is not None:
            self._average.update()
        if self._module.progress() >= 1:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the averaged weights, in batches of any size: nothing is compiled for them."""
        torch.compiler.set_stance('force_eager')
        if self._average is not None:
            self._average.swap()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the weights that were measured: as the last ones, and where they are the best."""
        self._module.require_finite()
        loss = self._module.validation['loss']
        names = (LAST, BEST) if loss < self._best else (LAST,)
        self._best = min(self._best, loss)
        self._export(trainer, names)
        torch.compiler.set_stance('default')
        if self._average is not None:
            self._average.swap()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the final weights, and the state, so that the run can go on with higher limits."""
        self._save_state(trainer)
        measured = self._best < float('inf')
        self._export_average(trainer, (LAST,) if measured else (LAST, BEST))

    def state_dict(self) -> dict[str, Any]:
        """Return what Lightning's own state lacks; every process calls this."""
        average = None if self._average is None else self._average.state_dict()
        return {'batches': self._batches, 'best': self._best, 'average': average,
                'elapsed_s': self._module.clock.elapsed_s, 'random': _random_states(),
                'lanes': self._lanes()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember a state until training starts, and begin at its place in the data."""
        self._batches, self._best = state_dict['batches'], state_dict['best']
        self._module.data.order.start = self._batches
        self._loaded = state_dict
        self._go_on_in_the_lanes(state_dict.get('lanes'))

    def _lanes(self) -> dict[str, Any] | None:
        """Return where the lanes are and what each knows; None where nothing is carried."""
        lanes = self._module.data.lanes
        if lanes is None:
            return None
        everyone = carried.of_all_processes(self._module.carried.rows())
        return {'key': lanes.key, 'origin': lanes.origin, 'rows': everyone}

    def _go_on_in_the_lanes(self, kept: dict[str, Any] | None) -> None:
        """Go on with every lane; where data or batch are others now, begin all of them."""
        lanes = self._module.data.lanes
        if lanes is None:
            return
        if kept is None or kept['key'] != lanes.key:
            lanes.origin = self._batches
        else:
            lanes.origin = kept['origin']
            self._module.carried.load(carried.of_this_process(kept['rows']))

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """First signal: stop after this step. Second: as if nobody listened."""
        self._interrupted = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT
                      else signal.SIG_DFL)

    def _save_state(self, trainer: pl.Trainer) -> None:
        """Save in every process: each brings its part."""
        self._module.require_finite()
        beside = self._output / f'{STATE}.partial'
        with _telling(self._output / STATE):
            try:
                trainer.save_checkpoint(beside)
                if trainer.is_global_zero:
                    os.replace(beside, self._output / STATE)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
        self._saved_step = trainer.global_step

    def _whole(self, trainer: pl.Trainer) -> Policy:
        """Return the policy with all its weights; under FSDP every process brings its part."""
        if self._shell is None:
            return self._module.objective.policy
        state = trainer.strategy.lightning_module_state_dict()
        mine = {name.removeprefix(_POLICY): value for name, value in state.items()
                if name.startswith(_POLICY)}
        if trainer.is_global_zero:
            self._shell.load_state_dict(mine, strict=True, assign=True)
            self._shell.manifest = self._module.data.manifest
        return self._shell

    def _export_average(self, trainer: pl.Trainer, names: tuple[str, ...]) -> None:
        if self._average is not None:
            self._average.swap()
        self._export(trainer, names)
        if self._average is not None:
            self._average.swap()

    def _export(self, trainer: pl.Trainer, names: tuple[str, ...]) -> None:
        whole = self._whole(trainer)
        if not trainer.is_global_zero:
            return
        card = model_card(self._module, trainer.global_step)
        with tuning.merged(whole) as policy:
            for name in names:
                with _telling(self._output / name):
                    checkpoint.save(self._output / name, policy, card)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Say what could not be saved, and that nothing was lost."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise NotSaved(f'{path} could not be written: {error}; the one before is whole. Make '
                       'room, then resume') from error


def _random_states() -> list[dict[str, Tensor]]:
    """Return the state of PyTorch's generators in every process; nothing else draws."""
    mine = {'cpu': torch.get_rng_state()}
    if torch.cuda.is_available():
        mine['cuda'] = torch.cuda.get_rng_state()
    if not distributed.is_initialized():
        return [mine]
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, mine)
    return everyone


def _set_random_states(states: list[dict[str, Tensor]]) -> None:
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    mine = states[rank % len(states)]
    torch.set_rng_state(mine['cpu'].cpu())
    if 'cuda' in mine and torch.cuda.is_available():
        torch.cuda.set_rng_state(mine['cuda'].cpu())

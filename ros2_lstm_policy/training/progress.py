"""How far a run is: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

from collections.abc import Callable
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

_LINE_PERIOD_S = 30.0


class Bar(TQDMProgressBar):
    """A bar that knows where the run ends."""

    batches = float('inf')

    @property
    def total_train_batches(self) -> int | float:
        """Return the batches of the whole run."""
        return self.batches


class Lines(Callback):
    """A line at the first step, then one every half minute, and one at the end."""

    batches = float('inf')

    def __init__(self, tell: Callable[[str], None]) -> None:
        """Write lines with `tell`."""
        self._tell = tell
        self._told_s, self._begun_s, self._begun_step = -_LINE_PERIOD_S, 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self._begun_s, self._begun_step = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule,
                           outputs: Any, batch: Any, batch_idx: int) -> None:
        """Say where the run is, when it is time."""
        now_s = time.monotonic()
        due = now_s - self._told_s >= _LINE_PERIOD_S and trainer.global_step > self._begun_step
        if due and not trainer.should_stop:
            self._told_s = now_s
            self._tell(self._line(trainer, now_s))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where it ended."""
        self._tell(self._line(trainer, time.monotonic()))

    def _line(self, trainer: pl.Trainer, now_s: float) -> str:
        step, of = trainer.global_step, ''
        if self.batches < float('inf'):
            of = f' of {int(self.batches / trainer.accumulate_grad_batches)}'
        spent_s = now_s - self._begun_s
        rate = (step - self._begun_step) / spent_s if spent_s > 0 else 0.0
        values = ', '.join(f'{name} {float(value):.4g}'
                           for name, value in trainer.progress_bar_metrics.items()
                           if name != 'v_num')
        return f'step {step}{of}, {rate:.3g} steps/s{", " if values else ""}{values}'


def of_this_terminal(refresh_rate: int) -> Bar | Lines:
    """Return the bar where a person sees stderr, lines where it goes to a file."""
    if sys.stderr.isatty():
        return Bar(refresh_rate=refresh_rate)
    return Lines(lambda line: print(line, file=sys.stderr, flush=True))

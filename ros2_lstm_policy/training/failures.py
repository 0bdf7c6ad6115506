"""What some failures of a run mean, and what to do about them."""

from __future__ import annotations

import re

from ros2_lstm_policy.process_pool import MemberLost
import torch

_WORKER = re.compile(r'DataLoader worker \(pid\(?s?\)?')


class BatchDoesNotFit(RuntimeError):
    """A training step needs more memory than there is."""


def does_not_fit(estimate: object, batch_size: int, accumulate: int,
                 checkpointing: bool) -> BatchDoesNotFit:
    """Return the error that says what a step needs and what to lower."""
    advice = [f'lower data.loader.batch_size (now {batch_size}) and raise optimiser.accumulate '
              f'(now {accumulate}) by as much']
    if not checkpointing:
        advice.append('set engine.gradient_checkpointing')
    advice.append('freeze more (tune.*), shorten policy.decoder.window_size, or move the frames '
                  'off the device (data.loader.resident: memory)')
    return BatchDoesNotFit(f'the batch does not fit into the memory of the device; a step needs '
                           f'{estimate}. ' + '; '.join(advice))


def explain(error: RuntimeError) -> str | None:
    """Return what a failure means to a person, None where nobody knows better than it says."""
    if isinstance(error, (BatchDoesNotFit, MemberLost)):
        return str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return f'out of memory: {error}'
    if _WORKER.search(str(error)):
        return (f'a process that gathers batches died: {error}. The system kills one when memory '
                'runs out: lower data.loader.workers or use resident: disk')
    return None

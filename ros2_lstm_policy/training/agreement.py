"""
What the processes of a run tell each other at every batch, from host to host.

A question through the GPUs is answered when they have done all that was issued before it. Asked at
every batch, it leaves a GPU idle from the end of each step until the next one's kernels arrive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import distributed, Tensor


class News(NamedTuple):
    """
    The same in every process.

    :param stop: whether any of them was asked to stop.
    :param elapsed_s: the first one's clock.
    """

    stop: bool
    elapsed_s: float


class _Sent(NamedTuple):
    values: Tensor  # summed over the processes once `work` is done
    work: distributed.Work

    def read(self) -> News:
        self.work.wait()
        asked, elapsed_s = self.values.tolist()
        return News(asked > 0, elapsed_s)


class Agreement:
    """
    An exchange that nobody waits for: what is sent at one batch is read at the next.

    The first exchange alone is read at once. One process by itself reads what it says.
    """

    def __init__(self, processes: int) -> None:
        """Connect the hosts; every process of a run makes one, once they have met."""
        self._alone = processes == 1
        self._group = None if self._alone else distributed.new_group(backend='gloo')
        self._sent: _Sent | None = None

    def exchange(self, stop: bool, elapsed_s: float) -> News:
        """
        Tell the others, and return what all said at the batch before.

        :param stop: whether this process was asked to stop.
        :param elapsed_s: its clock; the first process's counts.
        """
        if self._alone:
            return News(stop, elapsed_s)
        first = distributed.get_rank() == 0
        values = torch.tensor([float(stop), elapsed_s if first else 0.0], dtype=torch.float64)
        work = distributed.all_reduce(values, group=self._group, async_op=True)
        sent = _Sent(values, work)
        before, self._sent = self._sent or sent, sent
        return before.read()

    def finish(self) -> None:
        """Wait for the last exchange, so that no process leaves another alone with it."""
        if self._sent is not None:
            self._sent.read()

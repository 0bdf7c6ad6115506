"""
What goes on in each lane of a batch from one batch to the next.

The recurrent state goes on and the gradient does not: truncated backpropagation through time. And
an episode's augmentation goes on: a picture that jumped at each segment would be one that no robot
sees. Letters as in `types`, and L layer, H hidden.
"""

from __future__ import annotations

from functools import partial

from ros2_lstm_policy.model.lstm_decoder import LSTMState
from ros2_lstm_policy.training.augmentation import Hold
import torch
from torch import distributed, Tensor


class CarriedState:
    """
    What the last batch left, a row a lane.

    :param dropout: share of the rows whose state is emptied before a batch.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        """Know nothing."""
        self._dropout = dropout
        self._state: LSTMState | None = None
        self._draws: dict[str, Tensor] = {}

    def before(self, begins_B: Tensor) -> LSTMState | None:
        """
        Return the state before a batch; None for an empty one in all rows.

        :param begins_B: bool; the rows whose episode begins, and which know nothing of the last
            one. There may be fewer rows than before: the last ones have ended.
        """
        if self._state is None:
            return None
        kept_B = ~begins_B
        if self._dropout:
            kept_B &= torch.rand(kept_B.shape, device=kept_B.device) >= self._dropout
        kept_B1, rows = kept_B[:, None], len(kept_B)
        h_LBH, c_LBH = (part[:, :rows].to(begins_B.device) for part in self._state)
        empty = h_LBH.new_zeros(())
        return torch.where(kept_B1, h_LBH, empty), torch.where(kept_B1, c_LBH, empty)

    def keep(self, state: LSTMState | None) -> None:
        """Have this state after a batch, without what it was computed from."""
        assert state is not None
        h_LBH, c_LBH = state
        self._state = h_LBH.detach(), c_LBH.detach()

    def holding(self, begins_B: Tensor) -> Hold:
        """Return what gives a row a fresh draw where its episode begins, and holds it after."""
        return partial(self._hold, begins_B)

    def _hold(self, begins_B: Tensor, name: str, draw: Tensor) -> Tensor:
        held = self._draws.get(name)
        if held is not None:
            begins = begins_B.view(-1, *[1] * (draw.dim() - 1))
            draw = torch.where(begins, draw, held[:len(draw)].to(draw.device))
        self._draws[name] = draw
        return draw

    def rows(self) -> dict[str, Tensor]:
        """Return all of it by name, on the CPU, a row a lane."""
        parts = dict(zip('hc', (part.transpose(0, 1) for part in self._state or ())))
        draws = {f'draw.{name}': draw for name, draw in self._draws.items()}
        return {name: part.cpu() for name, part in (parts | draws).items()}

    def load(self, rows: dict[str, Tensor]) -> None:
        """Go on where :meth:`rows` was taken."""
        if 'h' in rows:
            self._state = rows['h'].transpose(0, 1), rows['c'].transpose(0, 1)
        self._draws = {name.removeprefix('draw.'): part for name, part in rows.items()
                       if name.startswith('draw.')}


def of_all_processes(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the lanes of all processes, in their order; every process calls this."""
    if not distributed.is_initialized():
        return rows
    everyone: list[dict[str, Tensor]] = [rows] * distributed.get_world_size()
    distributed.all_gather_object(everyone, rows)
    return {name: torch.cat([theirs[name] for theirs in everyone]) for name in rows}


def of_this_process(rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return this process's lanes of such."""
    if not distributed.is_initialized():
        return rows
    world, rank = distributed.get_world_size(), distributed.get_rank()
    return {name: part.chunk(world)[rank] for name, part in rows.items()}

"""
Exponential moving average of the weights: steadier than the last step, and what is saved.

Only weights that are trained are averaged; the decay grows from 0 with the steps, so that a short
run is not averaged with its beginning (Polyak averaging as in most diffusion and ACT code).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn, Tensor

_WARMUP_STEPS = 20


class WeightAverage:
    """A shadow of the trained weights, on their device and in their place in the lists."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        """
        Begin at the weights as they are.

        :param decay: of the average, in [0, 1).
        """
        self._live = [p for p in parameters if p.requires_grad]
        self._decay = decay
        self._steps = 0
        self._average = [p.detach().clone() for p in self._live]

    @torch.no_grad()
    def update(self) -> None:
        """Take one optimiser step into the average."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + _WARMUP_STEPS))
        live = [p.detach() for p in self._live]
        torch._foreach_lerp_(self._average, live, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average; a second call undoes it."""
        kept = [p.detach().clone() for p in self._live]
        for live, average in zip(self._live, self._average):
            live.copy_(average)
        self._average = kept

    def state_dict(self) -> dict[str, object]:
        """Return what :meth:`load_state_dict` needs; not while it is swapped in."""
        return {'steps': self._steps, 'average': list(self._average)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on where another average of the same model stopped."""
        average = state['average']
        assert isinstance(average, list) and isinstance(state['steps'], int)
        self._steps = state['steps']
        self._average = [_like(value, live) for value, live in zip(average, self._live,
                                                                   strict=True)]


def _like(value: Tensor, live: nn.Parameter) -> Tensor:
    return value.to(device=live.device, dtype=live.dtype)

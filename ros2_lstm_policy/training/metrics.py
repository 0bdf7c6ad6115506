"""What validation measures: means over held-out windows, and how much the words matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ros2_lstm_policy.training.objective import Outcome
import torch
from torch import Tensor

_SWAPPED = 'arm_swapped'


class Measures:
    """
    Sums over the batches of one validation, on the device until the end.

    The swap ratio is the arm loss under wrong instructions over the normal one: 1 means that the
    policy does not listen.
    """

    def __init__(self, instructions: Sequence[str], gripper_ratio: float) -> None:
        """
        Begin with nothing.

        :param instructions: all that the data holds; a wrong one is taken from them.
        :param gripper_ratio: weight of the gripper's loss in `loss`.
        """
        known = sorted(set(instructions))
        self._other = dict(zip(known, known[1:] + known[:1])) if len(known) > 1 else {}
        self._gripper_ratio = gripper_ratio
        self._sums: dict[str, Tensor] = {}

    def swapped(self, instructions: Sequence[str]) -> list[str] | None:
        """Return a wrong instruction for each, None where there is only one in all."""
        return [self._other[text] for text in instructions] if self._other else None

    def add(self, outcome: Outcome) -> None:
        """Take the losses and metrics of a batch in."""
        for name, term in (outcome.terms | outcome.metrics).items():
            self._add(name, term.value, term.entries)

    def add_swapped(self, outcome: Outcome) -> None:
        """Take the same batch under wrong instructions in."""
        arm = outcome.terms['arm']
        self._add(_SWAPPED, arm.value, arm.entries)

    def _add(self, name: str, mean: Tensor, count: Tensor) -> None:
        pair = torch.stack([mean.detach().double() * count, count.double()])
        self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def finish(self, everywhere: Callable[[Tensor], Tensor] = lambda sums: sums
               ) -> dict[str, float]:
        """
        Return the means and begin anew.

        :param everywhere: sums a tensor over all processes.
        """
        names = sorted(self._sums)
        sums = everywhere(torch.stack([self._sums[name] for name in names]))
        self._sums = {}
        means = (sums[:, 0] / sums[:, 1].clamp(min=1)).tolist()
        values = dict(zip(names, means))
        if _SWAPPED in values:
            values['swap_ratio'] = values.pop(_SWAPPED) / max(values['arm'], 1e-12)
        values['loss'] = values['arm'] + self._gripper_ratio * values['gripper']
        return values

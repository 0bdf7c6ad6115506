"""
Statistics of an Open X-Embodiment data set, as RoboVLMs keeps them in configs/data/.

Its loader maps the quantiles q01 and q99 of each axis to -1 and 1 (`BOUNDS_Q99` of OpenVLA,
arXiv 2406.09246) before the run's own normalisation. The run's configuration does not hold them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ros2_lstm_policy import config
from ros2_lstm_policy.kinds import ACTION_DIM, ARM_DIM
from ros2_lstm_policy.robovlms.files import RoboVLMsError


@dataclass(frozen=True)
class Bounds:
    """
    The values of the six arm axes, in the data's units, that became -1 and 1.

    :param low: six values.
    :param high: six values, each above its low one.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class _Action:
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    mask: tuple[bool, ...] = (True,) * ARM_DIM + (False,)

    def __post_init__(self) -> None:
        """Refuse what is no action of six deltas and a gripper."""
        for name in ('q01', 'q99', 'mask'):
            if len(getattr(self, name)) != ACTION_DIM:
                raise ValueError(f'{name}: expected {ACTION_DIM} values, found '
                                 f'{len(getattr(self, name))}')
        for axis in range(ARM_DIM):
            if self.mask[axis] and not self.q01[axis] < self.q99[axis]:
                raise ValueError(f'q01 of axis {axis} is {self.q01[axis]:g}, which is not below '
                                 f'its q99 {self.q99[axis]:g}')


def read(path: Path) -> Bounds:
    """
    Read dataset_statistics_*.json: of one data set, alone or under its name.

    :raises ValueError: for a file of several data sets, or without usable q01 and q99.
    """
    values = config.read_json(path)
    if 'action' not in values:
        if len(values) != 1:
            raise RoboVLMsError(f"{path}: expected 'action' with q01 and q99 of one data set, "
                                f'found {", ".join(values) or "nothing"}; keep the one that the '
                                'robot is of')
        values = next(iter(values.values()))
    action: Any = values.get('action') if isinstance(values, dict) else None
    if not isinstance(action, dict):
        raise RoboVLMsError(f"{path}: expected 'action' with q01 and q99, found "
                            f'{type(action).__name__}')
    chosen = {key: action[key] for key in ('q01', 'q99', 'mask') if key in action}
    found = config.parse(_Action, chosen, f'{path}: action')
    axes = [(low, high) if masked else (-1.0, 1.0)
            for low, high, masked in zip(found.q01, found.q99, found.mask)][:ARM_DIM]
    return Bounds(tuple(low for low, _ in axes), tuple(high for _, high in axes))

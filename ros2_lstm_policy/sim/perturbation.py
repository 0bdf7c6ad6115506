"""
Disturbances of a demonstration, so that it shows how to recover.

What is executed differs from what the expert said; what is recorded is what the expert said. So
the policy learns the way back from states that it would never see in perfect demonstrations
(DART, arXiv 1703.09327).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_lstm_policy.sim.arm import STEP_LIMIT
from ros2_lstm_policy.types import Action, ARM, GRIPPER


@dataclass(frozen=True)
class PerturbationConfig:
    """
    How strongly demonstrations are disturbed.

    :param share: share of the episodes that are disturbed at all.
    :param noise: largest standard deviation of a move and of a turn about the vertical, drawn
        for each episode, relative to what one control period allows.
    :param push_rate: probability that a push begins at a step.
    :param push: largest push, relative to what one control period allows.
    :param push_steps: fewest and most control periods of a push.
    :param begin_share: share of the disturbed episodes that begin with a push.
    :param begin_steps: fewest and most control periods of that first push.
    :param slip_rate: probability that the gripper does the opposite from a step on.
    :param slip_steps: fewest and most control periods of that.
    """

    share: float = 0.75
    noise: float = 0.3
    push_rate: float = 0.03
    push: float = 1.0
    push_steps: tuple[int, int] = (2, 6)
    begin_share: float = 0.0
    begin_steps: tuple[int, int] = (5, 15)
    slip_rate: float = 0.005
    slip_steps: tuple[int, int] = (2, 4)

    def __post_init__(self) -> None:
        """Refuse what is no probability or no range."""
        for name in ('share', 'push_rate', 'begin_share', 'slip_rate'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'{name} must be in [0, 1], found {getattr(self, name)}')
        for name in ('push_steps', 'begin_steps', 'slip_steps'):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most:
                raise ValueError(f'{name}: expected 1 <= fewest <= most, found {fewest}, {most}')
        if self.noise < 0 or self.push < 0:
            raise ValueError('noise and push must not be negative')


class Perturbation:
    """
    The disturbances of one episode.

    :param rng: of this episode alone, so that the order of episodes does not matter.
    """

    def __init__(self, config: PerturbationConfig, rng: np.random.Generator) -> None:
        """Draw how strongly this episode is disturbed."""
        self._config, self._rng = config, rng
        self.is_on = bool(rng.random() < config.share)
        self.noise = float(rng.uniform(0, config.noise)) if self.is_on else 0.0
        self._push, self._push_left, self._slip_left = np.zeros(6), 0, 0
        if self.is_on and config.begin_share and rng.random() < config.begin_share:
            self._begin_push(config.begin_steps)

    def disturb(self, label: Action) -> Action:
        """Return what is executed instead of what the expert said."""
        if not self.is_on:
            return label
        arm = label.arm + self._noise_arm() + self._push_arm()
        arm = np.clip(arm, -STEP_LIMIT, STEP_LIMIT).astype(np.float32)
        return Action.one_arm(arm, self._gripper(label.gripper_open))

    def _noise_arm(self) -> np.ndarray:
        noise = np.zeros(6)
        noise[:3] = self._rng.normal(0.0, self.noise, 3)
        noise[5] = self._rng.normal(0.0, self.noise / 4)
        return noise * STEP_LIMIT

    def _push_arm(self) -> np.ndarray:
        if self._push_left == 0 and self._rng.random() < self._config.push_rate:
            self._begin_push(self._config.push_steps)
        if self._push_left == 0:
            return np.zeros(6)
        self._push_left -= 1
        return self._push * STEP_LIMIT

    def _begin_push(self, steps: tuple[int, int]) -> None:
        direction = self._rng.normal(size=3)
        direction *= self._rng.uniform(0.3, 1.0) / np.linalg.norm(direction)
        self._push = np.zeros(6)
        self._push[:3] = self._config.push * direction
        self._push[5] = self._config.push * self._rng.uniform(-0.5, 0.5)
        self._push_left = self._duration(steps)

    def _gripper(self, gripper_open: float) -> float:
        if self._slip_left == 0 and self._rng.random() < self._config.slip_rate:
            self._slip_left = self._duration(self._config.slip_steps)
        if self._slip_left == 0:
            return gripper_open
        self._slip_left -= 1
        return 1.0 - gripper_open

    def _duration(self, steps: tuple[int, int]) -> int:
        return int(self._rng.integers(steps[0], steps[1] + 1))


class Perturbations:
    """
    The disturbances of one episode, for each arm its own.

    :param like: an action of the expert, which tells the arms.
    :param rng: of this episode alone.
    """

    def __init__(self, config: PerturbationConfig, like: Action, rng: np.random.Generator) -> None:
        """Draw how strongly each arm is disturbed."""
        self._by_prefix = {name.removesuffix(ARM): Perturbation(config, rng)
                           for name in like.groups if name.endswith(ARM)}
        self.noise = max(each.noise for each in self._by_prefix.values())

    def disturb(self, label: Action) -> Action:
        """Return what is executed instead of what the expert said."""
        groups: dict[str, np.ndarray] = {}
        for prefix, own in self._by_prefix.items():
            done = own.disturb(Action.one_arm(label.groups[prefix + ARM],
                                              float(label.groups[prefix + GRIPPER][0])))
            groups |= {prefix + name: values for name, values in done.groups.items()}
        return Action(groups)

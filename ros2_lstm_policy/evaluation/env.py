"""What the evaluation needs of a robot: one that can be reset, moved and closed is enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from ros2_lstm_policy.types import Action, Decision, Observation


class EnvState(Protocol):
    """How a robot stands after a control period."""

    @property
    def observation(self) -> Observation:
        """Return what it sees and measures."""

    @property
    def success(self) -> bool:
        """Return whether the task is done."""

    def is_over(self, horizon: int) -> bool:
        """Return whether the episode has ended, well or not, within so many control periods."""


State = TypeVar('State', bound=EnvState)
Moved = TypeVar('Moved', bound=EnvState, covariant=True)


class Env(Protocol[Moved]):
    """
    A robot that acts in episodes; `sim.robot.SimRobot` is one.

    Which groups of actions it takes and which states it measures is said by the manifests of the
    policies that it is given: it raises where they are of another body.
    """

    def reset(self, episode: Any) -> Moved:
        """Begin an episode."""

    def step(self, action: Action) -> Moved:
        """Move for one control period."""

    def close(self) -> None:
        """Free what it holds."""


def play(env: Env[State], state: State, act: Callable[[Observation, str], Decision], said: str,
         horizon: int,
         watch: Callable[[State, Action], None] = lambda state, action: None,
         ) -> tuple[State, float]:
    """
    Act until an episode is over.

    :param state: its first state.
    :param act: decides; of a :class:`~ros2_lstm_policy.types.Actor`.
    :param said: the instruction that the actor is given.
    :param watch: sees every state and the action taken at it.
    :return: the last state, and the median time of a decision in s.
    """
    act_s = [0.0]
    while not state.is_over(horizon):
        decision = act(state.observation, said)
        act_s.append(sum(decision.stage_s.values()))
        watch(state, decision.action)
        state = env.step(decision.action)
    return state, float(np.median(act_s[1:] or act_s))

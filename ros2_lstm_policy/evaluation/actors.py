"""Who acts in an evaluation: the policy, the scripted expert, or nobody."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, TYPE_CHECKING

import numpy as np
from ros2_lstm_policy.evaluation.rollout import SimActor
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.fleet import Robot
from ros2_lstm_policy.types import Action, Decision, Observation

if TYPE_CHECKING:
    from ros2_lstm_policy.model.policy import DecoderConfig

Who = Literal['policy', 'expert', 'zero']


class Policy:
    """A checkpoint, as the robot runs it."""

    def __init__(self, checkpoint: Path, execute: str, history: str | None = None) -> None:
        """
        Load it.

        :param history: as :func:`looking_back` reads it; None for what it was trained for.
        :raises CheckpointError: for a checkpoint that cannot be used.
        :raises ValueError: for an `execute` or a `history` that does not fit.
        """
        from ros2_lstm_policy.model import checkpoint as checkpoints
        from ros2_lstm_policy.runtime.actor import PolicyActor
        policy = checkpoints.load(checkpoint)
        if history is not None:
            decoder = looking_back(policy.config.decoder, history)
            policy.config = dataclasses.replace(policy.config, decoder=decoder)
        self._actor = PolicyActor(policy, execute)

    def begin(self, robot: Robot) -> None:
        """Forget the last episode."""
        self._actor.reset()

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide for one observation."""
        return self._actor.act(observation, instruction)


class Expert:
    """The scripted expert: what can be reached at most."""

    def begin(self, robot: Robot) -> None:
        """Look at another episode."""
        self._robot, self._expert = robot, ScriptedExpert(robot)

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide from the simulator's state, whatever is said."""
        return _decision(self._robot.express(self._expert.act()))


class Zero:
    """Does nothing: what success without a policy is worth."""

    def begin(self, robot: Robot) -> None:
        """Look at another robot."""
        self._robot = robot

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Stay."""
        return _decision(self._robot.express(self._robot.still()))


def make(who: Who, checkpoint: Path | None, execute: str, history: str | None = None) -> SimActor:
    """Return the actor. :raises ValueError: for a policy without a checkpoint."""
    if who == 'expert':
        return Expert()
    if who == 'zero':
        return Zero()
    if checkpoint is None:
        raise ValueError("actor 'policy' needs a checkpoint")
    return Policy(checkpoint, execute, history)


def check(who: Who, checkpoint: Path | None, execute: str, history: str | None = None) -> None:
    """
    Make sure that the actor can be made, before processes start.

    :raises ValueError: where it cannot.
    """
    if who == 'policy':
        make(who, checkpoint, execute, history)


def fingerprint(who: Who, checkpoint: Path | None) -> str | None:
    """Return the fingerprint of the policy that acts; None where none does."""
    if who != 'policy' or checkpoint is None:
        return None
    from ros2_lstm_policy.model import checkpoint as checkpoints
    return checkpoints.fingerprint(checkpoint)


def looking_back(decoder: DecoderConfig, history: str) -> DecoderConfig:
    """
    Return the same LSTM with another rule for how far it looks back.

    :param history: 'window:N' for the last N steps, 1 of which is no history, or 'carry' for the
        whole episode.
    :raises ValueError: for anything else.
    """
    name, _, steps = history.partition(':')
    if history == 'carry':
        return dataclasses.replace(decoder, history='carry')
    if name == 'window' and steps.isdecimal() and int(steps):
        return dataclasses.replace(decoder, history='window', window_size=int(steps))
    raise ValueError("history: expected 'window:N' with N of at least 1, 'carry', or null for "
                     f'what the policy was trained for, found {history!r}')


def _decision(action: Action) -> Decision:
    chunk = np.concatenate(list(action.groups.values())).astype(np.float32)[None]
    return Decision(action, chunk)

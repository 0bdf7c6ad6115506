"""Who acts in an evaluation: the policy, the scripted expert, or nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from ros2_lstm_policy.evaluation.rollout import SimActor
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.types import Action, ARM_DIM, Decision, Observation

Who = Literal['policy', 'expert', 'zero']


class Policy:
    """A checkpoint, as the robot runs it."""

    def __init__(self, checkpoint: Path, execute: str) -> None:
        """
        Load it.

        :raises CheckpointError: for a checkpoint that cannot be used.
        """
        from ros2_lstm_policy.model import checkpoint as checkpoints
        from ros2_lstm_policy.runtime.actor import PolicyActor
        self._actor = PolicyActor(checkpoints.load(checkpoint), execute)

    def begin(self, robot: SimRobot) -> None:
        """Forget the last episode."""
        self._actor.reset()

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide for one observation."""
        return self._actor.act(observation, instruction)


class Expert:
    """The scripted expert: what can be reached at most."""

    def begin(self, robot: SimRobot) -> None:
        """Look at another episode."""
        self._expert = ScriptedExpert(robot)

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide from the simulator's state, whatever is said."""
        return _decision(self._expert.act())


class Zero:
    """Does nothing: what success without a policy is worth."""

    def begin(self, robot: SimRobot) -> None:
        """Keep nothing."""

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Stay."""
        return _decision(Action(np.zeros(ARM_DIM, np.float32), 1.0))


def make(who: Who, checkpoint: Path | None, execute: str) -> SimActor:
    """Return the actor. :raises ValueError: for a policy without a checkpoint."""
    if who == 'expert':
        return Expert()
    if who == 'zero':
        return Zero()
    if checkpoint is None:
        raise ValueError("actor 'policy' needs a checkpoint")
    return Policy(checkpoint, execute)


def check(who: Who, checkpoint: Path | None, execute: str) -> None:
    """
    Make sure that the actor can be made, before processes start.

    :raises ValueError: where it cannot.
    """
    if who == 'policy':
        make(who, checkpoint, execute)


def _decision(action: Action) -> Decision:
    chunk = np.append(action.arm, action.gripper_open).astype(np.float32)[None]
    return Decision(action, chunk)

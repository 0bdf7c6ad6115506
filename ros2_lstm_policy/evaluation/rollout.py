"""One closed-loop episode: an actor in the simulated robot, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ros2_lstm_policy.evaluation.env import play
from ros2_lstm_policy.sim.benchmarks import HORIZON
from ros2_lstm_policy.sim.fleet import Robot, State
from ros2_lstm_policy.sim.tasks import chance, SimEpisode
from ros2_lstm_policy.types import Action, Decision, Observation

SUCCESS = 'success'
NOT_PLACED = 'right object lifted, not placed'
WRONG_LIFTED = 'wrong object lifted'
MISSED = 'missed the right object'
WRONG_CLOSED = 'closed at a wrong object'
NEVER_CLOSED = 'never closed at an object'
NOT_REACHED = 'goal not reached'  # of a task that is not about putting one object away
CATEGORIES = (SUCCESS, NOT_PLACED, WRONG_LIFTED, MISSED, WRONG_CLOSED, NEVER_CLOSED, NOT_REACHED)


class SimActor(Protocol):
    """An actor that may be told which robot it acts in; the scripted expert needs it."""

    def begin(self, robot: Robot) -> None:
        """Forget the last episode; the robot has been reset for the next."""

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide for one observation."""


@dataclass(frozen=True)
class Result:
    """
    What became of one episode.

    :param episode: its name.
    :param said: the instruction that the actor was given.
    :param target: the object that success asks for; None where it is of another kind.
    :param first_grasp: the object nearest to the first closing of the gripper near one.
    :param lifted: objects that were lifted, the first one first.
    :param steps: control periods until success, or the horizon.
    :param act_ms: median time of a decision.
    :param changes: what was changed in this episode's conditions, in words.
    :param failure: why a memory task could not succeed any more; empty where time ran out, too.
    :param chance: of a memory task: the best rate of success without memory, 0 to 1.
    """

    episode: str
    said: str
    target: str | None
    success: bool
    steps: int
    first_grasp: str | None
    lifted: tuple[str, ...]
    act_ms: float
    changes: tuple[str, ...] = ()
    failure: str = ''
    chance: float | None = None

    @property
    def right_lifted(self) -> bool:
        """Return whether the right object was lifted."""
        return self.target in self.lifted

    @property
    def category(self) -> str:
        """Return how it ended: one of CATEGORIES, or what a memory task calls a failure."""
        if self.success:
            return SUCCESS
        if self.failure:
            return self.failure
        if self.target is None:
            return NOT_REACHED
        if self.right_lifted:
            return NOT_PLACED
        if self.lifted:
            return WRONG_LIFTED
        if self.first_grasp is None:
            return NEVER_CLOSED
        return MISSED if self.first_grasp == self.target else WRONG_CLOSED


def rollout(robot: Robot, state: State, episode: SimEpisode, actor: SimActor, said: str,
            horizon: int = HORIZON,
            watch: Callable[[State, Action], None] = lambda state, action: None) -> Result:
    """
    Run one episode from its first state.

    :param said: the instruction that the actor is given.
    :param horizon: control periods after which it has failed; of a memory task, of each of its
        stages, cue and gaps aside.
    :param watch: sees every state and the action taken at it.
    """
    actor.begin(robot)
    grasps: list[str] = []

    def see(state: State, action: Action) -> None:
        if not grasps and robot.closes(action) and not state.held:
            grasps.extend(filter(None, [robot.nearest_object()]))
        watch(state, action)
    state, act_s = play(robot, state, actor.act, said, horizon, see)
    return Result(episode.name, said, episode.target, state.success, state.step,
                  grasps[0] if grasps else None, state.lifted, round(1e3 * act_s, 2),
                  failure=state.failure, chance=chance(episode))

"""
Controls of memory: an actor whose state is cleared at each step, or is another episode's.

Neither looks into the actor, so they are for any that remembers. What an actor knows follows from
what it has seen: it sees another episode up to its choice, and then the choice of this one.
"""

from __future__ import annotations

from ros2_lstm_policy.evaluation.rollout import SimActor
from ros2_lstm_policy.sim import tasks
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.fleet import Robot
from ros2_lstm_policy.sim.robot import SimRobot, SimState
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Decision, Observation

OTHER_SEEDS = 500_000  # from here on no benchmark has an episode, nor has training
LONGEST_WAY = 10_000  # control periods to the choice


class Forgetful:
    """
    An actor that begins anew at each step: the same weights without memory.

    :param actor: who acts.
    """

    def __init__(self, actor: SimActor) -> None:
        """Wrap an actor."""
        self._actor = actor

    def begin(self, robot: Robot) -> None:
        """Look at an episode's robot."""
        self._robot = robot

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Forget, then decide."""
        self._actor.begin(self._robot)
        return self._actor.act(observation, instruction)


class Swapped:
    """
    An actor that comes to the choice with the state of another episode.

    :param actor: who acts; it has seen the other episode.
    """

    def __init__(self, actor: SimActor) -> None:
        """Wrap an actor."""
        self._actor = actor

    def begin(self, robot: Robot) -> None:
        """Keep the state: it is the other episode's."""

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide."""
        return self._actor.act(observation, instruction)

    def see_other(self, robot: SimRobot, episode: SimEpisode, said: str) -> SimState:
        """
        See another episode up to its choice, and begin this one at its own.

        The scripted expert does what comes before the choice, in both.

        :param episode: as :func:`controls.controlled` has it: its cue is the other episode's.
        :return: the state at the choice.
        :raises ValueError: where the expert does not get to a choice.
        """
        state = robot.reset(other(episode))
        self._actor.begin(robot)
        _to_the_choice(robot, state, self._actor, said)
        return _to_the_choice(robot, robot.reset(episode), None, said)


def other(episode: SimEpisode) -> SimEpisode:
    """Return an episode of the same task and cue, in other places."""
    return tasks.memory_episode(episode.task, OTHER_SEEDS + episode.seed % OTHER_SEEDS,
                                episode.cue, (episode.gap_s, episode.gap_s))


def _to_the_choice(robot: SimRobot, state: SimState, actor: SimActor | None,
                   said: str) -> SimState:
    """Have the expert act until the last stage, in which the robot chooses; the actor looks on."""
    expert = ScriptedExpert(robot)
    for _ in range(LONGEST_WAY):
        if state.stage == robot.stages - 1:
            return state
        if state.failure:
            break
        if actor is not None:
            actor.act(state.observation, said)
        action = expert.act()
        state = robot.step(robot.express(action))
    raise ValueError(f'{robot.episode.name}: the scripted expert does not get to the choice')

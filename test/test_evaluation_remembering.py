"""Controls of memory: a state that is cleared, and one that is another episode's."""

from collections.abc import Iterator

import numpy as np
import pytest
from ros2_lstm_policy.evaluation import controls, remembering
from ros2_lstm_policy.evaluation.rollout import rollout
from ros2_lstm_policy.sim import benchmarks
from ros2_lstm_policy.sim.memory import catalogue
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.types import Action, Decision, Observation

GAP_S = (0.2, 0.2)


@pytest.fixture(scope='module')
def robot() -> Iterator[SimRobot]:
    """Return a robot with tiny pictures."""
    robot = SimRobot(benchmarks.SCENE, (16, 16))
    yield robot
    robot.close()


class Rememberer:
    """An actor that stays, and whose state is what it has seen since it began."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.seen: list[np.ndarray] = []
        self.known: list[int] = []

    def begin(self, robot: SimRobot) -> None:
        """Forget."""
        self.seen = []

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Stay, and note how much is known."""
        self.seen.append(observation.images['static'])
        self.known.append(len(self.seen))
        return Decision(Action.one_arm(np.zeros(6, np.float32), 1.0), np.zeros((1, 7)))


def test_a_cleared_state_knows_one_observation_at_each_step(robot: SimRobot) -> None:
    """The same weights, and nothing of the steps before."""
    episode = benchmarks.named('m1', gap_s=GAP_S)[0]
    actor = Rememberer()
    state = robot.reset(episode)
    rollout(robot, state, episode, remembering.Forgetful(actor), 'words', horizon=3)
    assert actor.known == [1] * 15


def test_a_swapped_state_has_seen_the_other_episodes_cue_and_not_its_own(robot: SimRobot) -> None:
    """The actor comes to this choice from the other cue, whose object success asks for."""
    own = benchmarks.named('m1', gap_s=GAP_S)[:2]
    for before, episode in zip(own, controls.controlled(own, 'state_swapped')):
        assert episode.cue != before.cue and episode.slots == before.slots
        assert episode.instruction == before.instruction and episode.target != before.target
    another = remembering.other(episode)
    assert another.cue == episode.cue and another.slots != episode.slots
    assert catalogue.is_held_out(another.cue, another.slots)

    actor = Rememberer()
    swapped = remembering.Swapped(actor)
    state = swapped.see_other(robot, episode, 'words')
    assert not state.held and state.acted == 0
    rollout(robot, state, episode, swapped, 'words', horizon=3)
    assert len(actor.seen) == 12 + 3  # the other's cue and gap, this one's choice
    first = robot.reset(another).observation.images['static']
    assert np.array_equal(actor.seen[0], first)
    assert np.array_equal(actor.seen[12], state.observation.images['static'])


@pytest.mark.parametrize(('benchmark', 'complaint'), [
    ('b', 'asks for no memory'), ('m4', 'the words tell the cue'), ('m6', 'words tell the cue')])
def test_a_state_is_swapped_only_where_it_decides(benchmark: str, complaint: str) -> None:
    """Elsewhere the words decide, or nothing is to be remembered."""
    with pytest.raises(ValueError, match=complaint):
        controls.controlled(benchmarks.named(benchmark), 'state_swapped')

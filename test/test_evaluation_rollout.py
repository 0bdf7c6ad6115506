"""A rollout ends at success or at the horizon, and sees what was grasped first."""

import numpy as np
import pytest
from ros2_lstm_policy.evaluation import controls
from ros2_lstm_policy.evaluation.rollout import rollout
from ros2_lstm_policy.sim.hand import Pose
from ros2_lstm_policy.sim.privileged import nearest
from ros2_lstm_policy.sim.robot import SimState
from ros2_lstm_policy.sim.tasks import goal_in, SimEpisode
from ros2_lstm_policy.types import Action, Decision, Observation


def episode(target='milk_1', scene='kitchen', name='e') -> SimEpisode:
    """Return an episode of putting the target into the basket."""
    return SimEpisode(name, 'suite/0', scene, f'pick up the {target}', goal_in(target, 'basket_1'),
                      target, 'basket_1', official_state=3, slots=(1, 0))


class Table:
    """A robot over a table on which two objects stand; it succeeds after some steps."""

    movable = ('milk_1', 'butter_1')

    def __init__(self, succeeds_at: int) -> None:
        """Stand over the milk."""
        self._succeeds_at = succeeds_at
        self.gripper_position = np.array([0.0, 0.0, 0.05])
        self.state = self._state(0)

    def position(self, name: str) -> np.ndarray:
        """Return where an object stands."""
        return np.array([0.0 if name == 'milk_1' else 0.5, 0.0, 0.0])

    def closes(self, action: Action) -> bool:
        """Return whether the gripper closes."""
        return action.gripper_open <= 0.5

    def nearest_object(self) -> str | None:
        """Return the object that it reaches."""
        return nearest(self.gripper_position, {name: self.position(name)
                                               for name in self.movable})

    def step(self, action: Action) -> SimState:
        """Move the gripper."""
        self.gripper_position = self.gripper_position + action.arm[:3]
        self.state = self._state(self.state.step + 1)
        return self.state

    def _state(self, step: int) -> SimState:
        return SimState(Observation(step, {}), step >= self._succeeds_at, (),
                        Pose(np.zeros(3), np.zeros(4)), np.zeros(7), 1.0, False, step, acted=step)


class Script:
    """An actor that moves along x and closes the gripper at one step."""

    def __init__(self, closes_at: int) -> None:
        """Remember when to close."""
        self._closes_at = closes_at
        self.heard: list[str] = []

    def begin(self, robot: Table) -> None:
        """Begin anew."""
        self._step = -1

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Move by 10 cm."""
        self._step += 1
        self.heard.append(instruction)
        arm = np.array([0.1, 0, 0, 0, 0, 0], np.float32)
        gripper_open = float(self._step < self._closes_at)
        return Decision(Action.one_arm(arm, gripper_open), np.zeros((1, 7)), {'all': 0.02})


@pytest.mark.parametrize(('closes_at', 'grasped'), [(0, 'milk_1'), (2, None), (5, 'butter_1')])
def test_the_first_grasp_is_the_object_within_reach_when_the_gripper_closes(closes_at, grasped):
    """Closing in the air is no grasp, so the next reachable object counts."""
    robot = Table(succeeds_at=100)
    horizon = 3 if grasped is None else 8
    found = rollout(robot, robot.state, episode(), Script(closes_at), 'words', horizon)
    assert found.first_grasp == grasped


def test_a_rollout_ends_with_success():
    """Nothing is asked of the actor after it."""
    robot, actor = Table(succeeds_at=4), Script(99)
    found = rollout(robot, robot.state, episode(), actor, 'words')
    assert (found.success, found.steps, found.act_ms) == (True, 4, 20.0)
    assert actor.heard == ['words'] * 4


def test_a_rollout_ends_at_the_horizon():
    """Without success it fails there."""
    robot = Table(succeeds_at=100)
    found = rollout(robot, robot.state, episode(), Script(99), 'words', horizon=6)
    assert (found.success, found.steps) == (False, 6)


def test_the_watcher_sees_every_state_with_its_action():
    """As many as there were steps, beginning with the first state."""
    robot, seen = Table(succeeds_at=3), []
    rollout(robot, robot.state, episode(), Script(99), 'words',
            watch=lambda state, action: seen.append((state.step, float(action.arm[0]))))
    assert seen == [(0, pytest.approx(0.1)), (1, pytest.approx(0.1)), (2, pytest.approx(0.1))]


def test_swapped_words_change_the_goal_and_not_the_beginning():
    """Success then means that the swapped words were followed."""
    given = [episode('milk_1', name='0'), episode('butter_1', name='1')]
    for before, after in zip(given, controls.controlled(given, 'swapped')):
        assert after.instruction != before.instruction
        assert after.goal == goal_in(after.target, 'basket_1') != before.goal
        assert (after.name, after.official_state, after.slots) == (
            before.name, before.official_state, before.slots)


def test_swapped_words_need_another_target():
    """A scene with one instruction has none to swap."""
    with pytest.raises(ValueError, match='one instruction only'):
        controls.controlled([episode()], 'swapped')


def test_blank_control_says_nothing_and_keeps_the_goal():
    """Only what is said changes."""
    (kept,) = controls.controlled([episode()], 'blank')
    assert kept == episode()
    assert controls.said(kept, 'blank') == ''
    assert controls.said(kept, 'none') == 'pick up the milk_1'

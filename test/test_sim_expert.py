"""The scripted expert does the task, from its beginning and from the middle of anything."""

from collections.abc import Iterator

import numpy as np
import pytest
from ros2_lstm_policy.sim import benchmarks, tasks
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.grasp import plan_grasp, turn
from ros2_lstm_policy.sim.move import Moving, Phase
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action

HORIZON = 100


@pytest.fixture(scope='module')
def robot() -> Iterator[SimRobot]:
    """Return one robot without cameras for all tests."""
    robot = SimRobot(benchmarks.SCENE, render=False)
    yield robot
    robot.close()


def finish(robot: SimRobot, expert: ScriptedExpert) -> bool:
    """Have the expert act to the end; return whether it succeeded."""
    for _ in range(HORIZON):
        action = expert.act()
        if robot.step(action).success:
            return True
    return False


@pytest.mark.parametrize('episode', [*benchmarks.a()[::12], *benchmarks.b()[::14]],
                         ids=lambda episode: episode.name)
def test_the_expert_puts_the_right_object_into_the_basket(
        robot: SimRobot, episode: SimEpisode) -> None:
    """Official states and held-out permutations, within the benchmarks' horizon."""
    robot.reset(episode)
    assert finish(robot, ScriptedExpert(robot))
    assert robot.step(Action.one_arm(np.zeros(6), 1.0)).lifted[0] == episode.target


@pytest.mark.parametrize('steps', [6, 14, 24])
def test_the_expert_takes_over_from_an_actor_that_went_astray(
        robot: SimRobot, steps: int) -> None:
    """It labels any state: the gripper closed early, aside, in mid-air or with the object."""
    robot.reset(benchmarks.a()[10])
    expert = ScriptedExpert(robot)
    for _ in range(steps):
        robot.step(Action.one_arm(expert.act().arm, float(steps == 14)))
    for _ in range(4):
        robot.step(Action.one_arm(np.array([0.03, 0.04, 0.03, 0.0, 0.0, 0.3]), 0.0))
    assert finish(robot, ScriptedExpert(robot))


def test_a_dropped_object_is_picked_up_again(robot: SimRobot) -> None:
    """The gripper opens on the way to the basket."""
    robot.reset(benchmarks.a()[10])
    expert = ScriptedExpert(robot)
    while not (isinstance(expert.skill, Moving) and expert.skill.phase is Phase.CARRY):
        action = expert.act()
        robot.step(action)
    for _ in range(5):
        robot.step(Action.one_arm(np.zeros(6), 1.0))
    assert not robot.privileged.held('butter_1')
    assert finish(robot, expert)


def test_commands_stay_within_what_one_period_takes(robot: SimRobot) -> None:
    """A label that is clipped when it is executed would teach something else."""
    robot.reset(benchmarks.b()[2])
    expert = ScriptedExpert(robot)
    for _ in range(40):
        action = expert.act()
        assert action.arm.shape == (6,) and action.arm.dtype == np.float32
        assert not robot.step(action).clipped


def test_an_episode_of_another_kind_is_refused(robot: SimRobot) -> None:
    """The expert knows one skill and says so."""
    robot.reset(tasks.SimEpisode('other', 'libero_90/51', benchmarks.SCENE, 'stack the cans',
                                 (('on', 'tomato_sauce_1', 'alphabet_soup_1'),), None, None))
    with pytest.raises(ValueError, match="'stack the cans' asks for something else"):
        ScriptedExpert(robot).act()


def test_a_grasp_takes_the_narrow_side_and_leaves_neighbours_alone() -> None:
    """A box of 4 x 8 cm is taken across; with neighbours beside it, the other way."""
    rng = np.random.default_rng(0)
    box = rng.uniform((-0.02, -0.036, 0.0), (0.02, 0.036, 0.05), (4000, 3))
    nothing = np.zeros((0, 3))
    free = plan_grasp(box, yaw=0.3, others=nothing)
    assert abs(turn(free.yaw, 0.0)) < 0.1 and free.width == pytest.approx(0.04, abs=0.003)
    beside = np.concatenate([box + np.array([0.07, 0, 0]), box - np.array([0.07, 0, 0])])
    blocked = plan_grasp(box, yaw=0.3, others=beside)
    assert abs(turn(blocked.yaw, np.pi / 2)) < 0.8

"""Memory tasks: a cue, a gap, and a choice whose frames say nothing of the cue."""

from collections.abc import Iterator
import dataclasses
import itertools

import numpy as np
import pytest
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.sim import benchmarks, tasks
from ros2_lstm_policy.sim.campaign import EpisodeCounts
from ros2_lstm_policy.sim.demonstration import demonstrate
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.memory import catalogue, wait
from ros2_lstm_policy.sim.memory.count import AISLE_X, BOWL, PLATE
from ros2_lstm_policy.sim.memory.task import MemoryTask
from ros2_lstm_policy.sim.move import Moving
from ros2_lstm_policy.sim.push import Pushing
from ros2_lstm_policy.sim.robot import SimRobot, SimState
from ros2_lstm_policy.sim.stages import Push, Put, Raise, Wanted
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action

GAP_S = 0.3
TASKS = {task.benchmark: task for task in catalogue.TASKS}
EVERY_TASK = pytest.mark.parametrize('task', TASKS.values(), ids=TASKS)


class Robots:
    """One robot a scene, with small pictures: a scene takes seconds to build."""

    def __init__(self) -> None:
        """Begin without any."""
        self._robots: dict[str, SimRobot] = {}

    def of(self, scene: str) -> SimRobot:
        """Return the robot of a scene."""
        if scene not in self._robots:
            self._robots[scene] = SimRobot(scene, (48, 48))
        return self._robots[scene]

    def close(self) -> None:
        """Free the robots."""
        for robot in self._robots.values():
            robot.close()


@pytest.fixture(scope='module')
def robots() -> Iterator[Robots]:
    """Return the robots of all tests."""
    robots = Robots()
    yield robots
    robots.close()


def begin(robots: Robots, episode: SimEpisode) -> tuple[SimRobot, SimState]:
    """Begin an episode."""
    robot = robots.of(episode.scene)
    return robot, robot.reset(episode)


def example(task: MemoryTask, cue: int = 0) -> SimEpisode:
    """Return an episode of a task with a short gap."""
    return tasks.with_cue(tasks.memory_episode(task.name, 7, 0, (GAP_S, GAP_S)), cue)


def frames(state: SimState) -> np.ndarray:
    """Return both cameras' images as one array."""
    return np.stack(list(state.observation.images.values()))


def finish_with(robot: SimRobot, state: SimState, wanted: Wanted) -> SimState:
    """Have one skill of the expert act to the end of the stage or of the episode."""
    skill = Pushing(robot, wanted) if isinstance(wanted, Push) else Moving(robot, wanted)
    stage = state.stage
    while not state.is_over(150) and state.stage == stage:
        action = skill.act()
        state = robot.step(action)
    return state


def until_it_acts(robot: SimRobot, state: SimState) -> list[SimState]:
    """Return the states of cue and gap and the first one in which the robot may move."""
    states = [state]
    while states[-1].held:
        states.append(robot.step(Action.one_arm(np.zeros(6), 1.0)))
    return states


def finish(robot: SimRobot, state: SimState) -> SimState:
    """Have the expert act to the end."""
    expert = ScriptedExpert(robot)
    while not state.is_over(150):
        action = expert.act()
        state = robot.step(action)
    return state


@pytest.mark.parametrize('benchmark', ['m1', 'm3'])
def test_frames_from_the_choice_on_are_the_same_bit_for_bit_whatever_the_cue_was(
        robots: Robots, benchmark: str) -> None:
    """All that tells the choice is in the cue: otherwise a policy needs no memory."""
    found = []
    for cue in (0, 1, TASKS[benchmark].cues - 1):
        robot, state = begin(robots, example(TASKS[benchmark], cue))
        shown = until_it_acts(robot, state)
        move = np.array([0.03, 0.02, -0.04, 0, 0, 0.1])
        after = [robot.step(Action.one_arm(move, float(i < 4))) for i in range(6)]
        found.append((shown, [shown[-1], *after]))
    for (shown, choice), (other_shown, other_choice) in itertools.combinations(found, 2):
        assert (frames(shown[0]) != frames(other_shown[0])).any(), 'the cue cannot be seen'
        for a, b in zip(choice, other_choice, strict=True):
            assert np.array_equal(frames(a), frames(b))
            assert np.array_equal(a.joint_positions, b.joint_positions)


def test_a_robot_that_is_held_stays_whatever_it_is_told(robots: Robots) -> None:
    """A policy could otherwise keep the cue in the posture of its arm."""
    robot, first = begin(robots, example(TASKS['m1']))
    state = first
    for _ in range(12):
        assert state.held and state.acted == 0
        state = robot.step(Action.one_arm(np.array([0.05, -0.05, 0.02, 0.2, 0, 0.3]), 0.0))
        assert np.array_equal(state.joint_positions, first.joint_positions)
        assert state.gripper_opening == first.gripper_opening
    assert state.step == 12 and state.observation.stamp_ns > first.observation.stamp_ns


def test_a_cue_lasts_a_second_and_a_gap_as_long_as_it_is_said(robots: Robots) -> None:
    """Ten frames with one object, three with none, then all seven."""
    robot, state = begin(robots, example(TASKS['m1']))
    shown = [frames(state) for state in until_it_acts(robot, state)]
    changes = [i for i, (a, b) in enumerate(itertools.pairwise(shown)) if (a != b).any()]
    assert len(shown) == 14 and changes == [9, 12]


@pytest.mark.parametrize('task', [TASKS[name] for name in ('m2', 'm3', 'm6')],
                         ids=lambda task: task.benchmark)
def test_the_expert_does_the_task_in_a_held_out_combination(
        robots: Robots, task: MemoryTask) -> None:
    """What can be reached at most, and that the judge lets it pass; other tests do the others."""
    (episode,) = benchmarks.named(task.benchmark, gap_s=(GAP_S, GAP_S))[:1]
    robot, state = begin(robots, episode)
    state = finish(robot, state)
    assert (state.success, state.failure) == (True, '')


def test_another_object_that_is_lifted_ends_the_episode(robots: Robots) -> None:
    """Who lifts one after the other finds the right one without memory."""
    robot, state = begin(robots, example(TASKS['m1'], cue=5))
    state = until_it_acts(robot, state)[-1]
    state = finish_with(robot, state, Put('butter_1', 'basket_1'))
    assert (state.success, state.failure) == (False, 'wrong object lifted')
    assert state.lifted in ((), ('butter_1',)) and state.acted < 60


def test_butter_in_the_tray_says_nothing_of_where_it_came_from(robots: Robots) -> None:
    """The way back begins in one state, bit for bit, whatever the way there was."""
    ways = []
    for cue in (0, 3):
        robot, state = begin(robots, example(TASKS['m2'], cue))
        expert = ScriptedExpert(robot)
        while state.stage < 3:
            action = expert.act()
            state = robot.step(action)
        ways.append([state, *(robot.step(Action.one_arm(np.array([0.01, 0.05, 0, 0, 0, 0]), 1.0))
                              for _ in range(4))])
    for a, b in zip(*ways, strict=True):
        assert np.array_equal(frames(a), frames(b))
        assert np.array_equal(a.joint_positions, b.joint_positions)
    state = finish_with(robot, b, Put('butter_1', 'plate_1'))
    assert (state.success, state.failure) == (False, 'put on another plate')


def test_a_can_that_is_offered_again_says_nothing_of_where_the_last_one_went(
        robots: Robots) -> None:
    """The second offer is the first one, bit for bit; the same basket again is the wrong one."""
    robot, state = begin(robots, example(TASKS['m5']))
    first = frames(state)
    state = finish_with(robot, state, Put('tomato_sauce_1', 'basket_1'))
    state = until_it_acts(robot, state)[-1]
    assert state.stage == 2 and np.array_equal(frames(state), first)
    state = finish_with(robot, state, Put('tomato_sauce_1', 'basket_1'))
    assert (state.success, state.failure) == (False, 'wrong basket')


def test_the_bowl_must_not_touch_another_plate(robots: Robots) -> None:
    """Who tries one after the other finds the right one without memory."""
    robot, state = begin(robots, example(TASKS['m3'], cue=1))
    state = finish_with(robot, until_it_acts(robot, state)[-1], Put(BOWL, 'plate_3'))
    assert (state.success, state.failure) == (False, 'wrong plate touched')


def test_a_bowl_that_is_back_leaves_no_trace_of_how_often_it_was_lifted(robots: Robots) -> None:
    """Each lift begins in the same state, bit for bit: the same commands do the same again."""
    robot, state = begin(robots, example(TASKS['m4'], cue=1))
    expert, lifts = ScriptedExpert(robot), {}
    while not state.is_over(150):
        if not state.held:
            lifts.setdefault(state.stage, []).append(state)
        action = expert.act()
        state = robot.step(action)
    assert state.success and list(lifts) == [0, 2, 4]
    for first, second in zip(lifts[0], lifts[2], strict=True):
        assert np.array_equal(frames(first), frames(second))
        assert np.array_equal(first.joint_positions, second.joint_positions)
    assert np.array_equal(frames(lifts[0][0]), frames(lifts[4][0]))


@pytest.mark.parametrize(('said', 'done', 'failure'), [
    (0, 1, 'too many lifts'), (1, 0, 'too few lifts')])
def test_more_or_fewer_lifts_than_were_said_fail(
        robots: Robots, said: int, done: int, failure: str) -> None:
    """Nothing ends by itself: who goes on lifting, or pushes too soon, has failed."""
    robot, state = begin(robots, example(TASKS['m4'], cue=said))
    expert = ScriptedExpert(robot)
    while state.stage < 2 * done:
        action = expert.act()
        state = robot.step(action)
    foot = robot.privileged.points(BOWL)[:, 2].min()
    state = finish_with(robot, state, Raise(BOWL, foot + 0.12) if done else Push(PLATE, AISLE_X))
    assert (state.success, state.failure) == (False, failure)


@pytest.mark.parametrize(('moves_at', 'failure'), [
    (39, 'moved too early'), (40, ''), (60, ''), (200, 'waited too long')])
def test_the_first_move_comes_after_the_time_that_was_said(
        robots: Robots, moves_at: int, failure: str) -> None:
    """Five seconds, one more or less; small commands do not move the robot meanwhile."""
    robot, state = begin(robots, example(TASKS['m6']))
    first = state
    for _ in range(moves_at):
        assert np.array_equal(state.joint_positions, first.joint_positions) and state.held
        state = robot.step(Action.one_arm(np.array([0.015, 0, 0, 0, 0, 0.4]), 0.0))
        if state.failure:
            break
    if not state.failure:
        state = robot.step(Action.one_arm(np.array([0.0, 0.03, 0, 0, 0, 0]), 1.0))
    assert state.failure == failure and (state.stage == 1) == (not failure)


def test_cue_and_gap_are_recorded_with_labels_that_do_not_move(robots: Robots, tmp_path) -> None:
    """Training sees them; and a horizon counts what comes after."""
    episode = example(TASKS['m1'])
    robot, state = begin(robots, episode)
    outcome = demonstrate(robot, state, episode, lambda state, label: label, tmp_path / 'bag',
                          'a test', 100, keep_failures=False)
    (reading,) = next(iter(open_source(SourceSpec(tmp_path / 'bag')))).read()
    recorded = reading.episode
    moves = np.abs(recorded.actions['arm']).max(1) > 0
    assert outcome.success and len(recorded) == outcome.steps
    assert moves.tolist()[:14] == [False] * 13 + [True]
    assert recorded.actions['gripper'][:13].all()
    assert recorded.instruction == episode.instruction


def held_out_share(task: MemoryTask) -> float:
    """Return the share of a task's combinations that is kept for evaluation."""
    rng = np.random.default_rng(0)
    drawn = [(i % task.cues, rng.permutation(task.movable).tolist()) for i in range(2000)]
    return float(np.mean([catalogue.is_held_out(*each) for each in drawn]))


@EVERY_TASK
def test_training_never_meets_a_combination_of_evaluation(task: MemoryTask) -> None:
    """Neither its cue with its places nor its seeds; the cues have equal shares."""
    measured = benchmarks.named(task.benchmark)
    validation = benchmarks.named(f'validation-{task.benchmark}')
    training = [benchmarks.training_memory(task.benchmark, i) for i in range(200)]
    assert (len(measured), len(validation)) == (100, 60)
    assert len({e.name for e in measured + validation + training}) == 360
    assert len({e.seed for e in measured + validation + training}) == 360
    assert all(catalogue.is_held_out(e.cue, e.slots) for e in measured)
    assert 0.15 < held_out_share(task) < 0.25
    assert not any(catalogue.is_held_out(e.cue, e.slots) for e in validation + training)
    counts = np.bincount([e.cue for e in measured], minlength=task.cues)
    assert len(counts) == task.cues and np.ptp(counts) <= 1


def test_gaps_are_fixed_or_drawn_with_a_uniform_logarithm() -> None:
    """Policies trained on short gaps alone do not last long ones."""
    assert {e.gap_s for e in benchmarks.named('m1', gap_s=(4.0, 4.0))} == {4.0}
    drawn = np.log([benchmarks.training_memory('m1', i, (0.5, 30.0)).gap_s for i in range(400)])
    assert np.log(0.5) - 0.1 <= drawn.min() and drawn.max() <= np.log(30.0)
    assert abs(np.median(drawn) - (np.log(0.5) + np.log(30.0)) / 2) < 0.3


@pytest.mark.parametrize('gap_s', [(-1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (1.0, 1e9),
                                   (float('nan'), 1.0), (1.0, float('nan'))])
def test_a_gap_that_cannot_be_is_refused(gap_s: tuple[float, float]) -> None:
    """In a benchmark and in a collection, with the range that there is."""
    with pytest.raises(ValueError, match='gap_s: expected .shortest, longest.'):
        benchmarks.named('m1', gap_s=gap_s)
    with pytest.raises(ValueError, match='gap_s: expected .shortest, longest.'):
        EpisodeCounts(m1=1, gap_s=gap_s)


def test_a_cue_or_a_target_that_a_memory_task_does_not_have_is_refused() -> None:
    """The task decides what is to be moved; a memory task has no official states."""
    with pytest.raises(ValueError, match='cue must be 0 to 6, found 7'):
        tasks.memory_episode('memory/shown_object', 0, 7)
    with pytest.raises(ValueError, match="unknown memory task 'memory/x'.*memory/shown_object"):
        tasks.memory_episode('memory/x', 0)
    with pytest.raises(ValueError, match='target'):
        tasks.with_target(example(TASKS['m1']), 'milk_1')
    with pytest.raises(ValueError, match='no official initial states'):
        tasks.episode(tasks.find('memory/shown_object'), official_state=1)


def test_collecting_takes_memory_tasks_beside_the_others() -> None:
    """The same numbers, and gaps that the folder keeps to."""
    counts = EpisodeCounts(b=1, m1=2, gap_s=(0.5, 30.0), first=5)
    episodes = counts.episodes()
    assert [e.name for e in episodes] == [
        benchmarks.training_b(5).name,
        *(benchmarks.training_memory('m1', i, (0.5, 30.0)).name for i in (5, 6))]
    assert counts.gaps() == {'gap_s': (0.5, 30.0)}
    assert dataclasses.replace(counts, m1=0).gaps() == {}


def test_chances_without_memory_are_what_is_computed() -> None:
    """The numbers of the documentation."""
    means = {name: np.mean([task.chance(cue) for cue in range(task.cues)])
             for name, task in TASKS.items()}
    assert {name: round(100 * float(mean), 1) for name, mean in means.items()} == {
        'm1': 14.3, 'm2': 25.0, 'm3': 25.0, 'm4': 16.8, 'm5': 6.2, 'm6': 11.6}
    assert [round(100 * wait.chance(n), 1) for n in (100, 50)] == [7.7, 15.4]

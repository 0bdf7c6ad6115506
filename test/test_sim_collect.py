"""Demonstrations: what the expert said, whoever acted; whole, resumable, repeatable."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.sim import benchmarks, collect
from ros2_lstm_policy.sim.arm import STEP_LIMIT
from ros2_lstm_policy.sim.campaign import bag_name, EpisodeCounts, OUTCOMES, record_all
from ros2_lstm_policy.sim.collect import CollectConfig
from ros2_lstm_policy.sim.dagger import DaggerConfig, Mixture
from ros2_lstm_policy.sim.demonstration import demonstrate, Outcome
from ros2_lstm_policy.sim.hand import Pose
from ros2_lstm_policy.sim.perturbation import Perturbation, PerturbationConfig
from ros2_lstm_policy.sim.robot import SimRobot, SimState
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action, Observation

EPISODE = benchmarks.training_b(3)
LABEL = Action.one_arm(np.array([0.04, 0, 0, 0, 0, 0], np.float32), 1.0)
STRONG = PerturbationConfig(share=1.0, push_rate=0.5, slip_rate=0.5)


@pytest.fixture(scope='module')
def robot() -> Iterator[SimRobot]:
    """Return one robot with small pictures for all tests."""
    robot = SimRobot(EPISODE.scene, (32, 32))
    yield robot
    robot.close()


def disturbed(seed: int, config: PerturbationConfig = STRONG) -> list[Action]:
    """Return what is executed for the same label, forty times."""
    perturbation = Perturbation(config, np.random.default_rng(seed))
    return [perturbation.disturb(LABEL) for _ in range(40)]


def test_disturbances_repeat_with_their_seed_and_differ_without():
    """So an episode can be made again, whatever was recorded before it."""
    arms = [np.array([action.arm for action in disturbed(seed)]) for seed in (1, 1, 2)]
    assert np.array_equal(arms[0], arms[1])
    assert not np.array_equal(arms[0], arms[2])


def test_disturbed_moves_stay_within_what_one_period_allows():
    """Nothing is executed that the robot would clip."""
    arms = np.array([action.arm for action in disturbed(1)])
    assert (np.abs(arms) <= STEP_LIMIT.astype(np.float32)).all()
    assert {action.gripper_open for action in disturbed(1)} == {0.0, 1.0}


def test_the_share_of_undisturbed_episodes_is_as_configured():
    """In those the label itself is executed."""
    config = dataclasses.replace(STRONG, share=0.25)
    calm = sum(all(action is LABEL for action in disturbed(seed, config)) for seed in range(400))
    assert 260 < calm < 340


def test_a_bag_holds_what_the_expert_said_and_not_what_was_done(robot, tmp_path):
    """The robot is pushed; the labels point the way back, and the frames show it."""
    done: list[Action] = []

    def push(state: SimState, label: Action) -> Action:
        arm = label.arm.copy()
        arm[1] = -0.05 if len(done) in (3, 4, 5) else arm[1]
        done.append(Action.one_arm(arm, label.gripper_open))
        return done[-1]

    bag = tmp_path / 'pushed'
    outcome = demonstrate(robot, robot.reset(EPISODE), EPISODE, push, bag, 'a test', 150, False)
    (recording,) = open_source(SourceSpec(bag))
    (reading,) = recording.read()
    episode = reading.episode
    assert outcome.success and outcome.kept and outcome.steps == len(episode) == len(done)
    assert episode.instruction == EPISODE.instruction and episode.success
    assert np.diff(episode.stamps_ns).tolist() == [100_000_000] * (len(done) - 1)
    differs = np.flatnonzero(np.abs(episode.actions['arm'] - [a.arm for a in done]).max(1) > 1e-6)
    assert differs.tolist() == [3, 4, 5]
    assert {episode.frames[camera][0].shape for camera in episode.frames} == {(32, 32, 3)}


def test_a_failed_demonstration_leaves_no_bag_unless_it_is_wanted(robot, tmp_path):
    """Its labels are right all the same, so DAgger keeps it."""
    def stay(state: SimState, label: Action) -> Action:
        return Action.one_arm(np.zeros(6, np.float32), 1.0)

    for keep in (False, True):
        bag = tmp_path / f'kept_{keep}'
        outcome = demonstrate(robot, robot.reset(EPISODE), EPISODE, stay, bag, 'a test', 3, keep)
        assert (outcome.success, outcome.kept, outcome.steps) == (False, keep, 3)
        assert bag.exists() == keep


def settings(output: Path, **changes) -> CollectConfig:
    """Return settings that record two tiny episodes."""
    config = CollectConfig(output=output, episodes=EpisodeCounts(b=2), image_size=(32, 32),
                           horizon=2, processes=1)
    return dataclasses.replace(config, **changes)


def test_collecting_again_runs_only_what_is_missing(tmp_path, capsys):
    """Every episode that was run has its line, kept or not."""
    assert len(collect.collect(settings(tmp_path))) == 2
    again = collect.collect(settings(tmp_path, episodes=EpisodeCounts(b=3)))
    assert [outcome.episode for outcome in again] == [
        benchmarks.training_b(i).name for i in range(3)]
    assert len((tmp_path / 'outcomes.jsonl').read_text().splitlines()) == 3


def test_an_episode_whose_bag_has_no_line_is_recorded_again(tmp_path):
    """A kill between the two left a folder that could not be gone on with."""
    def record(episode: SimEpisode) -> Outcome:
        (tmp_path / bag_name(episode)).mkdir()
        return Outcome(bag_name(episode), episode.name, episode.instruction, True, True, 1)

    for _ in range(2):
        (outcome,) = record_all(tmp_path, [EPISODE], {}, lambda: record, 1)
        (tmp_path / OUTCOMES).unlink()
    assert (tmp_path / outcome.name).is_dir()
    assert [bag.name for bag in (tmp_path / 'incomplete').iterdir()] == [outcome.name]


def test_a_folder_keeps_to_the_settings_that_it_was_begun_with(tmp_path):
    """Otherwise its episodes would not go together."""
    collect.collect(settings(tmp_path, episodes=EpisodeCounts(b=1)))
    with pytest.raises(ValueError, match='begun with other settings'):
        collect.collect(settings(tmp_path, horizon=3))


@pytest.mark.parametrize(('text', 'complaint'), [
    ('output: x\nepisodes: {a: 0}\n', 'at least one is positive'),
    ('output: x\nepisodes: {a: 1, b: 2, first: 899999}\n', 'for validation'),
    ('output: x\nepisodes: {b: 1}\nperturbation: {share: 2}\n', 'share must be in'),
    ('output: x\nepisodes: {b: 1}\nprocesses: 0\n', 'at least 1'),
    ('output: x\nepisodes: {d: 1}\n', "unknown key 'd'")])
def test_bad_settings_are_refused_with_a_reason(tmp_path, capsys, text, complaint):
    """On one line, with the file's name and exit status 1."""
    path = tmp_path / 'collect.yaml'
    path.write_text(text)
    assert collect.main(['--config', str(path)]) == 1
    said = capsys.readouterr().err
    assert complaint in said and str(path) in said


class Still:
    """An actor that always decides the same."""

    def __init__(self) -> None:
        """Count the observations."""
        self.seen = 0

    def reset(self) -> None:
        """Forget them."""
        self.seen = 0

    def act(self, observation: Observation, instruction: str) -> SimpleNamespace:
        """Stay."""
        self.seen += 1
        return SimpleNamespace(action=Action.one_arm(np.zeros(6, np.float32), 0.0))


def nothing_seen(acted: int, held: bool = False) -> SimState:
    """Return a state without images, so many periods into the stage."""
    return SimState(Observation(0, {}), False, (), Pose(np.zeros(3), np.zeros(4)), np.zeros(7),
                    1.0, False, acted, acted=acted, held=held)


def mixed(steps: int, **changes) -> tuple[list[bool], Still]:
    """Return at which steps the expert acted, and the policy."""
    config = DaggerConfig(output=Path(), checkpoint=Path(), episodes=EpisodeCounts(b=1), **changes)
    actor = Still()
    mixture = Mixture(config, actor, 'words', np.random.default_rng(0))
    return [mixture.execute(nothing_seen(i), LABEL) is LABEL for i in range(steps)], actor


def test_the_policy_sees_every_observation_whoever_acts():
    """Its history has no holes."""
    _, actor = mixed(30, expert_share=0.5)
    assert actor.seen == 30


def test_the_expert_takes_over_when_patience_ends():
    """So that every episode shows how the task is done."""
    acted, _ = mixed(20, expert_share=0.0, patience=12)
    assert acted == [False] * 12 + [True] * 8


def test_while_the_robot_is_held_the_policy_sees_all_and_patience_waits():
    """A gap of a minute is no failure to get there."""
    config = DaggerConfig(output=Path(), checkpoint=Path(), episodes=EpisodeCounts(b=1),
                          expert_share=0.0, patience=2)
    actor = Still()
    mixture = Mixture(config, actor, 'words', np.random.default_rng(0))
    states = [*(nothing_seen(0, held=True) for _ in range(9)), *map(nothing_seen, range(3))]
    assert [mixture.execute(state, LABEL) is LABEL for state in states] == [False] * 11 + [True]
    assert actor.seen == 12


def test_who_acts_changes_by_stretches():
    """Not at every step: a policy's mistakes need time to show."""
    acted, _ = mixed(400, expert_share=0.5, stretch=(5, 9), patience=400)
    changes = np.flatnonzero(np.diff(acted))
    assert 0.3 < np.mean(acted) < 0.7
    assert np.diff(changes).min() >= 5

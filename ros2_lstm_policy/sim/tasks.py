"""
What the simulated robot can be told to do: LIBERO's tasks by name, and single episodes of them.

The tasks of benchmarks A and C, which ask to put one object into a basket or a tray, have short
names such as `living_room_scene2/butter` or `libero_object/milk`; any LIBERO task is also
`suite/index` or `suite/name`. Memory tasks are `memory/name`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
import difflib
import functools
from pathlib import Path
import re
from typing import Any, Literal

from ros2_lstm_policy.sim import backend
from ros2_lstm_policy.sim.memory import catalogue, scenes
from ros2_lstm_policy.sim.memory.catalogue import DEFAULT_GAP_S

Goal = tuple[tuple[str, ...], ...]
Words = Literal['suite', 'file', 'name']
PUBLISHED_BY_NAME = ('libero_spatial', 'libero_object', 'libero_goal', 'libero_10', 'libero_90')
SHORT_NAMED_SUITES = ('libero_90', 'libero_object')
PUT_SCENES = ('living_room_scene1', 'living_room_scene2', 'living_room_scene3')
CONTAIN_REGION = '_contain_region'
MEMORY = 'memory'
TWO_ARMS, POT = 'two_arm_lift', 'pot'  # a scene, and what is lifted there
TRAINING_SEED = 1_000_000  # seeds from here on are those of training and validation


@dataclass(frozen=True)
class SimTask:
    """
    One LIBERO task, or a memory task in one of its scenes.

    :param name: its short name.
    :param suite: LIBERO suite, or 'memory'; `index` is its place there.
    :param scene: which :class:`SimRobot` serves it; tasks of one scene share objects and places.
    :param instruction: the words that belong to it, as :func:`said` chooses them.
    :param goal: predicates that all have to hold.
    """

    name: str
    suite: str
    index: int
    scene: str
    instruction: str
    goal: Goal

    @property
    def target(self) -> str | None:
        """Return the object to be put into the container, None for another kind of task."""
        return put_into(self.goal)[0]


@dataclass(frozen=True)
class SimEpisode:
    """
    One episode to be run: a task, its words and where it begins.

    :param name: unique, such as 'A/butter/3'.
    :param task: `suite/index` of the LIBERO task, or `memory/name`.
    :param scene: which :class:`SimRobot` serves it.
    :param instruction: what the robot is told.
    :param goal: predicates that success asks for.
    :param target: LIBERO's name of the object to be moved, such as 'butter_1'; None where the
        goal is of another kind.
    :param container: where it belongs, such as 'basket_1'.
    :param official_state: index of the task's official initial state; None for a seeded reset.
    :param seed: of the reset.
    :param slots: object k stands in the place of object slots[k] (the scene's movable objects in
        its file's order, without the container); None for the scene's own places.
    :param cue: of a memory task: which of the things that can be remembered; None of other tasks.
    :param gap_s: of a memory task: how long each gap is.
    """

    name: str
    task: str
    scene: str
    instruction: str
    goal: Goal
    target: str | None
    container: str | None
    official_state: int | None = None
    seed: int = 0
    slots: tuple[int, ...] | None = None
    cue: int | None = None
    gap_s: float = 0.0


def put_into(goal: Goal) -> tuple[str | None, str | None]:
    """
    Return (target, container) of a goal that puts one object into a container, else Nones.

    A container is an object that can be moved, such as 'basket_1'. A part of the furniture, such
    as 'desk_caddy_1_back', is none: whether its goal holds is left to LIBERO's own predicates.
    """
    if len(goal) == 1 and goal[0][0] == 'in':
        region = re.fullmatch(rf'(\w+_\d+){CONTAIN_REGION}', goal[0][2])
        if region:
            return goal[0][1], region.group(1)
    return None, None


def goal_in(target: str, container: str) -> Goal:
    """Return the goal of putting the target into the container."""
    return (('in', target, container + CONTAIN_REGION),)


def words(object_name: str) -> str:
    """Return an object's name in words: 'alphabet soup' for 'alphabet_soup_1'."""
    return re.sub(r'_\d+$', '', object_name).replace('_', ' ')


@functools.cache
def suite(name: str) -> tuple[SimTask, ...]:
    """
    Return a suite's tasks.

    :raises ValueError: for an unknown suite, and one of whose tasks has no file.
    """
    if name == MEMORY:
        return tuple(SimTask(task.name, MEMORY, i, task.scene, task.instruction(0), ())
                     for i, task in enumerate(catalogue.TASKS))
    return tuple(_task(name, i, record) for i, record in enumerate(backend.suite_tasks(name)))


def said(task: str, source: Words = 'suite') -> str:
    """
    Return the words of a task.

    LIBERO makes `task.language` of a file's name. For its own suites that is what everybody
    measures with; the files of other suites were copied under old names and say in
    `(:language ...)` what is meant.

    :param task: 'suite/index'.
    :param source: 'file' for what the file says, 'name' for what its name says, 'suite' for the
        name in PUBLISHED_BY_NAME and the file elsewhere.
    :raises ValueError: where the file says nothing.
    """
    suite_name, _, index = task.partition('/')
    record = backend.suite_tasks(suite_name)[int(index)]
    by_name = source == 'name' or (source == 'suite' and suite_name in PUBLISHED_BY_NAME)
    return record.language if by_name else backend.words(backend.bddl_file(record))


def find(name: str) -> SimTask:
    """
    Return the task of a short name, of `suite/index` or of `suite/LIBERO name`.

    :raises ValueError: for an unknown one, with those that are near or known.
    """
    prefix, _, rest = name.partition('/')
    if prefix.startswith('libero_'):
        tasks = suite(prefix)
        if rest.isdigit() and int(rest) < len(tasks):
            return tasks[int(rest)]
        for task, record in zip(tasks, backend.suite_tasks(prefix)):
            if rest == record.name:
                return task
    by_name = _short_names()
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, 3)
    hint = f'did you mean {", ".join(near)}? ' if near else ''
    raise ValueError(f'unknown task {name!r}; {hint}known: {", ".join(short_names())}, '
                     'and any LIBERO task as suite/index, such as libero_goal/3')


def put_into_names() -> list[str]:
    """Return the short names of the tasks that put one object into a basket or a tray."""
    return [name for name in short_names() if _short_names()[name].target is not None]


def short_names() -> list[str]:
    """Return all short names."""
    return [name for name in _short_names() if not name.startswith('libero_90/')]


def episode(task: SimTask, seed: int = 0, official_state: int | None = None) -> SimEpisode:
    """
    Return one episode of a task: from a seeded reset, or from an official initial state.

    :raises ValueError: for an official state of a memory task, which has none.
    """
    if task.suite == MEMORY:
        if official_state is not None:
            raise ValueError(f'{task.name} has no official initial states; choose a seed')
        return memory_episode(task.name, seed)
    target, container = put_into(task.goal)
    start = f'seed{seed}' if official_state is None else f'state{official_state}'
    return SimEpisode(
        name=f'{task.name}/{start}', task=f'{task.suite}/{task.index}', scene=task.scene,
        instruction=task.instruction, goal=task.goal, target=target, container=container,
        official_state=official_state, seed=seed)


def memory_episode(name: str, seed: int, cue: int | None = None,
                   gap_s: tuple[float, float] = (DEFAULT_GAP_S, DEFAULT_GAP_S)) -> SimEpisode:
    """
    Return one episode of a memory task.

    :param name: of the task, such as 'memory/shown_object'.
    :param seed: from TRAINING_SEED on, its combination of cue and places is none of evaluation's.
    :param cue: None for one that is drawn from the seed.
    :param gap_s: shortest and longest gap, as :func:`catalogue.draw` takes them.
    :raises ValueError: for what there is not.
    """
    task = catalogue.find(name)
    if task is None:
        raise ValueError(f'unknown memory task {name!r}; known: '
                         f'{", ".join(task.name for task in catalogue.TASKS)}')
    drawn = catalogue.draw(task, seed, seed < TRAINING_SEED, cue, gap_s)
    return with_cue(SimEpisode(
        name=f'{task.name}/seed{seed}', task=task.name, scene=task.scene, instruction='', goal=(),
        target=None, container=None, seed=seed, slots=drawn.slots, gap_s=drawn.gap_s), drawn.cue)


def lift(name: str, seed: int) -> SimEpisode:
    """Return an episode of two arms that lift a pot, which stands where the seed puts it."""
    return SimEpisode(name, f'two_arms/{POT}', TWO_ARMS, 'lift the pot', (), POT, None, seed=seed)


def with_cue(episode: SimEpisode, cue: int) -> SimEpisode:
    """Return the same episode of a memory task with something else to be remembered."""
    task = catalogue.find(episode.task)
    if task is None or not 0 <= cue < task.cues:
        raise ValueError(f'{episode.name}: has no cue {cue}')
    return dataclasses.replace(episode, cue=cue, instruction=task.instruction(cue),
                               target=task.target(cue), container=task.container(cue))


def chance(episode: SimEpisode) -> float | None:
    """Return the best rate of success without memory; None for no memory task."""
    task = catalogue.find(episode.task)
    return None if task is None or episode.cue is None else task.chance(episode.cue)


def with_target(episode: SimEpisode, target: str) -> SimEpisode:
    """
    Return the same beginning with the words and the goal of putting another object away.

    :param target: LIBERO's name of an object of the scene, such as 'milk_1'; a task need not
        exist for it.
    :raises ValueError: where the task has no container, or the target is the container.
    """
    container = episode.container if episode.cue is None else None
    if container is None or target == container:
        raise ValueError(f'{episode.name}: target {target!r} cannot be put into '
                         f'{container or "anything: the task is of another kind"}')
    place = words(container).split()[-1]  # LIBERO says tray for a wooden tray
    return dataclasses.replace(
        episode, target=target, goal=goal_in(target, container),
        instruction=f'pick up the {words(target)} and put it in the {place}')


def scene_file(scene: str) -> Path:
    """Return the file from which a scene is built. :raises ValueError: for an unknown one."""
    own = scenes.file(scene)
    if own is not None:
        return own
    suite_name, _, rest = scene.partition('/')
    suites = (suite_name,) if rest else ('libero_90',)
    for name in suites:
        for task, record in zip(suite(name), backend.suite_tasks(name)):
            if task.scene == scene:
                return backend.bddl_file(record)
    known = dict.fromkeys(task.scene for task in suite('libero_90'))
    raise ValueError(f'unknown scene {scene!r}; known: {", ".join(known)}, '
                     'and suite/name of a LIBERO task')


@functools.cache
def _short_names() -> dict[str, SimTask]:
    return {task.name: task for name in (*SHORT_NAMED_SUITES, MEMORY) for task in suite(name)}


def _task(suite_name: str, index: int, record: Any) -> SimTask:
    file = backend.bddl_file(record)
    goal = backend.goal(file)
    scene = _scene(suite_name, file.stem)
    target, _ = put_into(goal)
    place = suite_name if suite_name == 'libero_object' else scene
    if target is not None and place in (*PUT_SCENES, 'libero_object'):
        name = f'{place}/{re.sub(r"_[0-9]+$", "", target)}'
    else:
        name = f'{suite_name}/{file.stem}'
    return SimTask(name=name, suite=suite_name, index=index, scene=scene,
                   instruction=said(f'{suite_name}/{index}'), goal=goal)


def _scene(suite_name: str, stem: str) -> str:
    """LIBERO-90 names its scenes, and all tasks of one share its objects; others stand alone."""
    match = re.match(r'[A-Z_]+_SCENE\d+', stem)
    if suite_name == 'libero_90' and match:
        return match.group(0).lower()
    return f'{suite_name}/{stem}'

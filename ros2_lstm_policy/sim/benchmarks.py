"""
The benchmarks' episodes, and episodes for training that never touch them.

A, fixed slots: one scene, five instructions, official initial states. B, grounding: any of the
seven objects of that scene may be meant, and their places are permuted; one permutation in five
is held out from training. C, many scenes: 24 tasks in 13 scenes. Training episodes are seeded
resets with seeds from TRAINING_SEED on, and permutations that are not held out. Validation
episodes are of the same kind, with numbers that no training episode can have: what is chosen
(weights, settings) is chosen on them, so that A, B and C stay unseen.

Lift: two arms lift a pot by its handles.

M, memory: tasks m1, m2, ... that nobody does who does not remember, see `memory/`. They are held
apart from training in the same way: one combination of cue and places in five is evaluation's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import numpy as np

from ros2_lstm_policy.sim import seven_objects, suites, tasks
from ros2_lstm_policy.sim.memory import catalogue
from ros2_lstm_policy.sim.memory.catalogue import DEFAULT_GAP_S
from ros2_lstm_policy.sim.tasks import SimEpisode, TRAINING_SEED, Words

Gap = tuple[float, float]
GAP: Gap = (DEFAULT_GAP_S, DEFAULT_GAP_S)
ALL_MEMORY = 'm'
SCENE, OBJECTS = seven_objects.SCENE, seven_objects.OBJECTS
PERMUTED_TASK = 'libero_90/51'  # any of the scene: words and goal are replaced
A_STATES, B_SEEDS, C_STATES, SUITE_STATES = 10, 10, 5, 10
HORIZON = 150  # control periods after which an episode, or a stage of m, has failed
B_FIRST_SEED = 60_000
LIFT_FIRST_SEED, LIFT_EPISODES = 200_000, 50
M_FIRST_SEED, M_EPISODES = 100_000, 100  # of each memory task
TRAINING_EPISODES = 900_000  # of each kind at most; the numbers from here on are validation's
VALIDATION_EPISODES = 60
HELD_OUT_ONE_IN = 5
_VALIDATION = range(TRAINING_EPISODES, TRAINING_EPISODES + VALIDATION_EPISODES)


def a() -> list[SimEpisode]:
    """Return benchmark A: 5 tasks x official states 0 to 9, 50 episodes."""
    return _official('A', _a_tasks(), A_STATES)


def b() -> list[SimEpisode]:
    """Return benchmark B: 7 targets x 10 seeds in held-out permutations, 70 episodes."""
    return [_permuted(f'B/{tasks.words(OBJECTS[i])}/{seed}', OBJECTS[i],
                      B_FIRST_SEED + len(OBJECTS) * seed + i, is_held_out)
            for seed in range(B_SEEDS) for i in range(len(OBJECTS))]


def c() -> list[SimEpisode]:
    """Return benchmark C: 24 tasks x official states 0 to 4, 120 episodes, scene by scene."""
    return _official('C', _c_tasks(), C_STATES)


def suite(name: str, states: int | None = None, words: Words = 'suite') -> list[SimEpisode]:
    """
    Return a LIBERO suite's tasks from official states.

    :param states: official states of each task, from the first; None for SUITE_STATES.
    :param words: which words are said, as :func:`tasks.said` reads them.
    :raises ValueError: for a suite that is unknown or not complete, or has fewer states.
    """
    suites.check(name)
    states = SUITE_STATES if states is None else states
    fewest = min(suites.official_states(name))
    if not 1 <= states <= fewest:
        raise ValueError(f'states must be 1 to {fewest}, which is what {name} has of each task; '
                         f'found {states}')
    return [dataclasses.replace(episode, instruction=tasks.said(episode.task, words))
            for episode in _official(name, tasks.suite(name), states)]


def memory(name: str, gap_s: Gap = GAP) -> list[SimEpisode]:
    """
    Return benchmark m1, m2, ...: 100 episodes of a memory task in held-out combinations.

    :param gap_s: shortest and longest gap.
    """
    first = M_FIRST_SEED + M_EPISODES * int(name.removeprefix(ALL_MEMORY))
    return [_memory(name.upper(), name, i, first + i, gap_s) for i in range(M_EPISODES)]


def named(name: str, states: int | None = None, words: Words = 'suite',
          gap_s: Gap = GAP) -> list[SimEpisode]:
    """
    Return a benchmark of `known`, in capitals or not, or a LIBERO suite.

    :param states: of a suite, as :func:`suite` takes them; `words` as well.
    :param gap_s: of memory tasks: shortest and longest gap.
    :raises ValueError: for an unknown name, with the known ones, a gap that there is not, and as
        :func:`suite` does.
    """
    kind, _, of = name.lower().rpartition('-')
    memory_tasks = _memory_names(of) if kind in ('', 'validation') else []
    if memory_tasks or name.lower() in BENCHMARKS:
        if states is not None or words != 'suite':
            raise ValueError(f"benchmark {name!r} has its own states and words; 'states' and "
                             "'words' are for LIBERO suites")
        if not memory_tasks:
            return BENCHMARKS[name.lower()]()
        catalogue.check_gap(gap_s)
        make = validation_memory if kind else memory
        return [episode for task in memory_tasks for episode in make(task, gap_s)]
    try:
        suites.check_name(name)
    except ValueError as error:
        raise ValueError(f'{error}; benchmarks: {", ".join(known())}') from error
    return suite(name, states, words)


def horizon(name: str) -> int:
    """
    Return after how many control periods an episode has failed.

    That of a, b, c and lift and of each stage of m, or what the field gives a LIBERO suite.
    """
    return HORIZON if name.lower() in BENCHMARKS or has_gaps(name) else suites.horizon(name)


def known() -> list[str]:
    """Return the names of all benchmarks."""
    of_memory = [*(task.benchmark for task in catalogue.TASKS), ALL_MEMORY]
    return [*BENCHMARKS, *of_memory, *(f'validation-{name}' for name in of_memory)]


def has_gaps(name: str) -> bool:
    """Return whether a benchmark is of memory tasks."""
    return bool(_memory_names(name.lower().rpartition('-')[2]))


def training_a(index: int) -> SimEpisode:
    """Return training episode `index` of the tasks of A: a seeded reset, no official state."""
    return _seeded('train-A', _a_tasks(), check_training(index))


def training_b(index: int) -> SimEpisode:
    """Return training episode `index` like B's, in a permutation that is not held out."""
    return _grounding('train-B', check_training(index))


def training_c(index: int) -> SimEpisode:
    """Return training episode `index` of the tasks of C: a seeded reset, no official state."""
    return _seeded('train-C', _c_tasks(), check_training(index))


def training_memory(name: str, index: int, gap_s: Gap = GAP) -> SimEpisode:
    """Return training episode `index` of m1, m2, ..., in a combination that is not held out."""
    return _memory(f'train-{name.upper()}', name, index, TRAINING_SEED + check_training(index),
                   gap_s)


def validation_memory(name: str, gap_s: Gap = GAP) -> list[SimEpisode]:
    """Return 60 episodes like training's of m1, m2, ..., of which it has none."""
    return [_memory(f'val-{name.upper()}', name, index, TRAINING_SEED + index, gap_s)
            for index in _VALIDATION]


def validation_a() -> list[SimEpisode]:
    """Return 60 episodes like training's of the tasks of A, of which it has none."""
    return [_seeded('val-A', _a_tasks(), index) for index in _VALIDATION]


def validation_b() -> list[SimEpisode]:
    """Return 60 episodes like training's of B, of which it has none; no held-out permutation."""
    return [_grounding('val-B', index) for index in _VALIDATION]


def validation_c() -> list[SimEpisode]:
    """Return 60 episodes like training's of the tasks of C, of which it has none, by scene."""
    episodes = [_seeded('val-C', _c_tasks(), index) for index in _VALIDATION]
    return sorted(episodes, key=lambda episode: episode.scene)


def lift() -> list[SimEpisode]:
    """Return benchmark lift: two arms lift a pot, 50 seeds."""
    return [tasks.lift(f'lift/{seed}', LIFT_FIRST_SEED + seed) for seed in range(LIFT_EPISODES)]


def training_lift(index: int) -> SimEpisode:
    """Return training episode `index` of two arms that lift a pot."""
    return tasks.lift(f'train-lift/{index}', TRAINING_SEED + check_training(index))


def validation_lift() -> list[SimEpisode]:
    """Return 60 episodes like training's of two arms, of which it has none."""
    return [tasks.lift(f'val-lift/{index}', TRAINING_SEED + index) for index in _VALIDATION]


def check_training(index: int) -> int:
    """
    Return the number of a training episode.

    :raises ValueError: for one that validation has, or a negative one.
    """
    if not 0 <= index < TRAINING_EPISODES:
        raise ValueError(f'training episodes are numbered 0 to {TRAINING_EPISODES - 1}, found '
                         f'{index}: those from {TRAINING_EPISODES} on are for validation')
    return index


def is_held_out(slots: Sequence[int]) -> bool:
    """Return whether a permutation of the seven objects is kept for evaluation; 1 in 5 is."""
    number = sum(slot * len(slots) ** i for i, slot in enumerate(slots))
    return number % HELD_OUT_ONE_IN == 0


def _memory_names(name: str) -> list[str]:
    names = [task.benchmark for task in catalogue.TASKS]
    return names if name == ALL_MEMORY else [one for one in names if one == name]


def _memory(prefix: str, name: str, index: int, seed: int, gap_s: Gap) -> SimEpisode:
    """Return an episode whose cue follows from its number, so that all have equal shares."""
    task = catalogue.find(name)
    assert task is not None
    cue = index % task.cues
    episode = tasks.memory_episode(task.name, seed, cue, gap_s)
    return _named(episode, f'{prefix}/cue{cue}/{index}')


def _a_tasks() -> list[tasks.SimTask]:
    return [task for task in tasks.suite('libero_90') if task.scene == SCENE]


def _c_tasks() -> list[tasks.SimTask]:
    return [tasks.find(name) for name in tasks.put_into_names()]


def _official(name: str, of: Sequence[tasks.SimTask], states: int) -> list[SimEpisode]:
    return [_named(tasks.episode(task, official_state=state), f'{name}/{task.name}/{state}')
            for task in of for state in range(states)]


def _seeded(name: str, of: Sequence[tasks.SimTask], index: int) -> SimEpisode:
    task = of[index % len(of)]
    return _named(tasks.episode(task, TRAINING_SEED + index), f'{name}/{task.name}/{index}')


def _grounding(name: str, index: int) -> SimEpisode:
    target = OBJECTS[index % len(OBJECTS)]
    return _permuted(f'{name}/{tasks.words(target)}/{index}', target, TRAINING_SEED + index,
                     lambda slots: not is_held_out(slots))


def _named(episode: SimEpisode, name: str) -> SimEpisode:
    return dataclasses.replace(episode, name=name)


def _permuted(name: str, target: str, seed: int,
              accept: Callable[[Sequence[int]], bool]) -> SimEpisode:
    rng = np.random.default_rng(seed)
    slots = rng.permutation(len(OBJECTS)).tolist()
    while not accept(slots):
        slots = rng.permutation(len(OBJECTS)).tolist()
    episode = tasks.with_target(tasks.episode(tasks.find(PERMUTED_TASK), seed), target)
    return dataclasses.replace(episode, name=name, slots=tuple(slots))


BENCHMARKS: Mapping[str, Callable[[], list[SimEpisode]]] = {
    'a': a, 'b': b, 'c': c,
    'validation-a': validation_a, 'validation-b': validation_b, 'validation-c': validation_c,
    'lift': lift, 'validation-lift': validation_lift}

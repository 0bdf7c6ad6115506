"""
Which of LIBERO's suites can be run, and for how long.

LIBERO lists suites of which it has no files, others with objects that it has not, and others
without initial states. A suite is run where nothing of it is missing.
"""

from __future__ import annotations

import functools
from pathlib import Path

from ros2_lstm_policy.sim import backend

# steps at 20 Hz that the field gives an episode, in OpenVLA's evaluation and after it in others'
STEPS_AT_20_HZ = {'libero_spatial': 220, 'libero_object': 280, 'libero_goal': 300,
                  'libero_10': 520, 'libero_90': 400}
OTHER_STEPS_AT_20_HZ = 300
ARENAS = ('floor', 'table', 'kitchen_table', 'study_table', 'living_room_table', 'coffee_table')


def horizon(name: str) -> int:
    """
    Return after how many control periods an episode of a suite has failed.

    A changed suite, such as `libero_goal_swap`, has the time of the one that it was made of.
    """
    steps = next((steps for own, steps in STEPS_AT_20_HZ.items()
                  if name == own or name.startswith(f'{own}_')), OTHER_STEPS_AT_20_HZ)
    return steps * backend.CONTROL_HZ // 20


def complete() -> list[str]:
    """Return the suites of which nothing is missing."""
    return [name for name in backend.suite_names() if backend.suite_tasks(name)
            and not missing(name)]


def official_states(name: str) -> list[int]:
    """Return how many official initial states each task of a complete suite has."""
    return [len(backend.official_states(record)) for record in backend.suite_tasks(name)]


def check_name(name: str) -> None:
    """Make sure that LIBERO lists a suite. :raises ValueError: with the complete ones."""
    if name not in backend.suite_names():
        raise ValueError(f'{name!r} is no LIBERO suite; known: {", ".join(complete())}')


def check(name: str) -> None:
    """
    Make sure that every task of a suite can be run.

    :raises ValueError: for an unknown suite, and one of which parts are missing, with those parts.
    """
    check_name(name)
    tasks = backend.suite_tasks(name)
    if not tasks:
        raise ValueError(f'the installed LIBERO lists no task of the suite {name!r}')
    if lacking := missing(name):
        parts = '; '.join(f'{part}, of {len(of)} of {len(tasks)} tasks, such as {of[0]!r}'
                          for part, of in lacking.items())
        raise ValueError(f'the suite {name!r} is not complete in the installed LIBERO, so none '
                         f'of it is run; missing: {parts}')


def check_file(file: Path) -> None:
    """
    Make sure that a scene can be built.

    :raises ValueError: for a file that cannot be read, or with objects that are not there.
    """
    if lacking := _missing_of_file(file):
        raise ValueError(f'{file}: the scene cannot be built with the installed LIBERO; missing: '
                         f'{"; ".join(lacking)}')


@functools.cache
def missing(name: str) -> dict[str, list[str]]:
    """
    Return the parts of a suite that are missing, and the tasks that need each.

    :raises ValueError: for an unknown suite.
    """
    found: dict[str, list[str]] = {}
    for record in backend.suite_tasks(name):
        parts = list(_missing_of_file(backend.bddl_file(record)))
        try:
            backend.official_states(record)
        except ValueError:
            parts.append('official initial states')
        for part in parts:
            found.setdefault(part, []).append(record.name)
    return found


@functools.cache
def _missing_of_file(file: Path) -> tuple[str, ...]:
    backend.prepare()
    from libero.libero.envs.bddl_utils import robosuite_parse_problem
    if not file.is_file():
        return ('the BDDL file',)
    try:
        backend.words(file)
        with backend.quiet():
            problem = robosuite_parse_problem(str(file))
    except Exception as error:  # LIBERO's parser raises whatever the text leads it to
        return (f'a BDDL file that can be read ({error})',)
    kinds = dict.fromkeys([*problem['fixtures'], *problem['objects']])
    return tuple(part for kind in kinds if kind not in ARENAS for part in _missing_of_kind(kind))


@functools.cache
def _missing_of_kind(kind: str) -> tuple[str, ...]:
    """Return what an object of this kind needs and is not there, by making one."""
    from libero.libero.envs.objects import get_object_dict
    make = get_object_dict().get(kind)
    if make is None:
        return (f'objects of the kind {kind}',)
    try:
        with backend.quiet():
            thing = make(name='thing')
    except OSError as error:
        return (_file_of(kind, error.filename),)
    files = [element.get('file') for element in thing.asset if element.get('file')]
    return tuple(_file_of(kind, file) for file in files if not Path(file).is_file())


def _file_of(kind: str, file: object) -> str:
    return f'{Path(str(file)).name} of the object {kind}'

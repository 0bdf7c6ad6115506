"""The simulated robot's parameters: declared with range and description, checked when set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rclpy.node import Node
from ros2_lstm_policy.ros.declared import Declared, parameter
from ros2_lstm_policy.sim import tasks
from ros2_lstm_policy.sim.memory.catalogue import DEFAULT_GAP_S, LONGEST_GAP_S
from ros2_lstm_policy.sim.tasks import SimEpisode

OWN_PLACES = (-1,)  # an empty list would have no type
DRAWN = -1


@dataclass(frozen=True)
class SimSettings:
    """The values of all parameters; the table of them, too."""

    task: str = parameter('living_room_scene2/butter', 'what ~/reset begins: a short name or '
                          'suite/index of a LIBERO task')
    seed: int = parameter(0, 'of the next reset', '', 0, 2**31 - 1)
    official_state: int = parameter(-1, "begin from this one of the task's official initial "
                                    'states; -1: from the seed', '', -1, 1000)
    target: str = parameter('', "object that has to get into the task's container, such as "
                            "milk_1, with words to suit; empty: the task's own")
    slots: tuple[int, ...] = parameter(
        OWN_PLACES, 'from a seed: movable object k of the scene begins in the place of object '
        'slots[k]; [-1]: each in its own, those of a memory task drawn from the seed')
    cue: int = parameter(DRAWN, 'of a memory task: which of the things that can be remembered; '
                         '-1: drawn from the seed', '', DRAWN, 1000)
    gap_s: float = parameter(DEFAULT_GAP_S, 'of a memory task: how long each gap is', 's', 0.0,
                             LONGEST_GAP_S)
    instruction: str = parameter('', 'words published instead of those of task and target, '
                                 'which still say what success is')
    max_steps: int = parameter(150, 'control periods after which an episode has failed, of a '
                               'memory task each of its stages, cue and gaps aside; 0: it goes '
                               'on until a reset, after a success too', '', 0, 1_000_000)
    autostart: bool = parameter(True, 'begin the first episode without ~/reset', read_only=True)
    lock_step: bool = parameter(True, 'wait for the answer to each observation and publish '
                                '/clock; false: real time, 10 Hz', read_only=True)
    expert: bool = parameter(False, 'the scripted expert acts, as a second node of this process',
                             read_only=True)
    image_height: int = parameter(256, 'of both cameras', 'pixels', 16, 1080, read_only=True)
    image_width: int = parameter(256, 'of both cameras', 'pixels', 16, 1920, read_only=True)
    command_timeout_s: float = parameter(0.3, 'real time: the greatest age of the observation '
                                         'that a command answers', 's', 0.01, 60.0)


class SimParameters(Declared[SimSettings]):
    """The parameters of a node."""

    def __init__(self, node: Node) -> None:
        """
        Declare every parameter.

        :raises ValueError: for a task that does not exist, with those that do, and for what no
            episode can be made of.
        """
        super().__init__(node, SimSettings, {'task': _wrong_task, 'slots': _wrong_slots})
        episode(self.read())


def episode(settings: SimSettings) -> SimEpisode:
    """
    Return the episode that the parameters name.

    :raises ValueError: for parameters that name none together.
    """
    official = settings.official_state if settings.official_state >= 0 else None
    task = tasks.find(settings.task)
    if task.suite == tasks.MEMORY and official is None:
        cue = None if settings.cue == DRAWN else settings.cue
        gap_s = settings.gap_s, settings.gap_s
        chosen = tasks.memory_episode(task.name, settings.seed, cue, gap_s)
    else:
        chosen = tasks.episode(task, settings.seed, official)
    if settings.target:
        chosen = tasks.with_target(chosen, settings.target)
    if settings.slots == OWN_PLACES:
        return chosen
    if official is not None:
        raise ValueError(f'slots {list(settings.slots)} permute a seeded reset, but '
                         f'official_state is {official}; set official_state to -1 or slots to '
                         f'{list(OWN_PLACES)}')
    return replace(chosen, name=f'{chosen.name}/slots{"".join(map(str, settings.slots))}',
                   slots=settings.slots)


def parameters_of(chosen: SimEpisode) -> dict[str, Any]:
    """
    Return the parameters that name an episode.

    :raises ValueError: for an episode that they cannot name.
    """
    values: dict[str, Any] = {
        'task': chosen.task, 'seed': chosen.seed,
        'official_state': -1 if chosen.official_state is None else chosen.official_state,
        'target': chosen.target or '' if chosen.cue is None else '',
        'cue': DRAWN if chosen.cue is None else chosen.cue, 'gap_s': chosen.gap_s,
        'slots': list(OWN_PLACES if chosen.slots is None else chosen.slots),
        'instruction': chosen.instruction}
    named = episode(SimSettings(**values | {'slots': tuple(values['slots'])}))
    if replace(named, name=chosen.name, instruction=chosen.instruction) != chosen:
        raise ValueError(f'{chosen.name}: no parameters of the simulated robot name this episode')
    return values


def _wrong_task(name: str) -> str:
    try:
        tasks.find(name)
    except ValueError as error:
        return str(error)
    return ''


def _wrong_slots(slots: Sequence[int]) -> str:
    if tuple(slots) == OWN_PLACES or sorted(slots) == list(range(len(slots))):
        return ''
    return (f'slots: expected {list(OWN_PLACES)} or a permutation of 0 to n - 1 for n movable '
            f'objects, found {list(slots)}')

"""What the actor is told, and what it may remember: the truth, something else, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Literal

from ros2_lstm_policy.sim import tasks
from ros2_lstm_policy.sim.memory import catalogue
from ros2_lstm_policy.sim.tasks import SimEpisode

Control = Literal['none', 'swapped', 'blank', 'state_cleared', 'state_swapped']


def said(episode: SimEpisode, control: Control) -> str:
    """Return what the actor is told."""
    return '' if control == 'blank' else episode.instruction


def controlled(episodes: Sequence[SimEpisode], control: Control) -> list[SimEpisode]:
    """
    Return the episodes as the control has them.

    Swapped: the same beginning with the instruction, and the goal, of another of the benchmark's
    targets in this scene, so that success means that the swapped words were followed.

    Swapped state: the same beginning with another cue, which is that of the episode whose state is
    put in, so that success means that the choice followed the state.

    :raises ValueError: for swapped words in scenes that have one target only, and a swapped state
        where no memory is asked for or the words tell the cue.
    """
    if control == 'state_swapped':
        return [_other_cue(episode, number) for number, episode in enumerate(episodes)]
    if control != 'swapped':
        return list(episodes)
    by_scene: dict[str, dict[str, SimEpisode]] = {}
    for episode in episodes:
        by_scene.setdefault(episode.scene, {}).setdefault(episode.instruction, episode)
    return [_swapped(episode, list(by_scene[episode.scene].values()), number)
            for number, episode in enumerate(episodes)]


def _other_cue(episode: SimEpisode, number: int) -> SimEpisode:
    task = catalogue.find(episode.task)
    if task is None or episode.cue is None:
        raise ValueError(f'{episode.name}: asks for no memory, so there is no state to swap; '
                         'control=state_swapped is for memory tasks')
    if len({task.instruction(cue) for cue in range(task.cues)}) > 1:
        raise ValueError(f'{episode.name}: the words tell the cue, so that a swapped state does '
                         'not decide; control=state_swapped is for m1, m2 and m3')
    further = 1 + number % (task.cues - 1)
    return tasks.with_cue(episode, (episode.cue + further) % task.cues)


def _swapped(episode: SimEpisode, told: Sequence[SimEpisode], number: int) -> SimEpisode:
    others = [other for other in told if other.instruction != episode.instruction]
    if not others:
        raise ValueError(f'{episode.name}: {episode.scene} has one instruction only, so there is '
                         'none to swap it with; swapped words are for benchmarks a and b, '
                         'and validation-a and -b')
    other = others[number % len(others)]
    return dataclasses.replace(
        episode, instruction=other.instruction, goal=other.goal, target=other.target,
        container=other.container, cue=other.cue)

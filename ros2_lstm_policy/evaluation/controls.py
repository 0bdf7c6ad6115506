"""What the actor is told: the truth, another instruction, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Literal

from ros2_lstm_policy.sim.tasks import SimEpisode

Control = Literal['none', 'swapped', 'blank']


def said(episode: SimEpisode, control: Control) -> str:
    """Return what the actor is told."""
    return '' if control == 'blank' else episode.instruction


def controlled(episodes: Sequence[SimEpisode], control: Control) -> list[SimEpisode]:
    """
    Return the episodes as the control has them.

    Swapped: the same beginning with the instruction, and the goal, of another of the benchmark's
    targets in this scene, so that success means that the swapped words were followed.

    :raises ValueError: for swapped words in scenes that have one target only.
    """
    if control != 'swapped':
        return list(episodes)
    by_scene: dict[str, dict[str, SimEpisode]] = {}
    for episode in episodes:
        by_scene.setdefault(episode.scene, {}).setdefault(episode.instruction, episode)
    return [_swapped(episode, list(by_scene[episode.scene].values()), number)
            for number, episode in enumerate(episodes)]


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

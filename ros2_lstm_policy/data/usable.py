"""Which episodes of a frame store a policy can be trained on: a store knows no policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.problems import Problem
from ros2_lstm_policy.data.store import StoredEpisode


def unusable(episodes: Sequence[StoredEpisode], sources: Sequence[Path],
             why_not: Callable[[str], str | None], failures: bool) -> dict[int, Problem]:
    """
    Find the episodes that are left out of training.

    :param sources: where the episodes come from, by their `source`.
    :param why_not: says why the policy cannot read an instruction; None where it can.
    :param failures: whether episodes that are labelled as failures are trained on.
    :return: the place of each in `episodes`, and what is wrong with it.
    """
    reasons = {text: why_not(text) for text in {episode.instruction for episode in episodes}}
    found: dict[int, Problem] = {}
    for number, episode in enumerate(episodes):
        where = sources[episode.source]
        if reason := reasons[episode.instruction]:
            found[number] = Problem('instruction', where, episode.name, reason)
        elif episode.success is False and not failures:
            found[number] = Problem('failure', where, episode.name,
                                    'it is labelled as a failure')
    return found


def used(episodes: Sequence[StoredEpisode], problems: dict[int, Problem],
         sources: Sequence[Path]) -> np.ndarray:
    """
    Return which episodes are trained or validated on.

    :return: (E,) bool.
    :raises ValueError: where a source would be left without one, since a mixture without it is
        not what was asked for.
    """
    used_E = np.array([number not in problems for number in range(len(episodes))])
    kept = {episode.source for episode, is_used in zip(episodes, used_E) if is_used}
    for number in sorted({episode.source for episode in episodes} - kept):
        raise ValueError(f'{sources[number]}: no episode is left to train on:\n' + '\n'.join(
            str(problem) for place, problem in problems.items()
            if episodes[place].source == number))
    return used_E


def failures_said(episodes: Sequence[StoredEpisode], used_E: np.ndarray) -> str | None:
    """Say how many failures are trained on; None for none."""
    count = sum(episode.success is False for episode, is_used in zip(episodes, used_E) if is_used)
    return None if not count else (
        f'{count} of {int(used_E.sum())} episodes are labelled as failures and trained on; '
        'data.limits.failures=false leaves them out')

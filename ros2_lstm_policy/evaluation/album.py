"""Contact sheets and videos of a few successes and failures of an evaluation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ros2_lstm_policy.evaluation.pictures import contact_sheet, save, Shot
from ros2_lstm_policy.evaluation.rollout import Result
from ros2_lstm_policy.evaluation.video import write_mp4
from ros2_lstm_policy.sim.fleet import State
from ros2_lstm_policy.sim.robot import CONTROL_PERIOD_S
from ros2_lstm_policy.types import Action


class Album:
    """
    Draws the first few episodes of each outcome.

    :param folder: gets NAME.png and NAME.mp4.
    :param most: episodes of each outcome; 0 draws nothing.
    """

    def __init__(self, folder: Path, most: int) -> None:
        """Begin empty."""
        self._folder, self._most = folder, most
        self._drawn: Counter[str] = Counter()
        self._shots: list[Shot] = []

    def watch(self, state: State, action: Action) -> None:
        """Remember a moment of the episode under way."""
        if self._most:
            self._shots.append(Shot(state.observation.images, action, state.step))

    def keep(self, result: Result) -> None:
        """Draw the episode that ended, if few of its outcome were, and begin the next."""
        shots, self._shots = self._shots, []
        outcome = 'success' if result.success else 'failure'
        if not shots or self._drawn[outcome] >= self._most:
            return
        self._drawn[outcome] += 1
        name = result.episode.replace('/', '_').replace(' ', '_')
        title = f'{result.said or "(nothing said)"}: {result.category}'
        stem = self._folder / f'{outcome}_{name}'
        save(stem.with_suffix('.png'), contact_sheet(shots, title))
        write_mp4(stem.with_suffix('.mp4'), shots, title, 1 / CONTROL_PERIOD_S)

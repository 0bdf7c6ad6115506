"""
Measure an actor in closed loop in the simulated robot.

`ros2 run ros2_lstm_policy evaluate --config config/evaluate.yaml benchmark=b processes=4`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import functools
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

from ros2_lstm_policy import config
from ros2_lstm_policy.evaluation import actors, controls, report, runs
from ros2_lstm_policy.evaluation.rollout import HORIZON, Result, rollout
from ros2_lstm_policy.sim import benchmarks, command, fleet
from ros2_lstm_policy.sim.robot import SimState
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action

if TYPE_CHECKING:
    from ros2_lstm_policy.evaluation.album import Album


@dataclass(frozen=True)
class EvaluateConfig:
    """
    What to measure.

    :param output: folder of the results.
    :param benchmark: 'a', 'b', 'c', 'validation-a', 'validation-b', 'validation-c', or a LIBERO
        suite such as 'libero_goal'.
    :param actor: who acts.
    :param checkpoint: the policy's directory.
    :param control: what is said instead of the truth.
    :param execute: which action of which chunk is due, see `runtime/schedule.py`.
    :param history: how far the policy looks back instead of what it was trained for: 'window:N',
        1 for no history at all, or 'carry'.
    :param every: of the benchmark's episodes, each how-many-th is run; 1 for all.
    :param image_size: (height, width) of both cameras in pixels.
    :param horizon: control periods after which an episode has failed.
    :param pictures: successes and failures that each process draws, as contact sheet and video.
    :param processes: simulators at once; one core each.
    """

    output: Path
    benchmark: str
    actor: actors.Who = 'policy'
    checkpoint: Path | None = None
    control: controls.Control = 'none'
    execute: str = 'first'
    history: str | None = None
    every: int = 1
    image_size: tuple[int, int] = (256, 256)
    horizon: int = HORIZON
    pictures: int = 0
    processes: int = 2

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if min(self.every, self.horizon, self.processes) < 1:
            raise ValueError('every, horizon and processes must be at least 1')
        if self.pictures < 0:
            raise ValueError(f'pictures must not be negative, found {self.pictures}')
        if self.actor == 'policy' and self.checkpoint is None:
            raise ValueError("actor 'policy' needs a checkpoint; set checkpoint=DIRECTORY")

    def own_episodes(self) -> list[SimEpisode]:
        """Return the episodes as the benchmark has them, without any control."""
        return benchmarks.named(self.benchmark)[::self.every]

    def episodes(self) -> list[SimEpisode]:
        """Return the episodes to be run."""
        all_of = controls.controlled(benchmarks.named(self.benchmark), self.control)
        return all_of[::self.every]


class Evaluator:
    """Runs episodes in one process."""

    def __init__(self, settings: EvaluateConfig) -> None:
        """Load the actor."""
        self._settings = settings
        self._keeper = fleet.RobotKeeper(settings.image_size)
        self._actor = actors.make(settings.actor, settings.checkpoint, settings.execute,
                                  settings.history)
        self._album = _album(settings)

    def __call__(self, episode: SimEpisode) -> Result:
        """Run one episode."""
        robot, state = self._keeper.reset(episode)
        watch = self._album.watch if self._album else _ignore
        result = rollout(robot, state, episode, self._actor,
                         controls.said(episode, self._settings.control), self._settings.horizon,
                         watch)
        if self._album:
            self._album.keep(result)
        return result


def _album(settings: EvaluateConfig) -> Album | None:
    """Return where to draw; the libraries for it are needed only where pictures are wanted."""
    if not settings.pictures:
        return None
    from ros2_lstm_policy.evaluation.album import Album
    return Album(settings.output / 'pictures', settings.pictures)


def _ignore(state: SimState, action: Action) -> None:
    pass


def evaluate(settings: EvaluateConfig) -> list[Result]:
    """
    Run the episodes whose results the folder lacks; return all results in the benchmark's order.

    :raises ValueError: where the folder was begun with other settings.
    """
    episodes = settings.episodes()
    actors.check(settings.actor, settings.checkpoint, settings.execute, settings.history)
    return runs.complete(settings.output, kept_settings(settings), episodes,
                         functools.partial(Evaluator, settings), settings.processes)


def kept_settings(settings: EvaluateConfig) -> dict[str, Any]:
    """Return what decides the results, as plain values, with the policy's fingerprint."""
    values = config.plain(settings)
    for name in ('output', 'processes', 'pictures'):
        del values[name]
    return {**values, 'checkpoint_fingerprint': actors.fingerprint(settings.actor,
                                                                   settings.checkpoint)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return command.run(
        'evaluate', EvaluateConfig, _evaluate_and_report, argv,
        'Measure an actor in closed loop in the simulated robot: success with '
        'intervals, what went wrong, pictures. Interrupted, the same command goes on.',
        'benchmark=b')


def _evaluate_and_report(settings: EvaluateConfig) -> str:
    results = evaluate(settings)
    return report.write(settings.output, kept_settings(settings), results,
                        settings.own_episodes())


if __name__ == '__main__':
    sys.exit(main())

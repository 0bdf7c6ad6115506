"""
Measure an actor in closed loop in the simulated robot.

`ros2 run ros2_lstm_policy evaluate --config config/evaluate.yaml benchmark=b processes=4`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from dataclasses import dataclass, field
import functools
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

from ros2_lstm_policy import config
from ros2_lstm_policy.evaluation import actors, controls, remembering, report, runs, selection
from ros2_lstm_policy.evaluation.rollout import Result, rollout
from ros2_lstm_policy.sim import benchmarks, command, fleet, tasks
from ros2_lstm_policy.sim.body import Model, SimBody
from ros2_lstm_policy.sim.perturb import words
from ros2_lstm_policy.sim.perturb.disturbance import Perturber
from ros2_lstm_policy.sim.perturb.settings import PerturbConfig
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action

if TYPE_CHECKING:
    from ros2_lstm_policy.evaluation.album import Album

LATER: Mapping[str, Any] = {'states': None, 'words': 'suite', 'perturb': {}}


@dataclass(frozen=True)
class EvaluateConfig:
    """
    What to measure.

    :param output: folder of the results.
    :param benchmark: 'a', 'b', 'c', 'lift' of two arms, 'validation-a' and so on, or a LIBERO
        suite that is complete, such as 'libero_goal' or 'libero_object_swap'; of memory tasks
        'm1', ..., 'm' for all of them, and 'validation-m1', ...
    :param actor: who acts.
    :param checkpoint: the policy's directory.
    :param control: what is said instead of the truth, or what becomes of the actor's memory.
    :param execute: which action of which chunk is due, see `runtime/schedule.py`.
    :param history: how far the policy looks back instead of what it was trained for: 'window:N',
        1 for no history at all, or 'carry'.
    :param every: of the benchmark's episodes, each how-many-th is run; 1 for all.
    :param arm: which arm stands in the scenes.
    :param manifest: of the body, for an actor that is no policy: a training configuration, an
        action.yaml or a checkpoint's folder; None for one arm by Cartesian displacements.
    :param image_size: (height, width) of each camera in pixels.
    :param horizon: control periods after which an episode has failed, of a memory task each of
        its stages, cue and gaps aside; None for the benchmark's own.
    :param pictures: successes and failures that each process draws, as contact sheet and video.
    :param processes: simulators at once; one core each.
    :param states: official initial states of each task of a suite, from the first; None for 10.
        The field reports 50.
    :param words: what is said in a suite: 'file' for its files' (:language ...), 'name' for what
        their names say, 'suite' for the name in LIBERO's own five, which is what the field
        measures with, and the file in all others.
    :param perturb: conditions that are changed, and how strongly.
    :param gap_s: of memory tasks: shortest and longest gap, equal for one length; its logarithm
        is uniform between theirs.
    """

    output: Path
    benchmark: str
    actor: actors.Who = 'policy'
    checkpoint: Path | None = None
    control: controls.Control = 'none'
    execute: str = 'first'
    history: str | None = None
    every: int = 1
    arm: Model = 'panda'
    manifest: Path | None = None
    image_size: tuple[int, int] = (256, 256)
    horizon: int | None = None
    pictures: int = 0
    processes: int = 2
    states: int | None = None
    words: tasks.Words = 'suite'
    perturb: PerturbConfig = field(default_factory=PerturbConfig)
    gap_s: tuple[float, float] = benchmarks.GAP

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if min(self.every, self.processes, 1 if self.horizon is None else self.horizon) < 1:
            raise ValueError('every, horizon and processes must be at least 1')
        if self.pictures < 0:
            raise ValueError(f'pictures must not be negative, found {self.pictures}')
        if self.actor == 'policy' and self.checkpoint is None:
            raise ValueError("actor 'policy' needs a checkpoint; set checkpoint=DIRECTORY")
        if self.actor == 'policy' and self.manifest is not None:
            raise ValueError('manifest: a policy brings its own; leave it out')

    def body(self) -> SimBody:
        """Return the robot's body: that of the policy, where one acts."""
        return SimBody.read(self.arm, self.checkpoint if self.actor == 'policy'
                            else self.manifest)

    @property
    def limit(self) -> int:
        """Return the control periods after which an episode has failed."""
        return benchmarks.horizon(self.benchmark) if self.horizon is None else self.horizon

    def all_episodes(self) -> list[SimEpisode]:
        """Return the benchmark's episodes, without any control."""
        return benchmarks.named(self.benchmark, self.states, self.words, self.gap_s)

    def own_episodes(self) -> list[SimEpisode]:
        """Return those of them that are run."""
        return self.all_episodes()[::self.every]

    def episodes(self) -> list[SimEpisode]:
        """Return the episodes to be run."""
        return controls.controlled(self.all_episodes(), self.control)[::self.every]


class Evaluator:
    """Runs episodes in one process."""

    def __init__(self, settings: EvaluateConfig) -> None:
        """Load the actor."""
        self._settings = settings
        self._perturber = Perturber(settings.perturb) if settings.perturb.axes else None
        self._keeper = fleet.RobotKeeper(settings.image_size, self._perturber, settings.body())
        self._actor = actors.make(settings.actor, settings.checkpoint, settings.execute,
                                  settings.history)
        self._album = _album(settings)

    def __call__(self, episode: SimEpisode) -> Result:
        """Run one episode."""
        robot, state = self._keeper.reset(episode)
        watch = self._album.watch if self._album else _ignore
        said = words.said(controls.said(episode, self._settings.control), self._settings.perturb,
                          episode.name)
        actor = self._actor
        if self._settings.control == 'state_cleared':
            actor = remembering.Forgetful(actor)
        elif self._settings.control == 'state_swapped':
            actor = remembering.Swapped(actor)
            state = actor.see_other(robot, episode, said)
        result = rollout(robot, state, episode, actor, said, self._settings.limit, watch)
        if self._perturber:
            result = dataclasses.replace(result, changes=self._perturber.notes)
        if self._album:
            self._album.keep(result)
        return result


def _album(settings: EvaluateConfig) -> Album | None:
    """Return where to draw; the libraries for it are needed only where pictures are wanted."""
    if not settings.pictures:
        return None
    from ros2_lstm_policy.evaluation.album import Album
    return Album(settings.output / 'pictures', settings.pictures)


def _ignore(state: fleet.State, action: Action) -> None:
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
    """
    Return what decides the results, as plain values, with the policy's fingerprint.

    What came later is left out where it is at its default: older folders go on.
    """
    values = config.plain(dataclasses.replace(settings, horizon=settings.limit))
    for name in ('output', 'processes', 'pictures', 'arm', 'manifest'):
        del values[name]
    values.update(SimBody.read(settings.arm, settings.manifest).plain())
    values['perturb'] = dict(settings.perturb.changed)
    if not benchmarks.has_gaps(settings.benchmark):
        del values['gap_s']
    for name, unchanged in LATER.items():
        if values[name] == unchanged:
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
    own = settings.own_episodes()
    if left_out := selection.left_out(settings.all_episodes(), own):
        print(f'evaluate: every={settings.every}: {left_out}', file=sys.stderr)
    results = evaluate(settings)
    return report.write(settings.output, kept_settings(settings), results, own, left_out)


if __name__ == '__main__':
    sys.exit(main())

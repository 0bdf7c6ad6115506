"""
Record demonstrations of the scripted expert in the simulated robot.

`ros2 run ros2_lstm_policy collect --config config/collect.yaml episodes.b=700 processes=4`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
import functools
from pathlib import Path
import sys

import numpy as np
from ros2_lstm_policy.sim import command
from ros2_lstm_policy.sim.body import Model, SimBody
from ros2_lstm_policy.sim.campaign import account, bag_name, EpisodeCounts, record_all, record_one
from ros2_lstm_policy.sim.demonstration import demonstrate, Outcome
from ros2_lstm_policy.sim.fleet import Robot, RobotKeeper, State
from ros2_lstm_policy.sim.perturbation import PerturbationConfig, Perturbations
from ros2_lstm_policy.sim.tasks import SimEpisode

_DISTURBED = 1  # separates this module's random numbers from others of an episode's seed


@dataclass(frozen=True)
class CollectConfig:
    """
    What to record.

    :param output: folder of the bags.
    :param arm: which arm stands in the scenes.
    :param manifest: which cameras, states and groups of actions are recorded: a training
        configuration, an action.yaml or a checkpoint's folder; None for two cameras, Cartesian
        displacements and a gripper.
    :param image_size: (height, width) of each camera in pixels.
    :param horizon: control periods after which an episode has failed and is thrown away; of a
        memory task, of each of its stages, cue and gaps aside.
    :param processes: simulators at once; one core each.
    """

    output: Path
    episodes: EpisodeCounts
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)
    arm: Model = 'panda'
    manifest: Path | None = None
    image_size: tuple[int, int] = (256, 256)
    horizon: int = 150
    processes: int = 2

    def __post_init__(self) -> None:
        """Refuse what records nothing."""
        if self.horizon < 1 or self.processes < 1:
            raise ValueError('horizon and processes must be at least 1')


class Collector:
    """Records episodes in one process."""

    def __init__(self, settings: CollectConfig) -> None:
        """Begin without a robot."""
        self._settings = settings
        body = SimBody.read(settings.arm, settings.manifest)
        self._keeper = RobotKeeper(settings.image_size, body=body)

    def __call__(self, episode: SimEpisode) -> Outcome:
        """Record one episode; a failed one leaves no bag."""
        return record_one(self._keeper, episode, functools.partial(self._record, episode))

    def _record(self, episode: SimEpisode, robot: Robot, state: State) -> Outcome:
        rng = np.random.default_rng([episode.seed, _DISTURBED])
        disturbed = Perturbations(self._settings.perturbation, robot.still(), rng)
        source = f'simulated {episode.name}, executed with noise {disturbed.noise:.2f}'
        return demonstrate(
            robot, state, episode,
            lambda state, label: robot.express(label if state.held else disturbed.disturb(label)),
            self._settings.output / bag_name(episode), source, self._settings.horizon,
            keep_failures=False)


def collect(settings: CollectConfig) -> list[Outcome]:
    """Record what the folder lacks; return the outcomes of all its episodes."""
    decides = {'perturbation': settings.perturbation, 'image_size': settings.image_size,
               'horizon': settings.horizon, **settings.episodes.gaps(),
               **SimBody.read(settings.arm, settings.manifest).plain()}
    return record_all(settings.output, settings.episodes.episodes(), decides,
                      functools.partial(Collector, settings), settings.processes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return command.run(
        'collect', CollectConfig, lambda settings: account(collect(settings)), argv,
        'Record demonstrations of the scripted expert in the simulated robot, as '
        'one rosbag2 bag an episode. Interrupted, the same command goes on.',
        'episodes.b=700')


if __name__ == '__main__':
    sys.exit(main())

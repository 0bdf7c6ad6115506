"""
Record what the expert would do in the states that a policy brings about (DAgger).

The policy acts, now and then the expert for a stretch, and the expert at last where the policy
does not get there; every state is labelled with what the expert says (arXiv 1011.0686).
`ros2 run ros2_lstm_policy dagger --config config/dagger.yaml checkpoint=DIRECTORY`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import functools
from pathlib import Path
import sys
from typing import TYPE_CHECKING

import numpy as np
from ros2_lstm_policy.sim import command
from ros2_lstm_policy.sim.body import Model, SimBody
from ros2_lstm_policy.sim.campaign import account, bag_name, EpisodeCounts, record_all, record_one
from ros2_lstm_policy.sim.demonstration import demonstrate, Outcome
from ros2_lstm_policy.sim.fleet import Robot, RobotKeeper, State
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action

if TYPE_CHECKING:
    from ros2_lstm_policy.runtime.actor import PolicyActor

_MIXED = 2  # separates this module's random numbers from others of an episode's seed


@dataclass(frozen=True)
class DaggerConfig:
    """
    What to record.

    :param output: folder of the bags.
    :param checkpoint: directory of the policy.
    :param expert_share: share of the stretches in which the expert acts.
    :param stretch: fewest and most control periods of a stretch.
    :param patience: control periods after which the expert acts until the end, of a memory task
        to the end of the stage; cue and gaps aside.
    :param arm: which arm stands in the scenes.
    :param image_size: (height, width) of each camera in pixels.
    :param horizon: control periods after which an episode has failed; it is kept all the same.
        Of a memory task, of each of its stages, cue and gaps aside.
    :param processes: simulators at once; one core each.
    """

    output: Path
    checkpoint: Path
    episodes: EpisodeCounts
    expert_share: float = 0.2
    stretch: tuple[int, int] = (5, 20)
    patience: int = 80
    arm: Model = 'panda'
    image_size: tuple[int, int] = (256, 256)
    horizon: int = 150
    processes: int = 2

    def __post_init__(self) -> None:
        """Refuse what records nothing, and what is no share or range."""
        if self.horizon < 1 or self.processes < 1 or self.patience < 0:
            raise ValueError('horizon and processes must be at least 1, patience not negative')
        if not 0 <= self.expert_share <= 1:
            raise ValueError(f'expert_share must be in [0, 1], found {self.expert_share}')
        if not 1 <= self.stretch[0] <= self.stretch[1]:
            raise ValueError(f'stretch: expected 1 <= fewest <= most, found {self.stretch}')


class Mixture:
    """
    Who acts in one episode: the policy or the expert, a stretch at a time.

    :param actor: the policy; it is reset here and sees every observation.
    """

    def __init__(self, settings: DaggerConfig, actor: PolicyActor, instruction: str,
                 rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._settings, self._actor, self._rng = settings, actor, rng
        self._instruction = instruction
        self._left, self._expert_acts = 0, False
        actor.reset()

    def execute(self, state: State, label: Action) -> Action:
        """Return what is executed."""
        own = self._actor.act(state.observation, self._instruction).action
        if state.held:
            return own
        if self._left == 0:
            self._expert_acts = bool(self._rng.random() < self._settings.expert_share)
            fewest, most = self._settings.stretch
            self._left = int(self._rng.integers(fewest, most + 1))
        self._left -= 1
        late = state.acted >= self._settings.patience
        return label if self._expert_acts or late else own


class Labeller:
    """Records episodes in one process."""

    def __init__(self, settings: DaggerConfig) -> None:
        """Load the policy."""
        from ros2_lstm_policy.model import checkpoint
        from ros2_lstm_policy.runtime.actor import PolicyActor
        self._settings = settings
        policy = checkpoint.load(settings.checkpoint)
        self._keeper = RobotKeeper(settings.image_size,
                                   body=SimBody.of(settings.arm, policy.manifest))
        self._actor = PolicyActor(policy)
        self._source = f'the states of policy {checkpoint.fingerprint(settings.checkpoint)[:12]}'

    def __call__(self, episode: SimEpisode) -> Outcome:
        """Record one episode."""
        return record_one(self._keeper, episode, functools.partial(self._record, episode))

    def _record(self, episode: SimEpisode, robot: Robot, state: State) -> Outcome:
        rng = np.random.default_rng([episode.seed, _MIXED])
        mixture = Mixture(self._settings, self._actor, episode.instruction, rng)
        return demonstrate(
            robot, state, episode,
            lambda state, label: mixture.execute(state, robot.express(label)),
            self._settings.output / bag_name(episode),
            f'simulated {episode.name}, {self._source}', self._settings.horizon,
            keep_failures=True)


def dagger(settings: DaggerConfig) -> list[Outcome]:
    """Record what the folder lacks; return the outcomes of all its episodes."""
    from ros2_lstm_policy.model import checkpoint
    decides = {'policy': checkpoint.fingerprint(settings.checkpoint),
               'expert_share': settings.expert_share, 'stretch': settings.stretch,
               'patience': settings.patience, 'image_size': settings.image_size,
               'horizon': settings.horizon, **settings.episodes.gaps(),
               **SimBody(settings.arm).plain()}
    return record_all(settings.output, settings.episodes.episodes(), decides,
                      functools.partial(Labeller, settings), settings.processes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    return command.run(
        'dagger', DaggerConfig, lambda settings: account(dagger(settings)), argv,
        'Let a policy act in the simulated robot and record what the scripted expert '
        'would do, as one rosbag2 bag an episode. Interrupted, the same command goes on.',
        'checkpoint=DIRECTORY')


if __name__ == '__main__':
    sys.exit(main())

"""A trained peer in the simulated robot: our episodes, our rollout, our report."""

from __future__ import annotations

from dataclasses import dataclass
import functools
import hashlib
from pathlib import Path
import time
from typing import Any

from lerobot.utils.constants import OBS_STATE
from lerobot_peers import policies
from lerobot_peers.policies import Execute, image_key, Peer, sentence, Spec
import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.evaluation import report, runs
from ros2_lstm_policy.evaluation.rollout import Result, rollout
from ros2_lstm_policy.sim import benchmarks, fleet
from ros2_lstm_policy.sim.robot import SimRobot
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.transforms import normalise_images
from ros2_lstm_policy.types import Action, Decision, Observation
import torch
from torch import Tensor


@dataclass(frozen=True)
class PeerEvaluation:
    """
    What to measure; as in `evaluate`, unless said.

    :param policy: directory that `train` wrote.
    :param execute: 'chunk' or, for ACT, 'ensemble'.
    :param device: that the policy runs on.
    """

    policy: Path
    execute: Execute
    device: str
    benchmark: str
    every: int
    horizon: int
    image_size: tuple[int, int]
    processes: int


class PeerActor:
    """
    Acts with a peer; what is kept between two decisions is in LeRobot's own queues.

    :param policy: in eval mode.
    """

    def __init__(self, policy: Peer, spec: Spec, device: str) -> None:
        """Bind a policy on its device."""
        self.policy, self._spec, self._device = policy, spec, device
        self._words = functools.lru_cache(self._normalised_words)

    def begin(self, robot: SimRobot) -> None:
        """Forget the last episode; the same noise is drawn in each, in whatever process."""
        self.reset()
        torch.manual_seed(0)

    def reset(self) -> None:
        """Empty LeRobot's queues."""
        self.policy.reset()

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide for one observation; the network runs where LeRobot's queue is empty."""
        begin = time.perf_counter()
        batch = {OBS_STATE: self._words(instruction)}
        for camera in self._spec.cameras:
            image = transforms.resize(observation.images[camera.name], camera)
            on_device = torch.from_numpy(image).to(self._device)
            batch[image_key(camera)] = normalise_images(on_device, camera)[None]
        ready = time.perf_counter()
        chosen_7 = self.policy.select_action(batch)[0].cpu().numpy()
        action_7 = self._spec.actions.invert(chosen_7)
        stage_s = {'preprocess': ready - begin, 'policy': time.perf_counter() - ready}
        action = Action.one_arm(action_7[:-1], float(np.clip(action_7[-1], 0, 1)))
        return Decision(action, action_7[None], stage_s)

    def _normalised_words(self, instruction: str) -> Tensor:
        words_1D = self._spec.words.normalise(sentence(instruction))[None]
        return torch.from_numpy(words_1D).to(self._device)


class PeerEvaluator:
    """Runs episodes in one process."""

    def __init__(self, settings: PeerEvaluation) -> None:
        """Load the peer."""
        policy, spec = policies.load(settings.policy, settings.execute, settings.device)
        self._settings = settings
        self._actor = PeerActor(policy, spec, settings.device)
        self._keeper = fleet.RobotKeeper(settings.image_size)

    def __call__(self, episode: SimEpisode) -> Result:
        """Run one episode."""
        robot, state = self._keeper.reset(episode)
        return rollout(robot, state, episode, self._actor, episode.instruction,
                       self._settings.horizon)


def evaluate(settings: PeerEvaluation, output: Path) -> str:
    """
    Run the episodes whose results the folder lacks, write the report and return it.

    :raises ValueError: where the folder was begun with other settings.
    """
    episodes = benchmarks.named(settings.benchmark)[::settings.every]
    kept = _kept(settings)
    results = runs.complete(output, kept, episodes, functools.partial(PeerEvaluator, settings),
                            settings.processes)
    return report.write(output, kept, results, episodes)


def _kept(settings: PeerEvaluation) -> dict[str, Any]:
    """Return what decides the results, in the words of `evaluate`'s own reports."""
    with open(settings.policy / policies.WEIGHTS, 'rb') as weights:
        digest = hashlib.file_digest(weights, 'sha256').hexdigest()
    return {'benchmark': settings.benchmark, 'actor': policies.name_of(settings.policy),
            'control': 'none', 'execute': settings.execute, 'every': settings.every,
            'horizon': settings.horizon, 'image_size': list(settings.image_size),
            'checkpoint': str(settings.policy),
            'checkpoint_fingerprint': digest[:16]}

"""A policy on another machine as an actor: the policy's own pixels out, a decision back."""

from __future__ import annotations

from collections.abc import Mapping
import time
from typing import Any

import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.serving.link import Link, ServerError
from ros2_lstm_policy.types import Action, ActorFault, Decision, Observation, Reason

_WARM_UP_STEPS = 3


class RemoteActor:
    """
    Acts with a served policy; implements `types.Actor`.

    Images are resized here, by the transform of training, and sent raw: what the server's policy
    sees is bit for bit what a policy in this process would see. An episode lives on one
    connection: when that is lost, its memory is, too, and the next act says so once.

    :param link: to the server.
    """

    def __init__(self, link: Link) -> None:
        """Begin without an episode."""
        self.manifest = link.greeting.manifest
        self._link = link
        self._episode, self._number = 0, 0
        self._size = sum(group.size for group in self.manifest.actions)

    def reset(self) -> None:
        """
        Forget the episode: whatever was asked before is of another one for the server, too.

        :raises ActorFault: where the server cannot be told.
        """
        self._episode += 1
        self._number = self._link.tell('episode_start', {'episode': self._episode})

    def warm_up(self) -> float:
        """
        Ask for some actions on noise, so that the first real one is as fast as the others.

        :return: seconds that the last of them took.
        :raises ServerError: where none come.
        """
        rng = np.random.default_rng(0)
        try:
            self.reset()
            for _ in range(_WARM_UP_STEPS):
                decision = self.act(Observation(
                    0, {camera.name: rng.integers(0, 256, (camera.height, camera.width, 3),
                                                  np.uint8)
                        for camera in self.manifest.cameras},
                    {state.name: np.zeros(state.size) for state in self.manifest.states},
                    is_resized=True), 'warm up')
        except ActorFault as error:
            raise ServerError(error.reason.text) from error
        return sum(decision.stage_s.values())

    def act(self, observation: Observation, instruction: str) -> Decision:
        """
        Decide for one observation; called once a control period.

        :raises ActorFault: where the server cannot be asked, refuses, or answers nonsense.
        """
        begin_s = time.perf_counter()
        images = observation.images if observation.is_resized else {
            camera.name: transforms.resize(observation.images[camera.name], camera)
            for camera in self.manifest.cameras if camera.name in observation.images}
        resized_s = time.perf_counter()
        answer = self._link.ask('observation', {
            'episode': self._episode, 'images': images, 'states': observation.states,
            'task_description': instruction}, self._number)
        answered_s = time.perf_counter()
        try:
            action, chunk, served_s = self._read(answer)
        except (KeyError, TypeError, ValueError) as error:
            raise ActorFault(Reason('bad_answer', f'the server {self._link.url} answers with no '
                                    f'action of this policy: {error!r:.200}')) from error
        return Decision(action, chunk, {
            'resize': resized_s - begin_s, **served_s,
            'wire': answered_s - resized_s - sum(served_s.values())})

    def _read(self, answer: Mapping[str, Any]) -> tuple[Action, np.ndarray, dict[str, float]]:
        """Return action, chunk, and what the policy's stages took. :raises ValueError: if none."""
        if answer['episode'] != self._episode:
            raise ValueError(f'it is of episode {answer["episode"]}, not {self._episode}')
        groups = {group.name: _array(answer['groups'][group.name], (group.size,))
                  for group in self.manifest.actions}
        chunk = _array(answer['chunk'], (len(answer['chunk']), self._size))
        return Action(groups), chunk, {str(stage): float(seconds) for stage, seconds
                                       in dict(answer['stage_s']).items()}


def _array(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != np.float32:
        raise ValueError(f'expected float32 {shape}, found {getattr(value, "shape", value)!r:.60}')
    return value

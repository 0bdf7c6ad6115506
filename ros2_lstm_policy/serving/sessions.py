"""
Who asks a policy: many sessions, each with an episode of its own, over one set of weights.

A session reads messages and gives answers; nothing here knows of sockets. What is wrong with one
message is the answer to it, and the session goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
import threading
from typing import Any, Protocol

import numpy as np
import ros2_lstm_policy
from ros2_lstm_policy import config, image_checks
from ros2_lstm_policy.manifest import CameraSpec, Manifest
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.runtime.safety import MAX_INSTRUCTION_CHARACTERS
from ros2_lstm_policy.serving.harness import as_image, Harness
from ros2_lstm_policy.serving.wire import Message, NODE, PROTOCOL_VERSION
from ros2_lstm_policy.types import Decision, Observation


class SharedPolicy:
    """
    One policy for many sessions; they take turns.

    :param actor: of the policy; its siblings act.
    :param fingerprint: of the checkpoint.
    """

    def __init__(self, actor: PolicyActor, fingerprint: str) -> None:
        """Begin without a session."""
        self.manifest, self.fingerprint = actor.manifest, fingerprint
        self._actor = actor
        self._turn = threading.Lock()
        self._last: PolicyActor | None = None

    def join(self) -> PolicyActor:
        """Return an actor for a session."""
        with self._turn:
            return self._actor.sibling()

    def act(self, actor: PolicyActor, observation: Observation, instruction: str) -> Decision:
        """Decide for one session, once the one that acted before has settled."""
        with self._turn:
            if self._last is not None and self._last is not actor:
                self._last.settle()
            self._last = actor
            return actor.act(observation, instruction)

    def settle(self, actor: PolicyActor) -> None:
        """Do what the answer did not wait for."""
        with self._turn:
            actor.settle()

    def reset(self, actor: PolicyActor) -> None:
        """Begin an episode."""
        with self._turn:
            actor.reset()


class Speech(Protocol):
    """What one kind of client sends and takes."""

    @property
    def calls_per_decision(self) -> int:
        """Return for how many observations one decision is given."""

    def read(self, payload: Mapping[str, Any], call: int) -> Observation:
        """Return what the policy sees; `call` counts from 0 in each episode."""

    def write(self, decision: Decision) -> dict[str, Any]:
        """Return the answer."""


class NodeSpeech:
    """Speaks to the policy node: physical units, the policy's own pixels, every action."""

    calls_per_decision = 1

    def __init__(self, manifest: Manifest) -> None:
        """Keep the manifest."""
        self._manifest = manifest

    def read(self, payload: Mapping[str, Any], call: int) -> Observation:
        """Return what the node saw; resized already."""
        images, states = payload.get('images'), payload.get('states')
        if not isinstance(images, Mapping) or not isinstance(states, Mapping):
            raise ValueError('expected images and states by name')
        return Observation(0, {str(name): as_image(image, str(name))
                               for name, image in images.items()},
                           {str(name): np.asarray(values, np.float64)
                            for name, values in states.items()}, is_resized=True)

    def write(self, decision: Decision) -> dict[str, Any]:
        """Return the decision as it is."""
        return {'groups': dict(decision.action.groups), 'chunk': decision.chunk,
                'stage_s': dict(decision.stage_s)}


class Session:
    """
    One client from its greeting to its leave.

    :param harness: how benchmarks are spoken to, or why this policy cannot do it.
    """

    def __init__(self, policy: SharedPolicy, harness: Harness | str) -> None:
        """Wait for the greeting."""
        self._policy, self._harness = policy, harness
        self._actor = policy.join()
        self._speech: Speech | None = None
        self._episode: Any = None
        self._calls = 0
        self._held: dict[str, Any] = {}

    def answer(self, message: Message) -> Message | None:
        """Return the answer to a message; None where it asks for none. It raises nothing."""
        try:
            payload = self._payload(message)
        except Exception as error:  # a session's edge: the client is told, the server lives
            return Message('error', {'error': _one_line(error)}, message.seq)
        if payload is None:
            return None
        return Message('hello' if message.kind == 'hello' else 'action', payload, message.seq)

    def settle(self) -> None:
        """Do what the last answer did not wait for, once it is sent."""
        self._policy.settle(self._actor)

    def _payload(self, message: Message) -> dict[str, Any] | None:
        if message.kind == 'hello':
            return self._greet(message.payload)
        if message.kind == 'episode_start':
            self._begin(message.payload)
        elif message.kind == 'episode_end':
            self._episode = None
        elif message.kind == 'observation':
            return self._decide(message.payload)
        return None

    def _greet(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        version = payload.get('protocol_version')
        if version != PROTOCOL_VERSION:
            raise ValueError(f'protocol version {PROTOCOL_VERSION} is spoken here, the client '
                             f'asks for {version!r:.20}')
        known: dict[str, Any] = {}
        if payload.get('client') == NODE:
            self._speech = NodeSpeech(self._policy.manifest)
            known['manifest'] = config.plain(self._policy.manifest)
        elif isinstance(self._harness, str):
            raise ValueError(self._harness)
        else:
            self._speech, known = self._harness, self._harness.description()
        return {'harness_version': ros2_lstm_policy.__version__,
                'protocol_version': PROTOCOL_VERSION, 'model_server': 'ros2_lstm_policy',
                'capabilities': {}, 'fingerprint': self._policy.fingerprint, **known}

    def _begin(self, payload: Mapping[str, Any]) -> None:
        self._policy.reset(self._actor)
        self._episode, self._calls = payload.get('episode', True), 0

    def _decide(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        if self._speech is None:
            raise ValueError('expected a hello before the first observation')
        if self._episode is None or payload.get('episode', self._episode) != self._episode:
            raise ValueError(f'the observation is of episode {payload.get("episode")}, and '
                             f'{self._episode} is under way; begin it with episode_start')
        if self._calls % self._speech.calls_per_decision == 0:
            self._held = self._speech.write(self._decision(self._speech, payload))
        self._calls += 1
        return {**self._held, 'episode': self._episode}

    def _decision(self, speech: Speech, payload: Mapping[str, Any]) -> Decision:
        observation = speech.read(payload, self._calls)
        for camera in self._policy.manifest.cameras:
            if camera.name in observation.images:
                _check(camera, observation)
        for name, values in observation.states.items():
            if not np.isfinite(values).all():
                raise ValueError(f'state {name!r}: expected finite numbers, found '
                                 f'{values.tolist()}')
        return self._policy.act(self._actor, observation, _words(payload))


def _check(camera: CameraSpec, observation: Observation) -> None:
    spec = None if observation.is_resized else camera
    fault = image_checks.fault_of(camera.name, observation.images[camera.name], spec)
    if fault is not None:
        raise ValueError(fault.text)


def _words(payload: Mapping[str, Any]) -> str:
    words = payload.get('task_description')
    if not isinstance(words, str) or not words.strip():
        raise ValueError('task_description: expected the instruction, found '
                         f'{"nothing" if not words else type(words).__name__}')
    if len(words) > MAX_INSTRUCTION_CHARACTERS:
        raise ValueError(f'the instruction has {len(words)} characters, at most '
                         f'{MAX_INSTRUCTION_CHARACTERS} are allowed')
    return words.strip()


def _one_line(error: Exception) -> str:
    """Return what is wrong; what this package did not raise itself has its type before it."""
    text = ' '.join(str(error).split())
    is_told = isinstance(error, ValueError) or type(error).__module__.startswith(
        'ros2_lstm_policy')
    return text if is_told else f'{type(error).__name__}: {text}'

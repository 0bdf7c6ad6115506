"""The policy as an actor: one observation and an instruction in, one decision out."""

from __future__ import annotations

from copy import copy
from functools import lru_cache
import time

import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime import engine, schedule
from ros2_lstm_policy.types import Action, Decision, Observation

_KEPT_INSTRUCTIONS = 32
_WARM_UP_STEPS = 3


class MissingCamera(ValueError):
    """An observation without an image that the policy needs."""


class NonFiniteAction(RuntimeError):
    """The policy gave NaN or infinity; nothing may be sent to a robot."""


class PolicyActor:
    """
    Acts with a policy; implements `types.Actor`.

    All state of an episode is here: the history and what is pending of earlier chunks. One thread
    at a time may use it. An `act` that raises leaves the state as it was.

    :param policy: from `checkpoint.load`; in eval mode, on its device.
    :param execute: which action of which chunk is due, as `schedule.parse` reads it.
    :param precision: of the backbone: 'bf16' for a GPU; the head is always float32.
    :param cuda_graph: on a GPU, run a tick as one CUDA graph.
    :param threads: CPU threads of one operation.
    :param prepare: on a CPU, act on a copy of the compact backbone that is laid out for it; a
        later change of the policy's weights does not reach it.
    :param compiled: on a GPU, with compiled layers.
    """

    def __init__(self, policy: Policy, execute: str = 'first',
                 precision: engine.Precision = 'fp32', cuda_graph: bool = True,
                 threads: int = 1, prepare: bool = True, compiled: bool = False) -> None:
        """
        Prepare the policy.

        :raises ValueError: for an `execute` that does not fit the policy's chunks.
        """
        self.manifest, self._decoder = policy.manifest, policy.config.decoder
        self._schedule = schedule.parse(execute, self._decoder.fwd_pred_next_n)
        self._engine = engine.create(policy, precision, cuda_graph, threads, prepare,
                                     compiled)
        self._shares_engine = False
        self._encode_text = lru_cache(_KEPT_INSTRUCTIONS)(self._engine.encode_text)
        self.reset()

    def reset(self) -> None:
        """Forget the episode."""
        self._state = self._engine.start()
        self._rest: engine.Rest | None = None
        self._pending: schedule.Pending = ()

    def warm_up(self, instruction: str = 'warm up') -> float:
        """
        Do some steps on blank images, so that the first real one is as fast as the others.

        :return: seconds that the last of them took.
        """
        blank = Observation(
            0, {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8)
                for camera in self.manifest.cameras},
            {state.name: np.zeros(state.size) for state in self.manifest.states})
        for _ in range(_WARM_UP_STEPS):
            decision = self.act(blank, instruction)
        self.reset()
        return sum(decision.stage_s.values())

    def act(self, observation: Observation, instruction: str) -> Decision:
        """
        Decide for one observation; called once a control period.

        :raises MissingCamera: where the policy needs an image that is not there.
        :raises ValueError: for a state that is not there, or of another size.
        :raises InstructionTooLong: where the instruction does not fit the policy.
        :raises NonFiniteAction: where the policy gives NaN or infinity.
        """
        self.settle()
        stage_s: dict[str, float] = {}
        begin = time.perf_counter()
        seen = self._preprocess(observation)
        preprocessed = time.perf_counter()
        text = self._encode_text(instruction)
        stage_s['preprocess'] = preprocessed - begin
        stage_s['text'] = time.perf_counter() - preprocessed
        prediction, rest = self._engine.step(seen, text, self._state, stage_s)
        begin = time.perf_counter()
        chunk_KA = self._to_physical(prediction)
        due_A, pending = self._schedule(chunk_KA, self._pending)
        self._rest, self._pending = rest, pending
        stage_s['postprocess'] = time.perf_counter() - begin
        return Decision(Action(transforms.by_group(due_A, self.manifest)), chunk_KA, stage_s,
                        self.settle)

    def settle(self) -> None:
        """Take the last observation into the history: what its action did not wait for."""
        if self._rest is not None:
            self._state, self._rest = self._rest(), None
            if self._shares_engine:  # a graph keeps the state where others will write theirs
                self._state = tuple(part.clone() for part in self._state)

    def sibling(self) -> PolicyActor:
        """
        Return another actor with the same policy, engine and known words, and an own episode.

        One thread at a time may use any of them, and before one acts the last one settles.
        """
        self._shares_engine = True
        other = copy(self)
        other.reset()
        return other

    def _preprocess(self, observation: Observation) -> engine.Seen:
        images = observation.images
        missing = [camera.name for camera in self.manifest.cameras if camera.name not in images]
        if missing:
            raise MissingCamera(f'the policy needs an image of {", ".join(missing)}; the '
                                f'observation has {", ".join(images) or "none"}')
        return self._engine.preprocess(
            images, transforms.normalise_states(observation.states, self.manifest),
            observation.is_resized)

    def _to_physical(self, prediction: engine.Prediction) -> np.ndarray:
        """Return (K, A) float32, in physical units and probabilities."""
        continuous_KC, binary_KG = (part.numpy() for part in prediction)
        if not (np.isfinite(continuous_KC).all() and np.isfinite(binary_KG).all()):
            raise NonFiniteAction('the policy gave a value that is no finite number; nothing is '
                                  'sent; reset the episode, and check the checkpoint if it '
                                  'happens again')
        return transforms.from_labels(continuous_KC, binary_KG, self.manifest)

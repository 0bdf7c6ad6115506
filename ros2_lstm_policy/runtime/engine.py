"""
How one tick's mathematics runs on a device.

An engine is a function without an episode: images, encoded words and the history's state in, the
chunk out, and then the state after it, which no action has to wait for. On a CPU it runs eagerly
in one thread, the compact backbone in a form whose weights are laid out for it; on a GPU the whole
tick can be one CUDA graph, because its shapes never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
import math
import time
from typing import cast, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from ros2_lstm_policy.model.backbones.base import Encode, EncodedText, TextTokens
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime import history
from ros2_lstm_policy.runtime.history import HistoryState
from ros2_lstm_policy.runtime.pixels import Capture, DevicePixels, HostPixels, Pixels
from ros2_lstm_policy.transforms import normalise_images
import torch
from torch import nn, Tensor

Precision = Literal['fp32', 'bf16']
_GRAPH_WARM_UPS = 3
_COMPILED_KINDS = 64  # of layers in a process, by shapes and instructions' lengths


class Prediction(NamedTuple):
    """
    One chunk.

    :param continuous_KC: normalised.
    :param binary_KG: probabilities of 1.
    """

    continuous_KC: Tensor
    binary_KG: Tensor


class Seen(NamedTuple):
    """
    What the model is given of one observation, on the device.

    :param images: camera name to (H, W, 3) uint8, resized; valid until the next observation.
    :param states_S: normalised states, side by side.
    """

    images: Mapping[str, Tensor]
    states_S: Tensor


# The rest of a tick, for when its action is out: returns the state after it.
Rest: TypeAlias = Callable[[], HistoryState]


class Engine(Protocol):
    """Runs one tick; keeps no episode."""

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""

    def encode_text(self, instruction: str) -> EncodedText:
        """Encode an instruction, on the device."""

    def preprocess(self, images: Mapping[str, np.ndarray], states_S: np.ndarray,
                   are_resized: bool = False) -> Seen:
        """
        Bring an observation onto the device; valid until the next call.

        :param images: camera name to raw (H, W, 3) uint8 RGB, which are resized.
        :param states_S: normalised states, side by side, float32.
        :param are_resized: whether the images have the model's size already.
        """

    def step(self, seen: Seen, text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, Rest]:
        """
        Do what the action of one tick waits for.

        :param seen: what :meth:`preprocess` gave last.
        :param state: from :meth:`start` or the last rest; valid until the next rest is done.
        :param stage_s: gets the seconds spent by stage.
        :return: the chunk on the CPU, and the rest of the tick.
        """


class EagerEngine:
    """
    Runs the policy as it is written.

    :param policy: on its device, in eval mode; 'bf16' turns its backbone into bfloat16.
    :param threads: of one operation on the CPU; a process-wide setting. One is best beside other
        processes.
    :param backbone: runs in place of the policy's own.
    :param pixels: makes the model's pixels; None to resize on the CPU.
    :param text_lengths: texts are padded to the first of these that they fit; none: not at all.
    """

    def __init__(self, policy: Policy, precision: Precision = 'fp32', threads: int = 1,
                 backbone: Encode | None = None, pixels: Pixels | None = None,
                 text_lengths: Sequence[int] = ()) -> None:
        """Prepare the policy."""
        self._policy = policy
        self._casts = precision == 'bf16' and not policy.backbone.parts().own_precision
        self._backbone = policy.backbone if backbone is None else backbone
        self._history = history.of_policy(policy)
        self.device = next(policy.parameters()).device
        self._text_lengths = tuple(text_lengths)
        self._pixels = pixels or HostPixels(policy.manifest.cameras, self.device)
        if self.device.type == 'cpu':
            torch.set_num_threads(threads)
        if precision == 'bf16':
            cast(nn.Module, policy.backbone).to(torch.bfloat16)

    @property
    def state_size(self) -> int:
        """Return the values S of all states."""
        return self._policy.manifest.state_size

    @property
    def keeps_places(self) -> bool:
        """Return whether the pixels lie in the same places at every tick."""
        return isinstance(self._pixels, DevicePixels)

    @torch.inference_mode()
    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return self._history.start()

    @torch.inference_mode()
    def encode_text(self, instruction: str) -> EncodedText:
        """Encode an instruction, on the device."""
        with self._autocast():
            tokens = _padded(self._policy.backbone.tokenize([instruction]), self._text_lengths)
            text = self._policy.backbone.encode_text(tokens)
        return EncodedText(*(part.to(self.device) for part in text))

    @torch.inference_mode()
    def preprocess(self, images: Mapping[str, np.ndarray], states_S: np.ndarray,
                   are_resized: bool = False) -> Seen:
        """Bring images and states onto the device; valid until the next call."""
        pixels = self._pixels.place(images) if are_resized else self._pixels(images)
        return Seen(pixels, torch.from_numpy(states_S).to(self.device))

    @torch.inference_mode()
    def step(self, seen: Seen, text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, Rest]:
        """Do one tick, stage by stage."""
        begin = time.perf_counter()
        input_D = self.encode(seen, text)
        self.wait()
        stage_s['backbone'] = time.perf_counter() - begin
        begin = time.perf_counter()
        prediction = Prediction(*(part.cpu() for part in self.decode(input_D, state)))
        stage_s['head'] = time.perf_counter() - begin
        return prediction, partial(self.follow, input_D, state)

    def encode(self, seen: Seen, text: EncodedText) -> Tensor:
        """Turn an observation on the device into the LSTM's input (D)."""
        normalised = {camera.name: normalise_images(seen.images[camera.name], camera)[None]
                      for camera in self._policy.manifest.cameras}
        with self._autocast():
            tokens_1ND = self._backbone(normalised, text)
        tokens_11ND = self._policy.with_states(tokens_1ND.float().unsqueeze(1),
                                               seen.states_S[None, None])
        return self._policy.decoder.reduce_tokens(tokens_11ND)[0, 0]

    def decode(self, input_D: Tensor, state: HistoryState) -> Prediction:
        """Turn the LSTM's input into a chunk, in float32."""
        output_H = self._history.read(input_D, state)
        value, logit = self._policy.decoder.heads(output_H[None, None])
        return Prediction(value[0, 0], logit[0, 0].sigmoid())

    @torch.inference_mode()
    def follow(self, input_D: Tensor, state: HistoryState) -> HistoryState:
        """Return the state after the LSTM's input."""
        return self._history.follow(input_D, state)

    def _autocast(self) -> AbstractContextManager:
        if self._casts:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def wait(self) -> None:
        """Wait for what was launched last."""
        if self.device.type == 'cuda':
            torch.cuda.current_stream(self.device).synchronize()


def capture_cuda_graph(device: torch.device, action: Callable[[], None]) -> Callable[[], None]:
    """
    Capture an action whose inputs and outputs lie in fixed places.

    :return: what replays it.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_GRAPH_WARM_UPS):
                action()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            action()
    return graph.replay


class GraphEngine:
    """
    Replays a captured tick, one for each length of the encoded text.

    :param eager: what is captured.
    :param capture: how.
    """

    def __init__(self, eager: EagerEngine, capture: Capture) -> None:
        """Capture nothing yet; the first tick of each text length does."""
        self._eager, self._capture = eager, capture
        self._ticks: dict[tuple[torch.Size, ...], _CapturedTick] = {}
        self._memory: _Memory | None = None
        self.start, self.encode_text = eager.start, eager.encode_text
        self.preprocess = eager.preprocess

    @torch.inference_mode()
    def step(self, seen: Seen, text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, Rest]:
        """Do what the action waits for in one launch; the rest is another."""
        begin = time.perf_counter()
        key = tuple(part.shape for part in text)
        try:
            if self._memory is None:
                self._memory = _Memory(self._eager, self._capture, state,
                                       self._eager.encode(seen, text))
            if key not in self._ticks:
                self._ticks[key] = _CapturedTick(self._eager, self._capture, seen, text,
                                                 self._memory)
        except RuntimeError as error:
            raise RuntimeError('the tick cannot be captured as a CUDA graph; run it eagerly '
                               f'(engine: eager). {type(error).__name__}: {error}') from error
        self._memory.hold(state)
        prediction = self._ticks[key].replay(seen, text)
        stage_s['model'] = time.perf_counter() - begin
        return prediction, self._memory.follow


class _Memory:
    """The history's state in a fixed place, the LSTM's last input, and what takes it in."""

    def __init__(self, eager: EagerEngine, capture: Capture, state: HistoryState,
                 input_D: Tensor) -> None:
        self.state: HistoryState = tuple(part.clone() for part in state)
        self.input_D = input_D.clone()
        self._held: HistoryState | None = None
        self._launch = capture(lambda: self._place(eager.follow(self.input_D, self.state)))

    def hold(self, state: HistoryState) -> None:
        """Have this state; nothing is to be done where it is what `follow` returned last."""
        if state is not self._held:
            self._place(state)
        self._held = state

    @torch.inference_mode()
    def follow(self) -> HistoryState:
        """Take the last input in, without waiting for it."""
        self._launch()
        self._held = tuple(part for part in self.state)  # another value, in the same places
        return self._held

    def _place(self, state: HistoryState) -> None:
        for place, part in zip(self.state, state):
            place.copy_(part)


class _CapturedTick:
    """A captured tick with its inputs and outputs in fixed places."""

    def __init__(self, eager: EagerEngine, capture: Capture, seen: Seen, text: EncodedText,
                 memory: _Memory) -> None:
        self._eager, self._memory = eager, memory
        # `DevicePixels` writes into the same places at every call: nothing is to be copied
        self._seen = Seen(dict(seen.images) if eager.keeps_places else {
            name: image.clone() for name, image in seen.images.items()}, seen.states_S.clone())
        self._text = EncodedText(*(part.clone() for part in text))
        self._said: EncodedText | None = None
        self._shapes = [part.shape for part in eager.decode(memory.input_D, memory.state)]
        self._out = torch.empty(sum(map(math.prod, self._shapes)),
                                pin_memory=eager.device.type == 'cuda')
        self._launch = capture(self._run)

    def _run(self) -> None:
        self._memory.input_D.copy_(self._eager.encode(self._seen, self._text))
        prediction = self._eager.decode(self._memory.input_D, self._memory.state)
        self._out.copy_(torch.cat([part.flatten() for part in prediction]), non_blocking=True)

    def replay(self, seen: Seen, text: EncodedText) -> Prediction:
        """Copy the inputs into place, replay, and wait for what comes out."""
        for name, image in seen.images.items():
            if image is not self._seen.images[name]:
                self._seen.images[name].copy_(image, non_blocking=True)
        self._seen.states_S.copy_(seen.states_S)
        if text is not self._said:
            for place, part in zip(self._text, text):
                place.copy_(part)
            self._said = text
        self._launch()
        self._eager.wait()
        parts = self._out.clone().split([math.prod(shape) for shape in self._shapes])
        return Prediction(*(part.view(shape) for part, shape in zip(parts, self._shapes)))


def create(policy: Policy, precision: Precision = 'fp32', cuda_graph: bool = True,
           threads: int = 1, prepare: bool = True, compiled: bool = False) -> Engine:
    """
    Return the engine for the device that the policy is on.

    :param cuda_graph: replay one CUDA graph a tick; without a GPU, or with a backbone that
        is not `capturable`, it has no effect.
    :param prepare: on a CPU in float32, run the backbone's form for a CPU where it has one; with
        another device, precision or backbone it has no effect.
    :param compiled: on a GPU, compile the backbone's layers first: some twenty seconds at the
        start.
    """
    device, backbone = next(policy.parameters()).device, policy.backbone
    for_cpu = backbone.parts().for_cpu
    usable = prepare and device.type == 'cpu' and precision == 'fp32' and for_cpu is not None
    acting = for_cpu(policy.manifest.cameras) if usable and for_cpu is not None else None
    if device.type != 'cuda':
        return EagerEngine(policy, precision, threads, acting)
    in_graph = cuda_graph and backbone.capturable
    pixels = DevicePixels(policy.manifest.cameras, device,
                          partial(capture_cuda_graph, device) if in_graph else None)
    if compiled:
        compile_layers(policy)
    eager = EagerEngine(policy, precision, threads, acting, pixels,
                        backbone.parts().text_lengths if in_graph else ())
    for_gpu = backbone.parts().for_gpu
    if in_graph and for_gpu is not None:
        for_gpu()  # now that the weights are what and where they will be
    return GraphEngine(eager, partial(capture_cuda_graph, device)) if in_graph else eager


def compile_layers(policy: Policy) -> None:
    """Compile the backbone's layers, one compilation for those of one kind; or the whole."""
    # The limit is for functions that are compiled again by accident. Here the layers of all towers
    # and policies of a process go through one function of the library, and count together.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit,
                                               _COMPILED_KINDS)
    blocks = policy.backbone.parts().compiled or (cast(nn.Module, policy.backbone),)
    for block in blocks:
        block.compile(dynamic=False)


def _padded(text: TextTokens, lengths: Sequence[int]) -> TextTokens:
    """Pad to the first length that is enough; a longer text stays as it is."""
    length = next((n for n in lengths if n >= text.ids_BN.shape[1]), text.ids_BN.shape[1])
    more = (0, length - text.ids_BN.shape[1])
    return TextTokens(nn.functional.pad(text.ids_BN, more),
                      nn.functional.pad(text.mask_BN, more))

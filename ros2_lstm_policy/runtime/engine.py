"""
How one tick's mathematics runs on a device.

An engine is a function without an episode: images, encoded words and the history's state in, the
chunk and the state after it out. On a CPU it runs eagerly in one thread, the compact backbone in a
form whose weights are laid out for it; on a GPU the whole tick can be one CUDA graph, because its
shapes never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
import time
from typing import cast, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from ros2_lstm_policy.model.backbones.base import Encode, EncodedText, TextTokens
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime import history
from ros2_lstm_policy.runtime.history import HistoryState
from ros2_lstm_policy.runtime.pixels import DevicePixels, HostPixels, Pixels
from ros2_lstm_policy.transforms import normalise_images
import torch
from torch import nn, Tensor

Precision = Literal['fp32', 'bf16']
_GRAPH_WARM_UPS = 3


class Prediction(NamedTuple):
    """
    One chunk.

    :param arm_KA: normalised deltas.
    :param gripper_open_K: probability of open.
    """

    arm_KA: Tensor
    gripper_open_K: Tensor


class Engine(Protocol):
    """Runs one tick; keeps no episode."""

    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""

    def encode_text(self, instruction: str) -> EncodedText:
        """Encode an instruction, on the device."""

    def preprocess(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """Resize raw images (H, W, 3) uint8, onto the device; valid until the next call."""

    def step(self, images: Mapping[str, Tensor], text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, HistoryState]:
        """
        Do one tick.

        :param images: what :meth:`preprocess` gave last.
        :param stage_s: gets the seconds spent by stage.
        :return: the chunk on the CPU, and the state after it.
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
        self._policy, self._precision = policy, precision
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
    def preprocess(self, images: Mapping[str, np.ndarray]) -> Mapping[str, Tensor]:
        """Resize raw images (H, W, 3) uint8, onto the device; valid until the next call."""
        return self._pixels(images)

    @torch.inference_mode()
    def step(self, images: Mapping[str, Tensor], text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, HistoryState]:
        """Do one tick, stage by stage."""
        begin = time.perf_counter()
        input_D = self.encode(images, text)
        self._wait()
        stage_s['backbone'] = time.perf_counter() - begin
        begin = time.perf_counter()
        prediction, state = self.decode(input_D, state)
        prediction = Prediction(*(part.cpu() for part in prediction))
        stage_s['head'] = time.perf_counter() - begin
        return prediction, state

    def encode(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """Turn (H, W, 3) uint8 images on the device into the LSTM's input (D)."""
        normalised = {camera.name: normalise_images(images[camera.name], camera)[None]
                      for camera in self._policy.manifest.cameras}
        with self._autocast():
            tokens_1ND = self._backbone(normalised, text)
        return self._policy.decoder.reduce_tokens(tokens_1ND.float().unsqueeze(1))[0, 0]

    def decode(self, input_D: Tensor, state: HistoryState) -> tuple[Prediction, HistoryState]:
        """Turn the LSTM's input into a chunk, in float32."""
        output_H, state = self._history.advance(input_D, state)
        arm, logit = self._policy.decoder.heads(output_H[None, None])
        return Prediction(arm[0, 0], logit[0, 0].sigmoid()), state

    def _autocast(self) -> AbstractContextManager:
        if self._precision == 'bf16':
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


Tick: TypeAlias = Callable[[], tuple[Prediction, HistoryState]]
Capture: TypeAlias = Callable[[Tick], tuple[Callable[[], None], Prediction, HistoryState]]


def capture_cuda_graph(device: torch.device,
                       tick: Tick) -> tuple[Callable[[], None], Prediction, HistoryState]:
    """
    Capture a tick.

    :return: what replays it, and its outputs, which every replay overwrites.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_GRAPH_WARM_UPS):
                tick()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            prediction, after = tick()
    return graph.replay, prediction, after


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
        self.start, self.encode_text = eager.start, eager.encode_text
        self.preprocess = eager.preprocess

    @torch.inference_mode()
    def step(self, images: Mapping[str, Tensor], text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, HistoryState]:
        """Do one tick in one launch."""
        begin = time.perf_counter()
        key = tuple(part.shape for part in text)
        if key not in self._ticks:
            try:
                self._ticks[key] = _CapturedTick(self._eager, self._capture, images, text, state)
            except RuntimeError as error:
                raise RuntimeError('the tick cannot be captured as a CUDA graph; run it eagerly '
                                   f'(engine: eager). {type(error).__name__}: {error}') from error
        prediction, state = self._ticks[key].replay(images, text, state)
        stage_s['model'] = time.perf_counter() - begin
        return prediction, state


class _CapturedTick:
    """A captured tick with its inputs and outputs in fixed places."""

    def __init__(self, eager: EagerEngine, capture: Capture, images: Mapping[str, Tensor],
                 text: EncodedText, state: HistoryState) -> None:
        # `DevicePixels` writes into the same places at every call: nothing is to be copied
        self._images = dict(images) if eager.keeps_places else {
            name: image.clone() for name, image in images.items()}
        self._text = EncodedText(*(part.clone() for part in text))
        self._state = HistoryState(*(part.clone() for part in state))
        self._said: EncodedText | None = None
        self._launch, self._prediction, self._after = capture(
            lambda: eager.decode(eager.encode(self._images, self._text), self._state))

    def replay(self, images: Mapping[str, Tensor], text: EncodedText,
               state: HistoryState) -> tuple[Prediction, HistoryState]:
        """Copy the inputs into place, replay, and copy the outputs out."""
        for name, image in images.items():
            if image is not self._images[name]:
                self._images[name].copy_(image, non_blocking=True)
        if text is not self._said:
            for place, part in zip(self._text, text):
                place.copy_(part)
            self._said = text
        for place, part in zip(self._state, state):
            place.copy_(part)
        self._launch()
        after = HistoryState(*(part.clone() for part in self._after))
        flat = torch.cat([part.flatten() for part in self._prediction]).cpu()
        parts = flat.split([part.numel() for part in self._prediction])
        return Prediction(*(part.view_as(like) for part, like
                            in zip(parts, self._prediction))), after


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
                          partial(capture_action, device) if in_graph else None)
    if compiled:
        compile_layers(policy)
    eager = EagerEngine(policy, precision, threads, acting, pixels,
                        backbone.parts().text_lengths if in_graph else ())
    return GraphEngine(eager, partial(capture_cuda_graph, device)) if in_graph else eager


def capture_action(device: torch.device, action: Callable[[], None]) -> Callable[[], None]:
    """Capture what has no outputs of its own; return what replays it."""
    nothing = torch.zeros(0, device=device)

    def tick() -> tuple[Prediction, HistoryState]:
        action()
        return Prediction(nothing, nothing), HistoryState(nothing, nothing, nothing)
    return capture_cuda_graph(device, tick)[0]


def compile_layers(policy: Policy) -> None:
    """Compile the backbone's layers, one compilation for those of one kind; or the whole."""
    blocks = policy.backbone.parts().compiled or (cast(nn.Module, policy.backbone),)
    for block in blocks:
        block.compile(dynamic=False)


def _padded(text: TextTokens, lengths: Sequence[int]) -> TextTokens:
    """Pad to the first length that is enough; a longer text stays as it is."""
    length = next((n for n in lengths if n >= text.ids_BN.shape[1]), text.ids_BN.shape[1])
    more = (0, length - text.ids_BN.shape[1])
    return TextTokens(nn.functional.pad(text.ids_BN, more),
                      nn.functional.pad(text.mask_BN, more))

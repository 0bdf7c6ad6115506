"""
How one tick's mathematics runs on a device.

An engine is a function without an episode: images, encoded words and the history's state in, the
chunk and the state after it out. On a CPU it runs eagerly in one thread, the compact backbone in a
form whose weights are laid out for it; on a GPU the whole tick can be one CUDA graph, because its
shapes never change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
import time
from typing import cast, Literal, NamedTuple, Protocol, TypeAlias

from ros2_lstm_policy.model.backbones.base import Encode, EncodedText
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime import history
from ros2_lstm_policy.runtime.history import HistoryState
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

    def step(self, images: Mapping[str, Tensor], text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, HistoryState]:
        """
        Do one tick.

        :param images: camera name to (H, W, 3) uint8 on the CPU, resized by the manifest.
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
    """

    def __init__(self, policy: Policy, precision: Precision = 'fp32', threads: int = 1,
                 backbone: Encode | None = None) -> None:
        """Prepare the policy."""
        self._policy, self._precision = policy, precision
        self._backbone = policy.backbone if backbone is None else backbone
        self._history = history.of_policy(policy)
        self.device = next(policy.parameters()).device
        if self.device.type == 'cpu':
            torch.set_num_threads(threads)
        if precision == 'bf16':
            cast(nn.Module, policy.backbone).to(torch.bfloat16)

    @torch.inference_mode()
    def start(self) -> HistoryState:
        """Return the state of an episode that has not begun."""
        return self._history.start()

    @torch.inference_mode()
    def encode_text(self, instruction: str) -> EncodedText:
        """Encode an instruction, on the device."""
        with self._autocast():
            text = self._policy.encode_instructions([instruction])
        return EncodedText(*(part.to(self.device) for part in text))

    @torch.inference_mode()
    def step(self, images: Mapping[str, Tensor], text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, HistoryState]:
        """Do one tick, stage by stage."""
        begin = time.perf_counter()
        on_device = {camera: image.to(self.device) for camera, image in images.items()}
        input_D = self.encode(on_device, text)
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

    @torch.inference_mode()
    def step(self, images: Mapping[str, Tensor], text: EncodedText, state: HistoryState,
             stage_s: dict[str, float]) -> tuple[Prediction, HistoryState]:
        """Do one tick in one launch."""
        begin = time.perf_counter()
        key = tuple(part.shape for part in text)
        if key not in self._ticks:
            self._ticks[key] = _CapturedTick(self._eager, self._capture, images, text, state)
        prediction, state = self._ticks[key].replay(images, text, state)
        stage_s['model'] = time.perf_counter() - begin
        return prediction, state


class _CapturedTick:
    """A captured tick with its inputs and outputs in fixed places."""

    def __init__(self, eager: EagerEngine, capture: Capture, images: Mapping[str, Tensor],
                 text: EncodedText, state: HistoryState) -> None:
        self._images = {name: image.clone().to(eager.device) for name, image in images.items()}
        self._text = EncodedText(*(part.clone() for part in text))
        self._state = HistoryState(*(part.clone() for part in state))
        self._said: EncodedText | None = None
        self._launch, self._prediction, self._after = capture(
            lambda: eager.decode(eager.encode(self._images, self._text), self._state))

    def replay(self, images: Mapping[str, Tensor], text: EncodedText,
               state: HistoryState) -> tuple[Prediction, HistoryState]:
        """Copy the inputs into place, replay, and copy the outputs out."""
        for name, image in images.items():
            self._images[name].copy_(image, non_blocking=True)
        if text is not self._said:
            for place, part in zip(self._text, text):
                place.copy_(part)
            self._said = text
        for place, part in zip(self._state, state):
            place.copy_(part)
        self._launch()
        after = HistoryState(*(part.clone() for part in self._after))
        return Prediction(*(part.to('cpu', copy=True) for part in self._prediction)), after


def create(policy: Policy, precision: Precision = 'fp32', cuda_graph: bool = True,
           threads: int = 1, prepare: bool = True) -> Engine:
    """
    Return the engine for the device that the policy is on.

    :param cuda_graph: replay one CUDA graph a tick; without a GPU, or with a backbone that
        is not `capturable`, it has no effect.
    :param prepare: on a CPU in float32, run the backbone's form for a CPU where it has one; with
        another device, precision or backbone it has no effect.
    """
    device, backbone = next(policy.parameters()).device, policy.backbone
    for_cpu = backbone.parts().for_cpu
    usable = prepare and device.type == 'cpu' and precision == 'fp32' and for_cpu is not None
    acting = for_cpu(policy.manifest.cameras) if usable and for_cpu is not None else None
    eager = EagerEngine(policy, precision, threads, acting)
    if cuda_graph and device.type == 'cuda' and backbone.capturable:
        return GraphEngine(eager, partial(capture_cuda_graph, device))
    return eager

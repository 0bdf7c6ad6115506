"""What a run would be: sizes, memory, steps, and the first batch as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from ros2_lstm_policy.data.datamodule import DataModule, TrainingBatch
from ros2_lstm_policy.training.augmentation import augment
from ros2_lstm_policy.training.config import TrainConfig
from ros2_lstm_policy.training.module import DTYPES, TrainingModule
from ros2_lstm_policy.training.objective import total
from ros2_lstm_policy.types import Batch
import torch
from torch import nn, Tensor

PICTURE = 'first_batch.png'
_SHOWN_WINDOWS = 4
_CAPTION_PX = 14
_LABEL_PX = 30
_LABEL_COLOURS = ('red', 'green', 'blue', 'orange', 'purple', 'brown', 'black')
_FLOAT_BYTES = 4
_SPARE = 0.1  # share of a GPU for its context, workspaces and gaps between tensors


@dataclass(frozen=True)
class Memory:
    """
    Device memory of a training step, in GB (1e9 bytes).

    :param weights: of the whole model, and their copies in the precision of the products.
    :param training: gradients, both moments of AdamW and the average, of what is trained.
    :param activations: kept for the backward pass, for the configured batch.
    :param frames: of all episodes, where they lie on the device.
    """

    weights: float
    training: float
    activations: float
    frames: float

    @property
    def total(self) -> float:
        """Return the sum; the device needs some more for workspaces."""
        return self.weights + self.training + self.activations + self.frames

    def __str__(self) -> str:
        """Say it in one line."""
        return (f'about {self.total:.2f} GB: weights {self.weights:.2f}, gradients, AdamW and '
                f'average {self.training:.2f}, activations {self.activations:.2f}, frames '
                f'{self.frames:.2f}')


def dry_run(module: TrainingModule) -> None:
    """Print what a run would be, and write the picture into its output directory."""
    config, data = module.config, module.data
    for line in _table(module):
        print(line)
    memory, free = estimate_memory(module), free_memory(config)
    print(f'memory: {memory}')
    if free is not None:
        print(f'memory: {fitting(memory, config.data.loader.batch_size, free)}')
    config.output.mkdir(parents=True, exist_ok=True)
    path = config.output / PICTURE
    picture(module, first_batch(data)).save(path)
    print(f'first batch, as the model sees it, and below each step its label (x red, y green, '
          f'z blue, rotations orange, purple, brown, gripper black: up is open): {path}')


def free_memory(config: TrainConfig) -> float | None:
    """Return the GB free on the GPU that a run would take; None without one, or in pieces."""
    engine = config.engine
    if engine.accelerator == 'cpu' or engine.strategy not in ('auto', 'ddp') \
            or not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info()[0] / 1e9


def fitting(memory: Memory, batch_size: int, free: float) -> str:
    """
    Say whether a step fits into a GPU, and the largest batch that does.

    :param batch_size: the windows that the estimate is for.
    :param free: GB on the GPU.
    """
    usable = free * (1 - _SPARE)
    if memory.total <= usable:
        return f'fits into the GPU, which has {free:.2f} GB free'
    fixed = memory.total - memory.activations
    most = int(max(0.0, usable - fixed) / memory.activations * batch_size)
    if most < 1:
        return (f'does NOT fit into the GPU, which has {free:.2f} GB free, at any batch: freeze '
                'more (tune.*), set engine.gradient_checkpointing, move the frames off the device '
                '(data.loader.resident: memory), or share the weights out (engine.strategy: fsdp)')
    return (f'does NOT fit into the GPU, which has {free:.2f} GB free: lower '
            f'data.loader.batch_size from {batch_size} to {most} and raise optimiser.accumulate '
            'by as much, or set engine.gradient_checkpointing')


def first_batch(data: DataModule) -> TrainingBatch:
    """Return the first batch of the run, with images, on the CPU."""
    return data.on_device(data.train_loader().dataset[data.order.batch(0)], torch.device('cpu'))


def estimate_memory(module: TrainingModule) -> Memory:
    """Measure what one window keeps for the backward pass, and scale it to the batch."""
    config, batch = module.config, first_batch(module.data)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    copies = 4 if config.ema_decay else 3
    frames = module.data.store.nbytes if module.data.config.resident == 'device' else 0
    kept = kept_bytes(module, _first(batch))
    return Memory((sum(p.numel() * p.element_size() for p in module.parameters())
                   + kept.copies) / 1e9,
                  trained * _FLOAT_BYTES * copies / 1e9,
                  kept.window * config.data.loader.batch_size / 1e9,
                  frames / 1e9)


class Kept(NamedTuple):
    """
    Bytes that a forward pass keeps for the backward pass.

    :param window: what it computed from a window.
    :param copies: weights as autocast rounded them, once for any batch.
    """

    window: int
    copies: int


def kept_bytes(module: TrainingModule, batch: TrainingBatch) -> Kept:
    """Return what the forward pass of one window keeps for the backward pass."""
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}
    copies: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            (copies if _of_one_weight(value) else kept)[storage.data_ptr()] = storage.nbytes()
        return value

    precision = DTYPES[module.config.engine.precision]
    module.train()
    # oneDNN has no LSTM in bfloat16 on CPUs without AVX-512; torch's own kernels have.
    with torch.autocast('cpu', precision, enabled=precision != torch.float32), \
            torch.backends.mkldnn.flags(enabled=False, allow_tf32=None), \
            torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = total(module.losses(batch, module.config.augmentation).terms)
    assert loss.requires_grad
    return Kept(sum(kept.values()), sum(copies.values()))


def _of_one_weight(value: Tensor) -> bool:
    """Return whether a value was computed from one trained weight and nothing else."""
    node: Any = value.grad_fn
    while node is not None and len(node.next_functions) == 1:
        node = node.next_functions[0][0]
    return node is not None and node.name() == 'torch::autograd::AccumulateGrad'


def picture(module: TrainingModule, batch: TrainingBatch) -> Image.Image:
    """
    Show augmented windows: a row a window and camera, a column a step, the words above.

    Below each step stands the label of its first action: the six normalised deltas, as the
    network is to give them, and what the gripper does.
    """
    windows, cameras = batch.windows, module.data.manifest.cameras
    shown = min(_SHOWN_WINDOWS, len(windows.instructions))
    strips = []
    for camera in cameras:
        seen = augment(windows.images[camera.name][:shown], camera, module.config.augmentation)
        mean, std = (np.array(v)[:, None, None] for v in (camera.mean, camera.std))
        pixels = (seen.numpy() * std + mean).clip(0, 1) * 255
        strips.append(np.concatenate(list(pixels.astype(np.uint8).transpose(1, 0, 3, 4, 2)), 2))
    images_px = sum(strip.shape[1] for strip in strips)
    height = images_px + _CAPTION_PX + _LABEL_PX
    sheet = Image.new('RGB', (max(strip.shape[2] for strip in strips), shown * height), 'white')
    for row in range(shown):
        words = f'{windows.instructions[row]} ({windows.episode_names[row]})'
        ImageDraw.Draw(sheet).text((2, row * height + 1), words, 'black')
        top = row * height + _CAPTION_PX
        for strip in strips:
            sheet.paste(Image.fromarray(strip[row]), (0, top))
            top += strip.shape[1]
        _draw_labels(sheet, windows, row, top)
    return sheet


def _draw_labels(sheet: Image.Image, windows: Batch, row: int, top: int) -> None:
    """Draw a bar a value and step, -1 to 1 around a line: continuous values, then binary ones."""
    steps, draw = windows.valid_BTK.shape[1], ImageDraw.Draw(sheet)
    step_px, middle = sheet.width // steps, top + _LABEL_PX // 2
    for step in range(steps):
        left = step * step_px
        draw.line((left, middle, left + step_px - 2, middle), 'lightgray')
        if not windows.valid_BTK[row, step, 0]:
            continue
        values = [*windows.continuous_BTKC[row, step, 0].tolist(),
                  *(2 * windows.binary_BTKG[row, step, 0] - 1).tolist()]
        for place, (value, colour) in enumerate(zip(values, cycle(_LABEL_COLOURS))):
            x = left + (place + 0.5) * step_px / len(values)
            reach = min(max(value, -1.0), 1.0) * (_LABEL_PX // 2 - 1)
            draw.line((x, middle, x, middle - reach), colour, max(1, step_px // 16))


def _table(module: TrainingModule) -> Iterator[str]:
    config, data, schedule = module.config, module.data, module.schedule
    yield f'{"part":28}{"parameters":>14}{"trained":>14}'
    for name, part in _parts(module):
        sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
        yield (f'{name:28}{sum(n for n, _ in sizes):14,}'
               f'{sum(n for n, trained in sizes if trained):14,}')
    what = 'windows' if data.lanes is None else f'segments of {data.index.window} steps'
    yield (f'episodes: {len(data.episodes)}, held out {data.split.held_out}; {what}: '
           f'{len(data.split.train)} to train on, {len(data.split.validation)} to validate on')
    windows = config.data.loader.batch_size * config.optimiser.accumulate
    yield (f'step: {windows} {what.split()[0]} a process ({config.data.loader.batch_size} x '
           f'{config.optimiser.accumulate}); a pass over the data: '
           f'{schedule.steps_per_epoch:.1f} steps; the run: {_end(config, schedule.max_steps)}')


def _parts(module: TrainingModule) -> Iterator[tuple[str, nn.Module]]:
    policy = module.objective.policy
    for name, part in cast(nn.Module, policy.backbone).named_children():
        yield f'backbone.{name}', part
    yield 'decoder', policy.decoder
    for name, part in module.objective.named_children():
        if part is not policy and any(True for _ in part.parameters()):
            yield f'{name} (training only)', part
    yield 'all', module


def _end(config: TrainConfig, max_steps: int | None) -> str:
    limits = [] if max_steps is None else [f'{max_steps} steps']
    if config.schedule.max_time_s is not None:
        limits.append(f'{config.schedule.max_time_s:.0f} s')
    return ' or '.join(limits)


def _first(batch: TrainingBatch) -> TrainingBatch:
    """Return a batch of its first window; the image-text pairs stay."""
    windows = batch.windows
    weights = None if batch.weights_BT is None else batch.weights_BT[:1]
    batch = batch._replace(begins_B=None, weights_BT=weights, distinct=None)
    return batch._replace(windows=windows._replace(
        images={name: value[:1] for name, value in windows.images.items()},
        instructions=windows.instructions[:1],
        continuous_BTKC=windows.continuous_BTKC[:1], binary_BTKG=windows.binary_BTKG[:1],
        valid_BTK=windows.valid_BTK[:1], states_BTS=windows.states_BTS[:1],
        future_images={name: value[:1] for name, value in windows.future_images.items()},
        episode_names=windows.episode_names[:1]))

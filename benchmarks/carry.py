"""
Show on one CPU core what a carried state learns that a window cannot.

A store of made episodes: for five steps a colour is shown, then nothing for a gap of random
length, then the same white square whatever the colour was; now the arm is to move as the colour
said, to one of four sides. Policies are trained on it by `train`'s own classes, on as many frames
each, and then act step by step on episodes that they have not seen, as on a robot. They see
through one linear layer: what is measured is the memory.

    python benchmarks/carry.py
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import logging
import os
from pathlib import Path
import tempfile
import time
from typing import Any, ClassVar

import numpy as np
from ros2_lstm_policy import config
from ros2_lstm_policy.manifest import CameraSpec, Manifest
from ros2_lstm_policy.model import backbones
from ros2_lstm_policy.model.backbones.base import EncodedText, Parts, TextTokens
import torch
from torch import nn, Tensor

SIZE, CUE_STEPS, CHOICE_STEPS, TRAINED_GAPS = 8, 5, 4, (4, 60)
SIDES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)], np.float32)
COLOURS = np.array([(250, 60, 60), (60, 250, 60), (60, 60, 250), (250, 250, 60)], np.uint8)
CAMERA = {'name': 'static', 'height': SIZE, 'width': SIZE, 'interpolation': 'area',
          'mean': [0.498039216] * 3, 'std': [0.501960784] * 3}
WAYS: dict[str, Any] = {  # of as many frames a step
    'window 8': {'decoder': {'window_size': 8}, 'batch_size': 64},
    'attention 8': {'decoder': {'window_size': 8, 'kind': 'attention'}, 'batch_size': 64},
    'carry': {'decoder': {'history': 'carry'}, 'batch_size': 16,
              'recurrence': {'segment': 32, 'chrono': 100}},
}


@dataclass(frozen=True)
class Options:
    """No settings."""

    TRAINS_EVERY_PARAMETER: ClassVar[bool] = True


class Linear(nn.Module):
    """A backbone that is one linear layer over the pixels, and reads nothing."""

    capturable = False

    def __init__(self, cameras: Sequence[CameraSpec]) -> None:
        """Make the layer."""
        super().__init__()
        self.feature_dim, self.camera = 64, cameras[0].name
        self.pixels = nn.Linear(3 * SIZE ** 2, self.feature_dim)

    def tokenize(self, instructions: Sequence[str]) -> TextTokens:
        """Return one token for each."""
        ids_BN = torch.zeros(len(instructions), 1, dtype=torch.long)
        return TextTokens(ids_BN, ids_BN == 0)

    def encode_text(self, text: TextTokens) -> EncodedText:
        """Say nothing."""
        return EncodedText(torch.zeros(*text.ids_BN.shape, 1), text.mask_BN)

    def forward(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """Return one token a frame."""
        return self.pixels(images[self.camera].flatten(1)).unsqueeze(1)

    def parts(self) -> Parts:
        """Offer nothing."""
        return Parts()

    def save_assets(self, directory: Path) -> None:
        """Need nothing."""


def create(options: Options, cameras: Sequence[CameraSpec], directory: Path | None) -> Linear:
    """Build the backbone, as every family's module does."""
    return Linear(cameras)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and compare; return 0 where carrying remembers and nothing else does."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--steps', type=int, default=800, help='training of each policy')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--gaps', type=int, nargs='+', default=[5, 20, 60, 120])
    parser.add_argument('--episodes', type=int, default=20, help='acted for each gap')
    options = parser.parse_args(arguments)
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    torch.set_num_threads(1)
    backbones.FAMILIES['linear'] = __name__
    logging.disable(logging.WARNING)
    gaps = ' '.join(f'{gap:>6}' for gap in options.gaps)
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_store(folder / 'store', 400)
        for way in options.ways:
            seconds = train(folder, way, options.steps)
            last = folder / way / 'checkpoints' / 'last'
            rows[way] = seconds, [right(last, gap, options.episodes) for gap in options.gaps]
    print(f'right choices after gaps of so many steps, of {options.episodes} (chance '
          f'{1 / len(SIDES):.2f}; trained on gaps of {TRAINED_GAPS[0]} to {TRAINED_GAPS[1]})')
    print(f'{"history":20}{"s":>7} {gaps}')
    for way, (seconds, shares) in rows.items():
        print(f'{way:20}{seconds:7.0f} {" ".join(f"{share:6.2f}" for share in shares)}')
    as_expected = [min(shares) > 0.8 if way == 'carry' else max(shares) < 0.6
                   for way, (_, shares) in rows.items()]
    return 0 if all(as_expected) else 1


def episode(cue: int, gap: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return images (T, H, W, 3) and arm deltas (T, 6) of one episode."""
    steps = CUE_STEPS + gap + CHOICE_STEPS
    images = random.integers(20, 40, (steps, SIZE, SIZE, 3), np.uint8)
    arm = np.zeros((steps, 6), np.float32)
    square = slice(2, 6)
    images[:CUE_STEPS, square, square] = COLOURS[cue]
    images[-CHOICE_STEPS:, square, square] = 250
    arm[-CHOICE_STEPS:, :2] = SIDES[cue]
    return images, arm


def write_store(path: Path, episodes: int) -> None:
    """Write episodes with gaps whose logarithm is uniform."""
    from ros2_lstm_policy.data.store import StoreWriter
    from ros2_lstm_policy.types import Episode
    random = np.random.default_rng(0)
    with StoreWriter(path, manifest(Manifest)) as writer:
        for number in range(episodes):
            gap = int(np.exp(random.uniform(*np.log(TRAINED_GAPS))))
            images, arm = episode(number % len(SIDES), gap, random)
            writer.append(Episode(f'made_{number}', 'do as it was shown',
                                  np.arange(len(arm), dtype=np.int64) * 100_000_000,
                                  {'static': images}, {'arm': arm}))
        writer.close()


def manifest(cls: Any) -> Any:
    """Return the body: one camera and one arm, as the given class of the package."""
    unit = {'offset': [0.0] * 6, 'scale': [1.0] * 6}
    arm = {'name': 'arm', 'kind': 'ee_delta', 'size': 6, 'frame': 'base',
           'rotation': 'rotation_vector', 'normalisation': unit}
    return config.parse(cls, {'control_period_s': 0.1, 'cameras': [CAMERA], 'actions': [arm]},
                        'benchmark')


def train(folder: Path, way: str, steps: int) -> float:
    """Train one policy; return the seconds that it took."""
    from ros2_lstm_policy.training import run
    from ros2_lstm_policy.training.config import TrainConfig
    from ros2_lstm_policy.training.data_config import ManifestConfig
    chosen, begin_s = WAYS[way], time.monotonic()
    decoder = {'hidden_size': 64, 'num_layers': 1, 'fwd_pred_next_n': 1, **chosen['decoder']}
    run.fit(config.parse(TrainConfig, {
        'output': str(folder / way),
        'data': {'store': str(folder / 'store'), 'loader': {
            'batch_size': chosen['batch_size'], 'workers': 0, 'resident': 'memory'}},
        'manifest': config.plain(manifest(ManifestConfig)),
        'policy': {'backbone': {'family': 'linear'}, 'decoder': decoder},
        'recurrence': chosen.get('recurrence', {}),
        'losses': {'deciding': {'weight': 10.0, 'after_s': 0.4, 'for_s': 0.4}},
        'augmentation': {'static_shift': 0, 'hand_shift': 0},
        'optimiser': {'lr': 2e-3, 'accumulate': 1},
        'schedule': {'kind': 'half-cosine', 'max_steps': steps},
        'validation': {'every_steps': 1_000_000, 'max_windows': 64},
        'ema_decay': 0.99,
        'engine': {'accelerator': 'cpu', 'precision': 'fp32', 'log_every_steps': 50,
                   'save_every_steps': 1_000_000}}, 'benchmark'))
    return time.monotonic() - begin_s


def right(checkpoint: Path, gap: int, episodes: int) -> float:
    """Act on fresh episodes; return the share in which the arm moves where the cue said."""
    from ros2_lstm_policy.model.checkpoint import load
    from ros2_lstm_policy.runtime.actor import PolicyActor
    from ros2_lstm_policy.types import Observation
    actor, random, count = PolicyActor(load(checkpoint)), np.random.default_rng(1), 0
    for number in range(episodes):
        cue = number % len(SIDES)
        actor.reset()
        for step, image in enumerate(episode(cue, gap, random)[0]):
            decision = actor.act(Observation(step, {'static': image}), 'do as it was shown')
        count += int((SIDES @ decision.action.arm[:2]).argmax() == cue)
    return count / episodes


if __name__ == '__main__':
    raise SystemExit(main())

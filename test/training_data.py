"""A small frame store whose pictures tell what to do, for tests of training."""

from __future__ import annotations

from collections.abc import Mapping
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ros2_lstm_policy import config
from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.data.store import FrameStore, StoreWriter
from ros2_lstm_policy.manifest import (CameraSpec, DEFAULT_CAMERAS as CAMERAS, Manifest,
                                       Normalisation, one_arm)
from ros2_lstm_policy.training.config import TrainConfig
from ros2_lstm_policy.types import Episode

MEAN, STD = (0.498039216,) * 3, (0.501960784,) * 3
TASKS = {'go left': -1.0, 'go right': 1.0}


def cameras(size: int) -> tuple[CameraSpec, ...]:
    """Return both cameras at that size."""
    return tuple(CameraSpec(name, size, size, 'area', MEAN, STD) for name in CAMERAS)


def manifest(size: int) -> Manifest:
    """Return one arm with both cameras at that size."""
    return one_arm('base', 'rotation_vector', 0.1, Normalisation.unit(6), cameras(size))


def write_store(path: Path, episodes: int = 6, steps: int = 14, size: int = 32,
                seed: int = 0, reach: float = 0.04, turn: float = 0.1) -> FrameStore:
    """
    Write episodes of a bright square that moves as it is told.

    The arm moves by up to `reach` m a step: in x by the instruction's sign, in y by the
    square's brightness; it turns by `turn` rad; the gripper closes in the second half.
    """
    rng = np.random.default_rng(seed)
    writer = StoreWriter(path, manifest(size))
    for number in range(episodes):
        told = list(TASKS)[number % len(TASKS)]
        images = {name: rng.integers(20, 23, (steps, size, size, 3), np.uint8) for name in CAMERAS}
        arm = np.zeros((steps, 6), np.float32)
        brightness = rng.uniform(0, 1)
        for step in range(steps):
            column = int((size - 8) * (0.5 + TASKS[told] * 0.5 * step / steps))
            for image in images.values():
                image[step, 8:16, column:column + 8] = int(80 + 170 * brightness)
            arm[step] = (reach * TASKS[told], reach * (brightness - 0.5), 0, 0, 0, turn)
        gripper = (np.arange(steps) < steps // 2).astype(np.float32)
        stamps = np.arange(steps, dtype=np.int64) * 100_000_000
        writer.append(Episode(f'episode_{number}', told, stamps, images,
                              {'arm': arm, 'gripper': gripper[:, None]}))
    return writer.close()


def values(output: Path, store: Path, steps: int = 4) -> dict[str, Any]:
    """Return a whole configuration of a run that takes seconds, as YAML would hold it."""
    camera = {'height': 32, 'width': 32, 'interpolation': 'area', 'mean': list(MEAN),
              'std': list(STD)}
    options = {'width': 16, 'heads': 2, 'layers': 1, 'feed_forward': 16, 'dropout': 0.1}
    return {
        'output': str(output),
        'data': {'store': str(store), 'loader': {'batch_size': 2, 'workers': 0,
                                                 'validation_share': 0.2}},
        'manifest': {'frame': 'base', 'rotation': 'rotation_vector', 'control_period_s': 0.1,
                     'cameras': [{'name': name, **camera} for name in CAMERAS]},
        'policy': {'backbone': {'family': 'compact', 'options': options},
                   'decoder': {'hidden_size': 16, 'num_layers': 1, 'window_size': 3,
                               'fwd_pred_next_n': 4}},
        'optimiser': {'lr': 1e-2, 'accumulate': 2},
        'schedule': {'kind': 'constant', 'max_steps': steps},
        'validation': {'every_steps': 3, 'max_windows': 8},
        'engine': {'accelerator': 'cpu', 'precision': 'fp32', 'log_every_steps': 1,
                   'save_every_steps': 1},
    }


def configured(values: Mapping[str, Any], *overrides: str) -> TrainConfig:
    """Return that configuration with `key.subkey=value` overrides."""
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        key, _, text = override.partition('=')
        *parents, last = key.split('.')
        section = changed
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = parse_yaml(text)
    return config.parse(TrainConfig, changed, 'test')


def pairs(path: Path, count: int = 4, size: int = 40) -> None:
    """Write image-text pairs in the layout that co-training reads."""
    path.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        shade = 255 * number // count
        image = rng.integers(shade // 2, shade + 1, (size, size, 3)).astype(np.uint8)
        Image.fromarray(image).save(path / f'{number}.png')
        text = f'a {"dark" if number < count / 2 else "bright"} square, number {number}'
        lines.append(json.dumps({'file_name': f'{number}.png', 'text': text}))
    (path / 'metadata.jsonl').write_text('\n'.join(lines) + '\n')

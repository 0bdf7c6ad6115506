"""
Features of a frozen image network, computed once and kept on the device.

What a frozen network sees in a frame never changes, so training only runs what is trained. With
augmentation several copies are kept, each with one draw an episode; a window takes one of them, so
all its steps are augmented alike. Copy 0 is not augmented and serves validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ros2_lstm_policy.data.store import FrameStore
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.training.augmentation import augment, AugmentationConfig, each_anew, Hold
from ros2_lstm_policy.training.objective import Maps
import torch
from torch import Tensor
from tqdm import tqdm

_EPISODES = 16  # seen at once


def check_cacheable(policy: Policy) -> None:
    """
    Refuse a policy whose image features change while it trains.

    :raises ValueError: where they depend on the words, or are trained.
    """
    parts = policy.backbone.parts()
    if parts.split is None:
        raise ValueError('data.loader.cached_features: the image features of this backbone '
                         'depend on the words; turn FiLM off, or set cached_features to 0')
    if any(p.requires_grad for p in parts.vision):
        raise ValueError('data.loader.cached_features: the image network is trained, so its '
                         'features change; set tune_vision: false, or cached_features to 0')


class FeatureCache:
    """Maps of every frame, by copy, camera and stride."""

    def __init__(self, policy: Policy, store: FrameStore, config: AugmentationConfig, copies: int,
                 device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """
        See every frame once a copy.

        :param copies: augmented copies; none are made where nothing is augmented.
        :param seed: of the augmentation, so that a resumed run sees the same copies.
        """
        self._plain_only = config.is_off
        self._cameras = tuple(camera.name for camera in policy.manifest.cameras)
        configs = [AugmentationConfig(0, 0)] + ([] if config.is_off else [config] * copies)
        self._maps: dict[str, list[Tensor]] = {}
        with torch.random.fork_rng([device] if device.type == 'cuda' else []):
            torch.manual_seed(seed)
            self._fill(policy, store, configs, device, dtype)

    def _fill(self, policy: Policy, store: FrameStore, configs: Sequence[AugmentationConfig],
              device: torch.device, dtype: torch.dtype) -> None:
        groups = list(_groups(store.lengths))
        for copy, chosen in enumerate(tqdm(configs, desc='seeing every frame', unit='copy')):
            for numbers_ET in groups:
                seen = _encode(policy, store, numbers_ET, chosen, device, dtype)
                self._keep(copy, len(configs), sum(store.lengths), numbers_ET, seen)

    def windows(self, numbers: Mapping[str, Tensor], augmented: bool,
                hold: Hold = each_anew) -> Maps:
        """
        Return the maps of windows.

        :param numbers: camera name to (B, T) frame numbers.
        :param augmented: draw one of the augmented copies for each window.
        :param hold: what holds of earlier draws.
        """
        first = next(iter(numbers.values()))
        copy_B1 = torch.zeros(len(first), 1, dtype=torch.long, device=first.device)
        if augmented and not self._plain_only:
            copies = next(iter(self._maps.values()))[0].shape[0]
            copy_B1 = hold('copy', torch.randint(1, copies, copy_B1.shape, device=first.device))
        return Maps([[level[copy_B1, numbers[name]] for level in self._maps[name]]
                     for name in self._cameras])

    def _keep(self, copy: int, copies: int, frames: int, numbers_ET: np.ndarray,
              seen: Sequence[Sequence[Tensor]]) -> None:
        """Store the maps of some episodes; padding repeats a last frame and writes it again."""
        rows = torch.from_numpy(numbers_ET.ravel())
        for name, levels in zip(self._cameras, seen):
            if name not in self._maps:
                self._maps[name] = [level.new_empty(copies, frames, *level.shape[1:])
                                    for level in levels]
            for kept, level in zip(self._maps[name], levels):
                kept[copy, rows.to(level.device)] = level


def _groups(lengths: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield frame numbers (E, T) of a few episodes; a short one repeats its last frame."""
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    for first in range(0, len(lengths), _EPISODES):
        some = np.asarray(lengths[first:first + _EPISODES])
        steps = np.minimum(np.arange(some.max())[None], some[:, None] - 1)
        yield begins[first:first + _EPISODES, None] + steps


@torch.no_grad()
def _encode(policy: Policy, store: FrameStore, numbers_ET: np.ndarray, config: AugmentationConfig,
            device: torch.device, dtype: torch.dtype) -> list[list[Tensor]]:
    split = policy.backbone.parts().split
    assert split is not None  # `check_cacheable` was asked
    images = {camera.name: _frames(store, camera, numbers_ET, config, device)
              for camera in policy.manifest.cameras}
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        maps = split.encode_images(images)
    return [[level.to(dtype) for level in levels] for levels in maps]


def _frames(store: FrameStore, camera: CameraSpec, numbers_ET: np.ndarray,
            config: AugmentationConfig, device: torch.device) -> Tensor:
    images_EThwc = store.take(camera.name, numbers_ET).to(device)
    return augment(images_EThwc, camera, config).flatten(0, 1)

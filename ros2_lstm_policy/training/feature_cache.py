"""
Features of a frozen image network, computed once and kept on the device.

What a frozen network sees in a frame never changes, so training only runs what is trained. With
augmentation several copies are kept, each with one draw an episode; a window takes one of them, so
all its steps are augmented alike. Copy 0 is not augmented and serves validation.

Where the whole backbone is frozen, its feature tokens are kept, computed as in acting, under each
episode's own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from ros2_lstm_policy.data.repeats import distinct
from ros2_lstm_policy.data.store import FrameStore
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.training.augmentation import augment, AugmentationConfig, each_anew, Hold
from ros2_lstm_policy.training.objective import Maps, Tokens
import torch
from torch import nn, Tensor
from tqdm import tqdm

_EPISODES = 16  # seen at once


def check_cacheable(policy: Policy) -> None:
    """
    Refuse a policy whose image features change while it trains.

    :raises ValueError: where they depend on the words, or are trained, unless all of the backbone
        stays.
    """
    if _stays(policy):
        return
    parts = policy.backbone.parts()
    if parts.split is None:
        raise ValueError('data.loader.cached_features: the image features of this backbone '
                         'depend on the words; turn FiLM off, or set cached_features to 0')
    if any(p.requires_grad for p in parts.vision):
        raise ValueError('data.loader.cached_features: the image network is trained, so its '
                         'features change; set tune_vision: false, or cached_features to 0')


class FeatureCache:
    """
    What every frame is to a frozen network: its maps by copy, camera and stride, or its tokens.

    :param of_own_words: whether what is kept holds under no other words than the episode's own.
    """

    def __init__(self, policy: Policy, store: FrameStore, config: AugmentationConfig, copies: int,
                 device: torch.device, dtype: torch.dtype, seed: int) -> None:
        """
        See every frame once a copy.

        :param copies: augmented copies; none are made where nothing is augmented.
        :param seed: of the augmentation, so that a resumed run sees the same copies.
        """
        self._plain_only, self.of_own_words = config.is_off, _stays(policy)
        self._cameras = tuple(camera.name for camera in policy.manifest.cameras)
        self._copies = 1 if config.is_off else 1 + copies
        configs = [AugmentationConfig(0, 0)] + ([] if config.is_off else [config] * copies)
        self._maps: dict[str, list[Tensor]] = {}
        self._tokens: list[Tensor] = []  # one a copy, (F, N, D)
        self._images = {name: torch.from_numpy(store.numbers(
            name, np.arange(sum(store.lengths)))).to(device) for name in self._cameras}
        with torch.random.fork_rng([device] if device.type == 'cuda' else []):
            torch.manual_seed(seed)
            self._fill(policy, store, configs, device, dtype)

    def _fill(self, policy: Policy, store: FrameStore, configs: Sequence[AugmentationConfig],
              device: torch.device, dtype: torch.dtype) -> None:
        groups = list(_groups(store.lengths))
        for copy, chosen in enumerate(tqdm(configs, desc='seeing every frame', unit='copy')):
            if self.of_own_words:
                self._tokens.append(_all_tokens(policy, store, chosen, device, dtype))
                continue
            for numbers_ET in groups:
                seen = _encode(policy, store, numbers_ET, chosen, device, dtype)
                self._keep(copy, len(configs), store, numbers_ET, seen)

    def windows(self, numbers: Mapping[str, Tensor], augmented: bool,
                hold: Hold = each_anew) -> Maps | Tokens:
        """
        Return the maps of windows, or their tokens.

        :param numbers: camera name to (B, T) frame numbers.
        :param augmented: draw one of the augmented copies for each window.
        :param hold: what holds of earlier draws.
        """
        first = next(iter(numbers.values()))
        copy_B1 = torch.zeros(len(first), 1, dtype=torch.long, device=first.device)
        if augmented and not self._plain_only:
            copy_B1 = hold('copy', torch.randint(1, self._copies, copy_B1.shape,
                                                 device=first.device))
        if self.of_own_words:
            seen = torch.stack([tokens[first] for tokens in self._tokens], 1)
            return Tokens(seen[torch.arange(len(first))[:, None], copy_B1,
                               torch.arange(first.shape[1])[None]])
        images = {name: self._images[name][numbers[name]] for name in self._cameras}
        return Maps([[level[copy_B1, images[name]] for level in self._maps[name]]
                     for name in self._cameras])

    def _keep(self, copy: int, copies: int, store: FrameStore, numbers_ET: np.ndarray,
              seen: Sequence[Sequence[Tensor]]) -> None:
        """Store the maps of some episodes; an image that is seen again is written again."""
        for name, levels in zip(self._cameras, seen):
            rows = torch.from_numpy(store.numbers(name, numbers_ET.ravel()))
            if name not in self._maps:
                images = len(store.images[name])
                self._maps[name] = [level.new_empty(copies, images, *level.shape[1:])
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


def _stays(policy: Policy) -> bool:
    """Return whether nothing of the backbone is trained."""
    backbone = cast(nn.Module, policy.backbone)
    return not any(p.requires_grad for p in backbone.parameters())


@torch.no_grad()
def _all_tokens(policy: Policy, store: FrameStore, config: AugmentationConfig,
                device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the feature tokens (F, N, D) of all frames; an image that stays is seen once."""
    backbone, begin, found = cast(nn.Module, policy.backbone), 0, []
    was_training = backbone.training
    backbone.eval()  # no dropout, as in acting
    for episode in tqdm(store.episodes, desc='seeing every frame', unit='episode'):
        numbers_1T = begin + np.arange(episode.length)[None]
        begin += episode.length
        seen = distinct([store.numbers(name, numbers_1T) for name in store.images])
        places = torch.arange(episode.length) if seen is None else seen.first_U
        images = {camera.name: _frames(store, camera, numbers_1T[:, places.numpy()], config,
                                       device).unsqueeze(0) for camera in policy.manifest.cameras}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            tokens_UND = policy.encode_images(
                images, policy.encode_instructions([episode.instruction]))[0]
        found.append(tokens_UND if seen is None else tokens_UND[seen.of_BT[0].to(device)])
    backbone.train(was_training)
    return torch.cat(found).float()


def _frames(store: FrameStore, camera: CameraSpec, numbers_ET: np.ndarray,
            config: AugmentationConfig, device: torch.device) -> Tensor:
    images_EThwc = store.take(camera.name, numbers_ET).to(device)
    return augment(images_EThwc, camera, config).flatten(0, 1)

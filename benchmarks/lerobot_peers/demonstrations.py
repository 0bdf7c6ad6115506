"""
Samples as LeRobot's data set gives them, from this package's frame store.

A sample is a step of an episode with the observations and actions at the policy's own offsets
from it; beyond the episode's ends the first or last step stands in, and such actions are marked.

Letters: N sample, B batch, T observation step, K action, F frame.
"""

from __future__ import annotations

from pathlib import Path

from lerobot.utils.constants import ACTION, OBS_STATE
from lerobot_peers.policies import image_key, Peer, sentence, Spec
from lerobot_peers.samples import EpisodeFrames, Scaling
import numpy as np
from ros2_lstm_policy import config
from ros2_lstm_policy.data.datamodule import held_out
from ros2_lstm_policy.data.store import FrameStore, read_index
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.training.augmentation import augment, AugmentationConfig
import torch
from torch import Tensor


def cameras(store: Path) -> tuple[CameraSpec, ...]:
    """Return the cameras that a store's frames were made for."""
    return tuple(config.parse(CameraSpec, camera, f'{store}: cameras')
                 for camera in read_index(store)['cameras'])


def actions(store: FrameStore) -> np.ndarray:
    """Return arm deltas and gripper opening of all frames, (F, 7)."""
    return np.concatenate([store.actions['arm'], store.actions['gripper'][:, 0][:, None]], axis=1)


def episode_words(store: FrameStore) -> np.ndarray:
    """Return the sentence embedding of each episode, (E, 384)."""
    known = {text: sentence(text) for text in {e.instruction for e in store.episodes}}
    return np.stack([known[episode.instruction] for episode in store.episodes])


def fit(store: FrameStore, training_E: np.ndarray, policy: Peer) -> tuple[Scaling, Scaling]:
    """Return the scaling of actions and of words in the training episodes."""
    modes = policy.config.normalization_mapping
    training_F = np.repeat(training_E, store.lengths)
    return (Scaling.fit(actions(store)[training_F], modes['ACTION'].value),
            Scaling.fit(episode_words(store)[training_E], modes['STATE'].value))


def split(store: FrameStore, share: float) -> np.ndarray:
    """Return which episodes are trained on, (E,) bool: those that our training would take."""
    return ~held_out([episode.name for episode in store.episodes], share)


class Demonstrations:
    """All samples of a store whose frames are on a device."""

    def __init__(self, store: FrameStore, spec: Spec, policy: Peer, device: str) -> None:
        """Normalise the actions and the words, and keep both on the device."""
        settings = policy.config
        self._store, self._spec, self._device = store, spec, device
        self._one_step = settings.observation_delta_indices is None
        self._observed_T = np.array(settings.observation_delta_indices or [0])
        self._acted_K = np.array(settings.action_delta_indices)
        self._dropped = getattr(settings, 'drop_n_last_frames', 0)
        self._frames = EpisodeFrames(store.lengths)
        self._actions = self._put(spec.actions.normalise(actions(store)))
        self._words = self._put(spec.words.normalise(episode_words(store)))

    def samples(self, chosen_E: np.ndarray) -> np.ndarray:
        """Return the frames of these episodes at which a sample may be, (N,)."""
        return self._frames.samples(chosen_E, self._dropped)

    def batch(self, samples_B: np.ndarray, augmentation: AugmentationConfig) -> dict[str, Tensor]:
        """Return LeRobot's batch of these samples, on the device."""
        observed_BT, _ = self._frames.around(samples_B, self._observed_T)
        acted_BK, outside_BK = self._frames.around(samples_B, self._acted_K)
        words_BD = self._words[self._put(self._frames.episode_F[samples_B])]
        batch = {
            OBS_STATE: words_BD if self._one_step else
            words_BD[:, None].expand(-1, len(self._observed_T), -1),
            ACTION: self._actions[self._put(acted_BK)],
            'action_is_pad': self._put(outside_BK)}
        for camera in self._spec.cameras:
            images_BTCHW = augment(self._store.take(camera.name, observed_BT), camera,
                                   augmentation)
            batch[image_key(camera)] = images_BTCHW[:, 0] if self._one_step else images_BTCHW
        return batch

    def _put(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)

"""
The one window rule: which frames and which actions a training window holds.

A window is W consecutive steps of one episode; at each step the labels are the K actions from that
step on. The recurrent state is zero before a window's first step, so position t has seen t + 1
frames: at the beginning of an episode this is what the robot computes there, and the last position
of a window is what it computes with a full history. Every step is the last position of one window,
or lies in the episode's first window.

An episode of T steps gives T - W + 1 windows. One shorter than a window gives a single window: its
steps come first, as live, and the rest repeats the last frame with every action invalid, so a
causal policy gives the same values as without them and no loss sees them.

Where the state is carried through an episode, windows do not overlap: they are the segments of the
episode, one after the other, the last one padded in the same way (`stride`).

Shape letters: N windows in all, B in a batch, W step in the window, K action in the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.types import Batch

if TYPE_CHECKING:
    from ros2_lstm_policy.data.store import FrameStore


@dataclass(frozen=True)
class WindowIndex:
    """
    All windows of episodes that lie one after the other in a store.

    :param lengths: steps T of each episode, at least 1.
    :param window: W.
    :param chunk: K.
    :param stride: steps from a window's begin to the next one's, at most W.
    """

    lengths: tuple[int, ...]
    window: int
    chunk: int
    stride: int = 1

    def __post_init__(self) -> None:
        """Refuse what has no windows, or leaves steps out."""
        if self.window < 1 or self.chunk < 1:
            raise ValueError(f'window and chunk must be at least 1, found {self.window} and '
                             f'{self.chunk}')
        if not 1 <= self.stride <= self.window:
            raise ValueError(f'stride must be from 1 to the window of {self.window}, found '
                             f'{self.stride}')
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError('expected episodes of at least one step; '
                             f'found {len(self.lengths)} episodes'
                             + (f', the shortest of {min(self.lengths)}' if self.lengths else ''))

    def __len__(self) -> int:
        """Return N."""
        return int(self._first_windows[-1])

    @cached_property
    def counts(self) -> np.ndarray:
        """Return how many windows each episode has (E,)."""
        beyond_the_first = np.maximum(np.asarray(self.lengths) - self.window, 0)
        return -(-beyond_the_first // self.stride) + 1

    @cached_property
    def _first_windows(self) -> np.ndarray:
        """Return the first window of each episode (E + 1,), and N at the end."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def first_windows(self) -> np.ndarray:
        """Return the first window of each episode (E,)."""
        return self._first_windows[:-1]

    @cached_property
    def _first_frames(self) -> np.ndarray:
        """Return the first frame of each episode (E + 1,), and their sum at the end."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def episodes(self, ids_B: np.ndarray) -> np.ndarray:
        """Return the episode (B,) of each window; :raises IndexError: for a window outside."""
        ids_B = np.asarray(ids_B)
        if ids_B.size and (ids_B.min() < 0 or ids_B.max() >= len(self)):
            raise IndexError(f'windows are numbered 0 to {len(self) - 1}, '
                             f'found {ids_B.min()} to {ids_B.max()}')
        return np.searchsorted(self._first_windows, ids_B, side='right') - 1

    def begins(self, ids_B: np.ndarray) -> np.ndarray:
        """Return whether each window (B,) is the first of its episode."""
        return ids_B == self._first_windows[self.episodes(ids_B)]

    def _steps(self, ids_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the episode's first frame (B, 1), its length (B, 1) and the steps (B, W)."""
        episode_B = self.episodes(ids_B)
        begin_B1 = self.stride * (ids_B - self._first_windows[episode_B])[:, None]
        first_B1 = self._first_frames[episode_B][:, None]
        length_B1 = np.asarray(self.lengths)[episode_B][:, None]
        return first_B1, length_B1, begin_B1 + np.arange(self.window)

    def frames(self, ids_B: np.ndarray) -> np.ndarray:
        """Return the frame (B, W) of each position; padding repeats the last frame."""
        first_B1, length_B1, steps_BW = self._steps(ids_B)
        return first_B1 + np.minimum(steps_BW, length_B1 - 1)

    def actions(self, ids_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the action (B, W, K) of each label, and whether it is one (B, W, K)."""
        first_B1, length_B1, steps_BW = self._steps(ids_B)
        steps_BWK = steps_BW[..., None] + np.arange(self.chunk)
        valid_BWK = steps_BWK < length_B1[..., None]
        return first_B1[..., None] + np.minimum(steps_BWK, length_B1[..., None] - 1), valid_BWK

    def future_frames(self, ids_B: np.ndarray) -> np.ndarray:
        """
        Return the next K frames (B, W, K) after each position.

        The last frame stands for what comes after the end.
        """
        first_B1, length_B1, steps_BW = self._steps(ids_B)
        steps_BWK = steps_BW[..., None] + 1 + np.arange(self.chunk)
        return first_B1[..., None] + np.minimum(steps_BWK, length_B1[..., None] - 1)


def gather(store: FrameStore, index: WindowIndex, ids_B: Sequence[int] | np.ndarray,
           manifest: Manifest, future_cameras: Sequence[str] = ()) -> Batch:
    """
    Collect windows into a batch, from a store on disk or on a device.

    :param ids_B: numbers of the windows.
    :param future_cameras: cameras whose next frames the forward prediction needs.
    :return: images on the store's device, labels on the CPU's pinned side of the batch: small,
        and copied by the caller together.
    """
    import torch
    ids_B = np.asarray(ids_B, np.int64)
    frames_BW = index.frames(ids_B)
    actions_BWK, valid_BWK = index.actions(ids_B)
    continuous, binary = transforms.to_labels(
        {group.name: store.actions[group.name][actions_BWK] for group in manifest.actions},
        manifest)
    states_BTS = transforms.normalise_states(
        {state.name: store.states[state.name][frames_BW] for state in manifest.states}, manifest)
    future_BWK = index.future_frames(ids_B) if future_cameras else frames_BW
    episodes = [store.episodes[i] for i in index.episodes(ids_B)]
    return Batch(
        images={c.name: store.take(c.name, frames_BW) for c in manifest.cameras},
        instructions=[episode.instruction for episode in episodes],
        continuous_BTKC=torch.from_numpy(np.ascontiguousarray(continuous)),
        binary_BTKG=torch.from_numpy(np.ascontiguousarray(binary)),
        valid_BTK=torch.from_numpy(valid_BWK),
        states_BTS=torch.from_numpy(np.broadcast_to(states_BTS, (*frames_BW.shape,
                                                                 manifest.state_size)).copy()),
        future_images={name: store.take(name, future_BWK) for name in future_cameras},
        episode_names=[episode.name for episode in episodes])


def mixed_ids(sources_N: np.ndarray, weights: Sequence[float], count: int,
              rng: np.random.Generator) -> np.ndarray:
    """
    Draw windows so that each source is seen in proportion to its weight, whatever its size.

    :param sources_N: number of the source of each window.
    :param weights: one positive weight a source.
    :param count: windows to draw, with replacement.
    :raises ValueError: for a source without windows or a weight that is not positive.
    """
    sizes = np.bincount(sources_N, minlength=len(weights))
    if len(sizes) != len(weights) or min(weights) <= 0 or min(sizes) == 0:
        raise ValueError(f'expected one positive weight for each of the {len(sizes)} sources and '
                         f'a window in each; found weights {list(weights)} and window counts '
                         f'{sizes.tolist()}')
    order = np.argsort(sources_N, kind='stable')
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    chosen = rng.choice(len(weights), count, p=np.asarray(weights) / np.sum(weights))
    return order[begins[chosen] + rng.integers(0, sizes[chosen])]

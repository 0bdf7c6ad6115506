"""
The values that pass between rooms: frozen, with shapes and units said once.

Shape letters, used for tensor names in the whole package: B batch, T step in the window,
K action in the chunk, A arm dimension (6), N token, D feature, H W C image.

Units are those of REP-103: metres, radians, seconds. Stamps are integer nanoseconds. A gripper
value is an opening: 0 closed, 1 open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ARM_DIM = 6
ACTION_DIM = 7


@dataclass(frozen=True)
class Observation:
    """
    What the robot saw at one control tick.

    :param stamp_ns: time of the newest frame in it, from the camera's header.
    :param images: camera name to (H, W, 3) uint8 RGB.
    """

    stamp_ns: int
    images: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Action:
    """
    One action in physical units.

    :param arm: (6,) float32; displacement for one control period, x y z in m and a rotation
        vector in rad, in the manifest's frame.
    :param gripper_open: probability in [0, 1] that the gripper is to be open.
    """

    arm: np.ndarray
    gripper_open: float


class ActionChunk(NamedTuple):
    """
    What the policy's heads give: normalised arm deltas and gripper logits.

    :param arm_BTKA: (B, T, K, 6), normalised by the manifest.
    :param gripper_logit_BTK: (B, T, K), logit of "open".
    """

    arm_BTKA: Tensor
    gripper_logit_BTK: Tensor


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Decision:
    """
    What an actor decided for one observation.

    :param action: the action due now.
    :param chunk: (K, 7) float32, all actions of the chunk in physical units, gripper last.
    :param stage_s: seconds spent by stage, in the order of the stages.
    :param settle: does what the next decision needs and this action need not wait for; an actor
        does it by itself where nobody did.
    """

    action: Action
    chunk: np.ndarray
    stage_s: Mapping[str, float] = field(default_factory=dict)
    settle: Callable[[], None] = _nothing


class Reason(NamedTuple):
    """
    Why the robot holds.

    :param code: the kind, the same while the cause is the same: what logs and counters go by.
    :param text: what was found, what was wanted, what to do.
    :param camera: the camera that it is about; empty for none.
    """

    code: str
    text: str
    camera: str = ''


class Actor(Protocol):
    """Whatever can act: the policy, a peer, a scripted expert, a control."""

    def reset(self) -> None:
        """Forget the episode."""

    def act(self, observation: Observation, instruction: str) -> Decision:
        """Decide for one observation; called once a control period."""


class FrameSequence(Protocol):
    """T images of one camera; a (T, H, W, 3) array is one, a lazily decoded video another."""

    def __len__(self) -> int:
        """Return T."""

    def __getitem__(self, index: int) -> np.ndarray:
        """Return image `index` as (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Episode:
    """
    One recorded episode at the control rate: observation t and the action taken at it.

    :param name: unique in its source; errors name it.
    :param instruction: what the robot was told.
    :param stamps_ns: (T,) int64.
    :param frames: camera name to T images.
    :param arm: (T, 6) float32 in physical units, as in :class:`Action`.
    :param gripper_open: (T,) float32, 0 or 1.
    :param success: whether the task was done; None where nobody said.
    """

    name: str
    instruction: str
    stamps_ns: np.ndarray
    frames: Mapping[str, FrameSequence]
    arm: np.ndarray
    gripper_open: np.ndarray
    success: bool | None = None

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.stamps_ns)


class Batch(NamedTuple):
    """
    Windows for training.

    :param images: camera name to (B, T, H, W, 3) uint8, resized by the manifest's camera.
    :param instructions: B strings.
    :param arm_BTKA: normalised labels.
    :param gripper_open_BTK: labels 0 or 1.
    :param valid_BTK: bool; False where the episode had ended or the step is padding.
    :param future_images: camera name to (B, T, K, H, W, 3) uint8 of the next K frames, for
        forward prediction; empty where it is off.
    :param episode_names: B names, for errors.
    """

    images: Mapping[str, Tensor]
    instructions: Sequence[str]
    arm_BTKA: Tensor
    gripper_open_BTK: Tensor
    valid_BTK: Tensor
    future_images: Mapping[str, Tensor] = {}
    episode_names: Sequence[str] = ()

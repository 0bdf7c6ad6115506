"""
The values that pass between rooms: frozen, with shapes and units said once.

Shape letters, used for tensor names in the whole package: B batch, T step in the window,
K action in the chunk, A values of an action (of all groups), C its continuous values, G its binary
ones, S values of the states, N token, D feature, H W C image.

Units are those of REP-103: metres, radians, seconds. Stamps are integer nanoseconds. A gripper
value is an opening: 0 closed, 1 open. Which streams there are, their names and sizes, is said by
the :class:`~ros2_lstm_policy.manifest.Manifest`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

ARM, GRIPPER = 'arm', 'gripper'  # the groups of a body with one arm


@dataclass(frozen=True)
class Observation:
    """
    What the robot saw and measured at one control tick.

    :param stamp_ns: time of the newest frame in it, from the camera's header.
    :param images: camera name to (H, W, 3) uint8 RGB.
    :param states: state name to its values, float64, in physical units.
    :param is_resized: whether the images are what `transforms.resize` gives: the policy's pixels.
    """

    stamp_ns: int
    images: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    is_resized: bool = False


@dataclass(frozen=True)
class Action:
    """
    One action in physical units.

    :param groups: group name to its values, (size,) float32. What they mean is the group's kind:
        see :class:`~ros2_lstm_policy.manifest.ActionGroup`. A binary group has probabilities.
    """

    groups: Mapping[str, np.ndarray]

    @classmethod
    def one_arm(cls, arm: np.ndarray, gripper_open: float) -> Action:
        """Return an action of a body with one arm and one gripper."""
        return cls({ARM: arm, GRIPPER: np.array([gripper_open], np.float32)})

    @property
    def arm(self) -> np.ndarray:
        """Return the arm's values, where the body has one arm."""
        return self.groups[ARM]

    @property
    def gripper_open(self) -> float:
        """Return the gripper's opening, or its probability, where the body has one gripper."""
        return float(self.groups[GRIPPER][0])


class ActionChunk(NamedTuple):
    """
    What the policy's heads give: normalised continuous values and logits of the binary ones.

    :param continuous_BTKC: (B, T, K, C), normalised by the manifest.
    :param binary_logit_BTKG: (B, T, K, G), logit of 1: of "open" for a gripper.
    """

    continuous_BTKC: Tensor
    binary_logit_BTKG: Tensor


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Decision:
    """
    What an actor decided for one observation.

    :param action: the action due now.
    :param chunk: (K, A) float32, all actions of the chunk in physical units, the groups side by
        side in the manifest's order.
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


class ActorFault(RuntimeError):
    """What an actor raises that cannot act now; the robot holds for this reason."""

    def __init__(self, reason: Reason) -> None:
        """Keep the reason."""
        super().__init__(reason.text)
        self.reason = reason


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
    :param actions: group name to (T, size) float32 in physical units, as in :class:`Action`; 0 or
        1 in a binary group.
    :param states: state name to (T, size) float32 in physical units.
    :param success: whether the task was done; None where nobody said.
    """

    name: str
    instruction: str
    stamps_ns: np.ndarray
    frames: Mapping[str, FrameSequence]
    actions: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray] = field(default_factory=dict)
    success: bool | None = None

    def __len__(self) -> int:
        """Return the number of steps T."""
        return len(self.stamps_ns)


class Batch(NamedTuple):
    """
    Windows for training.

    :param images: camera name to (B, T, H, W, 3) uint8, resized by the manifest's camera.
    :param instructions: B strings.
    :param continuous_BTKC: normalised labels.
    :param binary_BTKG: labels 0 or 1.
    :param valid_BTK: bool; False where the episode had ended or the step is padding.
    :param states_BTS: normalised states side by side; S is 0 where the policy has none.
    :param future_images: camera name to (B, T, K, H, W, 3) uint8 of the next K frames, for
        forward prediction; empty where it is off.
    :param episode_names: B names, for errors.
    """

    images: Mapping[str, Tensor]
    instructions: Sequence[str]
    continuous_BTKC: Tensor
    binary_BTKG: Tensor
    valid_BTK: Tensor
    states_BTS: Tensor
    future_images: Mapping[str, Tensor] = {}
    episode_names: Sequence[str] = ()

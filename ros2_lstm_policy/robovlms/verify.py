"""
Does an imported policy compute what the reference computed? Recorded inputs and outputs compared.

The files are NumPy archives in the layout of test/golden/robokosmos_tiny.*.npz. Shape letters as
in `types`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import EncodedText, TextTokens
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.runtime import engine
from ros2_lstm_policy.types import ActionChunk
import torch
from torch import Tensor

IMAGE_KEYS = {'static': 'rgb', 'hand': 'hand_rgb'}


class VerificationError(ValueError):
    """Recorded values that cannot be compared, with file, key, found and wanted."""


class Conventions(NamedTuple):
    """
    How our outputs become the checkpoint's.

    :param arm_sign_A: factor of the six normalised values.
    :param gripper_sign: factor of the gripper logit.
    :param gripper_weight: the run's weight of the gripper loss.
    """

    arm_sign_A: Tensor
    gripper_sign: float
    gripper_weight: float

    def of(self, chunk: ActionChunk) -> ActionChunk:
        """Return the chunk as the checkpoint would have given it."""
        return ActionChunk(chunk.continuous_BTKC * self.arm_sign_A,
                           chunk.binary_logit_BTKG * self.gripper_sign)


class Recording:
    """One archive of named arrays."""

    def __init__(self, path: Path) -> None:
        """
        Open it; pickled arrays are not read.

        :raises VerificationError: where it cannot be read.
        """
        self._path = path
        try:
            self._arrays: Mapping[str, np.ndarray] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise VerificationError(f'{path}: cannot be read as .npz: {error}') from error

    def has(self, key: str) -> bool:
        """Return whether there is such an array."""
        return key in self._arrays

    def get(self, key: str) -> Tensor:
        """Return an array."""
        if not self.has(key):
            raise VerificationError(f'{self._path}: missing array {key!r}; found '
                                    f'{", ".join(self._arrays)}')
        return torch.from_numpy(np.array(self._arrays[key]))

    def images(self, policy: Policy, prefix: str) -> dict[str, Tensor]:
        """Return camera name to (B, T, 3, H, W), normalised."""
        found = {}
        for camera in policy.manifest.cameras:
            key = prefix + IMAGE_KEYS[camera.name]
            image = self.get(key)
            if image.ndim != 5 or tuple(image.shape[2:]) != (3, camera.height, camera.width):
                raise VerificationError(
                    f'{self._path}: {key}: found {tuple(image.shape)}, wanted (B, T, 3, '
                    f'{camera.height}, {camera.width}) for camera {camera.name!r}')
            found[camera.name] = image
        return found

    def text(self, policy: Policy, prefix: str) -> EncodedText:
        """Return the encoded words, from the recorded token ids."""
        ids, mask = self.get(prefix + 'text'), self.get(prefix + 'text_mask').bool()
        vocabulary = len(policy.backbone.parts().embeddings[0])
        if ids.max() >= vocabulary:
            raise VerificationError(f'{self._path}: {prefix}text holds token {ids.max()}, the '
                                    f'backbone knows {vocabulary}')
        return policy.backbone.encode_text(TextTokens(ids, mask))


@torch.no_grad()
def differences(policy: Policy, inputs: Recording, outputs: Recording,
                conventions: Conventions) -> dict[str, float]:
    """
    Return the largest absolute difference of features, actions, losses and streaming steps.

    :raises VerificationError: where an array is absent or has another shape.
    """
    tokens = policy.encode(inputs.images(policy, ''), inputs.text(policy, ''))
    chunk = conventions.of(policy.decoder.predict(tokens))
    return {
        'features': _largest([(tokens, outputs.get('train/action_hs'))]),
        'actions': _largest([
            (chunk.continuous_BTKC, outputs.get('train/pred_arm')),
            (chunk.binary_logit_BTKG, outputs.get('train/pred_gripper_logit'))]),
        'losses': _largest(_losses(chunk, inputs, outputs, conventions.gripper_weight)),
        'streaming': _largest(_streaming(policy, inputs, outputs, conventions)),
    }


def _losses(chunk: ActionChunk, inputs: Recording, outputs: Recording,
            gripper_weight: float) -> Iterator[tuple[Tensor, Tensor]]:
    action = inputs.get('action')
    for name, mask in (('train', inputs.get('chunck_mask').bool()), ('train_nomask', None)):
        if mask is None and not outputs.has(f'{name}/loss_arm_act'):
            continue
        loss = action_loss(chunk, action[..., :-1], action[..., -1:], mask)
        yield loss.arm, outputs.get(f'{name}/loss_arm_act')
        yield loss.gripper, outputs.get(f'{name}/loss_gripper_act')
        yield loss.gripper_accuracy, outputs.get(f'{name}/acc_gripper_act')
        yield loss.arm + gripper_weight * loss.gripper, outputs.get(f'{name}/trainer_loss')


def _streaming(policy: Policy, inputs: Recording, outputs: Recording,
               conventions: Conventions) -> Iterator[tuple[Tensor, Tensor]]:
    """Act step by step with the robot's engine and one episode's state."""
    images, text = inputs.images(policy, 'stream_'), inputs.text(policy, 'stream_')
    ticks = engine.EagerEngine(policy)
    state = ticks.start()
    wanted = [outputs.get(f'stream/{name}')[0] for name in ('action_hs', 'arm', 'gripper_logit')]
    for step in range(len(wanted[0])):
        pixels = {camera.name: _pixels(images[camera.name][0, step], camera)
                  for camera in policy.manifest.cameras}
        input_D = ticks.encode(engine.Seen(pixels, torch.zeros(0)), text)
        arm_KA, gripper_open_KG = ticks.decode(input_D, state)
        state = ticks.follow(input_D, state)
        yield input_D, policy.decoder.reduce_tokens(wanted[0][None, step:step + 1])
        yield arm_KA * conventions.arm_sign_A, wanted[1][step]
        yield gripper_open_KG, (conventions.gripper_sign * wanted[2][step]).sigmoid()


def _pixels(normalised_CHW: Tensor, camera: CameraSpec) -> Tensor:
    """Undo `transforms.normalise_images`, which the engine begins with: (H, W, 3), not rounded."""
    image_HWC = normalised_CHW.double().movedim(0, -1)
    return 255 * (image_HWC * torch.tensor(camera.std) + torch.tensor(camera.mean))


def _largest(pairs: Iterator[tuple[Tensor, Tensor]] | list[tuple[Tensor, Tensor]]) -> float:
    """Return the largest difference; NaN where any value is NaN."""
    worst = 0.0
    for found, wanted in pairs:
        if found.numel() != wanted.numel():
            raise VerificationError(f'recorded shape {tuple(wanted.shape)} does not fit the '
                                    f"policy's {tuple(found.shape)}")
        difference = (found.double().flatten() - wanted.double().flatten()).abs().max().item()
        if difference != difference:
            return difference
        worst = max(worst, difference)
    return worst

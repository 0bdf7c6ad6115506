"""
What training minimises: every loss, its ratio, and the modules that only training needs.

The heads of auxiliary losses live here and not in the policy: a checkpoint holds what acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ros2_lstm_policy.data.deciding import DecidingConfig
from ros2_lstm_policy.data.image_text import CotrainConfig
from ros2_lstm_policy.data.repeats import Distinct
from ros2_lstm_policy.model.backbones.base import EncodedText, TextTokens
from ros2_lstm_policy.model.losses import action_loss
from ros2_lstm_policy.model.lstm_decoder import LSTMState
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.training.auxiliary.forward_head import (forward_loss, ForwardConfig,
                                                              ForwardHead, target_patches)
from ros2_lstm_policy.training.auxiliary.language import (decoded_logits, language_loss,
                                                          LanguageConfig, WordDecoder)
from ros2_lstm_policy.training.auxiliary.latent import ActionLatent, kl_loss, LatentConfig
from ros2_lstm_policy.types import ActionChunk, Batch
import torch
from torch import nn, Tensor

CAPTION_RATIO = 0.05
KL_RATIO = 0.05
COTRAIN_RATIO = 0.1


@dataclass(frozen=True)
class LossConfig:
    """
    Which losses there are, and what each weighs beside the arm's 1.

    :param arm_gripper_loss_ratio: weight of the gripper's cross-entropy.
    :param fwd_loss_ratio: weight of forward prediction; 0 turns it off.
    :param forward: which cameras are predicted, and how.
    :param caption: predict the instruction from the images.
    :param cap_loss_ratio: its weight; 0.05 where it is not said.
    :param latent: a learned latent of the action chunk; None for none.
    :param kl_div_ratio: weight of its divergence from the prior; 0.05 where it is not said.
    :param cotrain: image-text pairs mixed into training; None for none.
    :param vl_cotrain_ratio: their weight; 0.1 where it is not said.
    :param language: the word decoder of backbones that bring no language model.
    :param deciding: what the first steps after a standstill weigh; None for no more than others.
    """

    arm_gripper_loss_ratio: float = 0.01
    fwd_loss_ratio: float = 0.0
    forward: ForwardConfig = field(default_factory=ForwardConfig)
    caption: bool = False
    cap_loss_ratio: float | None = None
    latent: LatentConfig | None = None
    kl_div_ratio: float | None = None
    cotrain: CotrainConfig | None = None
    vl_cotrain_ratio: float | None = None
    language: LanguageConfig = field(default_factory=LanguageConfig)
    deciding: DecidingConfig | None = None

    def __post_init__(self) -> None:
        """Refuse negative ratios, and ratios of losses that are not produced."""
        for name, loss, there in (('cap_loss_ratio', 'caption: true', self.caption),
                                  ('kl_div_ratio', 'latent', self.latent),
                                  ('vl_cotrain_ratio', 'cotrain', self.cotrain),
                                  ('fwd_loss_ratio', 'forward.cameras',
                                   self.forward.cameras)):
            if getattr(self, name) and not there:
                raise ValueError(f'{name} is {getattr(self, name)}, but the loss that it weighs '
                                 f'is not configured; set {loss} or remove the ratio')
        for name in ('arm_gripper_loss_ratio', 'fwd_loss_ratio', 'cap_loss_ratio', 'kl_div_ratio',
                     'vl_cotrain_ratio'):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f'{name} must not be negative, found {getattr(self, name)}')

    @property
    def future_frames(self) -> int:
        """Return how many next frames a batch must bring; 0 for none."""
        return self.forward.frames if self.fwd_loss_ratio else 0

    @property
    def future_cameras(self) -> tuple[str, ...]:
        """Return the cameras of these frames."""
        return self.forward.cameras if self.fwd_loss_ratio else ()


class Term(NamedTuple):
    """
    One loss.

    :param value: mean over the entries that count.
    :param ratio: its weight in the total.
    :param entries: how many that were.
    """

    value: Tensor
    ratio: float
    entries: Tensor


class Maps(NamedTuple):
    """
    What a frozen image network saw, instead of images.

    :param levels: by camera, by stride: (B, T, C, H, W).
    """

    levels: Sequence[Sequence[Tensor]]


class Tokens(NamedTuple):
    """
    What a frozen backbone saw and read, instead of images.

    :param tokens_BTND: feature tokens.
    """

    tokens_BTND: Tensor


class Words(NamedTuple):
    """
    Image-text pairs, ready for the language model.

    :param images: camera name to (B, 3, H, W), normalised.
    :param text: of the same B.
    """

    images: Mapping[str, Tensor]
    text: TextTokens


class Outcome(NamedTuple):
    """
    All losses of a batch by name, and means that are only logged (of ratio 0).

    :param state: of the recurrence after the last step, where it is carried.
    """

    terms: dict[str, Term]
    metrics: dict[str, Term]
    state: LSTMState | None = None


class Objective(nn.Module):
    """A policy, and the heads and sums that train it."""

    def __init__(self, policy: Policy, config: LossConfig) -> None:
        """
        Create the heads that the configuration asks for.

        :raises ValueError: for a head that this policy cannot have.
        """
        super().__init__()
        self.policy, self.config, self._parts = policy, config, policy.backbone.parts()
        width, chunk = policy.backbone.feature_dim, policy.decoder.chunk_size
        cameras = {camera.name for camera in policy.manifest.cameras}
        for camera in config.future_cameras:
            if camera not in cameras:
                raise ValueError(f'losses.forward.cameras: the policy has no camera {camera!r}; '
                                 f'it has {", ".join(sorted(cameras))}')
        if config.future_frames >= chunk:
            raise ValueError(f'losses.forward.frames: {config.future_frames} must be below the '
                             f'chunk of {chunk} actions, whose mask says which frames exist')
        self.forward_heads = nn.ModuleDict({
            camera: ForwardHead(width, config.forward) for camera in config.future_cameras})
        self.latent = ActionLatent(
            width, chunk, policy.decoder.continuous + policy.decoder.binary,
            config.latent) if config.latent else None
        self.word_decoder = self._word_decoder() if config.caption or config.cotrain else None

    def forward(self, images: Mapping[str, Tensor] | Maps | Tokens, text: EncodedText,
                batch: Batch, tokens: TextTokens | None = None, words: Words | None = None,
                state: LSTMState | None = None, weights_BT: Tensor | None = None,
                distinct: Distinct | None = None) -> Outcome:
        """
        Compute every loss.

        :param images: camera name to (B, T, 3, H, W), augmented and normalised; or what a frozen
            image network saw in them.
        :param text: B encoded instructions.
        :param batch: labels and masks.
        :param tokens: B tokenised instructions, for the caption.
        :param words: a batch of image-text pairs, for co-training.
        :param state: of the recurrence before the first step, where it is carried.
        :param weights_BT: what each step weighs in the losses of actions; None for all alike.
        :param distinct: the steps that are encoded, where others see the same; None for all.
        """
        terms: dict[str, Term] = {}
        features_BTND = self.policy.with_states(self._features(images, text, distinct),
                                                batch.states_BTS)
        self._add_forward(terms, features_BTND, batch)
        features_BTND = self._add_latent(terms, features_BTND, batch)
        chunk, state = self._decode(features_BTND, state)
        chunk = ActionChunk(*(part.float() for part in chunk))
        action = action_loss(chunk, batch.continuous_BTKC, batch.binary_BTKG, batch.valid_BTK,
                             weights_BT)
        count = batch.valid_BTK.sum()
        weight = count if weights_BT is None else (weights_BT.unsqueeze(-1)
                                                   * batch.valid_BTK).sum()
        terms['arm'] = Term(action.arm, 1.0, weight)
        terms['gripper'] = Term(action.gripper, self.config.arm_gripper_loss_ratio, weight)
        if self.config.caption:
            assert tokens is not None and not isinstance(images, Maps | Tokens)
            self._add_caption(terms, images, tokens)
        if words is not None:
            self._add_cotrain(terms, words)
        metrics = {'gripper_accuracy': Term(action.gripper_accuracy, 0.0, count)}
        return Outcome(terms, metrics, state)

    def _decode(self, features_BTND: Tensor,
                state: LSTMState | None) -> tuple[ActionChunk, LSTMState | None]:
        """Predict; what is kept over hundreds of steps is computed in float32, as in acting."""
        decoder = self.policy.decoder
        if self.policy.config.decoder.history == 'window':
            return decoder.predict(features_BTND), None
        with torch.autocast(features_BTND.device.type, enabled=False):
            return decoder.unroll(features_BTND.float(), state)

    def _features(self, images: Mapping[str, Tensor] | Maps | Tokens, text: EncodedText,
                  distinct: Distinct | None) -> Tensor:
        if isinstance(images, Tokens):
            return images.tokens_BTND
        if isinstance(images, Maps):
            assert self._parts.split is not None  # `check_cacheable` was asked
            steps = images.levels[0][0].shape[1]
            maps = [[level.flatten(0, 1) for level in levels] for levels in images.levels]
            return self._parts.split.fuse(maps, text.repeat(steps)).unflatten(0, (-1, steps))
        if distinct is None:
            return self.policy.encode_images(images, text)
        row_U = distinct.first_U // distinct.of_BT.shape[1]
        tokens_U1ND = self.policy.encode_images(
            {camera: frames.flatten(0, 1)[distinct.first_U].unsqueeze(1)
             for camera, frames in images.items()},
            EncodedText(text.states_BND[row_U], text.mask_BN[row_U]))
        return tokens_U1ND.squeeze(1)[distinct.of_BT]

    def _add_forward(self, terms: dict[str, Term], features_BTND: Tensor, batch: Batch) -> None:
        frames = self.config.forward.frames
        for camera, head in self.forward_heads.items():
            valid_BTF = batch.valid_BTK[..., 1:frames + 1]  # frame t + 1 + f exists with action
            predicted = head(features_BTND.mean(2))
            target = target_patches(batch.future_images[camera], self.config.forward)
            loss = forward_loss(predicted, target, valid_BTF)
            terms[f'forward_{camera}'] = Term(loss, self.config.fwd_loss_ratio, valid_BTF.sum())

    def _add_latent(self, terms: dict[str, Term], features_BTND: Tensor, batch: Batch) -> Tensor:
        if self.latent is None or not self.training:  # acting knows no labels: z is zero
            return features_BTND
        posterior = self.latent.encode(features_BTND.mean(2), batch.continuous_BTKC,
                                       batch.binary_BTKG, batch.valid_BTK)
        terms['kl'] = Term(kl_loss(posterior, batch.valid_BTK),
                           _default(self.config.kl_div_ratio, KL_RATIO),
                           batch.valid_BTK.any(-1).sum())
        return self.latent.condition(features_BTND, posterior.sample())

    def _add_caption(self, terms: dict[str, Term], images: Mapping[str, Tensor],
                     tokens: TextTokens) -> None:
        """Let the first frame of a window stand for it: it always exists, and one is enough."""
        first = {camera: value[:, 0] for camera, value in images.items()}
        loss = language_loss(self._logits(first, tokens), tokens)
        terms['caption'] = Term(loss, _default(self.config.cap_loss_ratio, CAPTION_RATIO),
                                tokens.mask_BN[:, 1:].sum())

    def _add_cotrain(self, terms: dict[str, Term], words: Words) -> None:
        loss = language_loss(self._logits(words.images, words.text), words.text)
        terms['cotrain'] = Term(loss,
                                _default(self.config.vl_cotrain_ratio, COTRAIN_RATIO),
                                words.text.mask_BN[:, 1:].sum())

    def _word_decoder(self) -> WordDecoder | None:
        if self._parts.speaker is not None:
            return None
        if self._parts.context is not None:
            return WordDecoder(self._parts.context, self.config.language)
        raise ValueError(f'losses.caption and losses.cotrain need a language model; the backbone '
                         f'{self.policy.config.backbone.family!r} has none')

    def _logits(self, images: Mapping[str, Tensor], text: TextTokens) -> Tensor:
        if self._parts.speaker is not None:
            return self._parts.speaker.next_token_logits(images, text)
        assert self.word_decoder is not None and self._parts.context is not None
        no_words = self.policy.encode_instructions([''])
        return decoded_logits(self.word_decoder, self._parts.context, no_words, images, text)


def total(terms: Mapping[str, Term]) -> Tensor:
    """Return the weighted sum of all losses."""
    return torch.stack([term.ratio * term.value for term in terms.values()]).sum()


def _default(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value

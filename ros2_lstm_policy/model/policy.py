"""
The whole policy: a backbone that sees and reads, a recurrent head that acts.

Shape letters as in `types`: B batch, T step, N token, D feature, K action in the chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from einops import rearrange
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.model import backbones, memory
from ros2_lstm_policy.model.backbones.base import EncodedText
from ros2_lstm_policy.model.lstm_decoder import Kind, LSTMDecoder
from ros2_lstm_policy.model.state_encoder import StateEncoder
from ros2_lstm_policy.types import ActionChunk
import torch
from torch import nn, Tensor


@dataclass(frozen=True)
class BackboneConfig:
    """
    Which vision-language model.

    :param family: a name of `backbones.FAMILIES`.
    :param options: the family's own options.
    """

    family: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DecoderConfig:
    """
    The head; the defaults are the reference's.

    :param kind: 'lstm' is recurrent; 'attention' over the last `window_size` features has as many
        weights and no recurrence, as a peer.
    :param hidden_size: features of the LSTM's state.
    :param num_layers: LSTM layers.
    :param window_size: steps of a training window, and what the robot looks back on; without
        effect under `history: carry`.
    :param fwd_pred_next_n: actions in a chunk.
    :param down_sample: how several feature tokens become `latent`: 'none' takes them as they are,
        'pooling' the maximum, 'resampler' learned queries.
    :param latent: feature tokens of a step that enter the LSTM side by side.
    :param dropout: between layers, in training.
    :param history: 'window' trains on windows and acts on the last `window_size` steps; 'carry'
        trains on whole episodes and keeps the state for the whole episode.
    """

    hidden_size: int = 1024
    num_layers: int = 4
    window_size: int = 8
    fwd_pred_next_n: int = 10
    down_sample: Literal['none', 'pooling', 'resampler'] = 'none'
    latent: int = 1
    dropout: float = 0.0
    history: Literal['window', 'carry'] = 'window'
    kind: Kind = 'lstm'

    def __post_init__(self) -> None:
        """Refuse sizes that no head has; building one of a million layers would not end."""
        for name, most in (('hidden_size', 65_536), ('num_layers', 64), ('window_size', 10_000),
                           ('fwd_pred_next_n', 10_000), ('latent', 1_024)):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, found {getattr(self, name)}')
            if getattr(self, name) > most:
                raise ValueError(f'{name} must be at most {most}, found {getattr(self, name)}')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout must be at least 0 and below 1, found {self.dropout}')
        if self.kind == 'attention' and self.history == 'carry':
            raise ValueError("history: 'carry' needs kind: lstm; kind: attention has no state to "
                             "carry and looks back on window_size steps: set history: 'window'")


@dataclass(frozen=True)
class StatesConfig:
    """
    How the manifest's states enter the policy; without effect where it has none.

    :param width: of the encoder's hidden layers.
    :param dropout: share of the training windows that are seen without states, so that the policy
        looks instead of copying them.
    """

    width: int = 256
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse sizes that no encoder has."""
        if not 1 <= self.width <= 65_536:
            raise ValueError(f'width must be from 1 to 65536, found {self.width}')
        if not 0 <= self.dropout <= 1:
            raise ValueError(f'dropout must be from 0 to 1, found {self.dropout}')


@dataclass(frozen=True)
class PolicyConfig:
    """What a policy is made of."""

    backbone: BackboneConfig
    decoder: DecoderConfig = DecoderConfig()
    states: StatesConfig = StatesConfig()


class Policy(nn.Module):
    """
    Images and words in, a chunk of normalised actions at every step out.

    :param config: its parts; kept as `config` with every backbone option written out.
    :param manifest: the cameras that it sees and what its numbers mean; kept as `manifest`.
    :param checkpoint: a directory whose weights will be loaded; None starts from the backbone's
        published weights.
    """

    def __init__(self, config: PolicyConfig, manifest: Manifest,
                 checkpoint: Path | None = None) -> None:
        """Make the parts."""
        super().__init__()
        self.config, self.manifest = complete(config), manifest
        self.backbone = backbones.create(config.backbone.family, config.backbone.options,
                                         manifest.cameras, checkpoint)
        decoder = config.decoder
        self.decoder = LSTMDecoder(
            self.backbone.feature_dim, manifest.continuous_size + manifest.binary_size,
            decoder.down_sample, decoder.latent, decoder.fwd_pred_next_n, decoder.window_size,
            decoder.hidden_size, decoder.num_layers, decoder.dropout, manifest.binary_size,
            decoder.kind)
        self.states = StateEncoder(
            manifest.state_size, self.backbone.feature_dim, config.states.width,
            config.states.dropout) if manifest.states else None

    def encode_instructions(self, instructions: Sequence[str]) -> EncodedText:
        """
        Encode B instructions; once an instruction, not once a frame.

        :raises InstructionTooLong: where one does not fit.
        """
        return self.backbone.encode_text(self.backbone.tokenize(instructions))

    def encode(self, images: Mapping[str, Tensor], text: EncodedText,
               states_BTS: Tensor | None = None) -> Tensor:
        """
        Return the feature tokens (B, T, N, D) of what was seen, read and measured.

        :param states_BTS: normalised, side by side; needed where the manifest has states.
        """
        return self.with_states(self.encode_images(images, text), states_BTS)

    def encode_images(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """
        Return the feature tokens (B, T, N, D) of what was seen and read.

        :param images: camera name to (B, T, 3, H, W), normalised by the manifest's camera.
        :param text: of the B instructions.
        """
        steps = next(iter(images.values())).shape[1]
        frames = {camera: rearrange(frame, 'b t c h w -> (b t) c h w')
                  for camera, frame in images.items()}
        tokens = self.backbone(frames, text.repeat(steps))
        return rearrange(tokens, '(b t) n d -> b t n d', t=steps)

    def with_states(self, tokens_BTND: Tensor, states_BTS: Tensor | None) -> Tensor:
        """Return the tokens with the states in them, where the manifest has states."""
        if self.states is None:
            return tokens_BTND
        if states_BTS is None:
            raise ValueError('the policy needs its states: '
                             + ', '.join(state.name for state in self.manifest.states))
        return self.states(tokens_BTND, states_BTS)

    def forward(self, images: Mapping[str, Tensor], text: EncodedText,
                states_BTS: Tensor | None = None) -> ActionChunk:
        """Predict a chunk at every step of B windows that each begin with no history."""
        return self.decoder.predict(self.encode(images, text, states_BTS))


def build(config: PolicyConfig, manifest: Manifest, where: str) -> Policy:
    """
    Make a policy from published weights, once its outline says that there is memory for it.

    :param where: what describes it, for errors.
    :raises ConfigError: for a network that is larger than the memory that is free.
    """
    memory.require(outline(config, manifest), where)
    return Policy(config, manifest)


def outline(config: PolicyConfig, manifest: Manifest,
            checkpoint: Path | None = None) -> Policy:
    """Return the policy on the meta device: every name and shape, and no memory for numbers."""
    with torch.device('meta'):
        return Policy(config, manifest, checkpoint)


def complete(config: PolicyConfig) -> PolicyConfig:
    """Write defaults out, so that a checkpoint does not change with the code's defaults."""
    options = backbones.complete_options(config.backbone.family, config.backbone.options)
    return replace(config, backbone=replace(config.backbone, options=options))

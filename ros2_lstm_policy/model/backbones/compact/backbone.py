"""
The embedded default: real time on one CPU core.

EfficientNet-Lite0 features of each camera and MiniLM states of the words meet in a small
transformer whose last tokens are the learned action tokens; the feature is what comes out at
them.

Shape letters as in `types`: B batch, N token, D feature, H W of an image or a map, P place in a
map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import ClassVar

from einops import rearrange, repeat
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import (Encode, EncodedText, InstructionTooLong, Parts,
                                                   SplitEncoder, TextTokens)
from ros2_lstm_policy.model.backbones.compact import efficientnet_lite, minilm
from ros2_lstm_policy.model.backbones.compact.packaged import PackagedFiles
import torch
from torch import nn, Tensor
from torch.utils.checkpoint import checkpoint as recomputed

_FILM_FROM_STAGE = 3  # the first map of stride 8; earlier ones see edges, not things


@dataclass(frozen=True)
class Options:
    """
    What can be chosen.

    :param vision_strides: the maps whose places become tokens: 16 (64 tokens of a 128 x 128
        image), 32 (16 tokens), 8 (256 tokens), or several.
    :param film: let the words modulate the image network's channels (FiLM, as in RT-1).
    :param tune_vision: train the image network as well.
    :param width: features of the fusion transformer, and of what comes out.
    :param layers: its layers.
    :param heads: its attention heads; a divisor of `width`.
    :param feed_forward: features inside its feed-forward layers.
    :param dropout: of its layers, in training.
    :param action_tokens: learned tokens N that come out.
    :param max_text_tokens: the longest instruction, with its start and end tokens.
    :param vision_weights: what the image network starts from.
    :param text_weights: the word encoder; it is always frozen and not copied into checkpoints.
    """

    TRAINS_EVERY_PARAMETER: ClassVar[bool] = True

    vision_strides: tuple[int, ...] = (16,)
    film: bool = False
    tune_vision: bool = False
    width: int = 256
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    dropout: float = 0.1
    action_tokens: int = 1
    max_text_tokens: int = 24
    vision_weights: PackagedFiles = efficientnet_lite.PRETRAINED
    text_weights: PackagedFiles = minilm.PRETRAINED

    def __post_init__(self) -> None:
        """Refuse what no network can be built from."""
        known = set(efficientnet_lite.STAGES_AT_STRIDE)
        if not self.vision_strides or not set(self.vision_strides) <= known:
            raise ValueError(f'vision_strides: expected some of {sorted(known)}, found '
                             f'{list(self.vision_strides)}')
        for name, most in (('width', 65_536), ('layers', 64), ('heads', 1_024),
                           ('feed_forward', 262_144), ('action_tokens', 1_024),
                           ('max_text_tokens', 512)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f'{name} must be from 1 to {most}, found {getattr(self, name)}')
        if not 0 <= self.dropout < 1:
            raise ValueError(f'dropout must be at least 0 and below 1, found {self.dropout}')
        if self.width % self.heads:
            raise ValueError(f'width {self.width} is no multiple of heads {self.heads}')


class CompactBackbone(nn.Module):
    """EfficientNet-Lite0, MiniLM and a fusion transformer."""

    capturable = True

    def __init__(self, options: Options, cameras: Sequence[CameraSpec]) -> None:
        """Make the network; its image network is not pretrained yet."""
        super().__init__()
        self.feature_dim = options.width
        self.options, self.cameras = options, tuple(camera.name for camera in cameras)
        minilm.load(options.text_weights)  # absent or another: said here, not in an episode
        self.vision = efficientnet_lite.EfficientNetLite0(options.vision_strides)
        self.vision.requires_grad_(options.tune_vision)
        channels = [efficientnet_lite.STAGES[depth - 1].channels for depth in self.vision.depths]
        self.map_projections = nn.ModuleList(nn.Linear(c, options.width) for c in channels)
        self.map_positions = nn.ParameterDict({
            camera.name: _position(_places(camera, options.vision_strides), options.width)
            for camera in cameras})
        self.text_projection = nn.Linear(minilm.STATE_DIM, options.width)
        self.text_position = _position(options.max_text_tokens, options.width)
        self.action_tokens = nn.Parameter(torch.zeros(options.action_tokens, options.width))
        self.film = Film(options.width, len(self.vision.stages)) if options.film else None
        self.fusion = nn.ModuleList(_fusion_layer(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.width)

    @property
    def _words(self) -> minilm.MiniLM:
        """Return the word encoder: one a process, so a copy of the backbone has no other."""
        return minilm.load(self.options.text_weights)

    def tokenize(self, instructions: Sequence[str]) -> TextTokens:
        """
        Turn words into MiniLM's token ids.

        :raises InstructionTooLong: where one has more than `max_text_tokens`.
        """
        ids = [self._words.token_ids(instruction) for instruction in instructions]
        for instruction, found in zip(instructions, ids):
            if len(found) > self.options.max_text_tokens:
                raise InstructionTooLong(
                    f'instruction has {len(found)} tokens, this policy takes at most '
                    f'{self.options.max_text_tokens}; say it shorter: {instruction!r}')
        rows = [torch.tensor(row) for row in ids]
        lengths = torch.tensor([len(row) for row in ids])
        ids_BN = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return TextTokens(ids_BN, torch.arange(ids_BN.shape[1]) < lengths[:, None])

    def encode_text(self, text: TextTokens) -> EncodedText:
        """Return projected word states (B, N, D), on the device of this module."""
        device = self.action_tokens.device
        rows = tuple(tuple(ids[mask].tolist())
                     for ids, mask in zip(text.ids_BN.cpu(), text.mask_BN.cpu()))
        states = self._words.padded(rows, device)
        states = self.text_projection(states) + self.text_position[:states.shape[1]]
        return EncodedText(states, text.mask_BN.to(device, non_blocking=True))

    def forward(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """Map one (B, 3, H, W) image a camera and the words to the feature (B, N, D)."""
        return self.fuse(self.encode_images(images, text), text)

    def encode_images(self, images: Mapping[str, Tensor],
                      text: EncodedText | None = None) -> list[list[Tensor]]:
        """
        Run the image network.

        :param text: needed where FiLM lets the words modulate it.
        :return: by camera, by stride: a map (B, C, H, W).
        """
        frames = [images[camera] for camera in self.cameras]
        if len({frame.shape for frame in frames}) == 1:
            together = self._encode_frames(torch.cat(frames), text, len(frames))
            return [list(maps) for maps in zip(*(m.chunk(len(frames)) for m in together))]
        return [self._encode_frames(frame, text, 1) for frame in frames]

    def fuse(self, maps: Sequence[Sequence[Tensor]], text: EncodedText) -> Tensor:
        """Run the fusion transformer; return what comes out at the action tokens."""
        return self.norm(self._mix(maps, text, last=len(self.action_tokens)))

    def context(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """Return all fused tokens (B, N, D), for the language losses."""
        return self._mix(self.encode_images(images, text), text)

    def word_embeddings(self) -> Tensor:
        """Return MiniLM's frozen word embeddings (V, 384)."""
        return self._words.embeddings()

    def _mix(self, maps: Sequence[Sequence[Tensor]], text: EncodedText,
             last: int | None = None) -> Tensor:
        """Run the fusion transformer on [image tokens, words, action tokens]; see FusionLayer."""
        seen = [self._tokens(camera, levels) for camera, levels in zip(self.cameras, maps)]
        action = repeat(self.action_tokens, 'n d -> b n d', b=len(text.mask_BN))
        tokens = torch.cat([*seen, text.states_BND.to(seen[0].dtype), action], dim=1)
        before = sum(part.shape[1] for part in seen)
        absent = nn.functional.pad(~text.mask_BN, (before, action.shape[1]), value=False)
        *layers, final = self.fusion
        for layer in layers:
            tokens = layer(tokens, src_key_padding_mask=absent)
        return final(tokens, src_key_padding_mask=absent, last=last)

    def parts(self) -> Parts:
        """Return what it offers; the word encoder is never trained, and none of its modules."""
        split = SplitEncoder(self.encode_images, self.fuse) if self.film is None else None
        return Parts(vision=tuple(self.vision.parameters()), layers=tuple(self.fusion),
                     recompute=self._recompute, split=split, context=self,
                     text_lengths=(self.options.max_text_tokens,), for_cpu=self._for_cpu)

    def _recompute(self) -> None:
        for block in (*self.vision.stages, *self.fusion):
            block.forward = partial(recomputed, block.forward, use_reentrant=False)

    def _for_cpu(self, cameras: Sequence[CameraSpec]) -> Encode:
        from ros2_lstm_policy.model.backbones.compact.acting import ActingCompact  # it needs us
        return ActingCompact(self, cameras)

    def save_assets(self, directory: Path) -> None:
        """Write nothing: what is no weight comes from a package that the options name."""

    def _encode_frames(self, frames: Tensor, text: EncodedText | None,
                       cameras: int) -> list[Tensor]:
        modulation = {} if self.film is None else self.film(text, cameras)
        return self.vision(frames, modulation)

    def _tokens(self, camera: str, maps: Sequence[Tensor]) -> Tensor:
        levels = [projection(rearrange(level, 'b c h w -> b (h w) c'))
                  for projection, level in zip(self.map_projections, maps)]
        return torch.cat(levels, dim=1) + self.map_positions[camera]


class FusionLayer(nn.TransformerEncoderLayer):
    """
    A layer that can run for its last tokens alone, where nothing else of it is used.

    PyTorch's own in one respect: attention is always `scaled_dot_product_attention`. What PyTorch
    runs without gradients instead takes a tenth of a decision more on a CPU.
    """

    def forward(self, src: Tensor, src_mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None, is_causal: bool = False,
                last: int | None = None) -> Tensor:
        """
        Map tokens (B, N, D) to what comes out at the last ones (B, `last`, D).

        :param src_key_padding_mask: (B, N), True for tokens that are absent.
        :param last: how many; None for all.
        """
        assert src_mask is None and src_key_padding_mask is not None and not is_causal
        count = src.shape[1] if last is None else last
        out = src[:, -count:] + self.dropout1(
            self._attend(self.norm1(src), ~src_key_padding_mask, count))
        inner = self.dropout(self.activation(self.linear1(self.norm2(out))))
        return out + self.dropout2(self.linear2(inner))

    def _attend(self, tokens_BND: Tensor, present_BN: Tensor, count: int) -> Tensor:
        own = self.self_attn
        query, key, value = rearrange(
            nn.functional.linear(tokens_BND, own.in_proj_weight, own.in_proj_bias),
            'b n (part h d) -> part b h n d', part=3, h=own.num_heads)
        output = nn.functional.scaled_dot_product_attention(
            query[:, :, -count:], key, value, present_BN[:, None, None],
            own.dropout if self.training else 0.0)
        return own.out_proj(rearrange(output, 'b h n d -> b n (h d)'))


class Film(nn.Module):
    """
    Feature-wise modulation of the image network by the words; it starts as the identity.

    FiLM (arXiv 1709.07871) in a pretrained EfficientNet, as RT-1 (arXiv 2212.06817) has it. Of an
    instruction a few words matter, so what modulates is a learned weighing of them; it starts as
    their mean.
    """

    def __init__(self, width: int, stages: int) -> None:
        """Make one modulation a stage, from the first of stride 8 on."""
        super().__init__()
        self.importance = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.importance.weight)
        self.layers = nn.ModuleDict()
        for depth in range(_FILM_FROM_STAGE, stages + 1):
            layer = nn.Linear(width, 2 * efficientnet_lite.STAGES[depth - 1].channels)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            self.layers[str(depth)] = layer

    def forward(self, text: EncodedText, times: int) -> dict[int, tuple[Tensor, Tensor]]:
        """Return scale and shift by stage, (times * B, C) each, B of one camera in a row."""
        importance = self.importance(text.states_BND).masked_fill(~text.mask_BN[..., None], -inf)
        words = (text.states_BND * importance.softmax(dim=1)).sum(1).repeat(times, 1)
        return {int(depth): tuple(layer(words).chunk(2, dim=1))
                for depth, layer in self.layers.items()}


def create(options: Options, cameras: Sequence[CameraSpec],
           checkpoint: Path | None) -> CompactBackbone:
    """Build the backbone; without a checkpoint, from the pretrained weights."""
    backbone = CompactBackbone(options, cameras)
    if checkpoint is None:
        efficientnet_lite.load_pretrained(backbone.vision, options.vision_weights)
    return backbone


def _fusion_layer(options: Options) -> FusionLayer:
    return FusionLayer(options.width, options.heads, options.feed_forward, options.dropout, 'gelu',
                       batch_first=True, norm_first=True)


def _places(camera: CameraSpec, strides: Sequence[int]) -> int:
    grids = [efficientnet_lite.grid(camera.height, camera.width, stride) for stride in strides]
    return sum(rows * columns for rows, columns in grids)


def _position(places: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(places, width) * 0.02)

"""
The compact backbone as a robot's CPU runs it: frozen, one frame of each camera, one instruction.

The same values as `compact` up to the order of additions; what depends on the words alone is
computed once an instruction, and every weight lies as its product reads it.

Shape letters: N token, D feature, P place in a map, C channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import cast

from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import EncodedText
from ros2_lstm_policy.model.backbones.compact.backbone import CompactBackbone, FusionLayer
from ros2_lstm_policy.model.backbones.compact.efficientnet_acting import (ActingEfficientNet,
                                                                          Modulation)
from ros2_lstm_policy.model.backbones.compact.fusion_acting import (ActingFinalLayer, ActingLayer,
                                                                    ActingNorm)
from ros2_lstm_policy.model.backbones.compact.packed import RowsLinear
import torch
from torch import nn, Tensor


class ActingCompact:
    """
    What `CompactBackbone` computes in eval mode; its weights are copied when this is made.

    :param cameras: of the manifest: the sizes of the images.
    """

    def __init__(self, backbone: CompactBackbone, cameras: Sequence[CameraSpec]) -> None:
        """Copy and lay out the weights."""
        self._film = deepcopy(backbone.film)
        self._cameras = tuple(camera.name for camera in cameras)
        sizes = [(camera.height, camera.width) for camera in cameras]
        self._together = len(set(sizes)) == 1
        shapes = [(len(sizes), 3, *sizes[0])] if self._together else [(1, 3, *s) for s in sizes]
        self._vision = [ActingEfficientNet(backbone.vision, shape) for shape in shapes]
        self._projections = [RowsLinear.of(cast(nn.Linear, layer))
                             for layer in backbone.map_projections]
        self._positions = [backbone.map_positions[name].detach().clone() for name in self._cameras]
        self._action = backbone.action_tokens.detach().clone()
        *layers, final = (cast(FusionLayer, layer) for layer in backbone.fusion)
        self._layers = [ActingLayer(layer) for layer in layers]
        self._final, self._norm = ActingFinalLayer(final), ActingNorm.of(backbone.norm)
        self._said: tuple[EncodedText, Modulation] | None = None

    def __call__(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """
        Map one image a camera and the words to the feature (1, N, D).

        :param images: camera name to (1, 3, H, W).
        :param text: of one instruction: all of its tokens are present.
        """
        maps = self._see([images[name] for name in self._cameras], self._modulation(text))
        seen = [level for camera, levels in enumerate(maps)
                for level in self._tokens(camera, levels)]
        tokens = torch.cat([*seen, text.states_BND[0], self._action])
        for layer in self._layers:
            tokens = layer(tokens)
        return self._norm(self._final(tokens, len(self._action)))[None]

    def _modulation(self, text: EncodedText) -> Modulation:
        """Return FiLM's gain and shift by stage, (1, C, 1, 1) each; computed once a text."""
        if self._film is None:
            return {}
        if self._said is None or self._said[0] is not text:
            self._said = text, {
                depth: ((1 + scale)[:, :, None, None], shift[:, :, None, None])
                for depth, (scale, shift) in self._film(text, 1).items()}
        return self._said[1]

    def _see(self, frames: list[Tensor], modulation: Modulation) -> list[list[Tensor]]:
        """Return by camera, by stride, a map (P, C)."""
        if self._together:
            frames = [torch.cat(frames)]
        batches = [network(frame, modulation) for network, frame in zip(self._vision, frames)]
        return [[level[index].permute(1, 2, 0).flatten(0, 1) for level in levels]
                for levels in batches for index in range(len(levels[0]))]

    def _tokens(self, camera: int, levels: list[Tensor]) -> list[Tensor]:
        positions = self._positions[camera].split([len(level) for level in levels])
        return [projection(level).add_(position) for projection, level, position
                in zip(self._projections, levels, positions)]

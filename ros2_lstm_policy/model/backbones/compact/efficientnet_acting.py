"""
EfficientNet-Lite0 as a robot's CPU runs it: frozen, for images of one size.

The same values as `efficientnet_lite` up to the order of additions. Weights lie as the products
read them, filters are padded once, and activations and residuals are part of the convolutions.

Shape letters: B image, C channel, H W row and column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ros2_lstm_policy.model.backbones.compact.efficientnet_lite import (EfficientNetLite0,
                                                                        InvertedResidual,
                                                                        Pointwise, SameConv2d)
from ros2_lstm_policy.model.backbones.compact.packed import PackedConv2d, RELU6, RowsLinear
import torch
from torch import nn, Tensor
import torch.nn.functional as F

_FEW_PLACES = 600  # up to here a matrix product is faster than oneDNN's 1 x 1 convolution

Shape = tuple[int, int, int, int]
Modulation = Mapping[int, tuple[Tensor, Tensor]]


class ActingEfficientNet:
    """
    The network for B images of one size.

    :param shape: (B, 3, H, W) of the images.
    """

    def __init__(self, network: EfficientNetLite0, shape: Shape) -> None:
        """Copy and lay out the weights."""
        self._depths = network.depths
        self._stem, shape = _filter(network.stem, shape)
        self._stages = []
        for stage in network.stages:
            blocks = []
            for block in cast(nn.Sequential, stage):
                acting = _Block(cast(InvertedResidual, block), shape)
                blocks.append(acting)
                shape = acting.shape
            self._stages.append(blocks)

    def __call__(self, images: Tensor, modulation: Modulation) -> list[Tensor]:
        """
        Compute the maps.

        :param modulation: after which stage its map is multiplied by a gain and shifted, both
            (1, C, 1, 1).
        :return: one (B, C, H / stride, W / stride) for each of the network's strides.
        """
        hidden = self._stem(images.contiguous(memory_format=torch.channels_last))
        maps = {}
        for depth, blocks in enumerate(self._stages, 1):
            for block in blocks:
                hidden = block(hidden)
            if depth in modulation:
                gain, shift = modulation[depth]
                hidden = torch.addcmul(shift, hidden, gain)
            maps[depth] = hidden
        return [maps[depth] for depth in self._depths]


class _Block:
    """An inverted residual; `shape` is that of what comes out."""

    def __init__(self, block: InvertedResidual, shape: Shape) -> None:
        self._expand, self._residual = None, block.residual
        if block.expand is not None:
            self._expand, shape = _pointwise(block.expand, shape, relu6=True)
        self._filter, shape = _filter(block.depthwise, shape)
        self._project, self.shape = _pointwise(block.project, shape, relu6=False)

    def __call__(self, images: Tensor) -> Tensor:
        hidden = images if self._expand is None else self._expand(images)
        return self._project(self._filter(hidden), images if self._residual else None)


class _Product:
    """A 1 x 1 convolution of few places as a matrix product."""

    def __init__(self, layer: Pointwise, relu6: bool) -> None:
        self._linear, self._relu6 = RowsLinear.of(layer), relu6

    def __call__(self, images: Tensor, plus: Tensor | None = None) -> Tensor:
        found = self._linear(images.permute(0, 2, 3, 1))
        if self._relu6:
            found = found.clamp_(*RELU6)
        found = found.permute(0, 3, 1, 2)
        return found if plus is None else found.add_(plus)


def _filter(layer: SameConv2d, shape: Shape) -> tuple[PackedConv2d, Shape]:
    """
    Return a convolution with its ReLU6, and the shape after it.

    Convolutions pad both sides alike, and padding images costs a copy of them; so where the
    padding is odd the filter gets a row and column of zeros at its beginning instead.
    """
    batch, _, height, width = shape
    pad_h, pad_w = layer.zeros(height, width)
    weight = F.pad(layer.weight, (pad_w % 2, 0, pad_h % 2, 0))
    padding = -(-pad_h // 2), -(-pad_w // 2)
    down, right = layer.stride
    packed = PackedConv2d(weight, cast(Tensor, layer.bias), (down, right), padding,
                          layer.groups, shape, relu6=True)
    return packed, (batch, len(weight), -(-height // down), -(-width // right))


def _pointwise(layer: Pointwise, shape: Shape,
               relu6: bool) -> tuple[PackedConv2d | _Product, Shape]:
    """Return a 1 x 1 convolution, and the shape after it."""
    batch, _, height, width = shape
    after = batch, layer.out_features, height, width
    if batch * height * width <= _FEW_PLACES:
        return _Product(layer, relu6), after
    weight = layer.weight[:, :, None, None]
    return PackedConv2d(weight, layer.bias, (1, 1), (0, 0), 1, shape, relu6), after

"""
Frozen layers whose weights are brought into the order that a CPU wants once.

PyTorch's own layers do it at every call, and run what follows a convolution as operations of their
own. The convolution's operators are those that PyTorch's compiler emits for a CPU (TorchInductor's
`mkldnn_fusion`); without them its public ones give the same values.

Shape letters: B image, C channel, H W row and column, N row of a product.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import torch
from torch import nn, Tensor
import torch.nn.functional as F

RELU6 = (0.0, 6.0)
_ONE = [1, 1]

# padding, stride, dilation, groups
Geometry: TypeAlias = tuple[list[int], list[int], list[int], int]


@cache
def packs_convolutions() -> bool:
    """Return whether oneDNN's operators are here and give a convolution's values, by trying."""
    images = torch.linspace(-3, 3, 8 * 16).view(1, 8, 4, 4).contiguous(
        memory_format=torch.channels_last)
    weight, bias = torch.linspace(-2, 2, 8 * 9).view(8, 1, 3, 3), torch.linspace(-1, 7, 8)
    plain = F.conv2d(images, weight, bias, 1, 1, 1, 8)
    try:
        packed = _packed(weight, [1, 1], _ONE, 8, list(images.shape))
        found = (_convolved(images, packed, bias, ([1, 1], _ONE, _ONE, 8), relu6=True),
                 _convolved_plus(images, images, packed, bias, ([1, 1], _ONE, _ONE, 8)))
    except (AttributeError, RuntimeError):  # this PyTorch, or this processor, has none
        return False
    return all(torch.allclose(one, other, atol=1e-5)
               for one, other in zip(found, (plain.clamp(*RELU6), plain + images)))


def _packed(weight: Tensor, padding: list[int], stride: list[int], groups: int,
            shape: list[int]) -> Tensor:
    return torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, _ONE, groups,
                                                        shape)


def _convolved(images: Tensor, packed: Tensor, bias: Tensor, geometry: Geometry,
               relu6: bool) -> Tensor:
    then, limits = ('hardtanh', RELU6) if relu6 else ('none', ())
    return torch.ops.mkldnn._convolution_pointwise.default(
        images, packed, bias, *geometry, then, limits, '')


def _convolved_plus(images: Tensor, plus: Tensor, packed: Tensor, bias: Tensor,
                    geometry: Geometry) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise.binary(
        images, plus, packed, bias, *geometry, 'add', 1.0, None, [], None)


class PackedConv2d:
    """
    A frozen convolution over images of one size.

    :param weight: (C', C / groups, kernel, kernel); copied.
    :param padding: zeros on both sides of the rows and of the columns.
    :param shape: (B, C, H, W) of what will come.
    :param relu6: whether a ReLU6 follows.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: tuple[int, int],
                 padding: tuple[int, int], groups: int, shape: tuple[int, int, int, int],
                 relu6: bool) -> None:
        """Bring the weights into order."""
        self._bias, self._relu6 = bias.detach().clone(), relu6
        self._stride, self._padding, self._groups = list(stride), list(padding), groups
        self._packed = packs_convolutions()
        self._weight = weight.detach().clone()
        if self._packed:
            self._weight = _packed(self._weight, self._padding, self._stride, groups, list(shape))

    def __call__(self, images: Tensor, plus: Tensor | None = None) -> Tensor:
        """
        Convolve.

        :param images: (B, C, H, W) in channels-last order.
        :param plus: is added to what comes out; not together with a ReLU6.
        :return: (B, C', H', W') in channels-last order.
        """
        if not self._packed:
            return self._plain(images, plus)
        geometry = self._padding, self._stride, _ONE, self._groups
        if plus is not None:
            return _convolved_plus(images, plus, self._weight, self._bias, geometry)
        return _convolved(images, self._weight, self._bias, geometry, self._relu6)

    def _plain(self, images: Tensor, plus: Tensor | None) -> Tensor:
        found = F.conv2d(images, self._weight, self._bias, self._stride, self._padding, 1,
                         self._groups)
        if self._relu6:
            return found.clamp_(*RELU6)
        return found if plus is None else found.add_(plus)


class RowsLinear:
    """
    A frozen linear layer for few rows: its weights lie as such a product reads them fastest.

    :param weight: (outputs, inputs), as of `nn.Linear`; copied.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Lay out the weights as (inputs, outputs), seen from the other side."""
        self._weight = weight.detach().t().clone(memory_format=torch.contiguous_format).t()
        self._bias = bias.detach().clone()

    @classmethod
    def of(cls, layer: nn.Linear) -> RowsLinear:
        """Lay out a layer's weights."""
        return cls(layer.weight, layer.bias)

    def __call__(self, rows: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return F.linear(rows, self._weight, self._bias)

"""
Layers as the products that a GPU that acts is fast at.

A frame is few tokens, so each product of a tower is over before the GPU is full: query, key and
value as one, and a feed-forward's gate and rise as one, take less time. The layers are found by
the names that the libraries give them. They keep their parameters, which become views of the
joined matrix. A convolution of patches that do not overlap is a product too, for which libraries
have a faster kernel. Where gradients are wanted, all compute as before.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import MethodType
from typing import Any

import torch
from torch import nn, Tensor
from torch.nn import functional

_QUERY_KEY_VALUE = ('q_proj', 'k_proj', 'v_proj')
_GATE_AND_RISE, _FALL = ('gate_proj', 'up_proj'), 'down_proj'
_ALIGNED = 8  # features: 16 bytes; with others a GPU falls back to kernels of an older kind


@torch.no_grad()
@torch.inference_mode(False)  # training may follow acting
def join_products(blocks: Iterable[nn.Module]) -> None:
    """
    Join what can be joined in a tower's blocks, on their device.

    A second time changes nothing.
    """
    for module in (part for block in blocks for part in block.modules()):
        heads = _plain_children(module, _QUERY_KEY_VALUE)
        if heads and _are_alike(heads):
            _Joined.of(heads, 0)
        feed_forward = _plain_children(module, (*_GATE_AND_RISE, _FALL))
        if feed_forward and _are_alike(feed_forward[:2]):
            fall = feed_forward.pop()
            more = -fall.in_features % _ALIGNED
            _Joined.of(feed_forward, more)
            if more:
                fall.wide_weight = functional.pad(fall.weight.detach(), (0, more))
                fall.forward = MethodType(_take_wide, fall)


def multiply_patches(towers: Iterable[nn.Module]) -> None:
    """Let convolutions whose patches lie side by side be products."""
    for module in (part for tower in towers for part in tower.modules()):
        layer: Any = module
        if (type(layer) in (nn.Conv2d, nn.Conv3d) and 'forward' not in vars(layer)
                and layer.stride == layer.kernel_size and layer.groups == 1
                and layer.padding in ('valid', (0,) * len(layer.kernel_size))
                and set(layer.dilation) == {1}):
            more = -layer.weight[0].numel() % _ALIGNED
            with torch.inference_mode(False), torch.no_grad():
                layer.wide_weight = functional.pad(layer.weight.detach().flatten(1), (0, more))
            layer.forward = MethodType(_take_patches, layer)


class _Joined:
    """The joined matrix of some layers, and the products of their last input."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, sizes: list[int]) -> None:
        self._weight_OI, self._bias_O, self._sizes = weight_OI, bias_O, sizes
        self._input: Tensor | None = None
        self._parts: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, layers: list[Any], more: int) -> None:
        """
        Join layers.

        :param more: features of zeros behind those of each.
        """
        sizes = [layer.out_features + more for layer in layers]
        weight_OI = torch.cat([functional.pad(layer.weight.detach(), (0, 0, 0, more))
                               for layer in layers])
        bias_O = None if layers[0].bias is None else torch.cat(
            [functional.pad(layer.bias.detach(), (0, more)) for layer in layers])
        joined = cls(weight_OI, bias_O, sizes)
        for place, (layer, rows) in enumerate(zip(layers, weight_OI.split(sizes))):
            layer.weight.data = rows[:layer.out_features]  # no second copy in memory
            layer.joined, layer.place = joined, place
            layer.forward = MethodType(_take_part, layer)

    def part(self, inputs: Tensor, place: int) -> Tensor:
        """Return the product of one layer; the first one to be asked makes all of them."""
        if self._input is not inputs:
            self._input = inputs
            self._parts = functional.linear(inputs, self._weight_OI,
                                            self._bias_O).split(self._sizes, -1)
        part = self._parts[place]
        if place == len(self._sizes) - 1:
            self._input, self._parts = None, ()
        return part


def _take_part(layer: Any, inputs: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return nn.Linear.forward(layer, inputs)
    return layer.joined.part(inputs, layer.place)


def _take_wide(layer: Any, inputs: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return nn.Linear.forward(layer, inputs)
    return functional.linear(inputs, layer.wide_weight, layer.bias)


def _take_patches(layer: Any, images: Tensor) -> Tensor:
    axes = len(layer.kernel_size)
    if torch.is_grad_enabled() or any(size % side for size, side
                                      in zip(images.shape[2:], layer.kernel_size)):
        return type(layer).forward(layer, images)
    for axis in reversed(range(axes)):
        images = images.unflatten(2 + axis, (-1, layer.kernel_size[axis]))
    places, inside = range(2, 2 + 2 * axes, 2), range(3, 3 + 2 * axes, 2)
    rows = images.permute(0, *places, 1, *inside).flatten(1 + axes)
    rows = functional.pad(rows, (0, layer.wide_weight.shape[1] - rows.shape[-1]))
    return functional.linear(rows, layer.wide_weight, layer.bias).movedim(-1, 1)


def _plain_children(module: nn.Module, names: tuple[str, ...]) -> list[Any]:
    """Return the children of these names; none unless all are plain and not joined yet."""
    found = [getattr(module, name, None) for name in names]
    plain = all(type(layer) is nn.Linear and 'forward' not in vars(layer) for layer in found)
    return found if plain else []


def _are_alike(layers: list[Any]) -> bool:
    return len({(layer.in_features, layer.bias is None) for layer in layers}) == 1

"""
A depthwise convolution between two ReLU6, as one operation where a GPU can.

Shape letters: N image, H W row and column, C channel, T tap of the filter (row by row).
"""

from __future__ import annotations

import importlib.util
from math import isqrt
from typing import Any

import torch
from torch import Tensor

# the kernels' compiler, which comes with PyTorch for CUDA, and what it compiles for
_COMPILER = importlib.util.find_spec('triton') is not None
_LEAST_CAPABILITY = (8, 0)


@torch.compiler.assume_constant_result
def is_fused_on(device: torch.device) -> bool:
    """Return whether :func:`depthwise_relu6` is how tensors of a device are to be filtered."""
    return (device.type == 'cuda' and _COMPILER
            and torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY)


def same_padding(size: int, kernel: int, stride: int) -> int:
    """Return the zeros that TensorFlow's SAME adds along a side; an odd one goes to its end."""
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


@torch.library.custom_op('ros2_lstm_policy::depthwise_relu6', mutates_args=())
def depthwise_relu6(inputs_NHWC: Tensor, weight_TC: Tensor, bias_C: Tensor,
                    stride: int) -> Tensor:
    """
    Return relu6(filter(relu6(inputs)) + bias), padded as SAME, differentiable.

    :param inputs_NHWC: contiguous.
    :param weight_TC: of a square filter.
    :return: (N, ceil(H / stride), ceil(W / stride), C).
    """
    from ros2_lstm_policy.model.backbones.compact import depthwise_kernels
    kernel, before = _place(inputs_NHWC, weight_TC, stride)
    _, height, width, _ = _output_shape(inputs_NHWC, stride)
    return depthwise_kernels.forward(inputs_NHWC, weight_TC, bias_C, kernel, stride, before,
                                     (height, width))


@torch.library.custom_op('ros2_lstm_policy::depthwise_relu6_backward', mutates_args=())
def _gradients(gradient_NHWC: Tensor, outputs_NHWC: Tensor, inputs_NHWC: Tensor,
               weight_TC: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return those of inputs, weight and bias; the last two in float32."""
    from ros2_lstm_policy.model.backbones.compact import depthwise_kernels
    kernel, before = _place(inputs_NHWC, weight_TC, stride)
    return depthwise_kernels.backward(gradient_NHWC.contiguous(), outputs_NHWC, inputs_NHWC,
                                      weight_TC, kernel, stride, before)


def _place(inputs_NHWC: Tensor, weight_TC: Tensor, stride: int) -> tuple[int, tuple[int, int]]:
    """Return the filter's side, and the rows and columns of zeros before the first ones."""
    kernel = isqrt(len(weight_TC))
    above, left = (same_padding(size, kernel, stride) // 2 for size in inputs_NHWC.shape[1:3])
    return kernel, (above, left)


def _output_shape(inputs_NHWC: Tensor, stride: int) -> tuple[int, int, int, int]:
    n, height, width, channels = inputs_NHWC.shape
    return n, -(-height // stride), -(-width // stride), channels


@depthwise_relu6.register_fake
def _(inputs_NHWC: Tensor, weight_TC: Tensor, bias_C: Tensor, stride: int) -> Tensor:
    return inputs_NHWC.new_empty(_output_shape(inputs_NHWC, stride))


@_gradients.register_fake
def _(gradient_NHWC: Tensor, outputs_NHWC: Tensor, inputs_NHWC: Tensor, weight_TC: Tensor,
      stride: int) -> tuple[Tensor, Tensor, Tensor]:
    return (torch.empty_like(inputs_NHWC),
            torch.empty_like(weight_TC, dtype=torch.float32),
            weight_TC.new_empty(weight_TC.shape[1], dtype=torch.float32))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, weight, bias, stride = inputs
    ctx.save_for_backward(output, images, weight)
    ctx.bias_dtype, ctx.stride = bias.dtype, stride


def _backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    output, images, weight = context.saved_tensors
    found = _gradients(gradient, output, images, weight, context.stride)
    return found[0], found[1].to(weight.dtype), found[2].to(context.bias_dtype), None


depthwise_relu6.register_autograd(_backward, setup_context=_keep)

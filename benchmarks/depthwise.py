"""
The fused depthwise filter against PyTorch's own (cuDNN), layer by layer of EfficientNet-Lite0.

A filter with the ReLU6 before and after it, bf16 in channels-last order, forward and backward, in
one run, with the largest difference of the two. The limit is what the tensors' bytes take at the
memory's rate.

    PYTHONPATH=. python benchmarks/depthwise.py      # about half a minute on one H200
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

from ros2_lstm_policy.model.backbones import depthwise, efficientnet_lite
from ros2_lstm_policy.model.backbones.efficientnet_lite import Filter
import torch
from torch import Tensor
from triton.testing import do_bench


class Layer(NamedTuple):
    """Filters of one kind: how often the network has them, and what comes in."""

    repeats: int
    channels: int
    kernel: int
    stride: int
    height: int
    width: int


class Timing(NamedTuple):
    """Milliseconds of the forward pass, and of forward and backward."""

    forward_ms: float
    both_ms: float


def layers(height: int, width: int) -> list[Layer]:
    """Return the network's filters for images of a size."""
    found: dict[Layer, int] = {}
    size, channels = (-(-height // 2), -(-width // 2)), efficientnet_lite.STEM_CHANNELS
    for stage in efficientnet_lite.STAGES:
        for block in range(stage.repeats):
            stride = stage.stride if block == 0 else 1
            layer = Layer(0, channels * stage.expand, stage.kernel, stride, *size)
            found[layer] = found.get(layer, 0) + 1
            size = (-(-size[0] // stride), -(-size[1] // stride))
            channels = stage.channels
    return [layer._replace(repeats=count) for layer, count in found.items()]


def timed(filter_: Filter, images: Tensor) -> tuple[Timing, list[Tensor]]:
    """Return the times, and what comes out: values and gradients."""
    of = (images, *filter_.parameters())
    out = filter_(images)
    gradient = torch.linspace(-1, 1, out.numel(), device=out.device).to(out).view_as(out)

    def both() -> list[Tensor]:
        out = filter_(images)
        return [out, *torch.autograd.grad(out, of, gradient)]
    with torch.no_grad():
        forward_ms = _ms(lambda: filter_(images))
    return Timing(forward_ms, _ms(both)), [part.detach().float() for part in both()]


def _ms(work: Callable[[], object]) -> float:
    return float(do_bench(work, warmup=5, rep=20))


def limit_ms(layer: Layer, images: int, bytes_per_s: float) -> float:
    """Return how long both passes' tensors take: four of the inputs, five of the outputs."""
    inside = layer.height * layer.width
    outside = -(-layer.height // layer.stride) * -(-layer.width // layer.stride)
    values = images * layer.channels * (4 * inside + 5 * outside)
    return 1e3 * 2 * values / bytes_per_s


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=1024)
    parser.add_argument('--size', type=int, nargs=2, default=(112, 160), help='height width')
    parser.add_argument('--gigabytes-per-s', type=float, default=4300.0,
                        help="of the device's memory; the default was measured on an H200")
    options = parser.parse_args()
    fused = depthwise.is_fused_on
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.images} images\n\n'
          '| filters | channels | kernel | stride | in | cuDNN ms | of it forward | ours ms | '
          'of it forward | ratio | limit ms | relative difference |\n' + '|---' * 12 + '|')
    sums = [0.0] * 3
    for layer in layers(*options.size):
        torch.manual_seed(0)
        made = Filter(layer.channels, layer.kernel, layer.stride).cuda().bfloat16()
        images = (2 * torch.randn(options.images, layer.channels, layer.height, layer.width,
                                  device='cuda', dtype=torch.bfloat16)).contiguous(
            memory_format=torch.channels_last).requires_grad_()
        depthwise.is_fused_on = lambda device: False
        theirs, wanted = timed(made, images)
        depthwise.is_fused_on = fused
        ours, found = timed(made, images)
        apart = max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted))
        limit = limit_ms(layer, options.images, 1e9 * options.gigabytes_per_s)
        for i, ms in enumerate((theirs.both_ms, ours.both_ms, limit)):
            sums[i] += layer.repeats * ms
        print(f'| {layer.repeats} | {layer.channels} | {layer.kernel} | {layer.stride} | '
              f'{layer.height} x {layer.width} | {theirs.both_ms:.2f} | {theirs.forward_ms:.2f} | '
              f'{ours.both_ms:.2f} | {ours.forward_ms:.2f} | '
              f'{theirs.both_ms / ours.both_ms:.2f} | {limit:.2f} | {apart:.1e} |', flush=True)
    print(f'| all | | | | | {sums[0]:.2f} | | {sums[1]:.2f} | | {sums[0] / sums[1]:.2f} | '
          f'{sums[2]:.2f} | |')


if __name__ == '__main__':
    main()

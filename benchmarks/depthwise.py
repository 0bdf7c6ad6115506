"""
The fused depthwise filter against PyTorch's own (cuDNN), layer by layer of EfficientNet-Lite0.

A filter with the ReLU6 before and after it, bf16 in channels-last order, forward and backward, in
one run, with the largest difference of the two. The limit is what the tensors' bytes take at the
memory's rate.

    PYTHONPATH=. python benchmarks/depthwise.py      # about half a minute on one H200
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from math import prod
from typing import NamedTuple

from ros2_lstm_policy.model.backbones.compact import depthwise
from ros2_lstm_policy.model.backbones.compact.efficientnet_lite import EfficientNetLite0, Filter
import torch
from torch import nn, Tensor
from triton.testing import do_bench


class Layer(NamedTuple):
    """Filters of one kind: channels, filter and stride; what comes in and out, (H, W)."""

    channels: int
    kernel: int
    stride: int
    inside: tuple[int, ...]
    outside: tuple[int, ...]


class Timing(NamedTuple):
    """Milliseconds of the forward pass, and of forward and backward."""

    forward_ms: float
    both_ms: float


def layers(height: int, width: int) -> Counter[Layer]:
    """Return the network's filters for images of a size, and how often it has each."""
    found: Counter[Layer] = Counter()

    def note(filter_: nn.Module, images: tuple[Tensor], out: Tensor) -> None:
        assert isinstance(filter_, Filter)
        found[Layer(filter_.in_channels, filter_.kernel_size[0], filter_.stride[0],
                    tuple(images[0].shape[-2:]), tuple(out.shape[-2:]))] += 1
    network = EfficientNetLite0((32,))
    for module in network.modules():
        if isinstance(module, Filter):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 3, height, width), {})
    return found


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
    values = images * layer.channels * (4 * prod(layer.inside) + 5 * prod(layer.outside))
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
    if not torch.cuda.is_available() or not depthwise.is_fused_on(torch.device('cuda')):
        parser.error('there is no GPU that the fused filters run on; they need an NVIDIA GPU of '
                     'compute capability 8.0 or more, and PyTorch for CUDA')
    fused = depthwise.is_fused_on
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.images} images\n\n'
          '| filters | channels | kernel | stride | in | cuDNN ms | of it forward | ours ms | '
          'of it forward | ratio | limit ms | relative difference |\n' + '|---' * 12 + '|')
    sums = [0.0] * 3
    for layer, repeats in layers(*options.size).items():
        torch.manual_seed(0)
        made = Filter(layer.channels, layer.kernel, layer.stride).cuda().bfloat16()
        images = (2 * torch.randn(options.images, layer.channels, *layer.inside,
                                  device='cuda', dtype=torch.bfloat16)).contiguous(
            memory_format=torch.channels_last).requires_grad_()
        depthwise.is_fused_on = lambda device: False
        theirs, wanted = timed(made, images)
        depthwise.is_fused_on = fused
        ours, found = timed(made, images)
        apart = max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted))
        limit = limit_ms(layer, options.images, 1e9 * options.gigabytes_per_s)
        for i, ms in enumerate((theirs.both_ms, ours.both_ms, limit)):
            sums[i] += repeats * ms
        height, width = layer.inside
        print(f'| {repeats} | {layer.channels} | {layer.kernel} | {layer.stride} | '
              f'{height} x {width} | {theirs.both_ms:.2f} | {theirs.forward_ms:.2f} | '
              f'{ours.both_ms:.2f} | {ours.forward_ms:.2f} | '
              f'{theirs.both_ms / ours.both_ms:.2f} | {limit:.2f} | {apart:.1e} |', flush=True)
    print(f'| all | | | | | {sums[0]:.2f} | | {sums[1]:.2f} | | {sums[0] / sums[1]:.2f} | '
          f'{sums[2]:.2f} | |')


if __name__ == '__main__':
    main()

"""
The fused depthwise filter gives PyTorch's values and gradients.

On the GPU where there is one, or else in Triton's interpreter.
"""

import itertools

import pytest
from ros2_lstm_policy.model.backbones.compact import depthwise
from ros2_lstm_policy.model.backbones.compact.efficientnet_lite import EfficientNetLite0, Filter
import torch

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
SIZES = ((5, 6), (4, 3), (1, 1))  # odd and even, less than a filter, and nothing around it


def make_filter(channels, kernel, stride):
    """Return a filter with weights of some size."""
    torch.manual_seed(0)
    made = Filter(channels, kernel, stride)
    torch.nn.init.normal_(made.weight)
    torch.nn.init.normal_(made.bias)
    return made.to(DEVICE)


def both_ways(monkeypatch, work):
    """Return what `work` gives by PyTorch and by the kernels."""
    monkeypatch.setattr(depthwise, 'is_fused_on', lambda device: False)
    plain = work()
    monkeypatch.setattr(depthwise, 'is_fused_on', lambda device: True)
    return plain, work()


@pytest.mark.parametrize(('kernel', 'stride'), itertools.product((3, 5), (1, 2)))
@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_values_and_gradients_are_those_of_the_convolution(monkeypatch, kernel, stride, height,
                                                           width):
    made = make_filter(36, kernel, stride)
    images = (4 * torch.randn(2, 36, height, width, device=DEVICE)).requires_grad_()

    def work():
        out = made(images)
        weights = torch.linspace(-1, 1, out.numel(), device=DEVICE).reshape(out.shape)
        return out, *torch.autograd.grad((out * weights).sum(), (images, *made.parameters()))
    plain, fused = both_ways(monkeypatch, work)
    assert plain[1].abs().max() > 0
    for wanted, found in zip(plain, fused):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_half_precision_is_summed_in_full(monkeypatch):
    made = make_filter(32, 5, 1)
    images = torch.randn(1, 32, 6, 7, device=DEVICE).bfloat16()
    plain, _ = both_ways(monkeypatch, lambda: made(images.float()))
    fused = made(images)
    assert fused.dtype == torch.bfloat16
    one_rounding = 2 ** -7  # the interpreter cuts off, a GPU rounds
    torch.testing.assert_close(fused.float(), plain, rtol=one_rounding, atol=1e-6)


def test_a_loss_that_is_not_finite_does_not_hide_behind_the_activation(monkeypatch):
    """The hardware's minimum and maximum give the number of the two, and training would go on."""
    made = make_filter(32, 3, 1)
    with torch.no_grad():
        made.bias[3] = float('nan')
    images = torch.randn(1, 32, 4, 4, device=DEVICE)
    plain, fused = both_ways(monkeypatch, lambda: made(images))
    assert plain[:, 3].isnan().all()
    torch.testing.assert_close(fused, plain, equal_nan=True)


def test_the_network_is_the_same_and_compiles_as_one_graph(monkeypatch):
    torch.manual_seed(0)
    network = EfficientNetLite0((8,)).eval().to(DEVICE)
    images = torch.randn(1, 3, 16, 24, device=DEVICE)
    plain, fused = both_ways(monkeypatch, lambda: network(images, {}))
    compiled = torch.compile(network, backend='aot_eager', fullgraph=True)(images, {})
    for wanted, *found in zip(plain, fused, compiled):
        assert wanted.abs().max() > 0
        for one in found:
            torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-6)


def test_where_a_filter_runs_does_not_break_a_compiled_graph():
    made = make_filter(32, 3, 2)
    images = torch.randn(1, 32, 6, 8, device=DEVICE)
    compiled = torch.compile(made, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(images), made(images), rtol=1e-4, atol=1e-6)

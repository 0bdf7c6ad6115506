"""
Triton kernels of a depthwise convolution between two ReLU6, in channels-last order.

cuDNN spends most of a training step of a small image network on these filters: they compute little
and move much. Here one pass reads what comes in and writes what goes out; both activations and the
bias cost no pass of their own. Sums are float32.

Every kernel walks down the rows of a few columns: what it has read once stays in registers until
the last filter row has used it, so little but multiplications is left. The steps of the walk:

    step s is at row s of the outputs and rows STRIDE * s + q - ABOVE of the inputs, q < STRIDE;
    these meet row s - d of the outputs in the filter's row STRIDE * d + q, for each
    d < DEPTH = ceil(KERNEL / STRIDE); what the next step needs is on its way meanwhile.

Columns likewise; STRIDE x STRIDE places of the inputs are called a cell. Shape letters: N image,
H W row and column, C channel, T tap of the filter (row by row), L chunk of columns that one
program sums over.
"""

# Triton's own language has no types for mypy
# mypy: disable-error-code="no-untyped-def, assignment"

from __future__ import annotations

import torch
from torch import Tensor
import triton
import triton.language as tl

_SIZES = ('height', 'width', 'out_height', 'out_width', 'columns')  # never worth a compilation
_PROGRAMS = 1056  # eight for each multiprocessor of an H200
_BLOCK_P, _BLOCK_C = 8, 32  # two channels for each thread: filter and sums fit into registers
_UNROLL = tl.constexpr(2)  # what one step holds for the next is renamed, not moved


def forward(inputs_NHWC: Tensor, weight_TC: Tensor, bias_C: Tensor, kernel: int, stride: int,
            before: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """
    Return relu6(filter(relu6(inputs)) + bias), (N, *size, C).

    :param before: rows and columns of zeros before the first.
    """
    n, height, width, channels = inputs_NHWC.shape
    outputs = inputs_NHWC.new_empty(n, *size, channels)
    columns = n * size[1]
    _forward[(triton.cdiv(columns, _BLOCK_P) * triton.cdiv(channels, _BLOCK_C),)](
        inputs_NHWC, weight_TC, bias_C, outputs, height, width, *size, columns,
        channels, kernel, stride, *before, _BLOCK_P, _BLOCK_C)
    return outputs


def backward(gradient_NHWC: Tensor, outputs_NHWC: Tensor, inputs_NHWC: Tensor, weight_TC: Tensor,
             kernel: int, stride: int, before: tuple[int, int],
             ) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of inputs, weight and bias."""
    passed, weight, bias = _weight_gradients(gradient_NHWC, outputs_NHWC, inputs_NHWC, kernel,
                                             stride, before)
    return _inputs_gradient(passed, inputs_NHWC, weight_TC, kernel, stride, before), weight, bias


def _weight_gradients(gradient_NHWC: Tensor, outputs_NHWC: Tensor, inputs_NHWC: Tensor,
                      kernel: int, stride: int, before: tuple[int, int],
                      ) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient that the last ReLU6 lets pass, and those of weight and bias."""
    n, height, width, channels = inputs_NHWC.shape
    _, out_height, out_width, _ = gradient_NHWC.shape
    columns = n * out_width
    blocks, across = triton.cdiv(columns, _BLOCK_P), triton.cdiv(channels, _BLOCK_C)
    blocks_each = max(1, triton.cdiv(blocks, triton.cdiv(_PROGRAMS, across)))
    chunks = triton.cdiv(blocks, blocks_each)
    passed = torch.empty_like(gradient_NHWC)
    weight_LTC = inputs_NHWC.new_empty(chunks, kernel * kernel, channels, dtype=torch.float32)
    bias_LC = inputs_NHWC.new_empty(chunks, channels, dtype=torch.float32)
    _backward_weight[(chunks * across,)](
        gradient_NHWC, outputs_NHWC, inputs_NHWC, passed, weight_LTC, bias_LC,
        height, width, out_height, out_width, columns, blocks_each,
        channels, kernel, stride, *before, _BLOCK_P, _BLOCK_C)
    return passed, weight_LTC.sum(0), bias_LC.sum(0)


def _inputs_gradient(passed_NHWC: Tensor, inputs_NHWC: Tensor, weight_TC: Tensor, kernel: int,
                     stride: int, before: tuple[int, int]) -> Tensor:
    n, height, width, channels = inputs_NHWC.shape
    _, out_height, out_width, _ = passed_NHWC.shape
    gradient = torch.empty_like(inputs_NHWC)
    columns = n * triton.cdiv(width + before[1], stride)
    _backward_inputs[(triton.cdiv(columns, _BLOCK_P) * triton.cdiv(channels, _BLOCK_C),)](
        passed_NHWC, inputs_NHWC, weight_TC, gradient, height, width, out_height, out_width,
        columns, channels, kernel, stride, *before, _BLOCK_P, _BLOCK_C)
    return gradient


@triton.jit
def _channels(block, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Return the channels of a block, the same in each of its columns."""
    return tl.zeros([BLOCK_P, 1], tl.int32) + (block * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]


@triton.jit
def _filter(weight, channel, CHANNELS: tl.constexpr, TAPS: tl.constexpr):
    taps = ()
    for tap in tl.static_range(TAPS):
        value = tl.load(weight + tap * CHANNELS + channel, channel < CHANNELS, 0.0)
        taps += (value.to(tl.float32),)
    return taps


@triton.jit
def _copies(value, COUNT: tl.constexpr):
    copies = ()
    for _ in tl.static_range(COUNT):
        copies += (value,)
    return copies


@triton.jit
def _inside(column, width, real, COUNT: tl.constexpr):
    """Return for each of so many columns whether it is one of the map."""
    inside = ()
    for j in tl.static_range(COUNT):
        inside += (real & (column + j >= 0) & (column + j < width),)
    return inside


@triton.jit
def _rows(images, row, height, width, inside, CHANNELS: tl.constexpr, ROWS: tl.constexpr,
          COLUMNS: tl.constexpr):
    """Return ROWS x COLUMNS places, row by row; zero outside of the map."""
    values = ()
    for q in tl.static_range(ROWS):
        for j in tl.static_range(COLUMNS):
            real = inside[j] & (row + q >= 0) & (row + q < height)
            values += (tl.load(images + (row + q) * (width * CHANNELS) + j * CHANNELS, real, 0.0),)
    return values


@triton.jit
def _relu6(value):
    # NaN passes, as PyTorch's does: a run that diverges is to be seen
    value = tl.maximum(value, 0.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(value, 6.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=_SIZES)
def _forward(inputs, weight, bias, outputs, height, width, out_height, out_width, columns,
             CHANNELS: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
             ABOVE: tl.constexpr, LEFT: tl.constexpr,
             BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    DEPTH: tl.constexpr = (KERNEL + STRIDE - 1) // STRIDE
    ACROSS: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    FIRST: tl.constexpr = ABOVE // STRIDE
    place = (tl.program_id(0) // ACROSS * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
    channel = _channels(tl.program_id(0) % ACROSS, BLOCK_P, BLOCK_C)
    real = (place < columns) & (channel < CHANNELS)
    image, column = (place // out_width).to(tl.int64), place % out_width
    left = column * STRIDE - LEFT
    inside = _inside(left, width, real, KERNEL)
    inputs += (image * height * width + left) * CHANNELS + channel
    outputs += (image * out_height * out_width + column) * CHANNELS + channel
    taps = _filter(weight, channel, CHANNELS, KERNEL * KERNEL)
    start = tl.load(bias + channel, channel < CHANNELS, 0.0).to(tl.float32)
    totals = _copies(start, DEPTH)  # of the rows step - DEPTH + 1 to step
    end = (height - 1 + ABOVE) // STRIDE + 1
    ahead = _rows(inputs, FIRST * STRIDE - ABOVE, height, width, inside, CHANNELS, STRIDE, KERNEL)
    for step in tl.range(FIRST, end, loop_unroll_factor=_UNROLL):
        values = ahead
        ahead = _rows(inputs, (step + 1) * STRIDE - ABOVE, height, width, inside, CHANNELS, STRIDE,
                      KERNEL)
        totals = _fed(totals, values, taps, KERNEL, STRIDE, DEPTH)
        _store_activated(outputs, step - DEPTH + 1, totals[0], out_height, out_width, real,
                         CHANNELS)
        totals = totals[1:]
        totals += (start,)
    for k in tl.static_range(DEPTH - 1):
        _store_activated(outputs, end - DEPTH + 1 + k, totals[k], out_height, out_width, real,
                         CHANNELS)


@triton.jit
def _fed(totals, values, taps, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DEPTH: tl.constexpr):
    """Add STRIDE rows of inputs to each row of outputs that they reach."""
    for q in tl.static_range(STRIDE):
        for j in tl.static_range(KERNEL):
            value = _relu6(values[q * KERNEL + j].to(tl.float32))
            fed = ()
            for k in tl.static_range(DEPTH):
                total = totals[k]
                if STRIDE * (DEPTH - 1 - k) + q < KERNEL:
                    total += value * taps[(STRIDE * (DEPTH - 1 - k) + q) * KERNEL + j]
                fed += (total,)
            totals = fed
    return totals


@triton.jit
def _store_activated(outputs, row, total, height, width, real, CHANNELS: tl.constexpr):
    tl.store(outputs + row * (width * CHANNELS), _relu6(total).to(outputs.dtype.element_ty),
             real & (row >= 0) & (row < height))


@triton.jit(do_not_specialize=_SIZES)
def _backward_inputs(passed, inputs, weight, gradient, height, width, out_height, out_width,
                     columns, CHANNELS: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
                     ABOVE: tl.constexpr, LEFT: tl.constexpr,
                     BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    DEPTH: tl.constexpr = (KERNEL + STRIDE - 1) // STRIDE
    CELL: tl.constexpr = STRIDE * STRIDE
    ACROSS: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    place = (tl.program_id(0) // ACROSS * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
    channel = _channels(tl.program_id(0) % ACROSS, BLOCK_P, BLOCK_C)
    real = (place < columns) & (channel < CHANNELS)
    cells = (width + LEFT + STRIDE - 1) // STRIDE
    image, cell = (place // cells).to(tl.int64), place % cells
    left, out_left = cell * STRIDE - LEFT, cell - DEPTH + 1
    inside = _inside(left, width, real, STRIDE)
    out_inside = _inside(out_left, out_width, real, DEPTH)
    where = (image * height * width + left) * CHANNELS + channel
    inputs += where
    gradient += where
    passed += (image * out_height * out_width + out_left) * CHANNELS + channel
    taps = _filter(weight, channel, CHANNELS, KERNEL * KERNEL)
    zero = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    totals = _copies(zero, DEPTH * CELL)  # of the cells of the rows step to step + DEPTH - 1
    ahead = _rows(passed, 0, out_height, out_width, out_inside, CHANNELS, 1, DEPTH)
    cell_ahead = _rows(inputs, -ABOVE, height, width, inside, CHANNELS, STRIDE, STRIDE)
    for step in tl.range(out_height, loop_unroll_factor=_UNROLL):
        values, cell_values = ahead, cell_ahead
        ahead = _rows(passed, step + 1, out_height, out_width, out_inside, CHANNELS, 1, DEPTH)
        cell_ahead = _rows(inputs, (step + 1) * STRIDE - ABOVE, height, width, inside, CHANNELS,
                           STRIDE, STRIDE)
        totals = _spread(totals, values, taps, KERNEL, STRIDE, DEPTH)
        _store_cell(gradient, step * STRIDE - ABOVE, totals, cell_values, height, width, inside,
                    CHANNELS, STRIDE)
        totals = totals[CELL:] + _copies(zero, CELL)
    for k in tl.static_range(DEPTH - 1):
        row = (out_height + k) * STRIDE - ABOVE
        cell_values = _rows(inputs, row, height, width, inside, CHANNELS, STRIDE, STRIDE)
        _store_cell(gradient, row, totals[k * CELL:], cell_values, height, width, inside, CHANNELS,
                    STRIDE)


@triton.jit
def _spread(totals, values, taps, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
            DEPTH: tl.constexpr):
    """Add a row of the gradient to each place of the cells that reached it."""
    for k in tl.static_range(DEPTH):
        value = values[k].to(tl.float32)
        spread = ()
        for i in tl.static_range(STRIDE * DEPTH):
            for p in tl.static_range(STRIDE):
                total = totals[i * STRIDE + p]
                if i < KERNEL and STRIDE * (DEPTH - 1 - k) + p < KERNEL:
                    total += value * taps[i * KERNEL + STRIDE * (DEPTH - 1 - k) + p]
                spread += (total,)
        totals = spread
    return totals


@triton.jit
def _store_cell(gradient, row, totals, values, height, width, inside, CHANNELS: tl.constexpr,
                STRIDE: tl.constexpr):
    """Store STRIDE x STRIDE places of the gradient, where the first ReLU6 lets it pass."""
    for q in tl.static_range(STRIDE):
        for p in tl.static_range(STRIDE):
            value = values[q * STRIDE + p]
            total = tl.where((value > 0) & (value < 6), totals[q * STRIDE + p], 0.0)
            tl.store(gradient + (row + q) * (width * CHANNELS) + p * CHANNELS,
                     total.to(gradient.dtype.element_ty),
                     inside[p] & (row + q >= 0) & (row + q < height))


@triton.jit(do_not_specialize=(*_SIZES, 'blocks'))
def _backward_weight(gradient, outputs, inputs, passed, weight_sums, bias_sums, height, width,
                     out_height, out_width, columns, blocks,
                     CHANNELS: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
                     ABOVE: tl.constexpr, LEFT: tl.constexpr,
                     BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    DEPTH: tl.constexpr = (KERNEL + STRIDE - 1) // STRIDE
    ACROSS: tl.constexpr = (CHANNELS + BLOCK_C - 1) // BLOCK_C
    TAPS: tl.constexpr = KERNEL * KERNEL
    FIRST: tl.constexpr = ABOVE // STRIDE
    chunk, across = tl.program_id(0) // ACROSS, tl.program_id(0) % ACROSS
    channel = _channels(across, BLOCK_P, BLOCK_C)
    zero = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    sums, bias_sum = _copies(zero, TAPS), zero
    end = (height - 1 + ABOVE) // STRIDE + 1
    for block in range(blocks):
        place = ((chunk * blocks + block) * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
        real = (place < columns) & (channel < CHANNELS)
        image, column = (place // out_width).to(tl.int64), place % out_width
        left = column * STRIDE - LEFT
        inside = _inside(left, width, real, KERNEL)
        image_inputs = inputs + (image * height * width + left) * CHANNELS + channel
        where = (image * out_height * out_width + column) * CHANNELS + channel
        held = _copies(zero, DEPTH)  # of the rows step - DEPTH + 1 to step
        ahead = _pair(gradient + where, outputs + where, 0, out_height, out_width, real, CHANNELS)
        for row in tl.static_range(FIRST):
            pair = ahead
            ahead = _pair(gradient + where, outputs + where, row + 1, out_height, out_width, real,
                          CHANNELS)
            found = _pass(pair, passed + where, row, out_height, out_width, real, CHANNELS)
            bias_sum += found
            held = held[1:]
            held += (found,)
        values_ahead = _rows(image_inputs, FIRST * STRIDE - ABOVE, height, width, inside, CHANNELS,
                             STRIDE, KERNEL)
        for step in tl.range(FIRST, end, loop_unroll_factor=_UNROLL):
            pair, values = ahead, values_ahead
            ahead = _pair(gradient + where, outputs + where, step + 1, out_height, out_width, real,
                          CHANNELS)
            values_ahead = _rows(image_inputs, (step + 1) * STRIDE - ABOVE, height, width, inside,
                                 CHANNELS, STRIDE, KERNEL)
            found = _pass(pair, passed + where, step, out_height, out_width, real, CHANNELS)
            bias_sum += found
            held = held[1:]
            held += (found,)
            sums = _summed(sums, values, held, KERNEL, STRIDE, DEPTH)
    channel = across * BLOCK_C + tl.arange(0, BLOCK_C)
    for tap in tl.static_range(TAPS):
        tl.store(weight_sums + (chunk * TAPS + tap) * CHANNELS + channel,
                 tl.sum(sums[tap], axis=0), channel < CHANNELS)
    tl.store(bias_sums + chunk * CHANNELS + channel, tl.sum(bias_sum, axis=0), channel < CHANNELS)


@triton.jit
def _pair(gradient, outputs, row, height, width, real, CHANNELS: tl.constexpr):
    """Return a row of the gradient of the outputs and one of them."""
    where, inside = row * (width * CHANNELS), real & (row < height)
    return tl.load(gradient + where, inside, 0.0), tl.load(outputs + where, inside, 0.0)


@triton.jit
def _pass(pair, passed, row, height, width, real, CHANNELS: tl.constexpr):
    """Store and return what the last ReLU6 lets pass of a row of the gradient."""
    found = tl.where((pair[1] > 0) & (pair[1] < 6), pair[0], 0.0)
    tl.store(passed + row * (width * CHANNELS), found, real & (row < height))
    return found.to(tl.float32)


@triton.jit
def _summed(sums, values, held, KERNEL: tl.constexpr, STRIDE: tl.constexpr, DEPTH: tl.constexpr):
    """Add STRIDE rows of inputs times the gradients that they reached to the sum of each tap."""
    summed = ()
    for i in tl.static_range(KERNEL):
        for j in tl.static_range(KERNEL):
            value = _relu6(values[i % STRIDE * KERNEL + j].to(tl.float32))
            summed += (sums[i * KERNEL + j] + value * held[DEPTH - 1 - i // STRIDE],)
    return summed

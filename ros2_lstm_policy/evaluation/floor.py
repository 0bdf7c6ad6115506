"""
What a tick costs at the least on this machine: its products and bytes, and the rates it has here.

One tick is run as the policy is written, and every product of it is taken down. Then the machine
is measured: how fast it reads memory, how fast its best product is, and how long these very
products take alone, each with weights of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
import math
import time
from typing import Any

import numpy as np
from ros2_lstm_policy.runtime.engine import EagerEngine
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

_READ_BYTES = {'cpu': 1 << 28, 'cuda': 1 << 30}
_BEST_PRODUCT = {'cpu': 1024, 'cuda': 8192}
_COLD_COPIES = 8  # of a product's operands, so that it finds few of them in a cache
_TRIALS = 5
_VECTOR_PRODUCTS = (torch.ops.aten.mv, torch.ops.aten.addmv)


@dataclass(frozen=True)
class Floor:
    """
    Work of one tick, rates of this machine, and times that follow.

    :param weight_bytes: that the products read, each once.
    :param operations: multiplications and additions of the products.
    :param read_bytes_s: rate at which memory is read.
    :param operations_s: the best rate that was seen: of a large square product in the policy's
        precision, or of the tick's own.
    :param products_ms: these products alone, by the library, one after the other.
    :param frames_ms: the raw images onto the device; 0 on a CPU.
    """

    weight_bytes: int
    operations: int
    read_bytes_s: float
    operations_s: float
    products_ms: float
    frames_ms: float

    @property
    def read_ms(self) -> float:
        """Return how long the weights take to read."""
        return 1e3 * self.weight_bytes / self.read_bytes_s

    @property
    def compute_ms(self) -> float:
        """Return how long the products take at the best rate."""
        return 1e3 * self.operations / self.operations_s

    @property
    def least_ms(self) -> float:
        """Return what no program can be below here: reading or computing, and the frames."""
        return max(self.read_ms, self.compute_ms) + self.frames_ms


@dataclass(frozen=True)
class Product:
    """One operation: its operands' shapes, strides and types stand for them."""

    function: Any
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Operand:
    """A tensor without its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def make(self, device: torch.device) -> Tensor:
        """Return one with small random numbers."""
        extent = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride) if n)
        numbers = torch.randn(extent, device=device).to(self.dtype) * 0.02
        return numbers.as_strided(self.shape, self.stride)


@dataclass
class Record(TorchDispatchMode):
    """Takes down the products of what runs inside."""

    products: Counter[Product] = field(default_factory=Counter)
    operations: int = 0
    weights: dict[int, int] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin."""
        super().__init__()

    __hash__ = object.__hash__  # torch keeps modes in sets

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        """Look at one operation."""
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in flop_registry or packet in _VECTOR_PRODUCTS:
            self._take_down(func, packet, args, kwargs, found)
        self.made |= _places(found) - _places((args, kwargs))  # a view makes nothing
        return found

    def _take_down(self, func: Any, packet: Any, args: Any, kwargs: Any, found: Any) -> None:
        tensors = [each for each in args if isinstance(each, Tensor)]
        if packet in _VECTOR_PRODUCTS:
            self.operations += 2 * max(each.numel() for each in tensors)
        else:
            self.operations += flop_registry[packet](*args, **kwargs, out_val=found)
        for each in tensors:
            place = each.untyped_storage().data_ptr()
            if each.dim() > 1 and place not in self.made:
                self.weights[each.data_ptr()] = each.numel() * each.element_size()
        if not kwargs:
            self.products[Product(func, tuple(map(_as_operand, args)))] += 1


def measure(engine: EagerEngine, images: Mapping[str, np.ndarray], instruction: str) -> Floor:
    """Take down a tick of these images, and measure this machine."""
    with torch.no_grad():
        text, state = engine.encode_text(instruction), engine.start()
        seen = engine.preprocess(images, np.zeros(engine.state_size, np.float32))
        seen = seen._replace(images={name: image.clone() for name, image in seen.images.items()})
        record = Record()
        with record:
            engine.decode(engine.encode(seen, text), state)
        device = engine.device
        products_s = sum(count * _seconds(product, device, count)
                         for product, count in record.products.items())
        dtype = next(iter(_wide_types(record)), torch.float32)
        side = _BEST_PRODUCT[device.type]
        square = Product(torch.ops.aten.mm.default, (Operand((side, side), (side, 1), dtype),) * 2)
        best = max(2 * side ** 3 / _seconds(square, device, 4), record.operations / products_s)
    return Floor(sum(record.weights.values()), record.operations, _read_rate(device), best,
                 1e3 * products_s, 1e3 * _copy_s(images, device))


def _places(values: Any) -> set[int]:
    """Return where in memory the tensors among values begin."""
    return {each.untyped_storage().data_ptr() for each in tree_flatten(values)[0]
            if isinstance(each, Tensor)}


def _wide_types(record: Record) -> list[torch.dtype]:
    """Return the types of the products' operands, the most used first."""
    types = Counter(each.dtype for product, count in record.products.items()
                    for each in product.arguments if isinstance(each, Operand)
                    for _ in range(count))
    return [dtype for dtype, _ in types.most_common()]


def _as_operand(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Operand(tuple(value.shape), value.stride(), value.dtype)
    return tuple(value) if isinstance(value, list) else value


def _seconds(product: Product, device: torch.device, count: int) -> float:
    """Return how long one product takes among others of its kind."""
    copies = [[each.make(device) if isinstance(each, Operand) else each
               for each in product.arguments] for _ in range(min(count, _COLD_COPIES))]

    def run() -> None:
        for arguments in copies:
            product.function(*arguments)

    return _best_s(run, device) / len(copies)


def _best_s(run: Callable[[], object], device: torch.device) -> float:
    """Return the best of some runs; on a GPU as one graph, so that launches do not count."""
    if device.type == 'cuda':
        from ros2_lstm_policy.runtime.engine import capture_cuda_graph
        launch: Callable[[], object] = capture_cuda_graph(device, lambda: _ignored(run()))
    else:
        launch = run
        launch()
    taken = []
    for _ in range(_TRIALS):
        _synchronize(device)
        begin = time.perf_counter()
        launch()
        _synchronize(device)
        taken.append(time.perf_counter() - begin)
    return min(taken)


def _ignored(_: object) -> None:
    """Drop what a function gives."""


def _synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _read_rate(device: torch.device) -> float:
    size = _READ_BYTES[device.type]
    numbers = torch.ones(size // 4, device=device)
    return size / _best_s(numbers.sum, device)


def _copy_s(images: Mapping[str, np.ndarray], device: torch.device) -> float:
    """Return how long the raw images take onto a GPU, from memory that it reads by itself."""
    if device.type == 'cpu':
        return 0.0
    size = sum(math.prod(image.shape) for image in images.values())
    host = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
    there = torch.zeros(size, dtype=torch.uint8, device=device)
    return _best_s(lambda: there.copy_(host, non_blocking=True), device)

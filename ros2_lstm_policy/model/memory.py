"""Is there memory for a network? Asked of its outline, before any of it is taken."""

from __future__ import annotations

import os
from pathlib import Path

from ros2_lstm_policy.config import ConfigError
from torch import nn

UNCHECKED = 'ROS2_LSTM_POLICY_UNCHECKED_MEMORY'  # of the machine, so no key of a checkpoint
_MEMORY = Path('/proc/meminfo')
_GROUP_LIMIT, _GROUP_USED = (Path('/sys/fs/cgroup') / name
                             for name in ('memory.max', 'memory.current'))


def require(outline: nn.Module, where: str) -> None:
    """
    Check that the weights of a network fit into the memory that is free.

    :param outline: the network on the meta device, where it takes no memory.
    :param where: what describes it, for errors.
    :raises ConfigError: where they do not fit, and the variable UNCHECKED is not set.
    """
    needed, free = size(outline), available()
    if needed > free and not os.environ.get(UNCHECKED):
        raise ConfigError(
            f'{where}: the network needs {needed / 1e9:.1f} GB for its weights, {free / 1e9:.1f} '
            'GB of memory are free; is it the model that you want? Take a smaller one or another '
            f'dtype, make memory free, or set {UNCHECKED}=1 to try it all the same')


def size(network: nn.Module) -> int:
    """Return the bytes of all parameters and buffers, shared ones once."""
    return sum(value.nbytes for value in (*network.parameters(), *network.buffers()))


def available() -> int:
    """Return the bytes that this process can still take, by the machine and by its group."""
    lines = dict(line.split(':', 1) for line in _MEMORY.read_text().splitlines())
    free = int(lines['MemAvailable'].split()[0]) * 1024
    try:
        limit = int(_GROUP_LIMIT.read_text()) - int(_GROUP_USED.read_text())
    except (OSError, ValueError):  # no group, or "max"
        return free
    return max(0, min(free, limit))

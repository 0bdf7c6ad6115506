"""
Which action of which chunk is due now.

A schedule is a pure function: what is still of use from earlier chunks goes in and comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Pending: TypeAlias = tuple[np.ndarray, ...]
Schedule: TypeAlias = Callable[[np.ndarray, Pending], tuple[np.ndarray, Pending]]

DEFAULT_DECAY = 0.01  # ACT's m


def parse(text: str, chunk_size: int) -> Schedule:
    """
    Read a schedule from a parameter.

    :param text: 'first', 'chunk:N' or 'ensemble' with an optional ':DECAY'.
    :param chunk_size: actions in the policy's chunks.
    :raises ValueError: for anything else.
    """
    name, _, value = text.partition(':')
    if name == 'first' and not value:
        return first
    if name == 'chunk' and value.isdecimal() and 1 <= int(value) <= chunk_size:
        return ExecuteChunk(int(value))
    if name == 'ensemble':
        decay = _decay(value)
        if decay is not None:
            return TemporalEnsemble(decay)
    raise ValueError(f"execute: expected 'first', 'chunk:N' with N from 1 to {chunk_size}, or "
                     f"'ensemble' or 'ensemble:DECAY' with a decay of at least 0, found {text!r}")


def first(chunk_KA: np.ndarray, pending: Pending) -> tuple[np.ndarray, Pending]:
    """Do the first action of every chunk: what the policy thinks now."""
    return chunk_KA[0], ()


@dataclass(frozen=True)
class ExecuteChunk:
    """
    Do the first `actions` actions of a chunk, then those of the chunk of that moment.

    Chunks in between still enter the history; only their actions are not used.
    """

    actions: int

    def __call__(self, chunk_KA: np.ndarray, pending: Pending) -> tuple[np.ndarray, Pending]:
        """Return the action due, and the rest of its chunk."""
        rows = pending[0] if pending else chunk_KA[:self.actions]
        return rows[0], (rows[1:],) if len(rows) > 1 else ()


@dataclass(frozen=True)
class TemporalEnsemble:
    """
    Average what all chunks that reach this moment say about it.

    ACT (arXiv 2304.13705, section IV.B): weight exp(-decay * i), i = 0 for the oldest chunk.
    """

    decay: float = DEFAULT_DECAY

    def __call__(self, chunk_KA: np.ndarray, pending: Pending) -> tuple[np.ndarray, Pending]:
        """Return the average, and the chunks that also reach the next moment."""
        chunks = (*pending, chunk_KA)
        weights = np.exp(-self.decay * np.arange(len(chunks)))
        said = np.stack([chunk[0] for chunk in chunks])
        action = (weights @ said / weights.sum()).astype(np.float32)
        return action, tuple(chunk[1:] for chunk in chunks if len(chunk) > 1)


def _decay(value: str) -> float | None:
    try:
        decay = float(value) if value else DEFAULT_DECAY
    except ValueError:
        return None
    return decay if decay >= 0 else None

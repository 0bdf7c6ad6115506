"""
Qwen-VL's image network with all that depends on sizes alone made once.

The library computes positions, windows and sequence lengths from a grid at every call, and reads
them back from the device, which no CUDA graph can hold. A robot's images keep their size: here
they are made once for each size and passed in, lengths as plain numbers. Windows of one length
are attended to as one batch.

Letters beside those of `types`: N patches of all images, H heads, S patches of one sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
import sys
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor

_KEPT_SIZES = 16  # of images and batches; a robot has one


def attend_by_numbers(tower: Any) -> None:
    """Let the tower's attention take lengths that are plain numbers; it still takes tensors."""
    for block in tower.blocks:
        block.attn.forward = MethodType(_attend, block.attn)


def encode(tower: Any, patches: Tensor, images: int, rows: int, columns: int) -> Any:
    """
    Run the tower.

    :param patches: of all images, each of `rows` times `columns`, in the order of the merger.
    :return: the library's output.
    """
    facts = _Facts._make(getattr(tower, name, None) for name in _Facts._fields)
    return tower(patches, grid_thw=None, **_sizes(facts, images, rows, columns, patches.device))


class _Facts(NamedTuple):
    """What the tower's attributes of these names say; None where it has no such."""

    spatial_merge_size: int
    patch_size: int
    window_size: int | None
    num_grid_per_side: int | None
    interpolation_mode: str
    interpolation_align_corners: bool


@lru_cache(maxsize=_KEPT_SIZES)
def _sizes(tower: _Facts, images: int, rows: int, columns: int,
           device: torch.device) -> dict[str, Any]:
    """Return what the library would compute from the grid, by its names."""
    from transformers import vision_utils
    merge = tower.spatial_merge_size
    with torch.inference_mode(False):  # kept: training may follow acting
        grid = torch.tensor([[1, rows, columns]] * images)
        made: dict[str, Any] = {
            'position_ids': vision_utils.get_vision_position_ids(grid, merge).to(device),
            'cu_seqlens': (rows * columns,) * images}
        if tower.window_size is not None:
            index, ends = vision_utils.get_vision_window_index(
                grid, merge, tower.window_size, tower.patch_size)
            made |= {'window_index': index.to(device),
                     'cu_window_seqlens': tuple(ends.diff().tolist())}
        if tower.num_grid_per_side is not None:
            indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
                grid, tower.num_grid_per_side, tower.interpolation_mode,
                tower.interpolation_align_corners, merge)
            made |= {'interp_indices': indices.to(device), 'interp_weights': weights.to(device)}
    return made


def _attend(attention: Any, hidden_states: Tensor, cu_seqlens: tuple[int, ...] | Tensor,
            position_embeddings: tuple[Tensor, Tensor], **extra: Any) -> Tensor:
    """Do what the library's attention does; within each of the lengths, if they are numbers."""
    if isinstance(cu_seqlens, Tensor):
        return type(attention).forward(attention, hidden_states, cu_seqlens,
                                       position_embeddings=position_embeddings, **extra)
    library = sys.modules[type(attention).__module__]
    query, key, value = attention.qkv(hidden_states).unflatten(
        -1, (3, attention.num_heads, -1)).unbind(1)
    query, key = library.apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    attend = _attention_of(attention, library)
    if len(set(cu_seqlens)) == 1:
        parts = [tuple(part.unflatten(0, (len(cu_seqlens), -1)).transpose(1, 2)
                       for part in (query, key, value))]  # (windows, H, S, D)
    else:
        parts = list(zip(*(part.transpose(0, 1)[None].split(cu_seqlens, 2)
                           for part in (query, key, value))))
    outputs = [attend(attention, *part, attention_mask=None, scaling=attention.scaling,
                      dropout=0.0, is_causal=False)[0].flatten(0, 1) for part in parts]
    return attention.proj(torch.cat(outputs).flatten(1))


def _attention_of(attention: Any, library: Any) -> Callable[..., tuple[Tensor, ...]]:
    return library.ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, library.eager_attention_forward)

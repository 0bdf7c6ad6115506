"""
Steps of a batch that see the same as the step before, so that it is encoded once.

A robot that waits sees one image for as long as it waits: half of the frames of a memory task.

Letters as in `types`, and U step that sees something new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Distinct(NamedTuple):
    """
    Which steps of a batch see something new.

    :param first_U: their places among all B * T steps; the last ones may be repetitions.
    :param of_BT: which of them each step sees the same as.
    """

    first_U: Tensor
    of_BT: Tensor


def distinct(images_CBT: Sequence[np.ndarray], multiple: int = 1) -> Distinct | None:
    """
    Find them; None where all do, or hardly fewer.

    :param images_CBT: the number of each step's image, one array (B, T) a camera.
    :param multiple: what U is filled up to: a GPU tunes its kernels for each shape anew.
    """
    import torch
    images = np.asarray(images_CBT)
    new_BT = np.ones(images.shape[1:], bool)
    new_BT[:, 1:] = (images[:, :, 1:] != images[:, :, :-1]).any(0)
    count = -(-int(new_BT.sum()) // multiple) * multiple
    if count >= new_BT.size:
        return None
    first_U = np.zeros(count, np.int64)
    first_U[:new_BT.sum()] = np.flatnonzero(new_BT)
    of_BT = (np.cumsum(new_BT) - 1).reshape(new_BT.shape)
    return Distinct(torch.from_numpy(first_U), torch.from_numpy(of_BT))

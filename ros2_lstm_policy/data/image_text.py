"""
Image-text pairs for vision-language co-training.

A data set is a directory in Hugging Face's `imagefolder` layout: images, and beside them
`metadata.jsonl` with one `{"file_name": ..., "text": ...}` a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import NamedTuple, TYPE_CHECKING

import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.manifest import CameraSpec

if TYPE_CHECKING:
    from torch import Tensor

METADATA = 'metadata.jsonl'


@dataclass(frozen=True)
class CotrainConfig:
    """
    Where pairs come from and how many join each batch of windows.

    :param path: directory with `metadata.jsonl`.
    :param batch_size: pairs beside each batch of windows.
    :param camera: the camera whose place the images take.
    """

    path: Path
    batch_size: int = 2
    camera: str = 'static'

    def __post_init__(self) -> None:
        """Validate the batch size: at least 1."""
        if self.batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, found {self.batch_size}')


class PairBatch(NamedTuple):
    """
    Image-text pairs for training.

    :param images_BHWC: uint8, resized by the camera.
    :param texts: B strings.
    """

    images_BHWC: Tensor
    texts: Sequence[str]


@dataclass(frozen=True)
class PairSet:
    """
    The pairs of one directory, read when they are needed.

    :param lines: file and text of each pair.
    """

    lines: tuple[tuple[Path, str], ...]
    camera: CameraSpec

    @classmethod
    def load(cls, path: Path, camera: CameraSpec) -> PairSet:
        """
        Read the list of pairs and check that every image is there.

        :raises ValueError: naming the line that is wrong.
        """
        try:
            text = (path / METADATA).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f'{path}: expected {METADATA} with one {{"file_name", "text"}} a '
                             f'line: {error}') from error
        lines = tuple(_pair(path, number, line)
                      for number, line in enumerate(text.splitlines(), 1) if line.strip())
        if not lines:
            raise ValueError(f'{path / METADATA}: holds no pair')
        return cls(lines, camera)

    def only(self, kept: Sequence[bool]) -> PairSet:
        """Return the pairs that are to be kept; :raises ValueError: where none is."""
        if not any(kept):
            raise ValueError(f'{self.lines[0][0].parent}: no pair is left to train on')
        return replace(self, lines=tuple(line for line, keep in zip(self.lines, kept) if keep))

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.lines)

    def gather(self, ids_B: np.ndarray) -> PairBatch:
        """Read pairs by their numbers."""
        import torch
        images = [transforms.resize(_read(self.lines[i][0]), self.camera) for i in ids_B]
        return PairBatch(torch.from_numpy(np.stack(images)), [self.lines[i][1] for i in ids_B])


def _pair(path: Path, number: int, line: str) -> tuple[Path, str]:
    where = f'{path / METADATA}:{number}'
    try:
        values = json.loads(line)
        file, text = path / values['file_name'], values['text']
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{where}: expected {{"file_name": ..., "text": ...}}: {error!r}'
                         ) from error
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{where}: expected a text, found {text!r}')
    if not file.is_file():
        raise ValueError(f'{where}: {file} does not exist')
    return file, text


def _read(path: Path) -> np.ndarray:
    from PIL import Image
    try:
        with Image.open(path) as image:
            return np.array(image.convert('RGB'))
    except Exception as error:  # what Pillow raises depends on the byte that is wrong
        raise ValueError(f'{path}: expected an image, found one that cannot be decoded '
                         f'({error}); remove its line from {METADATA}') from error

r"""
Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923) and Qwen3-VL (Bai et al. 2025, arXiv 2511.21631).

`... user\n <|vision_start|><|image_pad|>...<|vision_end|> INSTRUCTION ... assistant\n [action]`:
each camera keeps its own size, a token for every 28x28 (Qwen2.5) or 32x32 (Qwen3) pixels.

Traps: positions have three parts (time, row, column; M-RoPE), and the words after an image go on
from the larger side of its grid. Qwen3-VL also adds vision features to the first layers of the
language model (DeepStack), which plain embeddings would lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from einops import rearrange, repeat
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import TextTokens
from ros2_lstm_policy.model.backbones.hugging_face import qwen_tower
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.model.backbones.hugging_face.family import (causal_states, Frame,
                                                                  ImageTokens, Options, Traits)
import torch
from torch import Tensor

SYSTEM = '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'
CHAT = '<|im_start|>user\n{images}{instruction}<|im_end|>\n<|im_start|>assistant\n'


class QwenVL:
    """
    What differs for one version of Qwen-VL.

    :param model_type: as config.json names the version.
    :param prompt: the version's chat, up to the assistant's turn.
    """

    def __init__(self, model_type: str, prompt: str) -> None:
        """Take the version."""
        self.traits = Traits((model_type,), prompt, ('model.visual',),
                             '<|vision_start|><|image_pad|><|vision_end|>', '<|image_pad|>')

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Accept multiples of a token's side."""
        vision = config.vision_config
        side = vision.patch_size * vision.spatial_merge_size
        if camera.height % side or camera.width % side:
            raise ConfigError(f'camera {camera.name!r}: {camera.height}x{camera.width}, but '
                              f'{config.model_type} takes multiples of {side}; set height and '
                              'width of the camera in the manifest')

    def patches(self, model: Any, pixels_BCHW: Tensor) -> Tensor:
        """Cut images into patches, in the order of the merger; a still is a short film."""
        vision = model.config.vision_config
        merge, patch = vision.spatial_merge_size, vision.patch_size
        return repeat(pixels_BCHW, 'b c (gh mh ph) (gw mw pw) -> (b gh gw mh mw) (c t ph pw)',
                      mh=merge, mw=merge, ph=patch, pw=patch, t=vision.temporal_patch_size)

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Encode whole frames."""
        vision, batch = model.config.vision_config, len(pixels_BCHW)
        merge = vision.spatial_merge_size
        rows, columns = (side // vision.patch_size for side in pixels_BCHW.shape[-2:])
        found = qwen_tower.encode(model.model.visual, self.patches(model, pixels_BCHW), batch,
                                  rows, columns)
        deep = tuple(rearrange(layer, '(b n) d -> b n d', b=batch)
                     for layer in getattr(found, 'deepstack_features', None) or ())
        tokens = rearrange(found.pooler_output, '(b n) d -> b n d', b=batch)
        return ImageTokens(tokens, (rows // merge, columns // merge), deep)

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Run the language model with three-part positions and, in Qwen3-VL, deep features."""
        positions = rope_positions(frame)[:, None].expand(-1, len(frame.embeds_BND), -1)
        return causal_states(model.model.language_model, frame, position_ids=positions,
                             **_deep_features(frame))

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Return the column before each text token."""
        return self.hidden_states(model, frame)[:, -text.ids_BN.shape[1]:-1]


def rope_positions(frame: Frame) -> Tensor:
    """Return time, row and column of each token, (3, N); the same for all rows of the batch."""
    device, length = frame.embeds_BND.device, frame.embeds_BND.shape[1]
    parts, column, following = [], 0, 0
    for start, image in frame.spans:
        words = torch.arange(start - column, device=device) + following
        following += start - column
        rows, columns = image.grid
        row = torch.arange(rows, device=device).repeat_interleave(columns)
        col = torch.arange(columns, device=device).repeat(rows)
        parts += [words.expand(3, -1), torch.stack([torch.zeros_like(row), row, col]) + following]
        following += max(rows, columns)
        column = start + rows * columns
    words = torch.arange(length - column, device=device) + following
    return torch.cat([*parts, words.expand(3, -1)], 1)


def create(options: Options, cameras: Sequence[CameraSpec],
           checkpoint: Path | None = None) -> HuggingFaceBackbone:
    """Build the backbone of the version that config.json names."""
    versions = (QwenVL('qwen2_5_vl', SYSTEM + CHAT), QwenVL('qwen3_vl', CHAT))
    backbone = HuggingFaceBackbone(versions, options, cameras, checkpoint)
    qwen_tower.attend_by_numbers(backbone.model.model.visual)
    if hasattr(backbone.model.model.language_model, '_deepstack_process'):
        backbone.model.model.language_model._deepstack_process = _add_deep
    return backbone


def _deep_features(frame: Frame) -> dict[str, Any]:
    """Return what DeepStack adds to the first layers: a vector for every column, (B, N, D)."""
    if not any(image.deep for _, image in frame.spans):
        return {}
    deep = []
    for layers in zip(*(image.deep for _, image in frame.spans)):
        added = torch.zeros_like(frame.embeds_BND)
        for (start, _), layer in zip(frame.spans, layers):
            added[:, start:start + layer.shape[1]] = layer
        deep.append(added)
    return {'deepstack_visual_embeds': deep}


def _add_deep(hidden_BND: Tensor, columns_BN: Tensor | None, deep: Tensor) -> Tensor:
    """
    Add DeepStack's features.

    :param columns_BN: the columns of images, as the library says them; which ones a mask holds
        is read back from the device, so we pass none, and a vector for every column.
    """
    if columns_BN is None:
        return hidden_BND + deep
    return hidden_BND.masked_scatter(columns_BN[..., None],
                                     hidden_BND[columns_BN] + deep.to(hidden_BND.dtype))

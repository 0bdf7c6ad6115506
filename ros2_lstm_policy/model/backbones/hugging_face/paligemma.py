r"""
PaliGemma 1 and 2 (Beyer et al. 2024, arXiv 2407.07726; Steiner et al. 2024, arXiv 2412.03555).

`<image>... <bos> INSTRUCTION \n [action]`: images and words are a prefix whose columns all see
each other, the action token stands behind it and sees all (`prefix_attention`).

RoboVLMs fed embeddings to transformers 4.44.0, which makes Gemma's attention causal then, put the
images behind a leading `<eos>` and the action token before the last column: an imported checkpoint
keeps this (`layout: robovlms`, `prefix_attention: false`, prompt `<eos>{instruction}\n`).

Traps: since transformers 5 the word embedding holds the factor sqrt(width) itself, image features
are not divided by it any more, and an action token from before is multiplied by it on import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any

from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import TextTokens
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.model.backbones.hugging_face.family import (causal_states, check_square,
                                                                  Frame, ImageTokens,
                                                                  Options as CommonOptions,
                                                                  Traits)
import torch
from torch import Tensor


@dataclass(frozen=True)
class Options(CommonOptions):
    """
    What a configuration says about PaliGemma.

    :param prefix_attention: images and words see each other, as PaliGemma was trained; False for
        a causal model, as RoboVLMs trained it.
    """

    prefix_attention: bool = True


class PaliGemma:
    """What differs for PaliGemma."""

    def __init__(self, prefix_attention: bool) -> None:
        """Choose the attention."""
        self.traits = Traits(('paligemma',), '{images}<bos>{instruction}\n',
                             ('model.vision_tower', 'model.multi_modal_projector'),
                             '<image>', '<image>', causal=not prefix_attention)

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Accept the size that the vision tower's positions were learned for."""
        check_square(config, camera)

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Project all patch features of SigLIP."""
        tokens = model.model.get_image_features(pixel_values=pixels_BCHW).pooler_output
        side = math.isqrt(tokens.shape[1])
        return ImageTokens(tokens, (side, side))

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Run Gemma; positions begin at 1."""
        length = frame.embeds_BND.shape[1]
        if not self.traits.causal:
            window = getattr(model.config.text_config, 'sliding_window', None)
            if window is not None and length > window:
                raise ValueError(f'{length} tokens are more than the sliding window of {window}')
            frame = frame._replace(mask_BN=prefix_mask(frame))
        positions = torch.arange(1, length + 1, device=frame.embeds_BND.device)[None]
        return causal_states(model.model.language_model, frame, position_ids=positions)

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Return the column before each text token; words see the images and earlier words."""
        return self.hidden_states(model, frame)[:, -text.ids_BN.shape[1]:-1]


def prefix_mask(frame: Frame) -> Tensor:
    """Return what is added to the attention scores, (B, 1, N, N): 0 where a column is seen."""
    columns = torch.arange(frame.embeds_BND.shape[1], device=frame.embeds_BND.device)
    in_prefix_BN = columns < frame.prefix_B[:, None]
    seen_BNN = (columns[None, :, None] >= columns) | in_prefix_BN[:, None]
    seen_BNN = seen_BNN & frame.valid_BN[:, None]
    hidden = torch.finfo(frame.embeds_BND.dtype).min
    zeros = torch.zeros_like(seen_BNN, dtype=frame.embeds_BND.dtype)
    return zeros.masked_fill(~seen_BNN, hidden)[:, None]


def create(options: Options, cameras: Sequence[CameraSpec],
           checkpoint: Path | None = None) -> HuggingFaceBackbone:
    """Build the backbone."""
    return HuggingFaceBackbone((PaliGemma(options.prefix_attention),), options, cameras,
                               checkpoint)

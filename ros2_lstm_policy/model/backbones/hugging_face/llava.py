r"""
LLaVA 1.5 (Liu et al. 2023, arXiv 2310.03744) and models of its layout.

`<s> USER: <image>... \n INSTRUCTION ASSISTANT: [action]`: all patch tokens of each camera (576 at
336x336) without the class token, from the layer and by the strategy that config.json names.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path
from typing import Any

from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import TextTokens
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.model.backbones.hugging_face.family import (causal_states, check_square,
                                                                  Frame, ImageTokens, Options,
                                                                  Traits)
import torch
from torch import Tensor


class Llava:
    """What differs for LLaVA."""

    traits = Traits(('llava',), 'USER: {images}{instruction} ASSISTANT:',
                    ('model.vision_tower', 'model.multi_modal_projector'),
                    '<image>\n', '<image>', adds_special_tokens=True)

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Accept the size that the vision tower's positions were learned for."""
        check_square(config, camera)

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Project the patch features."""
        if _is_read_behind_one_layer_of_clip(model):
            tokens = model.model.multi_modal_projector(_clip_features(model, pixels_BCHW))
        else:
            found = model.model.get_image_features(pixel_values=pixels_BCHW).pooler_output
            tokens = torch.stack(list(found))
        side = math.isqrt(tokens.shape[1])
        return ImageTokens(tokens, (side, side))

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Run the language model."""
        return causal_states(model.model.language_model, frame)

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Return the column before each text token."""
        return self.hidden_states(model, frame)[:, -text.ids_BN.shape[1]:-1]


def create(options: Options, cameras: Sequence[CameraSpec],
           checkpoint: Path | None = None) -> HuggingFaceBackbone:
    """Build the backbone."""
    return HuggingFaceBackbone((Llava(),), options, cameras, checkpoint)


def _is_read_behind_one_layer_of_clip(model: Any) -> bool:
    return (model.config.vision_config.model_type == 'clip_vision_model'
            and isinstance(model.config.vision_feature_layer, int))


def _clip_features(model: Any, pixels_BCHW: Tensor) -> Tensor:
    """Return the patches' states, without computing the layers behind those that are read."""
    tower, layer = model.model.vision_tower, model.config.vision_feature_layer
    blocks = tower.encoder.layers
    states = tower.pre_layrnorm(tower.embeddings(pixels_BCHW))
    for block in blocks[:layer if layer >= 0 else len(blocks) + 1 + layer]:
        states = block(states, attention_mask=None)
    return states[:, 1:] if model.config.vision_feature_select_strategy == 'default' else states

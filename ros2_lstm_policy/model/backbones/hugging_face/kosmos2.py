"""
Kosmos-2 (Peng et al. 2023, arXiv 2306.14824), as RoboVLMs uses it.

`<s> [image tokens of each camera] <grounding> An image of a robot INSTRUCTION [action]`: 64 tokens
an image behind the first token, no image-start or image-end tokens. A published checkpoint with
a hand camera has the hand image first, so the manifest of an import names the hand camera first.

Traps: the language model scales every embedding by sqrt(width) and adds sinusoidal positions that
count padding; the published layout (`layout: robovlms`) pads before the action token, so there
padding shifts the action token's position and changes the feature, as it did in training.
"""

from __future__ import annotations

from collections.abc import Sequence
import copy
from pathlib import Path
from typing import Any

from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import TextTokens
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.model.backbones.hugging_face.family import (causal_states, check_square,
                                                                  Frame, ImageTokens, Options,
                                                                  Traits)
from torch import Tensor
from torch.nn import functional


class Kosmos2:
    """What differs for Kosmos-2."""

    traits = Traits(('kosmos-2',), '<grounding>An image of a robot {instruction}',
                    ('vision_model', 'image_to_text_projection'), adds_special_tokens=True)

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Accept the size that the vision tower's positions were learned for."""
        check_square(config, camera)

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Resample the normalised patch features to `latent_query_num` tokens."""
        vision = model.vision_model
        patches = vision.model.post_layernorm(vision(pixel_values=pixels_BCHW)[0])
        tokens, _ = model.image_to_text_projection(functional.normalize(patches, dim=-1))
        return ImageTokens(tokens, (1, tokens.shape[1]))

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Run the text model; it scales the embeddings and adds the positions."""
        return causal_states(model.text_model.model, frame)

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Return the column before each text token; the images stand before the second one."""
        return self.hidden_states(model, frame)[:, -text.ids_BN.shape[1]:-1]


def create(options: Options, cameras: Sequence[CameraSpec],
           checkpoint: Path | None = None) -> HuggingFaceBackbone:
    """Build the backbone."""
    backbone = HuggingFaceBackbone((Kosmos2(),), options, cameras, checkpoint)
    _keep_projection_bidirectional(backbone.model.image_to_text_projection)
    _leave_masking_to_causality(backbone.model.text_model.model)
    return backbone


def _keep_projection_bidirectional(projection: Any) -> None:
    """Use eager attention there: before transformers 5.23 its sdpa attention turned causal."""
    projection.x_attn.config = copy.copy(projection.x_attn.config)
    projection.x_attn.config._attn_implementation = 'eager'


def _leave_masking_to_causality(text_model: Any) -> None:
    """Build no additive mask where there is nothing but causality: flash attention takes none."""
    prepare = text_model._prepare_decoder_attention_mask

    def mask(attention_mask: Tensor | None, *shape: Any) -> Tensor | None:
        if attention_mask is None and text_model.config._attn_implementation == 'sdpa':
            return None
        return prepare(attention_mask, *shape)

    text_model._prepare_decoder_attention_mask = mask

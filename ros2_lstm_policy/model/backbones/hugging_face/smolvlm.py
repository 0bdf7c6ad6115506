r"""
SmolVLM and Idefics3 (Marafioti et al. 2025, arXiv 2504.05299; Laurencon et al. 2024, 2408.12637).

`<|im_start|>User:<fake_token_around_image><global-img><image>...<fake_token_around_image>
INSTRUCTION<end_of_utterance>\nAssistant: [action]`: the global view alone, one image a camera,
without the split into tiles that the chat processor makes of large pictures.

Trap: the library drops images whose normalised pixels are all exactly zero (it takes them for
padding). A grey frame is an image here: the tower is called without that rule.
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
from torch import Tensor


class SmolVLM:
    """What differs for SmolVLM and Idefics3."""

    traits = Traits(('smolvlm', 'idefics3'),
                    '<|im_start|>User:{images}{instruction}<end_of_utterance>\nAssistant:',
                    ('model.vision_model', 'model.connector'),
                    '<fake_token_around_image><global-img><image><fake_token_around_image>',
                    '<image>')

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Accept the square that the connector's pixel shuffle was made for."""
        check_square(config, camera)

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Encode whole frames and fold neighbouring patches into one token."""
        tower = model.model.vision_model
        patches = tower.embeddings.patch_embedding(pixels_BCHW).flatten(2).transpose(1, 2)
        # A whole image of the tower's size: its patches have the positions 0, 1, 2, ... The
        # library finds them by a mask, which is read back from the device.
        states = patches + tower.embeddings.position_embedding.weight[:patches.shape[1]]
        states = tower.encoder(inputs_embeds=states, attention_mask=None).last_hidden_state
        tokens = model.model.connector(tower.post_layernorm(states))
        side = math.isqrt(tokens.shape[1])
        return ImageTokens(tokens, (side, side))

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Run the language model."""
        return causal_states(model.model.text_model, frame)

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Return the column before each text token."""
        return self.hidden_states(model, frame)[:, -text.ids_BN.shape[1]:-1]


def create(options: Options, cameras: Sequence[CameraSpec],
           checkpoint: Path | None = None) -> HuggingFaceBackbone:
    """Build the backbone."""
    return HuggingFaceBackbone((SmolVLM(),), options, cameras, checkpoint)

"""
Florence-2 (Xiao et al. 2023, arXiv 2311.06242): an encoder-decoder.

`<image>... <s> INSTRUCTION </s> [action]` goes through the encoder, whose tokens all see each
other, and the feature is the encoder's state at the action token; the decoder is for words alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import TextTokens
from ros2_lstm_policy.model.backbones.hugging_face.backbone import HuggingFaceBackbone
from ros2_lstm_policy.model.backbones.hugging_face.family import (Frame, ImageTokens, Options,
                                                                  Traits)
import torch
from torch import Tensor


class Florence2:
    """What differs for Florence-2."""

    traits = Traits(('florence2',), '{images}<s>{instruction}</s>',
                    ('model.vision_tower', 'model.multi_modal_projector'),
                    '<image>', '<image>', causal=False, other_text={
                        'florence2_language': 'florence-community/Florence-2-base or -large, the '
                                              'same weights as this library names them'})

    def check_image(self, config: Any, camera: CameraSpec) -> None:
        """Accept multiples of the tower's stride, up to its learned positions."""
        vision = config.vision_config
        stride = 1
        for step in vision.patch_stride:
            stride *= step
        largest = stride * vision.max_position_embeddings
        for side in (camera.height, camera.width):
            if side % stride or side > largest:
                raise ConfigError(f'camera {camera.name!r}: {camera.height}x{camera.width}, but '
                                  f'this florence2 takes multiples of {stride} up to {largest}; '
                                  'set height and width of the camera in the manifest')

    def image_tokens(self, model: Any, pixels_BCHW: Tensor) -> ImageTokens:
        """Encode: one token for the whole image, then one for each place."""
        tokens = model.model.get_image_features(pixel_values=pixels_BCHW).pooler_output
        return ImageTokens(tokens, (1, tokens.shape[1]))

    def hidden_states(self, model: Any, frame: Frame) -> Tensor:
        """Run the encoder."""
        length = frame.embeds_BND.shape[1]
        largest = model.config.text_config.max_position_embeddings
        if length > largest:
            raise ValueError(f'{length} tokens a frame, the encoder has positions for {largest}; '
                             'use smaller images or fewer cameras')
        return model.model.language_model.encoder(
            inputs_embeds=frame.embeds_BND,
            attention_mask=_padding_mask(frame)).last_hidden_state

    def text_states(self, model: Any, frame: Frame, text: TextTokens) -> Tensor:
        """Let the decoder say the text, seeing the images through the encoder."""
        ids_BM = text.ids_BN.to(frame.embeds_BND.device)
        images = frame._replace(embeds_BND=frame.embeds_BND[:, :-ids_BM.shape[1]],
                                valid_BN=frame.valid_BN[:, :-ids_BM.shape[1]],
                                mask_BN=frame.valid_BN[:, :-ids_BM.shape[1]])
        start = torch.full_like(ids_BM[:, :1], model.config.text_config.decoder_start_token_id)
        decoded = model.model.language_model.decoder(
            input_ids=torch.cat([start, ids_BM[:, :-1]], 1),
            encoder_hidden_states=self.hidden_states(model, images), use_cache=False)
        return decoded.last_hidden_state[:, 1:]


def create(options: Options, cameras: Sequence[CameraSpec],
           checkpoint: Path | None = None) -> HuggingFaceBackbone:
    """Build the backbone."""
    return HuggingFaceBackbone((Florence2(),), options, cameras, checkpoint)


def _padding_mask(frame: Frame) -> Tensor:
    """
    Return what is added to the attention scores, (B, 1, N, N): 0 where a column is seen.

    From a mask of two dimensions the library makes the same, but first reads back whether it
    hides anything, which a CUDA graph cannot.
    """
    hidden_BN = ~frame.valid_BN
    length = hidden_BN.shape[1]
    added_BN = torch.zeros_like(hidden_BN, dtype=frame.embeds_BND.dtype).masked_fill(
        hidden_BN, torch.finfo(frame.embeds_BND.dtype).min)
    return added_BN[:, None, None].expand(-1, 1, length, -1)

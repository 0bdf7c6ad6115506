"""
One machine for all Hugging Face vision-language models; a family file says what is different.

One frame is one sequence: the words before the images, the image tokens of each camera in the
manifest's order, the words with the instruction, and a learned action token. The feature is the
last hidden state at the action token ("continuous action token" of RoboVLMs, arXiv 2412.14058),
or, without one, the hidden states of the text, of the images or of all. The vocabulary projection
runs for language losses alone.

Padding stands after the action token, where a causal model cannot see it, so that a padded batch
equals the same instructions one by one. Letters beside those of `types`: P action tokens, M text
tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model.backbones.base import EncodedText, Parts, TextTokens
from ros2_lstm_policy.model.backbones.hugging_face import hub, pretrained
from ros2_lstm_policy.model.backbones.hugging_face.family import (Family, Frame, ImageTokens,
                                                                  Options, Span)
from ros2_lstm_policy.model.backbones.hugging_face.fused import join_products, multiply_patches
from ros2_lstm_policy.model.backbones.hugging_face.prompt import Prompt
import torch
from torch import nn, Tensor
from torch.nn import functional

ASSETS = 'backbone'  # where config.json and the tokenizer files lie in a checkpoint
_TEXT_STEP = 32  # tokens: most instructions are shorter
_ALIGNED_COLUMNS = 8  # of an attention mask: with others a GPU takes half as long again
_SAME_LAYERS = 4  # a tower has at least as many blocks of one shape


class HuggingFaceBackbone(nn.Module):
    """A Hugging Face model behind the `Backbone` Protocol, and a `LanguageModel` too."""

    capturable = True  # a family file sees to it that nothing is read back

    def __init__(self, families: Sequence[Family], options: Options,
                 cameras: Sequence[CameraSpec], checkpoint: Path | None = None) -> None:
        """
        Load the model's weights, or only build it where a checkpoint's weights follow.

        :param families: the variants that the module knows; config.json chooses one.
        :param checkpoint: a directory that :meth:`save_assets` wrote into; None to load
            `options.directory`.
        :raises ConfigError: for a model that is not here, is another or does not fit.
        """
        super().__init__()
        self.options = options
        self.cameras = tuple(camera.name for camera in cameras)
        where = checkpoint / ASSETS if checkpoint else \
            hub.find(options.directory, options.allow_download)
        known = {name: family for family in families for name in family.traits.model_types}
        self.directory = pretrained.check(where, tuple(known))
        self.family = known[self.directory.model_type]
        pretrained.check_text(self.directory, self.family.traits.other_text)
        self.tokenizer = pretrained.load_tokenizer(self.directory)
        only_built = checkpoint or torch.get_default_device().type == 'meta'
        make = pretrained.build_model if only_built else pretrained.load_model
        self.model = make(self.directory, options.dtype, options.attention)
        for camera in cameras:
            self.family.check_image(self.model.config, camera)
        words, self.feature_dim = self.model.get_input_embeddings().weight.shape
        pretrained.check_vocabulary(self.directory, self.tokenizer, words)
        if options.feature == 'action_token':
            self.action_token = nn.Parameter(torch.zeros(self.feature_dim))
        self._prompt = Prompt(self.family, options, self.tokenizer, len(self.cameras))
        self._before: dict[tuple[int, torch.device], list[Tensor | None]] = {}

    def tokenize(self, instructions: Sequence[str]) -> TextTokens:
        """Turn instructions into the tokens that follow the images, padded on the right."""
        rows = [self._prompt.text_ids(instruction) for instruction in instructions]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, :len(row)], mask[i, :len(row)] = torch.tensor(row), True
        return TextTokens(ids, mask)

    def encode_text(self, text: TextTokens) -> EncodedText:
        """Look the words up: (B, M, D) embeddings."""
        embed = self.model.get_input_embeddings()
        device = embed.weight.device
        return EncodedText(embed(text.ids_BN.to(device)), text.mask_BN.to(device))

    def forward(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        """Return (B, P, D) at the action tokens, or (B, N, D) of the chosen tokens."""
        frame = self._frame({name: images[name] for name in self.cameras}, text)
        dtype = images[self.cameras[0]].dtype
        if self.options.feature != 'action_token':
            hidden = self.family.hidden_states(self.model, frame)
            return self._pool(hidden, frame, text).to(dtype)
        frame, start_B = self._with_action(frame, text)
        hidden = self.family.hidden_states(self.model, frame)
        columns_BP = start_B[:, None] + torch.arange(self.options.action_tokens,
                                                     device=start_B.device)
        return _columns(hidden, columns_BP).to(dtype)

    def next_token_logits(self, images: Mapping[str, Tensor], text: TextTokens) -> Tensor:
        """Return (B, M - 1, V): row i is for text token i + 1, after the images and token i."""
        frame = self._frame(images, self.encode_text(text))
        states = self.family.text_states(self.model, frame, text)
        return self.model.get_output_embeddings()(states)

    def vision_modules(self) -> list[nn.Module]:
        """Return what stands between the pixels and the language model."""
        return [self.model.get_submodule(name) for name in self.family.traits.vision_parts]

    def parts(self) -> Parts:
        """Return what it offers; the language model is what is neither vision nor embeddings."""
        towers = self.vision_modules()
        vision = tuple(p for tower in towers for p in tower.parameters())
        embeddings = tuple(self.model.get_input_embeddings().parameters())
        others = {id(p) for p in (*vision, *embeddings)}
        language = tuple(p for p in self.model.parameters() if id(p) not in others)
        inside = {id(module) for tower in towers for module in tower.modules()}
        stacks = [module for module in self.model.modules() if isinstance(module, nn.ModuleList)]
        return Parts(
            vision, language, embeddings,
            layers=max((tuple(s) for s in stacks if id(s) not in inside), key=len),
            adaptable=self._linear_layers({id(p) for p in language}), recompute=self._recompute,
            compiled=tuple(block for s in stacks if len(s) >= _SAME_LAYERS for block in s),
            speaker=self, text_lengths=self._text_lengths(), own_precision=True,
            for_gpu=partial(self._lay_out, [block for stack in stacks for block in stack]))

    def _text_lengths(self) -> tuple[int, ...]:
        """Return none for the published layout, whose action token stands behind the padding."""
        if self.options.layout == 'robovlms' or self.options.feature != 'action_token':
            return ()
        longest = self.options.max_text_tokens
        return (*range(_TEXT_STEP, longest, _TEXT_STEP), longest)

    def _lay_out(self, blocks: Sequence[nn.Module]) -> None:
        join_products(blocks)
        multiply_patches(self.vision_modules())

    def _linear_layers(self, language: set[int]) -> tuple[nn.Linear, ...]:
        """Return the language model's, without the vocabulary projection."""
        head = self.model.get_output_embeddings()
        return tuple(module for module in self.model.modules() if isinstance(module, nn.Linear)
                     and id(module.weight) in language and module is not head)

    def _recompute(self) -> None:
        self.model.gradient_checkpointing_enable({'use_reentrant': False})

    def save_assets(self, directory: Path) -> None:
        """Write config.json and the tokenizer files into a checkpoint."""
        pretrained.copy_assets(self.directory.path, directory / ASSETS)

    def _frame(self, images: Mapping[str, Tensor], text: EncodedText) -> Frame:
        words_BMD, lead = text.states_BND, self._prompt.lead
        parts: list[Tensor] = [words_BMD[:, :lead]]
        spans: list[Span] = []
        encoded = iter(self._encode_images(images))
        for ids in self._words_before(len(images), words_BMD.device):
            if ids is None:
                image = next(encoded)
                spans.append(Span(sum(part.shape[1] for part in parts), image))
                parts.append(image.tokens_BND)
            else:
                words = self.model.get_input_embeddings()(ids)
                parts.append(words.expand(len(words_BMD), -1, -1))
        added = sum(part.shape[1] for part in parts[1:])
        parts.append(words_BMD[:, lead:])
        embeds = torch.cat([part.to(words_BMD.dtype) for part in parts], 1)
        valid = torch.cat([text.mask_BN[:, :lead],
                           text.mask_BN.new_ones(len(words_BMD), added),
                           text.mask_BN[:, lead:]], 1)
        prefix = torch.full((len(words_BMD),), lead + added, device=embeds.device)
        return Frame(embeds, valid, self._mask(valid), tuple(spans), prefix)

    def _mask(self, valid_BN: Tensor) -> Tensor | None:
        """Return the mask to pass on: none where padding stands last and causality hides it."""
        hidden = self.family.traits.causal and self.options.layout == 'compact'
        return None if hidden else valid_BN

    def _words_before(self, cameras: int, device: torch.device) -> list[Tensor | None]:
        key = (cameras, device)
        if key not in self._before:
            with torch.inference_mode(False):  # kept: training may follow acting
                self._before[key] = [torch.tensor([chunk], device=device) if chunk else None
                                     for chunk in self._prompt.before(cameras)]
        return self._before[key]

    def _encode_images(self, images: Mapping[str, Tensor]) -> list[ImageTokens]:
        pixels = [image.to(self.model.dtype) for image in images.values()]
        if len({image.shape for image in pixels}) > 1:
            return [self.family.image_tokens(self.model, image) for image in pixels]
        together = self.family.image_tokens(self.model, torch.cat(pixels))
        tokens = together.tokens_BND.chunk(len(pixels))
        deep = [layer.chunk(len(pixels)) for layer in together.deep]
        return [ImageTokens(tokens[i], together.grid, tuple(layer[i] for layer in deep))
                for i in range(len(pixels))]

    def _with_action(self, frame: Frame, text: EncodedText) -> tuple[Frame, Tensor]:
        count = self.options.action_tokens
        action = self.action_token.to(frame.embeds_BND.dtype)
        if self.options.layout == 'robovlms':
            actions = action.expand(len(frame.embeds_BND), count, -1)
            embeds = torch.cat([frame.embeds_BND[:, :-1], actions], 1)
            valid = torch.cat([frame.valid_BN[:, :-1],
                               frame.valid_BN.new_ones(len(embeds), count)], 1)
            start_B = torch.full_like(frame.prefix_B, frame.embeds_BND.shape[1] - 1)
            return frame._replace(embeds_BND=embeds, valid_BN=valid, mask_BN=valid,
                                  prefix_B=start_B), start_B
        padding = text.mask_BN.shape[1] - text.mask_BN.sum(1)
        start_B = frame.embeds_BND.shape[1] - padding
        behind = count + self._filling(frame.embeds_BND.shape[1] + count)
        embeds = functional.pad(frame.embeds_BND, (0, 0, 0, behind))
        offset_BN = torch.arange(embeds.shape[1], device=embeds.device) - start_B[:, None]
        is_action_BN = (offset_BN >= 0) & (offset_BN < count)
        embeds = torch.where(is_action_BN[..., None], action, embeds)
        valid = functional.pad(frame.valid_BN, (0, behind)) | is_action_BN
        return frame._replace(embeds_BND=embeds, valid_BN=valid, mask_BN=self._mask(valid),
                              prefix_B=start_B), start_B

    def _filling(self, columns: int) -> int:
        """Return how many more to add where a mask is passed on: its rows are then aligned."""
        return 0 if self.family.traits.causal else -columns % _ALIGNED_COLUMNS

    def _pool(self, hidden: Tensor, frame: Frame, text: EncodedText) -> Tensor:
        """Choose tokens; padding repeats the last word, which a maximum over tokens ignores."""
        length, words = hidden.shape[1], text.mask_BN.shape[1] - self._prompt.lead
        reference = self.options.layout == 'robovlms'
        columns = torch.arange(length, device=hidden.device)
        if self.options.feature == 'vision':
            columns = torch.cat([columns[span.start:span.start + span.image.tokens_BND.shape[1]]
                                 for span in frame.spans])
        elif self.options.feature == 'text':
            columns = columns[length - words:length - reference]  # not the last: the end token
        columns_BP = columns.expand(len(hidden), -1)
        if not reference:
            last_B = length - 1 - (~text.mask_BN).sum(1)
            columns_BP = torch.minimum(columns_BP, last_B[:, None])
        return _columns(hidden, columns_BP)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HuggingFaceBackbone:
        """Move or convert, but keep rotary frequencies exact: in bfloat16 they lose positions."""
        exact = [(module, name, buffer) for module in self.modules()
                 for name, buffer in module.named_buffers(recurse=False)
                 if name.endswith('inv_freq')]
        super()._apply(fn, recurse)
        for module, name, buffer in exact:
            setattr(module, name, buffer.to(getattr(module, name).device))
        return self


def _columns(hidden_BND: Tensor, columns_BP: Tensor) -> Tensor:
    return hidden_BND.gather(1, columns_BP[..., None].expand(-1, -1, hidden_BND.shape[-1]))

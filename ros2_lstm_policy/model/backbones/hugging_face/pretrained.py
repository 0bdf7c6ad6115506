"""
Hugging Face model directories: checked, loaded.

Every error names the file, the key, what was found and what was wanted. The libraries that read
these files raise whatever comes to them (`tokenizers` bare exceptions); `_reading` is the one
place where that becomes an error of ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
import json
from math import prod
from pathlib import Path
import shutil
from typing import Any, TYPE_CHECKING

from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.model import shards

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a tokenizer can be read from; one complete group is enough.
TOKENIZER_FILES = (('tokenizer.json',), ('tokenizer.model',), ('sentencepiece.bpe.model',),
                   ('vocab.json', 'merges.txt'))
TOKENIZER_EXTRAS = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json')
CONFIG_FILE = 'config.json'
OLD_BUFFERS = ('position_ids', 'inv_freq')  # saved by old transformers, computed by today's
_MAX_KEYS_NAMED = 5
_MAX_TEXT = 300
_MAX_LAYERS = 1000  # building a million would not end
_TOO_LARGE = 1.25  # of what the files hold: a network with a head more is told by its keys


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


def check(path: Path, model_types: tuple[str, ...]) -> ModelDirectory:
    """
    Check that a directory is of the wanted family and can be read.

    :raises ConfigError: for a missing or broken config.json, another family, or no tokenizer.
    """
    file = path / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding='utf-8'))
    except OSError as error:
        raise ConfigError(f'{file}: cannot be read ({error.strerror}); a model directory holds '
                          'config.json, *.safetensors and tokenizer files') from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{file}: is no valid JSON: {_brief(error)}') from error
    found = config.get('model_type') if isinstance(config, dict) else None
    if found not in model_types:
        raise ConfigError(f'{file}: model_type is {found!r}, wanted '
                          f'{" or ".join(map(repr, model_types))}; choose the backbone family '
                          'of this model, or another directory')
    if not any(all((path / name).is_file() for name in group) for group in TOKENIZER_FILES):
        wanted = ', or '.join(' and '.join(group) for group in TOKENIZER_FILES)
        raise ConfigError(f'{path}: the tokenizer files are missing: wanted {wanted}; they come '
                          'with the model, copy them beside config.json')
    _refuse_what_cannot_be_built(file, config)
    text = config.get('text_config')
    return ModelDirectory(path, found, str(text.get('model_type', ''))
                          if isinstance(text, dict) else '')


def check_text(directory: ModelDirectory, others: Mapping[str, str]) -> None:
    """
    Refuse a language model that is laid out otherwise than the family's.

    :param others: the language models, and what to take instead.
    :raises ConfigError: with the key.
    """
    if directory.text_type in others:
        raise ConfigError(f'{directory.path / CONFIG_FILE}: text_config.model_type is '
                          f'{directory.text_type!r}, a layout with code of its own; take '
                          f'{others[directory.text_type]}')


def check_vocabulary(directory: ModelDirectory, tokenizer: PreTrainedTokenizerBase,
                     rows: int) -> None:
    """
    Refuse a tokenizer of another model.

    :param rows: words that the network has a vector for.
    :raises ConfigError: where the tokenizer knows words that the network does not.
    """
    if len(tokenizer) > rows:
        raise ConfigError(f'{directory.path}: the tokenizer has {len(tokenizer)} words, the '
                          f'network vectors for {rows}; the tokenizer files are of another model, '
                          'copy those of this one')


def load_tokenizer(directory: ModelDirectory) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer, padding on the right.

    :raises ConfigError: where its files, or config.json that names its class, cannot be read.
    """
    from transformers import AutoConfig, AutoTokenizer
    with _reading(f'{directory.path / CONFIG_FILE}: describes no model'):
        AutoConfig.from_pretrained(directory.path, local_files_only=True)
    with _reading(f'{directory.path}: the tokenizer cannot be read'):
        tokenizer = AutoTokenizer.from_pretrained(directory.path, local_files_only=True)
        tokenizer.padding_side = 'right'
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise ConfigError(f'{directory.path}: the tokenizer has neither a pad nor an end token; '
                          'copy tokenizer_config.json and special_tokens_map.json of the model')
    return tokenizer


def load_model(directory: ModelDirectory, dtype: str, attention: str) -> PreTrainedModel:
    """
    Load weights strictly from safetensors files.

    :raises ConfigError: for missing, unexpected or misshapen tensors, by name.
    """
    import torch
    from transformers import AutoModelForImageTextToText
    with torch.device('meta'):
        _check_amount(directory, build_model(directory, dtype, attention))
    with _reading(f'{directory.path}: the weights cannot be read', ' (safetensors files are '
                  'needed; pickles are not read)'):
        model, info = AutoModelForImageTextToText.from_pretrained(
            directory.path, local_files_only=True, use_safetensors=True, dtype=dtype,
            attn_implementation=directory.attention(attention), output_loading_info=True,
            ignore_mismatched_sizes=True)
    for key, found, wanted in info['mismatched_keys']:
        raise ConfigError(f'{directory.path}: {key} has shape {tuple(found)}, the config.json '
                          f'beside it wants {tuple(wanted)}')
    unexpected = [key for key in info['unexpected_keys'] if not key.endswith(OLD_BUFFERS)]
    complain_of_keys(directory.path, info['missing_keys'], unexpected)
    return model


def build_model(directory: ModelDirectory, dtype: str, attention: str) -> PreTrainedModel:
    """
    Build the network that config.json describes, for weights that are loaded afterwards.

    :raises ConfigError: where it describes none.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText
    from transformers.initialization import no_init_weights
    with _reading(f'{directory.path / CONFIG_FILE}: describes no network that can be built'):
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


@contextmanager
def _reading(what: str, advice: str = '') -> Iterator[None]:
    """
    Turn whatever a library raises over a stranger's files into one line.

    Any exception: which ones they raise is no part of what the libraries promise, and new releases
    add more. Nothing else but reading these files may stand inside.
    """
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(f'{what}: {_brief(error)}{advice}') from error


def _brief(error: BaseException) -> str:
    """Return an error's text as one line, with its type where the text alone says little."""
    text = ' '.join(str(error).split())
    text = text if len(text) <= _MAX_TEXT else f'{text[:_MAX_TEXT]} ...'
    return text if ' ' in text else f'{type(error).__name__} {text}'.strip()


def _refuse_what_cannot_be_built(file: Path, config: Mapping[str, Any], above: str = '') -> None:
    """Refuse what no library needs to try: quantised weights, and layers without number."""
    for key, value in config.items():
        if key == 'quantization_config' and value:
            method = value.get('quant_method') if isinstance(value, dict) else value
            raise ConfigError(f'{file}: {above}{key} is of {method!r}: quantised weights, which '
                              'cannot be trained; take the model that they were made from')
        counts_layers = 'layer' in key or key == 'depth'
        if counts_layers and type(value) is int and value > _MAX_LAYERS:
            raise ConfigError(f'{file}: {above}{key} is {value}, wanted at most {_MAX_LAYERS}')
        if isinstance(value, dict):
            _refuse_what_cannot_be_built(file, value, f'{above}{key}.')


def _check_amount(directory: ModelDirectory, outline: PreTrainedModel) -> None:
    """Compare how many numbers config.json asks for with how many the files hold."""
    try:
        files = shards.shapes(directory.path)
    except shards.CheckpointError as error:
        raise ConfigError(f'{directory.path}: the weights cannot be read: {error}') from error
    held = sum(prod(shape) for file in files.values() for shape in file.values())
    wanted = sum(parameter.numel() for parameter in outline.parameters())
    if wanted > _TOO_LARGE * held:
        raise ConfigError(f'{directory.path / CONFIG_FILE}: describes a network of {wanted:,} '
                          f'numbers, the *.safetensors files beside it hold {held:,}; one of them '
                          'is of another model, or files are missing')

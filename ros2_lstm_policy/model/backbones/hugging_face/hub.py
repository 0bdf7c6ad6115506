"""Where a model is: a directory, the cache of this machine, or the hub; never fetched unasked."""

from __future__ import annotations

from pathlib import Path

from ros2_lstm_policy.config import ConfigError

_HOW_TO_GET_IT = ('get the model (config.json, *.safetensors, tokenizer files) with `hf download '
                  'OWNER/NAME --local-dir DIR` where there is a network, copy DIR here and give '
                  'its path as `directory`')
_FILES = ('*.json', '*.safetensors', '*.model', '*.txt')


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
    try:
        return Path(huggingface_hub.snapshot_download(
            directory, local_files_only=not allow_download, allow_patterns=list(_FILES)))
    except Exception as error:  # of its HTTP client too, which is another one each few releases
        raise ConfigError(f'{directory}: {_reason(error, allow_download)}') from error


def _reason(error: Exception, allow_download: bool) -> str:
    """Say what went wrong, and what to do that was not done already."""
    from huggingface_hub import errors
    if isinstance(error, errors.HFValidationError):
        return 'is no directory and no name of a model on the hub (owner/name)'
    if not allow_download:
        return ('no such directory, and no model of this name is in the cache of this machine; '
                f'{_HOW_TO_GET_IT}; or give a hub name and `allow_download: true`')
    if isinstance(error, errors.GatedRepoError):
        return ('the hub asks for a login and an accepted licence: accept it on the page of the '
                'model, then `hf auth login`')
    if isinstance(error, errors.RepositoryNotFoundError):
        return ('no such directory, and the hub knows no model of this name, or only after a '
                'login: `hf auth login`')
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return ('is not in the cache of this machine, and the hub cannot be reached; '
                f'{_HOW_TO_GET_IT}')
    text = ' '.join(str(error).split())[:300] or type(error).__name__
    return f'could not be fetched from the hub: {text}'


def _is_hub_name(directory: str) -> bool:
    parts = directory.split('/')
    return len(parts) == 2 and all(parts) and not directory.startswith(('.', '~'))

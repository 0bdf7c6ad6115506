"""
Checkpoint directories.

A directory holds model.safetensors, config.yaml (PolicyConfig), action.yaml (Manifest),
README.md (the model card) and what the backbone adds (tokenizer files). Loading is strict and
offline, and runs no code from the files. Large policies may be split into shards with an index,
laid out as Hugging Face does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import hashlib
import json
import os
from pathlib import Path
import shutil
import tempfile
from typing import NamedTuple

from ros2_lstm_policy import config
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.model import memory, shards
from ros2_lstm_policy.model.policy import outline, Policy, PolicyConfig
from ros2_lstm_policy.model.shards import CheckpointError, INDEX, WEIGHTS
from safetensors.torch import save_file
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = [
    'CheckpointError',
    'Fit',
    'described',
    'fingerprint',
    'load',
    'load_as',
    'load_fitting',
    'save',
]

CONFIG, MANIFEST, CARD = 'config.yaml', 'action.yaml', 'README.md'
_SHOWN_KEYS = 5


def save(directory: Path, policy: Policy, card: str, max_shard_bytes: int | None = None) -> None:
    """
    Write a checkpoint; a directory that is there already is replaced only when all is written.

    :param card: the model card: data, training, measured success.
    :param max_shard_bytes: split the weights into files of at most this size; None for one file.
    :raises CheckpointError: where one tensor alone is larger than that, or where what was written
        could not be loaded again.
    """
    _refuse_numbers_that_are_none(Path(directory), policy)
    with _replacing(Path(directory)) as new:
        (new / CONFIG).write_text(config.dump(policy.config), encoding='utf-8')
        (new / MANIFEST).write_text(config.dump(policy.manifest), encoding='utf-8')
        (new / CARD).write_text(card, encoding='utf-8')
        policy.backbone.save_assets(new)
        _save_weights(new, _unique(policy.state_dict()), max_shard_bytes)
        for path in new.glob('*.safetensors'):
            path.chmod(0o644)  # the library makes them private
        _check_written(new, policy, Path(directory))


def load(directory: Path, device: str | torch.device = 'cpu') -> Policy:
    """
    Read a checkpoint.

    :return: the policy in eval mode, with its `config` and `manifest`.
    :raises CheckpointError: for files that are absent, truncated or made for something else.
    :raises ConfigError: for a config.yaml or action.yaml that does not fit this version.
    :raises WeightsError: where frozen parts of a pinned package are not installed as they say.
    """
    return load_as(directory, *described(directory)).to(device).eval()


def described(directory: Path) -> tuple[PolicyConfig, Manifest]:
    """
    Read what a checkpoint is, without its weights.

    :raises ValueError: as :func:`load`.
    """
    directory = Path(directory)
    for name in (CONFIG, MANIFEST):
        if not (directory / name).is_file():
            raise CheckpointError(f'{directory / name} is missing: a checkpoint is a directory '
                                  f'with {CONFIG}, {MANIFEST} and {WEIGHTS}')
    return (config.load(PolicyConfig, directory / CONFIG),
            config.load(Manifest, directory / MANIFEST))


def load_as(directory: Path, policy_config: PolicyConfig, manifest: Manifest) -> Policy:
    """
    Read a checkpoint's weights into a policy that may differ in what no weight depends on.

    :raises ValueError: as :func:`load`.
    """
    parts = policy_config, manifest, Path(directory)
    shape = outline(*parts)  # takes no memory: what cannot be loaded is refused before it does
    _check_names(parts[-1], shards.shapes(parts[-1]), shape.state_dict())
    memory.require(shape, str(directory))
    policy = Policy(*parts)
    _load_weights(parts[-1], policy)
    return policy.eval()


class Fit(NamedTuple):
    """
    What a policy took of another one's weights, by name.

    :param taken: tensors of the same name and shape.
    :param anew: its own that begin anew, since the other has none of that name and shape.
    :param unused: the other's that it has no place for.
    """

    taken: tuple[str, ...]
    anew: tuple[str, ...]
    unused: tuple[str, ...]


@torch.no_grad()
def load_fitting(directory: Path, policy: Policy) -> Fit:
    """
    Copy the weights that fit, by name and shape, into a policy of another body.

    :raises CheckpointError: for files that are damaged, or weights of which none fits.
    """
    wanted, taken, unused = policy.state_dict(), set(), set()
    for file in shards.weight_files(directory):
        with shards.opened(directory / file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (of the library, which is no mapping)
                value = tensors.get_tensor(name)
                if name in wanted and wanted[name].shape == value.shape:
                    wanted[name].copy_(value)
                    taken.add(_identity(wanted[name]))
                else:
                    unused.add(name)
    if not taken:
        raise CheckpointError(f'{directory}: none of its weights fits this policy; is it of '
                              'another backbone?')
    _refuse_numbers_that_are_none(directory, policy)
    fits = {name: _identity(value) in taken for name, value in wanted.items()}
    return Fit(tuple(name for name in wanted if fits[name]),
               tuple(name for name in wanted if not fits[name]), tuple(sorted(unused)))


def fingerprint(directory: Path) -> str:
    """
    Return the SHA-256 over the names and bytes of what acts: all files but the model card.

    :raises CheckpointError: where there is no checkpoint.
    """
    directory, digest = Path(directory), hashlib.sha256()
    files = sorted(path for path in directory.rglob('*') if path.is_file())
    if directory / CONFIG not in files:
        raise CheckpointError(f'{directory} is no checkpoint: it has no {CONFIG}')
    for path in files:
        if path != directory / CARD:
            name = path.relative_to(directory).as_posix().encode()
            with path.open('rb') as file:
                content = hashlib.file_digest(file, 'sha256').digest()
            digest.update(hashlib.sha256(name).digest() + content)
    return digest.hexdigest()


def _refuse_numbers_that_are_none(directory: Path, policy: Policy) -> None:
    """Refuse NaN and infinity in weights: every command of such a policy would be a hold."""
    for name, value in policy.named_parameters():
        if not torch.isfinite(value).all():
            raise CheckpointError(f'{directory}: {name} holds NaN or infinite numbers; such a '
                                  'policy cannot act')


def _check_written(new: Path, policy: Policy, directory: Path) -> None:
    """Read the new files back as strictly as `load` does, all but the numbers in the tensors."""
    for name, cls, wanted in ((CONFIG, PolicyConfig, policy.config),
                              (MANIFEST, Manifest, policy.manifest)):
        try:
            found = config.load(cls, new / name)
        except config.ConfigError as error:
            text = str(error).replace(str(new), str(directory))
            raise CheckpointError(f'{text}; nothing was written') from error
        if found != wanted:
            raise CheckpointError(f'{directory / name}: would be read back as another one: found '
                                  f'{found}, wanted {wanted}; nothing was written')
    _check_names(new, shards.shapes(new), policy.state_dict())


@contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """Give an empty directory beside, which takes the place of `directory` if all goes well."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp('.new', f'.{directory.name}.', directory.parent))
    new.chmod(0o755)
    old = new.with_suffix('.old')
    try:
        yield new
        if directory.exists():
            directory.rename(old)
        os.replace(new, directory)
    except BaseException:
        if old.exists() and not directory.exists():
            old.rename(directory)
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _unique(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep one name of each tensor that the network has under several (tied embeddings)."""
    first: dict[tuple, str] = {}
    for name, value in weights.items():
        first.setdefault(_identity(value), name)
    return {name: weights[name].detach().cpu().contiguous() for name in first.values()}


def _identity(value: Tensor) -> tuple:
    """Name the numbers that a tensor shows; without an address, so that outlines have it too."""
    return (StorageWeakRef(value.untyped_storage()).cdata, value.storage_offset(),
            tuple(value.shape), value.stride(), value.dtype)


def _save_weights(directory: Path, weights: dict[str, Tensor], limit: int | None) -> None:
    shards = _split(weights, limit)
    if len(shards) == 1:
        save_file(shards[0], directory / WEIGHTS)
        return
    place = {}
    for number, shard in enumerate(shards, 1):
        file = f'model-{number:05d}-of-{len(shards):05d}.safetensors'
        save_file(shard, directory / file)
        place.update(dict.fromkeys(shard, file))
    total = sum(value.nbytes for value in weights.values())
    index = {'metadata': {'total_size': total}, 'weight_map': place}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + '\n')


def _split(weights: dict[str, Tensor], limit: int | None) -> list[dict[str, Tensor]]:
    if limit is None:
        return [weights]
    header = 64 + sum(200 + len(name) for name in weights)  # JSON in front of the bytes
    shards: list[dict[str, Tensor]] = [{}]
    size = header
    for name, value in weights.items():
        if header + value.nbytes > limit:
            raise CheckpointError(f'{name}: {value.nbytes} bytes do not fit into a file of '
                                  f'{limit}; allow larger files')
        if size + value.nbytes > limit:
            shards.append({})
            size = header
        shards[-1][name] = value
        size += value.nbytes
    return shards


def _load_weights(directory: Path, policy: Policy) -> None:
    """Copy every tensor of the files into the policy, one file in memory at a time."""
    wanted = policy.state_dict()
    for file in shards.weight_files(directory):
        with shards.opened(directory / file) as tensors:
            for name in sorted(tensors.keys()):
                wanted[name].copy_(tensors.get_tensor(name))
    _refuse_numbers_that_are_none(directory, policy)


def _check_names(directory: Path, shapes: Mapping[str, Mapping[str, tuple[int, ...]]],
                 wanted: Mapping[str, Tensor]) -> None:
    """Refuse files that hold too much, too little, or tensors of other shapes."""
    for file, found in shapes.items():
        _check_shapes(directory / file, found, wanted)
    filled = {_identity(wanted[name]) for found in shapes.values() for name in found}
    missing = [name for name, value in wanted.items() if _identity(value) not in filled]
    if missing:
        raise CheckpointError(f'{directory}: {len(missing)} keys are missing: {_some(missing)}; '
                              f'{CONFIG} or {MANIFEST} describes another policy')


def _check_shapes(path: Path, found: Mapping[str, tuple[int, ...]],
                  wanted: Mapping[str, Tensor]) -> None:
    unexpected = sorted(set(found) - set(wanted))
    if unexpected:
        raise CheckpointError(f'{path}: {len(unexpected)} keys are unexpected: {_some(unexpected)}'
                              f'; {CONFIG} or {MANIFEST} describes another policy')
    for name, shape in found.items():
        if tuple(shape) != tuple(wanted[name].shape):
            raise CheckpointError(f'{path}: {name}: found shape {tuple(shape)}, wanted '
                                  f'{tuple(wanted[name].shape)} by {CONFIG} and {MANIFEST}')


def _some(names: list[str]) -> str:
    more = f' and {len(names) - _SHOWN_KEYS} more' if len(names) > _SHOWN_KEYS else ''
    return ', '.join(names[:_SHOWN_KEYS]) + more

"""The weights that a run begins with: published ones, or those of a checkpoint that fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ros2_lstm_policy import config as yaml_config
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.policy import build, complete, Policy, PolicyConfig
from ros2_lstm_policy.training.config import TrainConfig

# What no tensor depends on: `init_from` takes a checkpoint that differs in these.
_WEIGHTLESS_DECODER = ('window_size', 'dropout', 'history')
_WEIGHTLESS_OPTIONS = ('dropout', 'tune_vision', 'attention', 'directory', 'allow_download')


def initial_policy(config: TrainConfig, tell: Callable[[str], None]) -> Policy:
    """
    Return the policy that a run trains.

    :param tell: takes a line where only some of a checkpoint's weights fit, or where it learned
        with another history.
    :raises ValueError: for a checkpoint of another architecture, unless `init_strict` is false.
    """
    wanted = config.manifest.manifest()
    if config.init_from is None:
        return build(config.policy, wanted, 'policy')
    found, manifest = checkpoint.described(config.init_from)
    differs = [said for said in (weights_differ(found, complete(config.policy)),
                                 difference(manifest.cameras, wanted.cameras),
                                 difference(body(manifest), body(wanted))) if said]
    was, now = found.decoder.history, config.policy.decoder.history
    if was != now:
        tell(f'init_from {config.init_from}: learned with history {was} and goes on with {now}; '
             'how far it looks back is to be learned anew')
    if not differs:
        return checkpoint.load_as(config.init_from, config.policy, wanted)
    if config.init_strict:
        raise ValueError(f'init_from {config.init_from}: is of another architecture; found '
                         f'{", ".join(differs)}; init_strict=false takes what fits and begins '
                         'the rest anew')
    policy = build(config.policy, wanted, 'policy')
    fit = checkpoint.load_fitting(config.init_from, policy)
    tell(f'init_from {config.init_from}: {len(fit.taken)} tensors are taken; begun anew: '
         f'{_parts_of(fit.anew)}; not used: {_parts_of(fit.unused)}')
    return policy


def body(manifest: Manifest) -> dict[str, Any]:
    """Return what of a body the weights depend on: its groups and states, without statistics."""
    return {'actions': [[g.name, g.kind, g.size, g.binary] for g in manifest.actions],
            'states': [[s.name, s.size] for s in manifest.states]}


def _parts_of(names: Sequence[str]) -> str:
    """Name tensors by the modules that they are of, each once."""
    modules = dict.fromkeys(name.rpartition('.')[0] for name in names)
    return ', '.join(modules) or 'nothing'


def weights_differ(found: PolicyConfig, wanted: PolicyConfig) -> str:
    """Name the settings that differ and that weights depend on."""
    decoder = {name: getattr(wanted.decoder, name) for name in _WEIGHTLESS_DECODER
               if name != 'window_size' or found.decoder.kind == 'lstm'}
    options = {**found.backbone.options,
               **{name: value for name, value in wanted.backbone.options.items()
                  if name in _WEIGHTLESS_OPTIONS}}
    same = replace(found, decoder=replace(found.decoder, **decoder),
                   backbone=replace(found.backbone, options=options))
    return difference(complete(same), complete(wanted))


def difference(found: object, wanted: object) -> str:
    """Name the keys whose values differ between two configurations."""
    one, two = _flat('', yaml_config.plain(found)), _flat('', yaml_config.plain(wanted))
    return ', '.join(f'{key} is {one.get(key)!r}, wanted {two.get(key)!r}'
                     for key in sorted(one.keys() | two.keys()) if one.get(key) != two.get(key))


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: item for name, part in value.items()
            for key, item in _flat(f'{prefix}.{name}' if prefix else str(name), part).items()}

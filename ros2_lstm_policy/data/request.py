"""What a `dataset` command asks of recordings: by a configuration, a manifest, or its options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ros2_lstm_policy import config
from ros2_lstm_policy.data.checks import Limits
from ros2_lstm_policy.data.episodes import Recording, Wanted
from ros2_lstm_policy.data.manifest_config import read_manifest
from ros2_lstm_policy.data.sources import describe, open_source, SourceSpec
from ros2_lstm_policy.manifest import CameraSpec, Manifest


@dataclass(frozen=True)
class Request:
    """
    Which recordings, and what they are to hold.

    :param limits: those of the policy, where one is meant.
    :param cameras: what the policy takes, likewise.
    """

    spec: SourceSpec
    wanted: Wanted
    limits: Limits = Limits()  # noqa: RUF009 (a frozen value)
    cameras: tuple[CameraSpec, ...] = ()
    period_s: float | None = None

    def recordings(self) -> list[Recording]:
        """List them; :raises RecordingError: where the path is no dataset."""
        return open_source(self.spec, self.wanted, self.period_s)


def request(options: argparse.Namespace) -> Request:
    """Return what the options of a command ask for; :raises ConfigError: where they clash."""
    if options.config is None and options.manifest is None:
        spec = _spec({}, options)
        wanted = describe(spec) or Wanted()
        if options.cameras:
            wanted = replace(wanted, cameras=options.cameras)
        return Request(spec, wanted, period_s=options.period)
    if options.cameras or options.period:
        raise config.ConfigError('--cameras and --period are said by the manifest; leave them out')
    if options.config is None:
        return _of(read_manifest(options.manifest), Limits(), _spec({}, options))
    values = config.read_yaml(options.config)
    where = str(options.config)
    if 'manifest' not in values:
        raise config.ConfigError(f'{where}: there is no section manifest, which says what '
                                 'recordings are to hold')
    manifest = read_manifest(options.config)
    data = _section(values, 'data', where)
    limits = config.parse(Limits, _section(data, 'limits', f'{where}: data'),
                          f'{where}: data: limits')
    spec = _spec(_source(data, options.path, where), options, f'{where}: data.sources')
    return _of(manifest, limits, spec)


def _of(manifest: Manifest, limits: Limits, spec: SourceSpec) -> Request:
    return Request(spec, Wanted.of(manifest), limits.for_policy(manifest), manifest.cameras,
                   manifest.control_period_s)


def _spec(values: Mapping[str, Any], options: argparse.Namespace,
          where: str = 'the command line') -> SourceSpec:
    """Return how to read the path: as a source says it, changed by the command line."""
    values = {**values, 'path': str(options.path)}
    for assignment in options.reading:
        config.override(values, assignment)
    return config.parse(SourceSpec, values, where)


def _section(values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = values.get(key, {})
    if not isinstance(found, Mapping):
        raise config.ConfigError(f'{where}: {key}: expected keys and values, found {found!r:.60}')
    return found


def _source(data: Mapping[str, Any], path: Path, where: str) -> Mapping[str, Any]:
    """Return the source of that path, or the only one; none where there is none at all."""
    sources = data.get('sources', [])
    if not isinstance(sources, list) or not all(isinstance(each, Mapping) for each in sources):
        raise config.ConfigError(f'{where}: data.sources: expected a list of keys and values')
    if not sources:
        return {}
    paths = [str(source.get('path', '')) for source in sources]
    mine = [source for source, each in zip(sources, paths)
            if Path(each).expanduser().resolve() == path.expanduser().resolve()]
    chosen = mine or (sources if len(sources) == 1 else [])
    if len(chosen) != 1:
        raise config.ConfigError(f'{where}: data.sources has {len(chosen)} entries of the path '
                                 f'{path}; it has {", ".join(paths)}; name one of these')
    return chosen[0]

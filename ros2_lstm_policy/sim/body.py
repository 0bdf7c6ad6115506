"""Which body a simulated robot has: the arm that stands there, and what a manifest asks of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ros2_lstm_policy.data.body import short_streams, Streams
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.manifest_config import read_manifest
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS, Manifest

Model = Literal['panda', 'ur5e']


@dataclass(frozen=True)
class SimBody:
    """
    What a simulated robot is made as.

    :param arm: which arm stands in the scene.
    :param manifest: cameras, states and groups of actions; None for the scene's own: of one arm
        the cameras `static` and `hand`, Cartesian displacements and a binary gripper.
    """

    arm: Model = 'panda'
    manifest: Manifest | None = None

    @classmethod
    def of(cls, arm: Model, manifest: Manifest) -> SimBody:
        """Return the body of a manifest; one that asks for the usual one is the usual one."""
        wanted = Wanted.of(manifest)
        usual = (wanted.is_one_arm and wanted.cameras == DEFAULT_CAMERAS and not wanted.states
                 and manifest.actions[0].frame == 'base')
        return cls(arm, None if usual else manifest)

    @classmethod
    def read(cls, arm: Model, manifest: Path | None) -> SimBody:
        """
        Read the manifest of a checkpoint's folder, an action.yaml or a training configuration.

        :raises ConfigError: where the file is none of them.
        """
        return cls(arm) if manifest is None else cls.of(arm, read_manifest(manifest))

    def plain(self) -> dict[str, Any]:
        """Return what is not usual about it, as plain values."""
        values: dict[str, Any] = {} if self.arm == 'panda' else {'arm': self.arm}
        if self.manifest is not None:
            groups = tuple(replace(group, normalisation=None, largest=None, threshold=0.5)
                           for group in self.manifest.actions)
            states = tuple(replace(state, normalisation=None) for state in self.manifest.states)
            values['body'] = {'cameras': [camera.name for camera in self.manifest.cameras],
                              **short_streams(Streams(groups, states))}
        return values


USUAL = SimBody()


def check(manifest: Manifest, period_s: float, cameras: Collection[str],
          groups: Mapping[str, int], states: Mapping[str, int]) -> None:
    """
    Hold a manifest against what a simulated robot has.

    :param cameras: names of its cameras.
    :param groups: size of each group of actions that it takes, all of which have to be commanded.
    :param states: size of each state that it measures.
    :raises ValueError: for anything that it has not, with what it has.
    """
    if abs(manifest.control_period_s - period_s) > 1e-6:
        raise ValueError(f'the simulated robot is commanded every {period_s:g} s, found a '
                         f'control_period_s of {manifest.control_period_s:g}')
    for group in manifest.actions:
        if group.frame == 'tool':
            raise ValueError(f'action {group.name!r}: the simulated robot takes displacements in '
                             f'the axes of its base, found frame {group.frame!r}')
    _check('cameras', dict.fromkeys([c.name for c in manifest.cameras], 0),
           dict.fromkeys(cameras, 0))
    _check('states', {s.name: s.size for s in manifest.states}, states)
    wanted = {g.name: g.size for g in manifest.actions}
    _check('actions', wanted, groups)
    if missing := sorted({*groups} - {*wanted}):
        raise ValueError(f'actions: the simulated robot has to be told {", ".join(missing)} too')


def _check(kind: str, wanted: Mapping[str, int], found: Mapping[str, int]) -> None:
    for name, size in wanted.items():
        if found.get(name) != size:
            with_sizes = ', '.join(f'{name} ({size})' if size else name
                                   for name, size in found.items())
            raise ValueError(f'{kind}: the simulated robot has {with_sizes}; found {name!r}'
                             f'{f" of size {size}" if size else ""}')

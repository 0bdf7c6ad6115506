"""The `manifest` of a training configuration: a policy's numbers, as far as they are said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np
from ros2_lstm_policy import config
from ros2_lstm_policy.data.statistics import fitted_group, fitted_state, How
from ros2_lstm_policy.manifest import (ActionGroup, CameraSpec, Manifest, Normalisation,
                                       one_arm_groups, StateSpec, with_groups)

if TYPE_CHECKING:
    from ros2_lstm_policy.data.store import FrameStore


@dataclass(frozen=True)
class ManifestConfig:
    """
    A :class:`Manifest` whose statistics come from the training episodes.

    :param control_period_s: time that one action covers.
    :param cameras: the cameras the policy needs, in the order of its tokens.
    :param actions: what it commands; a group without `normalisation` gets one from the data.
    :param states: what it is told of the robot, likewise.
    :param statistics: how: 'range' maps the smallest and largest value of each axis to -1 and 1;
        'quantile' the 1 % and 99 % quantiles, and clips what lies beyond.
    """

    control_period_s: float
    cameras: tuple[CameraSpec, ...]
    actions: tuple[ActionGroup, ...]
    states: tuple[StateSpec, ...] = ()
    statistics: How = 'range'

    @staticmethod
    def upgrade(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn the keys of 0.1, which had one arm and one gripper, into today's."""
        return with_groups(values, one_arm_groups)

    def __post_init__(self) -> None:
        """Refuse what no manifest can be made of, before any data is read."""
        self.manifest()

    def manifest(self) -> Manifest:
        """Return the manifest with the statistics as far as they are given; of 1 elsewhere."""
        return Manifest(
            self.control_period_s, self.cameras,
            tuple(group if group.binary or group.normalisation else
                  replace(group, normalisation=Normalisation.unit(group.label_size))
                  for group in self.actions),
            tuple(state if state.normalisation else
                  replace(state, normalisation=Normalisation.unit(state.size))
                  for state in self.states))

    def fitted(self, data: FrameStore, episodes_E: np.ndarray) -> Manifest:
        """
        Return the manifest for the steps of some episodes.

        :param episodes_E: (E,) bool, those that are trained on.
        """
        lengths = np.asarray(data.lengths)
        used_F = np.repeat(episodes_E, lengths)
        begins_F = np.zeros(lengths.sum(), bool)
        begins_F[np.cumsum(lengths) - lengths] = True
        actions = tuple(fitted_group(group, np.asarray(data.actions[group.name])[used_F],
                                     begins_F[used_F], self.statistics)
                        for group in self.actions)
        states = tuple(fitted_state(state, np.asarray(data.states[state.name])[used_F],
                                    self.statistics) for state in self.states)
        return Manifest(self.control_period_s, self.cameras, actions, states)


def read_manifest(path: Path) -> Manifest:
    """
    Read the manifest of a checkpoint's folder, of an action.yaml, or of a training configuration.

    :raises ConfigError: where the file is none of them.
    """
    path = path / 'action.yaml' if path.is_dir() else path
    values = config.read_yaml(path)
    if 'manifest' not in values:
        return config.parse(Manifest, values, str(path))
    if not isinstance(values['manifest'], Mapping):
        raise config.ConfigError(f'{path}: manifest: expected keys and values')
    return config.parse(ManifestConfig, values['manifest'], f'{path}: manifest').manifest()

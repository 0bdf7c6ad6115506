"""Which recordings a run trains on, and what their numbers mean to the policy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from ros2_lstm_policy import transforms
from ros2_lstm_policy.data.checks import Limits
from ros2_lstm_policy.data.datamodule import LoaderConfig
from ros2_lstm_policy.data.sources import SourceSpec
from ros2_lstm_policy.data.statistics import as_numbers, normalisation
from ros2_lstm_policy.manifest import ActionManifest, ArmNormalisation, CameraSpec
from ros2_lstm_policy.types import ARM_DIM

_FAR = 1e3  # m or rad: far beyond any delta


@dataclass(frozen=True)
class DataConfig:
    """
    Recordings and how they become batches.

    :param sources: recordings, mixed by weight where a weight differs from 1.
    :param store: a frame store that exists already, instead of sources.
    :param cache: folder where stores of sources are built, once.
    :param limits: which recordings are plausible.
    """

    sources: tuple[SourceSpec, ...] = ()
    store: Path | None = None
    cache: Path = Path('runs/stores')
    limits: Limits = field(default_factory=Limits)
    loader: LoaderConfig = field(default_factory=LoaderConfig)

    def __post_init__(self) -> None:
        """Refuse to guess which data is meant."""
        if bool(self.sources) == (self.store is not None):
            raise ValueError('set either sources or store')

    @property
    def weights(self) -> tuple[float, ...]:
        """Return the weights of the sources; empty where they are mixed by size."""
        weights = tuple(source.weight for source in self.sources)
        return weights if any(weight != 1 for weight in weights) else ()


@dataclass(frozen=True)
class ManifestConfig:
    """
    An :class:`ActionManifest` whose statistics come from the training episodes.

    :param frame: axes of the deltas: 'base' for the robot's base, 'tool' for the moving tool.
    :param rotation: 'rotation_vector' (axis times angle) or 'euler_xyz', both rad.
    :param control_period_s: time that one action covers.
    :param cameras: the cameras the policy needs, in the order of its tokens.
    :param gripper_threshold: the gripper opens where its probability of open is above this.
    :param arm: normalisation of the deltas; None to compute it.
    :param statistics: how: 'range' maps the smallest and largest delta of each axis to -1 and 1;
        'quantile' the 1 % and 99 % quantiles, and clips what lies beyond.
    """

    frame: Literal['base', 'tool']
    rotation: Literal['rotation_vector', 'euler_xyz']
    control_period_s: float
    cameras: tuple[CameraSpec, ...]
    gripper_threshold: float = 0.5
    arm: ArmNormalisation | None = None
    statistics: Literal['range', 'quantile'] = 'range'

    def manifest(self, arm: ArmNormalisation | None = None,
                 max_arm_delta: tuple[float, ...] | None = None) -> ActionManifest:
        """Return the manifest, with `arm` where the configuration has none."""
        unit = ArmNormalisation((0.0,) * ARM_DIM, (1.0,) * ARM_DIM)
        return ActionManifest(self.frame, self.rotation, self.control_period_s,
                              self.arm or arm or unit, self.cameras, self.gripper_threshold,
                              max_arm_delta)

    def fitted(self, arm_F6: np.ndarray) -> ActionManifest:
        """
        Return the manifest for the deltas of all training steps.

        :param arm_F6: (F, 6) m and rotation vectors in rad.
        """
        values = _in_convention(arm_F6, self.manifest())
        return self.manifest(normalisation(values, self.statistics),
                             as_numbers(np.abs(arm_F6).max(0)))


def _in_convention(arm_F6: np.ndarray, manifest: ActionManifest) -> np.ndarray:
    """Return the deltas in the manifest's rotation convention, not normalised."""
    far = replace(manifest, arm=ArmNormalisation((0.0,) * ARM_DIM, (_FAR,) * ARM_DIM))
    return transforms.arm_to_label(arm_F6, far).astype(np.float64) * _FAR

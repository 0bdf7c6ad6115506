"""Which recordings a run trains on, and what their numbers mean to the policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ros2_lstm_policy.data.checks import Limits
from ros2_lstm_policy.data.datamodule import LoaderConfig
from ros2_lstm_policy.data.manifest_config import ManifestConfig
from ros2_lstm_policy.data.sources import SourceSpec

__all__ = ['DataConfig', 'ManifestConfig']


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

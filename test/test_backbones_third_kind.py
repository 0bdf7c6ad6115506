"""A backbone of another kind than ours: what the seam asks for is all that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model import backbones, checkpoint
from ros2_lstm_policy.model.backbones.base import EncodedText, Parts, TextTokens
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.training import run
from ros2_lstm_policy.training.callbacks import LAST
from ros2_lstm_policy.types import Observation
import torch
from torch import nn, Tensor
from training_data import configured, values, write_store


@dataclass(frozen=True)
class Options:
    """One setting, as a user's own family would have."""

    TRAINS_EVERY_PARAMETER: ClassVar[bool] = True
    width: int = 8


class Brightness(nn.Module):
    """Sees how bright each camera is, and reads letters; it offers nothing beyond that."""

    capturable = False

    def __init__(self, options: Options, cameras: Sequence[CameraSpec]) -> None:
        super().__init__()
        self.feature_dim, self.cameras = options.width, [camera.name for camera in cameras]
        self.letters = nn.Embedding(256, options.width)
        self.brightness = nn.Linear(3 * len(cameras), options.width)

    def tokenize(self, instructions: Sequence[str]) -> TextTokens:
        rows = [torch.tensor(list(text.encode()) or [0]) for text in instructions]
        ids_BN = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return TextTokens(ids_BN, ids_BN > 0)

    def encode_text(self, text: TextTokens) -> EncodedText:
        return EncodedText(self.letters(text.ids_BN), text.mask_BN)

    def forward(self, images: Mapping[str, Tensor], text: EncodedText) -> Tensor:
        seen = torch.cat([images[name].mean((2, 3)) for name in self.cameras], 1)
        return (self.brightness(seen) + text.states_BND.mean(1)).unsqueeze(1)

    def parts(self) -> Parts:
        return Parts()

    def save_assets(self, directory: Path) -> None:
        pass


def create(options: Options, cameras: Sequence[CameraSpec], directory: Path | None) -> Brightness:
    """Build it, as every family's module does."""
    return Brightness(options, cameras)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Return a run's configuration with this file's family."""
    monkeypatch.setitem(backbones.FAMILIES, 'brightness', __name__)
    write_store(tmp_path / 'store', episodes=4, steps=6)
    chosen = values(tmp_path / 'run', tmp_path / 'store', 2)
    chosen['policy']['backbone'] = {'family': 'brightness', 'options': {'width': 8}}
    return chosen


def test_a_third_kind_of_backbone_trains_is_kept_and_acts(settings: dict, tmp_path: Path) -> None:
    """One file is all that a new backbone needs: no other room asks which kind it is."""
    run.fit(configured(settings))
    policy = checkpoint.load(tmp_path / 'run' / LAST)
    images = {camera.name: np.full((32, 32, 3), 90, np.uint8)
              for camera in policy.manifest.cameras}
    decision = PolicyActor(policy).act(Observation(0, images), 'go left')
    assert decision.chunk.shape == (4, 7) and np.isfinite(decision.chunk).all()


@pytest.mark.parametrize(('wanted', 'named'), [
    ('tune.freeze_vision=true', 'freeze_vision'),
    ('tune.freeze_language=true', 'freeze_language'),
    ('tune.last_n_layers=1', 'last_n_layers'),
    ('tune.lora={}', 'lora'),
    ('engine.gradient_checkpointing=true', 'gradient_checkpointing'),
    ('losses.caption=true', 'caption'),
    ('data.loader.cached_features=1', 'cached_features'),
])
def test_what_a_backbone_does_not_offer_is_refused_by_name(settings: dict, wanted: str,
                                                           named: str) -> None:
    """Before, such a setting ended in an AttributeError of code that never mentions backbones."""
    with pytest.raises(ValueError, match=named):
        run.assemble(configured(settings, wanted))

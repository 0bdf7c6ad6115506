"""Tuning parts of a language model: what is frozen stays, and adapters leave no trace on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import random_vlms
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.training import cli, tuning
from ros2_lstm_policy.training.callbacks import LAST
from test_backbones_policy import make_policy
import torch
from training_data import values, write_store
import yaml


def trained_names(tune: tuning.TuneConfig, folder: Path) -> set[str]:
    """Return the names of what is trained in a tiny Kosmos-2 policy."""
    policy = make_policy('kosmos2', folder / 'model')
    tuning.apply(policy, tune)
    return {name for name, p in policy.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(('tune', 'gone', 'kept'), [
    ({'freeze_vision': True}, ('vision_model', 'image_to_text'), 'text_model.model.layers.0'),
    ({'freeze_language': True}, ('text_model.model.layers',), 'embed_tokens'),
    ({'freeze_embeddings': True}, ('embed_tokens',), 'text_model.model.layers.0'),
    ({'last_n_layers': 1}, ('text_model.model.layers.0', 'embed_tokens'),
     'text_model.model.layers.1'),
])
def test_a_frozen_part_is_frozen_and_the_others_are_not(tune: dict, gone: tuple[str, ...],
                                                        kept: str, tmp_path: Path) -> None:
    """Vision, language, embeddings and early layers by name; the head always trains."""
    names = trained_names(tuning.TuneConfig(**tune), tmp_path)
    assert not [name for name in names for part in gone if part in name]
    assert any(kept in name for name in names)
    assert any(name.startswith('decoder.') for name in names)
    assert 'backbone.action_token' in names


def test_merged_adapters_act_as_they_trained_and_come_out_exactly(tmp_path: Path) -> None:
    """A checkpoint holds plain weights; training goes on as if nothing had been merged."""
    policy = make_policy('kosmos2', tmp_path / 'model')
    plain = set(policy.state_dict())
    tuning.apply(policy, tuning.TuneConfig(lora=tuning.LoraConfig(rank=2, dropout=0.0)))
    for name, parameter in policy.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, 0, 0.1)
    side = policy.manifest.cameras[0].height
    images = {c.name: torch.randn(1, 1, 3, side, side) for c in policy.manifest.cameras}
    text = policy.encode_instructions(['open the drawer'])
    policy.eval()
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    with torch.no_grad():
        wanted = policy.encode(images, text)
        with tuning.merged(policy):
            assert set(policy.state_dict()) == plain
            torch.testing.assert_close(policy.encode(images, text), wanted, rtol=1e-4, atol=1e-4)
    for name, value in policy.state_dict().items():
        assert value.equal(before[name]), name


def test_a_language_model_trains_by_the_same_command(tmp_path: Path) -> None:
    """Kosmos-2 with adapters, captions and gradient checkpointing, to a checkpoint that loads."""
    torch.set_num_threads(1)
    side = random_vlms.side('kosmos2')
    write_store(tmp_path / 'store', episodes=4, steps=4, size=side)
    random_vlms.make('kosmos2', tmp_path / 'model')
    settings = values(tmp_path / 'run', tmp_path / 'store', 1)
    settings['policy']['backbone'] = {'family': 'kosmos2',
                                      'options': {'directory': str(tmp_path / 'model')}}
    for camera in settings['manifest']['cameras']:
        camera |= {'height': side, 'width': side, 'interpolation': 'bicubic'}
    (tmp_path / 'train.yaml').write_text(yaml.safe_dump(settings))
    assert cli.main(['--config', str(tmp_path / 'train.yaml'), 'tune.lora={rank: 2}',
                     'losses.caption=true', 'engine.gradient_checkpointing=true']) == cli.DONE
    policy = checkpoint.load(tmp_path / 'run' / LAST)
    assert not [name for name in policy.state_dict() if 'lora' in name]

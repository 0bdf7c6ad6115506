"""Model directories and options that cannot be used are refused, with what was wanted."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
import shutil
import socket
from typing import Any

import pytest
import random_vlms
from ros2_lstm_policy import config
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec
from ros2_lstm_policy.model import backbones
from ros2_lstm_policy.model.backbones.base import Backbone, InstructionTooLong
from ros2_lstm_policy.model.policy import Policy
from ros2_lstm_policy.model.untrained import InitConfig
from safetensors.torch import load_file, save_file
import torch
import transformers

GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture
def kosmos(tmp_path: Path) -> Path:
    """Return a copy of the tiny Kosmos-2 that a test may break."""
    transformers.utils.logging.disable_progress_bar()
    return Path(shutil.copytree(GOLDEN / 'tiny_kosmos2', tmp_path / 'kosmos'))


def create(directory: Path | str, family: str = 'kosmos2', side: int = 56,
           **options: Any) -> Backbone:
    """Create a backbone with one camera."""
    camera = CameraSpec('static', side, side, 'bicubic', (0.5,) * 3, (0.5,) * 3)
    return backbones.create(family, {'directory': str(directory), **options}, [camera])


def refusal(directory: Path | str, **options: Any) -> str:
    """Return what the refusal says."""
    with pytest.raises(ConfigError) as error:
        create(directory, **options)
    return str(error.value)


@pytest.mark.parametrize('family', ['paligemma', 'qwen_vl', 'smolvlm', 'llava', 'florence2'])
def test_directory_of_another_family_is_named(kosmos: Path, family: str) -> None:
    """config.json, the type found and the type wanted."""
    said = refusal(kosmos, family=family)
    assert str(kosmos / 'config.json') in said
    assert "'kosmos-2'" in said
    assert 'wanted' in said


def test_shipped_configuration_of_kosmos2_is_read_up_to_the_missing_model() -> None:
    """Its keys and cameras are right; only the model has to be fetched."""
    chosen = config.load(InitConfig, GOLDEN.parents[1] / 'config' / 'policy_kosmos2.yaml')
    with pytest.raises(ConfigError, match='models/kosmos2: no such directory'):
        Policy(chosen.policy, chosen.manifest)


def test_missing_directory_says_what_to_download_and_where_to_put_it() -> None:
    """A path that is not there."""
    said = refusal('/nowhere/kosmos2')
    assert '/nowhere/kosmos2' in said
    assert 'hf download' in said


def test_hub_name_is_looked_up_in_the_cache_alone(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network unless `allow_download`; the message says how to get the model."""
    def no_network(*_: object) -> None:
        raise AssertionError('the network was asked')

    monkeypatch.setattr(socket.socket, 'connect', no_network)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    said = refusal('someone/some-model')
    assert 'someone/some-model: no such directory' in said and 'hf download' in said
    assert 'allow_download: true' in said


def test_model_in_the_cache_is_found_by_its_hub_name(
        kosmos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout that the hub's client leaves behind."""
    commit = '0' * 40
    stored = tmp_path / 'hub' / 'models--someone--kosmos'
    (stored / 'refs').mkdir(parents=True)
    (stored / 'refs' / 'main').write_text(commit)
    shutil.copytree(kosmos, stored / 'snapshots' / commit)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    assert create('someone/kosmos').feature_dim == 64


@pytest.mark.parametrize('text', [None, '{', '[]'])
def test_config_that_cannot_be_read_is_named(kosmos: Path, text: str | None) -> None:
    """Absent, broken, or no object."""
    file = kosmos / 'config.json'
    file.unlink() if text is None else file.write_text(text)
    assert str(file) in refusal(kosmos)


def test_missing_tokenizer_files_are_named(kosmos: Path) -> None:
    """The words cannot be read without them."""
    (kosmos / 'tokenizer.json').unlink()
    said = refusal(kosmos)
    assert 'tokenizer.json' in said and str(kosmos) in said


def test_missing_weights_are_named(kosmos: Path) -> None:
    """A directory of config and tokenizer alone."""
    (kosmos / 'model.safetensors').unlink()
    said = refusal(kosmos)
    assert str(kosmos) in said and 'safetensors' in said


def test_cut_weights_are_named(kosmos: Path) -> None:
    """A copy that was broken off."""
    file = kosmos / 'model.safetensors'
    file.write_bytes(file.read_bytes()[:100_000])
    said = refusal(kosmos)
    assert str(kosmos) in said and 'cannot be read' in said


@pytest.mark.parametrize(('change', 'wanted'), [
    (lambda w: w.pop('text_model.model.layer_norm.weight'),
     ['text_model.model.layer_norm.weight', 'missing']),
    (lambda w: w.update(extra=torch.zeros(1)), ['extra', 'unexpected']),
    (lambda w: w.update({'image_to_text_projection.latent_query': torch.zeros(8, 32)}),
     ['image_to_text_projection.latent_query', '(8, 32)', '(8, 64)'])])
def test_weights_that_do_not_fit_are_named(
        kosmos: Path, change: Callable[[dict[str, torch.Tensor]], Any],
        wanted: list[str]) -> None:
    """Missing, unexpected and misshapen tensors."""
    file = kosmos / 'model.safetensors'
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {'format': 'pt'})
    said = refusal(kosmos)
    assert all(part in said for part in [str(kosmos), *wanted]), said


@pytest.mark.parametrize('kind', random_vlms.KINDS)
def test_image_size_that_the_tower_does_not_take_is_refused(kind: str, tmp_path: Path) -> None:
    """Camera, size found and size wanted."""
    transformers.utils.logging.disable_progress_bar()
    directory = random_vlms.make(kind, tmp_path / kind)
    said = refusal(directory, family=random_vlms.family(kind), side=45)
    assert "camera 'static': 45x45" in said
    assert 'manifest' in said


def test_too_long_an_instruction_is_refused_and_never_cut(kosmos: Path) -> None:
    """The number of tokens, the limit and the option that sets it."""
    backbone = create(kosmos, max_text_tokens=30)
    assert backbone.tokenize(['open']).ids_BN.shape[1] <= 30
    with pytest.raises(InstructionTooLong, match='max_text_tokens is 30'):
        backbone.tokenize(['open', 'open the drawer and then close the drawer again'])


def test_instruction_that_holds_an_image_token_is_refused(tmp_path: Path) -> None:
    """It would move the images."""
    transformers.utils.logging.disable_progress_bar()
    backbone = create(random_vlms.make('llava', tmp_path), 'llava', random_vlms.side('llava'))
    with pytest.raises(ValueError, match='<image>'):
        backbone.tokenize(['put the <image> away'])


@pytest.mark.parametrize(('options', 'wanted'), [
    ({'directori': 'x'}, "unknown key 'directori'"),
    ({'attention': 'flash'}, 'attention'),
    ({'feature': 'last'}, 'feature'),
    ({'prompt': 'no place'}, '{instruction}'),
    ({'action_tokens': 0}, 'action_tokens')])
def test_options_that_do_not_fit_are_refused(kosmos: Path, options: dict[str, Any],
                                             wanted: str) -> None:
    """Strictly, by key."""
    with pytest.raises(ConfigError) as error:
        create(kosmos, **options)
    assert wanted in str(error.value)


def test_prompt_needs_its_images_before_the_instruction_and_a_token_for_them(
        kosmos: Path, tmp_path: Path) -> None:
    """A template that the sequence cannot have."""
    transformers.utils.logging.disable_progress_bar()
    llava = random_vlms.make('llava', tmp_path / 'llava')
    assert 'before' in refusal(llava, family='llava', side=28, prompt='{instruction}{images}')
    text = (llava / 'tokenizer.json').read_text().replace('<image>', '<picture>')
    (llava / 'tokenizer.json').write_text(text)
    kept = json.loads((llava / 'tokenizer_config.json').read_text())
    kept = {key: value for key, value in kept.items() if '<image>' not in str(value)}
    (llava / 'tokenizer_config.json').write_text(json.dumps(kept))
    assert "no '<image>'" in refusal(llava, family='llava', side=28)

"""Model directories and options that cannot be used are refused, with what was wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
import resource
import shutil
import socket
import threading
from typing import Any

from huggingface_hub import close_session
import pytest
import random_vlms
from ros2_lstm_policy import config
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model import backbones, memory, untrained
from ros2_lstm_policy.model.backbones.base import Backbone, InstructionTooLong
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
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


def edited(file: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Change a JSON file in place, and return it."""
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    return file


@pytest.mark.parametrize(('change', 'said'), [
    (lambda c: c.update(quantization_config={'quant_method': 'awq', 'bits': 4}),
     ["quantization_config is of 'awq'", 'take the model that they were made from']),
    (lambda c: c.update(quantization_config={'quant_method': 'bitsandbytes'}), ["'bitsandbytes'"]),
    (lambda c: c['text_config'].update(layers='two'), ["'layers' expected int"]),
    (lambda c: c['text_config'].update(layers=10**9),
     ['text_config.layers is 1000000000', 'at most 1000']),
    (lambda c: c['text_config'].update(attention_heads=0), []),
    (lambda c: c['text_config'].update(embed_dim=-8), []),
    (lambda c: c.update(text_config='big'), []),
    (lambda c: c.update(dtype='float99'), ['float99']),
    (lambda c: c.update(latent_query_num=None), [])])
def test_a_config_that_describes_no_network_is_one_line_with_its_name(
        kosmos: Path, change: Callable[[dict[str, Any]], Any], said: list[str]) -> None:
    """The library's exceptions of every kind were tracebacks of hundreds of lines."""
    file = edited(kosmos / 'config.json', change)
    text = refusal(kosmos)
    assert all(part in text for part in [str(file), *said]), text
    assert '\n' not in text


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-32'])
def test_a_config_in_another_encoding_is_named(kosmos: Path, encoding: str) -> None:
    """As an editor of Windows may save it."""
    file = kosmos / 'config.json'
    file.write_text(file.read_text(), encoding=encoding)
    assert f'{file}: is no valid JSON' in refusal(kosmos)


@pytest.mark.parametrize('change', [
    lambda t: t['model'].update(type='LaterBPE'), lambda t: t.pop('model'),
    lambda t: t.update(added_tokens=[{'id': -1}])])
def test_a_tokenizer_of_another_library_is_one_line(
        kosmos: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """`tokenizers` raises bare exceptions ("data did not match any variant ...")."""
    edited(kosmos / 'tokenizer.json', change)
    said = refusal(kosmos)
    assert f'{kosmos}: the tokenizer cannot be read' in said and '\n' not in said


def test_a_tokenizer_of_another_model_is_refused(kosmos: Path) -> None:
    """Its words would index beyond the embeddings, in the middle of an episode."""
    tokens = [{'id': 10_000 + number, 'content': f'<later_{number}>', 'single_word': False,
               'lstrip': False, 'rstrip': False, 'normalized': False, 'special': True}
              for number in range(9_000)]
    edited(kosmos / 'tokenizer.json', lambda t: t['added_tokens'].extend(tokens))
    assert 'the tokenizer files are of another model' in refusal(kosmos)


@pytest.mark.parametrize(('index', 'said'), [
    ('{"metadata": {', 'is no index of weights'), ('{}', 'is no index of weights'),
    ('{"weight_map": {"a": "model-00009.safetensors"}}', 'model-00009.safetensors is missing'),
    ('{"weight_map": {"a": "../k.safetensors"}}', 'names of files beside it')])
def test_an_index_of_weights_that_leads_nowhere_is_named(
        kosmos: Path, index: str, said: str) -> None:
    """Cut, empty, or of shards that were not copied."""
    (kosmos / 'model.safetensors').rename(kosmos / 'model-00001-of-00001.safetensors')
    (kosmos / 'model.safetensors.index.json').write_text(index)
    text = refusal(kosmos)
    assert said in text and str(kosmos) in text and '\n' not in text


def test_pickles_are_not_read(kosmos: Path) -> None:
    """A directory of old weights alone: what a pickle holds may be code."""
    (kosmos / 'model.safetensors').unlink()
    torch.save({'text_model.x': torch.zeros(1)}, kosmos / 'pytorch_model.bin')
    assert 'never from pickles' in refusal(kosmos)


def test_florence_of_microsoft_is_refused_by_key_with_what_to_take(tmp_path: Path) -> None:
    """Its directory has the same model_type and another layout."""
    directory = random_vlms.make('florence2', tmp_path / 'florence')
    file = edited(directory / 'config.json', lambda c: (
        c['text_config'].update(model_type='florence2_language'),
        c['vision_config'].update(model_type='davit')))
    said = refusal(directory, family='florence2', side=64)
    assert f"{file}: text_config.model_type is 'florence2_language'" in said
    assert 'florence-community/' in said


def test_a_network_larger_than_its_weights_is_refused_before_memory_is_taken(
        kosmos: Path) -> None:
    """A config.json of seven billion numbers beside small weights took 23 GB to be refused."""
    edited(kosmos / 'config.json', lambda c: c['text_config'].update(
        embed_dim=4096, ffn_dim=16384, layers=32, attention_heads=32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refusal(kosmos)
    assert 'describes a network of' in said and 'config.json' in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_policy_larger_than_the_free_memory_is_refused_unless_it_is_wanted(
        kosmos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked of its outline; the variable is for those who know better, swap for example."""
    camera = CameraSpec('static', 56, 56, 'bicubic', (0.5,) * 3, (0.5,) * 3)
    chosen = InitConfig(
        PolicyConfig(BackboneConfig('kosmos2', {'directory': str(kosmos)}),
                     DecoderConfig(hidden_size=8, num_layers=1)),
        one_arm('base', 'euler_xyz', 0.1, Normalisation((0.0,) * 6, (1.0,) * 6),
                (camera,)))
    monkeypatch.setattr(memory, 'available', lambda: 1_000_000)
    with pytest.raises(ConfigError, match='needs 0.0 GB .* set ROS2_LSTM_POLICY_UNCHECKED'):
        untrained.untrained(chosen, 0)
    monkeypatch.setenv(memory.UNCHECKED, '1')
    untrained.untrained(chosen, 0)


class _Hub(BaseHTTPRequestHandler):
    """A hub on loopback that refuses as the real one does."""

    def do_GET(self) -> None:
        """Say that a model is gated or unknown, or fail."""
        status, word = next(answer for name, answer in (
            ('gated', (401, 'GatedRepo')), ('unknown', (404, 'RepoNotFound')), ('', (418, '')))
            if name in self.path)
        self.send_response(status)
        self.send_header('X-Error-Code', word)
        self.send_header('Content-Length', '0')
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the hub's client ask a server of ours."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), _Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for name in ('constants.ENDPOINT', 'hf_api.ENDPOINT'):
        monkeypatch.setattr(f'huggingface_hub.{name}', f'http://127.0.0.1:{server.server_port}',
                            raising=False)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    monkeypatch.setattr('huggingface_hub.hf_api.api.endpoint',
                        f'http://127.0.0.1:{server.server_port}')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    yield
    server.shutdown()
    server.server_close()
    close_session()


@pytest.mark.usefixtures('hub_endpoint')
@pytest.mark.parametrize(('name', 'said'), [
    ('owner/gated', '`hf auth login`'), ('owner/unknown', 'the hub knows no model of this name'),
    ('owner/teapot', 'owner/teapot: '), ('owner/bad name', 'no name of a model')])
def test_what_the_hub_refuses_is_one_line_with_what_to_do(name: str, said: str) -> None:
    """Everybody without a login met a traceback over PaliGemma, which is gated."""
    text = refusal(name, allow_download=True)
    assert text.startswith(f'{name}: ') and said in text, text
    assert '\n' not in text
    assert 'allow_download' not in text  # it was given


def test_no_network_with_a_download_allowed_advises_no_download(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice was to set `allow_download: true`, which was set."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub'))
    said = refusal('owner/some-model', allow_download=True)
    assert 'the hub cannot be reached' in said and 'allow_download' not in said


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

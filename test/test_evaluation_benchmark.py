"""The command `benchmark`: what it measures, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import random_vlms
from ros2_lstm_policy.evaluation import benchmark
from ros2_lstm_policy.evaluation.floor import Record
from ros2_lstm_policy.manifest import CameraSpec, Normalisation, one_arm
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.model.policy import BackboneConfig, DecoderConfig, Policy, PolicyConfig
import torch
from torch import nn
import yaml

QUICK = ['--ticks', '6', '--paced-ticks', '3', '--image-size', '48x64', '--device', 'cpu']
CAMERA = {'name': 'static', 'height': 28, 'width': 28, 'interpolation': 'bicubic',
          'mean': [0.5] * 3, 'std': [0.5] * 3}


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of a small policy that acts at 50 Hz."""
    manifest = one_arm('base', 'rotation_vector', 0.02, Normalisation((0.0,) * 6, (0.05,) * 6),
                       (CameraSpec('static', 32, 32, 'area', (0.5,) * 3, (0.5,) * 3),))
    policy = Policy(PolicyConfig(
        BackboneConfig('compact', {'width': 32, 'layers': 1, 'feed_forward': 32}),
        DecoderConfig(hidden_size=16, num_layers=2, window_size=4, fwd_pred_next_n=2)), manifest)
    directory = tmp_path_factory.mktemp('benchmark') / 'checkpoint'
    checkpoint.save(directory, policy, 'card')
    return directory


def test_a_benchmark_tells_each_way_its_stages_and_the_floor(
        small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a table, as JSON and as a picture, from one run."""
    assert benchmark.main(['--checkpoint', str(small), *QUICK, '--output', str(tmp_path)]) == 0
    said = capsys.readouterr().out
    report: dict[str, Any] = json.loads((tmp_path / 'benchmark.json').read_text())
    assert (tmp_path / 'benchmark.md').read_text() == said
    assert (tmp_path / 'benchmark.png').read_bytes().startswith(b'\x89PNG')
    assert [way['way'] for way in report['ways']] == ['eager', 'prepared']
    for way in report['ways']:
        assert f'| {way["way"]} | 6 back to back |' in said
        assert f'| {way["way"]} | 3 at 50 Hz |' in said
        for times in (way['back_to_back'], way['paced']):
            assert 0 < times['median_ms'] <= times['p99_ms']
            assert list(times['stages_ms']) == ['preprocess', 'text', 'backbone', 'head',
                                                'postprocess', 'after the action']
        assert way['difference'] < 1e-3 and way['process_gb'] > 0
    floor = report['floor']
    assert floor['least_ms'] == max(floor['read_ms'], floor['compute_ms']) > 0
    assert 0 < floor['weight_bytes'] <= 4 * report['parameters']
    assert '**floor**' in said and report['device'] in said


def test_random_weights_need_a_description_and_a_tokenizer_alone(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network of an official size is measured where its weights are not."""
    model = random_vlms.make('llava', tmp_path / 'model')
    for weights in model.glob('*.safetensors'):
        weights.unlink()
    file = tmp_path / 'policy.yaml'
    file.write_text(yaml.safe_dump({
        'policy': {'backbone': {'family': 'llava', 'options': {'directory': str(model)}},
                   'decoder': {'hidden_size': 16, 'num_layers': 1}},
        'manifest': {'frame': 'base', 'rotation': 'rotation_vector', 'control_period_s': 0.1,
                     'arm': {'offset': [0.0] * 6, 'scale': [0.1] * 6}, 'cameras': [CAMERA]}}))
    command = ['--config', str(file), *QUICK, '--paced-ticks', '0', '--ways', 'eager']
    assert benchmark.main(command) == 2
    assert 'safetensors' in capsys.readouterr().err
    assert benchmark.main([*command, '--random-weights', '--no-floor',
                           'policy.decoder.window_size=3']) == 0
    said = capsys.readouterr().out
    assert '(llava, ' in said and 'window 3' in said and 'floor' not in said


@pytest.mark.parametrize(('arguments', 'wanted'), [
    ([], 'expected either --checkpoint or --config, found neither'),
    (['--checkpoint', 'a', '--config', 'b'], 'found both'),
    (['--checkpoint', 'a', 'x=1'], 'a checkpoint stays as it is'),
    (['--checkpoint', '/nowhere'], '/nowhere'),
    (['--checkpoint', 'a', '--ticks', '0'], '--ticks: expected 1 to'),
    (['--checkpoint', 'a', '--paced-ticks', '-1'], '--paced-ticks: expected 0 to'),
    (['--checkpoint', 'a', '--image-size', '0x5'], 'ROWSxCOLUMNS like 480x640'),
    (['--checkpoint', 'a', '--device', 'toaster'], "device 'toaster' cannot be used"),
    (['--checkpoint', 'a', '--device', 'meta'], "device 'meta': expected cpu or cuda"),
    (['--checkpoint', 'a', '--device', 'cpu', '--ways', 'graph'], 'eager, prepared on cpu'),
])
def test_what_cannot_be_measured_is_said_in_one_line(
        arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Found, wanted, what to do; no table."""
    assert benchmark.main(arguments) == 2
    said = capsys.readouterr()
    assert wanted in said.err and said.err.count('\n') == 1 and not said.out


def test_a_floor_counts_each_weight_once_and_every_product() -> None:
    """Products of activations with each other read no weights."""
    layer, inputs = nn.Linear(6, 5, bias=False), torch.randn(3, 6)
    record = Record()
    with torch.no_grad(), record:
        once = layer(inputs + 0)
        twice = layer(inputs + 1)
        once @ twice.t()
    assert record.operations == 2 * (3 * 6 * 5) * 2 + 2 * (3 * 5 * 3)
    assert sum(record.weights.values()) == 4 * 6 * 5
    assert sum(record.products.values()) == 3

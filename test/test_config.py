"""Strict configuration: what is read is what was written, and errors name file and key."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.manifest import CameraSpec, Manifest, Normalisation, one_arm


@dataclass(frozen=True)
class Optimiser:
    """A small section."""

    lr: float
    name: Literal['adamw', 'sgd'] = 'adamw'


@dataclass(frozen=True)
class Training:
    """A small configuration."""

    optimiser: Optimiser
    steps: int
    resume: Path | None = None


def read(tmp_path: Path, text: str, *overrides: str) -> Training:
    """Write the text to a file and load it."""
    path = tmp_path / 'train.yaml'
    path.write_text(text)
    return config.load(Training, path, overrides)


def test_overrides_replace_single_keys(tmp_path: Path) -> None:
    """An override reaches into a section and leaves the rest as the file has it."""
    found = read(tmp_path, 'optimiser: {lr: 1e-4}\nsteps: 3\n', 'optimiser.name=sgd', 'resume=a/b')
    assert found == Training(Optimiser(1e-4, 'sgd'), 3, Path('a/b'))


def parsed(*words: str) -> argparse.Namespace:
    """Parse a command line as `train` and `dataset` do."""
    parser = argparse.ArgumentParser()
    parser.add_argument('path')
    parser.add_argument('--dry-run', action='store_true')
    parser.add_argument('changes', nargs='*')
    return config.parse_arguments(parser, words, 'changes')


@pytest.mark.parametrize('words', [
    'run a=1 b=2 --dry-run', 'run --dry-run a=1 b=2', 'run a=1 --dry-run b=2',
    '--dry-run run a=1 b=2'])
def test_changes_stand_anywhere_between_options(words: str) -> None:
    """Wherever an option stands, every change is taken, in its order."""
    found = parsed(*words.split())
    assert (found.path, found.dry_run, found.changes) == ('run', True, ['a=1', 'b=2'])


def test_an_unknown_option_among_changes_is_refused(capsys: pytest.CaptureFixture) -> None:
    """A mistyped option is no change."""
    with pytest.raises(SystemExit):
        parsed('run', 'a=1', '--dry-runs', 'b=2')
    assert 'unrecognized arguments: --dry-runs' in capsys.readouterr().err


@pytest.mark.parametrize(('text', 'message'), [
    ('optimiser: {lr: 1}\nstep: 3', "unknown key 'step'; did you mean 'steps'?"),
    ('optimiser: {lr: 1}', "missing key 'steps' (int)"),
    ('optimiser: {lr: high}\nsteps: 3', 'train.yaml: optimiser: lr: expected float, found str'),
    ('optimiser: {lr: 1}\nsteps: 3.5', 'steps: expected int, found float 3.5'),
    ('optimiser: {lr: 1}\nsteps: true', 'steps: expected int, found bool True'),
    ('optimiser: {lr: 1, name: lion}\nsteps: 3', "name: expected one of 'adamw', 'sgd'"),
    ('optimiser: 3\nsteps: 3', 'optimiser: expected Optimiser, found int 3'),
    ('- 1', 'expected keys and values, found list'),
    ('a: [', 'is not valid YAML'),
    ('optimiser: {lr: .nan}\nsteps: 3', 'lr: expected a finite number, found nan'),
    ('optimiser: {lr: -.inf}\nsteps: 3', 'lr: expected a finite number, found -inf'),
    ('optimiser: {lr: nan}\nsteps: 3', 'lr: expected a finite number, found nan'),
    ('optimiser: {lr: 1' + '0' * 400 + '}\nsteps: 3', 'lr: expected float, found int 1000'),
    ('steps: 3\noptimiser: {lr: 1}\nsteps: 4', "key 'steps' stands there twice"),
    ('optimiser: {lr: 1, lr: 2}\nsteps: 3', "key 'lr' stands there twice"),
    ('optimiser: &a {lr: 1, name: *a}\nsteps: 3', 'an alias stands inside what it names'),
    ('a: ' + '[' * 5000 + ']' * 5000, 'nested too deeply'),
    ('a0: &a0 [1, 1]\n' + ''.join(f'a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n' for n in range(1, 40)),
     'aliases grow to more than 200000 values'),
])
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    """Every mistake names the file, the key, what was found and what was wanted."""
    with pytest.raises(config.ConfigError) as error:
        read(tmp_path, text)
    assert 'train.yaml' in str(error.value)
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(config.ConfigError, match='nowhere.yaml: cannot be read'):
        config.load(Training, tmp_path / 'nowhere.yaml')


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    """Dump and load give an equal manifest, tuples and optional values included."""
    camera = CameraSpec('static', 128, 160, 'area', (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    manifest = one_arm('base', 'rotation_vector', 0.1,
                       Normalisation((0.0,) * 6, (0.05,) * 6), (camera,))
    path = tmp_path / 'action.yaml'
    path.write_text(config.dump(manifest))
    assert config.load(Manifest, path) == manifest


def test_an_alias_that_repeats_a_section_is_read(tmp_path: Path) -> None:
    """Only aliases without end are refused."""
    path = tmp_path / 'ok.yaml'
    path.write_text('a: &one {x: 1}\nb: *one\nc: {<<: *one, x: 2}\n')
    assert config.read_yaml(path) == {'a': {'x': 1}, 'b': {'x': 1}, 'c': {'x': 2}}


@pytest.mark.parametrize(('change', 'message'), [
    ({'control_period_s': float('nan')}, 'control_period_s: expected finite'),
    ({'control_period_s': float('inf')}, 'control_period_s: expected finite'),
    ({'threshold': float('nan')}, 'threshold: expected finite'),
    ({'threshold': 1.5}, 'threshold is a probability'),
    ({'largest': (0.1,) * 5 + (float('nan'),)}, 'largest: expected finite'),
    ({'largest': (0.1,) * 5}, 'largest needs 6 values'),
    ({'arm.scale': (float('nan'),) * 6}, 'scale: expected finite'),
    ({'arm.offset': (float('inf'),) * 6}, 'offset: expected finite'),
    ({'arm.mu': float('nan')}, 'mu: expected finite'),
    ({'arm.mu': -1.0}, 'mu must be positive'),
    ({'camera.std': (0.5, 0.0, 0.5)}, 'std must be positive'),
    ({'camera.mean': (0.5, float('nan'), 0.5)}, 'mean: expected finite'),
    ({'camera.crop': (0.0, 0.0, float('nan'), 1.0)}, 'crop'),
])
def test_a_manifest_has_no_number_that_decides_nothing(change: dict, message: str) -> None:
    """Every comparison that refuses lets NaN pass, and so does every one that holds the robot."""
    def of(part: str) -> dict:
        return {key.removeprefix(part): value for key, value in change.items()
                if key.startswith(part)}
    with pytest.raises(ValueError, match=message):
        one_arm(**{
            'frame': 'base', 'rotation': 'rotation_vector', 'control_period_s': 0.1,
            'arm': Normalisation(**{'offset': (0.0,) * 6, 'scale': (1.0,) * 6, **of('arm.')}),
            'cameras': (CameraSpec(**{
                'name': 'static', 'height': 8, 'width': 8, 'interpolation': 'area',
                'mean': (0.5,) * 3, 'std': (0.5,) * 3, **of('camera.')}),),
            **{key: value for key, value in change.items() if '.' not in key}})


@pytest.mark.parametrize(('scale', 'message'), [
    ((0.05,) * 5, 'need as many values'), ((0.0,) * 6, 'every scale must be positive')])
def test_statistics_that_cannot_be_inverted_are_refused(scale: tuple, message: str) -> None:
    """A scale of zero would divide by zero in training and stop the arm on the robot."""
    with pytest.raises(ValueError, match=message):
        Normalisation((0.0,) * 6, scale)

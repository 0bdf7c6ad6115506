"""What the commands say about their keys is whole, and is what they read."""

from __future__ import annotations

from pathlib import Path

import pytest
from ros2_lstm_policy import config, config_help
from ros2_lstm_policy.evaluation import evaluate
from ros2_lstm_policy.evaluation.evaluate import EvaluateConfig
from ros2_lstm_policy.model import init_checkpoint
from ros2_lstm_policy.model.untrained import InitConfig
from ros2_lstm_policy.sim import collect, dagger
from ros2_lstm_policy.training import cli, curves
from ros2_lstm_policy.training.config import TrainConfig


@pytest.mark.parametrize('cls', [
    TrainConfig, InitConfig, EvaluateConfig, collect.CollectConfig, dagger.DaggerConfig])
def test_every_key_of_a_command_says_what_it_means(cls: type) -> None:
    """A key without a word in its class's docstring is one that nobody can set."""
    missing = [key.name for key in config_help.keys(cls) if not key.meaning]
    assert not missing


def test_the_keys_that_are_listed_are_those_that_are_read(
        capsys: pytest.CaptureFixture[str]) -> None:
    """`train --keys` names every key of a shipped configuration, with type and default."""
    with pytest.raises(SystemExit) as ended:
        cli.main(['--keys'])
    assert not ended.value.code
    told = capsys.readouterr().out
    root = Path(__file__).parents[1] / 'config'
    for section, values in config.read_yaml(root / 'train_compact.yaml').items():
        for name in values if isinstance(values, dict) else ():
            assert f'  {section}.{name}' in told, (section, name)
    assert '  schedule.max_steps  (int or null; default ' in told
    assert '  output  (path; required)\n' in told
    assert ':class:' not in told


def test_every_command_with_a_configuration_lists_its_keys_alone(
        capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file to read; those of sections as well."""
    for command, wanted in ((collect.main, '  image_size  ('), (dagger.main, '  checkpoint  ('),
                            (evaluate.main, '  perturb.noise  (float; default 0.0)')):
        with pytest.raises(SystemExit) as ended:
            command(['--keys'])
        assert not ended.value.code
        told = capsys.readouterr().out
        assert wanted in told and 'usage' not in told


def test_help_leads_to_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """Or lists them where that takes no torch."""
    for command, wanted in ((cli.main, '--keys'), (init_checkpoint.main, '--keys'),
                            (collect.main, '  image_size  ('), (curves.main, 'curves.png')):
        with pytest.raises(SystemExit) as ended:
            command(['--help'])
        assert not ended.value.code
        assert wanted in capsys.readouterr().out

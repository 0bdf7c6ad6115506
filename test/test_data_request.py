"""The command `dataset` with a training configuration or a manifest: what is wanted, and how."""

from data_aloha import write_aloha
from data_recordings import manifest, write_bag
import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.data.dataset import main

CAMERA = ('{name: cam_high, height: 16, width: 16, interpolation: area, mean: [0.5, 0.5, 0.5], '
          'std: [0.5, 0.5, 0.5]}')
TRAIN = f"""
output: runs/mine
manifest:
  control_period_s: 0.02
  cameras: [{CAMERA}]
  actions: [{{name: arm, kind: joint_position, size: 2, names: [left_waist, left_elbow]}}]
  states: [{{name: state, size: 1}}]
data:
  sources:
    - path: SOURCE
      lerobot: {{states: {{state: {{columns: [left_gripper]}}}}}}
policy: {{anything: true}}
"""


@pytest.fixture
def train(tmp_path):
    """Write a training configuration and return it as options."""
    def write(text):
        (tmp_path / 'train.yaml').write_text(text)
        return ['--config', str(tmp_path / 'train.yaml')]
    return write


def test_a_training_configuration_says_what_is_wanted_and_how_it_is_read(tmp_path, train, capsys):
    """Its manifest, and its source of that path; the rest of it is train's."""
    root = write_aloha(tmp_path / 'set')
    said = train(TRAIN.replace('SOURCE', f'{tmp_path}/./set'))
    assert main(['inspect', str(root), *said]) == 0
    out = capsys.readouterr().out
    assert 'arm left_elbow [rad]' in out
    assert 'state 1' in out
    assert main(['validate', str(root), *said]) == 0
    assert main(['stats', str(root), *said]) == 0
    assert 'states:\n- name: state' in capsys.readouterr().out
    for form in ('bag', 'lerobot'):
        assert main(['convert', str(root), str(tmp_path / form), '--to', form, *said]) == 0
        assert main(['inspect', str(tmp_path / form)]) == 0
        assert 'arm left_elbow [rad]' in capsys.readouterr().out
    said[1:] = [str(tmp_path / 'action.yaml'), 'lerobot.states.state.columns=[3]']
    values = config.read_yaml(tmp_path / 'train.yaml')
    unit = {'offset': [0.0], 'scale': [1.0]}
    values['manifest']['states'][0]['normalisation'] = unit
    values['manifest']['actions'][0]['normalisation'] = {
        key: value * 2 for key, value in unit.items()}
    (tmp_path / 'action.yaml').write_text(config.dump(values['manifest']))
    assert main(['inspect', str(root), '--manifest', *said[1:]]) == 0
    assert 'arm left_elbow [rad]' in capsys.readouterr().out


@pytest.mark.parametrize(('change', 'more', 'said'), [
    (('control_period_s: 0.02', 'control_period_s: 0.1'), [], ''),
    (('    - path: SOURCE', '    - path: one\n    - path: two'), [],
     'has 0 entries of the path'),
    (('manifest:', 'manifesto:'), [], 'there is no section manifest'),
    (('left_gripper', 'left_thumb'), [], "columns are called 'left_thumb'"),
    (('columns:', 'column:'), [], 'train.yaml: data.sources: lerobot: states.state: unknown key'),
    (('size: 1', 'size: 1'), ['--cameras', 'static'], 'are said by the manifest'),
    (('size: 1', 'size: 1'), ['--period', '0.1'], 'are said by the manifest')])
def test_a_configuration_that_does_not_fit_is_named(tmp_path, train, capsys, change, more, said):
    """The file, the key, and what was found."""
    root = write_aloha(tmp_path / 'set')
    words = train(TRAIN.replace(*change).replace('SOURCE', 'elsewhere'))
    assert main(['validate', str(root), *words, *more]) == (2 if said else 1)
    found = capsys.readouterr()
    assert said in found.err
    assert said or 'expected 0.1 s' in found.out


def test_a_manifest_is_taken_by_every_command(tmp_path, capsys):
    """A checkpoint's folder will do as well."""
    write_bag(tmp_path / 'bag')
    (tmp_path / 'action.yaml').write_text(config.dump(manifest()))
    for command in ('inspect', 'stats', 'validate'):
        assert main([command, str(tmp_path / 'bag'), '--manifest', str(tmp_path)]) == 0
    with pytest.raises(SystemExit):
        main(['inspect', str(tmp_path / 'bag'), '--manifest', 'a', '--config', 'b'])
    assert 'not allowed with' in capsys.readouterr().err

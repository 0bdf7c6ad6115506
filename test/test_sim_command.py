"""What the commands that run many simulators say where they cannot go on."""

from pathlib import Path
from types import ModuleType

import pytest
from ros2_lstm_policy.process_pool import MemberLost
from ros2_lstm_policy.sim import collect, dagger

CONFIGS = Path(__file__).parents[1] / 'config'


@pytest.mark.parametrize('command', [collect, dagger], ids=['collect', 'dagger'])
@pytest.mark.parametrize(('ending', 'status', 'complaint'), [
    (KeyboardInterrupt(), 130, 'interrupted; the same command goes on'),
    (MemberLost('B/milk/3: was killed'), 1, 'with fewer processes goes on'),
    (ValueError('this is wrong'), 1, 'this is wrong')])
def test_what_ends_a_command_early_is_one_line_under_its_name(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
        command: ModuleType, ending: BaseException, status: int, complaint: str) -> None:
    """No traceback, and how to go on."""
    def end(*_: object) -> None:
        raise ending

    name = command.__name__.rpartition('.')[2]
    monkeypatch.setattr(command, name, end)
    arguments = ['--config', str(CONFIGS / f'{name}.yaml'), f'output={tmp_path}']
    assert command.main(arguments) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'{name}: ')
    assert complaint in line


def test_an_error_of_the_program_keeps_its_traceback(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a user can mend is told in one line."""
    def work(_: object) -> None:
        raise TypeError('a bug')

    monkeypatch.setattr(collect, 'collect', work)
    with pytest.raises(TypeError, match='a bug'):
        collect.main(['--config', str(CONFIGS / 'collect.yaml'), f'output={tmp_path}'])

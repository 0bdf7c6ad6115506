"""Every Python file passes ament_flake8."""

from pathlib import Path

from ament_flake8.main import main_with_errors
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.flake8
@pytest.mark.linter
def test_flake8(monkeypatch: pytest.MonkeyPatch) -> None:
    """No style error from the root down; build folders and hidden ones aside."""
    monkeypatch.chdir(ROOT)
    code, errors = main_with_errors(
        argv=['benchmarks', 'launch', 'ros2_lstm_policy', 'test', 'setup.py'])
    assert code == 0, f'{len(errors)} style errors:\n' + '\n'.join(errors)

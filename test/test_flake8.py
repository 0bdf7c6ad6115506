"""Every Python file passes ament_flake8."""

from pathlib import Path

from ament_flake8.main import main_with_errors
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.flake8
@pytest.mark.linter
def test_flake8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """
    No style error in what is ours.

    The checker walks the whole current directory first, `.venv` too: give it an empty one.
    """
    monkeypatch.chdir(tmp_path)
    folders = ('benchmarks', 'launch', 'ros2_lstm_policy', 'test', 'setup.py')
    code, errors = main_with_errors(argv=[str(ROOT / name) for name in folders])
    assert code == 0, f'{len(errors)} style errors:\n' + '\n'.join(errors)

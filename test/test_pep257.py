"""Every Python file passes ament_pep257."""

from pathlib import Path

from ament_pep257.main import main
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.linter
@pytest.mark.pep257
def test_pep257() -> None:
    """No docstring error from the root down."""
    folders = ('benchmarks', 'launch', 'ros2_lstm_policy', 'test', 'setup.py')
    assert main(argv=[str(ROOT / name) for name in folders]) == 0, 'docstring errors, see above'

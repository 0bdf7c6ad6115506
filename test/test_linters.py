"""
The source passes the ament linters and those that pyproject.toml configures.

Each runs as a process of its own: some start workers, which must not be forked from a process that
holds the threads of torch and DDS.
"""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
OURS = [str(ROOT / name) for name in ('benchmarks', 'launch', 'ros2_lstm_policy', 'setup.py',
                                      'test')]


def check(program: str, *arguments: str, folder: Path) -> None:
    """Run a tool; what it finds is the failure's text."""
    if not (PROGRAMS / program).exists():
        pytest.skip(f'{program} is not installed beside {sys.executable}')
    result = subprocess.run([PROGRAMS / program, *arguments], cwd=folder, capture_output=True,
                            text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.flake8
@pytest.mark.linter
def test_the_source_passes_ament_flake8(tmp_path: Path) -> None:
    """It walks the whole current directory first, `.venv` too, so it gets an empty one."""
    check('ament_flake8', *OURS, folder=tmp_path)


@pytest.mark.linter
@pytest.mark.pep257
def test_the_source_passes_ament_pep257(tmp_path: Path) -> None:
    """Everything public has a docstring in ROS's form."""
    check('ament_pep257', *OURS, folder=tmp_path)


@pytest.mark.linter
@pytest.mark.parametrize('command', [
    ('ruff', 'check', '--no-cache'),
    ('mypy',),
    ('codespell',),
    ('lint-imports', '--no-cache'),
], ids=lambda command: command[0])
def test_the_source_passes(command: tuple[str, ...]) -> None:
    """The tools that pyproject.toml configures find nothing."""
    check(*command, folder=ROOT)

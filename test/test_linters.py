"""The source passes the linters that pyproject.toml configures."""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent


@pytest.mark.linter
@pytest.mark.parametrize('command', [
    ['ruff', 'check', '--no-cache'],
    ['mypy'],
    ['codespell'],
    ['lint-imports', '--no-cache'],
], ids=lambda command: command[0])
def test_the_source_passes(command: list[str]) -> None:
    """The tool finds nothing; what it finds is the failure's text."""
    program = PROGRAMS / command[0]
    if not program.exists():
        pytest.skip(f'{command[0]} is not installed beside {sys.executable}')
    result = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr

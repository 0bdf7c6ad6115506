"""The training step's benchmark compares two ways of computing the same losses."""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('size', ['compact', 'kosmos2'])
def test_the_references_way_and_ours_give_the_same_losses(size: str) -> None:
    """Steps of tiny networks on the CPU; beyond a few, AdamW enlarges what rounding leaves."""
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.train_step', '--smoke', '--sizes', size, '--steps', '1',
         '--warm-up', '1'], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in done.stdout.splitlines() if '| 2 |' in line]
    assert [row[1] for row in rows] == ['reference', 'ours']
    assert all(float(row[-1]) < 1e-5 for row in rows)
    assert rows[0][6] != rows[0][7]  # the step changed the loss

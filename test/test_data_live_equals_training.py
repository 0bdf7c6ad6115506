"""The promise of the package: what training saw is what the robot computes."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize('further', [[], ['--joints']], ids=['cameras', 'and joints'])
def test_the_node_fed_with_a_bag_computes_what_training_computes(further):
    """
    Both cameras, dropped frames, raw and JPEG bags, a short history at the start, over DDS.

    Joints come with stamps of their own, in another order than the policy's, with one more.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
    result = subprocess.run(
        [sys.executable, '-m', 'benchmarks.live_equals_training', '--steps', '20', *further],
        env={**os.environ, 'PYTHONPATH': path}, cwd=ROOT, capture_output=True, text=True,
        timeout=500)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line for line in result.stdout.splitlines() if line.startswith('made_')]
    assert [row.split()[:3] for row in rows] == [['made_jpeg', '18', 'yes'],
                                                 ['made_raw', '18', 'yes']]
    assert result.stdout.endswith('equal\n')

"""Imported first, it makes the helpers of the tests importable: one robot's side for both."""

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parents[1] / 'test'))

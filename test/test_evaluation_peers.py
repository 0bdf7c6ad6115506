"""The peers' samples and scaling follow LeRobot's published rules."""

import importlib
from pathlib import Path
import sys

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))

samples = importlib.import_module('lerobot_peers.samples')

FRAMES = samples.EpisodeFrames([4, 6])


def test_what_lies_beyond_an_episode_is_its_edge_and_marked() -> None:
    """Neither end may reach into the neighbouring episode."""
    frames, beyond = FRAMES.around(np.array([0, 3, 4, 9]), np.array([-1, 0, 1, 2]))
    assert frames.tolist() == [[0, 0, 1, 2], [2, 3, 3, 3], [4, 4, 5, 6], [8, 9, 9, 9]]
    assert beyond.tolist() == [[True, False, False, False], [False, False, True, True],
                               [True, False, False, False], [False, False, True, True]]


def test_samples_leave_out_other_episodes_and_dropped_ends() -> None:
    """An episode no longer than what is dropped has none."""
    assert FRAMES.samples(np.array([False, True]), 0).tolist() == [4, 5, 6, 7, 8, 9]
    assert FRAMES.samples(np.array([True, True]), 4).tolist() == [4, 5]


@pytest.mark.parametrize('mode', ['MEAN_STD', 'MIN_MAX'])
def test_scaling_is_undone_and_never_divides_by_nothing(mode: str) -> None:
    """A value that never changes, as a constant word feature, stays finite."""
    values = np.array([[0.0, 5.0, 2.0], [1.0, 9.0, 2.0], [0.0, 7.0, 2.0]])
    scaling = samples.Scaling.fit(values, mode)
    normalised = scaling.normalise(values)
    assert np.isfinite(normalised).all() and (normalised[:, 2] == 0).all()
    np.testing.assert_allclose(scaling.invert(normalised), values, atol=1e-6)
    if mode == 'MIN_MAX':
        assert normalised.min() == -1 and normalised.max() == 1
    else:
        np.testing.assert_allclose(normalised[:, :2].std(0), 1, atol=1e-6)


def test_an_unpublished_mode_is_refused() -> None:
    """Another normalisation would not be LeRobot's."""
    with pytest.raises(ValueError, match='expected MEAN_STD or MIN_MAX, found QUANTILES'):
        samples.Scaling.fit(np.zeros((2, 1)), 'QUANTILES')

"""The statistics that a converted dataset has for LeRobot: keys, shapes and values of its own."""

import json

from data_recordings import smooth_image, write_bag
import numpy as np
import pyarrow.parquet as pq
import pytest
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.lerobot.stats import of_rows, PixelStatistics, sampled
from ros2_lstm_policy.data.rosbag import read_episodes

KEYS = {'min', 'max', 'mean', 'std', 'count', 'q01', 'q10', 'q50', 'q90', 'q99'}
IMAGES = 'observation.images.hand'


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """Two episodes, converted by the command."""
    folder = tmp_path_factory.mktemp('lerobot')
    for number, steps in enumerate((12, 20)):
        write_bag(folder / 'bags' / f'bag{number}', steps=steps)
    assert main(['convert', str(folder / 'bags'), str(folder / 'set'), '--to', 'lerobot']) == 0
    return folder


def rows_of(dataset):
    """Read the table of episodes."""
    return pq.read_table(dataset / 'set' / 'meta' / 'episodes' / 'chunk-000'
                         / 'file-000.parquet').to_pylist()


def test_every_episode_has_the_statistics_of_every_feature(dataset):
    """The columns that LeRobot's writer makes: stats/<feature>/<name>."""
    info = json.loads((dataset / 'set' / 'meta' / 'info.json').read_text())
    wanted = {f'stats/{feature}/{key}' for feature in info['features'] for key in KEYS}
    for row in rows_of(dataset):
        assert {name for name in row if name.startswith('stats/')} == wanted
        for feature, about in info['features'].items():
            shape = (3, 1, 1) if about['dtype'] == 'video' else tuple(about['shape'])
            assert np.shape(row[f'stats/{feature}/mean']) == shape
            assert np.shape(row[f'stats/{feature}/count']) == (1,)


def test_the_statistics_of_an_episode_are_those_of_its_actions_and_images(dataset):
    """Each episode's own; images in [0, 1] by channel."""
    for row, episode in zip(rows_of(dataset), read_episodes(dataset / 'bags'), strict=True):
        action = np.column_stack([episode.actions['arm'], episode.actions['gripper'][:, 0]])
        for key, found in (('min', action.min(0)), ('max', action.max(0)),
                           ('mean', action.mean(0)), ('std', action.std(0)),
                           ('q90', np.quantile(action, 0.9, axis=0, method='inverted_cdf'))):
            np.testing.assert_allclose(row[f'stats/action/{key}'], found, rtol=1e-5, atol=1e-8)
        assert row['stats/action/count'] == row[f'stats/{IMAGES}/count'] == [len(episode)]
        images = np.stack([episode.frames['hand'][n] for n in range(len(episode))]) / 255
        for key, found in (('min', images.min((0, 1, 2))), ('max', images.max((0, 1, 2))),
                           ('mean', images.mean((0, 1, 2))), ('std', images.std((0, 1, 2)))):
            np.testing.assert_allclose(np.ravel(row[f'stats/{IMAGES}/{key}']), found, rtol=1e-9)


def test_the_statistics_of_the_whole_are_those_of_all_episodes(dataset):
    """meta/stats.json, from which LeRobot's policies take their normalisation."""
    found = json.loads((dataset / 'set' / 'meta' / 'stats.json').read_text())
    episodes = list(read_episodes(dataset / 'bags'))
    arm = np.concatenate([episode.actions['arm'] for episode in episodes])
    np.testing.assert_allclose(found['action']['std'][:6], arm.std(0), rtol=1e-5)
    np.testing.assert_allclose(found['action']['q99'][:6], np.quantile(
        arm, 0.99, axis=0, method='inverted_cdf'),
                               rtol=1e-5, atol=1e-8)
    assert found['action']['count'] == found[IMAGES]['count'] == [32]
    assert np.shape(found[IMAGES]['q50']) == (3, 1, 1)
    assert found['index']['max'] == [31]


@pytest.mark.parametrize(('length', 'count'), [(1, 1), (60, 60), (100, 100), (500, 105),
                                               (1000, 177), (20000, 1681)])
def test_as_many_images_are_looked_at_as_lerobot_looks_at(length, count):
    """The numbers of its documentation, with the first and the last image."""
    chosen = sampled(length)
    assert len(chosen) == count
    assert {0, length - 1} <= chosen


def test_large_images_are_thinned_out_as_lerobot_does():
    """Every fourth pixel of 640x480."""
    image = smooth_image(3, 'static', 480, 640)
    large, small = PixelStatistics(), PixelStatistics()
    large.add(image)
    small.add(image[::4, ::4])
    assert large.table() == small.table()


def test_quantiles_of_pixels_are_levels_that_occur():
    """Exact, though no pixel is kept."""
    image = np.zeros((10, 10, 3), np.uint8)
    image[..., 1] = np.arange(100).reshape(10, 10)
    pixels = PixelStatistics()
    pixels.add(image)
    table = pixels.table()
    assert table['q50'][0] == [[0.0]]
    for key, quantile in (('q01', 0.01), ('q10', 0.1), ('q90', 0.9), ('q99', 0.99)):
        expected = np.quantile(image[..., 1], quantile, method='inverted_cdf') / 255
        assert table[key][1][0][0] == pytest.approx(expected)


def test_one_step_alone_has_statistics():
    """Where LeRobot's quantiles are the value itself."""
    table = of_rows(np.array([[1.0, -2.0]]))
    assert table['q01'] == table['max'] == [1.0, -2.0]
    assert table['std'] == [0.0, 0.0]

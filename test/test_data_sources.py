"""CALVIN, LIBERO and LeRobot recordings become the same kind of episode as bags."""

from data_recordings import (arm_of, PERIOD_NS, RunsCode, smooth_image, WORDS, write_bag,
                             write_calvin, write_lerobot_v21, write_libero)
import numpy as np
import pytest
from ros2_lstm_policy.data.episodes import BrokenRecording
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.lerobot.writer import LeRobotWriter
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.rosbag import BagLayout, BagRecording
from ros2_lstm_policy.data.sources import detect, open_source, SourceSpec
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS as CAMERAS
from scipy.spatial.transform import Rotation

CODEC_ERROR = 6  # largest mean difference of H.264 at quality 18 on the test images


def read_all(path, **options):
    """Read every episode at a path."""
    return [reading.episode for recording in open_source(SourceSpec(path, **options))
            for reading in recording.read()]


def test_each_format_is_told_from_its_files(tmp_path):
    """No kind needs to be said."""
    assert detect(write_bag(tmp_path / 'bags' / 'one').parent) == 'bag'
    assert detect(write_calvin(tmp_path / 'calvin')) == 'calvin'
    assert detect(write_libero(tmp_path / 'libero' / 'milk_demo.hdf5').parent) == 'libero'
    assert detect(write_lerobot_v21(tmp_path / 'lerobot', 1, 2)) == 'lerobot'


def test_links_that_lead_nowhere_are_named_where_they_are_all_that_is_there(tmp_path):
    """It was said that the folder is of no known format."""
    (tmp_path / 'only').mkdir()
    (tmp_path / 'only' / 'three').symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'all').symlink_to(tmp_path / 'nowhere')
    for path, link in (('only', 'three'), ('all', 'all')):
        with pytest.raises(RecordingError, match=f'/{link} is a link to .*/nowhere, and nothing'):
            open_source(SourceSpec(tmp_path / path))


def test_a_link_that_leads_nowhere_is_named_once(tmp_path):
    """The reader of a format that finds it has said what is wrong."""
    write_libero(tmp_path / 'one_demo.hdf5')
    (tmp_path / 'two_demo.hdf5').symlink_to(tmp_path / 'nowhere')
    (tmp_path / 'more').symlink_to(tmp_path / 'nowhere')
    found = [recording.problem for recording in open_source(SourceSpec(tmp_path))
             if isinstance(recording, BrokenRecording)]
    assert [(problem.where.name, problem.rule) for problem in found] == [
        ('two_demo.hdf5', 'damaged'), ('more', 'dangling-link')]


def test_calvin_annotations_become_episodes_in_metres_and_radians(tmp_path):
    """Rel_actions are in units of 0.02 m and 0.05 rad; the gripper is -1 closed, 1 open."""
    first, second = read_all(write_calvin(tmp_path / 'training'))
    assert (first.instruction, len(first), len(second)) == ('push the block 0', 8, 10)
    recorded = np.linspace(-1, 1, 6) * ([0.02] * 3 + [0.05] * 3)
    np.testing.assert_allclose(first.actions['arm'][0, :3], recorded[:3], rtol=1e-6)
    turned = Rotation.from_rotvec(first.actions['arm'][0, 3:]).as_euler('xyz')
    np.testing.assert_allclose(turned, recorded[3:], atol=1e-7)
    assert second.actions['gripper'][:, 0].tolist() == [0, 1] * 5
    np.testing.assert_array_equal(second.frames['hand'][3], smooth_image(13, 'hand'))
    assert np.diff(first.stamps_ns)[0] == pytest.approx(1e9 / 30, abs=1)


def test_calvin_annotations_never_run_code(tmp_path):
    """auto_lang_ann.npy is a pickle; one that asks for a call is refused and not run."""
    target = tmp_path / 'it_ran'
    root = write_calvin(tmp_path / 'training', content=RunsCode(target))
    with pytest.raises(RecordingError, match='asks to run'):
        open_source(SourceSpec(root))
    assert not target.exists()


def test_libero_demonstrations_are_upright_and_scaled(tmp_path):
    """Units of 0.05 m and 0.5 rad; images are stored bottom row first; -1 opens the gripper."""
    episodes = read_all(write_libero(tmp_path / 'milk_demo.hdf5'))
    assert [episode.name for episode in episodes] == ['milk_demo/demo_0', 'milk_demo/demo_1']
    first = episodes[0]
    assert (first.instruction, first.success, len(first)) == (WORDS, True, 9)
    np.testing.assert_array_equal(first.frames['static'][4], smooth_image(4, 'static'))
    np.testing.assert_allclose(first.actions['arm'][0, 0], -0.05)
    assert np.abs(first.actions['arm'][:, 3:]).max() == pytest.approx(0.5, abs=0.03)
    assert first.actions['gripper'][:, 0].tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert np.diff(first.stamps_ns).tolist() == [50_000_000] * 8


def test_lerobot_v21_is_read(tmp_path):
    """The older layout: one file an episode, JSON lines."""
    episodes = read_all(write_lerobot_v21(tmp_path / 'old'))
    assert [len(episode) for episode in episodes] == [10, 10]
    np.testing.assert_array_equal(episodes[1].actions['arm'],
                                  np.stack([arm_of(n) for n in range(10)]))
    assert np.diff(episodes[0].stamps_ns) == pytest.approx(PERIOD_NS, abs=100)
    difference = np.abs(episodes[1].frames['hand'][7].astype(int) - smooth_image(7, 'hand'))
    assert difference.mean() < CODEC_ERROR


def test_lerobot_columns_of_others_are_read_by_a_layout(tmp_path):
    """Other datasets name, scale and sign their columns differently."""
    root = write_lerobot_v21(tmp_path / 'old', 1, 4)
    layout = LeRobotLayout(arm_scale=(0.02,) * 3 + (0.05,) * 3, gripper_closed=1.0,
                           gripper_open=0.0)
    episode, = read_all(root, lerobot=layout)
    np.testing.assert_allclose(episode.actions['arm'][2, :3], 0.02 * arm_of(2)[:3], rtol=1e-6)
    assert episode.actions['gripper'][:, 0].tolist() == [1, 0, 1, 0]


def test_bag_to_lerobot_v3_to_episode_equals_bag_to_episode(tmp_path):
    """Everything exactly but the images, and those within the codec's error."""
    bags = [write_bag(tmp_path / f'bag{n}', steps=8 + n, success=label)
            for n, label in enumerate((True, False, None))]
    writer = LeRobotWriter(tmp_path / 'lerobot', 10)
    expected = []
    for path in bags:
        reading, = BagRecording(path, BagLayout()).read()
        writer.append(reading)
        expected.append(reading.episode)
    found = read_all(writer.close())
    for bag, lerobot in zip(expected, found, strict=True):
        assert (lerobot.name, lerobot.instruction) == (bag.name, bag.instruction)
        assert lerobot.success is bag.success
        np.testing.assert_array_equal(lerobot.stamps_ns, bag.stamps_ns)
        for name in ('arm', 'gripper'):
            np.testing.assert_array_equal(lerobot.actions[name], bag.actions[name])
        for camera in CAMERAS:
            for step in (0, 5, 3, len(bag) - 1):
                difference = np.abs(lerobot.frames[camera][step].astype(int)
                                    - bag.frames[camera][step])
                assert difference.mean() < CODEC_ERROR


def test_several_lerobot_episodes_in_one_file_keep_their_own_frames(tmp_path):
    """The recorder of LeRobot appends episodes to one data file and one video."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from ros2_lstm_policy.data.lerobot.video import write_video
    writer = LeRobotWriter(tmp_path / 'lerobot', 10)
    for number in range(2):
        reading, = BagRecording(write_bag(tmp_path / f'bag{number}', steps=6), BagLayout()).read()
        writer.append(reading)
    root = writer.close()
    data = root / 'data' / 'chunk-000'
    pq.write_table(pa.concat_tables([pq.read_table(data / f'file-00{n}.parquet')
                                     for n in range(2)]), data / 'all.parquet')
    (data / 'all.parquet').replace(data / 'file-000.parquet')
    (data / 'file-001.parquet').unlink()
    table = root / 'meta' / 'episodes' / 'chunk-000' / 'file-000.parquet'
    rows = pq.read_table(table).to_pylist()
    rows[1]['data/file_index'] = 0
    for camera in CAMERAS:
        key = f'observation.images.{camera}'
        write_video(root / 'videos' / key / 'chunk-000' / 'file-000.mp4',
                    (smooth_image(step, camera) for step in range(12)), 10)
        rows[1] |= {f'videos/{key}/file_index': 0, f'videos/{key}/from_timestamp': 0.6,
                    f'videos/{key}/to_timestamp': 1.2}
    pq.write_table(pa.Table.from_pylist(rows), table)
    second = read_all(root)[1]
    difference = np.abs(second.frames['static'][2].astype(int) - smooth_image(8, 'static'))
    assert difference.mean() < CODEC_ERROR
    assert len(second) == 6

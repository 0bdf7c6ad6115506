"""rosbag2 in and out: what was written is what is read, sampled as the robot samples."""

from pathlib import Path

from data_recordings import (arm_of, info, PERIOD_NS, smooth_image, START_NS,
                             WORDS, write_bag, write_velocity_bag)
import numpy as np
import pytest
from ros2_lstm_policy.config import dump, parse
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.rosbag import (BagLayout, BagRecording, EpisodeBagWriter, EpisodeInfo,
                                          find_bags, read_episodes, set_aside_unfinished,
                                          TopicNames)
from ros2_lstm_policy.data.rosbag.format import parse_info
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS as CAMERAS
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import get_typestore, Stores


def only(root: Path, layout: BagLayout | None = None, **arguments: object):
    """Read the only episode at a path."""
    episodes = list(read_episodes(root, layout, **arguments))
    assert len(episodes) == 1
    return episodes[0]


def rewrite(source: Path, target: Path, plugin: StoragePlugin,
            mode: CompressionMode = CompressionMode.NONE) -> Path:
    """Copy a bag into another storage or compression."""
    with Reader(source) as reader:
        writer = Writer(target, version=8, storage_plugin=plugin)
        writer.set_compression(mode, CompressionFormat.ZSTD)
        types = get_typestore(Stores.ROS2_JAZZY)
        with writer:
            new = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=types)
                   for c in reader.connections}
            for connection, stamp, raw in reader.messages():
                writer.write(new[connection.topic], stamp, raw)
    return target


def test_a_raw_bag_is_read_back_exactly(tmp_path):
    """Images, actions, stamps, words and label survive bit for bit."""
    episode = only(write_bag(tmp_path / 'one'))
    assert (episode.name, episode.instruction, episode.success) == ('one', WORDS, True)
    assert episode.stamps_ns.tolist() == [START_NS + n * PERIOD_NS for n in range(12)]
    np.testing.assert_array_equal(episode.actions['arm'], np.stack([arm_of(n) for n in range(12)]))
    assert episode.actions['gripper'][:, 0].tolist() == [0, 1] * 6
    for camera in CAMERAS:
        for step in range(12):
            np.testing.assert_array_equal(episode.frames[camera][step],
                                          smooth_image(step, camera))


def test_jpeg_images_pass_through_the_live_decoder(tmp_path):
    """A compressed bag gives nearly the same images, with the right colours."""
    episode = only(write_bag(tmp_path / 'one', jpeg=True))
    found = episode.frames['hand'][5].astype(int)
    assert np.abs(found - smooth_image(5, 'hand')).mean() < 4


@pytest.mark.parametrize(('plugin', 'mode'), [
    (StoragePlugin.MCAP, CompressionMode.STORAGE), (StoragePlugin.MCAP, CompressionMode.FILE),
    (StoragePlugin.SQLITE3, CompressionMode.NONE), (StoragePlugin.SQLITE3, CompressionMode.FILE),
    (StoragePlugin.SQLITE3, CompressionMode.MESSAGE)])
def test_every_storage_and_compression_gives_the_same_episode(tmp_path, plugin, mode):
    """MCAP and sqlite3, zstd by chunk, message and file."""
    expected = only(write_bag(tmp_path / 'one'))
    episode = only(rewrite(tmp_path / 'one', tmp_path / 'other', plugin, mode))
    np.testing.assert_array_equal(episode.actions['arm'], expected.actions['arm'])
    np.testing.assert_array_equal(episode.stamps_ns, expected.stamps_ns)
    for step in (0, 11, 4):
        np.testing.assert_array_equal(episode.frames['static'][step],
                                      expected.frames['static'][step])


def test_frames_can_be_read_in_any_order(tmp_path):
    """Jumps, repeats and negative steps land on the right image."""
    episode = only(write_bag(tmp_path / 'one', steps=40))
    for step in (39, 0, 17, 17, 18, 3, -1):
        np.testing.assert_array_equal(episode.frames['static'][step],
                                      smooth_image(step % 40, 'static'))


def test_a_dropped_frame_leaves_out_the_step_that_it_answers(tmp_path):
    """The robot had no observation there, so training has no step there."""
    def stamp(step, camera):
        return None if (step, camera) == (5, 'hand') else START_NS + step * PERIOD_NS
    reading, = BagRecording(write_bag(tmp_path / 'one', image_stamp=stamp), BagLayout()).read()
    assert len(reading.episode) == 11
    assert START_NS + 5 * PERIOD_NS not in reading.episode.stamps_ns
    np.testing.assert_array_equal(reading.episode.frames['static'][5], smooth_image(6, 'static'))
    assert [problem.rule for problem in reading.remarks] == ['no-observation']
    assert reading.remarks[0].time_s == pytest.approx(0.5)


def test_an_action_stamped_now_is_answered_by_the_newest_frames(tmp_path):
    """Teleoperation stamps its commands when it sends them."""
    def late(step):
        return START_NS + step * PERIOD_NS + 30_000_000
    with pytest.raises(RecordingError, match='no frame has the stamp'):
        only(write_bag(tmp_path / 'policy', action_stamp=late))
    episode = only(write_bag(tmp_path / 'teleop', action_stamp=late, stamps='now'))
    assert len(episode) == 12
    np.testing.assert_array_equal(episode.frames['hand'][7], smooth_image(7, 'hand'))


def test_velocities_are_integrated_over_the_control_period(tmp_path):
    """Commands for MoveIt Servo at 50 Hz become displacements at 10 Hz."""
    layout = BagLayout(
        topics=TopicNames(arm_delta='delta_twist_cmds', gripper_command='gripper/commands'),
        arm='velocity', gripper_closed=-1.0, instruction='open the drawer')
    episode = only(write_velocity_bag(tmp_path / 'teleop'), layout, period_s=0.1)
    assert episode.instruction == 'open the drawer'
    assert len(episode) == 10
    np.testing.assert_allclose(episode.actions['arm'][:9],
                               np.tile([0.01, 0, -0.02] * 2, (9, 1)), atol=1e-7)
    assert episode.actions['gripper'][:, 0].tolist() == [0] * 5 + [1] * 5
    assert episode.success is None


def test_a_bag_is_split_where_its_instruction_changes(tmp_path):
    """The robot begins a new episode there, so training does as well."""
    source = write_bag(tmp_path / 'one')
    types = get_typestore(Stores.ROS2_JAZZY)
    words = types.types['std_msgs/msg/String'](data='open the drawer')
    with Reader(source) as reader, Writer(tmp_path / 'two', version=9,
                                          storage_plugin=StoragePlugin.MCAP) as writer:
        new = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=types)
               for c in reader.connections}
        for connection, stamp, raw in reader.messages():
            if connection.topic == '/rgb' and stamp == START_NS + 5 * PERIOD_NS:
                writer.write(new['/instruction'], stamp,
                             types.serialize_cdr(words, 'std_msgs/msg/String'))
            writer.write(new[connection.topic], stamp, raw)
    first, second = read_episodes(tmp_path / 'two')
    assert (first.instruction, second.instruction) == (WORDS, 'open the drawer')
    assert (len(first), len(second)) == (5, 7)
    np.testing.assert_array_equal(second.frames['static'][0], smooth_image(5, 'static'))


def test_an_aborted_episode_is_no_bag_and_is_set_aside(tmp_path):
    """What a killed process leaves is found, moved and never read."""
    write_bag(tmp_path / 'whole')
    writer = EpisodeBagWriter(tmp_path / 'broken', info('broken'), WORDS, START_NS)
    writer.write_frame('static', START_NS, smooth_image(0, 'static'))
    assert set_aside_unfinished(tmp_path) == []  # it is still being written
    writer._file.abort()
    assert set_aside_unfinished(tmp_path) == [tmp_path / 'incomplete' / 'broken']
    assert find_bags(tmp_path) == [tmp_path / 'whole']
    assert not (tmp_path / 'partial' / 'broken').exists()


def test_a_discarded_episode_leaves_nothing(tmp_path):
    """An exception in the block discards the bag."""
    def fails():
        with EpisodeBagWriter(tmp_path / 'one', info('one'), WORDS, START_NS) as writer:
            writer.write_frame('static', START_NS, smooth_image(0, 'static'))
            raise RuntimeError('stop')
    with pytest.raises(RuntimeError, match='stop'):
        fails()
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_never_written_twice(tmp_path):
    """An episode is not overwritten."""
    write_bag(tmp_path / 'one')
    with pytest.raises(FileExistsError, match='another name'):
        write_bag(tmp_path / 'one')


def test_a_policy_episode_needs_the_fingerprint_of_its_model():
    """Success rates mean nothing without knowing which model acted."""
    with pytest.raises(ValueError, match='fingerprint'):
        info('one', actor='policy')
    known = info('one', actor='policy', model='ab' * 32)
    assert parse_info(dump(known), 'here') == known == parse(EpisodeInfo, known.__dict__, 'here')


@pytest.mark.parametrize('name', ['', '.', '../up', 'a/b', '.hidden'])
def test_an_episode_name_is_a_folder_name(name):
    """A name never leaves the folder of the bags."""
    with pytest.raises(ValueError, match='folder name'):
        info(name)


def test_bags_offer_qos_to_a_replay(tmp_path):
    """`ros2 bag play` latches the instruction and sends images reliably."""
    with Reader(write_bag(tmp_path / 'one')) as reader:
        profiles = {c.topic: c.ext.offered_qos_profiles[0] for c in reader.connections}
    assert profiles['/instruction'].durability.name == 'TRANSIENT_LOCAL'
    assert profiles['/rgb'].durability.name == 'VOLATILE'
    assert all(profile.reliability.name == 'RELIABLE' for profile in profiles.values())

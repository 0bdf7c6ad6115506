"""Broken recordings are named by file, episode and time, and never trained on."""

import json

from data_recordings import (arm_of, BagRecipe, manifest, PERIOD_NS, START_NS, write_bag,
                             write_calvin, write_lerobot_v21, write_libero)
import numpy as np
import pytest
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.data.build import open_store, StoreRequest
from ros2_lstm_policy.data.checks import check, Limits
from ros2_lstm_policy.data.episodes import Reading
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.rosbag import BagLayout
from ros2_lstm_policy.data.rosbag.format import parse_info
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.types import Episode
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores


def problems_of(path, limits=None, **options):
    """Return every problem that training would meet at a path."""
    found = []
    try:
        for recording in open_source(SourceSpec(path, **options)):
            for reading in recording.read():
                found += check(reading, recording.where, limits or Limits())
                for frames in reading.episode.frames.values():
                    for step in range(len(frames)):
                        assert frames[step].dtype == np.uint8
    except RecordingError as error:
        found.append(error.problem)
    return found


def only_fatal(path, **options):
    """Return the one problem that leaves the recording out."""
    fatal, = (problem for problem in problems_of(path, **options) if problem.fatal)
    return fatal


def truncate(path, keep):
    """Cut a file short."""
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * keep)])


@pytest.mark.parametrize('topic', ['/rgb', '/hand_rgb', '/arm_delta', '/gripper_command',
                                   '/instruction'])
def test_a_missing_topic_is_named_with_what_is_there(tmp_path, topic):
    """The message lists the topics that the bag has."""
    source, target = write_bag(tmp_path / 'whole'), tmp_path / 'bags' / 'broken'
    types = get_typestore(Stores.ROS2_JAZZY)
    with Reader(source) as reader, Writer(target, version=9,
                                          storage_plugin=StoragePlugin.MCAP) as writer:
        kept = [c for c in reader.connections if c.topic != topic]
        new = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=types) for c in kept}
        for connection, stamp, raw in reader.messages(kept):
            writer.write(new[connection.topic], stamp, raw)
    problem = only_fatal(target)
    assert problem.rule == 'missing-topic'
    assert repr(topic.strip('/')) in problem.message
    assert '/episode/info' in problem.message


@pytest.mark.parametrize(('value', 'rule'), [(np.nan, 'nan'), (np.inf, 'nan'),
                                             (3.0, 'action-range'), (-25.0, 'action-range')])
def test_an_impossible_action_is_named_with_its_time(tmp_path, value, rule):
    """Numbers that are none, and metres where millimetres were meant."""
    def arm(step):
        return np.where(np.arange(6) == 1, value, 0.01) if step == 7 else arm_of(step)
    problem = next(p for p in problems_of(write_bag(tmp_path / 'one', arm=arm)) if p.fatal)
    assert (problem.rule, problem.episode) == (rule, 'one')
    assert problem.time_s == pytest.approx(0.7)


@pytest.mark.parametrize('value', [0.4, -1.0, 2.0, np.nan])
def test_a_gripper_that_is_neither_open_nor_closed_is_refused(tmp_path, value):
    """A polarity is never guessed: -1/1 needs the layout to say which is which."""
    problem = only_fatal(write_bag(tmp_path / 'one', gripper=lambda n: value if n == 3 else 1.0))
    assert problem.rule == 'gripper-values'
    assert problem.time_s == pytest.approx(0.3)
    assert 'its /episode/info says so' in problem.message


def test_image_streams_at_different_rates_are_said_and_sampled(tmp_path):
    """A hand camera at half the rate: each step takes its newest frame."""
    def stamp(step, camera):
        late = camera == 'hand' and step % 2 == 1
        return None if late else START_NS + step * PERIOD_NS
    path = write_bag(tmp_path / 'one', steps=20, image_stamp=stamp)
    found = problems_of(path, bag=BagLayout(max_skew_s=0.15))
    assert [(problem.rule, problem.fatal) for problem in found] == [('stream-rates', False)]
    assert 'static 10.0 Hz, hand 5.0 Hz' in found[0].message
    assert only_fatal(path).rule == 'no-observation'  # with the robot's own limit of skew


@pytest.mark.parametrize('camera', ['static', 'hand'])
def test_a_stream_that_stops_early_is_refused_with_its_time(tmp_path, camera):
    """The camera died at 0.5 s of 1.9 s."""
    problem = only_fatal(write_bag(
        tmp_path / 'one', steps=20, image_stamp=lambda step, name: (
            None if name == camera and step > 5 else START_NS + step * PERIOD_NS)))
    assert (problem.rule, problem.time_s) == ('stream-ends', pytest.approx(0.5))


@pytest.mark.parametrize('stream', ['image', 'action'])
def test_header_stamps_of_zero_are_refused(tmp_path, stream):
    """A driver that does not stamp cannot be aligned with anything."""
    recipe = BagRecipe()
    if stream == 'image':
        recipe.image_stamp = lambda step, camera: 0
    else:
        recipe.action_stamp = lambda step: 0
    problem = only_fatal(write_bag(tmp_path / 'one', recipe))
    assert problem.rule == 'zero-stamps'
    assert '12 of 12' in problem.message


def test_duplicate_stamps_are_refused(tmp_path):
    """The same frame published twice."""
    problem = only_fatal(write_bag(tmp_path / 'one', image_stamp=lambda step, camera: (
        START_NS + max(step, 1) * PERIOD_NS)))
    assert problem.rule == 'duplicate-stamps'


@pytest.mark.parametrize('keep', [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_bag_is_refused(tmp_path, keep):
    """The power went while it was written, or a copy was cut short."""
    path = write_bag(tmp_path / 'one')
    truncate(path / 'one.mcap', keep)
    problem = only_fatal(path)
    assert problem.rule == 'damaged'
    assert 'one' in str(problem.where)


@pytest.mark.parametrize('keep', [0.0, 0.05, 0.5])
def test_a_truncated_sqlite_bag_is_refused(tmp_path, keep):
    """The older storage as well."""
    source, target = write_bag(tmp_path / 'one'), tmp_path / 'bags' / 'two'
    types = get_typestore(Stores.ROS2_JAZZY)
    with Reader(source) as reader, Writer(target, version=8,
                                          storage_plugin=StoragePlugin.SQLITE3) as writer:
        new = {c.topic: writer.add_connection(c.topic, c.msgtype, typestore=types)
               for c in reader.connections}
        for connection, stamp, raw in reader.messages():
            writer.write(new[connection.topic], stamp, raw)
    truncate(target / 'two.db3', keep)
    assert only_fatal(target).rule == 'damaged'


def test_a_bag_with_flipped_bytes_is_refused(tmp_path):
    """A bad disk: metadata that is no YAML any more."""
    path = write_bag(tmp_path / 'one')
    (path / 'metadata.yaml').write_bytes(b'\x00\xff{[')
    assert only_fatal(path).rule == 'damaged'


@pytest.mark.parametrize('text', ['[' * 100_000, '- ' * 100_000, '{a: ' * 50_000, '? ' * 50_000,
                                  'a: 1\na: 2\n', 'a: &a [*a]', 'a: 2026-13-01'],
                         ids=['[', '-', '{', '?', 'twice', 'alias', 'date'])
def test_yaml_in_a_recording_is_read_as_strictly_as_a_configuration(tmp_path, text):
    """Brackets without end in a bag's metadata.yaml crashed the process in C."""
    path = write_bag(tmp_path / 'one')
    (path / 'metadata.yaml').write_text(text)
    assert only_fatal(path).rule == 'damaged'
    with pytest.raises(ConfigError, match='one: is not valid YAML'):
        parse_info(text, 'one')


@pytest.mark.parametrize('write', [
    write_bag, lambda path: write_bag(path, jpeg=True), write_calvin,
    lambda path: write_libero(path / 'milk_demo.hdf5'), lambda path: write_lerobot_v21(path, 1)],
    ids=['raw', 'jpeg', 'calvin', 'libero', 'lerobot'])
def test_whatever_byte_is_wrong_the_file_is_read_or_refused(tmp_path, write):
    """Libraries raise IndexError, MemoryError, TokenError over bad bytes; nobody sees those."""
    random = np.random.default_rng(7)
    path = write(tmp_path / 'one')
    files = [path] if path.is_file() else sorted(p for p in path.rglob('*') if p.is_file())
    for _ in range(8):
        file = files[random.integers(len(files))]
        whole = file.read_bytes()
        torn = bytearray(whole)
        for place in random.integers(0, len(torn), random.integers(1, 20)):
            torn[place] = random.integers(256)
        file.write_bytes(bytes(torn))
        for problem in problems_of(path):
            assert problem.rule
        file.write_bytes(whole)


def test_truncated_calvin_steps_are_refused(tmp_path):
    """An npz cut short is named with its own path."""
    root = write_calvin(tmp_path / 'training', spans=((100, 107),))
    truncate(root / 'episode_0000103.npz', 0.5)
    problem = only_fatal(root)
    assert (problem.rule, problem.where.name) == ('damaged', 'episode_0000103.npz')
    (root / 'episode_0000103.npz').unlink()
    assert only_fatal(root).rule == 'damaged'


def test_a_calvin_annotation_across_sequences_is_refused(tmp_path):
    """The steps in between belong to something else, or to nothing."""
    assert only_fatal(write_calvin(tmp_path / 'training', spans=((115, 140),))).rule == 'range'


def test_a_truncated_libero_file_is_refused(tmp_path):
    """HDF5 cut short."""
    path = write_libero(tmp_path / 'milk_demo.hdf5')
    truncate(path, 0.5)
    assert only_fatal(path).rule == 'damaged'


@pytest.mark.parametrize('name', ['meta/info.json', 'meta/episodes.jsonl',
                                  'data/chunk-000/episode_000000.parquet',
                                  'videos/chunk-000/observation.images.hand/episode_000000.mp4'])
@pytest.mark.parametrize('keep', [0.0, 0.4])
def test_a_truncated_lerobot_file_is_refused(tmp_path, name, keep):
    """Tables, rows and video."""
    root = write_lerobot_v21(tmp_path / 'set', 1)
    truncate(root / name, keep)
    assert only_fatal(root).rule == 'damaged'


def test_a_lerobot_dataset_of_another_version_is_refused(tmp_path):
    """Version 1 and the future are not guessed at."""
    root = write_lerobot_v21(tmp_path / 'set', 1)
    info = json.loads((root / 'meta' / 'info.json').read_text())
    (root / 'meta' / 'info.json').write_text(json.dumps(info | {'codebase_version': 'v1.6'}))
    assert 'v1.6 is not supported; known: v2.1, v3.0' in only_fatal(root).message


@pytest.mark.parametrize('content', [None, {}, {'readme.txt': 'hello'}])
def test_a_path_that_is_no_dataset_is_refused(tmp_path, content):
    """A missing folder, an empty one, and one of something else."""
    root = tmp_path / 'nothing'
    if content is not None:
        root.mkdir()
        for name, text in content.items():
            (root / name).write_text(text)
    problem = only_fatal(root)
    assert problem.rule == 'no-dataset'
    assert 'metadata.yaml' in problem.message or 'rosbag2' in problem.message


def test_an_episode_at_another_rate_than_the_policy_is_refused(tmp_path):
    """A displacement of 0.1 s is none of 0.05 s."""
    found = problems_of(write_bag(tmp_path / 'one'), Limits(period_s=0.05))
    assert [problem.rule for problem in found] == ['period']


def test_an_episode_in_other_axes_is_refused(tmp_path):
    """Deltas in the tool's axes are none in the base's."""
    found = problems_of(write_bag(tmp_path / 'one'), Limits(frame='tool'))
    assert [problem.rule for problem in found] == ['frame']
    assert problems_of(tmp_path / 'one', Limits().for_policy(manifest())) == []


def test_an_episode_shorter_than_a_window_is_kept(tmp_path):
    """The window rule pads it at its end; see test_data_windows."""
    assert problems_of(write_bag(tmp_path / 'one', steps=2), Limits(period_s=0.1)) == []


def test_streams_of_different_lengths_are_refused(tmp_path):
    """An episode whose arrays do not belong together."""
    episode = Episode('one', 'go', np.arange(3) * PERIOD_NS, {'static': [0, 1]},
                      {'arm': np.full((3, 6), 0.01), 'gripper': np.zeros((3, 1))})
    assert [p.rule for p in check(Reading(episode), tmp_path, Limits())] == ['lengths']


def test_broken_episodes_are_told_and_left_out_of_training(tmp_path):
    """One good episode of three, and each opening of the store says why."""
    write_bag(tmp_path / 'bags' / 'good')
    write_bag(tmp_path / 'bags' / 'torn')
    truncate(tmp_path / 'bags' / 'torn' / 'torn.mcap', 0.6)
    write_bag(tmp_path / 'bags' / 'wild', arm=lambda step: np.full(6, 9.0))
    request = StoreRequest((SourceSpec(tmp_path / 'bags'),), manifest())
    for _ in range(2):
        lines = []
        store = open_store(request, tmp_path / 'cache', 2, lines.append)
        assert [episode.name for episode in store.episodes] == ['good']
        assert any('torn' in line and '[damaged]' in line for line in lines)
        assert any("'wild'" in line and '[action-range]' in line for line in lines)


def test_a_source_without_a_good_episode_stops_training(tmp_path):
    """Nothing is trained on nothing."""
    write_bag(tmp_path / 'bags' / 'wild', arm=lambda step: np.full(6, 9.0))
    request = StoreRequest((SourceSpec(tmp_path / 'bags'),), manifest())
    with pytest.raises(ValueError, match=r'no episode is left(.|\n)*action-range'):
        open_store(request, tmp_path / 'cache', 1)
    write_bag(tmp_path / 'good' / 'one')
    both = StoreRequest((SourceSpec(tmp_path / 'good'), *request.sources), manifest())
    with pytest.raises(ValueError, match=r'^[^\n]*bags: no episode is left(.|\n)*action-range'):
        open_store(both, tmp_path / 'cache', 1)
    assert not [path for path in (tmp_path / 'cache').iterdir() if path.is_dir()]

"""Bags as recorders, splits, disks and people leave them: read in full, or refused by name."""

from collections.abc import Callable
from pathlib import Path
import shutil
import sqlite3

from data_bag_files import (change_metadata, message, messages_of, split, store, Stored,
                            TYPES, write_mcap)
from data_recordings import PERIOD_NS, smooth_image, START_NS, write_bag
import numpy as np
import pytest
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.rosbag import BagLayout, find_bags, read_episodes
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.types import Episode
from rosbags.rosbag2 import StoragePlugin


def problems_at(path: Path, **options: object) -> list[str]:
    """Return every problem at a path as a line, 'note' before those that do no harm."""
    lines = []
    for recording in open_source(SourceSpec(path, **options)):
        readings, problems = read_checked(recording, Limits())
        lines += [('' if problem.fatal else 'note ') + str(problem) for problem in problems]
        for reading in readings:
            for frames in reading.episode.frames.values():
                for step in range(len(frames)):
                    frames[step]
    return lines


def assert_same(path: Path, whole: Path) -> None:
    """Hold the only episode at a path against that of another bag, image by image."""
    found, = read_episodes(path)
    expected, = read_episodes(whole)
    assert_equal(found, expected)


def assert_equal(found: Episode, expected: Episode) -> None:
    """Compare two episodes bit for bit."""
    assert (found.instruction, found.success) == (expected.instruction, expected.success)
    np.testing.assert_array_equal(found.stamps_ns, expected.stamps_ns)
    np.testing.assert_array_equal(found.actions['arm'], expected.actions['arm'])
    np.testing.assert_array_equal(found.actions['gripper'], expected.actions['gripper'])
    for camera, frames in expected.frames.items():
        for step in (*range(len(frames)), 0):
            np.testing.assert_array_equal(found.frames[camera][step], frames[step])


@pytest.fixture(name='whole')
def a_whole_bag(tmp_path):
    """Return a bag of twelve steps in which the gripper opens half way."""
    return write_bag(tmp_path / 'whole', gripper=lambda step: float(step >= 6))


def overlapping(item: Stored, number: int) -> int:
    """Store a part of the first camera's images early, and one of them late."""
    return int(number >= 4 and number != 7 if item.topic == '/rgb' else number >= 5)


@pytest.mark.parametrize('file_of', [
    lambda item, number: int(item.topic == '/arm_delta'),
    lambda item, number: int(item.topic != '/arm_delta'),
    lambda item, number: int(item.topic == '/gripper_command'),
    overlapping], ids=['arm last', 'arm first', 'gripper last', 'images overlap'])
@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_files_of_a_bag_are_put_in_the_order_of_their_log_times(tmp_path, whole, file_of, plugin):
    """
    A program that stores topic after topic, or a recorder whose files overlap at the boundary.

    Read file after file, the gripper of all steps was the last one, and an image was taken for
    another one or the bag called damaged.
    """
    assert_same(split(whole, tmp_path / 'split', file_of, plugin), whole)


def test_random_splits_change_nothing(tmp_path, whole):
    """Whatever file a message was written to."""
    random = np.random.default_rng(3)
    for trial in range(6):
        assert_same(split(whole, tmp_path / f'split{trial}',
                          lambda item, number: int(random.integers(3))), whole)


@pytest.mark.parametrize('prefix', ['/episode/info', '/episode/success', '/'])
def test_qos_profiles_that_differ_lose_no_message(tmp_path, whole, prefix):
    """
    metadata.yaml edited for a replay, or written beside a converted file.

    Matched by their profiles, the topics of the file were empty: info, label and words were lost
    without a word, and with the info what the numbers mean.
    """
    def strip(values):
        for topic in values['topics_with_message_count']:
            if topic['topic_metadata']['name'].startswith(prefix):
                topic['topic_metadata']['offered_qos_profiles'] = []
    shutil.copytree(whole, tmp_path / 'other')
    assert_same(change_metadata(tmp_path / 'other', strip), whole)


def killed_with_a_log(tmp_path: Path, whole: Path) -> Path:
    """Return the folder that a killed recorder leaves whose database keeps a write-ahead log."""
    source = store(tmp_path / 'source', messages_of(whole), StoragePlugin.SQLITE3)
    folder = tmp_path / 'killed'
    folder.mkdir()
    rows = sqlite3.connect(source / 'source.db3')
    live = sqlite3.connect(folder / 'killed_0.db3', isolation_level=None)
    live.execute('PRAGMA journal_mode=WAL')
    live.execute('PRAGMA wal_autocheckpoint=0')
    tables = [line for line in rows.iterdump() if line.startswith('CREATE')]
    for line in tables:
        live.execute(line)
    for table in ('schema', 'metadata', 'topics', 'message_definitions', 'messages'):
        for number, row in enumerate(rows.execute(f'SELECT * FROM {table}')):
            if table == 'messages' and number == 20:
                live.execute('PRAGMA wal_checkpoint(FULL)')
            live.execute(f'INSERT INTO {table} VALUES ({",".join("?" * len(row))})', row)
    left = tmp_path / 'left'
    shutil.copytree(folder, left)
    live.close()
    rows.close()
    return left


def test_the_write_ahead_log_of_a_killed_recorder_is_read(tmp_path, whole):
    """Most messages are in it; without it 20 of 51 were a good, shorter episode."""
    left = killed_with_a_log(tmp_path, whole)
    (left / 'killed_0.db3-shm').unlink()
    assert_same(left, whole)
    assert (left / 'killed_0.db3-wal').stat().st_size


@pytest.mark.parametrize('plugin', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_that_lost_its_metadata_is_read_and_said(tmp_path, whole, plugin):
    """A recorder that was killed late: the folder was passed over without a word."""
    write_bag(tmp_path / 'runs' / 'run0')
    store(tmp_path / 'runs' / 'run1', messages_of(whole), plugin)
    (tmp_path / 'runs' / 'run1' / 'metadata.yaml').unlink()
    assert len(find_bags(tmp_path / 'runs')) == 2
    note, = problems_at(tmp_path / 'runs')
    assert note.startswith('note ') and 'run1' in note and 'ros2 bag reindex' in note
    assert_same(tmp_path / 'runs' / 'run1', whole)


def halves(whole: Path, target: Path) -> Path:
    """Split a bag in its middle."""
    return split(whole, target, lambda item, number: int(
        item.log_ns > START_NS + 5 * PERIOD_NS))


@pytest.mark.parametrize(('change', 'said'), [
    (lambda bag: (bag / 'bag_1.mcap').unlink(), 'names bag_1.mcap, which is not there'),
    (lambda bag: (bag / 'bag_1.mcap').rename(bag / 'other.mcap'), 'does not name other.mcap'),
    (lambda bag: change_metadata(bag, lambda values: values.update(
        relative_file_paths=['bag_0.mcap'])), 'does not name bag_1.mcap'),
    (lambda bag: change_metadata(bag, lambda values: values.update(
        relative_file_paths=[])), 'names no file'),
    (lambda bag: (bag / 'metadata.yaml').unlink(), '2 files that may be parts of one bag'),
    (lambda bag: shutil.copy(bag / 'bag_0.mcap', bag / 'another.mcap'),
     'does not name another.mcap')],
    ids=['lost', 'renamed', 'stale', 'empty', 'none', 'two bags'])
def test_other_files_than_the_metadata_names_are_named(tmp_path, whole, change, said):
    """A stale or missing metadata.yaml made half of a bag a good episode."""
    bag = halves(whole, tmp_path / 'bags' / 'bag')
    change(bag)
    line, = problems_at(tmp_path / 'bags')
    assert '[counts]' in line and said in line and 'ros2 bag reindex' in line


def test_one_file_of_a_split_bag_is_no_bag(tmp_path, whole):
    """It begins or ends in the middle of an episode."""
    bag = halves(whole, tmp_path / 'bag')
    line, = problems_at(bag / 'bag_0.mcap')
    assert 'it is one of 2 files of a bag; name its folder' in line


def test_loose_files_are_recordings_of_their_own_where_they_lie_apart(tmp_path, whole):
    """Files that follow each other without a pause may be one recording, and are not guessed."""
    for name, shift_s in (('a', 0), ('b', 60)):
        moved = [item._replace(log_ns=item.log_ns + shift_s * 10**9)
                 for item in messages_of(whole)]
        write_mcap(tmp_path / f'{name}.mcap', moved)
    assert [path.name for path in find_bags(tmp_path / '.')] == ['a.mcap', 'b.mcap', 'whole']
    session = tmp_path / 'session'
    session.mkdir()
    for number, file in enumerate(sorted(halves(whole, tmp_path / 'bag').glob('*.mcap'))):
        shutil.copy(file, session / f'2024-01-0{number + 1}.mcap')
    assert find_bags(session) == [session]
    line, = problems_at(session)
    assert 'may be parts of one bag' in line


@pytest.mark.parametrize(('promised', 'fatal'), [(13, True), (11, False), (0, False)])
def test_fewer_messages_than_promised_are_a_problem_and_more_are_said(tmp_path, whole, promised,
                                                                      fatal):
    """A count that is too small is a metadata that was written early; the file is whole."""
    def change(values):
        for topic in values['topics_with_message_count']:
            if topic['topic_metadata']['name'] == '/rgb':
                topic['message_count'] = promised
    line, = problems_at(change_metadata(whole, change))
    assert f'metadata.yaml promises {promised} messages of /rgb, found 12' in line
    assert line.startswith('note ') is not fatal


def test_a_total_that_is_not_reached_is_a_problem(tmp_path, whole):
    """Also where no topic says its number."""
    def change(values):
        for topic in values['topics_with_message_count']:
            topic['message_count'] = 0
        values['message_count'] += 1
    line, = problems_at(change_metadata(whole, change))
    assert 'metadata.yaml promises 52 messages, found 51' in line
    assert not line.startswith('note')


def test_a_span_that_differs_is_said(tmp_path, whole):
    """Recorders that keep the last seconds tell the time since their start."""
    line, = problems_at(change_metadata(whole, lambda values: values.update(
        duration={'nanoseconds': 9 * 10**9})))
    assert line.startswith('note ') and 'promises 9 seconds, found 1.1' in line


def test_messages_that_the_statistics_of_a_file_count_must_be_there(tmp_path, whole):
    """The tail of a file that was cut out or never flushed."""
    path = write_mcap(tmp_path / 'one.mcap', messages_of(whole), lost=3)
    line, = problems_at(path)
    assert '[counts] one.mcap promises' in line and 'copy it again' in line


def zstd(data: bytes) -> bytes:
    """Compress."""
    from backports import zstd as library
    return library.compress(data)


def lz4(data: bytes) -> bytes:
    """Compress."""
    from lz4 import frame
    return frame.compress(data)


@pytest.mark.parametrize('liberty', [
    {'foreign': ('json', 'jsonschema', b'{}')}, {'foreign': ('protobuf', 'protobuf', b'\xff\x01')},
    {'profile': ''}, {'profile': 'foxglove'}, {'summary': False}, {'per_chunk': 5},
    {'per_chunk': 5, 'summary': False}, {'per_chunk': 7, 'compress': zstd, 'compression': 'zstd'},
    {'per_chunk': 7, 'compress': lz4, 'compression': 'lz4'}], ids=lambda value: ' '.join(value))
def test_every_whole_mcap_file_is_read(tmp_path, whole, liberty):
    """Channels of other encodings, no profile, no index: none of that is damage."""
    path = write_mcap(tmp_path / 'one.mcap', messages_of(whole), **liberty)
    assert problems_at(path) == []
    assert_same(path, whole)


@pytest.mark.parametrize('per_chunk', [0, 6])
def test_messages_out_of_order_in_a_file_are_put_in_order(tmp_path, whole, per_chunk):
    """A fast writer stores what comes first, in chunks or without."""
    messages = [item._replace(log_ns=item.log_ns + number)
                for number, item in enumerate(messages_of(whole))]
    order = np.random.default_rng(5).permutation(len(messages))
    path = write_mcap(tmp_path / 'one.mcap', [messages[n] for n in order], per_chunk=per_chunk)
    assert_same(path, whole)


@pytest.mark.parametrize('change', [
    {'storage_identifier': ''}, {'version': 10}, {'version': 3}, {'storage_identifier': 'sqlite3'},
    {'compression_mode': 'FILE', 'compression_format': 'zstd'}], ids=str)
def test_what_the_metadata_says_of_the_storage_hides_no_good_file(tmp_path, whole, change):
    """Written anew by a tool, or by a later ROS: a file says itself what it is."""
    assert problems_at(change_metadata(whole, lambda values: values.update(change))) == []


def test_compressed_messages_are_read_without_metadata(tmp_path, whole):
    """Compression by message is told in metadata.yaml alone."""
    path = write_mcap(tmp_path / 'one.mcap', [
        item._replace(cdr=zstd(item.cdr)) for item in messages_of(whole)])
    assert_same(path, whole)


def test_a_damaged_chunk_is_named_and_the_advice_is_true(tmp_path, whole):
    """One byte of the middle: nothing was cut short, so nothing is to be recovered."""
    path = write_mcap(tmp_path / 'one.mcap', messages_of(whole), per_chunk=10)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    line, = problems_at(path)
    assert '[damaged] the chunk at byte' in line and 'copy the file again' in line
    assert 'mcap recover' not in line
    path.write_bytes(data[:len(data) // 2])
    line, = problems_at(path)
    assert '[damaged]' in line and 'mcap recover' in line


@pytest.mark.parametrize(('content', 'said'), [
    (b'', 'is empty'), (b'MOV' * 40, "neither MCAP nor sqlite3: it begins with b'MOVMOVMO'"),
    (b'\x28\xb5\x2f\xfd' + bytes(40), 'cannot be decompressed')])
def test_a_file_that_is_no_storage_is_named(tmp_path, content, said):
    """By what it is, whatever it is called."""
    (tmp_path / 'one.mcap').write_bytes(content)
    line, = problems_at(tmp_path / 'one.mcap')
    assert '[damaged]' in line and said in line


def with_images(whole: Path, target: Path, change: Callable[[int, dict], dict | None]) -> Path:
    """Store a bag whose static camera publishes CompressedImage, or what a change makes of it."""
    types = 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image'
    number, changed = 0, []
    for item in messages_of(whole):
        if item.topic != '/rgb':
            changed.append(item)
            continue
        header = header_at(item.log_ns)
        fields = change(number, {'header': header})
        number += 1
        msgtype = types['encoding' in fields]
        changed.append(message('/rgb' + ('' if 'encoding' in fields else '/compressed'), msgtype,
                               item.log_ns, **fields))
    return store(target, changed)


def header_at(stamp_ns: int) -> object:
    """Return a header of this stamp."""
    types = TYPES.types
    return types['std_msgs/msg/Header'](
        stamp=types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9)), frame_id='')


@pytest.mark.parametrize(('form', 'said'), [
    ('h264', '204 bytes are no image that OpenCV can decode (it reads jpeg and png); one message '
     'of a video stream is no image'),
    ('16UC1; compressedDepth png', 'a depth image has no colour'),
    ('32FC1; png compressed ', 'a depth image has no colour')])
def test_images_that_cannot_be_used_say_their_format(tmp_path, whole, form, said):
    """Not how old a frame may be, which no number would help."""
    data = np.frombuffer(b'\0\0\0\1' + bytes(200), np.uint8)
    path = with_images(whole, tmp_path / 'one', lambda number, fields: fields | {
        'format': form, 'data': data})
    line, = problems_at(path)
    assert '/rgb/compressed: none of 12 images can be used' in line and said in line
    assert 'max_image_age_s' not in line


@pytest.mark.parametrize('change', [{'step': 95}, {'data': np.zeros(90, np.uint8)},
                                    {'encoding': '16UC1'}, {'height': 0}], ids=str)
def test_one_image_that_does_not_fit_is_no_observation(tmp_path, whole, change):
    """As for the robot, which holds until the next one; the step is left out and said."""
    def raw(number, fields):
        image = smooth_image(number, 'static')
        fields |= {'height': 24, 'width': 32, 'encoding': 'rgb8', 'is_bigendian': 0,
                   'step': 96, 'data': image.reshape(-1)}
        return fields | (change if number == 4 else {})
    path = with_images(whole, tmp_path / 'one', raw)
    note, gap = problems_at(path)
    assert note.startswith('note ') and '1 actions have no observation' in note
    assert "static: Image '" in note and '[gap]' in gap
    episode, = read_episodes(path)
    assert len(episode) == 11
    np.testing.assert_array_equal(episode.frames['static'][4], smooth_image(5, 'static'))


def test_a_topic_of_two_types_is_named(tmp_path, whole):
    """Two nodes publish on one name: which of them the robot followed cannot be told."""
    messages = messages_of(whole)
    other = message('/gripper_command', 'std_msgs/msg/Float64', messages[-1].log_ns, data=1.0)
    line, = problems_at(store(tmp_path / 'one', [*messages, other]))
    assert ('/gripper_command has 2 types: std_msgs/msg/Float64 (1), '
            'std_msgs/msg/Float64MultiArray (12)') in line


def test_a_message_of_other_bytes_than_its_type_is_named(tmp_path, whole):
    """Written by a serialiser that is none of ROS 2."""
    messages = [item._replace(cdr=b'{"data": [1]}') if item.topic == '/gripper_command' else item
                for item in messages_of(whole)]
    line, = problems_at(store(tmp_path / 'one', messages))
    assert ('/gripper_command: a message of 13 bytes is no std_msgs/msg/Float64MultiArray'
            in line)


def test_a_missing_topic_says_which_name_would_help(tmp_path, whole):
    """A setting where a topic of the type is there; else that no name can help."""
    def renamed(name, keep):
        return store(tmp_path / name, [item._replace(topic='/teleop/twist')
                                       if item.topic == '/arm_delta' else item
                                       for item in messages_of(whole)
                                       if keep or item.topic != '/arm_delta'])
    line, = problems_at(renamed('renamed', True))
    assert 'name it with bag.topics.arm_delta=/teleop/twist' in line
    assert '/teleop/twist (geometry_msgs/msg/TwistStamped, 12)' in line
    line, = problems_at(renamed('without', False))
    assert 'no name can help, since no topic has this type' in line


def test_an_action_that_was_stamped_when_sent_names_the_remedy(tmp_path):
    """A foreign bag does not say what its stamps mean; ours do."""
    late = write_bag(tmp_path / 'late', action_stamp=lambda step: (
        START_NS + step * PERIOD_NS + 30_000_000))
    foreign = store(tmp_path / 'foreign', [
        item for item in messages_of(late) if item.topic != '/episode/info'])
    line, = problems_at(foreign)
    assert 'bag.stamps=now is for actions that are stamped when they are sent' in line
    assert problems_at(foreign, bag=BagLayout(stamps='now')) == []
    line, = problems_at(late)
    assert 'bag.stamps=now' not in line and 'stamps: observation' in line


def test_a_camera_whose_clock_jumps_back_is_refused(tmp_path):
    """Sorted by their stamps, later images stood at earlier actions; neighbours may swap."""
    messages = messages_of(write_bag(tmp_path / 'whole'))
    images = [number for number, item in enumerate(messages) if item.topic == '/rgb']
    fourth, fifth = images[4:6]
    swapped = list(messages)
    swapped[fourth] = messages[fifth]._replace(log_ns=messages[fourth].log_ns)
    swapped[fifth] = messages[fourth]._replace(log_ns=messages[fifth].log_ns)
    assert_same(store(tmp_path / 'swapped', swapped), tmp_path / 'whole')
    number = max(n for n, item in enumerate(messages) if item.topic == '/hand_rgb')
    image = TYPES.deserialize_cdr(messages[number].cdr, messages[number].msgtype)
    image.header.stamp = header_at(messages[number].log_ns - 355_000_000).stamp
    messages[number] = messages[number]._replace(
        cdr=bytes(TYPES.serialize_cdr(image, messages[number].msgtype)))
    line, = problems_at(store(tmp_path / 'jumps', messages))
    assert '[backward-stamps] /hand_rgb: an image is stamped 0.255 s before' in line


def test_two_texts_about_one_bag_are_not_chosen_between(tmp_path, whole):
    """Two recordings that were joined: the last one's meaning was given to both."""
    messages = messages_of(whole)
    first = next(item for item in messages if item.topic == '/episode/info')
    text = TYPES.deserialize_cdr(first.cdr, first.msgtype).data
    other = message('/episode/info', first.msgtype, messages[-1].log_ns,
                    data=text.replace('gripper_open: 1.0', 'gripper_open: 0.5'))
    line, = problems_at(store(tmp_path / 'one', [*messages, other]))
    assert '[episode-info] 2 different texts on /episode/info' in line

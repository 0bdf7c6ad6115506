"""A bag on a thread of its own: bounded memory, and a disk that fills up."""

import resource
import shutil
import threading

from data_recordings import START_NS
import pytest
from ros2_lstm_policy.data.rosbag import background, set_aside_unfinished
from ros2_lstm_policy.data.rosbag.background import BackgroundBag, Message
from ros2_lstm_policy.data.rosbag.format import STRING
from rosbags.rosbag2 import Reader

TOPIC = '/words'


@pytest.fixture
def begin(tmp_path):
    """Return a function that begins a bag with one topic."""
    def make(queue_bytes=2**26, min_free_bytes=0):
        bag = BackgroundBag(tmp_path / 'one', queue_bytes, min_free_bytes)
        bag.add_topic(TOPIC, STRING)
        return bag
    return make


def fill(bag, count, size=2**20):
    """Append messages of a size."""
    for number in range(count):
        bag.put(Message(TOPIC, START_NS + number, bag.serialise(STRING, data='x' * size)))


def count_messages(path):
    """Return how many messages a bag has."""
    with Reader(path) as reader:
        return sum(1 for _ in reader.messages())


def test_every_message_is_in_the_bag(begin):
    """Those that still waited when it was closed as well."""
    bag = begin()
    fill(bag, 40)
    assert count_messages(bag.close()) == 40
    assert (bag.written[TOPIC], sum(bag.dropped.values()), bag.waiting_bytes) == (40, 0, 0)


def test_memory_is_bounded_and_what_is_dropped_is_counted(begin, monkeypatch):
    """A disk that stands still costs messages, never the robot's memory."""
    bag, go_on = begin(queue_bytes=5 * 2**20), threading.Event()
    write = bag._file.write
    monkeypatch.setattr(bag._file, 'write', lambda *m: (go_on.wait(), write(*m)))
    fill(bag, 20)
    assert bag.waiting_bytes <= 5 * 2**20
    dropped = bag.dropped[TOPIC]
    assert 14 <= dropped <= 16
    go_on.set()
    assert count_messages(bag.close()) == 20 - dropped


def test_a_bag_ends_whole_before_the_disk_is_full(begin, monkeypatch):
    """It is completed with what it has, and says why it took no more."""
    bag = begin(min_free_bytes=10**9)
    monkeypatch.setattr(background.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(
        10**12, 10**12, 10**8))
    fill(bag, 80)
    path = bag.close()
    assert 'only 100 MB are free' in bag.problem
    assert count_messages(path) == bag.written[TOPIC]
    assert bag.written[TOPIC] + bag.dropped[TOPIC] == 80


def test_no_bag_begins_on_a_full_disk(begin, monkeypatch):
    """The refusal says how much is free and how much is needed."""
    monkeypatch.setattr(background.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(
        10**12, 10**12, 10**8))
    with pytest.raises(OSError, match='only 100 MB are free, at least 1000 MB'):
        begin(min_free_bytes=10**9)


def test_a_disk_that_refuses_to_write_loses_this_episode_only(begin, tmp_path):
    """The operating system's own limit on the size of a file stands for a full disk."""
    before = begin()
    fill(before, 2)
    bag = BackgroundBag(tmp_path / 'two', 2**26, 0)
    bag.add_topic(TOPIC, STRING)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20, hard))
    try:
        fill(bag, 30)
        with pytest.raises(OSError, match='cannot be written'):
            bag.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert bag.written[TOPIC] + bag.dropped[TOPIC] < 30
    assert set_aside_unfinished(tmp_path) == [tmp_path / 'incomplete' / 'two']
    assert count_messages(before.close()) == 2


def test_a_discarded_bag_leaves_nothing(begin, tmp_path):
    """Not even the folder of unfinished bags."""
    bag = begin()
    fill(bag, 10)
    bag.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_label_is_written_however_full_the_queue_is(begin, monkeypatch):
    """The last word about an episode is not the one to be dropped where the disk ran short."""
    bag = begin(queue_bytes=2**20)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(1, 1, 0))
    bag._min_free_bytes = 1
    bag._look_at_disk()
    assert 'the bag ends here' in bag.problem
    bag.put(Message(TOPIC, START_NS, bag.serialise(STRING, data='never')))
    bag.put(Message(TOPIC, START_NS, bag.serialise(STRING, data='label')), always=True)
    assert count_messages(bag.close()) == 1
    assert bag.dropped[TOPIC] == 1


def test_whatever_a_bags_library_raises_is_a_problem_and_ends_the_bag(begin, monkeypatch):
    """The writing thread once died without a word, and messages waited for it."""
    bag = begin()

    def fail(*_):
        raise RuntimeError('a surprise')
    monkeypatch.setattr(bag._file, 'write', fail)
    fill(bag, 3, size=10)
    with pytest.raises(OSError, match='cannot be written: a surprise'):
        bag.close()


def test_a_topic_that_the_disk_refuses_is_a_problem_and_no_exception(begin, monkeypatch):
    """The label's topic is declared last, on a disk that may be gone by then."""
    bag = begin()

    def fail(*_):
        raise OSError('Input/output error')
    monkeypatch.setattr(bag._file, 'add_topic', fail)
    bag.add_topic('/label', STRING)
    assert 'Input/output error' in bag.problem
    with pytest.raises(OSError, match='Input/output error'):
        bag.close()


def test_a_folder_that_is_gone_when_the_bag_is_to_be_completed_is_one_error(begin, tmp_path):
    """A disk was pulled out; whoever asked for the end is told."""
    bag = begin()
    fill(bag, 3, size=10)
    shutil.rmtree(tmp_path / 'partial')
    with pytest.raises(OSError, match='cannot be completed'):
        bag.close()

"""The frame store: built once, opened instantly, the same batch from disk, memory and device."""

import fcntl
import os
from pathlib import Path
import resource
import shutil
import subprocess
import sys

from data_recordings import manifest, PERIOD_NS, smooth_image, write_bag, write_calvin
import numpy as np
import pytest
from ros2_lstm_policy import transforms
from ros2_lstm_policy.data import build
from ros2_lstm_policy.data.build import open_store, StoreRequest
from ros2_lstm_policy.data.checks import Limits
from ros2_lstm_policy.data.rosbag import find_bags
from ros2_lstm_policy.data.sources import SourceSpec
from ros2_lstm_policy.data.store import FrameStore, StoreWriter
from ros2_lstm_policy.data.windows import gather, WindowIndex
from ros2_lstm_policy.types import Episode
import torch


@pytest.fixture
def request_of_bags(tmp_path):
    """Three bags of different lengths."""
    for number, steps in enumerate((12, 5, 9)):
        write_bag(tmp_path / 'bags' / f'bag{number}', steps=steps, words=f'task {number}')
    return StoreRequest((SourceSpec(tmp_path / 'bags'),), manifest(),
                        Limits(period_s=0.1))


def test_a_store_holds_the_frames_as_the_robot_sees_them(request_of_bags, tmp_path):
    """Resized by the function that the node uses."""
    store = open_store(request_of_bags, tmp_path / 'cache', 1)
    assert [(e.name, e.length) for e in store.episodes] == [('bag0', 12), ('bag1', 5), ('bag2', 9)]
    for camera in request_of_bags.manifest.cameras:
        expected = transforms.resize(smooth_image(3, camera.name), camera)
        np.testing.assert_array_equal(store.images[camera.name][12 + 3], expected)
    assert np.diff(store.stamps_ns[:12]).tolist() == [PERIOD_NS] * 11


def test_a_batch_holds_what_the_window_rule_says(request_of_bags, tmp_path):
    """Images, normalised labels, masks, words and names of each window."""
    store = open_store(request_of_bags, tmp_path / 'cache', 1)
    index = WindowIndex(store.lengths, window=6, chunk=3)
    batch = gather(store, index, [0, 7, 9], manifest(), future_cameras=('hand',))
    assert batch.episode_names == ['bag0', 'bag1', 'bag2']
    assert batch.instructions == ['task 0', 'task 1', 'task 2']
    frames = index.frames(np.array([7]))[0]
    np.testing.assert_array_equal(batch.images['static'][1].numpy(),
                                  np.asarray(store.images['static'])[frames])
    assert batch.future_images['hand'].shape == (3, 6, 3, 16, 16, 3)
    assert not batch.valid_BTK[1, 5].any()
    np.testing.assert_allclose(batch.continuous_BTKC[0, 2, 1].numpy(),
                               store.actions['arm'][3] / 0.05, rtol=1e-5)
    assert batch.binary_BTKG[0, :, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert batch.states_BTS.shape == (3, 6, 0)


def test_disk_and_device_give_the_same_batch(request_of_bags, tmp_path):
    """A store in (GPU) memory is the same store."""
    store = open_store(request_of_bags, tmp_path / 'cache', 1)
    index = WindowIndex(store.lengths, window=4, chunk=2)
    ids = np.array([8, 0, 3])
    mapped, resident = (gather(s, index, ids, manifest()) for s in (store, store.to('cpu')))
    assert isinstance(store.to('cpu').images['static'], torch.Tensor)
    for name in mapped.images:
        assert torch.equal(mapped.images[name], resident.images[name])


def gather_from_memory():
    """Print the memory of this process while it gathers 30 batches of 50 MB."""
    random = np.random.default_rng(0)
    frames = np.ones((600, 128, 128, 3), np.uint8)
    store = FrameStore((), {'static': frames, 'hand': frames}, {}, {}, np.zeros(600)).to('cpu')
    kept = []
    for _ in range(30):
        numbers = random.integers(0, 600, (64, 8))
        batch = store.take('static', numbers), store.take('hand', numbers)
        kept.append(torch.zeros(200))  # what else lives between two batches
        del batch
        status = Path('/proc/self/status').read_text().splitlines()
        print(int(next(line for line in status if line.startswith('RssAnon')).split()[1]) // 1000)


def test_gathering_from_memory_takes_no_more_memory_with_every_batch():
    """
    A process that gathered once grew by one camera's images, 25 MB, with each batch.

    Torch asks for aligned memory, of which glibc before 2.38 hardly reuses any; NumPy does not.
    """
    code = (f'import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n'
            'import test_data_store as t; t.gather_from_memory()')
    said = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    memory_mb = [int(line) for line in said.stdout.split()]
    assert len(memory_mb) == 30
    assert max(memory_mb[15:]) < max(memory_mb[:10]) + 60


def test_a_store_is_built_once(request_of_bags, tmp_path, monkeypatch):
    """Opening again reads no recording."""
    open_store(request_of_bags, tmp_path / 'cache', 1)

    def fails(*_):
        raise AssertionError('a recording was read again')
    monkeypatch.setattr(build, '_build', fails)
    assert len(open_store(request_of_bags, tmp_path / 'cache', 1).episodes) == 3


def test_a_store_is_built_anew_when_its_recordings_change(request_of_bags, tmp_path):
    """A new bag, a changed bag, another size or another limit is another store."""
    keys = {request_of_bags.key()}
    bag = tmp_path / 'bags' / 'bag1' / 'bag1.mcap'
    os.utime(bag, ns=(1, 1))
    keys.add(request_of_bags.key())
    write_bag(tmp_path / 'bags' / 'bag3')
    keys.add(request_of_bags.key())
    keys.add(StoreRequest(request_of_bags.sources, manifest(24),
                          request_of_bags.limits).key())
    keys.add(StoreRequest(request_of_bags.sources, request_of_bags.manifest).key())
    assert len(keys) == 5


@pytest.mark.parametrize('changed', ['image_checks.py', 'transforms.py', 'data/checks.py',
                                     'data/rosbag/reader.py'])
def test_a_store_is_built_anew_when_what_is_refused_changes(request_of_bags, tmp_path, monkeypatch,
                                                            changed):
    """Black images stayed in stores that had been built before they were refused."""
    package = tmp_path / 'package'
    shutil.copytree(Path(build.__file__).parents[1], package, ignore=shutil.ignore_patterns(
        '__pycache__', 'model', 'ros', 'sim', 'training', 'evaluation', 'runtime'))
    before = build.rules_version()
    assert build.rules_version(package) == before
    path = package / changed
    path.write_text(path.read_text().replace('return', 'return  ', 1))
    after = build.rules_version(package)
    assert after != before
    alone = request_of_bags.key()
    monkeypatch.setattr(build, 'rules_version', lambda: after)
    assert request_of_bags.key() != alone


def test_a_link_that_leads_nowhere_is_named_among_the_recordings(request_of_bags, tmp_path):
    """
    A disk was not mounted, and its recordings were missed without a word.

    So is a link in a circle; an editor's lock is none. The store is built anew when it is there.
    """
    bags, disk = tmp_path / 'bags', tmp_path / 'disk'
    (bags / 'more').symlink_to(disk)
    (bags / 'deep').mkdir()
    (bags / 'deep' / 'one.mcap').symlink_to(disk / 'one.mcap')
    (bags / 'self').symlink_to(bags / 'self')
    (bags / '.#notes').symlink_to('me@here.1')
    lines, missed = [], request_of_bags.key()
    assert len(open_store(request_of_bags, tmp_path / 'cache', 1, lines.append).episodes) == 3
    named = [line for line in lines if '[dangling-link]' in line]
    assert [line.partition(':')[0] for line in named] == [
        str(bags / name) for name in ('more', 'self', 'deep/one.mcap')]
    assert f'is a link to {disk}, and nothing is there; mount the disk' in named[0]
    write_bag(disk / 'bag3')
    assert request_of_bags.key() != missed


def test_linked_folders_of_recordings_are_read_and_watched(request_of_bags, tmp_path):
    """
    Recordings on another disk were linked beside the others, and passed over without a word.

    A change of them was no change to the store, either. A link back to where it lies is no more
    recordings: neither straight, nor by way of another link.
    """
    disk = tmp_path / 'disk'
    write_bag(disk / 'day' / 'bag3', steps=7)
    (tmp_path / 'bags' / 'more').symlink_to(disk)
    (tmp_path / 'bags' / 'day').symlink_to(disk / 'day' / 'bag3')
    alone = request_of_bags.key()
    for number, target in enumerate((tmp_path, tmp_path / 'bags', disk, disk / 'day')):
        (disk / 'day' / f'back{number}').symlink_to(target)
    assert request_of_bags.key() == alone
    names = [str(path.relative_to(tmp_path)) for path in find_bags(tmp_path / 'bags')]
    assert names == ['bags/bag0', 'bags/bag1', 'bags/bag2', 'bags/day', 'bags/more/day/bag3']
    assert len(open_store(request_of_bags, tmp_path / 'cache', 1).episodes) == 5
    write_bag(disk / 'night' / 'bag4', steps=6)
    added = request_of_bags.key()
    os.utime(disk / 'day' / 'bag3' / 'bag3.mcap', ns=(1, 1))
    assert len({alone, added, request_of_bags.key()}) == 3


def test_a_weight_needs_no_new_store(request_of_bags):
    """Weights choose windows, not frames."""
    heavy = StoreRequest((SourceSpec(request_of_bags.sources[0].path, weight=3.0),),
                         request_of_bags.manifest, request_of_bags.limits)
    assert heavy.key() == request_of_bags.key()


def test_several_sources_keep_their_number(request_of_bags, tmp_path):
    """What is mixed by weight later."""
    calvin = SourceSpec(write_calvin(tmp_path / 'training'))
    store = open_store(StoreRequest((*request_of_bags.sources, calvin), request_of_bags.manifest),
                       tmp_path / 'cache', 1)
    assert [episode.source for episode in store.episodes] == [0, 0, 0, 1, 1]


def test_a_damaged_store_is_refused(request_of_bags, tmp_path):
    """A cache that was cut short never gives other frames."""
    open_store(request_of_bags, tmp_path / 'cache', 1)
    path = tmp_path / 'cache' / request_of_bags.key()
    images = path / 'static.u8'
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r'static.u8: expected \d+ bytes, found \d+; build it'):
        FrameStore.load(path)
    (path / 'index.json').write_text('{"format": 0}')
    with pytest.raises(ValueError, match='build it again'):
        FrameStore.load(path)


@pytest.mark.parametrize('processes', [1, 2])
def test_a_disk_that_fills_up_stops_the_build_and_leaves_nothing(request_of_bags, tmp_path,
                                                                 processes):
    """The operating system's own limit on the size of a file stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(ValueError, match='cannot be stored there(.|\n)*make room'):
            open_store(request_of_bags, tmp_path / 'cache', processes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [path for path in (tmp_path / 'cache').iterdir() if path.is_dir()]
    assert len(open_store(request_of_bags, tmp_path / 'cache', 1).episodes) == 3


def test_what_killed_builds_left_is_cleared_away(request_of_bags, tmp_path):
    """Gigabytes of a build whose recordings have changed since; never those of a living one."""
    cache, key = tmp_path / 'cache', request_of_bags.key()
    for name in (f'{key}.partial', f'{key}.x.parts', 'dead.partial', 'dead.x.parts',
                 'alive.partial'):
        (cache / name / 'more').mkdir(parents=True)
    with open(cache / 'alive.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        open_store(request_of_bags, cache, 1)
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == sorted(
        [key, 'alive.partial'])


def test_an_unfinished_store_is_no_store(tmp_path):
    """A build that was killed leaves nothing under the store's name."""
    writer = StoreWriter(tmp_path / 'store', manifest())
    assert not (tmp_path / 'store').exists()
    with pytest.raises(ValueError, match='no episode'):
        writer.close()
    with pytest.raises(ValueError, match=r'expected 3 items of static\.u8, found 2'):
        writer.append(Episode('one', 'go', np.zeros(3, np.int64), dict.fromkeys(
            ('static', 'hand'), np.zeros((2, 16, 16, 3), np.uint8)),
            {'arm': np.zeros((3, 6)), 'gripper': np.zeros((3, 1))}))
    assert not Path(tmp_path / 'store').exists()


def test_an_image_that_stays_is_kept_once(tmp_path):
    """Before a robot that waits a camera sees the same again and again; batches do not show it."""
    random, paths = np.random.default_rng(0), [tmp_path / name for name in ('one', 'two', 'all')]
    seen = [random.integers(0, 256, (6, 16, 16, 3), np.uint8)[[0, 0, 0, 1, 2, 2]]
            for _ in range(2)]
    for path, images in zip(paths, seen):
        with StoreWriter(path, manifest()) as writer:
            writer.append(waiting(path.name, images))
            writer.close()
    with StoreWriter(paths[2], manifest()) as writer:
        writer.append(waiting('first', seen[1]))
        for path in paths[:2]:
            writer.absorb(path)
        store = writer.close()
    assert store.nbytes == 2 * 3 * 3 * seen[0][0].nbytes  # cameras, episodes, images of each
    assert store.numbers('static', np.arange(18)).max() == 8
    for which in (store, store.to('cpu')):
        np.testing.assert_array_equal(which.take('hand', np.arange(18)).numpy(),
                                      np.concatenate([seen[1], *seen]))


def waiting(name, images):
    """Return an episode in which nothing moves."""
    steps = len(images)
    return Episode(name, 'wait', np.arange(steps, dtype=np.int64),
                   dict.fromkeys(('static', 'hand'), images),
                   {'arm': np.zeros((steps, 6)), 'gripper': np.zeros((steps, 1))})

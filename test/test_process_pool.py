"""Work on several processes: in order, interruptible, and nobody dies unnoticed."""

import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from data_recordings import manifest, write_bag
import numpy as np
import pytest
from ros2_lstm_policy.data.build import open_store, StoreRequest
from ros2_lstm_policy.data.problems import Problem, RecordingError
from ros2_lstm_policy.data.sources import SourceSpec
from ros2_lstm_policy.process_pool import as_they_come, in_order, MemberLost

HERE = Path(__file__).parent


def slowly_doubled(number):
    """Let early tasks end last."""
    time.sleep(0.2 if number == 0 else 0)
    return 2 * number, os.getpid()


def first_after_the_last(task):
    """End the first task when the last one has begun."""
    folder, number = task
    (folder / str(number)).touch()
    if number == 0:
        until((folder / '5').exists)
    return number, os.getpid()


def fails_at_three(number):
    """Refuse one task as a recording is refused."""
    if number == 3:
        raise RecordingError(Problem('nan', Path('bag'), 'three', 'no number'))
    return number


def dies_at_three(number):
    """End as the system ends a process that takes too much memory."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def tidies_up(folder):
    """Say that it began, wait for ever whatever happens once, and say that it ended."""
    try:
        (folder / f'began_{os.getpid()}').touch()
        with contextlib.suppress(BaseException):
            time.sleep(1e6)
        time.sleep(1e6)
    finally:
        (folder / f'ended_{os.getpid()}').touch()


@dataclass(frozen=True)
class EndlessRecording:
    """One whose reading says that it began, and never ends or kills its process."""

    name: str
    folder: Path
    kills: bool
    where: Path = Path('nowhere')

    def read(self):
        """Begin."""
        (self.folder / f'began_{os.getpid()}').touch()
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(1e6)


@dataclass(frozen=True)
class Endless(StoreRequest):
    """A request of four such recordings; `kills` makes the third one kill."""

    kills: bool = False

    def recordings(self):
        """List them."""
        return [[EndlessRecording(f'endless{n}', self.sources[0].path, self.kills and n == 2)
                 for n in range(4)]]


def builds_for_ever(folder):
    """Build a store of them."""
    open_store(Endless((SourceSpec(folder),), manifest()), folder / 'cache', 2)


def waits_for_two(folder):
    """Wait for two processes that never answer."""
    with contextlib.closing(as_they_come(tidies_up, [[folder], [folder]], 2, named)) as answers:
        next(answers)


def here(code, **options):
    """Run code in a new process that has this module as `t`."""
    begin = f'import sys; sys.path.insert(0, {str(HERE)!r}); import test_process_pool as t\n'
    return subprocess.Popen([sys.executable, '-c', begin + code], text=True, **options)


def named(number):
    """Name a task."""
    return f'recording {number}'


def gone(pid):
    """Say whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z'
    except FileNotFoundError:
        return True


def until(condition, seconds=60.0):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'it did not happen'
        time.sleep(0.02)


def test_results_come_in_order_whoever_is_first():
    """Two processes, and a first task that ends last."""
    answers = list(in_order(slowly_doubled, range(8), 2, named))
    assert [doubled for doubled, _ in answers] == list(range(0, 16, 2))
    assert os.getpid() not in {pid for _, pid in answers}
    assert len({pid for _, pid in answers}) == 2


def test_an_error_in_a_process_is_raised_here_with_its_traceback():
    """The type, the text and what belongs to it arrive; earlier results come first."""
    answers, seen = in_order(fails_at_three, range(6), 2, named), []
    with pytest.raises(RecordingError, match='no number') as caught:
        seen.extend(answers)
    assert caught.value.problem.episode == 'three'
    assert 'fails_at_three' in str(caught.value.__cause__)


def test_a_killed_process_is_named_by_its_task():
    """Not by those that the others were at."""
    with pytest.raises(MemberLost, match=r'^recording 3: .* killed by SIGKILL .*memory'):
        list(in_order(dies_at_three, range(6), 2, named))


def test_processes_end_where_the_results_are_left():
    """An early end terminates what is still at work."""
    def reads_one():
        with contextlib.closing(in_order(slowly_doubled, range(100), 2, named)) as answers:
            return next(answers)[1]
    assert gone(reads_one())


def test_a_chunk_is_of_one_process_and_results_come_when_they_are_there(tmp_path):
    """The first task ends after others have; all of its chunk wait for it."""
    chunks = [[(tmp_path, n) for n in chunk] for chunk in ([0, 1, 2], [3], [4, 5])]
    answers = list(as_they_come(first_after_the_last, chunks, 2, named))
    order, by = [number for number, _ in answers], dict(answers)
    assert sorted(order) == list(range(6))
    assert order.index(3) < order.index(4) < order.index(0) < order.index(1) < order.index(2)
    assert by[0] == by[1] == by[2] != by[3] == by[4] == by[5]


def test_what_is_under_way_cleans_up_where_the_results_are_left(tmp_path):
    """A half-written file must not be what an interruption leaves."""
    parent = here(f't.waits_for_two(t.Path({str(tmp_path)!r}))', stderr=subprocess.PIPE,
                  start_new_session=True)
    until(lambda: len(list(tmp_path.glob('began_*'))) == 2)
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert said.count('Traceback') == 1, said
    assert len(list(tmp_path.glob('ended_*'))) == 2


def test_processes_end_with_a_parent_that_is_killed():
    """No orphan waits for ever: its end of the pipe is closed."""
    parent = here('for _, pid in t.in_order(t.slowly_doubled, range(10**6), 2, t.named):\n'
                  '    print(pid, flush=True)', stdout=subprocess.PIPE)
    pids = {int(parent.stdout.readline()) for _ in range(50)}
    parent.kill()
    parent.communicate()
    until(lambda: all(gone(pid) for pid in pids))


@pytest.fixture(scope='module')
def recordings(tmp_path_factory):
    """Bags of which one is torn, one impossible, and one has a frame that is no image."""
    folder = tmp_path_factory.mktemp('recordings')
    for number in range(5):
        write_bag(folder / f'bag{number}', steps=4 + 3 * number, words=f'task {number}')
    write_bag(folder / 'bag2_wild', arm=lambda step: np.full(6, 9.0))
    torn = write_bag(folder / 'bag3_torn') / 'bag3_torn.mcap'
    torn.write_bytes(torn.read_bytes()[:-2000])
    late = write_bag(folder / 'bag1_late', jpeg=True) / 'bag1_late.mcap'
    data = bytearray(late.read_bytes())
    end = data.index(b'\xff\xd9', len(data) // 2)
    data[end:end + 2] = bytes(2)  # the rest of this JPEG did not come
    late.write_bytes(bytes(data))
    return folder


def test_a_store_is_the_same_from_any_number_of_processes(recordings, tmp_path):
    """Order, problems, index and every byte."""
    request = StoreRequest((SourceSpec(recordings),), manifest())
    found = []
    for processes in (1, 3):
        said = []
        cache = tmp_path / str(processes)
        store = open_store(request, cache, processes, said.append)
        assert [e.name for e in store.episodes] == [f'bag{number}' for number in range(5)]
        path = cache / request.key()
        found.append(({file.name: file.read_bytes() for file in path.iterdir()}, said[:-1]))
        assert sorted(p.name for p in cache.iterdir()) == [path.name, f'{path.name}.lock']
    assert found[0] == found[1]
    assert len(found[0][1]) == 3
    assert found[0][0]['static.u8'] and len(found[0][0]) == 9


def test_an_interrupted_build_leaves_no_store_and_no_process(tmp_path):
    """Ctrl-C reaches the whole process group, and only the parent says something."""
    parent = here(f't.builds_for_ever(t.Path({str(tmp_path)!r}))', stderr=subprocess.PIPE,
                  start_new_session=True)
    until(lambda: len(list(tmp_path.glob('began_*'))) == 2)
    assert list((tmp_path / 'cache').glob('*.partial'))
    os.killpg(parent.pid, signal.SIGINT)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == -signal.SIGINT
    assert said.count('Traceback') == 1, said
    assert all(gone(path.name.partition('_')[2]) for path in tmp_path.glob('began_*'))
    assert not [path for path in (tmp_path / 'cache').iterdir() if path.is_dir()]


def test_a_killed_reader_is_named_by_its_recording(tmp_path):
    """And leaves nothing in the cache, so the next build begins anew."""
    request = Endless((SourceSpec(tmp_path),), manifest(), kills=True)
    with pytest.raises(MemberLost, match=r'nowhere: endless2: the process .*SIGKILL'):
        open_store(request, tmp_path / 'cache', 3)
    assert not [path for path in (tmp_path / 'cache').iterdir() if path.is_dir()]

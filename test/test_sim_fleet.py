"""Episodes over several processes: each once, errors told, scenes kept together."""

from functools import partial
import os
from pathlib import Path
import signal
import time

import pytest
from ros2_lstm_policy.process_pool import MemberLost
from ros2_lstm_policy.sim import fleet
from ros2_lstm_policy.sim.tasks import SimEpisode


def episode(number: int) -> SimEpisode:
    """Return an episode of one of three scenes."""
    return SimEpisode(str(number), 'suite/0', f'scene{number % 3}', 'words', (), None, None)


EPISODES = [episode(number) for number in range(20)]


class Name:
    """Work that returns the episode's name and the process."""

    def __call__(self, work: SimEpisode) -> tuple[str, int]:
        """Return both."""
        return work.name, os.getpid()


class Broken:
    """Work that fails at one episode."""

    def __call__(self, work: SimEpisode) -> str:
        """Fail at the seventh."""
        if work.name == '7':
            raise RuntimeError('the seventh cannot be done')
        return work.name


def test_a_chunk_is_of_one_scene_and_every_episode_is_in_one():
    """Building a scene takes seconds, so a process keeps to one."""
    chunks = fleet.by_scene(EPISODES, processes=2)
    assert all(len({e.scene for e in chunk}) == 1 for chunk in chunks)
    assert sorted(e.name for chunk in chunks for e in chunk) == sorted(e.name for e in EPISODES)


def test_scenes_take_turns() -> None:
    """A time limit that ends a run early must not leave out the last scenes."""
    scenes = [chunk[0].scene for chunk in fleet.by_scene(EPISODES, processes=2)]
    assert len(scenes) > 3
    assert sorted(scenes[:3]) == ['scene0', 'scene1', 'scene2']


@pytest.mark.parametrize('processes', [1, 2])
def test_every_episode_is_run_once(processes):
    """In this process or in others."""
    results = list(fleet.run(EPISODES, Name, processes))
    assert sorted(name for name, _ in results) == sorted(e.name for e in EPISODES)
    assert (os.getpid() in {pid for _, pid in results}) == (processes == 1)


@pytest.mark.parametrize('processes', [1, 2])
def test_what_a_worker_raises_ends_the_run(processes):
    """Its own words reach the caller."""
    with pytest.raises(RuntimeError, match='the seventh cannot be done'):
        list(fleet.run(EPISODES, Broken, processes))


class NotMade(Name):
    """A worker that cannot be made."""

    def __init__(self) -> None:
        """Fail."""
        raise ValueError('no policy there')


@pytest.mark.parametrize('processes', [1, 2])
def test_a_worker_that_cannot_be_made_ends_the_run_with_its_own_words(processes):
    """It was reported as a process killed for lack of memory."""
    with pytest.raises(ValueError, match='no policy there'):
        list(fleet.run(EPISODES, NotMade, processes))


class Killed(Name):
    """Work that the system ends at one episode."""

    def __call__(self, work: SimEpisode) -> tuple[str, int]:
        """End at the seventh."""
        if work.name == '7':
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(work)


def test_a_killed_process_is_named_by_its_episode():
    """Out of memory is the usual reason, and the message says so."""
    with pytest.raises(MemberLost, match='^7: the process .* SIGKILL .*memory'):
        list(fleet.run(EPISODES, Killed, 2))


def test_no_process_is_an_error():
    """And says so."""
    with pytest.raises(ValueError, match='at least 1, found 0'):
        list(fleet.run(EPISODES, Name, 0))


class Slow:
    """Work that takes a while and leaves a file."""

    def __init__(self, folder: Path) -> None:
        """Remember where."""
        self.folder = folder

    def __call__(self, episode: SimEpisode) -> str:
        """Work."""
        time.sleep(0.05)
        (self.folder / episode.name).touch()
        return episode.name


def test_a_run_that_is_left_ends_soon(tmp_path: Path) -> None:
    """After Ctrl-C no process works through the chunk that it has taken."""
    many = [episode(number) for number in range(300)]
    results = fleet.run(many, partial(Slow, tmp_path), 2)
    next(results)
    results.close()
    assert len(list(tmp_path.iterdir())) < 20

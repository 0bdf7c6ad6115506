"""
Many simulated episodes over several processes, with one result each.

Episodes of one scene go to the same process as far as possible, because building a scene takes
seconds and a reset a tenth. What an episode gives does not depend on the process it ran in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
import itertools
import multiprocessing
import queue
from typing import Any, TypeVar

from ros2_lstm_policy.sim.robot import SimRobot, SimState
from ros2_lstm_policy.sim.tasks import SimEpisode

R = TypeVar('R')
Work = Callable[[SimEpisode], R]
LARGEST_CHUNK = 32
CHUNKS_A_PROCESS = 3  # so that processes end at about the same time
_POLL_S = 1.0


class RobotKeeper:
    """
    Keeps the robot of the last scene, and makes another where an episode needs it.

    :param image_size: (height, width) of both cameras in pixels.
    """

    def __init__(self, image_size: tuple[int, int]) -> None:
        """Begin without a robot."""
        self._image_size = image_size
        self._robot: SimRobot | None = None

    def reset(self, episode: SimEpisode) -> tuple[SimRobot, SimState]:
        """Begin an episode and return its robot and first state."""
        if self._robot is None or self._robot.scene != episode.scene:
            self.close()
            self._robot = SimRobot(episode.scene, self._image_size)
        return self._robot, self._robot.reset(episode)

    def close(self) -> None:
        """Free the robot."""
        if self._robot is not None:
            self._robot.close()
        self._robot = None


def run(episodes: Sequence[SimEpisode], make_worker: Callable[[], Work[R]],
        processes: int) -> Iterator[R]:
    """
    Run every episode once and yield results as they come, in no particular order.

    :param make_worker: called once in each process; picklable where `processes` is above 1.
    :param processes: 1 runs everything in this one.
    :raises Exception: what a worker raised ends the run.
    """
    if processes < 1:
        raise ValueError(f'processes must be at least 1, found {processes}')
    chunks = by_scene(episodes, processes)
    if processes == 1 or len(chunks) < 2:
        work = make_worker()
        yield from (work(episode) for chunk in chunks for episode in chunk)
        return
    context = multiprocessing.get_context('spawn')
    results: Any = context.Queue()
    stopped = context.Event()
    pool = ProcessPoolExecutor(min(processes, len(chunks)), context, _begin,
                               (make_worker, results, stopped))
    try:
        futures = [pool.submit(_work, chunk) for chunk in chunks]
        for _ in episodes:
            yield _next(results, futures)
    finally:
        stopped.set()  # chunks that a process has taken already cannot be cancelled
        pool.shutdown(cancel_futures=True)


def by_scene(episodes: Sequence[SimEpisode], processes: int) -> list[list[SimEpisode]]:
    """
    Cut the episodes into chunks of one scene each, for that many processes.

    The scenes take turns, so that what a time limit leaves has of each in its share.
    """
    size = -(-len(episodes) // (processes * CHUNKS_A_PROCESS))
    size = min(max(size, 1), LARGEST_CHUNK)
    of_scenes = []
    for _, of_scene in itertools.groupby(sorted(episodes, key=_scene), _scene):
        rest = list(of_scene)
        of_scenes.append([rest[i:i + size] for i in range(0, len(rest), size)])
    turns = itertools.zip_longest(*of_scenes)
    return [chunk for turn in turns for chunk in turn if chunk is not None]


def _scene(episode: SimEpisode) -> str:
    return episode.scene


def _next(results: Any, futures: Sequence[Future[None]]) -> Any:
    """Wait for the next result; raise what a worker raised."""
    while True:
        try:
            return results.get(timeout=_POLL_S)
        except queue.Empty:
            for future in futures:
                if future.done():
                    future.result()


class _Process:
    """What one worker process keeps between chunks."""

    work: Work[Any]
    results: Any
    stopped: Any


def _begin(make_worker: Callable[[], Work[Any]], results: Any, stopped: Any) -> None:
    _limit_threads()
    _Process.work, _Process.results = staticmethod(make_worker()), results
    _Process.stopped = stopped


def _work(chunk: Sequence[SimEpisode]) -> None:
    for episode in chunk:
        if _Process.stopped.is_set():
            return
        _Process.results.put(_Process.work(episode))


def _limit_threads() -> None:
    """One thread a process: the processes are the parallelism."""
    import cv2
    import torch
    cv2.setNumThreads(1)
    torch.set_num_threads(1)

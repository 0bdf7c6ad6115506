"""
Many simulated episodes over several processes, with one result each.

Episodes of one scene go to the same process as far as possible, because building a scene takes
seconds and a reset a tenth. What an episode gives does not depend on the process it ran in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
import functools
import itertools
from typing import Any, Generic, TypeVar

from ros2_lstm_policy.process_pool import as_they_come
from ros2_lstm_policy.sim.body import SimBody, USUAL
from ros2_lstm_policy.sim.robot import Disturbance, SimRobot, SimState
from ros2_lstm_policy.sim.tasks import SimEpisode, TWO_ARMS
from ros2_lstm_policy.sim.two_arms import TwoArmRobot, TwoArmState

R = TypeVar('R')
Robot = SimRobot | TwoArmRobot
State = SimState | TwoArmState
Work = Callable[[SimEpisode], R]
LARGEST_CHUNK = 32
CHUNKS_A_PROCESS = 3  # so that processes end at about the same time


class RobotKeeper:
    """
    Keeps the robot of the last scene, and makes another where an episode needs it.

    :param image_size: (height, width) of each camera in pixels.
    :param disturbance: what is changed in every episode; None for nothing.
    :param body: of the robot.
    """

    def __init__(self, image_size: tuple[int, int], disturbance: Disturbance | None = None,
                 body: SimBody = USUAL) -> None:
        """Begin without a robot."""
        self._image_size, self._disturbance, self._body = image_size, disturbance, body
        self._robot: Robot | None = None

    def reset(self, episode: SimEpisode) -> tuple[Any, Any]:
        """Begin an episode and return its robot and first state."""
        if self._robot is None or self._robot.scene != episode.scene:
            self.close()
            make = TwoArmRobot if episode.scene == TWO_ARMS else SimRobot
            self._robot = make(episode.scene, self._image_size, disturbance=self._disturbance,
                               body=self._body)
        return self._robot, self._robot.reset(episode)

    def close(self) -> None:
        """Free the robot."""
        if self._robot is not None:
            self._robot.close()
        self._robot = None


def run(episodes: Sequence[SimEpisode], make_worker: Callable[[], Work[R]],
        processes: int) -> Generator[R, None, None]:
    """
    Run every episode once and yield results as they come, in no particular order.

    Close the iterator where it is left early, with `contextlib.closing`.

    :param make_worker: called once in each process; picklable where `processes` is above 1.
    :param processes: 1 runs everything in this one.
    :raises MemberLost: where a process was killed; the message names the episode.
    :raises Exception: what a worker, or making it, raised ends the run.
    """
    if processes < 1:
        raise ValueError(f'processes must be at least 1, found {processes}')
    chunks = by_scene(episodes, processes)
    if processes == 1 or len(chunks) < 2:
        work = make_worker()
        yield from (work(episode) for chunk in chunks for episode in chunk)
        return
    yield from as_they_come(_InMember(make_worker), chunks, processes, _name)


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


def _name(episode: SimEpisode) -> str:
    return episode.name


class _InMember(Generic[R]):
    """Work whose worker is made in the process where it is, with the first episode."""

    def __init__(self, make_worker: Callable[[], Work[R]]) -> None:
        self._make_worker = make_worker

    def __call__(self, episode: SimEpisode) -> R:
        return self._work(episode)

    @functools.cached_property
    def _work(self) -> Work[R]:
        import torch
        torch.set_num_threads(1)  # the processes are the parallelism
        return self._make_worker()

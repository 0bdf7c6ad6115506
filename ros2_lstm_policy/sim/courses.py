"""From an episode to its stages."""

from __future__ import annotations

from ros2_lstm_policy.sim.memory import catalogue
from ros2_lstm_policy.sim.memory.task import Setting
from ros2_lstm_policy.sim.stages import Course, Put, ReachGoal, Unknown, Wanted
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.sim.world import World


def of_episode(world: World, episode: SimEpisode, hz: int) -> Course:
    """
    Begin an episode whose objects stand in their places, at rest.

    :param hz: control periods a second.
    """
    task = catalogue.find(episode.task)
    if task is not None and episode.cue is not None:
        setting = Setting(episode.cue, round(hz * episode.gap_s), episode.seed)
        return Course(task.plan(world, setting))
    wanted: Wanted = Unknown(episode.instruction)
    if episode.target is not None and episode.container is not None:
        wanted = Put(episode.target, episode.container)
    return Course([ReachGoal(world, wanted)])

"""
One labelled episode into one bag: somebody acts, the scripted expert says what is right.

The bag holds what the expert said at every state that came about, whoever acted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ros2_lstm_policy.data.rosbag.format import EpisodeInfo
from ros2_lstm_policy.data.rosbag.writer import EpisodeBagWriter
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.robot import CONTROL_PERIOD_S, SimRobot, SimState
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action

STEPS_AFTER_SUCCESS = 2  # opening and leaving the container
_PERIOD_NS = round(1e9 * CONTROL_PERIOD_S)

# what the robot does, from its present state and what the expert says
Execute = Callable[[SimState, Action], Action]


@dataclass(frozen=True)
class Outcome:
    """
    How one episode ended.

    :param name: of its bag.
    :param episode: name of the simulated episode.
    :param success: whether the goal was reached.
    :param kept: whether there is a bag of it.
    :param steps: recorded steps.
    :param note: why there is none, where that has another reason than failure.
    """

    name: str
    episode: str
    instruction: str
    success: bool
    kept: bool
    steps: int
    note: str = ''


def demonstrate(robot: SimRobot, state: SimState, episode: SimEpisode, execute: Execute,
                bag: Path, source: str, horizon: int, keep_failures: bool) -> Outcome:
    """
    Run one episode from its first state and record it.

    :param execute: who acts.
    :param bag: folder of the bag to be written.
    :param source: where the episode comes from, in words, for the bag.
    :param horizon: control periods of a stage after which the episode has failed.
    :param keep_failures: keep the bag of a failed episode; its labels are right all the same.
    """
    info = EpisodeInfo(name=bag.name, actor='expert', frame='base', rotation='rotation_vector',
                       control_period_s=CONTROL_PERIOD_S, source=source)
    writer = EpisodeBagWriter(bag, info, episode.instruction, _PERIOD_NS, jpeg=True)
    expert = ScriptedExpert(robot)
    step, left, success = 0, STEPS_AFTER_SUCCESS, False
    try:
        while left >= 0 and (success or not state.is_over(horizon)):
            label = expert.act()
            _write(writer, state, step, label, list(robot.privileged.joint_names))
            action = execute(state, label)
            state = robot.step(action)
            step += 1
            success = success or state.success
            left -= success
        writer.label(success)
    except BaseException:
        writer.discard()
        raise
    kept = success or keep_failures
    writer.close() if kept else writer.discard()
    return Outcome(bag.name, episode.name, episode.instruction, success, kept, step)


def _write(writer: EpisodeBagWriter, state: SimState, step: int, label: Action,
           joints: list[str]) -> None:
    stamp_ns = (step + 1) * _PERIOD_NS  # of the episode, whatever the robot did before it
    for camera, image in state.observation.images.items():
        writer.write_frame(camera, stamp_ns, image)
    writer.write_joints(stamp_ns, joints, state.joint_positions)
    writer.write_pose(stamp_ns, state.ee_pose.position, state.ee_pose.quaternion)
    writer.write_action(stamp_ns, label.arm, label.gripper_open)

"""
One labelled episode into one bag: somebody acts, the scripted expert says what is right.

The bag holds what the expert said at every state that came about, whoever acted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ros2_lstm_policy.data.rosbag.format import EpisodeInfo, RecordedAction, RecordedBody
from ros2_lstm_policy.data.rosbag.values import command_stream, state_stream
from ros2_lstm_policy.data.rosbag.writer import EpisodeBagWriter
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.sim.expert import ScriptedExpert
from ros2_lstm_policy.sim.fleet import Robot, State
from ros2_lstm_policy.sim.robot import CONTROL_PERIOD_S, SimRobot, SimState
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action, Observation

STEPS_AFTER_SUCCESS = 2  # opening and leaving the container
_PERIOD_NS = round(1e9 * CONTROL_PERIOD_S)

# what the robot does, from its present state and what the expert says
Execute = Callable[[State, Action], Action]


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


def demonstrate(robot: Robot, state: State, episode: SimEpisode, execute: Execute,
                bag: Path, source: str, horizon: int, keep_failures: bool) -> Outcome:
    """
    Run one episode from its first state and record it.

    :param execute: who acts, in the actions of the robot's body.
    :param bag: folder of the bag to be written.
    :param source: where the episode comes from, in words, for the bag.
    :param horizon: control periods of a stage after which the episode has failed.
    :param keep_failures: keep the bag of a failed episode; its labels are right all the same.
    """
    body = None if robot.manifest is None else recorded(robot.manifest, state.observation)
    info = EpisodeInfo(name=bag.name, actor='expert', frame='base', rotation='rotation_vector',
                       control_period_s=CONTROL_PERIOD_S, source=source, body=body)
    writer = EpisodeBagWriter(bag, info, episode.instruction, _PERIOD_NS, jpeg=True)
    expert = ScriptedExpert(robot)
    step, left, success = 0, STEPS_AFTER_SUCCESS, False
    try:
        while left >= 0 and (success or not state.is_over(horizon)):
            label = expert.act()
            stamp_ns = (step + 1) * _PERIOD_NS  # of the episode, whatever was done before it
            if body is not None:
                _write_body(writer, body, state.observation, stamp_ns, robot.express(label))
            elif isinstance(robot, SimRobot) and isinstance(state, SimState):
                _write(writer, state, stamp_ns, label, list(robot.privileged.hand.joint_names))
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


def recorded(manifest: Manifest, first: Observation) -> RecordedBody:
    """
    Return what a bag says of the streams of a manifest.

    :param first: an observation, which tells what its states are.
    """
    groups = tuple(replace(group, normalisation=None, largest=None)
                   for group in manifest.actions)
    states = tuple(replace(state, normalisation=None) for state in manifest.states)
    return RecordedBody(
        tuple(camera.name for camera in manifest.cameras), groups, states,
        {group.name: RecordedAction(command_stream(group), answers=True) for group in groups},
        {state.name: state_stream(state, first.states[state.name][None]) for state in states})


def _write_body(writer: EpisodeBagWriter, body: RecordedBody, observation: Observation,
                stamp_ns: int, label: Action) -> None:
    for camera, image in observation.images.items():
        writer.write_frame(camera, stamp_ns, image)
    for name, stream in body.streams.items():
        writer.write_values(stream, stamp_ns, observation.states[name])
    for name, action in body.sources.items():
        assert action.command is not None
        writer.write_values(action.command, stamp_ns, label.groups[name])


def _write(writer: EpisodeBagWriter, state: SimState, stamp_ns: int, label: Action,
           joints: list[str]) -> None:
    for camera, image in state.observation.images.items():
        writer.write_frame(camera, stamp_ns, image)
    writer.write_joints(stamp_ns, joints, state.joint_positions)
    writer.write_pose(stamp_ns, state.ee_pose.position, state.ee_pose.quaternion)
    writer.write_action(stamp_ns, label.arm, label.gripper_open)

"""A checkpoint's body on this robot: whether it fits, where it is told, what it may be asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.manifest import ActionGroup, Manifest
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.named_parameters import (GroupSettings, stream_config, StreamSettings,
                                                   words)
from ros2_lstm_policy.ros.policy.encoders import ENCODERS, Target
from ros2_lstm_policy.ros.policy.parameters import has_workspace, Parameters, Settings
from ros2_lstm_policy.ros.policy.states import POSE, PresentInput, StateInput
from ros2_lstm_policy.runtime.safety import CHECKS, GroupLimits, Limits, step_limit
from ros2_lstm_policy.streams import StreamConfig

_RATE_TOLERANCE = 0.01
_SMOOTH = {  # of GroupLimits, and the parameter: 0 for no limit
    'max_linear_m_s2': 'max_linear_acceleration_m_s2',
    'max_angular_rad_s2': 'max_angular_acceleration_rad_s2',
    'max_joint_s2': 'max_joint_acceleration_rad_s2',
    'max_linear_m_s3': 'max_linear_jerk_m_s3',
    'max_angular_rad_s3': 'max_angular_jerk_rad_s3',
    'max_joint_s3': 'max_joint_jerk_rad_s3'}


def targets(manifest: Manifest, settings: Settings, parameters: Parameters) -> list[Target]:
    """
    Return where the commands of each group go.

    :raises ParameterError: where the checkpoint is for another robot.
    """
    given = parameters.named(GroupSettings, [group.name for group in manifest.actions])
    found = [Target(group, settings, given[group.name], manifest.control_period_s)
             for group in manifest.actions]
    problems = [*_misfits(manifest, settings), *(p for t in found for p in _problems(t))]
    if problems:
        raise ParameterError(f'the checkpoint {settings.checkpoint or settings.server} is not for '
                             'this robot: ' + '; '.join(problems))
    return found


def inputs(manifest: Manifest, found: Sequence[Target],
           parameters: Parameters) -> list[StateInput | PresentInput]:
    """
    Return what is heard of the robot itself: the policy's states, and where its groups are.

    :raises ValueError: for parameters that mean nothing.
    """
    streams = {target.group.name: _present_stream(target, manifest) for target in found}
    names = [state.name for state in manifest.states]
    given = parameters.named(StreamSettings, [*names, *filter(None, streams.values())])
    states = {state.name: StateInput(state, stream_config(state.name, given[state.name],
                                                          state.names))
              for state in manifest.states}
    presents = [_present(target, stream, states.get(stream), given[stream])
                for target in found if (stream := streams[target.group.name])]
    return [*states.values(), *presents]


def limits(settings: Settings, found: Sequence[Target]) -> Limits:
    """Return what the robot may be asked to do."""
    return Limits(settings.deadline_s, {
        target.group.name: _group_limits(settings, target) for target in found})


def described(manifest: Manifest) -> str:
    """Return the groups and states in a line."""
    parts = [f'{group.name} {group.kind}' + (f' in {group.frame} axes' if group.frame else '')
             for group in manifest.actions]
    states = ', '.join(state.name for state in manifest.states)
    return ', '.join(parts) + (f'; states {states}' if states else '')


def _misfits(manifest: Manifest, settings: Settings) -> list[str]:
    problems = []
    for what, needed, known in (
            ('camera', manifest.cameras, settings.cameras),
            ('group of actions', manifest.actions, words(settings.groups)),
            ('state', manifest.states, words(settings.states))):
        absent = [one.name for one in needed if known and one.name not in known]
        if absent:
            parameter = {'camera': 'cameras', 'state': 'states'}.get(what, 'groups')
            problems.append(f'it needs the {what} {", ".join(absent)}, and this robot has '
                            f'{", ".join(known)} ({parameter})')
    rate_hz, wanted_hz = 1 / manifest.control_period_s, settings.control_rate_hz
    if wanted_hz > 0 and abs(wanted_hz / rate_hz - 1) > _RATE_TOLERANCE:
        problems.append(f'it acts at {rate_hz:g} Hz, and {wanted_hz:g} Hz are asked for '
                        '(control_rate_hz)')
    return problems


def _problems(target: Target) -> list[str]:
    """Return what of one group this robot cannot do."""
    group, settings, found = target.group, target.settings, []
    if group.kind not in ENCODERS or group.kind not in CHECKS:
        return [f'nobody knows how to check and send {group.name}, of kind {group.kind}']
    if settings.arm_frame and group.frame and settings.arm_frame != group.frame:
        found.append(f'its deltas are in {group.frame} axes, and this robot takes '
                     f'{settings.arm_frame} axes (arm_frame)')
    margin = settings.gripper_hysteresis
    if group.binary and not 0 <= group.threshold - margin <= group.threshold + margin < 1:
        found.append(f'its {group.name} threshold of {group.threshold:g} with {margin:g} around '
                     'it (gripper_hysteresis) leaves 0 to 1: the gripper would never move')
    if group.kind == 'gripper' and settings.gripper_action and not (
            group.binary and group.size == 1):
        found.append(f'gripper_action sends goals at the edges of one binary value, and '
                     f'{group.name} is not that')
    sends_names = group.kind == 'joint_position' and target.given.message != 'positions'
    if (sends_names or target.joints) and group.axes != POSE_AXES and group.kind != 'gripper' and (
            len(target.joints) != group.size):
        found.append(f'{group.name} has {group.size} joints, and the names of '
                     f'{len(target.joints)} are known (groups.{group.name}.joints)')
    if joint_limits(target) is None:
        found.append(f'groups.{group.name}.lower and .upper: expected one number, or '
                     f'{group.size}, each lower below its upper')
    return found


def joint_limits(target: Target) -> np.ndarray | None:
    """Return lower and upper bounds (2, size); None where they cannot be meant."""
    lower, upper = np.array(target.given.lower), np.array(target.given.upper)
    if {len(lower), len(upper)} - {1, target.group.size}:
        return None
    found = np.stack([np.broadcast_to(bound, target.group.size) for bound in (lower, upper)])
    return found if (found[0] < found[1]).all() else None


def _group_limits(settings: Settings, target: Target) -> GroupLimits:
    bounds, is_tool = joint_limits(target), target.group.axes == POSE_AXES
    is_bounded = bounds is not None and bool(np.isfinite(bounds).any())
    return GroupLimits(
        target.group, target.period_s, settings.max_linear_speed_m_s,
        settings.max_angular_speed_rad_s, settings.max_joint_speed_rad_s, settings.max_lead_s,
        step_limit(target.group, settings.max_step_ratio),
        np.reshape(settings.workspace_m, (2, 3)) if is_tool and has_workspace(settings) else None,
        bounds if is_bounded else None,
        **{name: getattr(settings, parameter) or np.inf for name, parameter in _SMOOTH.items()})


def _present_stream(target: Target, manifest: Manifest) -> str:
    """Return the name of the stream that says where a group is; none for a gripper."""
    if target.given.present:
        return target.given.present
    if target.group.kind == 'gripper':
        return ''
    if target.group.axes != POSE_AXES:
        return 'joints'
    arms = [group for group in manifest.actions if group.axes == POSE_AXES]
    return 'ee_pose' if len(arms) == 1 else f'{target.group.name}_ee_pose'


def _present(target: Target, stream: str, state: StateInput | None,
             given: StreamSettings) -> PresentInput:
    group, frame_id = target.group, target.base_frame_id
    if group.axes == POSE_AXES:
        config = stream_config(stream, given)
        return PresentInput(group, stream, _as_pose(config, stream, given), frame_id=frame_id)
    if state is not None:
        places = _places(group, state.spec.names)
        return PresentInput(group, stream, state.config, places, frame_id)
    return PresentInput(group, stream, stream_config(stream, given, tuple(target.joints)),
                        frame_id=frame_id)


def _as_pose(config: StreamConfig, stream: str, given: StreamSettings) -> StreamConfig:
    """Return the stream of a pose, which has a frame: a PoseStamped."""
    if given.msgtype not in ('', POSE):
        raise ParameterError(f'streams.{stream}.msgtype is {given.msgtype}; where a tool is, is '
                             f'taken from {POSE} alone')
    return StreamConfig(config.topic, POSE)


def _places(group: ActionGroup, names: Sequence[str]) -> tuple[int, ...] | None:
    """Return where a group's joints are among a state's; None where it is all of them."""
    if not group.names or not set(group.names) <= set(names):
        return None
    return tuple(names.index(name) for name in group.names)

"""
The policy node's parameters: one table, which declares, checks, reads and documents them.

What a policy is (window, frames, units, statistics) lives in its checkpoint. These are what the
person decides who deploys it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, Field, fields
import math
from typing import Any, TypeVar

from rclpy.node import Node
from ros2_lstm_policy.manifest import check_name, DEFAULT_CAMERAS
from ros2_lstm_policy.ros import declared
from ros2_lstm_policy.ros.declared import Declared, parameter
from ros2_lstm_policy.ros.named_parameters import FAMILIES, family_and_name, rows_of

T = TypeVar('T')


@dataclass(frozen=True)
class Settings:
    """The values of all parameters; the table of them, too."""

    checkpoint: str = parameter('', 'directory of the checkpoint')
    server: str = parameter(
        '', 'act with the policy that serve answers with here, such as ws://192.168.1.5:8000; '
        'where checkpoint is given, too, it must be the same one; empty: the policy runs in this '
        'process')
    device: str = parameter('cpu', 'where the policy runs: cpu, cuda, cuda:1')
    threads: int = parameter(
        1, 'threads that one operation of the policy may use on the CPU', low=1, high=64)
    precision: str = parameter(
        'fp32', 'of the backbone; bf16 is for a GPU', choices=('fp32', 'bf16'))
    engine: str = parameter(
        'graph', 'how a GPU runs a tick: operation by operation, as one CUDA graph, or as one of '
        'compiled layers, which takes up to 20 s more to configure; without effect on a CPU',
        choices=('eager', 'graph', 'compiled'))
    execute: str = parameter(
        'first', "which action of which chunk is due: 'first' of each, 'chunk:N' actions of one "
        "before the next, or 'ensemble' of all")
    autostart: bool = parameter(False, 'configure and activate by itself', read_only=True)
    cameras: tuple[str, ...] = parameter(
        DEFAULT_CAMERAS, 'the cameras that this robot has; a checkpoint that needs another one is '
        'refused')
    groups: tuple[str, ...] = parameter(
        ('',), 'the groups of actions that this robot takes; a checkpoint with another one is '
        "refused; `['']`: any")
    states: tuple[str, ...] = parameter(
        ('',), 'the states that this robot tells; a checkpoint that needs another one is '
        "refused; `['']`: any")
    compressed: bool = parameter(False, 'subscribe to CompressedImage on the image topics')
    trigger: str = parameter(
        'timer', 'what begins a tick: the timer, or a whole set of camera frames, at most one a '
        'period (cameras triggered together, lock-step simulation)', choices=('timer', 'frames'))
    control_rate_hz: float = parameter(
        0.0, "ticks a second; 0 takes the checkpoint's, another value than its is refused",
        'Hz', 0.0, 1000.0)
    max_image_age_s: float = parameter(
        0.2, 'greatest age of an image that is acted on', 's', 0.001, 60.0)
    max_skew_s: float = parameter(
        0.05, 'greatest distance between the stamps of the cameras', 's', 0.0, 60.0)
    max_frozen_s: float = parameter(
        0.5, 'longest time in which the arm is told to move while a camera shows one image with '
        'new stamps; 0: for ever', 's', 0.0, 60.0)
    max_gap_s: float = parameter(
        1.0, 'after a longer time without an observation the history begins afresh', 's',
        0.001, 60.0)
    deadline_s: float = parameter(
        0.3, 'greatest age of an observation when its command goes out', 's', 0.001, 60.0,
        live=True)
    instruction: str = parameter(
        '', 'the words of the first activation after configure; empty: wait for the topic')
    new_instruction_resets: bool = parameter(True, 'another instruction begins a new episode')
    shadow: bool = parameter(False, 'compute and show everything, command nothing', live=True)
    arm_frame: str = parameter(
        '', "axes that the robot's controller takes deltas in; a checkpoint with others is "
        'refused; empty: any', choices=('', 'base', 'tool'))
    base_frame_id: str = parameter(
        'base_link', 'frame_id of commands in base axes, and of ee_pose')
    tool_frame_id: str = parameter('tool0', 'frame_id of commands in tool axes')
    max_linear_speed_m_s: float = parameter(
        0.4, 'faster commands are slowed to this', 'm/s', 0.001, 10.0, live=True)
    max_angular_speed_rad_s: float = parameter(
        0.8, 'faster commands are slowed to this', 'rad/s', 0.001, 20.0, live=True)
    max_joint_speed_rad_s: float = parameter(
        1.0, 'joints that are told to move faster are slowed to this; m/s of those that slide',
        'rad/s', 0.001, 100.0, live=True)
    max_linear_acceleration_m_s2: float = parameter(
        0.0, 'the velocity of the tool changes no faster from command to command; 0: no limit',
        'm/s²', 0.0, 1000.0, live=True)
    max_angular_acceleration_rad_s2: float = parameter(
        0.0, 'acceleration of its rotation likewise',
        'rad/s²', 0.0, 1000.0, live=True)
    max_joint_acceleration_rad_s2: float = parameter(
        0.0, 'acceleration of each joint likewise',
        'rad/s²', 0.0, 1000.0, live=True)
    max_linear_jerk_m_s3: float = parameter(
        0.0, 'the acceleration of the tool changes no faster; 0: no limit',
        'm/s³', 0.0, 10000.0, live=True)
    max_angular_jerk_rad_s3: float = parameter(
        0.0, 'jerk of its rotation likewise',
        'rad/s³', 0.0, 10000.0, live=True)
    max_joint_jerk_rad_s3: float = parameter(
        0.0, 'jerk of each joint likewise',
        'rad/s³', 0.0, 10000.0, live=True)
    max_lead_s: float = parameter(
        0.5, 'a position or pose is refused that is farther from where the group is than it gets '
        'in this time at its greatest speed', 's', 0.001, 60.0)
    max_step_ratio: float = parameter(
        1.5, 'a delta larger than this times the largest in training is refused; so is a position '
        'so far from the one before', '', 0.1, 1000.0)
    workspace_m: tuple[float, ...] = parameter(
        (*[-math.inf] * 3, *[math.inf] * 3), 'box that the tool may not leave: x y z minima, then '
        'x y z maxima, in the base frame; where one of them is finite, ee_pose is needed', 'm')
    dead_man_timeout_s: float = parameter(
        0.0, 'the robot moves only while a true has come on the topic dead_man within this time; '
        '0: there is no dead-man switch', 's', 0.0, 10.0)
    blend_in_s: float = parameter(
        0.0, 'time over which the first commands of an episode grow to their size', 's', 0.0, 60.0)
    hold_ramp_s: float = parameter(
        0.0, 'time in which velocities fall to zero where the robot holds, for a controller that '
        'refuses a step; 0: at once', 's', 0.0, 1.0)
    servo_rate_hz: float = parameter(
        50.0, 'rate of ~/delta_twist_cmds; 0: not published', 'Hz', 0.0, 1000.0)
    operator_twist: str = parameter(
        'TwistStamped', "type of an operator's velocities; both in m/s and rad/s",
        choices=('TwistStamped', 'Twist'))
    operator_command_s: float = parameter(
        0.2, "how long an operator's command counts without the next one; then the robot holds",
        's', 0.01, 10.0)
    operator_release_s: float = parameter(
        0.0, 'silence of the operator after which the policy acts again; 0: not before ~/release '
        'is called', 's', 0.0, 3600.0)
    operator_memory: str = parameter(
        'follow', "the policy's memory while an operator acts: it follows along, or it begins "
        'afresh when the policy gets the robot back', choices=('follow', 'restart'))
    operator_warn_s: float = parameter(
        60.0, 'an operator who keeps the robot for longer is warned of in the diagnostics', 's',
        0.0, 86400.0)
    release_blend_in_s: float = parameter(
        0.5, "time over which the policy's commands grow to their size after it got the robot "
        'back', 's', 0.0, 60.0)
    gripper_closed: float = parameter(
        0.0, 'what ~/gripper_command says for closed; larger than gripper_open for the other '
        'polarity')
    gripper_open: float = parameter(1.0, 'what ~/gripper_command says for open')
    gripper_initial: str = parameter(
        'unknown', 'what the gripper is when the node is configured; a hold before the first '
        'decision repeats it, or says nothing where it is unknown',
        choices=('unknown', 'open', 'closed'))
    gripper_hysteresis: float = parameter(
        0.1, "how far beyond the checkpoint's threshold the probability of open must be to move "
        'the gripper', '', 0.0, 0.5)
    gripper_min_hold_s: float = parameter(
        0.3, 'least time between two movements of the gripper', 's', 0.0, 60.0)
    gripper_action: str = parameter(
        '', 'also send a goal to the action gripper_cmd at every edge (needs control_msgs); '
        'empty: no action', choices=('', 'GripperCommand', 'ParallelGripperCommand'))
    gripper_max_effort: float = parameter(
        0.0, "effort of the action's goal; 0: the driver's", 'N', 0.0, 1000.0)
    gripper_joint: str = parameter('finger_joint', 'joint that ParallelGripperCommand names')


def has_workspace(settings: Settings) -> bool:
    """Return whether the tool is kept in a box."""
    return any(math.isfinite(bound) for bound in settings.workspace_m)


class Parameters(Declared[Settings]):
    """The parameters of the policy node, most of which are fixed while it is configured."""

    def __init__(self, node: Node) -> None:
        """Declare every parameter."""
        self._is_configured = False
        super().__init__(node, Settings, {'workspace_m': _wrong_box, 'cameras': _wrong_cameras})

    def is_changeable(self, row: Field[Any]) -> str:
        """Return why a parameter cannot be set now, or nothing."""
        if self._is_configured and not row.metadata['live']:
            return (f'{row.name} is read when the node is configured: deactivate and clean up '
                    'first')
        return ''

    def further_rows(self) -> Mapping[str, Field[Any]]:
        """Return the rows of the streams and groups that parameters were given for."""
        found = filter(None, map(family_and_name, self._node._parameter_overrides))
        return {name: row for known in found for name, row in rows_of(*known).items()}

    def named(self, table: type[T], names: Iterable[str]) -> dict[str, T]:
        """
        Return the parameters of one family by name, declared where they were not.

        :param table: of the family.
        :raises ParameterError: naming each that cannot be used.
        """
        family = next(family for family, known in FAMILIES.items() if known is table)
        names = tuple(names)
        for name in names:
            self.add(rows_of(family, name))
        self.read()
        return {name: self.values(table, f'{family}.{name}.') for name in names}

    def unused_names(self, family: str, used: Iterable[str]) -> list[str]:
        """Return a line for each name that parameters are given for, and that is not used."""
        used = tuple(used)
        given = dict.fromkeys(found[1] for found in map(
            family_and_name, self._node._parameter_overrides) if found and found[0] == family)
        return [f'{family}.{name} is given, and the checkpoint uses none of that name; it uses '
                f'{", ".join(used) or "none at all"}' for name in given if name not in used]

    def unused_overrides(self) -> list[str]:
        """Return a line for each QoS override that no subscription of the node takes."""
        known = list(self._node.get_parameters_by_prefix('qos_overrides'))
        return [f'there is no subscription for {name!r}; known: qos_overrides.'
                + ', qos_overrides.'.join(known)
                for name in self._node._parameter_overrides
                if name.startswith('qos_overrides.') and not self._node.has_parameter(name)]

    def lock(self, is_configured: bool) -> None:
        """Refuse changes of what is read in configure only, or allow them again."""
        self._is_configured = is_configured


def table() -> str:
    """Return the parameters as a Markdown table."""
    lines = ['| parameter | default | unit | range | meaning |', '|---|---|---|---|---|']
    named = [row for family in FAMILIES for row in rows_of(family, 'NAME').values()]
    for f in (*fields(Settings), *named):
        data = f.metadata
        bounds = ', '.join(f'`{c!r}`' for c in data['choices'])
        if data['low'] is not None:
            bounds = f'{data["low"]:g} to {data["high"]:g}'
        when = ' *(read only)*' if data['read_only'] else ' *(live)*' if data['live'] else ''
        lines.append(f'| `{f.name}` | `{declared.plain(f.default)!r}` | {data["unit"]} | {bounds} '
                     f'| {data["text"]}{when} |')
    return '\n'.join(lines)


def _wrong_box(value: Sequence[float]) -> str:
    if len(value) == 6 and all(low < high for low, high in zip(value[:3], value[3:])):
        return ''
    return (f'workspace_m is {list(value)}; expected x y z minima, then larger x y z maxima, '
            'in m')


def _wrong_cameras(names: Sequence[str]) -> str:
    if not names or len(set(names)) < len(names):
        return f'cameras is {list(names)}; expected at least one name, and each once'
    try:
        for name in names:
            check_name('camera', name)
    except ValueError as error:
        return f'cameras: {error}'
    return ''


if __name__ == '__main__':
    print(table())

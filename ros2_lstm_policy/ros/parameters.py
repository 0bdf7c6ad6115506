"""
The policy node's parameters: one table, which declares, checks, reads and documents them.

What a policy is (window, frames, units, statistics) lives in its checkpoint. These are what the
person decides who deploys it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, Field, field, fields
import difflib
import math
from typing import Any

from rcl_interfaces.msg import (FloatingPointRange, IntegerRange, ParameterDescriptor,
                                SetParametersResult)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros2_lstm_policy.types import CAMERAS


class ParameterError(ValueError):
    """Parameters that the node cannot be configured with."""


def _parameter(default: Any, text: str, unit: str = '', low: float | None = None,
               high: float | None = None, choices: Sequence[str] = (), live: bool = False,
               read_only: bool = False) -> Any:
    """
    Describe one parameter.

    :param live: takes effect at once; others do when the node is configured.
    :param read_only: can be given at the start only.
    """
    return field(default=default, metadata={
        'text': text, 'unit': unit, 'low': low, 'high': high, 'choices': tuple(choices),
        'live': live, 'read_only': read_only})


@dataclass(frozen=True)
class Settings:
    """The values of all parameters; the table of them, too."""

    checkpoint: str = _parameter('', 'directory of the checkpoint')
    device: str = _parameter('cpu', 'where the policy runs: cpu, cuda, cuda:1')
    threads: int = _parameter(
        1, 'threads that one operation of the policy may use on the CPU', low=1, high=64)
    precision: str = _parameter(
        'fp32', 'of the backbone; bf16 is for a GPU', choices=('fp32', 'bf16'))
    execute: str = _parameter(
        'first', "which action of which chunk is due: 'first' of each, 'chunk:N' actions of one "
        "before the next, or 'ensemble' of all")
    autostart: bool = _parameter(False, 'configure and activate by itself', read_only=True)
    cameras: tuple[str, ...] = _parameter(
        CAMERAS, 'the cameras that this robot has; a checkpoint that needs another one is refused')
    compressed: bool = _parameter(False, 'subscribe to CompressedImage on the image topics')
    trigger: str = _parameter(
        'timer', 'what begins a tick: the timer, or a set of camera frames of one stamp, at most '
        'one a period (synchronised cameras, lock-step simulation)', choices=('timer', 'frames'))
    control_rate_hz: float = _parameter(
        0.0, "ticks a second; 0 takes the checkpoint's, another value than its is refused",
        'Hz', 0.0, 1000.0)
    max_image_age_s: float = _parameter(
        0.2, 'greatest age of an image that is acted on', 's', 0.001, 60.0)
    max_skew_s: float = _parameter(
        0.05, 'greatest distance between the stamps of the cameras', 's', 0.0, 60.0)
    max_gap_s: float = _parameter(
        1.0, 'after a longer time without an observation the history begins afresh', 's',
        0.001, 60.0)
    deadline_s: float = _parameter(
        0.3, 'greatest age of an observation when its command goes out', 's', 0.001, 60.0,
        live=True)
    instruction: str = _parameter('', 'the first instruction; empty: wait for the topic')
    new_instruction_resets: bool = _parameter(True, 'another instruction begins a new episode')
    shadow: bool = _parameter(False, 'compute and show everything, command nothing', live=True)
    arm_frame: str = _parameter(
        '', "axes that the robot's controller takes deltas in; a checkpoint with others is "
        'refused; empty: any', choices=('', 'base', 'tool'))
    base_frame_id: str = _parameter('base_link', 'frame_id of commands in base axes')
    tool_frame_id: str = _parameter('tool0', 'frame_id of commands in tool axes')
    max_linear_speed_m_s: float = _parameter(
        0.4, 'faster commands are slowed to this', 'm/s', 0.001, 10.0, live=True)
    max_angular_speed_rad_s: float = _parameter(
        0.8, 'faster commands are slowed to this', 'rad/s', 0.001, 20.0, live=True)
    max_step_ratio: float = _parameter(
        1.5, 'a delta larger than this times the largest in training is refused', '', 0.1, 1000.0)
    workspace_m: tuple[float, ...] = _parameter(
        (*[-math.inf] * 3, *[math.inf] * 3), 'box that the tool may not leave: x y z minima, then '
        'x y z maxima, in the base frame; where one of them is finite, ee_pose is needed', 'm')
    blend_in_s: float = _parameter(
        0.0, 'time over which the first commands of an episode grow to their size', 's', 0.0, 60.0)
    servo_rate_hz: float = _parameter(
        50.0, 'rate of ~/delta_twist_cmds; 0: not published', 'Hz', 0.0, 1000.0)
    gripper_closed: float = _parameter(
        0.0, 'what ~/gripper_command says for closed; larger than gripper_open for the other '
        'polarity')
    gripper_open: float = _parameter(1.0, 'what ~/gripper_command says for open')
    gripper_initial: str = _parameter(
        'unknown', 'what the gripper is when the node is configured; a hold before the first '
        'decision repeats it, or says nothing where it is unknown',
        choices=('unknown', 'open', 'closed'))
    gripper_hysteresis: float = _parameter(
        0.1, "how far beyond the checkpoint's threshold the probability of open must be to move "
        'the gripper', '', 0.0, 0.5)
    gripper_min_hold_s: float = _parameter(
        0.3, 'least time between two movements of the gripper', 's', 0.0, 60.0)
    gripper_action: str = _parameter(
        '', 'also send a goal to the action gripper_cmd at every edge (needs control_msgs); '
        'empty: no action', choices=('', 'GripperCommand', 'ParallelGripperCommand'))
    gripper_max_effort: float = _parameter(
        0.0, "effort of the action's goal; 0: the driver's", 'N', 0.0, 1000.0)
    gripper_joint: str = _parameter('finger_joint', 'joint that ParallelGripperCommand names')


def has_workspace(settings: Settings) -> bool:
    """Return whether the tool is kept in a box."""
    return any(math.isfinite(bound) for bound in settings.workspace_m)


class Parameters:
    """
    The parameters of a node: declared, and kept within their bounds.

    A value from the command line or a file that cannot be taken is no reason to die: it is kept
    in `problems`, and :meth:`read` refuses until the parameter has been set again.
    """

    def __init__(self, node: Node) -> None:
        """Declare every parameter."""
        self._node = node
        self.problems: dict[str, str] = {}
        for parameter in fields(Settings):
            self._declare(parameter)
        self.unknown = _unknown_overrides(node)
        self._is_configured = False
        node.add_on_set_parameters_callback(self._check_new_values)

    def read(self) -> Settings:
        """Return all values. :raises ParameterError: naming each that cannot be used."""
        if self.problems:
            raise ParameterError('; '.join(self.problems.values()))
        values = {f.name: self._node.get_parameter(f.name).value for f in fields(Settings)}
        for f in fields(Settings):
            if isinstance(f.default, tuple):
                values[f.name] = tuple(values[f.name])
        return Settings(**values)

    def lock(self, is_configured: bool) -> None:
        """Refuse changes of what is read in configure only, or allow them again."""
        self._is_configured = is_configured

    def _declare(self, parameter: Field[Any]) -> None:
        default, descriptor = _plain(parameter.default), _descriptor(parameter)
        try:
            value = self._node.declare_parameter(parameter.name, default, descriptor).value
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            self._node.declare_parameter(parameter.name, default, descriptor, ignore_override=True)
            hint = f'; write {default}' if isinstance(parameter.default, float) else ''
            self.problems[parameter.name] = f'{error}{hint if "type" in str(error) else ""}'
        else:
            problem = _problem(parameter, value)
            if problem:
                self.problems[parameter.name] = problem

    def _check_new_values(self, parameters: list[Parameter]) -> SetParametersResult:
        table = {f.name: f for f in fields(Settings)}
        for parameter in parameters:
            row = table.get(parameter.name)
            if row is None:
                continue
            problem = _problem(row, parameter.value)
            if not problem and self._is_configured and not row.metadata['live']:
                problem = (f'{parameter.name} is read when the node is configured: deactivate '
                           'and clean up first')
            if problem:
                return SetParametersResult(successful=False, reason=problem)
            self.problems.pop(parameter.name, None)
        return SetParametersResult(successful=True)


def table() -> str:
    """Return the parameters as a Markdown table."""
    lines = ['| parameter | default | unit | range | meaning |', '|---|---|---|---|---|']
    for f in fields(Settings):
        data = f.metadata
        bounds = ', '.join(f'`{c!r}`' for c in data['choices'])
        if data['low'] is not None:
            bounds = f'{data["low"]:g} to {data["high"]:g}'
        when = ' *(read only)*' if data['read_only'] else ' *(live)*' if data['live'] else ''
        lines.append(f'| `{f.name}` | `{_plain(f.default)!r}` | {data["unit"]} | {bounds} '
                     f'| {data["text"]}{when} |')
    return '\n'.join(lines)


def _descriptor(parameter: Field[Any]) -> ParameterDescriptor:
    data = parameter.metadata
    unit = f' [{data["unit"]}]' if data['unit'] else ''
    descriptor = ParameterDescriptor(description=data['text'] + unit, read_only=data['read_only'])
    if data['choices']:
        descriptor.additional_constraints = 'one of ' + ', '.join(map(repr, data['choices']))
    if isinstance(parameter.default, float) and data['low'] is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=data['low'], to_value=data['high'])]
    elif data['low'] is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=data['low'], to_value=data['high'], step=1)]
    return descriptor


def _problem(parameter: Field[Any], value: Any) -> str:
    """Return what is wrong with a value beyond type and range, or nothing."""
    choices = parameter.metadata['choices']
    if choices and value not in choices:
        return f'{parameter.name} is {value!r}; expected one of {", ".join(map(repr, choices))}'
    if parameter.name == 'workspace_m' and not _is_box(value):
        return (f'workspace_m is {list(value)}; expected x y z minima, then larger x y z maxima, '
                'in m')
    if parameter.name == 'cameras':
        unknown = [name for name in value if name not in CAMERAS]
        if unknown or not value:
            return f'cameras is {list(value)}; expected some of {", ".join(CAMERAS)}'
    return ''


def _plain(default: Any) -> Any:
    return list(default) if isinstance(default, tuple) else default


def _is_box(value: Sequence[float]) -> bool:
    return len(value) == 6 and all(low < high for low, high in zip(value[:3], value[3:]))


def _unknown_overrides(node: Node) -> list[str]:
    """Return a line for each given parameter that the node does not have: a typing error."""
    known = [f.name for f in fields(Settings)]
    lines = []
    for name in node._parameter_overrides:
        if node.has_parameter(name) or name.startswith('qos_overrides.'):
            continue
        near = difflib.get_close_matches(name, known, 1)
        hint = f'; did you mean {near[0]}?' if near else ''
        lines.append(f'there is no parameter {name!r}{hint}')
    return lines


if __name__ == '__main__':
    print(table())

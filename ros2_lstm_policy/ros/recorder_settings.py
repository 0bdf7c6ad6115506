"""The recorder's parameters: declared with range and description, read when an episode begins."""

from __future__ import annotations

from dataclasses import dataclass, Field, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros2_lstm_policy.types import CAMERAS


def _parameter(default: Any, text: str, low: float | None = None, high: float | None = None,
               choices: tuple[str, ...] = (), read_only: bool = False) -> Any:
    return field(default=default, metadata={'text': text, 'low': low, 'high': high,
                                            'choices': choices, 'read_only': read_only})


@dataclass(frozen=True)
class RecorderSettings:
    """The values of all parameters; the table of them, too."""

    directory: str = _parameter('recordings', 'folder of the bags', read_only=True)
    prefix: str = _parameter('episode', 'first part of the names of the bags')
    cameras: tuple[str, ...] = _parameter(CAMERAS, 'the cameras to record', read_only=True)
    compressed: bool = _parameter(False, 'the image topics carry CompressedImage',
                                  read_only=True)
    automatic: bool = _parameter(False, 'an instruction begins an episode, a message on '
                                 'episode/success labels and ends it')
    instruction: str = _parameter('', 'words of the next episodes; empty: from the topic')
    actor: str = _parameter('operator', 'who acts; for a policy its fingerprint is taken from '
                            '/diagnostics', choices=('operator', 'policy', 'expert'))
    policy: str = _parameter('policy', 'name of the policy node whose fingerprint is recorded')
    arm: str = _parameter('displacement', 'what arm_delta carries: m and rad for one control '
                          'period, or m/s and rad/s', choices=('displacement', 'velocity'))
    stamps: str = _parameter('auto', "what an action's stamp is: that of the observation it "
                             'answers, or the time of sending; auto: by the actor',
                             choices=('auto', 'observation', 'now'))
    frame: str = _parameter('base', 'axes of the deltas', choices=('base', 'tool'))
    rotation: str = _parameter('rotation_vector', 'convention of their rotations',
                               choices=('rotation_vector', 'euler_xyz'))
    control_period_s: float = _parameter(0.1, 'time that one action covers [s]', 0.001, 10.0)
    gripper_closed: float = _parameter(0.0, 'what gripper_command says for closed')
    gripper_open: float = _parameter(1.0, 'what gripper_command says for open')
    source: str = _parameter('', 'what the robot is, in words, for the bag')
    queue_mb: float = _parameter(256.0, 'memory for messages that wait for the disk [MB]',
                                 1.0, 1e5)
    min_free_mb: float = _parameter(500.0, 'an episode ends when the disk has less than this '
                                    '[MB]', 0.0, 1e7)


class RecorderParameters:
    """The parameters of a node."""

    def __init__(self, node: Node) -> None:
        """Declare every parameter."""
        self._node = node
        for parameter in fields(RecorderSettings):
            node.declare_parameter(
                parameter.name, list(parameter.default) if isinstance(parameter.default, tuple)
                else parameter.default, _descriptor(parameter))
        node.add_on_set_parameters_callback(_check)
        refused = _check([Parameter(f.name, value=getattr(self.read(), f.name))
                          for f in fields(RecorderSettings) if f.metadata['choices']])
        if not refused.successful:
            raise ValueError(refused.reason)

    def read(self) -> RecorderSettings:
        """Return all values."""
        values = {f.name: self._node.get_parameter(f.name).value for f in fields(RecorderSettings)}
        return RecorderSettings(**values | {'cameras': tuple(values['cameras'])})


def _check(parameters: list[Parameter]) -> SetParametersResult:
    choices = {f.name: f.metadata['choices'] for f in fields(RecorderSettings)}
    for parameter in parameters:
        allowed = choices.get(parameter.name)
        if allowed and parameter.value not in allowed:
            return SetParametersResult(successful=False, reason=(
                f'{parameter.name}: expected one of {", ".join(allowed)}, found '
                f'{parameter.value!r}'))
    return SetParametersResult(successful=True)


def _descriptor(parameter: Field[Any]) -> ParameterDescriptor:
    data = parameter.metadata
    descriptor = ParameterDescriptor(description=data['text'], read_only=data['read_only'],
                                     additional_constraints=' | '.join(data['choices']))
    if data['low'] is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=data['low'], to_value=data['high'])]
    return descriptor

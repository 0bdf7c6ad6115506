"""The simulated robot's parameters: declared with range and description, checked when set."""

from __future__ import annotations

from dataclasses import dataclass, Field, field, fields
from typing import Any

from rcl_interfaces.msg import (FloatingPointRange, IntegerRange, ParameterDescriptor,
                                SetParametersResult)
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros2_lstm_policy.sim import tasks
from ros2_lstm_policy.sim.tasks import SimEpisode


def _parameter(default: Any, text: str, low: float | None = None, high: float | None = None,
               read_only: bool = False) -> Any:
    return field(default=default, metadata={
        'text': text, 'low': low, 'high': high, 'read_only': read_only})


@dataclass(frozen=True)
class SimSettings:
    """The values of all parameters; the table of them, too."""

    task: str = _parameter('living_room_scene2/butter', 'what ~/reset begins: a short name or '
                           'suite/index of a LIBERO task')
    seed: int = _parameter(0, 'of the next reset', 0, 2**31 - 1)
    official_state: int = _parameter(-1, "begin from this one of the task's official initial "
                                     'states; -1: from the seed', -1, 1000)
    instruction: str = _parameter('', "words published instead of the task's own; success is "
                                  "still the task's")
    max_steps: int = _parameter(150, 'control periods after which an episode has failed; 0: it '
                                'goes on until a reset, after a success too', 0, 1_000_000)
    autostart: bool = _parameter(True, 'begin the first episode without ~/reset', read_only=True)
    lock_step: bool = _parameter(True, 'wait for the answer to each observation and publish '
                                 '/clock; false: real time, 10 Hz', read_only=True)
    expert: bool = _parameter(False, 'the scripted expert acts, as a second node of this process',
                              read_only=True)
    image_height: int = _parameter(256, 'pixels of both cameras', 16, 1080, read_only=True)
    image_width: int = _parameter(256, 'pixels of both cameras', 16, 1920, read_only=True)
    command_timeout_s: float = _parameter(0.3, 'real time: the greatest age of the observation '
                                          'that a command answers [s]', 0.01, 60.0)


class SimParameters:
    """The parameters of a node."""

    def __init__(self, node: Node) -> None:
        """
        Declare every parameter.

        :raises ValueError: for a task that does not exist, with those that do.
        """
        self._node = node
        for parameter in fields(SimSettings):
            node.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))
        tasks.find(self.read().task)
        node.add_on_set_parameters_callback(_check_new_values)

    def read(self) -> SimSettings:
        """Return all values."""
        return SimSettings(**{f.name: self._node.get_parameter(f.name).value
                              for f in fields(SimSettings)})


def episode(settings: SimSettings) -> SimEpisode:
    """Return the episode that the parameters name."""
    official = settings.official_state if settings.official_state >= 0 else None
    return tasks.episode(tasks.find(settings.task), settings.seed, official)


def _check_new_values(parameters: list[Parameter]) -> SetParametersResult:
    for parameter in parameters:
        if parameter.name == 'task':
            try:
                tasks.find(parameter.value)
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _descriptor(parameter: Field[Any]) -> ParameterDescriptor:
    data = parameter.metadata
    descriptor = ParameterDescriptor(description=data['text'], read_only=data['read_only'])
    if isinstance(parameter.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=data['low'], to_value=data['high'])]
    elif data['low'] is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=data['low'], to_value=data['high'], step=1)]
    return descriptor

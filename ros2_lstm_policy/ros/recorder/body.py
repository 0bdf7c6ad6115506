"""
The body that the recorder records: the streams of a manifest, each from a topic of the robot.

They are given as `streams.NAME.topic` and so on, NAME being a state or a group of actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace
import importlib
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from ros2_lstm_policy.data.body import Streams
from ros2_lstm_policy.data.episodes import Reading, Wanted
from ros2_lstm_policy.data.manifest_config import read_manifest
from ros2_lstm_policy.data.rosbag.format import RecordedAction, RecordedBody
from ros2_lstm_policy.data.rosbag.values import command_stream
from ros2_lstm_policy.manifest import ActionGroup, Manifest, StateSpec
from ros2_lstm_policy.ros.declared import parameter, ParameterError, plain, problem
from ros2_lstm_policy.ros.named_parameters import stream_config, StreamSettings
from ros2_lstm_policy.streams import stream_of, StreamConfig, USUAL


@dataclass(frozen=True)
class RecordedSettings(StreamSettings):
    """Where a state, or the commands of a group, come from."""

    state: str = parameter('', 'of a group: the state that is its action one period later, where '
                           'nothing commands it')


@dataclass(frozen=True)
class RecorderBody:
    """
    What is recorded beside the deltas of one arm and a gripper.

    :param states: where each state comes from on the robot.
    :param sources: where the values of each group come from; none for `arm_delta` and
        `gripper_command`.
    """

    manifest: Manifest
    states: Mapping[str, StreamConfig] = field(default_factory=dict)
    sources: Mapping[str, RecordedAction] = field(default_factory=dict)

    def in_bag(self) -> dict[tuple[str, str], str]:
        """Return the topic in the bag, without its slash, by topic and type on the robot."""
        found: dict[tuple[str, str], str] = {}
        for name, stream in self.states.items():
            usual = USUAL.get(name)
            found.setdefault((stream.topic, stream.msgtype), usual.topic if usual is not None
                             and usual.msgtype == stream.msgtype else f'states/{name}')
        for name, stream in self.commands.items():
            found.setdefault((stream.topic, stream.msgtype), f'commands/{name}')
        return found

    @property
    def commands(self) -> dict[str, StreamConfig]:
        """Return where commands come from, by the name of their group."""
        return {name: action.command for name, action in self.sources.items() if action.command}

    def recorded(self) -> RecordedBody:
        """Return what the bag says of itself."""
        topics = self.in_bag()

        def moved(stream: StreamConfig) -> StreamConfig:
            return replace(stream, topic=topics[stream.topic, stream.msgtype])
        streams = Streams.of(Reading(None, self.manifest.actions,  # type: ignore[arg-type]
                                     self.manifest.states))
        return RecordedBody(
            tuple(camera.name for camera in self.manifest.cameras),
            streams.actions if self.sources else (), streams.states,
            {name: action if action.command is None else
             replace(action, command=moved(action.command))
             for name, action in self.sources.items()},
            {name: moved(stream) for name, stream in self.states.items()})


def declared_body(node: Node) -> RecorderBody | None:
    """
    Declare the parameters of the streams of the manifest that the parameter `manifest` names.

    :return: None where no manifest is given.
    :raises ParameterError: for a manifest or streams that cannot be recorded.
    """
    given = node._parameter_overrides.get('manifest')
    if given is None or not isinstance(given.value, str) or not given.value:
        return None
    try:
        manifest = read_manifest(Path(given.value).expanduser())
        names = [state.name for state in manifest.states]
        names += [group.name for group in manifest.actions]
        said = {name: _declared(node, name) for name in names}
        states = {state.name: _state_stream(state, said[state.name])
                  for state in manifest.states}
        sources = _sources(manifest, said, states)
        return RecorderBody(manifest, states, sources)
    except ParameterError:
        raise
    except ValueError as error:
        raise ParameterError(f'manifest: {error}') from error


def message_class(msgtype: str) -> Any:
    """Return the class of a type such as `std_msgs/msg/Float64`; :raises ParameterError:."""
    package, _, name = msgtype.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParameterError(f'{msgtype!r} is no type of messages that is installed here; '
                             'expected one such as sensor_msgs/msg/JointState') from error


def _declared(node: Node, name: str) -> RecordedSettings:
    values: dict[str, Any] = {}
    for row in map(copy, fields(RecordedSettings)):
        key, row.name = row.name, f'streams.{name}.{row.name}'
        if node.has_parameter(row.name):  # a state and a group of one name
            raise ParameterError(f'manifest: a state and a group are both called {name!r}; their '
                                 'streams cannot be told apart')
        given = node._parameter_overrides.get(row.name)
        if given is not None and (found := problem(row, given.value)):
            raise ParameterError(found)
        value = node.declare_parameter(row.name, plain(row.default), ParameterDescriptor(
            description=row.metadata['text'], read_only=True)).value
        values[key] = tuple(value) if isinstance(row.default, tuple) else value
    return RecordedSettings(**values)


def _stream(name: str, said: RecordedSettings, usual: StreamConfig,
            names: tuple[str, ...]) -> StreamConfig:
    stream = stream_config(name, said, names, usual)
    message_class(stream.msgtype)
    return stream


def _state_stream(state: StateSpec, said: RecordedSettings) -> StreamConfig:
    if said.state:
        raise ParameterError(f'streams.{state.name}.state: it is a state itself')
    return _stream(state.name, said, stream_of(state.name, {}), state.names)


def _sources(manifest: Manifest, said: Mapping[str, RecordedSettings],
             states: Mapping[str, StreamConfig]) -> dict[str, RecordedAction]:
    """Return where the actions come from; none where they are the usual ones of one arm."""
    groups = manifest.actions
    if Wanted.of(manifest).is_one_arm and not any(
            said[group.name] != RecordedSettings() for group in groups):
        return {}
    return {group.name: _source(group, said[group.name], states) for group in groups}


def _source(group: ActionGroup, said: RecordedSettings,
            states: Mapping[str, StreamConfig]) -> RecordedAction:
    if bool(said.state) == bool(said.topic):
        raise ParameterError(f'streams.{group.name}: expected either topic, where its commands '
                             'are, or state, the state that is its action one period later; '
                             f'found topic {said.topic!r} and state {said.state!r}')
    if said.state:
        if said.state not in states:
            raise ParameterError(f'streams.{group.name}.state is {said.state!r}; the manifest '
                                 f'has the states {", ".join(states) or "none"}')
        return RecordedAction(state=said.state)
    return RecordedAction(_stream(group.name, said, command_stream(group), group.names))

"""What there may be one of only: this node's name, who commands its robot, each camera, state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rclpy.node import Node
from ros2_lstm_policy.types import Reason

TWIN = 'twin'
_GHOSTS = 'one that was killed counts until DDS forgets it, up to 20 s'


class Exclusive:
    """
    Asks the graph, which costs some ten microseconds: at every tick.

    A second one of these is doubt, and doubt means hold: two nodes of one name are both told what
    one was told, two commanders or operators add up their motions, and two cameras on one topic
    take turns.

    :param node: whose name, commands and cameras they are.
    :param commands: the topics that it commands on, resolved.
    :param cameras: the topic of each camera, resolved.
    :param states: the topic of each state of the robot that comes from one device, resolved.
    :param operators: the topic on which an operator commands each group, resolved.
    """

    def __init__(self, node: Node, commands: Sequence[str] = (),
                 cameras: Mapping[str, str] | None = None,
                 states: Mapping[str, str] | None = None,
                 operators: Mapping[str, str] | None = None) -> None:
        """Ask nothing yet."""
        self._node, self._commands, self._cameras = node, tuple(commands), dict(cameras or {})
        self._states, self._operators = dict(states or {}), dict(operators or {})

    def doubts(self) -> tuple[Reason, ...]:
        """Return a reason for each that there is more than one of, as far as DDS knows by now."""
        found = [self._twins()]
        found += [self._second('second_commander', topic, 'commands of this node')
                  for topic in self._commands]
        found += [self._second('second_camera', topic, f'camera {camera}', camera)
                  for camera, topic in self._cameras.items()]
        found += [self._second('second_state', topic, f'state {state}', state)
                  for state, topic in self._states.items()]
        found += [self._second('second_operator', topic, f'an operator of {group}')
                  for group, topic in self._operators.items()]
        return tuple(reason for reason in found if reason is not None)

    def _twins(self) -> Reason | None:
        name = self._node.get_name(), self._node.get_namespace()
        count = self._node.get_node_names_and_namespaces().count(name)
        if count <= 1:
            return None
        return Reason(TWIN, f'{count} nodes are named {self._node.get_fully_qualified_name()}; '
                      f'end all but one, or give them other names or namespaces ({_GHOSTS})')

    def _second(self, code: str, topic: str, what: str, camera: str = '') -> Reason | None:
        count = self._node.count_publishers(topic)
        if count <= 1:
            return None
        who = sorted(f'{info.node_namespace.rstrip("/")}/{info.node_name}'
                     for info in self._node.get_publishers_info_by_topic(topic))
        return Reason(code, f'{topic} ({what}) has {count} publishers: {", ".join(who)}; one is '
                      f'wanted, remap the others or put a mux between ({_GHOSTS})', camera)

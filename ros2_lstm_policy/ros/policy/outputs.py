"""What the node says to the robot: all messages of a command are built, then all are published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
import time
from typing import Any

from nav_msgs.msg import Path
import numpy as np
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.lifecycle.publisher import LifecyclePublisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.policy.encoders import ENCODERS, gripper_positions, Messages, Target
from ros2_lstm_policy.ros.policy.gripper_action import GripperAction
from ros2_lstm_policy.ros.policy.parameters import Settings
from ros2_lstm_policy.runtime.safety import as_values, Pose, Present, ramp_down
from ros2_lstm_policy.types import Decision, Reason
from std_msgs.msg import String

# Servo's velocity is meant for one period; half a period of grace lets a late tick pass unnoticed.
SERVO_FULL_PERIODS, SERVO_ZERO_PERIODS = 1.5, 2.5
POLICY, OPERATOR, HOLD = 'policy', 'operator', 'hold'  # who acts, on ~/actor
_ACKNOWLEDGED_S = 0.3  # for each topic: a subscriber that hangs keeps nobody from leaving
_RAMP_STEP_S = 0.02
_NS = 1_000_000_000
_INITIAL: dict[str, float | None] = {'unknown': None, 'open': 1.0, 'closed': 0.0}


class _Channel:
    """
    One group's way out.

    :ivar told: what a gripper was told last; None where that is not known.
    :ivar moving: values of the last command that are repeated.
    :ivar slowed: the velocity that a hold began with, and when, where it falls by a ramp.
    :ivar held: where a group of positions stays; None where it is to be where it is then.
    """

    def __init__(self, target: Target, publisher: Callable[[Any, str], LifecyclePublisher],
                 action: GripperAction | None) -> None:
        self.target, self.group, self.action = target, target.group, action
        self._encoder = ENCODERS[self.group.kind]
        self.still = np.zeros(self.group.size)
        self.moving = self.still
        self.held: np.ndarray | None = None
        self.slowed: tuple[np.ndarray, int] = self.still, 0
        self.told: np.ndarray | None = None
        if self.is_gripper and (opening := _INITIAL[target.settings.gripper_initial]) is not None:
            self.told = np.full(self.group.size, opening)
        repeat = self._encoder.repeat if target.settings.servo_rate_hz > 0 else None
        self._repeat: Messages | None = repeat
        kinds = self._encoder.command(target, 0, self.still)
        kinds |= repeat(target, 0, self.still) if repeat is not None else {}
        self.publishers = {topic: publisher(type(message), topic)
                           for topic, message in kinds.items()}
        self.chunk = (None if self._encoder.path is None
                      else publisher(Path, target.topic('action_chunk')))

    @property
    def is_gripper(self) -> bool:
        return self.group.kind == 'gripper'

    def changes(self, values: np.ndarray) -> bool:
        return self.told is None or not np.array_equal(values, self.told)

    def messages(self, stamp_ns: int, values: np.ndarray) -> list[tuple[LifecyclePublisher, Any]]:
        found = self._encoder.command(self.target, stamp_ns, values)
        return [(self.publishers[topic], message) for topic, message in found.items()]

    def holding(self, where: Callable[[], Mapping[str, Present]]) -> np.ndarray | Reason | None:
        """Return the values of a hold: none for a gripper that was never told anything."""
        if self.is_gripper:
            return self.told
        if not self.group.meaning.is_absolute:
            return self.slowing() if self.group.kind == 'joint_velocity' else self.still
        if self.held is None:
            now = where().get(self.group.name)
            if now is None or isinstance(now, Reason):
                return now or Reason('no_present', 'nobody says it')
            self.held = as_values(now)
        return self.held

    def begin_hold(self, left: float) -> None:
        """Have the velocity fall to zero from here on, with `left` of the command still in it."""
        if self.moving is not self.still:
            self.slowed = self.moving * left, time.monotonic_ns()
        self.moving = self.still

    def slowing(self) -> np.ndarray:
        """Return what is left of the velocity that the hold began with."""
        values, begun_ns = self.slowed
        ramp_s = self.target.settings.hold_ramp_s
        if ramp_s <= 0:
            return self.still
        return values * ramp_down((time.monotonic_ns() - begun_ns) / _NS, 0.0, ramp_s)

    def repeat(self, now_ns: int, left: float) -> None:
        if self._repeat is not None:
            values = self.slowing() if self.moving is self.still else self.moving * left
            for topic, message in self._repeat(self.target, now_ns, values).items():
                self.publishers[topic].publish(message)

    def show(self, stamp_ns: int, chunk: np.ndarray, start: Pose | None) -> None:
        if self.chunk is not None and self.chunk.get_subscription_count() > 0:
            assert self._encoder.path is not None
            self.chunk.publish(self._encoder.path(self.target, stamp_ns, chunk, start))


class Outputs:
    """
    The node's publishers; whoever calls holds the worker's lock.

    Whatever ends motion goes through :meth:`hold`, which tells every group to stay.

    :param targets: where the groups' commands go, in the manifest's order.
    """

    def __init__(self, node: LifecycleNode, settings: Settings,
                 targets: Sequence[Target]) -> None:
        """
        Create the publishers.

        :raises ParameterError: for two groups on one topic.
        """
        self._node, self._settings = node, settings
        self.is_shadow = settings.shadow
        self._commanded_ns = 0
        # What can be refused comes first: publishers that stay behind would be second commanders.
        actions = [GripperAction.of(node, target) for target in targets]
        self._channels = [_Channel(target, self._publisher, action)
                          for target, action in zip(targets, actions)]
        self._actor = self._publisher(String, '~/actor')
        # Grippers first: who waits for an arm's command has the gripper's then.
        self._in_order = sorted(self._channels, key=lambda channel: not channel.is_gripper)
        twice = [topic for topic, count in Counter(self.topics).items() if count > 1]
        if twice:
            self.close()
            raise ParameterError(f'two groups of actions would command on {", ".join(twice)}; '
                                 'remap the topic of one of them')

    @property
    def topics(self) -> list[str]:
        """Return the topics of commands, as they were resolved."""
        return [publisher.topic_name for channel in self._channels
                for publisher in channel.publishers.values()]

    def close(self) -> None:
        """Destroy the publishers, once their last messages have come to those who listen."""
        for channel in self._in_order:
            for publisher in channel.publishers.values():
                publisher.wait_for_all_acked(Duration(seconds=_ACKNOWLEDGED_S))
        for channel in self._channels:
            for publisher in filter(None, (*channel.publishers.values(), channel.chunk)):
                self._node.destroy_lifecycle_publisher(publisher)
            if channel.action is not None:
                channel.action.close()
        self._node.destroy_lifecycle_publisher(self._actor)

    def command(self, stamp_ns: int, values: Mapping[str, np.ndarray], actor: str = POLICY,
                where: Callable[[], Mapping[str, Present]] = dict) -> None:
        """
        Command one control period.

        :param stamp_ns: of the observation that this answers.
        :param values: by group, in physical units; 0 or 1 of binary groups. A group without any
            stays as it is, or is sent nothing where that is not known.
        :param actor: who commands it.
        :param where: tells where the groups are now.
        """
        if self.is_shadow:
            return
        built = [(self._actor, String(data=actor))]
        for channel in self._in_order:
            name = channel.group.name
            due = values[name] if name in values else channel.holding(where)
            if isinstance(due, np.ndarray):
                built += channel.messages(stamp_ns, due)
        edges = [channel for channel in self._channels
                 if channel.is_gripper and channel.group.name in values
                 and channel.changes(values[channel.group.name])]
        for channel in self._channels:
            given = values.get(channel.group.name)
            if given is None:
                channel.moving = channel.still
                continue
            channel.moving, channel.held = given, None
            channel.told = given if channel.is_gripper else None
        self._commanded_ns = time.monotonic_ns()
        for publisher, message in built:
            publisher.publish(message)
        for channel in edges:
            if channel.action is not None and channel.told is not None:
                channel.action.send(float(gripper_positions(self._settings, channel.told)[0]))

    def hold(self, stamp_ns: int,
             where: Callable[[], Mapping[str, Present]]) -> list[Reason]:
        """
        Command no motion, on every topic at once, and the grippers to stay as they are.

        Deltas and velocities are zero, positions those where the group was when it began to hold.
        The velocity does not wait for its next repetition: after a last hold there is none. One
        group that cannot be told keeps none of the others from it.

        :param stamp_ns: of the observation that this answers; now where there is none.
        :param where: tells where the groups are now.
        :return: why some groups were sent nothing.
        """
        if self.is_shadow:
            return []
        unknown, errors = [], []
        self._actor.publish(String(data=HOLD))
        for channel in self._in_order:
            channel.begin_hold(self._left(channel))
            try:
                values = channel.holding(where)
                if isinstance(values, Reason):
                    unknown.append(Reason(
                        'hold_unknown', f'{channel.group.name}: nothing is sent to it, as nobody '
                        f'knows where it is ({values.text})', values.camera))
                elif values is not None:
                    for publisher, message in channel.messages(stamp_ns, values):
                        publisher.publish(message)
                channel.repeat(self._now_ns(), 1.0)
            except Exception as error:  # the others are told first, then it is said
                errors.append(error)
        if errors:
            raise errors[0]
        return unknown

    def set_shadow(self, is_shadow: bool) -> None:
        """
        Stop publishing commands, or begin to.

        Whoever moves the robot meanwhile moves the grippers, too: what they are, is unknown then.
        """
        if is_shadow and not self.is_shadow:
            for channel in self._channels:
                channel.told = None
        self.is_shadow = is_shadow
        self.forget_places()

    def forget_places(self) -> None:
        """Hold from here on where the groups are then: somebody may have moved them."""
        for channel in self._channels:
            channel.held = None

    def steer(self, values: Mapping[str, np.ndarray]) -> None:
        """Publish the velocities of these commands at once; other groups stand still."""
        for channel in self._channels:
            channel.moving = values.get(channel.group.name, channel.still)
        self._commanded_ns = time.monotonic_ns()
        self.servo()

    def servo(self) -> None:
        """Repeat the last commands as velocities, stamped now, less of them the older they are."""
        if self.is_shadow:
            return
        now_ns = self._now_ns()
        for channel in self._channels:
            channel.repeat(now_ns, self._left(channel))

    def end_ramps(self) -> None:
        """Wait until what falls by a ramp is zero, and say so: nobody repeats it from here on."""
        ramping = [channel for channel in self._channels if channel.slowing().any()]
        while any(channel.slowing().any() for channel in ramping):
            self._tell_velocities(ramping)
            time.sleep(_RAMP_STEP_S)
        self._tell_velocities(ramping)

    def _tell_velocities(self, channels: Sequence[_Channel]) -> None:
        if self.is_shadow:
            return
        for channel in channels:
            channel.repeat(self._now_ns(), 1.0)
            if channel.group.kind == 'joint_velocity':
                for publisher, message in channel.messages(self._now_ns(), channel.slowing()):
                    publisher.publish(message)

    def _left(self, channel: _Channel) -> float:
        """Return how much of the last command is still meant: less the older it is."""
        age_s, period_s = (time.monotonic_ns() - self._commanded_ns) / _NS, channel.target.period_s
        return ramp_down(age_s, SERVO_FULL_PERIODS * period_s, SERVO_ZERO_PERIODS * period_s)

    def intention(self, stamp_ns: int, decision: Decision, present: Mapping[str, Present]) -> None:
        """Show the whole chunk of each arm, where somebody looks."""
        begin = 0
        for channel in self._channels:
            end, start = begin + channel.group.size, present.get(channel.group.name)
            channel.show(stamp_ns, decision.chunk[:, begin:end],
                         start if isinstance(start, Pose) else None)
            begin = end

    def _publisher(self, kind: Any, topic: str) -> LifecyclePublisher:
        return self._node.create_lifecycle_publisher(
            kind, topic, QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies())

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

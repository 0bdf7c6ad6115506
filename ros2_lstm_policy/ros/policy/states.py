"""What the node hears of the robot itself: the policy's states, and where its groups are now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
import importlib
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
import numpy as np
from rclpy.qos import qos_profile_sensor_data, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from ros2_lstm_policy.resample import StreamSampler
from ros2_lstm_policy.ros.conversions import pose_from_message
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.diagnostics import Rate
from ros2_lstm_policy.runtime.safety import Pose
from ros2_lstm_policy.streams import decode, StreamConfig, StreamError, time_ns
from ros2_lstm_policy.types import Reason

_NS = 1_000_000_000
POSE = 'geometry_msgs/msg/PoseStamped'
# States come fast. One that is lost would be another than a recording has at that moment.
_QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)

Subscribe = Callable[[type, str, Callable[..., None], QoSProfile], Subscription]


@dataclass(frozen=True)
class StateInput:
    """A state of the policy: :param config: where it comes from on this robot."""

    spec: StateSpec
    config: StreamConfig

    @property
    def stream(self) -> str:
        """Return the stream's name."""
        return self.spec.name


@dataclass(frozen=True)
class PresentInput:
    """
    Where a group of actions is now.

    :param stream: the name of the stream that says it.
    :param config: where that comes from on this robot.
    :param places: of the group's values among the stream's; None where these are all.
    :param frame_id: of the arm's base, which a pose must be in.
    """

    group: ActionGroup
    stream: str
    config: StreamConfig
    places: tuple[int, ...] | None = None
    frame_id: str = 'base_link'

    @property
    def is_pose(self) -> bool:
        """Return whether it is a pose of the tool."""
        return self.group.axes == POSE_AXES


class Heard:
    """What came of one stream, for the diagnostics."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.rate, self.dropped, self._good_s = Rate(), 0, -np.inf

    def good(self) -> None:
        """Note that a value was taken."""
        self._good_s = time.monotonic()

    @property
    def age(self) -> str:
        """Return how long ago the last value was taken, in s."""
        age_s = time.monotonic() - self._good_s
        return f'{age_s:.3f}' if np.isfinite(age_s) else 'never'


class States:
    """
    The subscriptions to streams of numbers, one a topic, however many read it.

    :param subscribe: makes a subscription.
    :param now_ns: tells the time by the ROS clock, for messages without a stamp.
    :param on_value: called after each value of the policy's states that was taken.
    """

    def __init__(self, subscribe: Subscribe, now_ns: Callable[[], int], sampler: StreamSampler,
                 on_value: Callable[[], None],
                 inputs: Iterable[StateInput | PresentInput]) -> None:
        """Subscribe."""
        self._now_ns, self._sampler, self._on_value = now_ns, sampler, on_value
        self._inputs = tuple(inputs)
        self.heard = {i.stream: Heard() for i in self._inputs}
        self.strangers: dict[str, str] = {}
        self._presents: dict[str, tuple[int, np.ndarray | Pose | Reason]] = {}
        by_topic: dict[tuple[str, str], list[StateInput | PresentInput]] = {}
        for read in self._inputs:
            by_topic.setdefault((read.config.topic, read.config.msgtype), []).append(read)
        self.subscriptions: dict[str, Subscription] = {}
        for (topic, msgtype), readers in by_topic.items():
            def take(message: Any, readers: Sequence[StateInput | PresentInput] = readers) -> None:
                self._take(readers, message)
            qos = qos_profile_sensor_data if msgtype == POSE else _QOS
            subscription = subscribe(message_type(msgtype), topic, take, qos)
            self.subscriptions |= {read.stream: subscription for read in readers}

    @property
    def configs(self) -> dict[str, StreamConfig]:
        """Return where each stream comes from."""
        return {read.stream: read.config for read in self._inputs}

    @property
    def of_policy(self) -> tuple[str, ...]:
        """Return the names of the policy's states."""
        return tuple(read.stream for read in self._inputs if isinstance(read, StateInput))

    def presents(self, now_ns: int, max_age_s: float) -> dict[str, np.ndarray | Pose | Reason]:
        """Return where the groups are, if that was told a short time ago, or why it is unknown."""
        return {read.group.name: self._present(read, now_ns, max_age_s) for read in self._inputs
                if isinstance(read, PresentInput)}

    def _present(self, read: PresentInput, now_ns: int,
                 max_age_s: float) -> np.ndarray | Pose | Reason:
        stamp_ns, found = self._presents.get(read.group.name, (None, None))
        what = 'the tool pose' if read.is_pose else 'the state of the robot'
        if stamp_ns is None or found is None:
            return Reason('no_state', f'{read.stream}: {what} is missing or old: none came yet',
                          read.stream)
        age_s = (now_ns - stamp_ns) / _NS
        if not abs(age_s) <= max_age_s:
            return Reason('old_state', f'{read.stream}: {what} is missing or old: the newest is '
                          f'{age_s:.3f} s old, at most {max_age_s:.3f} s is allowed '
                          '(max_image_age_s)', read.stream)
        return found

    def reset(self) -> None:
        """Begin an episode."""
        self.strangers.clear()

    def _take(self, readers: Sequence[StateInput | PresentInput], message: Any) -> None:
        stamp_ns = time_ns(message, self._now_ns())
        for stream in dict.fromkeys(read.stream for read in readers):
            self.heard[stream].rate.add()
        for read in readers:
            if _is_of_others(message, read.config):
                self.strangers[read.stream] = ', '.join(message.name)
            elif isinstance(read, StateInput):
                self._take_state(read, stamp_ns, message)
            else:
                self._presents[read.group.name] = stamp_ns, self._where(read, message)

    def _take_state(self, read: StateInput, stamp_ns: int, message: Any) -> None:
        name, topic = read.stream, self.subscriptions[read.stream].topic_name
        try:
            values = decode(message, read.config.msgtype, replace(read.config, topic=topic))
        except StreamError as error:
            self._sampler.refuse(name, Reason('bad_state', f'{name}: {error}', name))
            return
        if len(values) != read.spec.size:
            self._sampler.refuse(name, _other_size(name, topic, len(values), read.spec.size))
        elif self._sampler.push_state(name, stamp_ns, values) is not None:
            self.heard[name].dropped += 1
        else:
            self.heard[name].good()
            self._on_value()

    def _where(self, read: PresentInput, message: Any) -> np.ndarray | Pose | Reason:
        """Return where a group is, or why a message does not say it."""
        name, topic = read.stream, self.subscriptions[read.stream].topic_name
        if read.is_pose:
            return self._pose(read, message)
        try:
            values = decode(message, read.config.msgtype, replace(read.config, topic=topic))
        except StreamError as error:
            return Reason('bad_state', f'{name}: {error}', name)
        if read.places is not None and len(values) > max(read.places):
            values = values[list(read.places)]
        if len(values) != read.group.size:
            return _other_size(name, topic, len(values), read.group.size)
        self.heard[name].good()
        return values

    def _pose(self, read: PresentInput, message: PoseStamped) -> Pose | Reason:
        name, frame = read.stream, message.header.frame_id.removeprefix('/')
        if frame != read.frame_id.removeprefix('/'):
            return Reason('pose_frame', f'{name} is in the frame {frame!r}, workspace_m in '
                          f'{read.frame_id!r}; transform the pose, or set base_frame_id')
        try:
            pose = pose_from_message(message)
        except ValueError as error:
            return Reason('bad_pose', f'{name}: {error}')
        self.heard[name].good()
        return pose


def message_type(msgtype: str) -> type:
    """Return the class of a message type. :raises ParameterError: where it is not installed."""
    try:
        package, _, name = msgtype.split('/')
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ParameterError(
            f'there is no message type {msgtype!r} here ({error}); expected one that is '
            'installed, such as sensor_msgs/msg/JointState (streams.NAME.msgtype)') from error


def _is_of_others(message: Any, config: StreamConfig) -> bool:
    """Return whether a message is of another device: robots share /joint_states."""
    names = getattr(message, 'name', None)
    return bool(config.names) and isinstance(names, (list, tuple)) and len(names) > 0 and (
        not set(config.names) & set(names))


def _other_size(name: str, topic: str, found: int, wanted: int) -> Reason:
    return Reason('state_size', f'{name} ({topic}): the policy takes {wanted} values, a message '
                  f'has {found}; say which with streams.{name}.names or .field', name)

"""
What the recorder listens to: serialised messages with the time of their sending.

Messages are not decoded. Reliability follows the publishers', as `ros2 bag record` does it, so
that nothing is asked for that they do not offer and nothing is lost that they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import struct
import time
from typing import Any, NamedTuple

from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.data.rosbag.background import Message
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.recorder.body import message_class, RecorderBody
from ros2_lstm_policy.ros.recorder.checks import Came, Role, Tally
from ros2_lstm_policy.ros.recorder.parameters import RecorderSettings
from ros2_lstm_policy.ros.recorder.publishers import wiring_problem
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, String

_DEPTH = 100
_FRESH_NS = 2_000_000_000  # what was heard before says nothing about an episode that begins now
_ADVICE = {
    'camera': '(parameter compressed)',
    'arm': 'here: let a node publish deltas in m and rad, or velocities (parameter arm)',
    'gripper': 'here: let a node publish the command as one number',
    'stream': '', 'state': ''}


class Stream(NamedTuple):
    """
    One recorded topic.

    :param name: as the node knows it, before remapping.
    :param in_bag: as the bag has it.
    :param role: what it is to training, which needs all but the robot's state.
    :param is_stamped: whether its messages begin with a header.
    :param advice: what to set where it is published as another type; empty for what its role
        says.
    """

    name: str
    in_bag: str
    kind: type
    msgtype: str
    role: Role
    is_stamped: bool = True
    advice: str = ''


def streams(settings: RecorderSettings, body: RecorderBody | None = None) -> list[Stream]:
    """Return what is recorded; the gripper before the arm, as actors publish them."""
    names = bag.TopicNames()
    kind, msgtype = ((CompressedImage, bag.COMPRESSED_IMAGE) if settings.compressed
                     else (Image, bag.IMAGE))
    suffix = '/compressed' if settings.compressed else ''
    images = [Stream(names.camera(camera), f'/{names.camera(camera)}{suffix}', kind, msgtype,
                     'camera') for camera in settings.cameras]
    own = [] if body is None else _of_body(body)
    arm = [Stream(names.gripper_command, f'/{names.gripper_command}', Float64MultiArray,
                  bag.GRIPPER, 'gripper', is_stamped=False),
           Stream(names.arm_delta, f'/{names.arm_delta}', TwistStamped, bag.TWIST, 'arm')]
    others = [Stream(names.ee_pose, f'/{names.ee_pose}', PoseStamped, bag.POSE, 'state'),
              Stream(names.joint_states, f'/{names.joint_states}', JointState, bag.JOINTS,
                     'state')]
    found = [*(arm if body is None or not body.sources else []), *own, *images]
    topics = {each for one in found for each in (one.name, one.in_bag)}
    found += [one for one in others if not {one.name, one.in_bag} & topics]
    for key in ('name', 'in_bag'):
        if twice := [name for name, count in Counter(getattr(one, key) for one in found).items()
                     if count > 1]:
            raise ParameterError(f'{twice[0]} is recorded twice, as two types or as a camera too; '
                                 'set streams.NAME.topic')
    return found


def _of_body(body: RecorderBody) -> list[Stream]:
    """Return the states and commands of a manifest; grippers before the others."""
    topics = body.in_bag()
    found: dict[tuple[str, str], Stream] = {}
    kinds = {group.name: group.kind for group in body.manifest.actions}
    for name, stream in (*body.states.items(), *body.commands.items()):
        role: Role = ('stream' if name in body.states else
                      'gripper' if kinds[name] == 'gripper' else 'arm')
        message = message_class(stream.msgtype)
        key = stream.topic, stream.msgtype  # two states of one topic are one stream
        found.setdefault(key, Stream(stream.topic, f'/{topics[key]}', message, stream.msgtype,
                                     role, 'header' in message.get_fields_and_field_types(),
                                     f'(parameters streams.{name}.topic and .msgtype)'))
    return sorted(found.values(), key=lambda one: one.role != 'gripper')


class RecorderInputs:
    """
    The subscriptions; used on the executor's thread.

    :param recorded: what :func:`streams` gives.
    :param on_message: takes each message of a stream.
    :param on_instruction: takes the words and the time of their sending.
    :param on_success: takes the outcome that the robot or a person published, and the time of
        its sending.
    """

    def __init__(self, node: Node, recorded: list[Stream],
                 on_message: Callable[[Message], None],
                 on_instruction: Callable[[str, int], None],
                 on_success: Callable[[bool, int], None]) -> None:
        """Subscribe; what begins an episode comes first, what ends it last."""
        self._node, self._on_message, self._on_instruction = node, on_message, on_instruction
        self.lost: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self._streams = recorded
        self._last_instruction_ns = -1
        self._last_stamps: dict[str, bytes] = {}
        self._tallies: dict[str, Tally] = {}
        # A latched instruction reaches only those who ask for it, others only those who do not.
        self._words: list[Subscription] = []
        for durability in (DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE):
            take: Any = self._take_instruction  # rclpy's own annotation lacks the message's info
            self._words.append(node.create_subscription(
                String, bag.TopicNames().instruction, take,
                QoSProfile(depth=10, durability=durability)))
        self._subscriptions: dict[str, Subscription] = {
            stream.name: self._subscribe(stream, ReliabilityPolicy.BEST_EFFORT)
            for stream in self._streams}
        self._on_success = on_success
        take_outcome: Any = self._take_outcome
        self._outcome = node.create_subscription(Bool, bag.TopicNames().success, take_outcome, 10)
        self.begin()

    @property
    def streams(self) -> list[Stream]:
        """Return the recorded topics."""
        return self._streams

    def follow_publishers(self) -> None:
        """Ask for reliable delivery where every publisher offers it."""
        for stream in self._streams:
            old = self._subscriptions[stream.name]
            offers = self._node.get_publishers_info_by_topic(old.topic_name)
            if not offers:
                continue
            wanted = (ReliabilityPolicy.RELIABLE if all(
                offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
                else ReliabilityPolicy.BEST_EFFORT)
            if old.qos_profile.reliability != wanted:
                self._subscriptions[stream.name] = self._subscribe(stream, wanted)
                self._node.destroy_subscription(old)

    def wiring_problems(self) -> list[str]:
        """Return what of the topics that training needs will not be heard, and why."""
        return [self._wiring(stream) for stream in self._streams
                if stream.role != 'state' and self._wiring(stream)]

    def state_problems(self) -> list[str]:
        """Return what of the robot's state is published, and will not be heard."""
        return [self._wiring(stream) for stream in self._streams
                if stream.role == 'state' and self._wiring(stream)
                and self._node.count_publishers(self._subscriptions[stream.name].topic_name)]

    def wiring_of_words(self) -> str:
        """Return why no instruction will be heard, or nothing."""
        return wiring_problem(self._node, self._words[1], bag.STRING)

    def wiring_of_outcome(self) -> str:
        """Return why no outcome will be heard, or nothing."""
        return wiring_problem(self._node, self._outcome, bag.BOOL)

    def came(self, dropped: Counter[str]) -> dict[str, Came]:
        """
        Return what has come of each topic that training needs.

        :param dropped: by topic in the bag, what the queue had no place for.
        """
        return {stream.name: Came(self._label(stream), stream.role, self._tallies[stream.name],
                                  self.lost[stream.in_bag] + dropped[stream.in_bag])
                for stream in self._streams if stream.role != 'state'}

    def came_lately(self) -> dict[str, Came]:
        """Return the newest messages of the needed topics that are heard now."""
        oldest_ns = time.time_ns() - _FRESH_NS
        return {name: one._replace(tally=one.tally.of_newest())
                for name, one in self.came(Counter()).items() if one.tally.newest[1] > oldest_ns}

    def begin(self) -> None:
        """Forget what was counted; what was stamped before may come again."""
        self.lost.clear()
        self.repeated.clear()
        self._last_stamps.clear()
        self._tallies = {stream.name: Tally() for stream in self._streams}

    def _label(self, stream: Stream) -> str:
        topic = self._subscriptions[stream.name].topic_name
        return topic if topic == f'/{stream.name}' else f'{stream.name} (wired to {topic})'

    def _wiring(self, stream: Stream) -> str:
        subscription = self._subscriptions[stream.name]
        problem = wiring_problem(self._node, subscription, stream.msgtype,
                                 is_single=stream.role != 'state')
        advice = stream.advice or _ADVICE[stream.role] if problem.endswith('wanted') else ''
        named = f'{stream.name}: {problem}' if problem else ''
        return f'{named} {advice}'.strip()

    def _subscribe(self, stream: Stream, reliability: ReliabilityPolicy) -> Subscription:
        def count_lost(event: Any) -> None:
            self.lost[stream.in_bag] += event.total_count_change
        return self._node.create_subscription(
            stream.kind, stream.name, self._taker(stream),
            QoSProfile(depth=_DEPTH, reliability=reliability), raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=count_lost))

    def _taker(self, stream: Stream) -> Callable[..., None]:
        def take(cdr: bytes, info: dict[str, Any]) -> None:
            self._take(stream, cdr, info)
        return take

    def _take(self, stream: Stream, cdr: bytes, info: dict[str, Any]) -> None:
        stamp_ns = _stamp_ns(cdr) if stream.is_stamped else None
        if stamp_ns is not None:
            stamp = cdr[4:12]
            if self._last_stamps.get(stream.name) == stamp and any(stamp):
                self.repeated[stream.in_bag] += 1
                return
            self._last_stamps[stream.name] = stamp
        sent_ns = _sent_ns(info)
        self._tallies[stream.name].add(sent_ns, info['received_timestamp'] or time.time_ns(),
                                       stamp_ns, info['publication_sequence_number'] or 0)
        self._on_message(Message(stream.in_bag, sent_ns, cdr))

    def _take_instruction(self, message: String, info: dict[str, Any]) -> None:
        sent_ns = _sent_ns(info)
        if info['source_timestamp'] and sent_ns == self._last_instruction_ns:
            return  # the other subscription's copy
        self._last_instruction_ns = sent_ns
        self._on_instruction(message.data, sent_ns)

    def _take_outcome(self, message: Bool, info: dict[str, Any]) -> None:
        self._on_success(message.data, _sent_ns(info))


def _sent_ns(info: dict[str, Any]) -> int:
    return info['source_timestamp'] or time.time_ns()


def _stamp_ns(cdr: bytes) -> int:
    """Return the stamp of a serialised message's header, after 4 bytes that say their order."""
    seconds, nanoseconds = struct.unpack_from('<iI' if cdr[1] & 1 else '>iI', cdr, 4)
    return int(seconds * 1_000_000_000 + nanoseconds)

"""
What the recorder listens to: serialised messages with the time of their sending.

Messages are not decoded. Reliability follows the publishers', as `ros2 bag record` does it, so
that nothing is asked for that they do not offer and nothing is lost that they do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
import time
from typing import Any, NamedTuple

from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.data.rosbag.background import Message
from ros2_lstm_policy.ros.recorder_settings import RecorderSettings
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, String

_DEPTH = 100


class Stream(NamedTuple):
    """
    One recorded topic.

    :param name: as the node knows it, before remapping.
    :param in_bag: as the bag has it.
    :param is_stamped: whether its messages begin with a header.
    """

    name: str
    in_bag: str
    kind: type
    msgtype: str
    is_stamped: bool = True


def streams(settings: RecorderSettings) -> list[Stream]:
    """Return what is recorded; the gripper before the arm, as actors publish them."""
    names = bag.TopicNames()
    kind, msgtype = ((CompressedImage, bag.COMPRESSED_IMAGE) if settings.compressed
                     else (Image, bag.IMAGE))
    suffix = '/compressed' if settings.compressed else ''
    images = [Stream(names.camera(camera), f'/{names.camera(camera)}{suffix}', kind, msgtype)
              for camera in settings.cameras]
    return [Stream(names.gripper_command, f'/{names.gripper_command}', Float64MultiArray,
                   bag.GRIPPER, is_stamped=False),
            Stream(names.arm_delta, f'/{names.arm_delta}', TwistStamped, bag.TWIST), *images,
            Stream(names.ee_pose, f'/{names.ee_pose}', PoseStamped, bag.POSE),
            Stream(names.joint_states, f'/{names.joint_states}', JointState, bag.JOINTS)]


class RecorderInputs:
    """
    The subscriptions; used on the executor's thread.

    :param on_message: takes each message of a stream.
    :param on_instruction: takes the words and the time of their sending.
    :param on_success: takes the outcome that the robot or a person published.
    """

    def __init__(self, node: Node, settings: RecorderSettings,
                 on_message: Callable[[Message], None],
                 on_instruction: Callable[[str, int], None],
                 on_success: Callable[[bool], None]) -> None:
        """Subscribe; what begins an episode comes first, what ends it last."""
        self._node, self._on_message, self._on_instruction = node, on_message, on_instruction
        self.lost: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self._streams = streams(settings)
        self._last_instruction_ns = -1
        self._last_stamps: dict[str, bytes] = {}
        # A latched instruction reaches only those who ask for it, others only those who do not.
        for durability in (DurabilityPolicy.TRANSIENT_LOCAL, DurabilityPolicy.VOLATILE):
            take: Any = self._take_instruction  # rclpy's own annotation lacks the message's info
            node.create_subscription(String, bag.TopicNames().instruction, take,
                                     QoSProfile(depth=10, durability=durability))
        self._subscriptions: dict[str, Subscription] = {
            stream.name: self._subscribe(stream, ReliabilityPolicy.BEST_EFFORT)
            for stream in self._streams}
        node.create_subscription(Bool, bag.TopicNames().success,
                                 lambda message: on_success(message.data),  # type: ignore
                                 10)

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

    def silent(self) -> Mapping[str, str]:
        """Return the needed topics that nobody publishes, as they are wired here."""
        optional = {bag.TopicNames().ee_pose, bag.TopicNames().joint_states}
        return {stream.name: self._subscriptions[stream.name].topic_name
                for stream in self._streams if stream.name not in optional
                and not self._node.count_publishers(self._subscriptions[stream.name].topic_name)}

    def begin(self) -> None:
        """Forget what was counted; what was stamped before may come again."""
        self.lost.clear()
        self.repeated.clear()
        self._last_stamps.clear()

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
        if stream.is_stamped:
            stamp = cdr[4:12]  # seconds and nanoseconds, after the four bytes of encapsulation
            if self._last_stamps.get(stream.name) == stamp and any(stamp):
                self.repeated[stream.in_bag] += 1
                return
            self._last_stamps[stream.name] = stamp
        self._on_message(Message(stream.in_bag, _sent_ns(info), cdr))

    def _take_instruction(self, message: String, info: dict[str, Any]) -> None:
        sent_ns = _sent_ns(info)
        if info['source_timestamp'] and sent_ns == self._last_instruction_ns:
            return  # the other subscription's copy
        self._last_instruction_ns = sent_ns
        self._on_instruction(message.data, sent_ns)


def _sent_ns(info: dict[str, Any]) -> int:
    return info['source_timestamp'] or time.time_ns()

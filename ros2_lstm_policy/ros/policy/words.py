"""What the robot is told to do: who says it, in which order, and what was said before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription
from std_msgs.msg import String

OVERTAKEN_NS = 1_000_000_000
_REMEMBERED = 1000
Take = Callable[[String, Mapping[str, int]], None]


class Words:
    """
    Hears the instruction, once and in order, also what was latched before.

    Words that are said now count as they come: their publishers' clocks may differ by any time.
    Only what comes a moment after words that were said later has been overtaken on its way, as
    DDS keeps no order between publishers; an empty text stops the robot even then. Words that
    were said before this node came count where none of a later time hold.

    :param subscribe: makes a subscription of a profile; its overrides have the given name.
    :param on_instruction: called with each instruction.
    """

    def __init__(self, node: LifecycleNode,
                 subscribe: Callable[[Take, QoSProfile, str | None], Subscription],
                 on_instruction: Callable[[str], None]) -> None:
        """
        Subscribe to every publisher, and to words that were latched before.

        It takes two, since a subscription that is transient local hears no volatile publisher.
        """
        self._node, self._on_instruction = node, on_instruction
        self._said_ns = 0
        self._heard: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)
        self.subscriptions = [subscribe(self.take, QoSProfile(depth=10), None)]
        durability = self.subscriptions[0].qos_profile.durability
        self._is_alone = durability == DurabilityPolicy.TRANSIENT_LOCAL  # by an override
        if not self._is_alone:
            latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self.subscriptions.append(subscribe(self.take_latched, latched, 'latched'))

    def take(self, message: String, info: Mapping[str, int]) -> None:
        """Take words that are said now."""
        sent_ns, text = info['source_timestamp'], message.data
        if self._is_alone and self._is_heard(sent_ns, text):
            return  # DDS lost its publisher, found it again and told its history again
        if 0 < self._said_ns - sent_ns < OVERTAKEN_NS and text.strip():
            return
        self._obey(sent_ns, text)

    def take_latched(self, message: String, info: Mapping[str, int]) -> None:
        """Take words that may have been said long ago, or are the copy of some said now."""
        sent_ns, text = info['source_timestamp'], message.data
        if self._is_heard(sent_ns, text):
            return
        if sent_ns < self._said_ns and text.strip():
            self._node.get_logger().info(
                f'{text[:80]!r} was said {(self._said_ns - sent_ns) / 1e9:.3f} s before the words '
                "that hold, by its publisher's clock, and latched: it is passed over",
                throttle_duration_sec=1.0)
            return
        self._obey(sent_ns, text)

    def _is_heard(self, sent_ns: int, text: str) -> bool:
        return (sent_ns, text) in self._heard

    def _obey(self, sent_ns: int, text: str) -> None:
        self._said_ns = sent_ns
        self._heard.append((sent_ns, text))
        self._on_instruction(text)

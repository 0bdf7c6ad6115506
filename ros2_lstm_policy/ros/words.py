"""Hears the instruction from every publisher, and what one has latched before."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription
from std_msgs.msg import String


class Words:
    """
    The subscriptions to an instruction: one for all publishers, and one more where it is latched.

    What was latched (transient local) before comes only to a subscription that asks for it, and
    nothing that is volatile does. A volatile publisher that meets one which asks is warned that
    "no messages will be sent to it", which is not true of this node. So the second lives only
    while somebody latches; where words come both ways the callback hears some twice.

    :param every: the subscription that all publishers reach.
    :param take: called with what was latched.
    """

    def __init__(self, node: Node, every: Subscription, take: Callable[..., None]) -> None:
        """Subscribe to what is latched already."""
        self._node, self.every, self._take = node, every, take
        self._latched: Subscription | None = None
        self.follow_publishers()

    def follow_publishers(self) -> None:
        """Subscribe to latched words while there are any; called about once a second."""
        durability = DurabilityPolicy.TRANSIENT_LOCAL
        wanted = self.every.qos_profile.durability != durability and any(
            offer.qos_profile.durability == durability
            for offer in self._node.get_publishers_info_by_topic(self.every.topic_name))
        if wanted and self._latched is None:
            self._latched = self._node.create_subscription(
                String, self.every.topic_name, self._take,
                QoSProfile(depth=1, durability=durability))
        elif not wanted and self._latched is not None:
            self._node.destroy_subscription(self._latched)
            self._latched = None

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in filter(None, (self.every, self._latched)):
            self._node.destroy_subscription(subscription)

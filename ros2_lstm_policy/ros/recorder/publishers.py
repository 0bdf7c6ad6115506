"""Whether anybody publishes on a topic what a node listens for there: type and QoS."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import qos_check_compatible, QoSCompatibility
from rclpy.subscription import Subscription


def wiring_problem(node: Node, subscription: Subscription, msgtype: str,
                   is_single: bool = False) -> str:
    """
    Return why nothing will be heard, or nothing that can be relied on; empty where all is well.

    :param msgtype: as 'std_msgs/msg/String'.
    :param is_single: whether two nodes that publish there are one too many.
    """
    topic = subscription.topic_name
    offers = node.get_publishers_info_by_topic(topic)
    if not offers:
        return f'nobody publishes {topic}'
    fitting = [offer for offer in offers if offer.topic_type == msgtype]
    if not fitting:
        types = ', '.join(sorted({offer.topic_type for offer in offers}))
        return f'{topic} is published as {types}, and {msgtype} is wanted'
    for offer in fitting:
        fit, why = qos_check_compatible(offer.qos_profile, subscription.qos_profile)
        if fit == QoSCompatibility.ERROR:
            return (f'the QoS of a publisher of {topic} is incompatible with the QoS of this '
                    f'node: {why.removeprefix("ERROR: ").rstrip(";")}')
    names = sorted({f'{offer.node_namespace.rstrip("/")}/{offer.node_name}' for offer in fitting})
    if is_single and len(names) > 1:
        return (f'{topic} is published by {", ".join(names)}, whose messages would be mixed; let '
                'one of them be (one that was killed is forgotten after some 20 s)')
    return ''

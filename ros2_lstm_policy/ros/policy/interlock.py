"""What a person stops the robot with: the service `~/hold`, and a dead-man switch."""

from __future__ import annotations

from collections.abc import Callable
import time

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from ros2_lstm_policy.ros.lifecycle import guarded
from ros2_lstm_policy.types import Reason
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

HELD = Reason('operator_hold', '~/hold was called; call it with data: false to let the robot go')


class Interlock:
    """
    Says why a person does not let the robot move; asked at every tick.

    The hold outlives deactivation and clean-up, as it is the person's word that ends it. A
    dead-man switch is one that must be held: silence counts as released. It is heard from
    :meth:`listen` to :meth:`leave`.

    :param on_stop: called at once when a reason to hold begins, with the reasons.
    """

    def __init__(self, node: LifecycleNode,
                 on_stop: Callable[[tuple[Reason, ...]], None]) -> None:
        """Offer the service."""
        self._node, self._on_stop = node, on_stop
        self._is_held = False
        self._timeout_s, self._pressed_s = 0.0, float('-inf')
        self._switch: Subscription | None = None
        self._timer: Timer | None = None
        node.create_service(SetBool, '~/hold', self._hold)

    def listen(self, timeout_s: float) -> None:
        """
        Hear the dead-man switch.

        :param timeout_s: how long one message counts; 0: there is no switch.
        """
        self._timeout_s, self._pressed_s = timeout_s, float('-inf')
        if timeout_s <= 0:
            return
        self._switch = self._node.create_subscription(
            Bool, 'dead_man', guarded(self._node, self._take), qos_profile_sensor_data,
            qos_overriding_options=QoSOverridingOptions.with_default_policies())
        self._timer = self._node.create_timer(
            timeout_s, guarded(self._node, self._look), clock=Clock(
                clock_type=ClockType.STEADY_TIME))

    def leave(self) -> None:
        """Hear no switch any more; the hold stays."""
        if self._switch is not None and self._timer is not None:
            self._node.destroy_subscription(self._switch)
            self._node.destroy_timer(self._timer)
        self._switch = self._timer = None
        self._timeout_s = 0.0

    def reasons(self) -> tuple[Reason, ...]:
        """Return why the robot may not move now; nothing where it may."""
        found = [HELD] if self._is_held else []
        if self._switch is None:
            return tuple(found)
        topic = self._switch.topic_name
        silent_s = time.monotonic() - self._pressed_s
        if self._node.count_publishers(topic) > 1:
            found.append(Reason('second_dead_man', f'{topic} has more than one publisher; whose '
                                'hand counts is not known'))
        elif silent_s > self._timeout_s:
            found.append(Reason('dead_man', f'the dead-man switch on {topic} is not held: no '
                                f'true within {self._timeout_s:g} s (dead_man_timeout_s)'))
        return tuple(found)

    def _hold(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        is_new, self._is_held = request.data and not self._is_held, request.data
        if is_new:
            self._on_stop(self.reasons())
        response.success = True
        response.message = 'the robot holds until this is called with false' if request.data \
            else 'the robot may move'
        return response

    def _take(self, message: Bool) -> None:
        was_held = time.monotonic() - self._pressed_s <= self._timeout_s
        self._pressed_s = time.monotonic() if message.data else float('-inf')
        if message.data and self._timer is not None:
            self._timer.reset()
        elif was_held:
            self._on_stop(self.reasons())

    def _look(self) -> None:
        """Hold as soon as a message is too old, between two ticks as well."""
        if self._pressed_s > float('-inf'):
            self._pressed_s = float('-inf')
            self._on_stop(self.reasons())

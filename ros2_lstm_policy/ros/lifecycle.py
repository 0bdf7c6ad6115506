"""
A lifecycle node that survives mistakes, and the main loop that ends cleanly.

rclpy 7 leaves three gaps that are closed here: an unknown transition id kills the process (rclpy
issue 1209), an exception in a transition is swallowed without a word, and a signal shuts the
context down before the node could send its last command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
import signal
import threading
import traceback
from typing import Any

from lifecycle_msgs.msg import State
import rclpy
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

# What a node is given may be of no use for it: a message to the person who runs it.
UNUSABLE = (ValueError, NameValidationException, ParameterException, rclpy_implementation.RCLError)
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
ERROR = TransitionCallbackReturn.ERROR


class GuardedLifecycleNode(LifecycleNode):
    """
    A lifecycle node whose transitions are :meth:`configure` and its sisters.

    They raise when they cannot do their work: a ValueError is a message to the person who runs
    the node and is logged as one line; anything else is logged with its traceback. A transition
    that fails leaves the node alive in the state where it can be tried again.
    """

    last_error = ''

    def configure(self) -> None:
        """Get everything that acting needs."""

    def activate(self) -> None:
        """Begin to act; publishers are enabled already."""

    def deactivate(self) -> None:
        """Stop acting; publishers are still enabled."""

    def cleanup(self) -> None:
        """Give back whatever :meth:`configure` got, even where it failed half-way."""

    @property
    def state_label(self) -> str:
        """Return the lifecycle state: unconfigured, inactive, active or finalized."""
        return self._state_machine.current_state[1]

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure, or give everything back."""
        if self._succeeds(self.configure):
            return super().on_configure(state)
        self._succeeds(self.cleanup, keep_error=True)
        return FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Enable the publishers, then act."""
        result = super().on_activate(state)
        if result == SUCCESS and not self._succeeds(self.activate):
            self._succeeds(self.deactivate, keep_error=True)
            super().on_deactivate(state)
            return FAILURE
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, then disable the publishers."""
        stopped = self._succeeds(self.deactivate)
        result = super().on_deactivate(state)
        return result if stopped else ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back."""
        return super().on_cleanup(state) if self._succeeds(self.cleanup) else ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop where the node was active, and give everything back."""
        if state.state_id == State.PRIMARY_STATE_ACTIVE:
            self.on_deactivate(state)
        self._succeeds(self.cleanup)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back, so that the node can be configured again."""
        super().on_deactivate(state)
        return SUCCESS if self._succeeds(self.cleanup, keep_error=True) else ERROR

    def leave(self) -> None:
        """Shut down from whatever state the node is in."""
        if self.state_label in ('unconfigured', 'inactive', 'active'):
            self.trigger_shutdown()

    def _succeeds(self, step: Callable[[], None], keep_error: bool = False) -> bool:
        try:
            step()
        except Exception as error:  # a transition's edge: rclpy would swallow it
            text = f'{step.__name__}: {error}'
            if not isinstance(error, ValueError):
                text = f'{step.__name__}: {type(error).__name__}: {error}'
                self.get_logger().error(traceback.format_exc())
            self.get_logger().error(text)
            self.last_error = text
            return False
        if not keep_error:
            self.last_error = ''
        return True

    def _LifecycleNodeMixin__change_state(self, transition_id: int) -> TransitionCallbackReturn:
        """Answer a transition that this state does not have with a failure, and live."""
        try:
            return super()._LifecycleNodeMixin__change_state(transition_id)  # type: ignore[misc]
        except rclpy_implementation.RCLError as error:
            self.get_logger().error(f'transition {transition_id} is not possible in state '
                                    f'{self.state_label}: {error}')
            return FAILURE


def guarded(node: LifecycleNode, callback: Callable[..., Any],
            on_error: Callable[[Exception], None] | None = None) -> Callable[..., Any]:
    """
    Return a callback whose exceptions are logged instead of ending the executor.

    :param on_error: what is to be done after one.
    """
    @wraps(callback)  # rclpy counts a callback's parameters
    def call(*arguments: Any) -> Any:
        try:
            return callback(*arguments)
        except Exception as error:  # a callback's edge: the node lives
            node.get_logger().error(traceback.format_exc(), throttle_duration_sec=1.0)
            if on_error is not None:
                guarded(node, on_error)(error)
            return None
    return call


@contextmanager
def until_told_to_end(end: Callable[[], object]) -> Iterator[None]:
    """
    Have SIGINT and SIGTERM call `end`, and nothing else, for the rest of the process.

    Neither may break the clean-up, however many come. Afterwards they are ignored: as the
    interpreter ends, it gives a handler of Python's back to the system, whose way is to kill.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end())
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def run(make_node: Callable[[], GuardedLifecycleNode], arguments: Sequence[str] | None = None,
        autostart: Callable[[Any], bool] = lambda node: False, name: str = 'node') -> int:
    """
    Make a node and spin it until SIGINT or SIGTERM; the node leaves while it can still publish.

    Signals only set a flag. The executor wakes often enough to see it, also where every timer
    waits for a /clock that nobody publishes.

    :param name: who says why the node cannot be made.
    :return: the exit status.
    """
    stop = threading.Event()
    with until_told_to_end(stop.set):
        rclpy.init(args=None if arguments is None else list(arguments),
                   signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = make_node()
        except UNUSABLE as error:
            get_logger(name).fatal(str(error))
            rclpy.try_shutdown()
            return 1
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            if autostart(node) and node.trigger_configure() == SUCCESS and not stop.is_set():
                node.trigger_activate()
            while not stop.is_set():
                executor.spin_once(timeout_sec=0.2)
        finally:
            node.leave()
            executor.shutdown()
            node.destroy_node()
            rclpy.try_shutdown()
    return 0

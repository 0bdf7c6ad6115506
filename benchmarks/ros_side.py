"""The robot's side of a benchmark of the policy node: a node, its executor, and waiting."""

from __future__ import annotations

from collections.abc import Callable
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor

TIMEOUT_S = 30.0


class RosSide:
    """Joins the ROS domain as the node `robot`."""

    def __init__(self) -> None:
        """Join."""
        rclpy.init()
        self._node = rclpy.create_node('robot')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)

    def listen(self, seconds: float) -> None:
        """Go on listening for a time."""
        end_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end_s)

    def until(self, condition: Callable[[], bool]) -> None:
        """
        Listen until the condition holds.

        :raises SystemExit: where it does not in 30 s.
        """
        end_s = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > end_s:
                raise SystemExit(f'the node did not answer within {TIMEOUT_S} s')
            self.go_on()
            self._executor.spin_once(timeout_sec=0.002)

    def go_on(self) -> None:
        """Do what the robot does all the while; nothing by itself."""

    def close(self) -> None:
        """Leave."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown()

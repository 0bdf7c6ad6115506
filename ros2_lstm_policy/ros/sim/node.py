"""The simulated robot as a node; with `expert:=true` the scripted expert acts in it, too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import sys
import threading

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from ros2_lstm_policy.ros.lifecycle import until_told_to_end, UNUSABLE
from ros2_lstm_policy.ros.node_arguments import answer
from ros2_lstm_policy.ros.sim.expert import ExpertNode
from ros2_lstm_policy.ros.sim.loop import SimLoop
from ros2_lstm_policy.ros.sim.parameters import SimParameters, SimSettings
from ros2_lstm_policy.sim.backend import SimulatorMissingError

END_TIMEOUT_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit status."""
    status = answer('sim_robot_node', __doc__, SimSettings, arguments)
    if status is not None:
        return status
    told = threading.Event()
    loops: list[SimLoop] = []  # none yet where it is told early

    def end() -> None:
        told.set()
        for loop in loops:
            loop.stop()

    def begun(loop: SimLoop) -> None:
        loops.append(loop)
        if told.is_set():
            loop.stop()

    with until_told_to_end(end):
        return _run(arguments, begun)


def _run(arguments: Sequence[str] | None, begun: Callable[[SimLoop], None]) -> int:
    rclpy.init(args=None if arguments is None else list(arguments),
               signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Node('sim_robot')
        nodes = [node]
        parameters = SimParameters(node)
        for line in parameters.unknown:
            node.get_logger().warning(line)
        expert = ExpertNode() if parameters.read().expert else None
        nodes += [expert] if expert is not None else []
        loop = SimLoop(node, parameters, expert)
    except (*UNUSABLE, SimulatorMissingError) as error:
        get_logger('sim_robot').fatal(str(error))
        return 1
    begun(loop)
    # rclpy's MultiThreadedExecutor keeps the interpreter from the simulator (ros2/rclpy#1452)
    executor = SingleThreadedExecutor()
    for each in nodes:
        executor.add_node(each)
    listener = threading.Thread(target=executor.spin, name='executor', daemon=True)
    listener.start()
    try:
        loop.run()
    finally:
        executor.shutdown(timeout_sec=END_TIMEOUT_S)
        listener.join(END_TIMEOUT_S)
        for each in nodes:
            each.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())

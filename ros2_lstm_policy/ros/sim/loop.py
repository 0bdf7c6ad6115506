"""
The simulated robot's time: lock-step with whoever acts, or real time.

The loop owns the simulator and its rendering context, on one thread; the ROS executor has another.
"""

from __future__ import annotations

import threading
import time

import numpy as np
from rclpy.node import Node
from ros2_lstm_policy.kinds import ARM_DIM
from ros2_lstm_policy.ros.sim.commands import CommandInbox
from ros2_lstm_policy.ros.sim.expert import ExpertNode
from ros2_lstm_policy.ros.sim.interface import SimFace
from ros2_lstm_policy.ros.sim.parameters import episode, SimParameters
from ros2_lstm_policy.sim.backend import SimulatorMissingError
from ros2_lstm_policy.sim.robot import CONTROL_PERIOD_S, SimRobot, SimState
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action

IDLE_S = 0.1
REPEAT_S = 1.0  # an observation that nobody answered goes out again: frames may get lost
RESET_TIMEOUT_S = 120.0
_NS = 1_000_000_000


class SimLoop:
    """
    Runs episodes until it is stopped.

    :param expert: the acting node of this process; None where another process acts.
    """

    def __init__(self, node: Node, parameters: SimParameters, expert: ExpertNode | None) -> None:
        """Create topics and services; :meth:`run` moves."""
        self._node, self._parameters, self._expert = node, parameters, expert
        settings = parameters.read()
        self._lock_step = settings.lock_step
        self._image_size = settings.image_height, settings.image_width
        self._inbox = CommandInbox()
        self._stopped, self._reset_wanted = threading.Event(), threading.Event()
        self._reset_done, self._reset_answer = threading.Event(), (False, '')
        self._robot: SimRobot | None = None
        self._state: SimState | None = None  # None while no episode is under way
        self._stamp_ns, self._next_tick_s = 0, 0.0
        self._episodes, self._succeeded = 0, False
        self._face = SimFace(node, self._inbox, self.reset, self._lock_step)
        if settings.autostart:
            self._reset_wanted.set()

    def run(self) -> None:
        """Move until :meth:`stop`; the thread that calls this owns the simulator."""
        while not self._stopped.is_set():
            if self._reset_wanted.is_set():
                self._begin()
            elif self._state is None:
                self._reset_wanted.wait(IDLE_S)
            elif self._lock_step:
                self._advance_in_lock_step()
            else:
                self._advance_in_real_time()
        self._face.close()
        if self._robot is not None:
            self._robot.close()

    def stop(self) -> None:
        """Have :meth:`run` return after its present step."""
        self._stopped.set()
        self._inbox.interrupt()

    def reset(self) -> tuple[bool, str]:
        """Have the loop begin the episode that the parameters name; wait until it stands."""
        self._reset_done.clear()
        self._reset_wanted.set()
        self._inbox.interrupt()
        if not self._reset_done.wait(RESET_TIMEOUT_S):
            return False, f'the simulator did not begin an episode in {RESET_TIMEOUT_S:.0f} s'
        return self._reset_answer

    def _begin(self) -> None:
        self._reset_wanted.clear()
        self._state = None
        self._inbox.resume()
        settings = self._parameters.read()
        try:
            chosen = episode(settings)
            robot = self._robot_for(chosen)
            self._face.instruct(settings.instruction or chosen.instruction)
            if self._expert is None:
                self._face.reset_actor()
            state = robot.reset(chosen)
        except (ValueError, SimulatorMissingError) as error:
            self._node.get_logger().error(str(error))
            self._reset_answer = False, str(error)
        else:
            self._episodes += 1
            self._reset_answer = True, (f'episode {self._episodes}: {chosen.name}: '
                                        f'{settings.instruction or chosen.instruction}')
            self._node.get_logger().info(self._reset_answer[1])
            if self._expert is not None:
                self._expert.begin(robot)
            self._inbox.clear(gripper_open=True)
            self._succeeded = False
            self._next_tick_s = time.monotonic()
            self._show(state)
        self._reset_done.set()

    def _robot_for(self, chosen: SimEpisode) -> SimRobot:
        if self._robot is None or self._robot.scene != chosen.scene:
            if self._robot is not None:
                self._robot.close()
                self._robot = None
            self._robot = SimRobot(chosen.scene, self._image_size)
        return self._robot

    def _show(self, state: SimState) -> None:
        """Publish a moment, and have the expert answer it where it acts."""
        self._state = state
        now_ns = self._node.get_clock().now().nanoseconds
        self._stamp_ns = state.observation.stamp_ns if self._lock_step else now_ns
        self._face.publish(state, self._stamp_ns)
        if self._expert is not None:
            self._expert.act(self._stamp_ns)

    def _advance_in_lock_step(self) -> None:
        answer = self._inbox.answer(self._stamp_ns, REPEAT_S)
        if answer is not None:
            self._inbox.clear()
            self._step(*answer)
        elif not self._reset_wanted.is_set() and not self._stopped.is_set():
            self._node.get_logger().warning(
                f'no answer to the observation of {self._stamp_ns / _NS:.1f} s; waiting for '
                f'{self._face.listens_to}', throttle_duration_sec=10.0, skip_first=True)
            assert self._state is not None
            self._show(self._state)

    def _advance_in_real_time(self) -> None:
        self._next_tick_s += CONTROL_PERIOD_S
        late_s = time.monotonic() - self._next_tick_s
        if late_s > CONTROL_PERIOD_S:
            self._node.get_logger().warning(
                f'the simulator is slower than real time: {late_s:.2f} s behind',
                throttle_duration_sec=10.0)
            self._next_tick_s += late_s
        elif self._reset_wanted.wait(max(0.0, -late_s)):
            return
        timeout_s = self._parameters.read().command_timeout_s
        oldest_ns = self._node.get_clock().now().nanoseconds - round(timeout_s * _NS)
        arm, gripper_open = self._inbox.newest(oldest_ns)
        self._step(np.zeros(ARM_DIM) if arm is None else arm, gripper_open)

    def _step(self, arm: np.ndarray, gripper_open: bool) -> None:
        assert self._robot is not None
        state = self._robot.step(Action.one_arm(arm, float(gripper_open)))
        max_steps = self._parameters.read().max_steps
        is_over = max_steps > 0 and state.is_over(max_steps)
        if is_over or (state.success and not self._succeeded):
            self._node.get_logger().info(
                f'episode {self._episodes}: {"success" if state.success else "no success"} '
                f'after {state.step} steps')
            self._face.publish_end(state.success)
        self._succeeded = self._succeeded or state.success
        if is_over:
            self._state = None
        else:
            self._show(state)

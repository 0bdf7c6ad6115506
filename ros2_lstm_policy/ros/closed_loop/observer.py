"""The demo's own node: it starts episodes and watches, from outside, what the robot is told."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import numpy as np
from rcl_interfaces.srv import GetParameters, SetParameters
import rclpy
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future
from ros2_lstm_policy.evaluation.pictures import Shot
from ros2_lstm_policy.manifest import image_topic
from ros2_lstm_policy.messages import image_to_rgb, stamp_ns
from ros2_lstm_policy.ros.diagnostics import HELD, HOLDING
from ros2_lstm_policy.sim.cameras import MODEL_CAMERAS
from ros2_lstm_policy.types import Action
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Float64MultiArray
from std_srvs.srv import Trigger

DIAGNOSTICS_TIMEOUT_S = 5.0  # they come once a second
SERVICE_TIMEOUT_S, CONFIGURE_TIMEOUT_S, SILENCE_S = 120.0, 300.0, 60.0
NO_ANSWERS = ('episode_reset', 'deactivated')  # holds that answer no observation
LATE_S, ASK_AGAIN_S = 1.0, 2.0
FRAMES = 100  # that may wait for us: a scene that stands still goes by fast in lock-step


class DemoError(RuntimeError):
    """Something that kept the demo from running."""


@dataclass
class EpisodeRecord:
    """
    What was seen of one episode.

    :param name: what the simulated robot called it, with its instruction.
    :param arms: every arm command by stamp, with the time of its sending; holds, too.
    :param grippers: every gripper command with the time of its sending.
    :param actions: the answers by stamp; complete when the episode is over.
    :param latencies_s: from the arrival of an observation's last frame to its command's.
    :param wall_s: from the first frame to the end.
    :param refusals: why the actor held, by the codes of its diagnostics, with how often.
    :param why: what it said last of it.
    """

    name: str = ''
    success: bool | None = None
    images: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    actions: dict[int, Action] = field(default_factory=dict)
    arms: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    grippers: list[tuple[int, float]] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    begun_s: float = 0.0
    wall_s: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    why: str = ''

    @property
    def held(self) -> int:
        """Return the number of observations whose answer was not to move."""
        return sum(not action.arm.any() for action in self.actions.values())

    @property
    def steps(self) -> int:
        """Return the number of observations that were answered."""
        return sum(stamp in self.images for stamp in self.arms)

    def pair(self) -> bool:
        """
        Give each observation its arm command, and the gripper command sent last before that.

        Topics have no common order of arrival: stamps and times of sending decide.

        :return: whether the answer to the last observation has come, and its gripper command: an
            actor that has commanded the gripper does so before each arm command.
        """
        grippers = sorted(self.grippers)
        sent = [sent_ns for sent_ns, _ in grippers]
        answers = {stamp: self.arms[stamp] for stamp in sorted(self.images) if stamp in self.arms}
        self.actions = {}
        for stamp, (sent_ns, arm) in answers.items():
            place = bisect.bisect(sent, sent_ns)
            self.actions[stamp] = Action.one_arm(arm, grippers[place - 1][1] if place else 1.0)
        times = sorted(sent_ns for sent_ns, _ in answers.values())
        is_answered = max(self.images, default=0) in answers
        return is_answered and (not sent or len(times) < 2 or sent[-1] > times[-2])

    def holds(self) -> str:
        """Return how many steps were held, and why; nothing where none was."""
        if not self.held:
            return ''
        counts = ', '.join(f'{code} {count}' for code, count in self.refusals.most_common())
        return (f'held {self.held} of {self.steps} steps'
                + (f' ({counts})' if counts else '') + (f': {self.why}' if self.why else ''))

    def shots(self) -> list[Shot]:
        """Return every observation with its command, in time."""
        return [Shot(images, self.actions.get(stamp), number)
                for number, (stamp, images) in enumerate(sorted(self.images.items()))]


class DemoObserver:
    """
    Watches one acting node and the simulated robot.

    :param actor: name of the acting node.
    :param still_alive: raises where a process of the demo has ended.
    """

    def __init__(self, actor: str, still_alive: Callable[[], None]) -> None:
        """Subscribe to what the robot sees and is told."""
        self._node = Node('demo')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._actor, self._still_alive = actor, still_alive
        self._record = EpisodeRecord()
        self._heard_s = 0.0
        self._arrivals_s: dict[int, float] = {}
        self.first_command_s: float | None = None
        for camera in MODEL_CAMERAS:
            self._node.create_subscription(
                Image, image_topic(camera), partial(self._take_image, camera), FRAMES)
        # rclpy's own annotation lacks the message's info
        take_gripper: Any = self._take_gripper
        take_arm: Any = self._take_arm
        self._node.create_subscription(
            Float64MultiArray, f'{actor}/gripper_command', take_gripper, 100)
        self._node.create_subscription(TwistStamped, f'{actor}/arm_delta', take_arm, 100)
        self._node.create_subscription(Bool, 'episode/success', self._take_success, 10)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics, 10)
        self._counted: Counter[str] = Counter()  # of the actor's holds, since it was started
        self._diagnostics = 0

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()

    def activate(self) -> None:
        """Configure and activate the acting node. :raises DemoError: where it refuses."""
        for label, transition in (('configure', Transition.TRANSITION_CONFIGURE),
                                  ('activate', Transition.TRANSITION_ACTIVATE)):
            request = ChangeState.Request(transition=Transition(id=transition))
            answer = self._call(ChangeState, f'{self._actor}/change_state', request,
                                CONFIGURE_TIMEOUT_S)
            if not answer.success:
                raise DemoError(f'the node {self._actor} could not {label}')

    def prepare(self, **parameters: Any) -> None:
        """Set the simulated robot's parameters. :raises DemoError: where it refuses them."""
        values = [Parameter(name, value=value).to_parameter_msg()
                  for name, value in parameters.items()]
        answer = self._call(SetParameters, 'sim_robot/set_parameters',
                            SetParameters.Request(parameters=values))
        refused = [result.reason for result in answer.results if not result.successful]
        if refused:
            raise DemoError('; '.join(refused))

    def run_episode(self, on_begin: Callable[[], object],
                    on_step: Callable[[], object]) -> EpisodeRecord:
        """
        Begin the episode that was prepared and watch it to its end.

        :param on_begin: called once it stands.
        :param on_step: called for each command.
        :raises DemoError: where it cannot begin, or nothing happens for SILENCE_S.
        """
        self._record = record = EpisodeRecord()
        self._arrivals_s.clear()
        counted_before = self._counted.copy()
        answer = self._call(Trigger, 'sim_robot/reset', Trigger.Request())
        if not answer.success:
            raise DemoError(answer.message)
        record.name = answer.message
        on_begin()
        self._heard_s, shown = time.monotonic(), 0
        while record.success is None:
            self._spin()
            for _ in range(shown, record.steps):
                on_step()
            shown = record.steps
            if time.monotonic() - self._heard_s > SILENCE_S:
                raise DemoError(f'nothing was commanded for {SILENCE_S:.0f} s, after '
                                f'{record.steps} steps')
        record.wall_s = time.monotonic() - record.begun_s
        deadline = time.monotonic() + LATE_S
        while not record.pair() and time.monotonic() < deadline:
            self._spin()
        if record.held:
            self._hear_why()
            record.refusals = self._counted - counted_before
        return record

    def _hear_why(self) -> None:
        """Wait for diagnostics that count the whole episode; an actor without them has none."""
        heard, deadline = self._diagnostics, time.monotonic() + DIAGNOSTICS_TIMEOUT_S
        # the next may have been on its way before the episode's end was
        while heard and self._diagnostics < heard + 2 and time.monotonic() < deadline:
            self._spin()

    def _call(self, kind: Any, name: str, request: Any,
              timeout_s: float = SERVICE_TIMEOUT_S) -> Any:
        client: Client = self._node.create_client(kind, name)
        deadline = time.monotonic() + timeout_s
        try:
            while not client.service_is_ready():
                self._spin_until(deadline, f'the service {name} did not appear')
            self._until_known(name.partition('/')[0], deadline)
            future = client.call_async(request)
            while not future.done():
                self._spin_until(deadline, f'the service {name} did not answer')
            return future.result()
        finally:
            self._node.destroy_client(client)

    def _until_known(self, name: str, deadline: float) -> None:
        """
        Wait until a node knows our clients, whose answers it would throw away before.

        A process hears of our clients in the order in which they were made, and this question can
        be asked again: once it is answered, a question of any earlier client will be.
        """
        client = self._node.create_client(GetParameters, f'{name}/get_parameters')
        try:
            future, asked_s = Future(), 0.0
            while not future.done():
                if client.service_is_ready() and time.monotonic() - asked_s > ASK_AGAIN_S:
                    future, asked_s = client.call_async(GetParameters.Request()), time.monotonic()
                self._spin_until(deadline, f'the node {name} did not answer')
        finally:
            self._node.destroy_client(client)

    def _spin_until(self, deadline: float, complaint: str) -> None:
        self._spin()
        if time.monotonic() > deadline:
            raise DemoError(f'{complaint} in time')

    def _spin(self) -> None:
        self._still_alive()
        if not rclpy.ok():
            raise KeyboardInterrupt
        self._executor.spin_once(timeout_sec=0.1)

    def _take_image(self, camera: str, message: Image) -> None:
        stamp = stamp_ns(message)
        images = self._record.images.setdefault(stamp, {})
        images[camera] = image_to_rgb(message).copy()
        if len(images) == len(MODEL_CAMERAS):
            self._arrivals_s.setdefault(stamp, time.monotonic())
        self._record.begun_s = self._record.begun_s or time.monotonic()

    def _take_gripper(self, message: Float64MultiArray, info: dict[str, Any]) -> None:
        self._record.grippers.append((info['source_timestamp'], float(message.data[0])))

    def _take_arm(self, message: TwistStamped, info: dict[str, Any]) -> None:
        now_s, stamp = time.monotonic(), stamp_ns(message)
        if stamp in self._record.arms:
            return  # an answer to a repeated observation
        self._heard_s = now_s
        if stamp in self._record.images:
            self.first_command_s = self.first_command_s or now_s
        if stamp in self._arrivals_s:
            self._record.latencies_s.append(now_s - self._arrivals_s[stamp])
        linear, angular = message.twist.linear, message.twist.angular
        arm = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z],
                       np.float32)
        self._record.arms[stamp] = info['source_timestamp'], arm

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.strip('/') != f'{self._actor}: commands':
                continue
            self._diagnostics += 1
            self._counted = Counter({
                pair.key.removeprefix(HELD): int(pair.value) for pair in status.values
                if pair.key.startswith(HELD) and pair.key.removeprefix(HELD) not in NO_ANSWERS})
            if status.message.startswith(HOLDING):
                self._record.why = status.message.removeprefix(HOLDING)

    def _take_success(self, message: Bool) -> None:
        self._record.success = message.data

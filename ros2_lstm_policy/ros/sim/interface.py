"""The simulated robot's topics and services: what any robot has, and /clock in lock-step."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable
import time
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.event_handler import PublisherEventCallbacks, QoSPublisherMatchedInfo
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros2_lstm_policy.manifest import image_topic
from ros2_lstm_policy.messages import stamp_ns
from ros2_lstm_policy.ros.conversions import time_message
from ros2_lstm_policy.ros.sim.commands import CommandInbox
from ros2_lstm_policy.sim.cameras import MODEL_CAMERAS
from ros2_lstm_policy.sim.hand import FINGER_STROKE_M
from ros2_lstm_policy.sim.robot import SimState
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

WORLD_FRAME = 'world'
JOINTS = (*(f'panda_joint{i}' for i in range(1, 8)), 'panda_finger_joint1')
ACTOR_TIMEOUT_S, ASK_AGAIN_S = 10.0, 2.5
_LATE_NS = 5_000_000_000  # how late words may come that were said before others


class SimFace:
    """
    Publishes what the robot sees and feels, hears what it is told.

    :param inbox: where commands go.
    :param on_reset: called by `~/reset` on the executor's thread, which hears nothing else
        meanwhile; returns success and a message.
    :param with_clock: whether /clock is published.
    """

    def __init__(self, node: Node, inbox: CommandInbox,
                 on_reset: Callable[[], tuple[bool, str]], with_clock: bool) -> None:
        """Create every publisher, subscription and service."""
        self._node, self._inbox, self._on_reset = node, inbox, on_reset
        self._clock = node.create_publisher(Clock, '/clock', 1) if with_clock else None
        # reliable fits subscriptions of both kinds; in lock-step a lost image would be waited for
        self._images = {camera: node.create_publisher(Image, image_topic(camera), 5)
                        for camera in MODEL_CAMERAS}
        self._joints = node.create_publisher(JointState, 'joint_states', 10)
        self._pose = node.create_publisher(PoseStamped, 'ee_pose', 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._words, self._said_ns = '', 0
        self._repetitions: deque[tuple[int, int]] = deque(maxlen=32)
        self._instruction = node.create_publisher(
            String, 'instruction', latched,
            event_callbacks=PublisherEventCallbacks(matched=self._tell_newcomer))
        take: Any = self._take_instruction  # rclpy's own annotation lacks the message's info
        node.create_subscription(String, 'instruction', take, 10)
        self._success = node.create_publisher(Bool, 'episode/success', 10)
        # the gripper first: where both have come, its command is taken first
        self._gripper = node.create_subscription(Float64MultiArray, 'gripper_command',
                                                 self._take_gripper, 10)
        self._arm = node.create_subscription(TwistStamped, 'arm_delta', self._take_arm, 10)
        node.create_service(Trigger, '~/reset', self._reset)
        # a node of its own: its answer is waited for while `~/reset` has the other's executor
        self._asking = Node(
            f'_{node.get_name()}_asking', context=node.context, namespace=node.get_namespace(),
            use_global_arguments=False, start_parameter_services=False, enable_rosout=False)
        self._actor = self._asking.create_client(
            Trigger, node.resolve_service_name('reset_episode'))

    @property
    def listens_to(self) -> str:
        """Return the topics of the commands and how many publish them, for messages."""
        return ' and '.join(f'{s.topic_name} ({self._node.count_publishers(s.topic_name)} '
                            'publishers)' for s in (self._gripper, self._arm))

    def publish(self, state: SimState, stamp: int) -> None:
        """Publish one moment: clock, joints, pose, then the cameras' frames."""
        moment = time_message(stamp)
        if self._clock is not None:
            self._clock.publish(Clock(clock=moment))
        self._joints.publish(_joint_state(state, moment))
        self._pose.publish(_pose(state, moment))
        for camera, publisher in self._images.items():
            publisher.publish(_image(state.observation.images[camera], camera, moment))

    def publish_end(self, success: bool) -> None:
        """Say how an episode ended."""
        self._success.publish(Bool(data=success))

    def instruct(self, instruction: str) -> None:
        """Publish the instruction; wait until everybody has it."""
        self._words, self._said_ns = instruction, time.time_ns()
        self._instruction.publish(String(data=instruction))
        self._instruction.wait_for_all_acked(Duration(seconds=1))

    def reset_actor(self) -> None:
        """
        Have the acting node begin an episode, where there is one.

        When this returns, frames that follow are of the new episode for the actor, too.
        """
        name = self._actor.srv_name
        if not self._actor.service_is_ready():
            self._node.get_logger().info(f'nobody offers {name}: no acting node to reset')
            return
        for _ in range(round(ACTOR_TIMEOUT_S / ASK_AGAIN_S)):  # an answer that crosses the
            future = self._actor.call_async(Trigger.Request())  # discovery of us is lost
            rclpy.spin_until_future_complete(self._asking, future, timeout_sec=ASK_AGAIN_S)
            if future.done():
                break
        if not future.done():
            self._node.get_logger().warning(f'{name} did not answer in {ACTOR_TIMEOUT_S:.0f} s')
        elif not future.result().success:
            self._node.get_logger().warning(f'{name}: {future.result().message}')

    def close(self) -> None:
        """Destroy what is not the node's own."""
        self._asking.destroy_node()

    def _take_instruction(self, message: String, info: dict[str, Any]) -> None:
        """
        Note what holds: the words that were said last, whoever said them.

        DDS keeps no order between those who publish. Words that come only now, and were said
        before this node repeated older ones, are said again, since others heard them in the other
        order.
        """
        sent_ns = info['source_timestamp']
        is_own = any(begun <= sent_ns <= done for begun, done in self._repetitions)
        is_late = 0 < self._said_ns - sent_ns < _LATE_NS  # by far more: another machine's clock
        if is_own or is_late or message.data == self._words:
            return
        self._words, self._said_ns = message.data, sent_ns
        if self._repetitions and sent_ns < self._repetitions[-1][0]:
            self._repeat()

    def _tell_newcomer(self, info: QoSPublisherMatchedInfo) -> None:
        """Repeat the instruction: not every subscription asks for what was said before."""
        if info.current_count_change > 0 and self._words:
            self._repeat()

    def _repeat(self) -> None:
        begun_ns = time.time_ns()
        self._instruction.publish(String(data=self._words))
        self._repetitions.append((begun_ns, time.time_ns()))

    def _take_gripper(self, message: Float64MultiArray) -> None:
        self._complain(self._inbox.put_gripper(tuple(message.data)))

    def _take_arm(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        self._complain(self._inbox.put_arm(stamp_ns(message), (
            linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)))

    def _complain(self, refusal: str | None) -> None:
        if refusal is not None:
            self._node.get_logger().error(refusal, throttle_duration_sec=1.0)

    def _reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._on_reset()
        return response


def _joint_state(state: SimState, moment: Any) -> JointState:
    message = JointState(name=list(JOINTS))
    message.header.stamp = moment
    finger_m = state.gripper_opening * FINGER_STROKE_M / 2
    message.position = [*state.joint_positions.tolist(), finger_m]
    return message


def _pose(state: SimState, moment: Any) -> PoseStamped:
    message = PoseStamped()
    message.header.stamp, message.header.frame_id = moment, WORLD_FRAME
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = state.ee_pose.position.tolist()
    (orientation.x, orientation.y, orientation.z,
     orientation.w) = state.ee_pose.quaternion.tolist()
    return message


def _image(image: np.ndarray, camera: str, moment: Any) -> Image:
    message = Image(height=image.shape[0], width=image.shape[1], encoding='rgb8',
                    step=3 * image.shape[1])
    message.header.stamp, message.header.frame_id = moment, f'{camera}_camera'
    data = array('B')
    data.frombytes(np.ascontiguousarray(image).data)
    message.data = data
    return message

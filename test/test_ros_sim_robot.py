"""The simulated robot as a process over real DDS, with the expert and with a hand-made actor."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import signal
import subprocess
import time
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
from node_robot import until_known
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros2_lstm_policy.messages import image_to_rgb, stamp_ns
from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.ros.conversions import gripper, twist
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

WAIT_S = 300.0  # far more than it takes, for a machine with much else to do
SHARED = int(os.environ['ROS_DOMAIN_ID'])
ALONE = SHARED + 50  # for tests with a robot of their own, beside the shared one
SMALL = {'image_height': 64, 'image_width': 64}


class Ears:
    """A node of our own that hears all that the simulated robot says, and can act."""

    def __init__(self, actor: str, domain: int) -> None:
        """Subscribe to everything, in a ROS domain of its own context."""
        self._context = rclpy.Context()
        rclpy.init(context=self._context, args=[], domain_id=domain)
        self.node = Node('ears', context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.heard: dict[str, list[Any]] = {}
        self._begun_ns = 0
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        deep = 1000  # on a busy machine much may wait here
        for kind, topic, qos in (
                (Image, 'rgb', deep), (Image, 'hand_rgb', deep),
                (JointState, 'joint_states', deep), (PoseStamped, 'ee_pose', deep),
                (String, 'instruction', latched), (Bool, 'episode/success', deep),
                (Clock, '/clock', deep), (TwistStamped, f'{actor}/arm_delta', deep),
                (Float64MultiArray, f'{actor}/gripper_command', deep)):
            self.heard[topic] = []
            self.node.create_subscription(kind, topic, self.heard[topic].append, qos)
        self.arm = self.node.create_publisher(TwistStamped, 'policy/arm_delta', 10)
        self.gripper = self.node.create_publisher(Float64MultiArray, 'policy/gripper_command', 10)
        self.resets = 0
        self.node.create_service(Trigger, 'policy/reset_episode', self._count_reset)

    def until(self, condition: Callable[[], Any], wait_s: float = WAIT_S) -> None:
        """Listen until a condition holds."""
        deadline = time.monotonic() + wait_s
        while not condition():
            assert time.monotonic() < deadline, {t: len(m) for t, m in self.heard.items()}
            self._executor.spin_once(timeout_sec=0.05)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service."""
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready)
        until_known(self.node, self.until, 'sim_robot')
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def reset(self, **parameters: Any) -> Trigger.Response:
        """Set parameters of the simulated robot, and begin an episode by service."""
        self.change(**parameters)
        self._begun_ns = max(map(stamp_ns, self.heard['hand_rgb']), default=0)
        return self.call(Trigger, 'sim_robot/reset', Trigger.Request())

    def change(self, **parameters: Any) -> list[str]:
        """Set parameters; return the reasons of those that were refused."""
        values = [Parameter(name, value=value).to_parameter_msg()
                  for name, value in parameters.items()]
        results = self.call(SetParameters, 'sim_robot/set_parameters',
                            SetParameters.Request(parameters=values)).results
        return [result.reason for result in results if not result.successful]

    def of_episode(self, topic: str) -> list[Any]:
        """Return the messages since the reset, one a stamp: a slow machine repeats some."""
        by_stamp = {stamp_ns(m): m for m in self.heard[topic] if stamp_ns(m) > self._begun_ns}
        return [by_stamp[stamp] for stamp in sorted(by_stamp)]

    def forget(self) -> None:
        """Forget what was heard."""
        for messages in self.heard.values():
            messages.clear()

    def answer(self, arm: np.ndarray, position: float) -> int:
        """Wait for the next whole observation and answer it; return its stamp."""
        def newest() -> int:
            stamps = [{stamp_ns(m) for m in self.of_episode(t)} for t in ('rgb', 'hand_rgb')]
            return max(stamps[0] & stamps[1], default=0)

        self.until(newest)
        stamp = newest()
        self.gripper.publish(gripper(position))
        self.arm.publish(twist(stamp, 'base_link', arm))
        self.until(lambda: newest() > stamp)
        return stamp

    def close(self) -> None:
        """Leave."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _count_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.resets += 1
        response.success = True
        return response


@contextmanager
def sim_robot(log: Path, spec: nodes.NodeSpec, actor: str,
              domain: int = ALONE) -> Iterator[Ears]:
    """Run the simulated robot as launch and demo start it; it must end well when told to."""
    environment = {**os.environ, **nodes.environment(), 'ROS_DOMAIN_ID': str(domain)}
    with log.open('wb') as output:
        child = subprocess.Popen(nodes.command(spec), stdout=output, stderr=subprocess.STDOUT,
                                 env=environment)
    ears = Ears(actor, domain)
    try:
        yield ears
        child.send_signal(signal.SIGTERM)
        assert child.wait(WAIT_S) == 0, log.read_text()
    finally:
        child.kill()
        child.wait()
        ears.close()


@pytest.fixture(scope='module')
def acted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ears]:
    """Return a simulated robot in lock-step whose actor is the test."""
    robot, _ = nodes.simulation()
    spec = robot.having(autostart=False, max_steps=6, **SMALL)
    with sim_robot(tmp_path_factory.mktemp('sim') / 'log', spec, 'policy', SHARED) as ears:
        yield ears


def test_the_expert_completes_an_episode_over_dds(tmp_path: Path) -> None:
    """Cameras, state, commands and success; each observation answered once, by its stamp."""
    (robot,) = nodes.simulation_with_expert()
    with sim_robot(tmp_path / 'log', robot.having(autostart=False, **SMALL), 'expert') as ears:
        answer = ears.reset(task='living_room_scene2/butter', seed=3)
        assert answer.success and 'living_room_scene2/butter/seed3' in answer.message
        ears.until(lambda: ears.heard['episode/success'])
        heard = ears.heard
        assert heard['episode/success'][0].data is True
        ears.until(lambda: heard['instruction'])
        assert heard['instruction'][0].data == 'pick up the butter and put it in the basket'
        topics = ('hand_rgb', 'rgb', 'joint_states', 'ee_pose', 'expert/arm_delta')
        ears.until(lambda: len({len(ears.of_episode(topic)) for topic in topics}) == 1)
        stamps = [stamp_ns(message) for message in ears.of_episode('hand_rgb')]
        assert len(stamps) > 20 and np.diff(stamps).tolist() == [100_000_000] * (len(stamps) - 1)
        for topic in topics:
            assert [stamp_ns(message) for message in ears.of_episode(topic)] == stamps, topic
        ears.until(lambda: len(heard['expert/gripper_command']) == len(heard['expert/arm_delta']))
        ears.until(lambda: {c.clock.sec * 10**9 + c.clock.nanosec
                            for c in heard['/clock']} == set(stamps))


def test_two_episodes_with_the_same_commands_are_identical(acted: Ears) -> None:
    """Lock-step: whatever the machine's speed, the same images and the same states."""
    def episode() -> tuple[list[np.ndarray], list[list[float]]]:
        assert acted.reset(task='living_room_scene2/milk', seed=1).success
        for i in range(5):
            acted.answer(np.array([0.03, -0.03, -0.04, 0.0, 0.0, 0.1]), float(i < 2))
        acted.until(lambda: len(acted.of_episode('joint_states')) == 6)
        return ([image_to_rgb(message).copy() for message in acted.of_episode('hand_rgb')],
                [list(message.position) for message in acted.of_episode('joint_states')])

    first_images, first_joints = episode()
    second_images, second_joints = episode()
    assert first_joints == second_joints
    assert all(map(np.array_equal, first_images, second_images))
    assert not np.array_equal(first_images[0], first_images[-1])


def test_a_reset_tells_the_acting_node_first(acted: Ears) -> None:
    """Instruction, then the actor's new episode, then frames: none of the new one is early."""
    words = 'pick up the butter and put it in the basket'

    def tells_it() -> bool:
        """Reset; a robot that does not know the actor's service yet has nobody to tell."""
        before = acted.resets
        acted.forget()
        assert acted.reset(task='living_room_scene2/butter', seed=2).success
        return acted.resets == before + 1
    acted.until(tells_it)
    acted.until(lambda: acted.heard['rgb'] and [
        message.data for message in acted.heard['instruction']][-1:] == [words])


def test_an_episode_without_success_ends_after_max_steps(acted: Ears) -> None:
    """It says so once, and nothing moves until the next reset."""
    acted.forget()
    acted.reset(seed=2)
    for _ in range(5):
        acted.answer(np.zeros(6), 1.0)
    stamp = stamp_ns(acted.of_episode('rgb')[-1])
    acted.gripper.publish(gripper(1.0))
    acted.arm.publish(twist(stamp, 'base_link', np.zeros(6)))
    acted.until(lambda: acted.heard['episode/success'])
    assert [message.data for message in acted.heard['episode/success']] == [False]


def test_a_command_that_is_nonsense_holds_the_robot(acted: Ears) -> None:
    """It moves nothing, the node lives, and the next good command moves."""
    acted.reset(seed=2)
    acted.answer(np.zeros(6), 1.0)
    acted.answer(np.full(6, np.nan), 7.0)
    acted.answer(np.array([0.0, 0.04, 0.0, 0.0, 0.0, 0.0]), 1.0)
    acted.until(lambda: len(acted.of_episode('ee_pose')) == 4)
    y = [message.pose.position.y for message in acted.of_episode('ee_pose')]
    assert abs(y[-2] - y[-3]) < 0.002 and y[-1] - y[-2] > 0.005


def test_an_unanswered_observation_is_shown_again(acted: Ears) -> None:
    """A frame that got lost must not stop the world."""
    acted.reset(seed=2)
    acted.until(lambda: acted.of_episode('hand_rgb'))
    stamp = stamp_ns(acted.of_episode('hand_rgb')[-1])
    acted.forget()
    acted.until(lambda: acted.heard['hand_rgb'])
    assert stamp_ns(acted.heard['hand_rgb'][-1]) == stamp


def test_a_node_that_comes_late_hears_the_instruction_that_holds(acted: Ears) -> None:
    """
    A subscription may be volatile, and the words may be another one's by then.

    DDS keeps no order between two who publish: the robot may repeat what held before it hears what
    holds now. Whoever listens must hear that last.
    """
    acted.reset(task='living_room_scene2/butter', seed=2)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    words = acted.node.create_publisher(String, 'instruction', latched)
    acted.until(lambda: words.get_subscription_count() >= 2)
    for number in range(4):
        said, late = f'pick up the milk number {number}', list[str]()
        words.publish(String(data=said))
        acted.node.create_subscription(
            String, 'instruction', lambda message, late=late: late.append(message.data), 10)
        acted.until(lambda said=said, late=late: late[-1:] == [said])


def test_an_unknown_task_is_refused_with_the_known_ones(acted: Ears) -> None:
    """The parameter keeps its value, and the node lives."""
    (reason,) = acted.change(task='living_room_scene2/cup')
    assert 'unknown task' in reason and 'living_room_scene2/butter' in reason
    acted.change(official_state=50)
    answer = acted.reset()
    assert not answer.success and '50 official initial states' in answer.message
    acted.change(official_state=-1)
    assert acted.reset().success


def test_any_object_of_the_scene_in_permuted_places_is_named_by_parameters(acted: Ears) -> None:
    """An episode of benchmark B, whose target no task of LIBERO's has: other frames and words."""
    def first_frame(**parameters: Any) -> np.ndarray:
        acted.forget()
        assert acted.reset(task='libero_90/51', seed=5, **parameters).success
        acted.until(lambda: acted.of_episode('rgb') and acted.heard['instruction'])
        return image_to_rgb(acted.of_episode('rgb')[0]).copy()

    own = first_frame(target='orange_juice_1', slots=[-1])
    words = 'pick up the orange juice and put it in the basket'
    assert acted.heard['instruction'][-1].data == words
    permuted = first_frame(slots=[6, 5, 4, 3, 2, 1, 0])
    assert not np.array_equal(own, permuted)
    assert np.array_equal(first_frame(slots=[-1]), own)
    (reason,) = acted.change(slots=[0, 0, 1])
    assert 'a permutation of 0 to n - 1' in reason
    for parameters, complaint in (({'slots': [1, 0]}, 'slots must permute 0..6'),
                                  ({'slots': [-1], 'target': 'cup_1'}, "no object 'cup_1'")):
        answer = acted.reset(**parameters)
        assert not answer.success and complaint in answer.message
    assert acted.reset(target='').success


def test_in_real_time_the_robot_moves_only_while_it_is_told_to(tmp_path: Path) -> None:
    """Frames keep coming, a command is executed once, then the robot stands."""
    robot, _ = nodes.simulation(lock_step=False)
    spec = robot.having(max_steps=0, command_timeout_s=5.0, **SMALL)
    with sim_robot(tmp_path / 'log', spec, 'policy') as ears:
        ears.until(lambda: ears.heard['rgb'])
        for _ in range(4):
            ears.answer(np.array([0.0, 0.04, 0.0, 0.0, 0.0, 0.0]), 1.0)
        ears.until(lambda: len(ears.heard['ee_pose']) > 3)
        ears.forget()
        ears.until(lambda: len(ears.heard['ee_pose']) >= 12)
        y = [message.pose.position.y for message in ears.heard['ee_pose']]
        assert y[-1] > 0.01 and max(np.abs(np.diff(y[-4:]))) < 0.001
        assert not ears.heard['/clock']
        old = stamp_ns(ears.heard['rgb'][-1]) - 10 * 10**9
        ears.arm.publish(twist(old, 'base_link', np.array([0.0, 0.05, 0.0, 0.0, 0.0, 0.0])))
        ears.forget()
        ears.until(lambda: len(ears.heard['ee_pose']) >= 4)
        assert abs(ears.heard['ee_pose'][-1].pose.position.y - y[-1]) < 0.001

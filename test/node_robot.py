"""The robot's side of the policy node, for its tests: cameras, an operator, and ears."""

from contextlib import contextmanager
from dataclasses import replace
import gc
import os
from pathlib import Path
import signal
import subprocess
import time

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Path as PathMessage
import numpy as np
from rcl_interfaces.srv import GetParameters, SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data, QoSProfile, ReliabilityPolicy
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS, image_topic
from ros2_lstm_policy.ros import nodes
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

WAIT_S = 60.0
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


def small_checkpoint(directory, cameras=('static', 'hand'), spoil=None, states=(), actions=None,
                     **changes):
    """
    Make a real, small, untrained checkpoint.

    :param spoil: called with the policy before it is saved.
    :param states: what its manifest has of these.
    :param actions: the groups of its manifest; None for one arm and one gripper.
    :param changes: what a group of its manifest has otherwise, by the group's name.
    """
    from ros2_lstm_policy import config
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.model.untrained import InitConfig, untrained
    small = ['backbone.options.width=64', 'backbone.options.layers=1', 'decoder.hidden_size=64',
             'decoder.num_layers=1', 'decoder.window_size=4']
    chosen = config.load(InitConfig, Path(__file__).parents[1] / 'config' / 'policy_compact.yaml',
                         [f'policy.{line}' for line in small])
    seen = tuple(camera for camera in chosen.manifest.cameras if camera.name in cameras)
    groups = tuple(replace(group, **changes.get(group.name, {}))
                   for group in actions or chosen.manifest.actions)
    policy = untrained(replace(chosen, manifest=replace(
        chosen.manifest, cameras=seen, actions=groups, states=tuple(states))), 0)
    if spoil is not None:
        spoil(policy)
    checkpoint.save(directory, policy, 'A policy for tests.')
    return directory


@contextmanager
def node_process(log, **parameters):
    """Run the policy node as launch and demo start it; it must end well when told to."""
    spec = replace(nodes.POLICY, params_file=parameters.pop('params_file', 'policy.yaml'))
    environment = {**os.environ, **nodes.environment()}
    gc.collect()  # rclpy's lifecycle nodes are cycles: until then this process has one of its name
    with log.open('w') as output:
        process = subprocess.Popen(nodes.command(spec.having(**parameters)), env=environment,
                                   stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            status = process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert status == 0, log.read_text()


class Robot:
    """
    Shows images, gives orders, hears commands; everything happens in :meth:`until`.

    Frames of the `cameras` are published at `rate_hz`, 0 for by :meth:`show` alone;
    `stamp_offset_s` moves their stamps.
    """

    def __init__(self, reliability=ReliabilityPolicy.BEST_EFFORT, cameras=DEFAULT_CAMERAS):
        """Join the ROS domain with a context of its own."""
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[])
        self.node = rclpy.create_node('robot', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        frames = QoSProfile(depth=5, reliability=reliability)
        self._images = {name: self.node.create_publisher(Image, topic, frames)
                        for name, topic in zip(cameras, map(image_topic, cameras))}
        self._poses = self.node.create_publisher(PoseStamped, 'ee_pose', 10)
        self._joints = self.node.create_publisher(JointState, 'joint_states', 10)
        self._orders = self.node.create_publisher(String, 'instruction', QoSProfile(depth=10))
        self._clock = self.node.create_publisher(Clock, '/clock', qos_profile_sensor_data)
        self.arms, self.grippers, self.twists, self.chunks = [], [], [], []
        self._heard, self.diagnostics, self._told_ns = [], {}, 0
        for kind, topic, take in (
                (Float64MultiArray, 'gripper_command', self._take_gripper),
                (TwistStamped, 'arm_delta', self._take_arm),
                (TwistStamped, 'delta_twist_cmds', self.twists.append),
                (PathMessage, 'action_chunk', self.chunks.append)):
            self.node.create_subscription(kind, f'policy/{topic}', take, QoSProfile(depth=100))
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics, 10)
        self._change = self.node.create_client(ChangeState, 'policy/change_state')
        self._state = self.node.create_client(GetState, 'policy/get_state')
        self._reset = self.node.create_client(Trigger, 'policy/reset_episode')
        self._parameters = self.node.create_client(SetParameters, 'policy/set_parameters')
        self.cameras, self.rate_hz, self.stamp_offset_s = set(cameras), 20.0, 0.0
        self.pose_m, self.pose_frame, self.sim_time_ns = None, 'base_link', None
        self.joints = {}
        self.change_joints = lambda message: None
        self.change_image = lambda name, message: None
        self._arm_sent_ns = 0
        self.shown, self._next_s, self._random = [], 0.0, np.random.default_rng(0)

    def close(self):
        """Leave."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def forget(self):
        """Forget what was heard."""
        for heard in (self.arms, self.grippers, self.twists, self.chunks, self._heard):
            heard.clear()
        self.diagnostics.clear()

    def until(self, condition, timeout_s=WAIT_S):
        """Show images and listen until the condition holds; return what it gives."""
        end_s = time.monotonic() + timeout_s
        while not (result := condition()):
            assert time.monotonic() < end_s, f'timed out; {self.messages()}'
            self._show_what_is_due()
            self.executor.spin_once(timeout_sec=0.01)
        return result

    def listen(self, duration_s):
        """Go on for a time, where nothing is to happen."""
        end_s = time.monotonic() + duration_s
        self.until(lambda: time.monotonic() >= end_s, duration_s + 1)

    def call(self, client, request):
        """Call a service."""
        self.until(client.service_is_ready)
        until_known(self.node, self.until, 'policy')
        future = client.call_async(request)
        self.until(future.done)
        return future.result()

    def change(self, transition):
        """Ask for a transition; return whether it happened."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(self._change, request).success

    def state(self):
        """Return the node's lifecycle state."""
        return self.call(self._state, GetState.Request()).current_state.label

    def reset(self):
        """Reset the episode."""
        return self.call(self._reset, Trigger.Request())

    def give(self, **values):
        """Set parameters; return the reasons of those that were refused."""
        messages = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        results = self.call(self._parameters, SetParameters.Request(parameters=messages)).results
        return [result.reason for result in results if not result.successful]

    def order(self, text):
        """Publish an instruction, once somebody hears it."""
        self.until_heard(self._orders)
        self._orders.publish(String(data=text))

    def until_heard(self, *publishers):
        """Wait until the node hears these publishers, or those of the images."""
        for publisher in publishers or self._images.values():
            self.until(lambda p=publisher: p.get_subscription_count() > 0)

    def bring_to(self, label, **parameters):
        """Bring the node to unconfigured, then on to inactive or active, with parameters."""
        if self.state() == 'active':
            assert self.change(DEACTIVATE)
        if self.state() == 'inactive':
            assert self.change(CLEANUP)
        assert self.give(**parameters) == []
        if label != 'unconfigured':
            assert self.change(CONFIGURE), self.messages()
        if label == 'active':
            assert self.change(ACTIVATE), self.messages()
        self.forget()

    def commands(self):
        """Return the arm messages that move."""
        return [arm for arm in self.arms if any(values(arm))]

    def acts(self):
        """Return whether a command has come since :meth:`forget`."""
        return len(self.commands()) > 0

    def holds(self, words):
        """Return whether the node says that it holds, with these words."""
        return lambda: words in self.message('commands')

    def until_holding(self, words):
        """
        Wait until the node says that it holds, and until its commands of before have come.

        Two topics have no common order: a command may come after the diagnostics that follow it.
        """
        self.until(self.holds(words))
        told_ns = self._told_ns
        self.until(lambda: self._arm_sent_ns > told_ns)
        self.forget()

    def until_silent(self, duration_s=0.5):
        """Wait for a time in which nothing that moves the robot is heard."""
        def is_silent():
            self.forget()
            self.listen(duration_s)
            return not self.heard and not self.twists
        self.until(is_silent)

    def until_answered(self, count):
        """
        Wait for so many answers, each a gripper and then an arm message, and nothing else.

        The two come on topics of their own, so that either may be late.
        """
        def is_paired():
            heard = self.heard
            answers = heard[heard.index('gripper'):] if 'gripper' in heard else []
            return (len(answers) >= 2 * count
                    and answers == ['gripper', 'arm'] * (len(answers) // 2))
        self.until(is_paired)

    def show_until(self, condition, stamp_ns, image=None):
        """Show a moment until a condition holds; frames of best effort may be lost."""
        next_s = 0.0

        def is_reached():
            nonlocal next_s
            if time.monotonic() >= next_s and not condition():
                self.show(stamp_ns, image)
                next_s = time.monotonic() + 1.0
            return condition()
        self.until(is_reached)

    def message(self, part):
        """Return what one part of the diagnostics says."""
        return self.diagnostics[part].message if part in self.diagnostics else ''

    def messages(self):
        """Return what all of the diagnostics say."""
        return {part: status.message for part, status in self.diagnostics.items()}

    def value(self, part, key):
        """Return a value of the diagnostics."""
        return {pair.key: pair.value for pair in self.diagnostics[part].values}[key]

    def show(self, stamp_ns, image=None):
        """Publish a frame of each camera that is on."""
        for name in sorted(self.cameras):
            pixels = image if image is not None else self._random.integers(
                0, 255, (48, 64, 3), np.uint8)
            message = image_message(pixels, stamp_ns)
            self.change_image(name, message)
            self._images[name].publish(message)
        self.shown.append(stamp_ns)

    def tell_joints(self, stamp_ns):
        """Publish where the joints are, name to position."""
        message = JointState(name=list(self.joints), position=[*map(float, self.joints.values())])
        message.header.stamp = stamp(stamp_ns)
        self.change_joints(message)
        self._joints.publish(message)

    def tell_time(self, time_ns):
        """Publish /clock; frames are stamped with it from here on."""
        self.sim_time_ns = time_ns
        self._clock.publish(Clock(clock=stamp(time_ns)))

    def _show_what_is_due(self):
        now_s = time.monotonic()
        if not self.rate_hz or now_s < self._next_s:
            return
        self._next_s = now_s + 1 / self.rate_hz
        now_ns = time.time_ns()
        if self.sim_time_ns is not None:
            self.tell_time(self.sim_time_ns + int(1e9 / self.rate_hz))
            now_ns = self.sim_time_ns
        if self.joints:
            self.tell_joints(now_ns)
        self.show(now_ns + int(self.stamp_offset_s * 1e9))
        if self.pose_m is not None:
            pose = PoseStamped()
            pose.header.stamp, pose.header.frame_id = stamp(now_ns), self.pose_frame
            pose.pose.orientation.w = 1.0
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = self.pose_m
            self._poses.publish(pose)

    @property
    def heard(self):
        """Return 'arm' and 'gripper' in the order in which they were sent."""
        return [kind for _, kind in sorted(self._heard)]

    def _take_arm(self, message, info):
        self.arms.append(message)
        self._heard.append((info['source_timestamp'], 'arm'))
        self._arm_sent_ns = info['source_timestamp']

    def _take_gripper(self, message, info):
        self.grippers.append(message)
        self._heard.append((info['source_timestamp'], 'gripper'))

    def _take_diagnostics(self, message, info):
        self._told_ns = info['source_timestamp']
        self.diagnostics.update({s.name.partition(': ')[2]: s for s in message.status})


def until_known(node, until, name):
    """
    Wait until another node knows our clients; before, it throws their answers away.

    It hears of them in the order in which they were made. What this one asks can be asked again;
    once it is answered, questions of those before it will be.
    """
    client = node.create_client(GetParameters, f'{name}/get_parameters')
    asked = []

    def is_answered():
        if client.service_is_ready() and (not asked or time.monotonic() - asked[-1][0] > 2):
            asked.append((time.monotonic(), client.call_async(GetParameters.Request())))
        return any(future.done() for _, future in asked)
    until(is_answered)
    node.destroy_client(client)


def stamp(time_ns):
    """Return nanoseconds as a message."""
    return Time(sec=time_ns // 10**9, nanosec=time_ns % 10**9)


def nanoseconds(message):
    """Return the stamp of a message."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def image_message(pixels, stamp_ns):
    """Return an rgb8 image."""
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding='rgb8',
                    step=3 * pixels.shape[1], data=pixels.tobytes())
    message.header.stamp = stamp(stamp_ns)
    return message


def values(twist):
    """Return the six numbers of a twist."""
    t = twist.twist
    return (t.linear.x, t.linear.y, t.linear.z, t.angular.x, t.angular.y, t.angular.z)


def still(twist):
    """Return whether a twist moves nothing."""
    return not any(values(twist))


def until_it_moves(robot):
    """Wait for commands on both topics of motion."""
    robot.forget()
    robot.until(lambda: robot.acts() and not all(still(twist) for twist in robot.twists))


def until_it_rests(robot):
    """Wait for a zero on both topics of motion after which, for a time, nothing else follows."""
    def rests():
        robot.until(lambda: still(robot.arms[-1]) and still(robot.twists[-1]))
        last = robot.arms[-1:], robot.twists[-1:]
        robot.forget()
        robot.arms[:], robot.twists[:] = last
        robot.listen(0.3)
        return all(still(message) for message in (*robot.arms, *robot.twists))
    robot.until(rests)

"""Tests of the policy node's parts that need no policy: parameters, topics, signals, gripper."""

from functools import partial
from pathlib import Path
import signal
from types import SimpleNamespace

import cv2
from node_robot import node_process, Robot, WAIT_S
import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from ros2_lstm_policy.manifest import ActionGroup, CameraSpec
from ros2_lstm_policy.ros import conversions
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.diagnostics import Holds, LatestLine
from ros2_lstm_policy.ros.lifecycle import GuardedLifecycleNode
from ros2_lstm_policy.ros.policy import parameters
from ros2_lstm_policy.ros.policy.gripper_action import GripperAction
from ros2_lstm_policy.ros.policy.inputs import Inputs
from ros2_lstm_policy.ros.policy.parameters import Parameters, Settings
from ros2_lstm_policy.ros.policy.states import PresentInput
from ros2_lstm_policy.ros.policy.words import Words
from ros2_lstm_policy.runtime.safety import Pose
from ros2_lstm_policy.streams import StreamConfig
from ros2_lstm_policy.types import Reason
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String


@pytest.fixture
def make_node():
    """Return a maker of lifecycle nodes in a context of their own."""
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    nodes = []

    def make(kind=LifecycleNode, **overrides):
        nodes.append(kind('policy', context=context, parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value) for name, value in overrides.items()]))
        return nodes[-1]
    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.fixture
def robot():
    """Return the robot's side."""
    robot = Robot()
    yield robot
    robot.close()


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('max_linear_speed_m_s', 99.0, 'max_linear_speed_m_s'),
    ('max_linear_speed_m_s', 1, 'write 1.0'),
    ('gripper_open', 5, 'write 5.0'),
    ('workspace_m', [0, 0, 0, 1, 1, 1], 'write [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]'),
    ('threads', 0, 'threads'),
    ('trigger', 'sometimes', "trigger is 'sometimes'; expected one of 'timer', 'frames'"),
    ('cameras', ['Side'], "camera 'Side': a name is a lower-case letter"),
    ('workspace_m', [0.0, 0.0], 'workspace_m is [0.0, 0.0]; expected x y z minima'),
])
def test_a_bad_parameter_at_the_start_is_kept_from_use_until_it_is_set_again(
        make_node, name, value, words):
    """The node lives and cannot be configured; setting the parameter mends it."""
    node = make_node(**{name: value})
    declared = Parameters(node)
    with pytest.raises(ParameterError) as caught:
        declared.read()
    assert words in str(caught.value)
    default = getattr(Settings(), name)
    default = list(default) if isinstance(default, tuple) else default
    assert node.set_parameters([Parameter(name, value=default)])[0].successful
    assert declared.read() == Settings()


@pytest.mark.parametrize(('name', 'value', 'words'), [
    ('deadline_s', 1, 'deadline_s is 1 (integer); expected double; write 1.0'),
    ('deadline_s', [1, 2], 'deadline_s is [1, 2] (integer array); expected double'),
    ('deadline_s', True, 'deadline_s is True (boolean); expected double'),
    ('workspace_m', [0, 0, 0, 1, 1, 1], 'expected double array; write [0.0, 0.0, 0.0, 1.0, 1.0, '),
    ('workspace_m', 1.0, 'workspace_m is 1.0 (double); expected double array; write [1.0]'),
    ('threads', 2.0, 'threads is 2.0 (double); expected integer'),
    ('shadow', 1, 'shadow is 1 (integer); expected boolean'),
    ('instruction', 5, 'instruction is 5 (integer); expected string; write it in quotes'),
    ('cameras', 'hand', "cameras is 'hand' (string); expected string array; write ['hand']"),
    ('cameras', None, 'cameras is not set; expected string array'),
])
def test_a_value_of_another_type_is_refused_with_what_to_write(make_node, name, value, words):
    """When it was set on a running node, neither the parameter nor the remedy was named."""
    node = make_node()
    declared = Parameters(node)
    result, = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful
    assert words in result.reason
    assert declared.read() == Settings()


def test_whole_numbers_set_over_ros_are_refused_with_what_to_write(make_node, robot):
    """What `ros2 param set /policy max_linear_speed_m_s 1` shows."""
    node = make_node()
    Parameters(node)
    robot.executor.add_node(node)
    reason, = robot.give(max_linear_speed_m_s=1)
    assert reason == 'max_linear_speed_m_s is 1 (integer); expected double; write 1.0'
    robot.executor.remove_node(node)


def test_a_parameter_that_does_not_exist_is_named_with_its_neighbour(make_node):
    """A typing error in a limit must not go unseen."""
    declared = Parameters(make_node(max_linear_sped_m_s=0.1))
    assert declared.unknown == [
        "there is no parameter 'max_linear_sped_m_s'; did you mean max_linear_speed_m_s?"]


def test_every_parameter_says_what_it_means_and_its_range(make_node):
    """What `ros2 param describe` shows."""
    node = make_node()
    Parameters(node)
    for name in Settings.__dataclass_fields__:
        assert node.describe_parameter(name).description
    speed = node.describe_parameter('max_linear_speed_m_s')
    assert speed.floating_point_range[0].to_value == 10.0
    assert speed.description.endswith('[m/s]')
    assert node.describe_parameter('autostart').read_only


def test_the_documented_parameters_are_those_of_the_node():
    """The table in docs/node.md is `python -m ros2_lstm_policy.ros.policy.parameters`."""
    page = (Path(__file__).parents[1] / 'docs' / 'node.md').read_text()
    assert parameters.table() in page


def specs(*cameras):
    """Return small cameras."""
    return [CameraSpec(name, 8, 8, 'area', (0.5,) * 3, (0.5,) * 3) for name in cameras]


def missing_hand(node, robot, code):
    """Return what a node says about the hand camera once the graph is known."""
    inputs = Inputs(node, Settings(), specs('static', 'hand'), lambda: None, lambda text: None)
    reason, robot.rate_hz = Reason('no_image', 'hand: no image yet', 'hand'), 0

    def explained():
        inputs._findings.clear()
        found, = inputs.explain([reason])
        return found.text if found.code == code else ''
    return robot.until(explained)


def test_a_camera_that_nobody_publishes_is_said_to_be_unpublished(make_node, robot):
    """The topic is named as it was resolved."""
    for publisher in robot._images.values():
        robot.node.destroy_publisher(publisher)
    text = missing_hand(make_node(), robot, 'no_publisher')
    assert text == ('hand: no image yet; nobody publishes /hand_rgb; remap it to the topic of '
                    'the camera')


def test_a_camera_of_incompatible_qos_is_said_to_be_so(make_node, robot):
    """Best effort offered, reliable asked for: nothing would ever come, without a word."""
    node = make_node(**{'qos_overrides./hand_rgb.subscription.reliability': 'reliable'})
    text = missing_hand(node, robot, 'incompatible_qos')
    assert text == ('hand: no image yet; the QoS of a publisher of /hand_rgb is incompatible '
                    'with the QoS of this node: Best effort publisher and reliable subscription')


def test_a_camera_of_another_type_is_said_to_be_so(make_node, robot):
    """The parameter that would change it is named."""
    robot.node.destroy_publisher(robot._images['hand'])
    robot.node.create_publisher(CompressedImage, 'hand_rgb', 1)
    text = missing_hand(make_node(), robot, 'other_type')
    assert ('/hand_rgb is published as sensor_msgs/msg/CompressedImage, and Image is wanted '
            '(parameter compressed)') in text


S = 10**9


@pytest.fixture
def told(make_node):
    """Return a function that has words come at a time of their sender, and what was obeyed."""
    obeyed, node = [], make_node()

    def subscribe(take, qos, override_id):
        return node.create_subscription(String, 'instruction', take, qos)
    words = Words(node, subscribe, obeyed.append)

    def tell(text, sent_s, latched=False):
        take = words.take_latched if latched else words.take
        take(String(data=text), {'source_timestamp': int(sent_s * S)})
        return obeyed
    return tell


def test_words_of_a_machine_whose_clock_is_behind_are_heard(told):
    """An operator said "stop" from a laptop two seconds behind; the robot went on."""
    told('pick up the milk', 1000)
    told('pick up the butter', 998)
    assert told('', 990) == ['pick up the milk', 'pick up the butter', '']
    assert told('pick up the milk', 1003)[-1] == 'pick up the milk'


def test_words_that_were_overtaken_on_their_way_are_passed_over(told):
    """DDS keeps no order between two publishers; a stop counts whenever it comes."""
    told('pick up the butter', 1000)
    assert told('pick up the milk', 999.995) == ['pick up the butter']
    assert told('', 999.995)[-1] == ''


def test_both_subscriptions_hear_what_a_latching_publisher_says_and_it_counts_once(told):
    """Whichever copy comes first; an older one that follows is not obeyed again."""
    told('pick up the milk', 1000, latched=True)
    told('pick up the milk', 1000)
    told('', 1001)
    told('pick up the butter', 1002)
    told('', 1001, latched=True)
    told('pick up the butter', 1002, latched=True)
    assert list(dict.fromkeys(told('', 1001, latched=True))) == [
        'pick up the milk', '', 'pick up the butter']
    assert told('pick up the milk', 1000, latched=True)[-1] == 'pick up the butter'


def test_words_latched_before_those_that_hold_move_nothing(told):
    """A publisher that DDS finds late, or again after its link broke, tells its history."""
    told('pick up the milk', 1000)
    told('', 1005)
    assert told('pick up the butter', 900, latched=True) == ['pick up the milk', '']
    assert told('pick up the milk', 1000, latched=True) == ['pick up the milk', '']
    assert told('pick up the milk', 1010, latched=True)[-1] == 'pick up the milk'
    assert told('', 900, latched=True)[-1] == ''


def test_a_qos_override_changes_its_topic_and_no_other(make_node):
    """The override of one camera once changed all: rclpy writes into the shared profile."""
    node = make_node(**{'qos_overrides./rgb.subscription.reliability': 'reliable'})
    inputs = Inputs(node, Settings(), specs('static', 'hand'), lambda: None, lambda text: None)
    qos = {c: s.qos_profile.reliability for c, s in inputs._images.items()}
    assert qos == {'static': ReliabilityPolicy.RELIABLE, 'hand': ReliabilityPolicy.BEST_EFFORT}


def test_compressed_images_are_taken_where_asked_for(make_node, robot):
    """The same topic, another type."""
    node = make_node()
    inputs = Inputs(node, Settings(compressed=True), specs('static'), lambda: None,
                    lambda text: None)
    robot.rate_hz = 0
    robot.node.destroy_publisher(robot._images['static'])
    publisher = robot.node.create_publisher(CompressedImage, 'rgb', 1)
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    message = CompressedImage(format='png', data=cv2.imencode('.png', image)[1].tobytes())
    message.header.stamp.sec = 7
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)

    def taken():
        publisher.publish(message)
        executor.spin_once(timeout_sec=0.1)
        return inputs.sampler.frames
    frame = robot.until(taken)['static']
    assert frame.stamp_ns == 7 * 10**9
    np.testing.assert_array_equal(frame.image, image[..., ::-1])


def test_the_pose_is_heard_without_a_workspace_too(make_node, robot):
    """The chunk that is shown began at the origin of the base unless a workspace was set."""
    node = make_node()
    where = PresentInput(ActionGroup('arm', 'ee_delta', 6), 'ee_pose', StreamConfig(
        'ee_pose', 'geometry_msgs/msg/PoseStamped'))
    inputs = Inputs(node, Settings(), specs('static'), lambda: None, lambda text: None, [where])
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    robot.pose_m = (0.4, 0.1, 0.2)

    def heard():
        executor.spin_once(timeout_sec=0.01)
        found = inputs.presents(node.get_clock().now().nanoseconds)['arm']
        return found if isinstance(found, Pose) else None
    np.testing.assert_array_equal(robot.until(heard).position_m, robot.pose_m)


class Clumsy(GuardedLifecycleNode):
    """Fails at one step."""

    fails_at, cleaned = '', 0

    def configure(self):
        """Fail where it is told to."""
        self._fail('configure')

    def activate(self):
        """Fail where it is told to."""
        self._fail('activate')

    def deactivate(self):
        """Fail where it is told to."""
        self._fail('deactivate')

    def cleanup(self):
        """Count."""
        self.cleaned += 1

    def _fail(self, step):
        if self.fails_at == step:
            raise RuntimeError('a surprise')


@pytest.mark.parametrize(('step', 'label'), [
    ('configure', 'unconfigured'), ('activate', 'inactive'), ('deactivate', 'unconfigured')])
def test_a_transition_that_raises_is_told_and_can_be_tried_again(make_node, step, label):
    """An exception used to end a transition without a word."""
    node = make_node(Clumsy)
    node.fails_at = step
    for go in (node.trigger_configure, node.trigger_activate, node.trigger_deactivate):
        if node.last_error == '':
            go()
    assert node.last_error == f'{step}: RuntimeError: a surprise'
    assert node.state_label == label
    node.fails_at = ''
    if label == 'unconfigured':
        assert node.cleaned == 1
        node.trigger_configure()
    node.trigger_activate()
    assert (node.state_label, node.last_error) == ('active', '')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_node_with_status_zero(tmp_path, robot, number):
    """A second signal during the clean-up changes nothing."""
    with node_process(tmp_path / 'node.log') as process:
        robot.until(lambda: robot.message('state') == 'unconfigured')
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait(WAIT_S) == 0


def test_a_node_that_waits_to_be_configured_says_so(tmp_path, robot):
    """It printed nothing at all, and looked as if it hung."""
    log = tmp_path / 'node.log'
    with node_process(log):
        robot.until(lambda: 'waiting: `ros2 lifecycle set /policy configure`' in log.read_text())


def test_a_started_node_that_cannot_be_configured_lives_and_says_why(tmp_path, robot):
    """Autostart with a bad checkpoint and a bad parameter: one clear error after the other."""
    with node_process(tmp_path / 'node.log', autostart=True, checkpoint='/nowhere',
                      deadline_s=-1.0):
        robot.until(lambda: 'deadline_s' in robot.message('state'))
        assert robot.give(deadline_s=0.3) == []
        assert not robot.change(1)
        robot.until(lambda: '/nowhere/config.yaml is missing' in robot.message('state'))
        assert robot.state() == 'unconfigured'


class Log:
    """A logger that remembers."""

    def __init__(self):
        """Begin empty."""
        self.lines = []
        self.info = self.warning = self.lines.append


def test_a_lasting_reason_is_logged_once_and_its_end_once():
    """Ten ticks a second must not be ten lines a second, whatever numbers are in the text."""
    log = Log()
    holds = Holds(log)
    for age in range(5):
        holds.begin([Reason('old_image', f'hand: {age} s old', 'hand')])
    holds.end()
    holds.end()
    holds.begin([Reason('old_image', 'hand: 9 s old', 'hand')])
    holds.end()
    assert log.lines == ['holding: hand: 0 s old', 'acting']
    assert holds.counts == {'old_image': 6}


def test_a_chunk_is_integrated_in_the_axes_of_its_deltas():
    """Forward, then a quarter turn: base deltas keep their axes, tool deltas turn."""
    step = np.array([[0.1, 0, 0, 0, 0, np.pi / 2], [0.1, 0, 0, 0, 0, 0]])
    start = Pose(np.array([1.0, 0, 0]), np.eye(3))
    ends = {}
    for in_tool in (False, True):
        poses = conversions.path(0, 'base_link', step, in_tool, start).poses
        p, q = poses[-1].pose.position, poses[-1].pose.orientation
        ends[in_tool] = (p.x, p.y)
        np.testing.assert_allclose([q.x, q.y, q.z, q.w], [0, 0, np.sqrt(0.5), np.sqrt(0.5)],
                                   atol=1e-12)
    np.testing.assert_allclose(ends[False], (1.2, 0), atol=1e-12)
    np.testing.assert_allclose(ends[True], (1.1, 0.1), atol=1e-12)


@pytest.mark.parametrize('kind', ['GripperCommand', 'ParallelGripperCommand'])
def test_a_gripper_goal_has_the_fields_of_its_action(kind):
    """The goals of control_msgs, filled by name; the fake goal has their fields and no others."""
    command = SimpleNamespace(position=0.0, max_effort=0.0)
    if kind == 'ParallelGripperCommand':
        command = SimpleNamespace(name=[], position=[], velocity=[], effort=[])
    action = GripperAction.__new__(GripperAction)
    action._settings = Settings(gripper_action=kind, gripper_max_effort=5.0)
    action._kind = SimpleNamespace(Goal=partial(SimpleNamespace, command=command))
    goal = action._goal(0.04)
    if kind == 'GripperCommand':
        assert (goal.command.position, goal.command.max_effort) == (0.04, 5.0)
    else:
        assert vars(goal.command) == {'name': ['finger_joint'], 'position': [0.04],
                                      'velocity': [], 'effort': [5.0]}


class _Lines:
    """A logger that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def info(self, text):
        self.lines.append(text)

    warning = info


def test_a_flood_of_changing_words_is_a_line_a_second_and_its_last_word_is_logged(monkeypatch):
    """A publisher that said other words a thousand times a second filled the log: 1988 lines."""
    now = [100.0]
    monkeypatch.setattr('ros2_lstm_policy.ros.diagnostics.time.monotonic', lambda: now[0])
    log = _Lines()
    told = LatestLine(log, 1.0)
    for number in range(2500):
        told.say(f'word {number}')
        now[0] += 0.001
    told.catch_up()
    told.catch_up()
    assert log.lines[0] == 'word 0'
    assert log.lines[-1].startswith('word 2499 (after ')
    assert len(log.lines) <= 5


def test_a_second_reason_is_logged_at_once_while_the_first_is_throttled(monkeypatch):
    """Each is rare for itself; a shared throttle would hide the one that matters."""
    now = [100.0]
    monkeypatch.setattr('ros2_lstm_policy.ros.diagnostics.time.monotonic', lambda: now[0])
    log = _Lines()
    holds = Holds(log)
    for number in range(100):
        holds.begin([Reason('no_image', f'hand: {number}', 'hand')])
        holds.end()
        holds.begin([Reason('old_image', f'static: {number}', 'static')])
        now[0] += 0.01
    assert log.lines == ['holding: hand: 0', 'acting', 'holding: static: 0']


def test_the_logs_last_word_is_what_the_robot_does(monkeypatch):
    """The throttle dropped the line for good: the log said "acting" for minutes of holding."""
    now = [100.0]
    monkeypatch.setattr('ros2_lstm_policy.ros.diagnostics.time.monotonic', lambda: now[0])
    log = _Lines()
    holds = Holds(log)
    reason = Reason('no_image', 'hand: no image yet', 'hand')
    for _ in range(2):
        holds.begin([reason])
        holds.end()
        now[0] += 0.5
    for _ in range(100):
        holds.begin([reason])
        now[0] += 0.1
    assert log.lines[-1] == 'holding: hand: no image yet'
    assert len(log.lines) <= 4, 'still throttled'

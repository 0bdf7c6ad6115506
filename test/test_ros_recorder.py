"""Tests of the recorder over real DDS: what was published is what is in the bag."""

from contextlib import contextmanager
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from node_robot import image_message, stamp, until_known
import numpy as np
import pytest
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.rosbag import BagLayout, BagRecording, find_bags
from ros2_lstm_policy.data.rosbag.index import index_bag
from ros2_lstm_policy.ros import nodes
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, Float32, Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger

WAIT_S = 20.0
SHARED = int(os.environ['ROS_DOMAIN_ID'])
ALONE = SHARED + 50  # for tests with a recorder of their own, beside the shared one
WORDS = 'put the milk in the basket'
PERIOD_S = 0.05
PATIENT = {'max_camera_gap_s': 60.0, 'max_action_gap_s': 60.0}  # a busy machine is no fault


@contextmanager
def recorder(log: Path, stop=signal.SIGINT, domain=ALONE, **parameters):
    """Run the recorder as launch and demo start it."""
    environment = {**os.environ, **nodes.environment(), 'ROS_DOMAIN_ID': str(domain)}
    with log.open('w') as output:
        process = subprocess.Popen(
            nodes.command(nodes.RECORDER.having(
                **{'min_free_mb': 1.0, 'control_period_s': PERIOD_S, **PATIENT, **parameters})),
            env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(stop)
        status = process.wait(WAIT_S)
    assert status == (0 if stop == signal.SIGINT else -stop), log.read_text()


class Cell:
    """A robot cell: cameras, an actor, words, an outcome, and a person who calls services."""

    def __init__(self, reliability=ReliabilityPolicy.BEST_EFFORT, domain=ALONE):
        """Join a ROS domain with a context of its own."""
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[], domain_id=domain)
        self.node = rclpy.create_node('cell', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        frames = QoSProfile(depth=20, reliability=reliability)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        create = self.node.create_publisher
        self.images = {name: create(Image, topic, frames)
                       for name, topic in (('static', 'rgb'), ('hand', 'hand_rgb'))}
        self.gripper = create(Float64MultiArray, 'gripper_command', 10)
        self.arm = create(TwistStamped, 'arm_delta', 10)
        self.words = create(String, 'instruction', latched)
        self.outcome = create(Bool, 'episode/success', 10)
        self.state = create(DiagnosticArray, '/diagnostics', 10)
        self.said = ''
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._listen, 10)

    def close(self):
        """Leave."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def until(self, condition, timeout_s=WAIT_S):
        """Listen until the condition holds."""
        end_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end_s, f'timed out; the recorder says: {self.said}'
            self.executor.spin_once(timeout_sec=0.01)

    def call(self, name, kind=Trigger, **fields):
        """Call a service of the recorder."""
        client = self.node.create_client(kind, f'recorder/{name}')
        self.until(client.service_is_ready)
        until_known(self.node, self.until, 'recorder')
        future = client.call_async(kind.Request(**fields))
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def begin(self):
        """Begin an episode, once the recorder knows all who publish; return its name."""
        answers = []

        def has_begun():
            answers.append(self.call('start'))
            return answers[-1].success
        self.until(has_begun)
        return answers[-1].message

    def give(self, **values):
        """Set parameters of the recorder."""
        messages = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
        results = self.call('set_parameters', SetParameters, parameters=messages).results
        return [result.reason for result in results if not result.successful]

    def ready(self):
        """Wait until the recorder hears everything and has adapted to it."""
        publishers = [*self.images.values(), self.gripper, self.arm, self.words, self.outcome]
        self.until(lambda: all(p.get_subscription_count() for p in publishers))
        self.until(lambda: all(map(self.is_followed, publishers)))

    def is_followed(self, publisher):
        """Return whether the recorder's subscription is the one that this publisher deserves."""
        heard = self.node.get_subscriptions_info_by_topic(publisher.topic_name)
        wanted = {publisher.qos_profile.reliability}
        if publisher in (self.words, self.outcome):
            return len(heard) >= 1
        return (publisher.get_subscription_count() == len(heard) == 1
                and {info.qos_profile.reliability for info in heard} == wanted)

    def step(self, number, stamp_ns, cameras=('static', 'hand')):
        """Publish one step: a frame of each camera, then the actor's answer."""
        for camera in cameras:
            self.images[camera].publish(image_message(picture(number, camera), stamp_ns))
        self.gripper.publish(Float64MultiArray(data=[float(number // 3 % 2)]))
        message = TwistStamped()
        message.header.stamp = stamp(stamp_ns)
        message.twist.linear.x = 0.001 * number
        message.twist.angular.z = -0.002
        self.arm.publish(message)

    def episode(self, count=12):
        """Publish steps at about 20 Hz, stamped at exactly that, and return their stamps."""
        begin_ns = time.time_ns()
        stamps = [begin_ns + number * round(PERIOD_S * 1e9) for number in range(count)]
        for number, stamp_ns in enumerate(stamps):
            self.step(number, stamp_ns)
            self.wait(PERIOD_S)
        return stamps

    def wait(self, duration_s):
        """Go on for a time."""
        end_s = time.monotonic() + duration_s
        self.until(lambda: time.monotonic() >= end_s)

    def _listen(self, message):
        for status in message.status:
            if status.name == 'recorder: state':
                self.said = status.message


def picture(number, camera):
    """Return an image that is another one for each step and camera."""
    return np.random.default_rng(number + (1000 if camera == 'hand' else 0)).integers(
        0, 255, (24, 32, 3), np.uint8)


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Return a cell beside a running recorder, and its folder."""
    folder = tmp_path_factory.mktemp('recorder')
    cell = Cell(domain=SHARED)
    with recorder(folder / 'log.txt', domain=SHARED, directory=str(folder / 'bags')):
        cell.ready()
        yield cell, folder / 'bags'
    cell.close()


@pytest.fixture
def cell(running):
    """Return the cell, with the recorder as it was started."""
    cell, _ = running
    if not cell.call('discard').success:
        cell.said = ''
    assert cell.give(automatic=False, actor='expert', instruction='', arm='displacement',
                     **PATIENT) == []
    return cell


@pytest.fixture
def bags(running):
    """Return the recorder's folder."""
    return running[1]


def read(path):
    """Read the only episode of a bag."""
    reading, = BagRecording(path, BagLayout()).read()
    return reading


def order(cell, words=WORDS):
    """Publish an instruction and wait until it has surely come."""
    cell.words.publish(String(data=words))
    assert cell.words.wait_for_all_acked()
    cell.call('label', SetBool, data=True)  # answered after the instruction was taken


def test_no_episode_begins_without_words(cell):
    """This one comes first: nothing has been said yet."""
    answer = cell.call('start')
    assert not answer.success
    assert 'there is no instruction' in answer.message


def test_what_is_published_is_what_training_reads(cell, bags):
    """Every pixel, delta, gripper value, stamp, the words and the label."""
    order(cell)
    name = cell.begin()
    stamps = cell.episode()
    assert cell.call('label', SetBool, data=True).success
    stopped = cell.call('stop')
    assert stopped.success, stopped.message
    assert 'success; 0 lost' in stopped.message
    reading = read(bags / name)
    episode = reading.episode
    assert (episode.name, episode.instruction, episode.success) == (name, WORDS, True)
    assert episode.stamps_ns.tolist() == stamps
    assert reading.facts['actor'] == 'expert'
    assert reading.remarks == ()
    np.testing.assert_allclose(episode.actions['arm'][:, 0], 0.001 * np.arange(12), rtol=1e-6)
    assert episode.actions['gripper'][:, 0].tolist() == [float(n // 3 % 2) for n in range(12)]
    for camera, frames in episode.frames.items():
        for number in range(12):
            np.testing.assert_array_equal(frames[number], picture(number, camera))


def test_a_discarded_episode_is_gone(cell, bags):
    """And the recorder is ready for the next one."""
    order(cell)
    before = find_bags(bags)
    name = cell.begin()
    cell.episode(3)
    assert cell.call('discard').message == name
    assert find_bags(bags) == before
    assert not (bags / 'partial').exists()
    assert not cell.call('stop').success


def test_an_episode_is_begun_once(cell):
    """A second start names the episode that is being recorded."""
    order(cell)
    name = cell.begin()
    answer = cell.call('start')
    assert not answer.success
    assert name in answer.message


def test_the_topics_begin_label_and_end_episodes(cell, bags):
    """The mode automatic: what a simulator or a cell's controller publishes is enough."""
    assert cell.give(automatic=True) == []
    before = set(find_bags(bags))
    for label in (True, False):
        cell.words.publish(String(data=WORDS))  # the same words begin an episode, too
        cell.words.wait_for_all_acked()
        stamps = cell.episode(5)
        cell.outcome.publish(Bool(data=label))
        cell.until(lambda: cell.said.startswith('recording'))
        cell.until(lambda: cell.said == 'idle')
        path, = set(find_bags(bags)) - before
        before.add(path)
        episode = read(path).episode
        assert episode.success is label
        assert episode.stamps_ns.tolist() == stamps


def publish(cell, number, streams):
    """Publish one step of these streams alone, stamped now."""
    stamp_ns = time.time_ns()
    for camera in set(streams) & set(cell.images):
        cell.images[camera].publish(image_message(picture(number, camera), stamp_ns))
    if 'gripper' in streams:
        cell.gripper.publish(Float64MultiArray(data=[1.0]))
    if 'arm' in streams:
        message = TwistStamped()
        message.header.stamp = stamp(stamp_ns)
        cell.arm.publish(message)


EVERYTHING = ('static', 'hand', 'gripper', 'arm')


@pytest.mark.parametrize(('silent', 'words'), [
    ('hand', '/hand_rgb ended after'), ('arm', '/arm_delta ended after')])
def test_a_stream_that_dies_is_said_while_recording_and_when_it_is_stopped(cell, bags, silent,
                                                                           words):
    """
    A cable came loose, the actor crashed: once the recorder said success.

    The bag is kept, with what is wrong in it, which training tells again.
    """
    order(cell)
    assert cell.give(max_camera_gap_s=1.0, max_action_gap_s=1.0) == []
    name = cell.begin()
    for number in range(4):
        publish(cell, number, EVERYTHING)
        cell.wait(PERIOD_S)

    def is_said():
        publish(cell, 5, set(EVERYTHING) - {silent})
        cell.wait(PERIOD_S)
        return cell.said.startswith('recording') and words in cell.said
    cell.until(is_said)
    stopped = cell.call('stop')
    assert not stopped.success
    assert words in stopped.message and f'kept and marked: {bags / name}' in stopped.message
    cell.until(lambda: cell.said.startswith('idle; the last episode') and words in cell.said)
    assert words in str(index_bag(bags / name, BagLayout(), Wanted()).problems)
    again = cell.call('stop').message
    assert again.startswith('no episode is being recorded; the last one ended') and words in again


@pytest.mark.parametrize(('missing', 'topic'), [
    ('hand', '/hand_rgb'), ('gripper', '/gripper_command'), ('arm', '/arm_delta')])
def test_a_stream_that_never_came_is_no_success(cell, bags, missing, topic):
    """A publisher that says nothing was enough for the recorder, never for training."""
    order(cell)
    name = cell.begin()
    for number in range(3):
        publish(cell, number, set(EVERYTHING) - {missing})
    stopped = cell.call('stop')
    assert not stopped.success
    assert f'no message came on {topic}' in stopped.message
    assert (bags / name).is_dir()


def test_what_training_would_note_of_a_marked_bag_is_what_the_recorder_said(cell, bags):
    """A hole in a camera: the steps in it are left out, and everybody hears why."""
    order(cell)
    assert cell.give(max_camera_gap_s=0.2) == []
    name = cell.begin()
    begin_ns = time.time_ns()
    for number in range(60):
        cameras = ('static',) if 20 <= number < 26 else ('static', 'hand')
        cell.step(number, begin_ns + number * round(PERIOD_S * 1e9), cameras)
        cell.wait(0.02)
    stopped = cell.call('stop')
    assert '/hand_rgb was silent for 0.3 s, 0.9 s after its first message' in stopped.message
    assert not stopped.success
    remarks = [remark for remark in read(bags / name).remarks if remark.rule == 'recorder']
    assert 'its recorder said: /hand_rgb was silent' in remarks[0].message


def test_a_repeated_observation_is_recorded_once(cell, bags):
    """A lock-step simulator asks again where the answer is late."""
    order(cell)
    name = cell.begin()
    for number in range(6):
        for _ in range(2):
            cell.step(number, 10**9 + number * 5 * 10**7)
        cell.wait(0.02)
    assert cell.call('stop').success
    assert len(read(bags / name).episode) == 6


def test_a_policy_episode_names_its_model(cell, bags):
    """The policy node says its checkpoint on /diagnostics; without it nothing is recorded."""
    order(cell)
    assert cell.give(actor='policy') == []
    answer = cell.call('start')
    assert not answer.success
    assert 'is it configured?' in answer.message
    status = DiagnosticStatus(name='policy: state', values=[
        KeyValue(key='checkpoint sha256', value='ab' * 32)])
    answers = []

    def starts():
        cell.state.publish(DiagnosticArray(status=[status]))
        answers.append(cell.call('start'))
        return answers[-1].success
    cell.until(starts)
    cell.episode(3)
    assert cell.call('stop').success
    facts = read(bags / answers[-1].message).facts
    assert (facts['actor'], facts['model']) == ('policy', 'ab' * 32)


def test_a_label_needs_an_episode(cell):
    """A label of nothing is refused with what to do."""
    answer = cell.call('label', SetBool, data=False)
    assert not answer.success
    assert 'before ~/stop' in answer.message


def test_a_parameter_with_another_word_is_refused(cell):
    """Choices are named."""
    refusal, = cell.give(actor='robot')
    assert refusal == "actor is 'robot'; expected one of 'operator', 'policy', 'expert'"


def test_an_episode_begins_only_where_all_that_it_needs_can_be_heard(tmp_path):
    """
    A day of teleoperation was recorded without one action.

    The topic was there, as the recorder asked; its messages were absolute poses.
    """
    cell = Cell()
    create, destroy = cell.node.create_publisher, cell.node.destroy_publisher
    other = rclpy.create_node('joystick', context=cell.context)

    def refused(words):
        cell.until(lambda: words in cell.call('start').message)

    with recorder(tmp_path / 'log.txt', directory=str(tmp_path / 'bags'), instruction=WORDS,
                  actor='expert'):
        cell.ready()
        for publisher, kind, topic, wanted in (
                (cell.arm, PoseStamped, 'arm_delta', TwistStamped),
                (cell.gripper, Float32, 'gripper_command', Float64MultiArray),
                (cell.images['hand'], CompressedImage, 'hand_rgb', Image)):
            destroy(publisher)
            refused(f'{topic}: nobody publishes /{topic}')
            wrong = create(kind, topic, 10)
            refused(f'{topic}: /{topic} is published as {type_name(kind)}, and '
                    f'{type_name(wanted)} is wanted')
            destroy(wrong)
            right = create(wanted, topic, 10)
            cell.until(right.get_subscription_count)
        second = other.create_publisher(TwistStamped, 'arm_delta', 10)
        refused('/arm_delta is published by /cell, /joystick, whose messages would be mixed')
        other.destroy_publisher(second)
        cell.begin()
    other.destroy_node()
    cell.close()


def type_name(kind):
    """Return the name of a message type as ROS says it."""
    return f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'


def test_a_killed_recorder_loses_its_episode_alone_and_says_so(tmp_path):
    """SIGKILL while it writes: the complete bag stays, the torn one is named on restart."""
    cell, bags = Cell(), tmp_path / 'bags'
    arguments = {'directory': str(bags), 'instruction': WORDS, 'actor': 'expert'}
    with recorder(tmp_path / 'first.txt', stop=signal.SIGKILL, **arguments):
        cell.ready()
        whole = cell.begin()
        cell.episode(4)
        assert cell.call('stop').success
        torn = cell.begin()
        cell.episode(4)
    with recorder(tmp_path / 'second.txt', **arguments):
        cell.until(lambda: 'recording into' in (tmp_path / 'second.txt').read_text())
    said = (tmp_path / 'second.txt').read_text()
    assert f'was killed while it wrote {torn}' in said
    assert find_bags(bags) == [bags / whole]
    assert len(read(bags / whole).episode) == 4
    assert (bags / 'incomplete' / torn).is_dir()
    cell.close()


def test_an_interrupted_recorder_completes_its_episode(tmp_path):
    """Ctrl-C ends the bag as ~/stop does; reliable publishers lose nothing."""
    cell, bags = Cell(ReliabilityPolicy.RELIABLE), tmp_path / 'bags'
    with recorder(tmp_path / 'log.txt', directory=str(bags), instruction=WORDS, actor='expert'):
        cell.ready()
        cell.begin()
        stamps = cell.episode(5)
    path, = find_bags(bags)
    assert read(path).episode.stamps_ns.tolist() == stamps
    cell.close()


def test_two_vga_cameras_at_30_hz_lose_no_frame(tmp_path):
    """The load of a robot for a few seconds; the benchmark runs it for ten minutes."""
    result = subprocess.run(
        [sys.executable, '-m', 'benchmarks.recorder', '--seconds', '4', '--directory', tmp_path],
        env={**os.environ, 'ROS_DOMAIN_ID': str(ALONE)}, cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(' 1.0000') == 2


def test_compressed_images_are_recorded_as_they_are(tmp_path):
    """A driver's JPEG goes into the bag bit for bit."""
    import cv2
    cell, bags = Cell(), tmp_path / 'bags'
    for publisher in cell.images.values():
        cell.node.destroy_publisher(publisher)
    jpeg = cv2.imencode('.jpg', picture(0, 'static'))[1].tobytes()
    cell.images = {name: cell.node.create_publisher(CompressedImage, topic, 10)
                   for name, topic in (('static', 'rgb'), ('hand', 'hand_rgb'))}
    with recorder(tmp_path / 'log.txt', directory=str(bags), instruction=WORDS, actor='expert',
                  compressed=True):
        cell.ready()
        cell.begin()
        for number in range(4):
            for publisher in cell.images.values():
                message = CompressedImage(format='jpeg', data=jpeg)
                message.header.stamp = stamp(10**9 + number * 5 * 10**7)
                publisher.publish(message)
            cell.step(number, 10**9 + number * 5 * 10**7, cameras=())
            cell.wait(PERIOD_S)
        assert cell.call('stop').success
    episode = read(find_bags(bags)[0]).episode
    assert len(episode) == 4
    np.testing.assert_array_equal(
        episode.frames['static'][2],
        cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    cell.close()

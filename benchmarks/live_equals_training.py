"""
Compare what the node computes live with what training computes from the same bag.

The frames of each bag are published over DDS, one control period after the other, to the policy
node; its commands, and the features that its backbone gave, are held against the training
loader's windows of that bag, step by step. Without bags two episodes with dropped frames are
made, without a checkpoint an untrained one.

    python benchmarks/live_equals_training.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5
WAIT_S = 180.0
PERIOD_NS, START_NS = 100_000_000, 1_000_000_000_000
# step and camera of the frames that the made bags lack; both at step 31
DROPPED = {(9, 'static'), (17, 'hand'), (31, 'static'), (31, 'hand')}
# Joints come faster than frames, and never with the stamp of one.
JOINTS, JOINT_OFFSETS_NS = ('shoulder', 'elbow', 'wrist', 'finger'), (-40_000_000, -7_000_000,
                                                                      9_000_000)
_MAX_AGE_S, _MAX_SKEW_S = 2.0, 0.02


class Outcome(NamedTuple):
    """Actions (T, 7) with the gripper as 0 or 1, features (T, N, D), stamps (T,)."""

    actions: np.ndarray
    features: np.ndarray
    stamps_ns: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return 0 where every step agrees."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--bags', type=Path, help='folder of bags; default: make two')
    parser.add_argument('--checkpoint', type=Path, help='default: an untrained compact one')
    parser.add_argument('--joints', action='store_true',
                        help='the untrained policy is told of the joints, too')
    parser.add_argument('--steps', type=int, default=60, help='steps of each bag that is made')
    parser.add_argument('--history', choices=('window', 'carry'), default='window',
                        help='of the untrained checkpoint')
    parser.add_argument('--episodes', type=int, default=4, help='at most this many are compared')
    parser.add_argument('--node', type=Path, help=argparse.SUPPRESS)
    options, ros = parser.parse_known_args(arguments)
    if options.node is not None:
        return _run_node(options.node, ros)
    from ros2_lstm_policy.data.rosbag import find_bags
    from ros2_lstm_policy.ros import nodes
    os.environ.update(nodes.environment())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checkpoint = options.checkpoint or _untrained(
            folder / 'checkpoint', options.history, options.joints)
        bags = find_bags(options.bags or _make_bags(folder / 'bags', options.steps))
        live = _live(checkpoint, bags[:options.episodes], folder)
        trained = [_trained(checkpoint, bag, folder / 'cache') for bag in bags[:options.episodes]]
        return _report([bag.name for bag in bags], live, trained)


def _untrained(path: Path, history: str, joints: bool) -> Path:
    from ros2_lstm_policy import config
    from ros2_lstm_policy.manifest import Normalisation, StateSpec
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.model.untrained import InitConfig, untrained
    import torch
    chosen = config.load(InitConfig, ROOT / 'config' / 'policy_compact.yaml',
                         [f'policy.decoder.history={history}'])
    if joints:
        told = StateSpec('joints', 3, Normalisation.unit(3), JOINTS[:3])
        chosen = replace(chosen, manifest=replace(chosen.manifest, states=(told,)))
    policy = untrained(chosen, 0)
    for weights in () if policy.states is None else policy.states.parameters():
        torch.nn.init.normal_(weights)  # it begins at zero: the states would not be heard at all
    checkpoint.save(path, policy, 'An untrained policy.')
    return path


def _make_bags(folder: Path, steps: int) -> Path:
    """Write one bag of raw images and one of JPEGs, both with dropped frames."""
    from ros2_lstm_policy.data.rosbag import EpisodeBagWriter, EpisodeInfo
    random = np.random.default_rng(0)
    for number, jpeg in enumerate((False, True)):
        info = EpisodeInfo(f'made_{"jpeg" if jpeg else "raw"}', 'expert', 'base',
                           'rotation_vector', 0.1)
        start_ns = START_NS + number * 1000 * PERIOD_NS
        with EpisodeBagWriter(folder / info.name, info, 'pick up the milk', start_ns,
                              jpeg=jpeg) as writer:
            scene = {c: random.integers(0, 255, (31, 41, 3)) for c in ('static', 'hand')}
            for step in range(steps):
                stamp_ns = start_ns + step * PERIOD_NS
                for camera, image in scene.items():
                    image += random.integers(-9, 10, image.shape)
                    grown = np.kron(np.clip(image, 0, 255), np.ones((16, 16, 1)))
                    if (step, camera) not in DROPPED:
                        writer.write_frame(camera, stamp_ns,
                                           grown[:480, :640].astype(np.uint8))
                writer.write_action(stamp_ns, random.normal(0, 0.01, 6), float(step % 2))
                for offset_ns in JOINT_OFFSETS_NS:
                    writer.write_joints(stamp_ns + offset_ns, list(reversed(JOINTS)),
                                        random.normal(0, 1, len(JOINTS)))
    return folder


def _run_node(out: Path, ros: Sequence[str]) -> int:
    """Be the policy node, and keep the features that its head gets."""
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.ros.policy import node
    features: list[np.ndarray] = []
    load = checkpoint.load

    def load_and_listen(*arguments: Any, **keywords: Any) -> Any:
        policy: Any = load(*arguments, **keywords)
        reduce_tokens = policy.decoder.reduce_tokens

        def listen(tokens_BTND: Any) -> Any:
            features.append(tokens_BTND[0, 0].numpy().copy())
            return reduce_tokens(tokens_BTND)
        policy.decoder.reduce_tokens = listen
        return policy
    checkpoint.load = load_and_listen
    status = node.main(list(ros))
    np.save(out, np.stack(features))
    return status


@contextmanager
def _node(checkpoint: Path, out: Path) -> Iterator[None]:
    from ros2_lstm_policy.ros import nodes
    parameters = {
        'checkpoint': str(checkpoint), 'autostart': True, 'use_sim_time': True,
        'max_linear_speed_m_s': 10.0, 'max_angular_speed_rad_s': 20.0, 'max_step_ratio': 1000.0,
        'max_skew_s': _MAX_SKEW_S}
    spec = nodes.simulation()[1].having(**parameters)
    own = nodes.command(spec)
    words = own[own.index('--ros-args'):]
    process = subprocess.Popen([sys.executable, __file__, '--node', str(out), *words])
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(WAIT_S)


class _Player:
    """Publishes the frames of bags and hears the commands."""

    def __init__(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from geometry_msgs.msg import TwistStamped
        import rclpy
        from rosgraph_msgs.msg import Clock
        from sensor_msgs.msg import Image, JointState
        from std_msgs.msg import Float64MultiArray, String
        from std_srvs.srv import Trigger
        from ros2_lstm_policy.ros.closed_loop.observer import EpisodeRecord
        rclpy.init()
        self._rclpy, self._clock_type, self._string = rclpy, Clock, String
        self._image_type, self._trigger, self._joints_type = Image, Trigger, JointState
        self._node = rclpy.create_node('player')
        create = self._node.create_publisher
        self._clock = create(Clock, '/clock', 10)
        self._words = create(String, 'instruction', 10)
        self._images = {camera: create(Image, topic, 10)
                        for camera, topic in (('static', 'rgb'), ('hand', 'hand_rgb'))}
        self._joints = create(JointState, 'joint_states', 100)
        self._reset = self._node.create_client(Trigger, 'policy/reset_episode')
        self._record = EpisodeRecord()
        self._said, self._said_ns = '', 0
        self._node.create_subscription(Float64MultiArray, 'policy/gripper_command',
                                       self._take_gripper, 100)
        self._node.create_subscription(TwistStamped, 'policy/arm_delta', self._take_arm, 100)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._take_said, 100)

    def close(self) -> None:
        self._node.destroy_node()
        self._rclpy.shutdown()

    def play(self, bag: Path) -> tuple[np.ndarray, list[int]]:
        """Play one bag in lock-step; return the answers (T, 7) and their stamps."""
        from ros2_lstm_policy.data.episodes import Wanted
        from ros2_lstm_policy.data.rosbag import BagLayout
        from ros2_lstm_policy.data.rosbag.cut import segments
        from ros2_lstm_policy.data.rosbag.index import index_bag
        index = index_bag(bag, BagLayout(), Wanted())
        segment, = segments(index, BagLayout())
        frames, joints = self._frames(bag, index), self._joint_states(bag)
        self._begin(segment.instruction, segment.arm[0].stamp_ns - PERIOD_NS)
        self._record = record = type(self._record)()
        stamps = [action.stamp_ns for action in segment.arm]
        for stamp_ns in stamps:
            self._tell_time(stamp_ns)
            while joints and joints[0][0] <= stamp_ns + max(JOINT_OFFSETS_NS):
                self._joints.publish(joints.pop(0)[1])
            shown = [c for c in self._images if (c, stamp_ns) in frames]
            for camera in shown:
                self._images[camera].publish(frames[camera, stamp_ns])
            if len(shown) == len(self._images):
                self._until(lambda s=stamp_ns: s in record.arms)
                record.images[stamp_ns] = {}
            else:
                self._spin(0.05)
        self._until(record.pair)
        rows = [np.append(action.arm, action.gripper_open) for action in record.actions.values()]
        return np.stack(rows), list(record.actions)

    def _frames(self, bag: Path, index: Any) -> dict[tuple[str, int], Any]:
        """Return the images of a bag as messages that rclpy publishes."""
        from ros2_lstm_policy.data.rosbag.frames import BagFrames
        found = {}
        for camera, topic in index.cameras.items():
            images = BagFrames(bag, topic, topic.frames)
            for number, ref in enumerate(topic.frames):
                pixels = images[number]
                message = self._image_type(height=pixels.shape[0], width=pixels.shape[1],
                                           encoding='rgb8', step=3 * pixels.shape[1],
                                           data=pixels.tobytes())
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(ref.stamp_ns,
                                                                                10**9)
                found[camera, ref.stamp_ns] = message
        return found

    def _joint_states(self, bag: Path) -> list[tuple[int, Any]]:
        """Return the joints of a bag as messages that rclpy publishes, by stamp."""
        from rosbags.highlevel import AnyReader
        from ros2_lstm_policy.data.rosbag.typestore import typestore
        found = []
        with AnyReader([bag], default_typestore=typestore()) as reader:
            connections = [c for c in reader.connections if c.topic.endswith('joint_states')]
            for connection, _, raw in reader.messages(connections):
                said: Any = reader.deserialize(raw, connection.msgtype)
                message = self._joints_type(name=list(said.name), position=said.position.tolist())
                stamp = said.header.stamp
                message.header.stamp.sec, message.header.stamp.nanosec = stamp.sec, stamp.nanosec
                found.append((stamp.sec * 10**9 + stamp.nanosec, message))
        return sorted(found, key=lambda item: item[0])

    def _begin(self, words: str, now_ns: int) -> None:
        """Begin an episode: the time, the words, a reset."""
        publishers = (self._clock, self._words, *self._images.values())
        self._until(lambda: all(p.get_subscription_count() for p in publishers))
        self._said = ''
        self._words.publish(self._string(data=words))

        def is_heard() -> bool:
            self._tell_time(now_ns)  # until the node's own clock says it
            return self._said == words and self._said_ns == now_ns
        self._until(is_heard)
        future = self._reset.call_async(self._trigger.Request())
        self._until(future.done)

    def _tell_time(self, time_ns: int) -> None:
        message = self._clock_type()
        message.clock.sec, message.clock.nanosec = divmod(time_ns, 10**9)
        self._clock.publish(message)

    def _until(self, condition: Any) -> None:
        end_s = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end_s:
                raise TimeoutError('the policy node does not answer')
            self._spin(0.01)

    def _spin(self, duration_s: float) -> None:
        end_s = time.monotonic() + duration_s
        while (left_s := end_s - time.monotonic()) > 0:
            self._rclpy.spin_once(self._node, timeout_sec=left_s)

    def _take_gripper(self, message: Any, info: Any) -> None:
        self._record.grippers.append((info['source_timestamp'], message.data[0]))

    def _take_arm(self, message: Any, info: Any) -> None:
        stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        v, w = message.twist.linear, message.twist.angular
        self._record.arms[stamp_ns] = (info['source_timestamp'],
                                       np.array([v.x, v.y, v.z, w.x, w.y, w.z]))

    def _take_said(self, message: Any) -> None:
        self._said_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        for status in message.status:
            for pair in status.values:
                if pair.key == 'instruction':
                    self._said = pair.value


def _live(checkpoint: Path, bags: Sequence[Path], folder: Path) -> list[Outcome]:
    """Play the bags to the node."""
    player, answers = _Player(), []
    try:
        with _node(checkpoint, folder / 'features.npy'):
            answers = [player.play(bag) for bag in bags]
    finally:
        player.close()
    features = np.load(folder / 'features.npy')
    features = features[len(features) - sum(len(actions) for actions, _ in answers):]
    result = []
    for actions, stamps in answers:
        own, features = features[:len(actions)], features[len(actions):]
        result.append(Outcome(actions, own, np.array(stamps)))
    return result


def _trained(checkpoint_path: Path, bag: Path, cache: Path) -> Outcome:
    """
    Compute each step of a bag as training does: from windows that begin with no history.

    A state that is carried has seen the whole episode, which then is one window.
    """
    from ros2_lstm_policy import transforms
    from ros2_lstm_policy.data.build import open_store, StoreRequest
    from ros2_lstm_policy.data.rosbag import BagLayout
    from ros2_lstm_policy.data.sources import SourceSpec
    from ros2_lstm_policy.data.windows import gather, WindowIndex
    from ros2_lstm_policy.model import checkpoint
    import torch
    policy = checkpoint.load(checkpoint_path)
    manifest, decoder = policy.manifest, policy.config.decoder
    layout = BagLayout(max_image_age_s=_MAX_AGE_S, max_skew_s=_MAX_SKEW_S)
    store = open_store(StoreRequest((SourceSpec(bag, bag=layout),), manifest), cache, 1)
    steps = decoder.window_size if decoder.history == 'window' else max(store.lengths)
    index = WindowIndex(store.lengths, steps, decoder.fwd_pred_next_n)
    actions, features = [], []
    with torch.inference_mode():
        for window in range(len(index)):
            batch = gather(store, index, [window], manifest)
            images = {camera.name: transforms.normalise_images(batch.images[camera.name], camera)
                      for camera in manifest.cameras}
            text = policy.encode_instructions(batch.instructions)
            tokens = policy.encode(images, text, torch.as_tensor(batch.states_BTS))
            chunk = policy.decoder.predict(tokens)
            # The first window gives the steps with a short history, each other one its last step.
            last = min(steps, sum(store.lengths))
            for position in range(0 if window == 0 else last - 1, last):
                values = transforms.from_labels(
                    chunk.continuous_BTKC[0, position, 0].numpy(),
                    torch.sigmoid(chunk.binary_logit_BTKG[0, position, 0]).numpy(), manifest)
                is_open = values[-1] > manifest.action('gripper').threshold
                actions.append(np.append(values[:-1], is_open))
                features.append(tokens[0, position].numpy())
    return Outcome(np.stack(actions), np.stack(features), np.asarray(store.stamps_ns))


def _report(names: Sequence[str], live: Sequence[Outcome], trained: Sequence[Outcome]) -> int:
    print(f'{"episode":22}{"steps":>6}{"same":>6}{"features":>11}{"relative":>10}{"arm":>10}'
          f'{"gripper":>9}   (largest difference, live against training)')
    good = True
    for name, a, b in zip(names, live, trained):
        same = len(a.stamps_ns) == len(b.stamps_ns) and bool((a.stamps_ns == b.stamps_ns).all())
        if not same:
            print(f'{name:22}{len(a.stamps_ns):6} the steps are others: {len(b.stamps_ns)} in '
                  'training')
            good = False
            continue
        features = np.abs(a.features - b.features).max()
        relative = features / np.abs(b.features).max()
        arm = np.abs(a.actions[:, :6] - b.actions[:, :6]).max()
        gripper = int((a.actions[:, 6] != b.actions[:, 6]).sum())
        good &= max(relative, arm) <= TOLERANCE and gripper == 0
        print(f'{name:22}{len(a.stamps_ns):6}{"yes":>6}{features:11.2e}{relative:10.2e}{arm:10.2e}'
              f'{gripper:6} of {len(a.actions)}')
    print('equal' if good else f'NOT equal within {TOLERANCE:g}')
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())

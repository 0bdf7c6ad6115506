"""
Reset the episode a thousand times at random moments, some of them during inference.

Two counts must be zero. Leaks: commands that were published after the service had answered and
were computed for an earlier episode; they would carry its memory, so their values differ from
those of a fresh start. Wrong beginnings: first commands of an episode that differ, in any bit,
from those that a fresh process gives for the same frames.

Simulated time goes on by one control period with each image, so images may come as fast as they
like. Publishing times are DDS source timestamps; node and benchmark share one clock.
`python benchmarks/reset_storm.py --resets 1000`.
"""

from __future__ import annotations

import argparse
from functools import partial
from multiprocessing import get_context
import os
from pathlib import Path
import sys
import tempfile
import time

from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from node_throughput import running_node, untrained
import numpy as np
from rclpy.qos import QoSProfile
from ros2_lstm_policy.ros import nodes
from ros_side import RosSide
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

IMAGES, INSTRUCTION = 16, 'pick up the milk and put it in the basket'
TOPICS = 'rgb', 'hand_rgb'
NS, PERIOD_NS = 1_000_000_000, 100_000_000
Arm = tuple[float, ...]


def main() -> int:
    """Run the benchmark; return 0 where both counts are zero."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--checkpoint', type=Path, help='default: an untrained compact one')
    parser.add_argument('--resets', type=int, default=1000, help='how many')
    parser.add_argument('--seed', type=int, default=0, help='of images and moments')
    options = parser.parse_args()
    os.environ.update(nodes.environment())
    rng = np.random.default_rng(options.seed)
    images = rng.integers(0, 255, (IMAGES, 128, 128, 3), np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = options.checkpoint or untrained(Path(scratch) / 'checkpoint')
        with get_context('spawn').Pool(1) as pool:
            fresh = pool.apply(fresh_commands, (checkpoint, images))
        with running_node(checkpoint, trigger='frames', instruction=INSTRUCTION, use_sim_time=True,
                          max_image_age_s=60.0, deadline_s=60.0, max_linear_speed_m_s=10.0,
                          max_angular_speed_rad_s=20.0, servo_rate_hz=0.0):
            return storm(Robot(images), fresh, options.resets, rng)


def fresh_commands(checkpoint: Path, images: np.ndarray) -> list[Arm]:
    """Return what a process that has seen nothing else commands for each image."""
    from ros2_lstm_policy.manifest import DEFAULT_CAMERAS
    from ros2_lstm_policy.model.checkpoint import load
    from ros2_lstm_policy.runtime.actor import PolicyActor
    from ros2_lstm_policy.types import Observation
    actor, arms = PolicyActor(load(checkpoint)), []
    for image in images:
        actor.reset()
        decision = actor.act(Observation(1, dict.fromkeys(DEFAULT_CAMERAS, image)), INSTRUCTION)
        arms.append(tuple(decision.action.arm.astype(float).tolist()))
    return arms


def storm(robot: Robot, fresh: list[Arm], resets: int, rng: np.random.Generator) -> int:
    """Reset and compare; print the counts."""
    robot.wait_for_node()
    leaks = late_frames = wrong = in_flight = answered_ns = 0
    begun_s, answer_s = time.monotonic(), []
    for _ in range(resets + 1):
        robot.heard.clear()
        first_ns = stamp_ns = robot.show(int(rng.integers(IMAGES)))
        robot.until(partial(robot.is_answered, first_ns))
        for _ in range(int(rng.integers(0, 4))):
            stamp_ns = robot.show(int(rng.integers(IMAGES)))
            robot.listen(float(rng.uniform(0, 0.03)))
        in_flight += not robot.is_answered(stamp_ns)
        called_s, after_ns = time.monotonic(), answered_ns
        answered_ns = robot.reset()
        answer_s.append(time.monotonic() - called_s)
        new = [c for c in robot.heard if c.published_ns > after_ns and any(c.arm)]
        for command in new:
            is_fresh = command.arm == fresh[robot.shown[command.stamp_ns]]
            wrong += command.stamp_ns == first_ns and not is_fresh
            leaks += command.stamp_ns < first_ns and not is_fresh
            late_frames += command.stamp_ns < first_ns and is_fresh
    print(f'\n{resets} resets in {time.monotonic() - begun_s:.0f} s, {in_flight} of them while an '
          f'observation was being worked on; the service answers in '
          f'{1e3 * np.median(answer_s):.1f} ms, p99 {1e3 * np.percentile(answer_s, 99):.1f} ms')
    print(f'commands of an earlier episode after the answer   {leaks}')
    print(f'first commands that differ from a fresh process   {wrong}')
    print(f'frames from before the answer that arrived after  {late_frames}')
    robot.close()
    return 0 if leaks == wrong == 0 else 1


class Command:
    """One arm message: the stamp that it answers, its values, and when it was published."""

    def __init__(self, message: TwistStamped, published_ns: int) -> None:
        """Read the message."""
        linear, angular = message.twist.linear, message.twist.angular
        self.arm: Arm = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        self.stamp_ns = message.header.stamp.sec * NS + message.header.stamp.nanosec
        self.published_ns = published_ns


class Robot(RosSide):
    """Shows chosen images, hears commands, resets."""

    def __init__(self, images: np.ndarray) -> None:
        """Join the ROS domain."""
        super().__init__()
        self._images = images
        self._cameras = [self._node.create_publisher(Image, topic, QoSProfile(depth=10))
                         for topic in TOPICS]
        self._node.create_subscription(
            TwistStamped, 'policy/arm_delta', self._take, 100)  # type: ignore[arg-type]
        self._clock, self._now_ns = self._node.create_publisher(Clock, '/clock', 1), NS
        self._reset = self._node.create_client(Trigger, 'policy/reset_episode')
        self.heard: list[Command] = []
        self.shown: dict[int, int] = {}

    def wait_for_node(self) -> None:
        """Wait until the node listens and its episodes can be reset."""
        self.until(self._reset.service_is_ready)
        self.until(lambda: all(camera.get_subscription_count() for camera in self._cameras))
        self.until(lambda: self.reset() > 0)
        self.listen(0.5)

    def show(self, index: int) -> int:
        """Publish one image on both topics; return its stamp."""
        message = Image(height=128, width=128, encoding='rgb8', step=384)
        message.data = self._images[index].tobytes()
        stamp_ns = self._now_ns = self._now_ns + PERIOD_NS
        self._clock.publish(Clock(clock=Time(sec=stamp_ns // NS, nanosec=stamp_ns % NS)))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NS)
        self.shown[stamp_ns] = index
        for camera in self._cameras:
            camera.publish(message)
        return stamp_ns

    def reset(self) -> int:
        """Reset the episode; return when the answer was here, or 0 where it was no."""
        future = self._reset.call_async(Trigger.Request())
        self.until(future.done)
        return time.time_ns() if future.result().success else 0

    def is_answered(self, stamp_ns: int) -> bool:
        """Return whether a command for that stamp has come."""
        return any(c.stamp_ns == stamp_ns and any(c.arm) for c in self.heard)

    def _take(self, message: TwistStamped, info: dict[str, int]) -> None:
        self.heard.append(Command(message, info['source_timestamp']))


if __name__ == '__main__':
    sys.exit(main())

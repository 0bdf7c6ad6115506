"""
Take the robot from the policy at random moments, thousands of times, and give it back.

Latency: from the sending of the operator's first message to that of the first command that is the
operator's, on the controller's topic (`delta_twist_cmds`, repeated at `servo_rate_hz`) and on
`arm_delta` (once a control period), by DDS source timestamps. The count that must be zero:
commands of the policy, on either topic, between the operator's first one and the release.
`python benchmarks/takeover.py --tries 10000`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import sys
import time
from typing import Any

from geometry_msgs.msg import TwistStamped
from node_throughput import running_node
import numpy as np
from ros2_lstm_policy.ros import nodes
from ros_side import RosSide
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

TOPICS, FRAME_S = ('rgb', 'hand_rgb'), 1 / 30
PERIOD_S, SERVO_HZ = 0.1, 50.0
SHIPPED = Path(__file__).parents[1] / 'checkpoints/compact_libero'
VELOCITY = 0.03125  # no policy gives exactly this
NS = 1_000_000_000


def main() -> int:
    """Run the benchmark; return 0 where no command of the policy followed the operator's."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--checkpoint', type=Path, default=SHIPPED,
                        help='a policy that moves (default: the shipped one)')
    parser.add_argument('--tries', type=int, default=1000, help='how many')
    parser.add_argument('--seed', type=int, default=0, help='of images and moments')
    options = parser.parse_args()
    os.environ.update(nodes.environment())
    with running_node(options.checkpoint, instruction='pick up the milk', servo_rate_hz=SERVO_HZ,
                      release_blend_in_s=0.0, operator_command_s=1.0):
        return measure(Robot(), options.tries, np.random.default_rng(options.seed))


def measure(robot: Robot, tries: int, rng: np.random.Generator) -> int:
    """Take over and give back; print the distribution and the count."""
    servo_s: list[float] = []
    arm_s: list[float] = []
    after = 0
    robot.until(lambda: robot.release.service_is_ready() and robot.operator
                .get_subscription_count() > 0)
    begun_s = time.monotonic()
    for _ in range(tries):
        robot.clear()
        robot.until(lambda: any(not is_operators(v, PERIOD_S) and v.any()
                                for _, v in robot.arms))
        robot.listen(float(rng.uniform(0, 2 * PERIOD_S)))
        robot.clear()
        sent_ns = robot.take_over()
        robot.until(lambda: any(is_operators(v, PERIOD_S) for _, v in robot.arms)
                    and any(is_operators(v, 1) for _, v in robot.twists))
        robot.listen(0.02)
        for heard, scale, latencies in ((robot.twists, 1, servo_s), (robot.arms, PERIOD_S, arm_s)):
            heard.sort(key=lambda one: one[0])
            first = next(n for n, (_, v) in enumerate(heard) if is_operators(v, scale))
            latencies.append((heard[first][0] - sent_ns) / NS)
            after += sum(bool(v.any()) and not is_operators(v, scale) for _, v in heard[first:])
        robot.give_back()
    print(f'\n{tries} takeovers in {time.monotonic() - begun_s:.0f} s')
    for name, found, period_s in (('delta_twist_cmds', servo_s, 1 / SERVO_HZ),
                                  ('arm_delta', arm_s, PERIOD_S)):
        ms = 1e3 * np.array(found)
        print(f'{name:17} median {np.median(ms):6.2f}  p99 {np.percentile(ms, 99):6.2f}  '
              f'largest {ms.max():6.2f} ms; beyond its period of {1e3 * period_s:.0f} ms: '
              f'{int((ms > 1e3 * period_s).sum())}')
    print(f'commands of the policy after those of the operator  {after}')
    robot.close()
    return 0 if after == 0 else 1


def is_operators(values: np.ndarray, scale: float) -> bool:
    """Return whether a twist is what the operator says."""
    return bool(np.allclose(values, [VELOCITY * scale, 0, 0, 0, 0, 0], atol=1e-9))


class Robot(RosSide):
    """Cameras at 30 Hz, an operator, and ears."""

    def __init__(self) -> None:
        """Join the ROS domain."""
        super().__init__()
        self._cameras = [self._node.create_publisher(Image, topic, 5) for topic in TOPICS]
        self.operator = self._node.create_publisher(TwistStamped, 'operator/twist', 1)
        self.release = self._node.create_client(Trigger, 'policy/release')
        self.arms: list[tuple[int, np.ndarray]] = []
        self.twists: list[tuple[int, np.ndarray]] = []
        for topic, heard in (('arm_delta', self.arms), ('delta_twist_cmds', self.twists)):
            self._node.create_subscription(TwistStamped, f'policy/{topic}', _taker(heard), 100)
        self._random, self._next_s = np.random.default_rng(1), 0.0

    def take_over(self) -> int:
        """Send the operator's velocity; return when."""
        message = TwistStamped()
        message.twist.linear.x = VELOCITY
        sent_ns = time.time_ns()
        self.operator.publish(message)
        return sent_ns

    def give_back(self) -> None:
        """Call ~/release."""
        future = self.release.call_async(Trigger.Request())
        self.until(future.done)
        if not future.result().success:
            raise SystemExit(future.result().message)

    def clear(self) -> None:
        """Forget what was heard."""
        self.arms.clear()
        self.twists.clear()

    def go_on(self) -> None:
        """Show images at 30 Hz."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + FRAME_S
            self._show()

    def _show(self) -> None:
        message = Image(height=128, width=128, encoding='rgb8', step=384)
        message.data = self._random.integers(0, 255, 128 * 384, np.uint8).tobytes()
        message.header.stamp = self._node.get_clock().now().to_msg()
        for camera in self._cameras:
            camera.publish(message)


def _taker(heard: list[tuple[int, np.ndarray]]) -> Any:
    def take(message: TwistStamped, info: dict[str, int]) -> None:
        parts = message.twist.linear, message.twist.angular
        heard.append((info['source_timestamp'],
                      np.array([value for part in parts for value in (part.x, part.y, part.z)])))
    return take


if __name__ == '__main__':
    sys.exit(main())

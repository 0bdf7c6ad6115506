"""
Measure the policy node: two 640x480 cameras at 30 Hz in, commands at the checkpoint's rate out.

Three processes share the machine, as on a robot: the node, the cameras (this one), and a load
that keeps one core busy. Without a checkpoint an untrained one of config/policy_compact.yaml is
made: the time of a step does not depend on training. Latency is from the camera stamp to the
arrival of the command here. Run it on an idle machine:
`python benchmarks/node_throughput.py --seconds 60`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
import multiprocessing
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from ros2_lstm_policy.model import init_checkpoint
from ros2_lstm_policy.ros import nodes
from sensor_msgs.msg import Image

ROOT = Path(__file__).parents[1]
TOPICS = {'static': 'rgb', 'hand': 'hand_rgb'}
CONTROL_HZ, WARM_UP_S = 10.0, 3.0


def main() -> int:
    """Run the benchmark; return 0 where every target is reached."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('--checkpoint', type=Path, help='default: an untrained compact one')
    parser.add_argument('--seconds', type=float, default=60.0, help='how long to measure')
    parser.add_argument('--rate', type=float, default=30.0, help='frames a second and camera')
    parser.add_argument('--trigger', choices=('timer', 'frames'), default='timer',
                        help='what begins a tick')
    parser.add_argument('--idle', action='store_true', help='load no core')
    options = parser.parse_args()
    os.environ.update(nodes.environment())
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = options.checkpoint or untrained(Path(scratch) / 'checkpoint')
        with loaded_core(not options.idle), running_node(
                checkpoint, trigger=options.trigger,
                instruction='pick up the milk and put it in the basket') as process:
            robot = Robot(options.rate)
            try:
                return report(robot, robot.measure(options.seconds, process.pid))
            finally:
                robot.close()


def untrained(path: Path) -> Path:
    """Make a compact checkpoint."""
    init_checkpoint.main(['--config', str(ROOT / 'config' / 'policy_compact.yaml'),
                          '--out', str(path)])
    return path


@contextmanager
def loaded_core(wanted: bool) -> Iterator[None]:
    """Keep one core busy meanwhile."""
    load = multiprocessing.get_context('spawn').Process(target=burn, daemon=True)
    if wanted:
        load.start()
    yield
    if wanted:
        load.kill()


def burn() -> None:
    """Use a core for ever."""
    numbers = np.random.default_rng(0).random((256, 256))
    while True:
        numbers = np.sin(numbers)


@contextmanager
def running_node(checkpoint: Path, **parameters: Any) -> Iterator[subprocess.Popen]:
    """Run the policy node as launch does."""
    spec = nodes.POLICY.having(checkpoint=str(checkpoint), autostart=True, **parameters)
    process = subprocess.Popen(nodes.command(spec))
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


class Robot:
    """Two cameras on a thread of their own, and ears."""

    def __init__(self, rate_hz: float) -> None:
        """Join the ROS domain."""
        rclpy.init()
        self._rate_hz = rate_hz
        self._node = rclpy.create_node('robot')
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._images = [self._node.create_publisher(Image, topic, qos_profile_sensor_data)
                        for topic in TOPICS.values()]
        self._node.create_subscription(TwistStamped, 'policy/arm_delta', self._take_arm, 100)
        self._node.create_subscription(DiagnosticArray, '/diagnostics', self._take, 10)
        self.published, self.holds = 0, 0
        self.commands: list[float] = []  # latencies in ms
        self.diagnostics: dict[str, dict[str, str]] = {}
        self._stop = threading.Event()

    def measure(self, seconds: float, pid: int) -> dict[str, float]:
        """Show images from when the node hears them; count when commands come steadily."""
        self._until(lambda: all(p.get_subscription_count() for p in self._images), 120)
        self._listen(1.0)
        thread = threading.Thread(target=self._show_images, daemon=True)
        thread.start()
        self._until(lambda: len(self.commands) >= CONTROL_HZ * WARM_UP_S, 60)
        self.commands.clear()
        self.holds, cpu_s, begun_s = 0, cpu_seconds(pid), time.monotonic()
        self._listen(seconds)
        measured_s, cpu_s = time.monotonic() - begun_s, cpu_seconds(pid) - cpu_s
        counted = {'commands': len(self.commands), 'holds': self.holds}
        self._stop.set()
        thread.join()
        self._listen(2.5)
        received = sum(int(self.diagnostics['inputs'][f'{name} received']) for name in TOPICS)
        return {**counted, 'seconds': measured_s, 'cpu': cpu_s / measured_s,
                'published': 2 * self.published, 'received': received}

    def close(self) -> None:
        """Leave."""
        self._stop.set()
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown()

    def _show_images(self) -> None:
        message = Image(height=480, width=640, encoding='rgb8', step=1920)
        pixels = np.random.default_rng(0).integers(0, 255, 480 * 1920, np.uint8)
        next_s = time.monotonic()
        while not self._stop.is_set():
            pixels[0] += 1  # a camera that shows one image for long is taken for a frozen one
            message.data = pixels.tobytes()
            message.header.stamp = self._node.get_clock().now().to_msg()
            for publisher in self._images:
                publisher.publish(message)
            self.published += 1
            next_s += 1 / self._rate_hz
            time.sleep(max(0.0, next_s - time.monotonic()))

    def _take_arm(self, message: TwistStamped) -> None:
        now_ns, stamp = time.time_ns(), message.header.stamp
        linear, angular = message.twist.linear, message.twist.angular
        if any((linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)):
            self.commands.append((now_ns - stamp.sec * 1_000_000_000 - stamp.nanosec) / 1e6)
        else:
            self.holds += 1

    def _take(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics[status.name.partition(': ')[2]] = {
                pair.key: pair.value for pair in status.values}

    def _until(self, condition, timeout_s: float) -> None:  # type: ignore[no-untyped-def]
        end_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end_s:
                raise SystemExit(f'no commands after {timeout_s} s: {self.diagnostics}')
            self._executor.spin_once(timeout_sec=0.1)

    def _listen(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= end_s, seconds + 10)


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of all cores."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def report(robot: Robot, found: dict[str, float]) -> int:
    """Print the table; return 0 where every target is reached."""
    ticks = found['seconds'] * CONTROL_HZ
    latency = robot.diagnostics['latency']
    p50, p99 = np.percentile(robot.commands, (50, 99))
    overhead = float(latency['overhead p99 [ms]'])
    rows = (('frames received', 100 * found['received'] / found['published'], '%', '>= 99'),
            ('ticks commanded', 100 * found['commands'] / ticks, '%', '>= 99'),
            ('camera stamp -> command p50', p50, 'ms', ''),
            ('camera stamp -> command p99', p99, 'ms', '< 100'),
            ('overhead of the node p99', overhead, 'ms', '< 5'),
            ('node, of one core', 100 * found['cpu'], '%', ''))
    reached = (rows[0][1] >= 99, rows[1][1] >= 99, True, p99 < 100, overhead < 5, True)
    print(f'\n{found["seconds"]:.0f} s, {found["holds"]} holds, {os.cpu_count()} cores, load '
          f'{os.getloadavg()[0]:.1f}')
    for (name, value, unit, target), good in zip(rows, reached):
        print(f'{name:32} {value:8.2f} {unit:3} {target:8} {"" if good else "MISSED"}')
    print('\nstage             p50 ms   p99 ms')
    for key in latency:
        stage = key.removesuffix(' p50 [ms]')
        if stage != key:
            print(f'{stage:16} {latency[key]:>7} {latency[f"{stage} p99 [ms]"]:>8}')
    return 0 if all(reached) else 1


if __name__ == '__main__':
    sys.exit(main())

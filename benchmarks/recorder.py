"""
Count the frames that the recorder loses of two raw cameras at 640x480 and 30 Hz.

Starts the recorder and, in a process of its own, two cameras and an actor, as a robot would run
them; then counts what is in the bag by the stamps that were published.

    python benchmarks/recorder.py --seconds 600
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

TOPICS = ('rgb', 'hand_rgb')
_PAGE_MB = resource.getpagesize() / 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 where no frame was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--rate', type=float, default=30.0, help='frames a second of each camera')
    parser.add_argument('--size', type=int, nargs=2, default=(480, 640), metavar=('H', 'W'))
    parser.add_argument('--directory', type=Path, help='folder on the disk to be measured')
    parser.add_argument('--publish', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.publish:
        return _publish(options)
    return _measure(options)


def _publish(options: argparse.Namespace) -> int:
    """Be two cameras and an actor for a time."""
    from array import array

    from geometry_msgs.msg import TwistStamped
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float64MultiArray
    rclpy.init()
    node = rclpy.create_node('cameras')
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    cameras = [node.create_publisher(Image, topic, best_effort) for topic in TOPICS]
    gripper = node.create_publisher(Float64MultiArray, 'gripper_command', 10)
    arm = node.create_publisher(TwistStamped, 'arm_delta', 10)
    height, width = options.size
    pixels = array('B')
    pixels.frombytes(np.random.default_rng(0).integers(0, 255, 3 * height * width, np.uint8))
    image = Image(height=height, width=width, step=3 * width, encoding='rgb8')
    image.data = pixels
    while any(publisher.get_subscription_count() == 0 for publisher in (*cameras, gripper, arm)):
        time.sleep(0.05)
    print('heard', flush=True)
    sys.stdin.readline()  # the recorder has begun its episode
    begin_s = time.monotonic()
    for frame in range(round(options.seconds * options.rate)):
        time.sleep(max(0.0, begin_s + frame / options.rate - time.monotonic()))
        image.header.stamp = node.get_clock().now().to_msg()
        for camera in cameras:
            camera.publish(image)
        if frame % max(1, round(options.rate / 10)) == 0:
            command = TwistStamped()
            command.header.stamp = image.header.stamp
            gripper.publish(Float64MultiArray(data=[1.0]))
            arm.publish(command)
    time.sleep(0.5)
    print(f'{time.monotonic() - begin_s - 0.5:.2f}', flush=True)
    sys.stdin.readline()
    node.destroy_node()
    rclpy.shutdown()
    return 0


def _measure(options: argparse.Namespace) -> int:
    from ros2_lstm_policy.ros import nodes
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        spec = nodes.RECORDER.having(directory=folder, instruction='benchmark', actor='expert',
                                     min_free_mb=100.0)
        environment = {**os.environ, **nodes.environment()}
        recorder = subprocess.Popen(nodes.command(spec), env=environment)
        publisher = subprocess.Popen(
            [sys.executable, __file__, '--publish', '--seconds', str(options.seconds), '--rate',
             str(options.rate), '--size', *map(str, options.size)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            memory_mb, answer, lasted_s = _record(recorder, publisher)
            cpu_s = _cpu_s(recorder.pid)
        finally:
            publisher.kill()
            recorder.send_signal(signal.SIGINT)
            recorder.wait(30)
        return _report(options, Path(folder), answer, memory_mb, lasted_s, cpu_s)


def _record(recorder: subprocess.Popen[bytes],
            publisher: subprocess.Popen[str]) -> tuple[list[float], str, float]:
    """Record while the publisher runs; return memory over time, the answer and the duration."""
    import rclpy
    rclpy.init()
    node = rclpy.create_node('benchmark')
    assert publisher.stdin is not None and publisher.stdout is not None
    try:
        publisher.stdout.readline()  # the recorder hears it
        end_s = time.monotonic() + 30
        time.sleep(1.0)  # and has seen what it offers
        while not (begun := _call(node, 'start')).success:  # it waits for the publishers
            time.sleep(0.2)
            if time.monotonic() > end_s:
                raise RuntimeError(f'start: {begun.message}')
        publisher.stdin.write('\n')
        publisher.stdin.flush()
        os.set_blocking(publisher.stdout.fileno(), False)
        memory_mb: list[float] = []
        while not (said := publisher.stdout.readline()):
            if recorder.poll() is not None or publisher.poll() is not None:
                raise RuntimeError('a process of the benchmark ended early')
            pages = Path(f'/proc/{recorder.pid}/statm').read_text().split()
            # Shared memory is Fast DDS's segment, not the recorder's.
            memory_mb.append((int(pages[1]) - int(pages[2])) * _PAGE_MB)
            time.sleep(0.5)
        return memory_mb, _call(node, 'stop').message, float(said)
    finally:
        node.destroy_node()
        rclpy.shutdown()


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _call(node: Any, name: str) -> Any:
    """Call a service of the recorder."""
    import rclpy
    from std_srvs.srv import Trigger
    client = node.create_client(Trigger, f'recorder/{name}')
    if not client.wait_for_service(timeout_sec=30.0):
        raise RuntimeError('the recorder offers no services')
    future = client.call_async(Trigger.Request())
    rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
    if future.result() is None:
        raise RuntimeError(f'{name}: the recorder does not answer')
    return future.result()


def _report(options: argparse.Namespace, folder: Path, answer: str, memory_mb: Sequence[float],
            lasted_s: float, cpu_s: float) -> int:
    from ros2_lstm_policy.data.episodes import Wanted
    from ros2_lstm_policy.data.rosbag import BagLayout, find_bags
    from ros2_lstm_policy.data.rosbag.index import index_bag
    bag, = find_bags(folder)
    size_mb = sum(path.stat().st_size for path in bag.iterdir()) / 1e6
    index = index_bag(bag, BagLayout(), Wanted())
    expected = round(options.seconds * options.rate)
    height, width = options.size
    print(f'two cameras {width}x{height} at {options.rate:g} Hz, best effort, for '
          f'{options.seconds:g} s on {os.cpu_count()} cores (the publisher took {lasted_s:.1f} s)')
    print(f'{"camera":10}{"published":>11}{"recorded":>10}{"lost":>6}{"ratio":>9}')
    lost = 0
    for camera, topic in index.cameras.items():
        found = len({frame.stamp_ns for frame in topic.frames})
        lost += expected - found
        print(f'{camera:10}{expected:11}{found:10}{expected - found:6}{found / expected:9.4f}')
    print(f'bag {size_mb:.0f} MB, {size_mb / lasted_s:.0f} MB/s; the recorder took '
          f'{cpu_s / lasted_s:.0%} of one core and {np.median(memory_mb):.0f} MB of its own (at '
          f'most {max(memory_mb):.0f}); load of the machine {os.getloadavg()[1]:.1f}')
    print(f'the recorder: {answer.partition(": ")[2]}')
    return 0 if lost == 0 else 1


if __name__ == '__main__':
    sys.exit(main())

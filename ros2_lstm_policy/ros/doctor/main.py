"""
Say what is wrong with this robot, its machine and its policy, and what to do: a line each.

`ros2 run ros2_lstm_policy doctor --ros-args --params-file policy.yaml -p checkpoint:=DIRECTORY`
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import sys

from ros2_lstm_policy.ros.doctor.findings import Finding, summary

FAULTS, UNUSABLE, INTERRUPTED = 1, 2, 130
_EPILOG = """
After --ros-args it takes what the policy node takes, and reads it as the node does: --params-file,
-p NAME:=VALUE, -r FROM:=TO, -r __ns:=NAMESPACE. It listens and commands nothing, and may run
beside an active policy. Exit status: 0 nothing is wrong, 1 something is, 2 it could not look.
"""
_NO_ROS = ('doctor: there is no ROS 2 here ({}): source /opt/ros/DISTRIBUTION/setup.bash and '
           'install/setup.bash first (docs/install.md)')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    cut = given.index('--ros-args') if '--ros-args' in given else len(given)
    options = _parser().parse_args(given[:cut])
    try:
        return _look(options, given[cut:])
    except ModuleNotFoundError as error:
        print(_NO_ROS.format(error), file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read has seen enough, as `head` does
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 (the interpreter flushes it)
        return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='doctor', description=(__doc__ or '').strip().splitlines()[0], epilog=_EPILOG,
        usage='doctor [-h] [options] [--ros-args [--params-file FILE] [-p NAME:=VALUE] '
        '[-r FROM:=TO] ...]', formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=_seconds, default=5.0,
                        help='how long to listen to cameras and states (default: 5)')
    parser.add_argument('--recordings', type=Path, default=Path('recordings'),
                        help="the recorder's folder, whose disk is looked at (default: "
                        'recordings)')
    parser.add_argument('--faults-only', action='store_true', help='print no line of what is well')
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1.0 <= value <= 600.0:
        raise argparse.ArgumentTypeError(f'expected 1 to 600, found {text}')
    return value


def _look(options: argparse.Namespace, ros_arguments: list[str]) -> int:
    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation
    from rclpy.lifecycle import LifecycleNode
    from rclpy.parameter import Parameter
    from ros2_lstm_policy.ros.doctor import machine
    from ros2_lstm_policy.ros.doctor.robot import policy_parameters, Robot
    from ros2_lstm_policy.ros.node_arguments import explained
    from ros2_lstm_policy.ros.recorder.parameters import RecorderSettings
    try:
        overrides = policy_parameters(ros_arguments)
    except (rclpy_implementation.RCLInvalidROSArgsError, rclpy_implementation.RCLError) as error:
        print(f'doctor: {explained(str(error))}', file=sys.stderr)
        return UNUSABLE
    findings: list[Finding] = []

    def tell(found: Sequence[Finding]) -> None:
        findings.extend(found)
        for finding in found:
            if finding.is_fault or not options.faults_only:
                print(finding, flush=True)
    rclpy.init(args=ros_arguments)
    try:
        node = LifecycleNode('doctor', use_global_arguments=True, parameter_overrides=[
            Parameter(name, value=value) for name, value in overrides.items()])
        robot = Robot(node)
        tell(robot.checkpoint())
        tell(machine.gpu(robot.settings.device))
        tell(machine.cpu(robot.settings.threads))
        if robot.manifest is not None:
            tell(robot.listen(options.seconds))
        tell(machine.dds(os.environ, robot.image_bytes()))
        tell(machine.disk(options.recordings, RecorderSettings().min_free_mb, robot.bytes_s()))
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
    print(summary(findings))
    return FAULTS if any(finding.is_fault for finding in findings) else 0


if __name__ == '__main__':
    sys.exit(main())

"""
Command `demo`: the simulated robot does what it is told, and you see it.

The simulated robot and the policy run as separate processes over DDS. The policy is configured and
activated, told what to do, and runs whole episodes. It ends with a summary, and for each episode a
video and a picture of what both cameras saw and what was commanded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
import signal
import sys
import time
from typing import NoReturn

from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.ros.closed_loop import options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status: an episode without success is a result, no error."""
    began_s = time.monotonic()
    given = options.parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell in the background ignores SIGINT
        signal.signal(number, _interrupt)
    # a demo is nobody else's business: neither commands nor images leave this machine
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.update(nodes.environment())
    try:
        return _run(given, began_s)
    except KeyboardInterrupt:  # also while what is heavy is being imported
        print('demo: interrupted', file=sys.stderr)
        return 130


def _run(given: argparse.Namespace, began_s: float) -> int:
    from ros2_lstm_policy.ros.closed_loop.observer import DemoError
    from ros2_lstm_policy.ros.closed_loop.processes import ChildError
    from ros2_lstm_policy.ros.closed_loop.run import run
    from ros2_lstm_policy.sim import tasks
    from ros2_lstm_policy.sim.backend import SimulatorMissingError
    try:
        if given.list_tasks:
            print('\n'.join(f'{name:36s}{tasks.find(name).instruction}'
                            for name in tasks.short_names()))
            return 0
        run(options.options(given), began_s)
    except (ValueError, DemoError, ChildError, SimulatorMissingError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == '__main__':
    sys.exit(main())

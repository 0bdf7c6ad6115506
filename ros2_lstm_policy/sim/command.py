"""What the commands that run many simulators say where they cannot go on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor
import sys

from ros2_lstm_policy.sim.backend import SimulatorMissingError

FAILED, INTERRUPTED = 1, 130


def guarded(name: str, work: Callable[[], None]) -> int:
    """
    Do a command's work; turn what its user can mend into one line.

    :param name: the command's, to begin the line with.
    :return: the exit status.
    """
    try:
        work()
    except (ValueError, SimulatorMissingError) as error:
        return _tell(name, str(error), FAILED)
    except BrokenExecutor:
        return _tell(name, 'a process was ended from outside, mostly for lack of memory: each '
                     'takes about 3 GB; the same command with fewer processes goes on', FAILED)
    except KeyboardInterrupt:
        return _tell(name, 'interrupted; the same command goes on', INTERRUPTED)
    return 0


def _tell(name: str, line: str, status: int) -> int:
    print(f'{name}: {line}', file=sys.stderr)
    return status

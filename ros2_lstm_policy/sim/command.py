"""The commands that run many simulators: settings, work, and one line where it cannot go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import sys
from typing import TypeVar

from ros2_lstm_policy import config
from ros2_lstm_policy.process_pool import MemberLost
from ros2_lstm_policy.sim.backend import SimulatorMissingError

T = TypeVar('T')
FAILED, INTERRUPTED = 1, 130


def run(name: str, cls: type[T], work: Callable[[T], str], argv: Sequence[str] | None,
        description: str, example: str) -> int:
    """
    Read a command's settings, do its work and print what it tells.

    What its user can mend becomes one line that begins with the command's name.

    :param cls: of the settings; `argv`, `description` and `example` are those of
        :func:`config.from_command_line`.
    :return: the exit status.
    """
    try:
        print(work(config.from_command_line(cls, argv, description, example)))
    except (ValueError, SimulatorMissingError) as error:
        return _tell(name, str(error), FAILED)
    except MemberLost as error:
        return _tell(name, f'{error}; each process takes about 3 GB, and the same command with '
                     'fewer processes goes on', FAILED)
    except KeyboardInterrupt:
        return _tell(name, 'interrupted; the same command goes on', INTERRUPTED)
    return 0


def _tell(name: str, line: str, status: int) -> int:
    print(f'{name}: {line}', file=sys.stderr)
    return status

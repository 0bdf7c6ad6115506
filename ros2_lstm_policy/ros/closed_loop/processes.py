"""Nodes as child processes: started with a log file, watched, and always ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import ctypes
import os
from pathlib import Path
import signal
import subprocess
import time
from types import TracebackType

from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.ros.nodes import NodeSpec

END_TIMEOUT_S = 8.0
SHOWN_LINES = 8
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


class ChildError(RuntimeError):
    """A node that ended by itself; the message has its last words and its log file."""


class Children:
    """
    The processes of some nodes; a context manager that leaves none behind.

    :param specs: the nodes.
    :param log_directory: gets NAME.log for each.
    """

    def __init__(self, specs: Sequence[NodeSpec], log_directory: Path) -> None:
        """Start nothing yet."""
        self._specs, self._log_directory = specs, log_directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Children:
        """Start every node, each in a process group of its own; an interruption ends them all."""
        try:
            with _interruptions_wait():
                self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End every node, whatever happened."""
        self._end()

    def _start(self) -> None:
        environment = {**os.environ, **nodes.environment()}
        self._log_directory.mkdir(parents=True, exist_ok=True)
        for spec in self._specs:
            with self.log(spec.name).open('wb') as log:
                self._processes[spec.name] = subprocess.Popen(
                    nodes.command(spec), stdout=log, stderr=subprocess.STDOUT, env=environment,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                    preexec_fn=_end_with_parent)

    def _end(self) -> None:
        """Ask every node to end; kill those that do not, with what they started."""
        self._signal(signal.SIGINT)
        deadline = time.monotonic() + END_TIMEOUT_S
        while self._running() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        for process in self._processes.values():
            process.wait()

    @property
    def names(self) -> list[str]:
        """Return the nodes' names."""
        return [spec.name for spec in self._specs]

    def log(self, name: str) -> Path:
        """Return the log file of a node."""
        return self._log_directory / f'{name}.log'

    def check(self) -> None:
        """Make sure that all run. :raises ChildError: where a node has ended."""
        for name, process in self._processes.items():
            status = process.poll()
            if status is not None:
                raise ChildError(f'the node {name} ended with status {status}:\n'
                                 f'{self.last_words(name)}')

    def last_words(self, name: str) -> str:
        """Return the end of a node's log and where the rest is."""
        lines = self.log(name).read_text(errors='replace').splitlines()[-SHOWN_LINES:]
        return '\n'.join([*(f'  {line}' for line in lines), f'  (all of it: {self.log(name)})'])

    def _running(self) -> bool:
        return any(process.poll() is None for process in self._processes.values())

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                os.killpg(process.pid, number)


@contextmanager
def _interruptions_wait() -> Iterator[None]:
    """
    Hold interruptions back: one between a fork and the note of it would leave a process behind.

    Not by a signal mask: another thread would take the signal and this one its handler.

    :raises KeyboardInterrupt: at the end, where one came.
    """
    heard: list[int] = []
    before = {number: signal.signal(number, lambda number, _: heard.append(number))
              for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Have Linux send a SIGINT when the parent dies, even by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

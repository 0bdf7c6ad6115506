"""
One piece of work after another on several processes, with the results in order.

Unlike `concurrent.futures`, a process that is killed is known by the task that it was at, and
processes end with their parent, however that ends. They are started afresh (spawn), since a fork
of a process that holds CUDA or DDS does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
import contextlib
import multiprocessing
from multiprocessing.connection import Connection, wait
import signal
import traceback
from typing import Any, Generic, TypeVar

T = TypeVar('T')
R = TypeVar('R')
_AHEAD = 2  # results that may wait for an earlier one, for each process


class MemberLost(RuntimeError):
    """A process ended before it answered; the message names its task."""


def in_order(work: Callable[[T], R], tasks: Sequence[T], processes: int,
             name: Callable[[T], str]) -> Generator[R, None, None]:
    """
    Yield `work(task)` for each task, in the order of the tasks.

    Close the iterator where it is left early, with `contextlib.closing`: that ends the processes.

    :param work: picklable where there are several processes, and so are tasks and results.
    :param processes: 1 works in this process.
    :param name: what the error calls a task.
    :raises MemberLost: where a process was killed.
    :raises Exception: what `work` raised.
    """
    if min(processes, len(tasks)) < 2:
        yield from map(work, tasks)
        return
    crew = _Crew(work, tasks, min(processes, len(tasks)), name)
    try:
        yield from crew.results()
    finally:
        crew.stop()


class _Crew(Generic[T, R]):
    """Hands tasks out and collects what comes back."""

    def __init__(self, work: Callable[[T], R], tasks: Sequence[T], size: int,
                 name: Callable[[T], str]) -> None:
        self._tasks, self._name = tasks, name
        self._members: list[_Member] = []
        self._found: dict[int, R] = {}
        self._next = 0
        try:
            for _ in range(size):
                self._members.append(_Member(work, tasks))
        except BaseException:
            self.stop()
            raise

    def results(self) -> Iterator[R]:
        for number in range(len(self._tasks)):
            self._exchange(number, 0.0)
            while number not in self._found:
                self._exchange(number, None)
            yield self._found.pop(number)

    def stop(self) -> None:
        for member in self._members:
            member.stop()

    def _exchange(self, wanted: int, timeout_s: float | None) -> None:
        """Give every idle member a task, and take the results that are there."""
        most = min(wanted + _AHEAD * len(self._members), len(self._tasks))
        for member in self._members:
            if member.task is None and self._next < most:
                member.begin(self._next)
                self._next += 1
        busy = {member.pipe: member for member in self._members if member.task is not None}
        for pipe in wait(list(busy), timeout_s):
            member = busy[pipe]  # type: ignore[index]
            number, member.task = member.task, None
            assert number is not None
            self._found[number] = self._answer(member, number)

    def _answer(self, member: _Member, number: int) -> R:
        try:
            answer, told = member.pipe.recv()
        except (EOFError, OSError) as error:  # also in the middle of an answer
            raise MemberLost(f'{self._name(self._tasks[number])}: the process that worked on it '
                             f'{member.end()}') from error
        if told is not None:
            raise answer from _InMember(told)
        return answer


class _Member:
    """
    One process and this end of its pipe.

    :param task: the number of the task that it is at, or None.
    """

    def __init__(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
        context = multiprocessing.get_context('spawn')
        self.task: int | None = None
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work, tasks), daemon=True)
        with theirs, _ctrl_c_is_ours():
            self._process.start()

    def begin(self, task: int) -> None:
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it died; the answer says so
            self.pipe.send(task)

    def end(self) -> str:
        """Return how the process ended."""
        self._process.join()
        status = self._process.exitcode or 0
        if status >= 0:
            return f'ended with status {status}; what it said is above'
        why = ' (the system does that where memory runs out)' if status == -signal.SIGKILL else ''
        return f'was killed by {signal.Signals(-status).name}{why}'

    def stop(self) -> None:
        self.pipe.close()
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._process.close()


class _InMember(Exception):
    """The traceback of an error, in the process where it happened."""

    def __str__(self) -> str:
        return f'\n{self.args[0]}'


@contextlib.contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Start processes that leave Ctrl-C to this one: a process inherits the signals it blocks."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, work: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
    """Answer until the other end of the pipe is closed; the processes are the parallelism."""
    import cv2
    cv2.setNumThreads(1)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            pipe.send(_attempt(work, tasks[pipe.recv()]))


def _attempt(work: Callable[[Any], Any], task: Any) -> tuple[Any, str | None]:
    """Return what came of a task: (result, None), or (error, its traceback)."""
    try:
        return work(task), None
    except Exception as error:
        return error, traceback.format_exc()

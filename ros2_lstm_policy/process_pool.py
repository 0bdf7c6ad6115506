"""
One piece of work after another on several processes, with the results in order or as they come.

Unlike `concurrent.futures`, a process that is killed is known by the task that it was at, and
processes end with their parent, however that ends. They are started afresh (spawn), since a fork
of a process that holds CUDA or DDS does not work.

Close an iterator of results where it is left early, with `contextlib.closing`: that ends the
processes, and what they are at can clean up after itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
import contextlib
import itertools
import multiprocessing
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
import os
import signal
import traceback
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar('T')
R = TypeVar('R')
_AHEAD = 2  # results that may wait for an earlier one, for each process
_PATIENCE_S = 1.0  # for a process to clean up before it is told again to end
_TIMES_TOLD = 10  # before it is killed: it may be stuck where Python is not asked


class MemberLost(RuntimeError):
    """A process ended before it answered; the message names its task."""


def in_order(work: Callable[[T], R], tasks: Sequence[T], processes: int,
             name: Callable[[T], str]) -> Generator[R, None, None]:
    """
    Yield `work(task)` for each task, in the order of the tasks.

    :param work: picklable where there are several processes, and so are tasks and results.
    :param processes: 1 works in this process.
    :param name: what the error calls a task.
    :raises MemberLost: where a process was killed.
    :raises Exception: what `work` raised.
    """
    if min(processes, len(tasks)) < 2:
        yield from map(work, tasks)
        return
    size, found = min(processes, len(tasks)), dict[int, R]()
    with contextlib.closing(_Processes(work, [[task] for task in tasks], size, name)) as members:
        for number in range(len(tasks)):
            end = number + _AHEAD * size
            found.update(members.exchange(end, 0.0))
            while number not in found:
                found.update(members.exchange(end, None))
            yield found.pop(number)


def as_they_come(work: Callable[[T], R], chunks: Sequence[Sequence[T]], processes: int,
                 name: Callable[[T], str]) -> Generator[R, None, None]:
    """
    Yield `work(task)` for each task of each chunk; a chunk's tasks are one process's, in order.

    :param work: as in :func:`in_order`, and so are `name` and what is raised.
    :param chunks: none is empty.
    :param processes: one is not this process either.
    """
    left = sum(map(len, chunks))
    with contextlib.closing(_Processes(work, chunks, min(processes, len(chunks)), name)) as pool:
        while left:
            for _, result in pool.exchange(None, None):
                left -= 1
                yield result


class _Processes(Generic[T, R]):
    """Hands tasks out, by their numbers, and collects what comes back."""

    def __init__(self, work: Callable[[T], R], chunks: Sequence[Sequence[T]], size: int,
                 name: Callable[[T], str]) -> None:
        self._tasks, self._name = [task for chunk in chunks for task in chunk], name
        numbers = itertools.count()
        self._chunks = deque(deque(itertools.islice(numbers, len(chunk))) for chunk in chunks)
        self._members: list[_Member] = []
        try:
            for _ in range(size):
                self._members.append(_Member(work, self._tasks))
        except BaseException:
            self.close()
            raise

    def exchange(self, end: int | None, timeout_s: float | None) -> Iterator[tuple[int, R]]:
        """
        Give every idle member a task; yield the numbers and results of those that then answer.

        :param end: a chunk that begins with this task or a later one is not begun yet.
        :param timeout_s: how long to wait for an answer; None until there is one.
        """
        for member in self._members:
            if member.task is None:
                self._occupy(member, end)
        busy = {member.pipe: member for member in self._members if member.task is not None}
        for pipe in wait(list(busy), timeout_s):
            member = busy[pipe]  # type: ignore[index]
            number, member.task = member.task, None
            assert number is not None
            yield number, self._answer(member, number)

    def close(self) -> None:
        for member in self._members:
            member.stop()
        for member in self._members:
            member.end()

    def _occupy(self, member: _Member, end: int | None) -> None:
        if not member.rest and self._chunks and (end is None or self._chunks[0][0] < end):
            member.rest = self._chunks.popleft()
        if member.rest:
            member.begin(member.rest.popleft())

    def _answer(self, member: _Member, number: int) -> R:
        try:
            answer, told = member.pipe.recv()
        except (EOFError, OSError) as error:  # also in the middle of an answer
            raise MemberLost(f'{self._name(self._tasks[number])}: the process that worked on it '
                             f'{member.ending()}') from error
        if told is not None:
            raise answer from _InMember(told)
        return answer


class _Member:
    """
    One process and this end of its pipe.

    :param task: the number of the task that it is at, or None.
    :param rest: the numbers of those of the same chunk that come after it.
    """

    def __init__(self, work: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
        context = multiprocessing.get_context('spawn')
        self.task: int | None = None
        self.rest: deque[int] = deque()
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work, tasks), daemon=True)
        with theirs, _ctrl_c_is_ours():
            self._process.start()

    def begin(self, task: int) -> None:
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it died; the answer says so
            self.pipe.send(task)

    def ending(self) -> str:
        """Return how the process ended."""
        self._process.join()
        status = self._process.exitcode or 0
        if status >= 0:
            return f'ended with status {status}; what it said is above'
        why = ' (the system does that where memory runs out)' if status == -signal.SIGKILL else ''
        return f'was killed by {signal.Signals(-status).name}{why}'

    def stop(self) -> None:
        if self._process.is_alive():
            self._process.terminate()
        self.pipe.close()

    def end(self) -> None:
        for _ in range(_TIMES_TOLD):
            self._process.join(_PATIENCE_S)
            if self._process.is_alive():  # a library caught it, as LIBERO does in its resets
                self._process.terminate()
        self._process.kill()
        self._process.join()
        self._process.close()


class _InMember(Exception):
    """The traceback of an error, in the process where it happened."""

    def __str__(self) -> str:
        return f'\n{self.args[0]}'


@contextlib.contextmanager
def _ctrl_c_is_ours() -> Iterator[None]:
    """Start processes that leave Ctrl-C to this one: a process inherits the signals it blocks."""
    resource_tracker.ensure_running()  # begun with the first process, it would unblock Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, work: Callable[[Any], Any], tasks: Sequence[Any]) -> None:
    """Answer until the other end of the pipe is closed; the processes are the parallelism."""
    import cv2
    cv2.setNumThreads(1)
    signal.signal(signal.SIGTERM, _leave)
    try:
        while True:
            pipe.send(_attempt(work, tasks[pipe.recv()]))
    except _Terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


class _Terminated(BaseException):
    """Somebody wants this process to end."""


def _leave(*_: object) -> NoReturn:
    """Leave the work by its `finally` and `except BaseException`."""
    raise _Terminated


def _attempt(work: Callable[[Any], Any], task: Any) -> tuple[Any, str | None]:
    """Return what came of a task: (result, None), or (error, its traceback)."""
    try:
        return work(task), None
    except Exception as error:
        return error, traceback.format_exc()

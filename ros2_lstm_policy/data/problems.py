"""What can be wrong with a recording: the rule, the file, the episode and the time."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Problem:
    """
    One thing found in a recording.

    :param rule: name of the rule in docs/recordings.md.
    :param where: file or folder.
    :param episode: name of the episode; empty where the whole source is meant.
    :param message: what was found, what was wanted, what to do.
    :param time_s: seconds from the episode's start; None where no time can be named.
    :param fatal: whether the episode is left out of training.
    """

    rule: str
    where: Path
    episode: str
    message: str
    time_s: float | None = None
    fatal: bool = True

    def __str__(self) -> str:
        """Write it as one line."""
        episode = f': episode {self.episode!r}' if self.episode else ''
        time = '' if self.time_s is None else f' at {self.time_s:.3f} s'
        return f'{self.where}{episode}{time}: [{self.rule}] {self.message}'


class RecordingError(ValueError):
    """A recording, or one episode of it, that training must not see."""

    def __init__(self, problem: Problem) -> None:
        """Keep the problem beside its text."""
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self) -> tuple[type[RecordingError], tuple[Problem]]:
        """Travel between processes with the problem."""
        return RecordingError, (self.problem,)


def refuse(rule: str, where: Path, episode: str, message: str,
           time_s: float | None = None) -> RecordingError:
    """Build the error of one fatal problem."""
    return RecordingError(Problem(rule, where, episode, message, time_s))


@contextlib.contextmanager
def reading(where: Path, episode: str = '', advice: str = '',
            time_s: float | None = None) -> Iterator[None]:
    """
    Turn whatever a library raises over a damaged file into one error that names the file.

    What that is depends on the byte: an IndexError, a MemoryError, a TokenError. Only calls of
    libraries that parse files belong in the block.
    """
    try:
        yield
    except RecordingError:
        raise
    except Exception as error:
        raise refuse('damaged', where, episode, f'cannot be read ({type(error).__name__}: {error})'
                     + advice, time_s) from error

"""
Work on many episodes that can be ended at any byte and gone on with: one line of JSON an episode.

A folder holds the settings that it was begun with, and a line for each episode that is done. A
last line that was cut off is taken away, so that its episode is run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

from ros2_lstm_policy import config
from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.sim import fleet
from ros2_lstm_policy.sim.tasks import SimEpisode
from tqdm import tqdm

SETTINGS = 'settings.yaml'


class Record(Protocol):
    """A frozen dataclass of plain values that says how one episode went."""

    @property
    def success(self) -> bool:
        """Return whether the goal was reached."""


R = TypeVar('R', bound=Record)


class Ledger(Generic[R]):
    """
    The records of a folder that this process alone works on.

    :param records: those of the episodes that are done.
    """

    def __init__(self, path: Path, file: BinaryIO, records: list[R]) -> None:
        """Begin with what is there; :func:`open_ledger` makes it."""
        self.records = records
        self._path, self._file = path, file

    def run(self, episodes: Sequence[SimEpisode], total: int,
            make_worker: Callable[[], fleet.Work[R]], processes: int) -> None:
        """
        Run episodes and keep a record of each as soon as it is done.

        :param total: of all episodes, for the progress bar.
        :param make_worker: called once in each process, as :func:`fleet.run` does.
        :raises ValueError: where a record cannot be written.
        """
        with tqdm(total=total, initial=total - len(episodes), unit='episode') as bar, \
                contextlib.closing(fleet.run(episodes, make_worker, processes)) as found:
            for record in found:
                self._append(record)
                succeeded = sum(each.success for each in self.records)
                bar.set_postfix_str(f'{succeeded} of {len(self.records)} succeeded')
                bar.update()

    def _append(self, record: R) -> None:
        values = dataclasses.asdict(record)  # type: ignore[call-overload]
        try:
            self._file.write(json.dumps(values).encode() + b'\n')
            self._file.flush()
        except OSError as error:
            raise ValueError(f'{self._path}: cannot be written ({error}); once there is room the '
                             'same command goes on') from error
        self.records.append(record)


@contextlib.contextmanager
def open_ledger(folder: Path, name: str, cls: type[R],
                settings: Mapping[str, Any]) -> Iterator[Ledger[R]]:
    """
    Begin to work in a folder, or go on.

    :param name: of the file of records.
    :param cls: of a record.
    :param settings: all that decides how an episode goes; the folder keeps to them.
    :raises ValueError: where the folder was begun with others, a line of it is damaged, or
        another process works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with open(path, 'ab') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'{folder}: another process works in it; wait for its end, or give '
                             'another output') from None
        keep_settings(folder, settings)
        yield Ledger(path, file, read_records(path, cls))


def read_records(path: Path, cls: type[R]) -> list[R]:
    """
    Return the records of a file; none where there is no file.

    What a killed process left behind the last whole line is taken away.

    :raises ValueError: for a line that is no record, with its number.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b'\n')
    torn = lines.pop()
    records = [_parse(line, cls, f'{path}: line {number}')
               for number, line in enumerate(lines, 1)]
    if torn:
        with open(path, 'r+b') as file:
            file.truncate(sum(len(line) + 1 for line in lines))
    return records


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """
    Write the settings into a new folder, or hold an old one to its own.

    :raises ValueError: where it was begun with others.
    """
    path, text = folder / SETTINGS, config.dump(dict(settings))
    wanted = parse_yaml(text) or {}
    if not path.exists() or not path.stat().st_size:  # killed before a byte was written
        unfinished = path.with_suffix('.part')
        unfinished.write_text(text)
        os.replace(unfinished, path)
        return
    found = config.read_yaml(path)
    if found != wanted:
        differ = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        pairs = ', '.join(f'{key} {found.get(key)!r} (now {wanted.get(key)!r})'
                          for key in differ)
        raise ValueError(f'{folder}: was begun with other settings, and its episodes would not go '
                         f'together; give another output. There: {pairs}')


def _parse(line: bytes, cls: type[R], where: str) -> R:
    advice = '; take the line away, and its episode is run again'
    try:
        values = json.loads(line)
    except ValueError as error:
        raise ValueError(f'{where}: is no JSON ({error}){advice}') from error
    if not isinstance(values, dict):
        raise ValueError(f'{where}: expected a mapping, found {type(values).__name__}{advice}')
    try:
        return config.parse(cls, values, where)
    except ValueError as error:
        raise ValueError(f'{error}{advice}') from error

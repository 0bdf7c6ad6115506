"""Values out of files that others wrote: of the type that is wanted, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import json
import math
from pathlib import Path
from typing import Any

from ros2_lstm_policy.data.problems import reading, RecordingError, refuse

_SHOWN = 60
_MISSING = object()


@dataclass(frozen=True)
class Values:
    """
    Named values of one file, or of one line of it.

    JSON and parquet hold whatever their writer put there: null, text where a number belongs, NaN.

    :param content: as a library gives it.
    :param where: the file.
    :param line: which part of the file, for the message ('line 3'); empty for all of it.
    """

    content: Mapping[str, Any]
    where: Path
    line: str = ''

    def text(self, key: str) -> str:
        """Return a text; :raises RecordingError: where it is none."""
        value = self._get(key)
        if not isinstance(value, str):
            raise self.wrong(key, 'a text', value)
        return value

    def whole(self, key: str, least: int = 0) -> int:
        """Return a whole number; :raises RecordingError: where it is none, or below `least`."""
        value = as_whole(self._get(key))
        if value is None or value < least:
            raise self.wrong(key, f'a whole number from {least} on', self._get(key))
        return value

    def number(self, key: str) -> float:
        """Return a finite number; :raises RecordingError: where it is none."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) \
                or not math.isfinite(value):
            raise self.wrong(key, 'a number', value)
        return float(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return a mapping; :raises RecordingError: where it is none."""
        value = self._get(key)
        if not isinstance(value, Mapping):
            raise self.wrong(key, 'keys and values', value)
        return value

    def wrong(self, key: str, wanted: str, found: Any) -> RecordingError:
        """Build the error over one value."""
        line = f'{self.line}: ' if self.line else ''
        return refuse('damaged', self.where, '',
                      f'{line}{key}: expected {wanted}, found {shown(found)}')

    def _get(self, key: str) -> Any:
        value = self.content.get(key, _MISSING)
        if value is _MISSING:
            raise self.wrong(key, 'a value', 'no such key')
        return value


def as_whole(value: Any) -> int | None:
    """Return a whole number, also where a table kept it as a float; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def as_period(value: Any) -> float | None:
    """Return seconds above 0, also where they are written as text; None for anything else."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def shown(value: Any) -> str:
    """Write a value for an error message, in a few words."""
    text = 'null' if value is None else repr(value)
    return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}... ({type(value).__name__})'


def parse_object(text: str, where: Path, line: str = '') -> Values:
    """Read one JSON object; :raises RecordingError: where the text is none."""
    with reading(where):
        content = json.loads(text)
    if not isinstance(content, dict):
        raise refuse('damaged', where, '', f'{line or "it"}: expected a JSON object, found '
                     f'{shown(content)}')
    return Values(content, where, line)

"""Columns of a parquet file, each value of which is looked at before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import math
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.problems import reading, RecordingError, refuse
from ros2_lstm_policy.data.values import as_whole, shown


@dataclass(frozen=True)
class Rows:
    """
    Rows of one episode.

    :param columns: name to the cells, as plain values.
    :param in_file: rows of all episodes in the file.
    """

    columns: Mapping[str, Sequence[Any]]
    path: Path
    episode: str
    in_file: int

    @classmethod
    def of(cls, path: Path, episode: str, number: int, names: Sequence[str],
           optional: Sequence[str] = ()) -> Rows:
        """
        Read the rows of an episode, in the order of their `frame_index`.

        :param number: what they have as `episode_index`.
        :param names: columns that must be there.
        :param optional: columns that are read where they are there.
        :raises RecordingError: where they are not there, or in no one order.
        """
        import pyarrow.parquet as pq
        with reading(path, episode):
            metadata = pq.read_metadata(path)
            found = metadata.schema.to_arrow_schema().names
        missing = [name for name in (*names, 'frame_index', 'episode_index')
                   if name not in found]
        if missing:
            raise refuse('missing-topic', path, episode, f'no column {missing[0]!r}; it has '
                         f'{", ".join(found)}')
        wanted = {*names, *(name for name in optional if name in found), 'frame_index'}
        with reading(path, episode):
            table = pq.read_table(path, columns=sorted(wanted),
                                  filters=[('episode_index', '=', number)])
            columns = {name: table[name].to_pylist() for name in table.column_names}
        return cls(columns, path, episode, metadata.num_rows)._ordered()

    def __contains__(self, name: str) -> bool:
        """Return whether there is a column of that name."""
        return name in self.columns

    def __len__(self) -> int:
        """Return the number of rows T."""
        return len(self.columns['frame_index'])

    def _ordered(self) -> Rows:
        """Return the rows by their `frame_index`; :raises RecordingError: where two have one."""
        order = np.argsort(self.whole('frame_index'), kind='stable')
        rows = replace(self, columns={name: [cells[row] for row in order]
                                      for name, cells in self.columns.items()})
        for name in ('frame_index', 'index'):
            if name in rows:
                rows.require_order(name, rows.whole(name))
        return rows

    def require_order(self, name: str, values: np.ndarray) -> None:
        """Refuse rows that another column would order differently, or that repeat its value."""
        bad = np.flatnonzero(np.diff(values) <= 0)
        if len(bad):
            raise refuse('row-order', self.path, self.episode,
                         f'by frame_index, {name} goes from {values[bad[0]]:g} to '
                         f'{values[bad[0] + 1]:g} at row {bad[0] + 1}; expected each row once, '
                         'and all columns to order them alike')

    def whole(self, name: str) -> np.ndarray:
        """Return a column of whole numbers as (T,) int64."""
        values = []
        for row, cell in enumerate(self.columns[name]):
            value = as_whole(cell)
            if value is None or not -2 ** 63 <= value < 2 ** 63:
                raise self.wrong(row, name, 'a whole number', cell)
            values.append(value)
        return np.array(values, np.int64)

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of finite numbers as (T,) float64."""
        for row, cell in enumerate(self.columns[name]):
            if not _is_number(cell) or not math.isfinite(cell):
                raise self.wrong(row, name, 'a number', cell)
        return np.array(self.columns[name], np.float64)

    def vectors(self, name: str, width: int) -> np.ndarray:
        """
        Return a column of lists of numbers as (T, width) float64; they may be NaN.

        LeRobot stores lists of one number as the number.
        """
        cells = self.columns[name]
        if width == 1 and all(map(_is_number, cells)):
            return np.array(cells, np.float64)[:, None]
        for row, cell in enumerate(cells):
            if not isinstance(cell, list) or len(cell) != width or not all(map(_is_number, cell)):
                raise self.wrong(row, name, f'a list of {width} numbers', cell)
        return np.array(self.columns[name], np.float64).reshape(-1, width)

    def wrong(self, row: int, name: str, wanted: str, found: Any) -> RecordingError:
        """Build the error over one cell."""
        return refuse('damaged', self.path, self.episode,
                      f'row {row}: {name}: expected {wanted}, found {shown(found)}')


class ImageCells:
    """A `types.FrameSequence` over encoded images that are stored in the rows."""

    def __init__(self, rows: Rows, name: str) -> None:
        """
        Take the encoded images out of the rows.

        :raises RecordingError: for a cell that holds none.
        """
        self._rows, self._name = rows, name
        self._data = [self._encoded(row, cell) for row, cell in enumerate(rows.columns[name])]

    def _encoded(self, row: int, cell: Any) -> bytes:
        data = cell.get('bytes') if isinstance(cell, Mapping) else cell
        if not isinstance(data, bytes) or not data:
            raise self._rows.wrong(row, self._name, 'an encoded image as bytes', cell)
        return data

    def __len__(self) -> int:
        """Return T."""
        return len(self._data)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) uint8 image; :raises RecordingError: where it is none."""
        import cv2
        with reading(self._rows.path, self._rows.episode):
            image = cv2.imdecode(np.frombuffer(self._data[index], np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise refuse('damaged', self._rows.path, self._rows.episode,
                         f'row {index}: {self._name}: holds no image that can be decoded')
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

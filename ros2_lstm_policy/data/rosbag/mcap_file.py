"""
MCAP files, read from front to back and by place.

The records are those of https://mcap.dev/spec. Nothing is asked of a file but what its messages
need: any profile, channels of other encodings beside the ROS ones, with or without chunks,
indexes and a summary. What it promises of itself (checksums, statistics) is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
import struct
from typing import BinaryIO
import zlib

from ros2_lstm_policy.data.problems import RecordingError, refuse
from ros2_lstm_policy.data.rosbag.stored import Place, Span, StoredMessage, StoredTopic

MAGIC = b'\x89MCAP0\r\n'
CUT_SHORT = ('it was cut short, or never closed because the recorder was killed: '
             '`mcap recover` may save a part')
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS, _DATA_END = 3, 4, 5, 6, 11, 15
_FOOTER_BYTES = 9 + 20 + len(MAGIC)
_OPEN_CHUNK_BYTES = 2**31
_NONE = -1


class McapFile:
    """A `stored.StorageFile` of the format MCAP."""

    def __init__(self, file: BinaryIO, shown: Path) -> None:
        """
        Look at both ends of a file.

        :param shown: the file that messages name; another one where it is unpacked.
        :raises RecordingError: for a file that is none or was never completed.
        """
        self._file, self._shown = file, shown
        self._size = file.seek(0, 2)
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, StoredTopic] = {}
        self._loaded: tuple[int, memoryview] = (_NONE, memoryview(b''))
        self._statistics: tuple[Span | None, dict[int, int]] | None = None
        self._end = self._read_summary()

    def promised(self) -> Mapping[StoredTopic, int] | None:
        """Return the counts of the statistics, of the channels that are known by now."""
        if self._statistics is None:
            return None
        counts: dict[StoredTopic, int] = {}
        for channel, count in self._statistics[1].items():
            topic = self._channels.get(channel, StoredTopic(f'channel {channel}', '', ''))
            counts[topic] = counts.get(topic, 0) + count
        return counts

    def span(self) -> Span | None:
        """Return the span of the statistics."""
        return self._statistics[0] if self._statistics else None

    def messages(self) -> Iterator[StoredMessage]:
        """Read every message, in the order of the file."""
        at = len(MAGIC)
        while at < self._end:
            code, body, after = self._record(at)
            if code == _DATA_END:
                return
            if code == _CHUNK:
                self._loaded = (at, self._unpack(at, body))
                yield from self._messages_of_chunk(*self._loaded)
            elif code == _MESSAGE:
                yield self._message(body, Place(self._shown, _NONE, at))
            else:
                self._learn(code, body)
            at = after

    def read(self, place: Place) -> bytes | memoryview:
        """Read one message again; the last chunk stays in memory."""
        if place.chunk == _NONE:
            return self._record(place.at)[1][22:]
        if self._loaded[0] != place.chunk:
            self._loaded = (place.chunk, self._unpack(place.chunk, self._record(place.chunk)[1]))
        _, body, _ = self._split(self._loaded[1], place.at, place.chunk)
        return body[22:]

    def _messages_of_chunk(self, begin: int, records: memoryview) -> Iterator[StoredMessage]:
        at = 0
        while at < len(records):
            code, body, after = self._split(records, at, begin)
            if code == _MESSAGE:
                yield self._message(body, Place(self._shown, begin, at))
            else:
                self._learn(code, body)
            at = after

    def _message(self, body: memoryview, place: Place) -> StoredMessage:
        channel, _, log_ns, _ = struct.unpack_from('<HIQQ', body)
        topic = self._channels.get(channel)
        if topic is None:
            raise self._broken(f'byte {max(place.chunk, 0) + place.at}: a message of channel '
                               f'{channel}, which nothing describes')
        return StoredMessage(topic, log_ns, place, body[22:])

    def _record(self, at: int) -> tuple[int, memoryview, int]:
        """Return code and body of a record of the file, and where the next one begins."""
        self._file.seek(at)
        head = self._file.read(9)
        if len(head) < 9:
            raise self._broken(f'ends inside of a record at byte {at}; {CUT_SHORT}')
        code, size = struct.unpack('<BQ', head)
        if at + 9 + size > self._size:
            raise self._broken(f'the record at byte {at} is {size} bytes long and reaches beyond '
                               f'the end of the file; {CUT_SHORT}')
        return code, memoryview(self._file.read(size)), at + 9 + size

    def _split(self, records: memoryview, at: int, begin: int) -> tuple[int, memoryview, int]:
        """Return the same of a record in a chunk."""
        if at + 9 > len(records):
            raise self._broken(f'the chunk at byte {begin} ends inside of a record')
        code, size = struct.unpack_from('<BQ', records, at)
        if at + 9 + size > len(records):
            raise self._broken(f'the chunk at byte {begin} ends inside of a record')
        return code, records[at + 9:at + 9 + size], at + 9 + size

    def _unpack(self, at: int, body: memoryview) -> memoryview:
        """Return the records of a chunk; :raises RecordingError: where they are not whole."""
        size, checksum = struct.unpack_from('<QI', body, 16)
        compression, begin = _text(body, 28)
        stored, = struct.unpack_from('<Q', body, begin)
        packed = body[begin + 8:begin + 8 + stored]
        if size > _OPEN_CHUNK_BYTES:
            raise self._broken(f'the chunk at byte {at} says it has {size} bytes')
        try:
            records = _decompress(compression, packed)
        except (RuntimeError, ValueError, EOFError, OSError) as error:
            raise self._broken(f'the chunk at byte {at} cannot be decompressed ({error}); copy '
                               'the file again from where it was recorded') from error
        if len(records) != size or (checksum and zlib.crc32(records) != checksum):
            raise self._broken(f'the chunk at byte {at} is not what was written (its '
                               f'{"checksum" if len(records) == size else "size"} differs); copy '
                               'the file again from where it was recorded')
        return memoryview(records)

    def _read_summary(self) -> int:
        """Read what the end of the file says of it; return where its data ends."""
        self._file.seek(0)
        if self._file.read(len(MAGIC)) != MAGIC:
            raise self._broken('does not begin as an MCAP file')
        self._file.seek(max(0, self._size - _FOOTER_BYTES))
        footer = self._file.read()
        if len(footer) < _FOOTER_BYTES or not footer.endswith(MAGIC) or footer[0] != 2:
            raise self._broken(f'does not end as an MCAP file; {CUT_SHORT}')
        end = self._size - _FOOTER_BYTES
        begin, = struct.unpack_from('<Q', footer, 9)
        if not begin:
            return end
        if not len(MAGIC) <= begin <= end:
            raise self._broken(f'its summary is said to begin at byte {begin} of {self._size}')
        at = begin
        while at < end:
            code, body, at = self._record(at)
            self._learn(code, body)
        return begin

    def _learn(self, code: int, body: memoryview) -> None:
        """Take what a record says about channels and counts."""
        if code == _SCHEMA:
            number, = struct.unpack_from('<H', body)
            self._schemas[number] = _text(body, 2)[0]
        elif code == _CHANNEL:
            number, schema = struct.unpack_from('<HH', body)
            name, at = _text(body, 4)
            encoding, _ = _text(body, at)
            self._channels[number] = StoredTopic(name, self._schemas.get(schema, ''), encoding)
        elif code == _STATISTICS:
            total, *_, begin, end, size = struct.unpack_from('<QHIIIIQQI', body)
            counts = dict(struct.iter_unpack('<HQ', body[46:46 + size]))
            self._statistics = (Span(begin, end) if total else None, counts)

    def _broken(self, found: str) -> RecordingError:
        return refuse('damaged', self._shown, self._shown.stem, found)


def _text(body: memoryview, at: int) -> tuple[str, int]:
    """Return a string of a record, and where it ends."""
    size, = struct.unpack_from('<I', body, at)
    return bytes(body[at + 4:at + 4 + size]).decode(), at + 4 + size


def _decompress(compression: str, packed: memoryview) -> bytes | memoryview:
    if compression == '':
        return packed
    if compression == 'zstd':
        from ros2_lstm_policy.data.rosbag.zstd import decompress
        return decompress(packed)
    if compression == 'lz4':
        from lz4.frame import decompress as decompress_lz4
        return decompress_lz4(packed)
    raise ValueError(f'compression {compression!r} is none of zstd, lz4')

"""Takes bags apart and puts them together as recorders, splits and disks leave them."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
import shutil
import struct
from typing import NamedTuple
import zlib

from ros2_lstm_policy.config_files import parse_yaml
from rosbags.interfaces import Qos
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import get_typestore, Stores
import yaml

TYPES = get_typestore(Stores.ROS2_JAZZY)


class Stored(NamedTuple):
    """One serialised message."""

    topic: str
    msgtype: str
    log_ns: int
    cdr: bytes


def messages_of(path: Path) -> list[Stored]:
    """Return every message of a whole bag."""
    with Reader(path) as reader:
        return [Stored(connection.topic, connection.msgtype, log_ns, bytes(raw))
                for connection, log_ns, raw in reader.messages()]


def message(topic: str, msgtype: str, log_ns: int, **fields: object) -> Stored:
    """Return a message of these fields."""
    raw = TYPES.serialize_cdr(TYPES.types[msgtype](**fields), msgtype)
    return Stored(topic, msgtype, log_ns, bytes(raw))


def store(path: Path, messages: Iterable[Stored], plugin: StoragePlugin = StoragePlugin.MCAP,
          qos: Mapping[str, list[Qos]] | None = None) -> Path:
    """Write messages in their order as one bag of one file."""
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        connections: dict[tuple[str, str], object] = {}
        for item in messages:
            key = item.topic, item.msgtype
            if key not in connections:
                connections[key] = writer.add_connection(
                    *key, typestore=TYPES, offered_qos_profiles=(qos or {}).get(item.topic, []))
            writer.write(connections[key], item.log_ns, item.cdr)
    return path


def split(source: Path, target: Path, file_of: Callable[[Stored, int], int],
          plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """
    Write a bag again in several files.

    :param file_of: message and its number on its topic to the number of its file.
    """
    parts: dict[int, list[Stored]] = {}
    numbers: dict[str, int] = {}
    messages = messages_of(source)
    for item in messages:
        number = numbers[item.topic] = numbers.get(item.topic, -1) + 1
        parts.setdefault(file_of(item, number), []).append(item)
    target.mkdir(parents=True)
    for number, part in parts.items():
        folder = store(target / f'part{number}', part, plugin)
        file, = (p for p in folder.iterdir() if p.suffix in ('.mcap', '.db3'))
        file.rename(target / f'{target.name}_{number}{file.suffix}')
        shutil.rmtree(folder)
    counts = {(m.topic, m.msgtype): numbers[m.topic] + 1 for m in messages}
    write_metadata(target, counts, [m.log_ns for m in messages])
    return target


def write_metadata(folder: Path, counts: Mapping[tuple[str, str], int],
                   log_ns: list[int]) -> None:
    """Write the metadata.yaml of the files that lie in a folder."""
    names = sorted(p.name for p in folder.iterdir() if p.suffix in ('.mcap', '.db3'))
    (folder / 'metadata.yaml').write_text(yaml.safe_dump({'rosbag2_bagfile_information': {
        'version': 9, 'storage_identifier': 'mcap', 'relative_file_paths': names,
        'duration': {'nanoseconds': max(log_ns) - min(log_ns)},
        'starting_time': {'nanoseconds_since_epoch': min(log_ns)},
        'message_count': sum(counts.values()), 'compression_format': '', 'compression_mode': '',
        'topics_with_message_count': [
            {'message_count': count, 'topic_metadata': {
                'name': topic, 'type': msgtype, 'serialization_format': 'cdr',
                'offered_qos_profiles': []}} for (topic, msgtype), count in counts.items()]}}))


def change_metadata(path: Path, change: Callable[[dict], object]) -> Path:
    """Change what metadata.yaml says."""
    file = path / 'metadata.yaml'
    values = parse_yaml(file.read_text())
    change(values['rosbag2_bagfile_information'])
    file.write_text(yaml.safe_dump(values))
    return path


def _sized(data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return struct.pack('<I', len(raw)) + raw


def _record(code: int, body: bytes) -> bytes:
    return struct.pack('<BQ', code, len(body)) + body


def write_mcap(path: Path, messages: Iterable[Stored], profile: str = 'ros2',
               foreign: tuple[str, str, bytes] | None = None, per_chunk: int = 0,
               compress: Callable[[bytes], bytes] | None = None, compression: str = '',
               summary: bool = True, lost: int = 0) -> Path:
    """
    Write an MCAP file with every liberty that the format gives.

    :param foreign: message encoding, schema encoding and schema of a channel beside the others.
    :param per_chunk: messages in a chunk; 0 for no chunks.
    :param summary: whether channels and statistics are repeated at the end.
    :param lost: how many of the last messages the statistics count that are not there.
    """
    messages = list(messages)
    channels = {key: number for number, key in enumerate(
        dict.fromkeys((m.topic, m.msgtype) for m in messages), 1)}
    described = b''.join(
        _record(3, struct.pack('<H', number) + _sized(msgtype) + _sized('ros2msg') + _sized(''))
        + _record(4, struct.pack('<HH', number, number) + _sized(topic) + _sized('cdr')
                  + _sized(b'')) for (topic, msgtype), number in channels.items())
    counts = dict.fromkeys(channels.values(), 0)
    for m in messages:
        counts[channels[m.topic, m.msgtype]] += 1
    if foreign:
        described += _record(3, struct.pack('<H', 99) + _sized('other.Type') + _sized(foreign[1])
                             + _sized(foreign[2]))
        described += _record(4, struct.pack('<HH', 99, 99) + _sized('/other') + _sized(foreign[0])
                             + _sized(b''))
        counts[99] = 1
    stored = messages[:len(messages) - lost]
    records = [_record(5, struct.pack('<HIQQ', channels[m.topic, m.msgtype], 0, m.log_ns,
                                      m.log_ns) + m.cdr) for m in stored]
    if foreign:
        records.append(_record(5, struct.pack('<HIQQ', 99, 0, stored[-1].log_ns, 0) + b'{}'))
    out = b'\x89MCAP0\r\n' + _record(1, _sized(profile) + _sized('a test'))
    if per_chunk:
        for begin in range(0, len(records), per_chunk):
            body = (described if begin == 0 else b'') + b''.join(
                records[begin:begin + per_chunk])
            packed = compress(body) if compress else body
            out += _record(6, struct.pack('<QQQI', 0, 2**62, len(body), zlib.crc32(body))
                           + _sized(compression) + struct.pack('<Q', len(packed)) + packed)
    else:
        out += described + b''.join(records)
    out += _record(15, bytes(4))
    begin = len(out)
    if summary:
        times = [m.log_ns for m in messages]
        out += described + _record(11, struct.pack(
            '<QHIIIIQQ', sum(counts.values()), 0, 0, 0, 0, 0, min(times), max(times))
            + _sized(b''.join(struct.pack('<HQ', *item) for item in counts.items())))
    out += _record(2, struct.pack('<QQI', begin if summary else 0, 0, 0)) + b'\x89MCAP0\r\n'
    path.write_bytes(out)
    return path

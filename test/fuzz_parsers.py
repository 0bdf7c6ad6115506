"""
Every parser of data from outside, what it may raise, and how its inputs are damaged.

Used by test_fuzz_parsers.py, where hypothesis draws the damage, and by benchmarks/fuzz.py, which
draws much more of it. A damage is a list of operations: (kind, place, value), whole numbers of 32
bits that mean something for bytes of any length.
"""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
import signal
import struct
from types import SimpleNamespace
from typing import NamedTuple

import cv2
from data_recordings import (manifest, write_bag, write_calvin, write_lerobot_v21,
                             write_lerobot_v30, write_libero)
import numpy as np

Op = tuple[int, int, int]
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF,
           0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
TOKENS = (b'nan', b'-1', b'1e999', b'null', b'""', b'[' * 200, b'{' * 200, b'\xff\xfe', b'0x',
          b'true', b'9' * 400, b'\n- ', b': ', b'*a', b'&a ', b'!!python/name:os.system ', b'\0',
          b'../' * 5, b'1.5', b'"a": ')
KINDS = 9


class Hang(BaseException):
    """An input that took too long."""


class Target(NamedTuple):
    """
    One parser.

    :param parse: reads bytes, or files into which the bytes were written.
    :param corpus: good inputs.
    :param errors: what it may raise.
    """

    name: str
    parse: Callable[[bytes, int], object]
    corpus: Sequence[bytes]
    errors: tuple[type[BaseException], ...]


def damaged(data: bytes, operations: Sequence[Op]) -> bytes:
    """Return the bytes after each operation in turn."""
    found = bytearray(data)
    for kind, place, value in operations:
        at = place % (len(found) + 1)
        match kind % KINDS:
            case 0 if found:
                found[at % len(found)] ^= 1 << value % 8
            case 1 if found:
                found[at % len(found)] = value % 256
            case 2:
                size = (1, 2, 4, 8)[value % 4]
                number = NUMBERS[value // 4 % len(NUMBERS)] % (1 << 8 * size)
                found[at:at + size] = number.to_bytes(size, 'little')
            case 3:
                del found[at:at + 1 + value % 64]
            case 4:
                found[at:at] = found[at:at + 1 + value % 64]
            case 5:
                del found[at:]
            case 6:
                found[at:at] = TOKENS[value % len(TOKENS)]
            case 7:
                begin = value % (len(found) + 1)
                found[at:at + 32] = found[begin:begin + 32]
            case 8:
                token = TOKENS[value % len(TOKENS)]
                found[at:at + len(token)] = token
    return bytes(found)


@contextmanager
def time_limit(seconds: float):
    """Raise :class:`Hang` after a time."""
    def stop(*_):
        raise Hang(f'no answer within {seconds:g} s')
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(target: Target, number: int, operations: Sequence[Op], seconds: float = 20.0) -> bool:
    """
    Parse one damaged input; return whether it was taken.

    :raises BaseException: whatever the parser raised beyond what it documents.
    """
    data = damaged(target.corpus[number], operations)
    try:
        with time_limit(seconds):
            target.parse(data, number)
    except target.errors:
        return False
    return True


@dataclass
class Tree:
    """A recording or checkpoint of which one file at a time is damaged."""

    root: Path
    read: Callable[[Path], object]
    errors: tuple[type[BaseException], ...]
    only: Callable[[Path], bool] = lambda path: True
    files: list[Path] = field(default_factory=list)
    whole: list[bytes] = field(default_factory=list)

    def target(self, name: str) -> Target:
        """Return it as a target whose inputs are its files."""
        self.files = sorted(p for p in self.root.rglob('*') if p.is_file() and self.only(p))
        self.whole = [path.read_bytes() for path in self.files]
        return Target(name, self._parse, self.whole, self.errors)

    def _parse(self, data: bytes, number: int) -> None:
        path = self.files[number]
        path.write_bytes(data)
        try:
            self.read(self.root)
        finally:
            path.write_bytes(self.whole[number])


def targets(folder: Path) -> dict[str, Target]:
    """Return every target by its name; good inputs are made in a folder."""
    found = [*_messages(), *_texts(folder), *_recordings(folder), *_policies(folder)]
    return {target.name: target for target in found}


def _messages() -> list[Target]:
    from ros2_lstm_policy.messages import image_shape, image_to_rgb, ImageError
    from ros2_lstm_policy.serving.wire import Message, pack, unpack, WireError
    from ros2_lstm_policy.streams import decode, StreamConfig, StreamError
    encodings = ('rgb8', 'bgr8', 'mono8', 'rgba8', 'mono16', 'rgb16', 'bayer_rggb8', 'uyvy',
                 '32FC1', '')

    def image(data: bytes, number: int) -> None:
        head = data[:17].ljust(17, b'\0')
        height, width, step, code, is_big = struct.unpack('<IIIIB', head)
        image_to_rgb(SimpleNamespace(
            height=height, width=width, step=step, is_bigendian=is_big,
            encoding=encodings[code % len(encodings)], data=data[17:]))

    def compressed(data: bytes, number: int) -> None:
        form = ('jpeg', 'rgb8; png compressed ', 'mono16; png', '16UC1; compressedDepth')[
            data[0] % 4 if data else 0]
        message = SimpleNamespace(format=form, data=data[1:])
        try:
            image_shape(message)
        finally:
            image_to_rgb(message)

    names, kinds = ('a', 'b'), ('sensor_msgs/msg/JointState', 'geometry_msgs/msg/PoseStamped',
                                'geometry_msgs/msg/TwistStamped',
                                'std_msgs/msg/Float64MultiArray')

    def stream(data: bytes, number: int) -> None:
        values = np.frombuffer(data[1:len(data) - (len(data) - 1) % 8] if data else b'')
        size = data[0] if data else 0
        xyz = SimpleNamespace(**dict(zip('xyzw', [*values[:4], *[0.0] * 4])))
        message = SimpleNamespace(
            name=[chr(97 + k % 3) for k in range(size % 5)], position=values, data=values,
            pose=SimpleNamespace(position=xyz, orientation=xyz),
            twist=SimpleNamespace(linear=xyz, angular=xyz))
        kind = kinds[size % len(kinds)]
        decode(message, kind, StreamConfig('t', kind, names=names if size % 2 else ()))

    pictures = np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)
    raw = [struct.pack('<IIIIB', 16, 24, 72, code, 0) + pictures.tobytes()
           for code in range(len(encodings))]
    files = [bytes([code]) + cv2.imencode(form, pictures)[1].tobytes()
             for code, form in ((0, '.jpg'), (1, '.png'))]
    observation = Message('observation', {
        'images': {'static': pictures}, 'states': np.arange(3.0), 'task_description': 'words'}, 3)
    return [
        Target('image message', image, raw, (ImageError,)),
        Target('compressed image message', compressed, files, (ImageError,)),
        Target('numbers of messages', stream,
               [bytes([k]) + np.arange(4.0).tobytes() for k in range(8)], (StreamError,)),
        Target('wire', lambda data, number: unpack(data),
               [pack(observation), pack(Message('hello', {'version': 1}, 1))], (WireError,)),
    ]


def _texts(folder: Path) -> list[Target]:
    from ros2_lstm_policy import config
    from ros2_lstm_policy.config_files import ConfigError, read_json
    from ros2_lstm_policy.manifest import Manifest
    from ros2_lstm_policy.model.policy import PolicyConfig
    from ros2_lstm_policy.robovlms.files import read_configuration
    from ros2_lstm_policy.robovlms.settings import parse
    root = Path(__file__).parents[1]
    yaml_file, json_file = folder / 'values.yaml', folder / 'values.json'

    def of_file(path: Path, read: Callable[[], object]) -> Callable[[bytes, int], None]:
        def run(data: bytes, number: int) -> None:
            path.write_bytes(data)
            read()
        return run
    policy = (root / 'checkpoints' / 'compact_libero' / 'config.yaml').read_bytes()
    runs = [path.read_bytes() for path in sorted((root / 'test' / 'golden').glob('*.config.json'))]
    return [
        Target('YAML of a manifest', of_file(yaml_file, lambda: config.load(Manifest, yaml_file)),
               [config.dump(manifest()).encode()], (ConfigError,)),
        Target('YAML of a policy', of_file(yaml_file, lambda: config.load(
            PolicyConfig, yaml_file)), [policy], (ConfigError,)),
        Target('JSON', of_file(json_file, lambda: read_json(json_file)), runs, (ConfigError,)),
        Target('RoboVLMs configuration', of_file(json_file, lambda: parse(
            read_configuration(json_file), json_file)), runs, (ValueError,)),
    ]


def _recordings(folder: Path) -> list[Target]:
    from ros2_lstm_policy.data.problems import RecordingError
    from ros2_lstm_policy.data.sources import describe, open_source, SourceSpec

    def read(kind: str) -> Callable[[Path], None]:
        def run(path: Path) -> None:
            spec = SourceSpec(path, kind)  # type: ignore[arg-type]
            describe(spec)
            for recording in open_source(spec, period_s=0.1):
                try:
                    for reading in recording.read():
                        for frames in reading.episode.frames.values():
                            frames[0]
                            frames[len(frames) - 1]
                except RecordingError:
                    pass  # this one is left out, the others are read
        return run
    whole = {
        'bag, MCAP': ('bag', write_bag(folder / 'mcap', steps=4)),
        'bag, JPEG': ('bag', write_bag(folder / 'jpeg', steps=4, jpeg=True)),
        'bag, SQLite': ('bag', _sqlite(folder)),
        'CALVIN': ('calvin', write_calvin(folder / 'calvin', 8, ((100, 103), (104, 107)))),
        'LeRobot 2.1': ('lerobot', write_lerobot_v21(folder / 'v21', 1, 4)),
        'LeRobot 3.0': ('lerobot', write_lerobot_v30(folder / 'v30', (4, 4))),
        'LIBERO HDF5': ('libero', write_libero(folder / 'libero' / 'x_demo.hdf5', 1, 4).parent),
    }
    return [Tree(path, read(kind), (RecordingError,)).target(name)
            for name, (kind, path) in whole.items()]


def _sqlite(folder: Path) -> Path:
    from data_bag_files import messages_of, store
    from rosbags.rosbag2 import StoragePlugin
    return store(folder / 'sqlite', messages_of(write_bag(folder / 'of', steps=4)),
                 StoragePlugin.SQLITE3)


def _policies(folder: Path) -> list[Target]:
    from node_robot import small_checkpoint
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.model.backbones.compact.packaged import WeightsError
    from ros2_lstm_policy.robovlms.files import read_weights
    import torch
    small = small_checkpoint(folder / 'checkpoint')
    weights = folder / 'run.pt'
    torch.save({'state_dict': {'model.a': torch.zeros(3, 2), 'model.b.c': torch.ones(4)}}, weights)

    def pickled(data: bytes, number: int) -> None:
        weights.write_bytes(data)
        read_weights(weights)
    return [
        Tree(small, checkpoint.load, (ValueError, WeightsError),
             lambda path: path.suffix in ('.yaml', '.json')).target('checkpoint, its texts'),
        _weights_alone(small),
        Target('RoboVLMs weights', pickled, [weights.read_bytes()], (ValueError,)),
    ]


def _weights_alone(small: Path) -> Target:
    """Damage the header of the weights, which is parsed; numbers are numbers."""
    from ros2_lstm_policy.model import shards
    path = small / 'model.safetensors'
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], 'little')

    def parse(data: bytes, number: int) -> None:
        path.write_bytes(data + whole[head:])
        try:
            shards.shapes(small)
            for file in shards.weight_files(small):
                with shards.opened(small / file) as tensors:
                    for name in tensors.keys():  # noqa: SIM118 (no mapping)
                        tensors.get_tensor(name)
        finally:
            path.write_bytes(whole)
    return Target('checkpoint, its weights', parse, [whole[:head]], (ValueError,))

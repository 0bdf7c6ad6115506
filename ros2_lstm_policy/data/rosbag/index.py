"""
One pass over a bag: where its frames are and every small message, nothing decoded.

Images stay in the file; of each only the stamp and the size are read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.data.problems import reading, refuse
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.data.rosbag.typestore import typestore
from ros2_lstm_policy.messages import stamp_ns
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

ADVICE = '; it was cut short or never closed: `mcap recover` may save a part'


@dataclass(frozen=True)
class FrameRef:
    """
    Where one image is; stands for the image in the sampler.

    :param number: its place among the messages of its topic.
    :param shape: (H, W, 3); None where the message is no image.
    """

    camera: str
    stamp_ns: int
    log_ns: int
    number: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class ArmMessage:
    """
    One TwistStamped.

    :param values: six numbers, linear then angular.
    :param gripper: the last gripper value before it; None where there was none.
    """

    log_ns: int
    stamp_ns: int
    values: tuple[float, ...]
    gripper: float | None


@dataclass(frozen=True)
class ImageTopic:
    """A camera's topic in one bag."""

    topic: str
    frames: tuple[FrameRef, ...]


@dataclass(frozen=True)
class BagIndex:
    """
    What a bag holds.

    :param instructions: (log time, words), in order.
    :param success: the label; None where nobody said.
    :param problems: what its recorder missed, as it said itself.
    :param others: topics that nothing was read from.
    """

    path: Path
    cameras: Mapping[str, ImageTopic]
    arm: tuple[ArmMessage, ...]
    instructions: tuple[tuple[int, str], ...]
    success: bool | None
    info: bag.EpisodeInfo | None
    problems: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def index_bag(path: Path, layout: bag.BagLayout, cameras: Sequence[str]) -> BagIndex:
    """
    Read everything but the pixels.

    :param path: a bag's folder, or one .mcap or .db3 file.
    :raises RecordingError: for a damaged bag or a topic that is missing.
    """
    types = typestore()
    with reading(path, path.name, ADVICE), Reader(path) as reader:
        topics = _Topics(path, reader.connections)
        collector = _Collector(path, layout, topics, cameras)
        wanted = [c for c in reader.connections if c.topic in collector.takers]
        for connection, log_ns, raw in reader.messages(wanted):
            message = types.deserialize_cdr(raw, connection.msgtype)
            collector.takers[connection.topic](connection.topic, log_ns, message)
    return collector.result()


class _Topic(NamedTuple):
    name: str
    msgtype: str


class _Topics:
    """Finds the topics of a bag by name and type."""

    def __init__(self, path: Path, connections: Sequence[Connection]) -> None:
        self._path = path
        self._connections = connections

    def need(self, name: str, *msgtypes: str, otherwise: str = '') -> _Topic:
        """Return the topic; :raises RecordingError: where there is none."""
        found = self.find(name, *msgtypes)
        if found is None:
            there = ', '.join(f'{c.topic} ({c.msgtype}, {c.msgcount})' for c in self._connections)
            raise refuse('missing-topic', self._path, self._path.name,
                         f'no messages of {" or ".join(msgtypes)} on {name!r}; the bag has '
                         f'{there or "no topics"}; name its topics with bag.topics{otherwise}')
        return found

    def find(self, name: str, *msgtypes: str) -> _Topic | None:
        """Return the topic of that name and one of these types, where it has messages."""
        wanted = name.strip('/')
        found = {_Topic(c.topic, c.msgtype) for c in self._connections
                 if c.msgtype in msgtypes and c.msgcount
                 and (c.topic.strip('/') == wanted or c.topic.endswith('/' + wanted))}
        best = {topic for topic in found if topic.name.strip('/') == wanted} or found
        if len(best) > 1:
            raise refuse('missing-topic', self._path, self._path.name,
                         f'{name!r} may be any of {", ".join(sorted(t.name for t in best))}; '
                         'name one with bag.topics')
        return next(iter(best), None)

    def without(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the topics that have messages and other names."""
        return tuple(sorted({c.topic for c in self._connections if c.msgcount} - set(names)))

    def need_image(self, name: str) -> _Topic:
        """Return the camera's topic: raw, or compressed under its own or the usual name."""
        compressed = self.find(name + '/compressed', bag.COMPRESSED_IMAGE)
        raw = self.find(name, bag.IMAGE, bag.COMPRESSED_IMAGE)
        return raw or compressed or self.need(name, bag.IMAGE, bag.COMPRESSED_IMAGE)


class _Collector:
    """Takes the messages of one bag one by one."""

    def __init__(self, path: Path, layout: bag.BagLayout, topics: _Topics,
                 cameras: Sequence[str]) -> None:
        self._path = path
        self._images = {name: topics.need_image(layout.topics.camera(name)) for name in cameras}
        self._camera_of = {topic.name: camera for camera, topic in self._images.items()}
        self._frames: dict[str, list[FrameRef]] = {name: [] for name in cameras}
        self._arm: list[ArmMessage] = []
        self._gripper: float | None = None
        self._instructions: list[tuple[int, str]] = []
        self._success: bool | None = None
        self._info: bag.EpisodeInfo | None = None
        self._problems: tuple[str, ...] = ()
        names = layout.topics
        self.takers: dict[str, Callable[[str, int, Any], None]] = {
            topic.name: self._take_image for topic in self._images.values()}
        self.takers[topics.need(names.arm_delta, bag.TWIST).name] = self._take_arm
        self.takers[topics.need(names.gripper_command, bag.GRIPPER).name] = self._take_gripper
        if layout.instruction is None:
            words = topics.need(names.instruction, bag.STRING,
                                otherwise=', or say the words with bag.instruction')
            self.takers[words.name] = self._take_instruction
        for name, msgtype, take in ((names.success, bag.BOOL, self._take_success),
                                    (names.info, bag.STRING, self._take_info),
                                    (names.problems, bag.STRING, self._take_problems)):
            found = topics.find(name, msgtype)
            if found is not None:
                self.takers[found.name] = take
        self._others = topics.without(self.takers)

    def result(self) -> BagIndex:
        cameras = {camera: ImageTopic(topic.name, tuple(self._frames[camera]))
                   for camera, topic in self._images.items()}
        return BagIndex(self._path, cameras, tuple(self._arm), tuple(self._instructions),
                        self._success, self._info, self._problems, self._others)

    def _take_image(self, topic: str, log_ns: int, message: Any) -> None:
        camera = self._camera_of[topic]
        frames = self._frames[camera]
        frames.append(FrameRef(camera, stamp_ns(message), log_ns, len(frames), _shape(message)))

    def _take_arm(self, topic: str, log_ns: int, message: Any) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        values = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        self._arm.append(ArmMessage(log_ns, stamp_ns(message), values, self._gripper))

    def _take_gripper(self, topic: str, log_ns: int, message: Any) -> None:
        if len(message.data) != 1:
            raise refuse('gripper-values', self._path, self._path.name,
                         f'{topic}: expected one value, found {len(message.data)}')
        self._gripper = float(message.data[0])

    def _take_instruction(self, topic: str, log_ns: int, message: Any) -> None:
        self._instructions.append((log_ns, message.data))

    def _take_success(self, topic: str, log_ns: int, message: Any) -> None:
        self._success = bool(message.data)

    def _take_problems(self, topic: str, log_ns: int, message: Any) -> None:
        self._problems += tuple(message.data.splitlines())

    def _take_info(self, topic: str, log_ns: int, message: Any) -> None:
        try:
            self._info = bag.parse_info(message.data, f'{self._path}: {topic}')
        except ConfigError as error:
            raise refuse('episode-info', self._path, self._path.name, str(error)) from error


def _shape(message: Any) -> tuple[int, ...] | None:
    """Return the size of an image without decoding it."""
    if hasattr(message, 'encoding'):
        return message.height, message.width, 3
    from PIL import Image, UnidentifiedImageError
    try:
        width, height = Image.open(BytesIO(message.data)).size
    except (UnidentifiedImageError, OSError):
        return None
    return height, width, 3

"""
One pass over a bag: where its frames are and every small message, in the order of log times.

Images stay in the file; of each only the stamp and the size are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ros2_lstm_policy.config import ConfigError
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.problems import Problem, refuse
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.data.rosbag.contents import Contents, locate
from ros2_lstm_policy.data.rosbag.storage import bag_name, OpenFiles, uncompressed
from ros2_lstm_policy.data.rosbag.stored import CDR, Place, StoredMessage, StoredTopic
from ros2_lstm_policy.data.rosbag.typestore import typestore
from ros2_lstm_policy.messages import image_shape, ImageError, stamp_ns
from ros2_lstm_policy.streams import (decode, DECODERS, stream_of, StreamConfig, StreamError,
                                      time_ns)

_READ = (bag.IMAGE, bag.COMPRESSED_IMAGE, bag.TWIST, bag.GRIPPER, bag.STRING, bag.BOOL)
_LONGEST_MARKER = 200
_FIRST = 100  # messages among which a bag says what it is


@dataclass(frozen=True)
class FrameRef:
    """
    Where one image is; stands for the image in the sampler.

    :param shape: (H, W, 3); None where the message holds no image that can be used.
    :param fault: why not; empty for a good one.
    """

    camera: str
    stamp_ns: int
    log_ns: int
    place: Place
    shape: tuple[int, ...] | None
    fault: str = ''


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
    msgtype: str
    frames: tuple[FrameRef, ...]


@dataclass(frozen=True)
class StreamTopic:
    """
    The numbers of one topic, in the order of the bag; n messages.

    :param log_ns: (n,) int64, when each was recorded.
    :param stamps_ns: (n,) int64, their header stamps; the same where their type has none.
    :param values: (n, size) float64.
    """

    topic: str
    log_ns: np.ndarray
    stamps_ns: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class BagIndex:
    """
    What a bag holds.

    :param arm: the messages that cut it into episodes; see :class:`.cut.Segment`.
    :param states: by the name of the state.
    :param commands: by the name of the group, where the layout says where they are.

    :param instructions: (log time, words), in order.
    :param labels: (log time, success), in order.
    :param texts: topic of std_msgs/String to (log time, text) of its short messages, in order;
        without the topics that mean something else.
    :param begin_ns: log time of the first message of any topic.
    :param others: topics that nothing was read from.
    :param remarks: what is said wrongly, and does no harm.
    :param problems: what its recorder missed, as it said itself.
    """

    path: Path
    cameras: Mapping[str, ImageTopic]
    arm: tuple[ArmMessage, ...]
    states: Mapping[str, StreamTopic]
    commands: Mapping[str, StreamTopic]
    instructions: tuple[tuple[int, str], ...]
    labels: tuple[tuple[int, bool], ...]
    info: bag.EpisodeInfo | None
    texts: Mapping[str, tuple[tuple[int, str], ...]]
    begin_ns: int
    others: tuple[str, ...]
    remarks: tuple[Problem, ...] = ()
    problems: tuple[str, ...] = ()


def index_bag(path: Path, layout: bag.BagLayout, wanted: Wanted) -> BagIndex:
    """
    Read everything but the pixels.

    :param path: a bag's folder, or one .mcap or .db3 file.
    :raises RecordingError: for a damaged bag, one that lost messages, or a missing topic.
    """
    located = locate(path)
    with OpenFiles() as files:
        contents = Contents(located, files)
        names = layout.topics.all_names(wanted.cameras, layout.instruction is None)
        numbers = [config.topic for config in (*_states(layout, wanted).values(),
                                               *_commands(layout).values())]
        items = [_decode(message, path) for message in contents.messages()
                 if message.topic.encoding == CDR and (
                     message.topic.msgtype == bag.STRING
                     or (_is_named(message.topic, names) and message.topic.msgtype in _READ)
                     or _is_named(message.topic, numbers))]
    remarks = contents.check()
    # Stable, so equal times stay in the order of the file; but a gripper command comes before the
    # arm's of its time, also where another file holds it.
    items.sort(key=lambda item: (item.log_ns, item.topic.msgtype == bag.TWIST))
    topics = Topics(path, contents.counts)
    collector = _Collector(path, layout, topics, wanted)
    return collector.collect(items, contents.begin_ns, tuple(remarks))


def first_info(path: Path, layout: bag.BagLayout) -> bag.EpisodeInfo | None:
    """Return what a bag says of itself at its beginning; None where it says nothing there."""
    with OpenFiles() as files:
        for message in itertools.islice(Contents(locate(path), files).messages(), _FIRST):
            if (message.topic.msgtype == bag.STRING and message.topic.encoding == CDR
                    and matches(message.topic.name, layout.topics.info)):
                return _parse_info(_decode(message, path).content.data, message.topic.name, path)
    return None


def _parse_info(text: str, topic: str, path: Path) -> bag.EpisodeInfo:
    try:
        return bag.parse_info(text, f'{path}: {topic}')
    except ConfigError as error:
        raise refuse('episode-info', path, bag_name(path), str(error)) from error


def _states(layout: bag.BagLayout, wanted: Wanted) -> dict[str, StreamConfig]:
    """Return where each state comes from: those of the policy, and those that are actions."""
    found = {action.state: stream_of(action.state, layout.states)
             for action in layout.actions.values() if action.state}
    for state in wanted.states:
        stream = stream_of(state.name, layout.states)
        found[state.name] = stream if stream.names else replace(stream, names=state.names)
    return found


def _commands(layout: bag.BagLayout) -> dict[str, StreamConfig]:
    return {name: action.command for name, action in layout.actions.items() if action.command}


def _is_named(topic: StoredTopic, names: Sequence[str]) -> bool:
    return any(matches(topic.name, name) for name in names)


class Item(NamedTuple):
    """A message, decoded; of an image its stamp, its size and what is wrong with it."""

    topic: StoredTopic
    log_ns: int
    place: Place
    content: Any


class Header(NamedTuple):
    """All that is kept of an image."""

    stamp_ns: int
    shape: tuple[int, ...] | None
    fault: str


def _decode(message: StoredMessage, path: Path) -> Item:
    topic = message.topic
    try:
        data = uncompressed(message.data)
        content = typestore().deserialize_cdr(data, topic.msgtype)
    except Exception as error:  # whatever a parser raises over bytes that are something else
        raise refuse('damaged', path, bag_name(path), f'{topic.name}: a message of '
                     f'{len(message.data)} bytes is no {topic.msgtype} ({error})') from error
    if topic.msgtype in (bag.IMAGE, bag.COMPRESSED_IMAGE):
        content = _header(content)
    return Item(topic, message.log_ns, message.place, content)


def _header(message: Any) -> Header:
    try:
        return Header(stamp_ns(message), image_shape(message), '')
    except ImageError as error:
        return Header(stamp_ns(message), None, str(error))


def matches(topic: str, name: str) -> bool:
    """Return whether a topic has this name, or ends with it."""
    wanted = name.strip('/')
    return topic.strip('/') == wanted or topic.endswith('/' + wanted)


class Topics:
    """
    Finds the topics of a bag by name and type, and remembers which were found.

    :param counts: messages that came on each topic.
    """

    def __init__(self, path: Path, counts: Mapping[StoredTopic, int]) -> None:
        """Take the topics of a bag."""
        self._path, self.counts = path, counts
        self.used: set[StoredTopic] = set()

    def need(self, name: str, *msgtypes: str, key: str, otherwise: str = '',
             where: str = 'bag.topics.') -> StoredTopic:
        """
        Return the topic; :raises RecordingError: where there is none.

        :param key: the name of its setting, after `where`.
        """
        found = self.find(name, *msgtypes)
        if found is not None:
            return found
        suited = sorted(topic.name for topic, count in self.counts.items()
                        if count and topic.msgtype in msgtypes and topic.encoding == CDR)
        advice = (f'name it with {where}{key}={suited[0]}' if len(suited) == 1 else
                  f'name it with {where}{key}, one of {", ".join(suited)}' if suited else
                  f'no name can help, since no topic has this type: record {name!r} as '
                  f'{msgtypes[0]}')
        raise refuse('missing-topic', self._path, bag_name(self._path),
                     f'no messages of {" or ".join(msgtypes)} on {name!r}; the bag has '
                     f'{self.listed()}; {advice}{otherwise}')

    def find(self, name: str, *msgtypes: str) -> StoredTopic | None:
        """Return the topic of that name and one of these types, where it has messages."""
        named = [topic for topic, count in self.counts.items()
                 if count and topic.encoding == CDR and matches(topic.name, name)]
        exact = [topic for topic in named if topic.name.strip('/') == name.strip('/')]
        found = {t for t in named if t.msgtype in msgtypes}
        best = {t for t in exact if t.msgtype in msgtypes} or found
        if len({topic.name for topic in best}) > 1:
            raise refuse('missing-topic', self._path, bag_name(self._path),
                         f'{name!r} may be any of {", ".join(sorted(t.name for t in best))}; '
                         'name one with bag.topics')
        if not best:
            return None
        chosen = next(iter(best))
        self._refuse_two_types(chosen.name)
        self.used.add(chosen)
        return chosen

    def listed(self) -> str:
        """Return the topics with type and number of messages, for people."""
        return ', '.join(f'{t.name} ({t.msgtype or "no type"}, {count}'
                         f'{"" if t.encoding == CDR else ", " + t.encoding})'
                         for t, count in sorted(self.counts.items())) or 'no topics'

    def _refuse_two_types(self, name: str) -> None:
        same = {t.msgtype: n for t, n in self.counts.items() if t.name == name and n}
        if len(same) > 1:
            text = ', '.join(f'{msgtype} ({count})' for msgtype, count in sorted(same.items()))
            raise refuse('missing-topic', self._path, bag_name(self._path),
                         f'{name} has {len(same)} types: {text}; which of them the robot '
                         'followed cannot be told: two nodes published on it')


class _Collector:
    """Sorts the messages of one bag by what they mean."""

    def __init__(self, path: Path, layout: bag.BagLayout, topics: Topics,
                 wanted: Wanted) -> None:
        names, self._layout = layout.topics, layout
        self._path, self._topics, self._cut = path, topics, layout.episodes
        self._images = {camera: self._need_image(camera, names.camera(camera))
                        for camera in wanted.cameras}
        self._arm = self._gripper = None
        if not layout.actions:
            self._arm = topics.need(names.arm_delta, bag.TWIST, key='arm_delta')
            self._gripper = topics.need(names.gripper_command, bag.GRIPPER, key='gripper_command')
        self._states = {name: (config, self._need_numbers(config, f'states.{name}'))
                        for name, config in _states(layout, wanted).items()}
        self._commands = {name: (config, self._need_numbers(config, f'actions.{name}.command'))
                          for name, config in _commands(layout).items()}
        self._instruction = None if layout.instruction is not None else topics.need(
            names.instruction, bag.STRING, key='instruction',
            otherwise=', or say the words with bag.instruction')
        self._success = topics.find(names.success, bag.BOOL)
        self._info = topics.find(names.info, bag.STRING)
        self._problems = topics.find(names.problems, bag.STRING)

    def _need_numbers(self, config: StreamConfig, key: str) -> StoredTopic:
        types = (config.msgtype,) if config.msgtype else tuple(DECODERS)
        if config.field and not config.msgtype:
            types = tuple({topic.msgtype for topic in self._topics.counts})
        return self._topics.need(config.topic, *types, key=key, where='bag.')

    def _need_image(self, camera: str, name: str) -> StoredTopic:
        """Return the camera's topic: raw, or compressed under its own or the usual name."""
        compressed = self._topics.find(name + '/compressed', bag.COMPRESSED_IMAGE)
        raw = self._topics.find(name, bag.IMAGE, bag.COMPRESSED_IMAGE)
        if raw is not None and compressed is not None:
            self._topics.used.discard(compressed)
        return raw or compressed or self._topics.need(name, bag.IMAGE, bag.COMPRESSED_IMAGE,
                                                      key=f'cameras.{camera}')

    def collect(self, items: Sequence[Item], begin_ns: int,
                remarks: tuple[Problem, ...]) -> BagIndex:
        def content(topic: StoredTopic | None) -> Iterator[tuple[int, Any]]:
            return ((item.log_ns, item.content.data) for item in items if item.topic == topic)
        cameras = {camera: ImageTopic(topic.name, topic.msgtype,
                                      self._frames(camera, topic, items))
                   for camera, topic in self._images.items()}
        states, commands = ({name: self._numbers(topic, config, items)
                             for name, (config, topic) in streams.items()}
                            for streams in (self._states, self._commands))
        arm = tuple(self._actions(items)) if self._arm else self._beats(states, commands)
        return BagIndex(
            self._path, cameras, arm, states, commands, tuple(content(self._instruction)),
            tuple((log_ns, bool(data)) for log_ns, data in content(self._success)),
            self._parse_info([data for _, data in content(self._info)]),
            self._texts(items), begin_ns,
            self._others(), remarks,
            tuple(line for _, text in content(self._problems) for line in text.splitlines()))

    def _others(self) -> tuple[str, ...]:
        marker = self._cut.marker if self._cut.by == 'marker' else None
        return tuple(sorted({
            topic.name for topic, count in self._topics.counts.items()
            if count and topic not in self._topics.used
            and not (marker and matches(topic.name, marker))}))

    def _texts(self, items: Sequence[Item]) -> dict[str, tuple[tuple[int, str], ...]]:
        """Return what is said on topics that mean nothing here, such as markers of episodes."""
        texts: dict[str, list[tuple[int, str]]] = {}
        for item in items:
            if (item.topic.msgtype == bag.STRING and item.topic not in self._topics.used
                    and len(item.content.data) <= _LONGEST_MARKER):
                texts.setdefault(item.topic.name, []).append((item.log_ns, item.content.data))
        return {topic: tuple(said) for topic, said in sorted(texts.items())}

    def _frames(self, camera: str, topic: StoredTopic,
                items: Sequence[Item]) -> tuple[FrameRef, ...]:
        frames = tuple(FrameRef(camera, item.content.stamp_ns, item.log_ns, item.place,
                                item.content.shape, item.content.fault)
                       for item in items if item.topic == topic)
        if all(frame.fault for frame in frames):
            raise refuse('damaged', self._path, bag_name(self._path),
                         f'{topic.name}: none of {len(frames)} images can be used: '
                         f'{frames[0].fault}')
        return frames

    def _numbers(self, topic: StoredTopic, config: StreamConfig,
                 items: Sequence[Item]) -> StreamTopic:
        """Return the values of a topic; :raises RecordingError: where they are not wanted ones."""
        mine = [item for item in items if item.topic == topic]
        try:
            values = [decode(item.content, topic.msgtype, config) for item in mine]
        except StreamError as error:
            raise refuse('stream-values', self._path, bag_name(self._path), str(error)) from error
        sizes = {len(each) for each in values}
        if len(sizes) > 1:
            raise refuse('state-size', self._path, bag_name(self._path), f'{topic.name}: messages '
                         f'of {", ".join(map(str, sorted(sizes)))} values; expected one size')
        return StreamTopic(
            topic.name, np.array([item.log_ns for item in mine], np.int64),
            np.array([time_ns(item.content, item.log_ns) for item in mine], np.int64),
            np.stack(values))

    def _beats(self, states: Mapping[str, StreamTopic],
               commands: Mapping[str, StreamTopic]) -> tuple[ArmMessage, ...]:
        """Return the messages of the first group, by which the bag is cut into episodes."""
        name, action = next(iter(self._layout.actions.items()))
        stream = commands[name] if action.command else states[action.state]
        return tuple(ArmMessage(log_ns, stamp_ns, (), None) for log_ns, stamp_ns
                     in zip(stream.log_ns.tolist(), stream.stamps_ns.tolist()))

    def _actions(self, items: Sequence[Item]) -> Iterator[ArmMessage]:
        """Give each arm message the last gripper value before it."""
        gripper: float | None = None
        for item in items:
            if item.topic == self._gripper:
                gripper = self._one_value(item)
            elif item.topic == self._arm:
                linear, angular = item.content.twist.linear, item.content.twist.angular
                yield ArmMessage(item.log_ns, stamp_ns(item.content), (
                    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z), gripper)

    def _one_value(self, item: Item) -> float:
        if len(item.content.data) != 1:
            raise refuse('gripper-values', self._path, bag_name(self._path),
                         f'{item.topic.name}: expected one value, found '
                         f'{len(item.content.data)}')
        return float(item.content.data[0])

    def _parse_info(self, texts: Sequence[str]) -> bag.EpisodeInfo | None:
        if not texts:
            return None
        if len(set(texts)) > 1:
            raise refuse('episode-info', self._path, bag_name(self._path),
                         f'{len(set(texts))} different texts on '
                         f'{self._info.name if self._info else ""}: one bag holds recordings '
                         'that mean different things; split it')
        return _parse_info(texts[0], self._info.name if self._info else '', self._path)

"""What a foreign bag holds, topic by topic: types, rates, and what the numbers are like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.data.rosbag.contents import Contents, locate
from ros2_lstm_policy.data.rosbag.storage import OpenFiles, uncompressed
from ros2_lstm_policy.data.rosbag.stored import CDR, StoredTopic
from ros2_lstm_policy.data.rosbag.typestore import typestore
from ros2_lstm_policy.messages import image_shape, ImageError
from ros2_lstm_policy.streams import decode, DECODERS, StreamConfig, StreamError

IMAGES = (bag.IMAGE, bag.COMPRESSED_IMAGE)
_NS = 1_000_000_000


@dataclass
class Topic:
    """
    One topic.

    :param values: (n, size) of a topic of numbers; None for anything else.
    :param names: of the joints in its messages.
    :param texts: what was said on a topic of strings, in order.
    :param about: of images, their size and encoding.
    :param fault: why nothing can be read from it; empty where something can.
    """

    name: str
    msgtype: str
    count: int = 0
    rate_hz: float = 0.0
    values: np.ndarray | None = None
    names: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    about: str = ''
    fault: str = ''

    def __str__(self) -> str:
        """Write it as one line for people."""
        parts = [f'{self.count} messages', f'{self.rate_hz:.1f} Hz', self.about]
        if self.values is not None and not self.fault:
            parts.append(f'{self.values.shape[1]} values')
        parts += [', '.join(self.names), self.fault]
        return f'{self.name} ({self.msgtype}): {", ".join(part for part in parts if part)}'


def survey(path: Path) -> list[Topic]:
    """Read one bag; :raises RecordingError: where it is damaged."""
    stamps: dict[StoredTopic, list[int]] = defaultdict(list)
    kept: dict[StoredTopic, list[Any]] = defaultdict(list)
    faults: dict[StoredTopic, str] = {}
    with OpenFiles() as files:
        for message in Contents(locate(path), files).messages():
            topic = message.topic
            stamps[topic].append(message.log_ns)
            if topic in faults or not _is_kept(topic, len(kept[topic])):
                continue
            try:
                data = uncompressed(message.data)
                kept[topic].append(typestore().deserialize_cdr(data, topic.msgtype))
            except Exception as error:  # whatever a parser raises; others may be read
                faults[topic] = f'cannot be read ({type(error).__name__})'
    return [_topic(topic, np.array(times), kept[topic], faults.get(topic, ''))
            for topic, times in sorted(stamps.items())]


def _is_kept(topic: StoredTopic, count: int) -> bool:
    return topic.encoding == CDR and (
        topic.msgtype in DECODERS or topic.msgtype in (bag.STRING, bag.BOOL)
        or (topic.msgtype in IMAGES and count == 0))


def _topic(topic: StoredTopic, times_ns: np.ndarray, messages: Sequence[Any],
           fault: str) -> Topic:
    steps_ns = np.diff(np.sort(times_ns))
    rate_hz = _NS / max(float(np.median(steps_ns)), 1.0) if len(steps_ns) else 0.0
    found = Topic(topic.name, topic.msgtype, len(times_ns), rate_hz, fault=fault)
    if fault or not messages:
        return found
    if topic.msgtype in IMAGES:
        _describe_image(found, messages[0])
    elif topic.msgtype == bag.STRING:
        found.texts = tuple(message.data for message in messages)
        found.about = f'the first: {found.texts[0][:60]!r}'
    elif topic.msgtype in DECODERS:
        _describe_numbers(found, messages)
    return found


def _describe_image(found: Topic, message: Any) -> None:
    try:
        height, width, _ = image_shape(message)
        found.about = f'{width}x{height} {getattr(message, "encoding", "")}'.strip()
    except ImageError as error:
        found.fault = str(error).split(';')[0]


def _describe_numbers(found: Topic, messages: Sequence[Any]) -> None:
    first = messages[0]
    found.names = tuple(getattr(first, 'name', getattr(first, 'joint_names', ())))
    stream = StreamConfig(found.name, names=found.names)
    try:
        values = [decode(message, found.msgtype, stream) for message in messages]
        found.values = np.stack(values)
    except (StreamError, ValueError) as error:
        found.fault = f'cannot be a stream: {error}'

"""Images of one camera of a bag, decoded one at a time when they are asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.data.problems import reading, refuse
from ros2_lstm_policy.data.rosbag.index import ADVICE, FrameRef, ImageTopic
from ros2_lstm_policy.data.rosbag.typestore import typestore
from ros2_lstm_policy.messages import image_to_rgb
from rosbags.rosbag2 import Reader

_NEAR = 16


class BagFrames:
    """
    A `types.FrameSequence` over chosen images of a topic.

    Reading in order goes once through the file; a jump seeks by the bag's index.
    """

    def __init__(self, path: Path, topic: ImageTopic, chosen: Sequence[FrameRef]) -> None:
        """Remember what was chosen; nothing is opened yet."""
        self._path, self._topic, self._chosen = path, topic, tuple(chosen)
        self._log_times = [frame.log_ns for frame in topic.frames]
        self._types = typestore()
        self._messages: Iterator[tuple[bytes, str]] = iter(())
        self._next = len(topic.frames)

    def __len__(self) -> int:
        """Return T."""
        return len(self._chosen)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) uint8 image; :raises RecordingError: where it is damaged."""
        wanted = self._chosen[index]
        with reading(self._path, self._path.name, ADVICE):
            message = self._seek(wanted)
        try:
            return image_to_rgb(message)
        except ValueError as error:
            first = self._topic.frames[0].stamp_ns
            raise refuse('damaged', self._path, self._path.name, f'{self._topic.topic}: {error}',
                         (wanted.stamp_ns - first) / 1e9) from error

    def _seek(self, wanted: FrameRef) -> Any:
        if not self._next <= wanted.number < self._next + _NEAR:
            self._next = bisect_left(self._log_times, wanted.log_ns)
            self._messages = self._read_from(wanted.log_ns)
        for message in self._messages:
            self._next += 1
            if self._next == wanted.number + 1:
                return self._types.deserialize_cdr(*message)
        raise EOFError(f'{self._topic.topic} ends before its message {wanted.number}')

    def _read_from(self, log_ns: int) -> Iterator[tuple[bytes, str]]:
        with Reader(self._path) as reader:
            connections = [c for c in reader.connections if c.topic == self._topic.topic]
            for connection, _, raw in reader.messages(connections, start=log_ns):
                yield raw, connection.msgtype

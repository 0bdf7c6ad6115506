"""Images of one camera of a bag, decoded one at a time when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ros2_lstm_policy.data.problems import reading, refuse
from ros2_lstm_policy.data.rosbag.index import FrameRef, ImageTopic
from ros2_lstm_policy.data.rosbag.storage import bag_name, OpenFiles
from ros2_lstm_policy.data.rosbag.typestore import typestore
from ros2_lstm_policy.messages import image_to_rgb


class BagFrames:
    """
    A `types.FrameSequence` over chosen images of a topic.

    Each is found by its place in the storage file, never by counting or by its time.
    """

    def __init__(self, path: Path, topic: ImageTopic, chosen: Sequence[FrameRef]) -> None:
        """Remember what was chosen; nothing is opened yet."""
        self._path, self._topic, self._chosen = path, topic, tuple(chosen)
        self._files = OpenFiles()

    def __len__(self) -> int:
        """Return T."""
        return len(self._chosen)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) uint8 image; :raises RecordingError: where it is damaged."""
        wanted = self._chosen[index]
        with reading(wanted.place.file, bag_name(self._path)):
            message = typestore().deserialize_cdr(
                self._files.read(wanted.place), self._topic.msgtype)
        if wanted is self._chosen[-1]:
            self._files.close()
        try:
            return image_to_rgb(message)
        except ValueError as error:
            first = self._topic.frames[0].stamp_ns
            raise refuse('damaged', self._path, bag_name(self._path),
                         f'{self._topic.topic}: {error}',
                         (wanted.stamp_ns - first) / 1e9) from error

"""
Writes one episode into one rosbag2 bag (MCAP, the format of ROS 2 Jazzy).

A bag is written under `partial/` beside its final place and moved there when it is complete, so
what lies under its own name is whole, whatever happened to the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
import shutil
from types import TracebackType

import numpy as np
from ros2_lstm_policy.data.rosbag import format as bag
from ros2_lstm_policy.data.rosbag.typestore import typestore
from ros2_lstm_policy.data.rosbag.values import message_fields
from ros2_lstm_policy.kinds import ARM_DIM
from ros2_lstm_policy.streams import StreamConfig
from rosbags.interfaces import (Connection, Qos, QosDurability, QosHistory, QosLiveliness,
                                QosReliability, QosTime)
from rosbags.rosbag2 import StoragePlugin, Writer

PARTIAL = 'partial'
INCOMPLETE = 'incomplete'
JPEG_QUALITY = 95
_INFINITE = QosTime(9223372036, 854775807)


def offered_qos(reliable: bool, latched: bool) -> Qos:
    """Return the QoS profile that a replay of the bag offers."""
    return Qos(
        QosHistory.KEEP_LAST, 1 if latched else 10,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _INFINITE, _INFINITE, QosLiveliness.AUTOMATIC, _INFINITE, False)


class BagFile:
    """A bag that is being written, message by message, in CDR."""

    def __init__(self, path: Path) -> None:
        """
        Open `path.parent/partial/path.name`.

        :raises FileExistsError: where the bag, or an unfinished one of its name, is there.
        """
        self.path = Path(path)
        self._partial = self.path.parent / PARTIAL / self.path.name
        for taken in (self.path, self._partial):
            if taken.exists():
                raise FileExistsError(f'{taken}: exists already; give the episode another name')
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        self._writer = Writer(self._partial, version=9, storage_plugin=StoragePlugin.MCAP)
        self._typestore = typestore()
        self._connections: dict[str, Connection] = {}
        self._writer.open()
        self._lock = os.open(self._partial, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def add_topic(self, topic: str, msgtype: str, latched: bool = False) -> None:
        """Declare a topic (full name with its slash); a second call for it changes nothing."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, typestore=self._typestore,
                offered_qos_profiles=[offered_qos(True, latched)])

    def write(self, topic: str, log_ns: int, cdr: bytes | memoryview) -> None:
        """Append one serialised message of a declared topic."""
        self._writer.write(self._connections[topic], log_ns, cdr)

    def serialise(self, msgtype: str, **fields: object) -> memoryview:
        """Serialise one message given by its fields."""
        message = self._typestore.types[msgtype](**fields)  # type: ignore[arg-type]
        return self._typestore.serialize_cdr(message, msgtype)

    def header(self, stamp_ns: int, frame_id: str = '') -> object:
        """Build a std_msgs/Header."""
        types = self._typestore.types
        stamp = types['builtin_interfaces/msg/Time'](sec=stamp_ns // 10**9,
                                                     nanosec=stamp_ns % 10**9)
        return types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)  # type: ignore

    def message(self, msgtype: str, **fields: object) -> object:
        """Build one message or a part of one by its fields."""
        return self._typestore.types[msgtype](**fields)  # type: ignore[arg-type]

    def close(self) -> Path:
        """Complete the bag and move it to its place."""
        self._writer.close()
        os.replace(self._partial, self.path)
        self._release()
        return self.path

    def abort(self) -> None:
        """Stop writing and leave what is there under `partial/`."""
        self._abort()
        os.close(self._lock)

    def discard(self) -> None:
        """Stop writing and delete what was written."""
        self._abort()
        shutil.rmtree(self._partial)
        self._release()

    def _abort(self) -> None:
        with contextlib.suppress(OSError):  # a full disk refuses the last bytes as well
            self._writer.abort()

    def _release(self) -> None:
        os.close(self._lock)
        with contextlib.suppress(OSError):  # another episode is being written beside this one
            self._partial.parent.rmdir()


class EpisodeBagWriter:
    """
    Records one episode from arrays, in the format of :mod:`.format`.

    As a context manager it completes the bag at the end of the block and discards it on an
    exception.
    """

    def __init__(self, path: Path, info: bag.EpisodeInfo, instruction: str, stamp_ns: int,
                 jpeg: bool = False, topics: bag.TopicNames | None = None) -> None:
        """
        Begin the episode.

        :param path: folder of the bag; its name is `info.name`.
        :param stamp_ns: time of the beginning.
        :param jpeg: store images as JPEG of quality 95 instead of raw.
        """
        if Path(path).name != info.name:
            raise ValueError(f'{path}: the folder must be named as the episode, {info.name!r}')
        self._topics = topics or bag.TopicNames()
        self._jpeg = jpeg
        self._success: bool | None = None
        self._last_ns = stamp_ns
        self._file = BagFile(Path(path))
        self._text(self._topics.info, stamp_ns, bag.write_info(info))
        self._text(self._topics.instruction, stamp_ns, instruction)

    def write_frame(self, camera: str, stamp_ns: int, rgb_HWC: np.ndarray) -> None:
        """Append one (H, W, 3) uint8 RGB image of a camera."""
        if rgb_HWC.dtype != np.uint8 or rgb_HWC.ndim != 3 or rgb_HWC.shape[2] != 3:
            raise ValueError(f'camera {camera!r}: expected (H, W, 3) uint8, found '
                             f'{rgb_HWC.shape} {rgb_HWC.dtype}')
        topic = '/' + self._topics.camera(camera)
        header = self._file.header(stamp_ns, f'{camera}_camera')
        if self._jpeg:
            self._write(topic + '/compressed', bag.COMPRESSED_IMAGE, stamp_ns, header=header,
                        format='rgb8; jpeg compressed bgr8', data=_encode_jpeg(rgb_HWC))
            return
        height, width, _ = rgb_HWC.shape
        self._write(topic, bag.IMAGE, stamp_ns, header=header, height=height, width=width,
                    encoding='rgb8', is_bigendian=0, step=3 * width,
                    data=np.ascontiguousarray(rgb_HWC).reshape(-1))

    def write_action(self, stamp_ns: int, arm: np.ndarray, gripper_open: float) -> None:
        """
        Append the action that answers the observation of this stamp.

        :param arm: (6,) displacement of one control period in m and rad.
        :param gripper_open: 0 closed, 1 open.
        """
        if np.shape(arm) != (ARM_DIM,):
            raise ValueError(f'expected {ARM_DIM} arm values, found shape {np.shape(arm)}')
        make = self._file.message
        layout = make('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
        self._write('/' + self._topics.gripper_command, bag.GRIPPER, stamp_ns, layout=layout,
                    data=np.array([gripper_open], np.float64))
        linear, angular = (
            make('geometry_msgs/msg/Vector3', x=float(v[0]), y=float(v[1]), z=float(v[2]))
            for v in (arm[:3], arm[3:]))
        twist = make('geometry_msgs/msg/Twist', linear=linear, angular=angular)
        self._write('/' + self._topics.arm_delta, bag.TWIST, stamp_ns,
                    header=self._file.header(stamp_ns), twist=twist)

    def write_pose(self, stamp_ns: int, position_m: np.ndarray, quaternion_xyzw: np.ndarray,
                   frame_id: str = 'base') -> None:
        """Append the tool's pose: (3,) m and (4,) quaternion in x y z w order."""
        make = self._file.message
        x, y, z = (float(v) for v in position_m)
        qx, qy, qz, qw = (float(v) for v in quaternion_xyzw)
        pose = make('geometry_msgs/msg/Pose',
                    position=make('geometry_msgs/msg/Point', x=x, y=y, z=z),
                    orientation=make('geometry_msgs/msg/Quaternion', x=qx, y=qy, z=qz, w=qw))
        self._write('/' + self._topics.ee_pose, bag.POSE, stamp_ns,
                    header=self._file.header(stamp_ns, frame_id), pose=pose)

    def write_joints(self, stamp_ns: int, names: list[str], position_rad: np.ndarray) -> None:
        """Append the joint positions, in rad (m for prismatic joints)."""
        empty = np.zeros(0)
        self._write('/' + self._topics.joint_states, bag.JOINTS, stamp_ns,
                    header=self._file.header(stamp_ns), name=names,
                    position=np.asarray(position_rad, np.float64), velocity=empty, effort=empty)

    def write_values(self, config: StreamConfig, stamp_ns: int, values: np.ndarray) -> None:
        """
        Append a state or the command of a group.

        :param config: its topic and type, one of those of `rosbag.values`.
        """
        fields = message_fields(self._file, config, stamp_ns, values)
        self._write('/' + config.topic, config.msgtype, stamp_ns, **fields)

    def label(self, success: bool) -> None:
        """Say whether the task was done; unsaid it stays unknown."""
        self._success = success

    def close(self) -> Path:
        """Write the label, complete the bag and return its folder."""
        if self._success is not None:
            topic = '/' + self._topics.success
            self._file.add_topic(topic, bag.BOOL, latched=True)
            self._file.write(topic, self._last_ns,
                             self._file.serialise(bag.BOOL, data=self._success))
        return self._file.close()

    def discard(self) -> None:
        """Delete what was written."""
        self._file.discard()

    def __enter__(self) -> EpisodeBagWriter:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Complete the bag, or discard it where the block failed."""
        if kind is None:
            self.close()
        else:
            self.discard()

    def _text(self, topic: str, stamp_ns: int, text: str) -> None:
        self._file.add_topic('/' + topic, bag.STRING, latched=True)
        self._file.write('/' + topic, stamp_ns, self._file.serialise(bag.STRING, data=text))

    def _write(self, topic: str, msgtype: str, stamp_ns: int, **fields: object) -> None:
        self._last_ns = max(self._last_ns, stamp_ns)
        self._file.add_topic(topic, msgtype)
        self._file.write(topic, stamp_ns, self._file.serialise(msgtype, **fields))


def _encode_jpeg(rgb_HWC: np.ndarray) -> np.ndarray:
    import cv2
    ok, data = cv2.imencode('.jpg', cv2.cvtColor(rgb_HWC, cv2.COLOR_RGB2BGR),
                            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise ValueError(f'an image of shape {rgb_HWC.shape} cannot be stored as JPEG')
    return data.reshape(-1)


def set_aside_unfinished(root: Path) -> list[Path]:
    """
    Move bags that a killed process left unfinished from `partial/` to `incomplete/`.

    A bag that a living process is writing is locked and stays.

    :param root: the folder of the bags.
    :return: where they are now.
    """
    moved = []
    partial = Path(root) / PARTIAL
    for bag_path in sorted(partial.iterdir()) if partial.is_dir() else ():
        if not _is_being_written(bag_path):
            moved.append(set_aside(Path(root), bag_path))
    return moved


def set_aside(root: Path, bag_path: Path) -> Path:
    """Move a bag to `incomplete/` under the root and return where it is now."""
    target = root / INCOMPLETE / bag_path.name
    if target.exists():
        target = target.with_name(f'{bag_path.name}-{bag_path.stat().st_mtime_ns}')
    target.parent.mkdir(exist_ok=True)
    os.replace(bag_path, target)
    return target


def _is_being_written(bag_path: Path) -> bool:
    descriptor = os.open(bag_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

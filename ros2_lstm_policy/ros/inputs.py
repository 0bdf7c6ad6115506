"""What the node listens to: cameras, the instruction, the tool's pose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
import time
from typing import Any, NamedTuple

from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import (qos_check_compatible, qos_profile_sensor_data, QoSCompatibility,
                       QoSPolicyKind, QoSProfile)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from ros2_lstm_policy.image_checks import fault_of
from ros2_lstm_policy.manifest import CameraSpec, image_topic
from ros2_lstm_policy.messages import image_to_rgb, ImageError, stamp_ns
from ros2_lstm_policy.resample import Missing, StreamSampler
from ros2_lstm_policy.ros.conversions import pose_from_message
from ros2_lstm_policy.ros.diagnostics import Rate
from ros2_lstm_policy.ros.lifecycle import guarded
from ros2_lstm_policy.ros.parameters import Settings
from ros2_lstm_policy.ros.words import Words
from ros2_lstm_policy.runtime.frozen import FrozenCameras
from ros2_lstm_policy.runtime.safety import Pose
from ros2_lstm_policy.types import Observation, Reason
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

_NS = 1_000_000_000
_ASK_PERIOD_S = 1.0
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY,
               QoSPolicyKind.DURABILITY)


class Arrival(NamedTuple):
    """
    When a camera's newest frame came.

    :param received_ns: monotonic time.
    :param transport_ns: from the stamp to then, by the ROS clock.
    :param decode_ns: what the callback took.
    """

    stamp_ns: int
    received_ns: int
    transport_ns: int
    decode_ns: int


class Inputs:
    """
    The node's subscriptions and what came through them; used on the executor's thread.

    :param cameras: the cameras that the checkpoint needs.
    :param on_frame: called after each frame that was taken.
    :param on_instruction: called with each instruction.
    """

    def __init__(self, node: LifecycleNode, settings: Settings, cameras: Sequence[CameraSpec],
                 on_frame: Callable[[], None], on_instruction: Callable[[str], None]) -> None:
        """Subscribe."""
        self._node, self._on_frame = node, on_frame
        self._max_age_ns = int(settings.max_image_age_s * _NS)
        self._specs = {spec.name: spec for spec in cameras}
        self.sampler = StreamSampler(tuple(self._specs), settings.max_image_age_s,
                                     settings.max_skew_s)
        self.arrivals: dict[str, Arrival] = {}
        self.frozen = FrozenCameras(tuple(self._specs), settings.max_frozen_s)
        self.rates = {camera: Rate() for camera in self._specs}
        self.dropped = dict.fromkeys(self._specs, 0)
        self.repeated_stamps = dict.fromkeys(self._specs, 0)
        self._pose: tuple[int, Pose | Reason] | None = None
        self._base_frame_id = settings.base_frame_id
        self._by_frames = settings.trigger == 'frames'
        self._findings: dict[str, tuple[float, tuple[str, str]]] = {}
        kind = CompressedImage if settings.compressed else Image
        self._images = {camera: self._subscribe(kind, image_topic(camera),
                                                partial(self._take_image, camera),
                                                qos_profile_sensor_data)
                        for camera in self._specs}
        self._image_type = kind.__name__
        self._others = Words(node, partial(self._subscribe, String, 'instruction'),
                             on_instruction).subscriptions
        self._others.append(self._subscribe(PoseStamped, 'ee_pose', self._take_pose,
                                            qos_profile_sensor_data))

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in (*self._images.values(), *self._others):
            self._node.destroy_subscription(subscription)

    @property
    def topics(self) -> dict[str, str]:
        """Return the topic of each camera, as it was resolved."""
        return {camera: subscription.topic_name for camera, subscription in self._images.items()}

    def pose(self, now_ns: int) -> Pose | Reason | None:
        """Return the tool's pose, if one came that is not too old, or why it cannot be used."""
        if self._pose is None or abs(now_ns - self._pose[0]) > self._max_age_ns:
            return None
        return self._pose[1]

    def arrival(self, observation: Observation) -> Arrival | None:
        """Return when the newest frame of an observation came."""
        found = [a for a in self.arrivals.values() if a.stamp_ns == observation.stamp_ns]
        return max(found, key=lambda a: a.received_ns, default=None)

    def sample(self, now_ns: int) -> Observation | Missing:
        """Return the observation of this moment by the trigger's rule, or why there is none."""
        sampled = self.sampler.sample(now_ns, complete=self._by_frames)
        frozen = () if isinstance(sampled, Missing) else self.frozen.reasons()
        return Missing(frozen) if frozen else sampled

    def reset(self) -> None:
        """Begin an episode with what the cameras show now."""
        self.sampler.reset()
        self.frozen.reset()

    def missing(self) -> tuple[Reason, ...]:
        """Return why there is no observation now; nothing where there is one."""
        sampled = self.sample(self._node.get_clock().now().nanoseconds)
        return self.explain(sampled.reasons) if isinstance(sampled, Missing) else ()

    def explain(self, reasons: Sequence[Reason]) -> tuple[Reason, ...]:
        """Add what is known about a silent camera's topic: its publishers and their QoS."""
        return tuple(reason if reason.code not in ('no_image', 'old_image')
                     else self._explain(reason) for reason in reasons)

    def _subscribe(self, kind: type, topic: str, callback: Callable[..., None],
                   qos: QoSProfile, override_id: str | None = None) -> Subscription:
        own_qos = copy(qos)  # rclpy writes overrides into the profile that it is given
        options = QoSOverridingOptions(OVERRIDABLE, entity_id=override_id)
        return self._node.create_subscription(kind, topic, guarded(self._node, callback), own_qos,
                                              qos_overriding_options=options)

    def _take_image(self, camera: str, message: Any) -> None:
        received_ns = time.monotonic_ns()
        self.rates[camera].add()
        stamp = stamp_ns(message)
        transport_ns = self._node.get_clock().now().nanoseconds - stamp
        try:
            image = image_to_rgb(message)
        except ImageError as error:
            topic = self._images[camera].topic_name
            self.sampler.refuse(camera, Reason('bad_image', f'{camera} ({topic}): {error}',
                                               camera))
            return
        fault = fault_of(camera, image, self._specs[camera])
        if fault is not None:
            self.sampler.refuse(camera, fault)
            return
        newest = self.sampler.frames.get(camera)
        self.repeated_stamps[camera] += newest is not None and newest.stamp_ns == stamp
        if self.sampler.push(camera, stamp, image) is not None:
            self.dropped[camera] += 1
            return
        self.frozen.see(camera, image)
        self.arrivals[camera] = Arrival(stamp, received_ns, transport_ns,
                                        time.monotonic_ns() - received_ns)
        self._on_frame()

    def _take_pose(self, message: PoseStamped) -> None:
        self._pose = stamp_ns(message), self._checked(message)

    def _checked(self, message: PoseStamped) -> Pose | Reason:
        """Return the pose, or why it says nothing about where the tool is."""
        frame = message.header.frame_id.removeprefix('/')
        if frame != self._base_frame_id.removeprefix('/'):
            return Reason('pose_frame', f'ee_pose is in the frame {frame!r}, workspace_m in '
                          f'{self._base_frame_id!r}; transform the pose, or set base_frame_id')
        try:
            return pose_from_message(message)
        except ValueError as error:
            return Reason('bad_pose', f'ee_pose: {error}')

    def _explain(self, reason: Reason) -> Reason:
        """Ask the graph at most once a second: it costs as much as an image."""
        now_s = time.monotonic()
        asked_s, finding = self._findings.get(reason.camera, (-_ASK_PERIOD_S, None))
        if finding is None or now_s - asked_s >= _ASK_PERIOD_S:
            finding = self._look_at_publishers(reason.camera)
            self._findings[reason.camera] = now_s, finding
        code, text = finding
        return Reason(code or reason.code, f'{reason.text}; {text}', reason.camera)

    def _look_at_publishers(self, camera: str) -> tuple[str, str]:
        """Return a code, empty for none of its own, and what was found on a camera's topic."""
        subscription = self._images[camera]
        topic, wanted = subscription.topic_name, self._image_type
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            return 'no_publisher', f'nobody publishes {topic}; remap it to the topic of the camera'
        for publisher in publishers:
            if not publisher.topic_type.endswith(f'/{wanted}'):
                return 'other_type', (f'{topic} is published as {publisher.topic_type}, and '
                                      f'{wanted} is wanted (parameter compressed)')
            fit, why = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
            if fit == QoSCompatibility.ERROR:
                why = why.removeprefix('ERROR: ').rstrip(';')
                return 'incompatible_qos', (f'the QoS of a publisher of {topic} is incompatible '
                                            f'with the QoS of this node: {why}')
        return '', f'{topic} has {len(publishers)} publisher(s)'

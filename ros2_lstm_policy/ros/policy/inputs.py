"""What the node listens to: cameras, states of the robot, the instruction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
import time
from typing import Any, NamedTuple

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import (qos_check_compatible, qos_profile_sensor_data, QoSCompatibility,
                       QoSPolicyKind, QoSProfile)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from ros2_lstm_policy.image_checks import fault_of
from ros2_lstm_policy.manifest import CameraSpec, image_topic
from ros2_lstm_policy.messages import image_to_rgb, ImageError, stamp_ns
from ros2_lstm_policy.resample import Missing, StreamSampler
from ros2_lstm_policy.ros.diagnostics import Rate
from ros2_lstm_policy.ros.lifecycle import guarded
from ros2_lstm_policy.ros.policy.parameters import Settings
from ros2_lstm_policy.ros.policy.states import PresentInput, StateInput, States
from ros2_lstm_policy.ros.policy.words import Words
from ros2_lstm_policy.runtime.frozen import FrozenCameras
from ros2_lstm_policy.runtime.safety import Pose
from ros2_lstm_policy.streams import JOINT_STATE
from ros2_lstm_policy.types import Observation, Reason
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

_NS = 1_000_000_000
_ASK_PERIOD_S = 1.0
_SILENT = ('no_image', 'old_image', 'no_state', 'old_state', 'state_skew')
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
    :param on_frame: called after each frame, and each value of a state, that was taken.
    :param on_instruction: called with each instruction.
    :param states: what is heard of the robot itself.
    """

    def __init__(self, node: LifecycleNode, settings: Settings, cameras: Sequence[CameraSpec],
                 on_frame: Callable[[], None], on_instruction: Callable[[str], None],
                 states: Sequence[StateInput | PresentInput] = ()) -> None:
        """Subscribe."""
        self._node, self._on_frame = node, on_frame
        self._max_age_s = settings.max_image_age_s
        self._specs = {spec.name: spec for spec in cameras}
        self.sampler = StreamSampler(
            tuple(self._specs), settings.max_image_age_s, settings.max_skew_s,
            tuple(state.stream for state in states if isinstance(state, StateInput)))
        self.arrivals: dict[str, Arrival] = {}
        self.frozen = FrozenCameras(tuple(self._specs), settings.max_frozen_s)
        self.rates = {camera: Rate() for camera in self._specs}
        self.dropped = dict.fromkeys(self._specs, 0)
        self.repeated_stamps = dict.fromkeys(self._specs, 0)
        self.refused: dict[str, Counter[str]] = {camera: Counter() for camera in self._specs}
        self._by_frames = settings.trigger == 'frames'
        self._findings: dict[str, tuple[float, tuple[str, str]]] = {}
        kind = CompressedImage if settings.compressed else Image
        self._images = {camera: self._subscribe(kind, image_topic(camera),
                                                partial(self._take_image, camera),
                                                qos_profile_sensor_data)
                        for camera in self._specs}
        self._image_type = kind.__name__
        self._words = Words(node, partial(self._subscribe, String, 'instruction'),
                            on_instruction).subscriptions
        self.states = States(self._subscribe, self._now_ns, self.sampler, on_frame, states)

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in {*self._images.values(), *self._words,
                             *self.states.subscriptions.values()}:
            self._node.destroy_subscription(subscription)

    @property
    def topics(self) -> dict[str, str]:
        """Return the topic of each camera, as it was resolved."""
        return {camera: subscription.topic_name for camera, subscription in self._images.items()}

    @property
    def state_topics(self) -> dict[str, str]:
        """
        Return the topic of each state that comes from one device, as it was resolved.

        Joint states may come from several: arm and gripper publish their own on one topic.
        """
        return {state: self.states.subscriptions[state].topic_name
                for state in self.states.of_policy
                if self.states.configs[state].msgtype != JOINT_STATE}

    def presents(self, now_ns: int) -> Mapping[str, np.ndarray | Pose | Reason]:
        """Return where the groups are, if that was told a short time ago, or why it is unknown."""
        return self.states.presents(now_ns, self._max_age_s)

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
        self.states.reset()

    def missing(self) -> tuple[Reason, ...]:
        """Return why there is no observation now; nothing where there is one."""
        sampled = self.sample(self._now_ns())
        return self.explain(sampled.reasons) if isinstance(sampled, Missing) else ()

    def explain(self, reasons: Sequence[Reason]) -> tuple[Reason, ...]:
        """Add what is known about a silent stream's topic: its publishers and their QoS."""
        return tuple(reason if reason.code not in _SILENT else self._explain(reason)
                     for reason in reasons)

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
        transport_ns = self._now_ns() - stamp
        try:
            image = image_to_rgb(message)
        except ImageError as error:
            topic = self._images[camera].topic_name
            self._refuse(camera, Reason('bad_image', f'{camera} ({topic}): {error}', camera))
            return
        fault = fault_of(camera, image, self._specs[camera])
        if fault is not None:
            self._refuse(camera, fault)
            return
        newest = self.sampler.frames.get(camera)
        self.repeated_stamps[camera] += newest is not None and newest.stamp_ns == stamp
        refusal = self.sampler.push(camera, stamp, image)
        if refusal is not None:
            self.dropped[camera] += 1
            self.refused[camera][refusal.code] += 1
            return
        self.frozen.see(camera, image)
        self.arrivals[camera] = Arrival(stamp, received_ns, transport_ns,
                                        time.monotonic_ns() - received_ns)
        self._on_frame()

    def _refuse(self, camera: str, reason: Reason) -> None:
        self.refused[camera][reason.code] += 1
        self.sampler.refuse(camera, reason)

    def _explain(self, reason: Reason) -> Reason:
        """Ask the graph at most once a second: it costs as much as an image."""
        now_s = time.monotonic()
        asked_s, finding = self._findings.get(reason.camera, (-_ASK_PERIOD_S, None))
        if finding is None or now_s - asked_s >= _ASK_PERIOD_S:
            finding = self._look_at_publishers(reason.camera)
            self._findings[reason.camera] = now_s, finding
        code, text = finding
        return Reason(code or reason.code, f'{reason.text}; {text}', reason.camera)

    def _look_at_publishers(self, stream: str) -> tuple[str, str]:
        """Return a code, empty for none of its own, and what was found on a stream's topic."""
        subscription, wanted, remap, retype = self._wiring(stream)
        topic = subscription.topic_name
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            return 'no_publisher', f'nobody publishes {topic}; {remap}'
        for publisher in publishers:
            if not publisher.topic_type.endswith(f'/{wanted}'):
                return 'other_type', (f'{topic} is published as {publisher.topic_type}, and '
                                      f'{wanted} is wanted (parameter {retype})')
            fit, why = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
            if fit == QoSCompatibility.ERROR:
                why = why.removeprefix('ERROR: ').rstrip(';')
                return 'incompatible_qos', (f'the QoS of a publisher of {topic} is incompatible '
                                            f'with the QoS of this node: {why}')
        if stream in self.states.strangers:
            wanted_names = ', '.join(self.states.configs[stream].names)
            return 'other_joints', (f'{topic} has the joints {self.states.strangers[stream]}, and '
                                    f'{wanted_names} are wanted (streams.{stream}.names)')
        return '', f'{topic} has {len(publishers)} publisher(s)'

    def _wiring(self, stream: str) -> tuple[Subscription, str, str, str]:
        """Return a stream's subscription and type, and what changes its topic and its type."""
        if stream in self._images:
            return (self._images[stream], self._image_type,
                    'remap it to the topic of the camera', 'compressed')
        msgtype = self.states.configs[stream].msgtype
        return (self.states.subscriptions[stream], msgtype.rpartition('/')[2],
                f'say where it is with streams.{stream}.topic', f'streams.{stream}.msgtype')

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

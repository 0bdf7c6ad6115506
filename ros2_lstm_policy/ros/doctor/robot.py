"""
The robot as the policy node would see it: through the same parameters, subscriptions and checks.

Nothing is judged here that the node judges: its `loading`, `body`, `Inputs` and `Exclusive` say
what they always say, and the doctor adds what to do and what only a person wonders about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
import math
import time
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.resample import Missing
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.doctor.findings import Finding
from ros2_lstm_policy.ros.nodes import POLICY
from ros2_lstm_policy.ros.policy import body, loading
from ros2_lstm_policy.ros.policy.encoders import Target
from ros2_lstm_policy.ros.policy.exclusive import Exclusive, TWIN
from ros2_lstm_policy.ros.policy.inputs import Inputs
from ros2_lstm_policy.ros.policy.parameters import Parameters, Settings
from ros2_lstm_policy.ros.recorder.checks import Tally
from ros2_lstm_policy.types import Reason

_PAGE = 'docs/node.md, "Where to look when it holds"'
_SLOW_CAMERA = 0.9  # of the policy's rate
_LOOK_S = 0.05
_WARM_UPS = 5
_MOST_TIMES = 2  # that listening may take, where publishers are missing, or come and go
_LASTING = 0.25  # of the looks: what is rarer is the jitter of a busy machine
# Codes of reasons, and what to do where their text does not say it.
_LOOK_AT_CLOCKS = 'look at its rate, and at the clocks of both machines (chrony)'
_LOOK_AT_TOPIC = 'look whether it sends: ros2 topic hz TOPIC'
ADVICE = {
    'no_image': _LOOK_AT_TOPIC, 'no_state': _LOOK_AT_TOPIC,
    'old_image': _LOOK_AT_CLOCKS, 'old_state': _LOOK_AT_CLOCKS, 'clock': _LOOK_AT_CLOCKS,
    'no_stamp': "let the camera's driver stamp its images",
    'skew': 'trigger the cameras together, or raise max_skew_s to half a frame period',
    'state_skew': 'let the state come more often, and look at both clocks',
    'constant_image': 'take off the lens cap, look at cable and exposure',
    'small_image': "set the camera's mode",
    'bad_image': "set the driver's encoding to rgb8 or bgr8; where data are cut off, look at its "
    'link',
    'no_publisher': 'or start it',
    'other_type': 'set that parameter, or remap to the other topic',
    'incompatible_qos': 'qos_overrides./TOPIC.subscription.reliability: best_effort',
    'other_joints': "set this robot's names", 'state_size': "set this robot's names",
    'bad_state': 'look at its driver', 'bad_pose': 'look at its driver',
    'pose_frame': 'one frame for both', 'second_camera': 'one publisher',
    'second_state': 'one publisher', 'second_commander': 'one publisher', TWIN: 'one node'}


class _Looks:
    """Why the node would have held, look by look."""

    def __init__(self) -> None:
        self._count = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._newest: dict[tuple[str, str], Reason] = {}

    def add(self, reasons: Iterable[Reason]) -> None:
        self._count += 1
        found = {(reason.code, reason.camera): reason for reason in reasons}
        self._counts.update(found.keys())
        self._newest |= found

    def lasting(self) -> list[Reason]:
        return [self._newest[what] for what, count in self._counts.items()
                if count >= _LASTING * self._count]


class Robot:
    """
    The policy node's ears, without its voice.

    :param node: the doctor's own, with the policy node's parameters.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Declare the parameters."""
        self._node = node
        self.parameters = Parameters(node)
        self.settings = Settings()
        self.manifest: Manifest | None = None
        self._targets: list[Target] = []
        self._inputs: Inputs | None = None
        self._tallies: dict[str, Tally] = {}
        self._seen: dict[str, tuple[int, ...]] = {}

    def checkpoint(self) -> list[Finding]:
        """Load the policy as configure does, hold it against the robot, let it act."""
        found = [Finding('parameters', line, 'correct it where it is given')
                 for line in self.parameters.unknown]
        try:
            settings = self.settings = self.parameters.read()
        except ParameterError as error:
            return [*found, Finding('parameters', str(error), 'correct it where it is given')]
        try:
            loaded = loading.load(settings)
        except (ValueError, OSError) as error:
            return [*found, Finding('checkpoint', _line(error), 'see docs/install.md for the '
                                    'shipped one, and docs/serving.md for a served one')]
        self.manifest, where = loaded.manifest, settings.server or settings.checkpoint
        try:
            took_s = min(loaded.actor.warm_up() for _ in range(_WARM_UPS))
            self._targets = body.targets(loaded.manifest, settings, self.parameters)
        except ValueError as error:
            return [*found, Finding('checkpoint', _line(error), 'another checkpoint, or the '
                                    'parameters that say what this robot is')]
        finally:
            if loaded.link is not None:
                loaded.link.close()
        period_s = loaded.manifest.control_period_s
        what = (f'{where} {loaded.fingerprint[:12]}: {1 / period_s:g} Hz, '
                f'{body.described(loaded.manifest)}; a decision takes at least '
                f'{1e3 * took_s:.0f} ms')
        return [*found, Finding('checkpoint', what, '' if took_s < period_s else
                                f'its period is {1e3 * period_s:.0f} ms: a smaller backbone, '
                                'a GPU, or fewer processes beside it')]

    def listen(self, seconds: float) -> list[Finding]:
        """Subscribe as configure does, and say what came."""
        assert self.manifest is not None
        node = self._node
        try:
            self._inputs = Inputs(node, self.settings, self.manifest.cameras, self._count,
                                  lambda text: None,
                                  body.inputs(self.manifest, self._targets, self.parameters))
        except ValueError as error:
            return [Finding('parameters', _line(error), 'correct it where it is given')]
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        began_ns = node.get_clock().now().nanoseconds
        reasons = self._look(executor, seconds)
        ended_ns = node.get_clock().now().nanoseconds
        found = self._clock(began_ns, ended_ns)
        if found and found[0].is_fault:
            return found  # by a clock that stands still, every stamp is wrong
        found += [self._finding(reason) for reason in reasons]
        found += self._streams({reason.camera for reason in reasons})
        executor.remove_node(node)
        return found

    def _look(self, executor: SingleThreadedExecutor, seconds: float) -> list[Reason]:
        """Return why the node would hold; looked at once DDS has found everybody for a while."""
        looks, known = _Looks(), tuple[int, ...]()
        end_s = next_s = time.monotonic()
        last_s = end_s + _MOST_TIMES * seconds
        while (now_s := time.monotonic()) < (last_s if 0 in known else end_s) or not known:
            executor.spin_once(timeout_sec=_LOOK_S / 2)
            if (publishers := self._publishers()) != known and now_s < last_s:
                known, looks, next_s = publishers, _Looks(), now_s + seconds / 2
                end_s = now_s + seconds
            elif now_s >= next_s:
                looks.add(self._reasons())
                next_s = now_s + _LOOK_S
        return looks.lasting()

    def _publishers(self) -> tuple[int, ...]:
        assert self._inputs is not None
        subscriptions = self._inputs.states.subscriptions.values()
        return tuple(self._node.count_publishers(topic) for topic in (
            *self._inputs.topics.values(), *(one.topic_name for one in subscriptions)))

    def image_bytes(self) -> int:
        """Return the bytes of the largest image that came, or of a raw VGA image."""
        return max(map(math.prod, self._seen.values()), default=0) or 640 * 480 * 3

    def bytes_s(self) -> float:
        """Return what the cameras send in a second."""
        return sum(math.prod(shape) / tally.interval_s() for camera, shape in self._seen.items()
                   if (tally := self._tallies[camera]).interval_s() > 0)

    def _count(self) -> None:
        """Note the frame that came last."""
        assert self._inputs is not None
        for camera, arrival in self._inputs.arrivals.items():
            tally = self._tallies.setdefault(camera, Tally())
            if tally.count == 0 or tally.last_ns != arrival.stamp_ns:
                tally.add(arrival.stamp_ns, arrival.stamp_ns + arrival.transport_ns,
                          arrival.stamp_ns, 0)
                self._seen[camera] = self._inputs.sampler.frames[camera].image.shape

    def _reasons(self) -> Iterable[Reason]:
        """Return why the node would hold now."""
        assert self._inputs is not None
        now_ns = self._node.get_clock().now().nanoseconds
        sampled = self._inputs.sample(now_ns)
        if isinstance(sampled, Missing):
            yield from self._inputs.explain(sampled.reasons)
        presents = self._inputs.presents(now_ns)
        yield from self._inputs.explain([found for name in self._placed() if isinstance(
            found := presents.get(name), Reason)])
        commands = [topic.replace('~', POLICY.name, 1) for topic in self._topics()]
        yield from (doubt for doubt in Exclusive(
            self._node, commands, self._inputs.topics, self._inputs.state_topics).doubts()
            if doubt.code != TWIN)  # that is of the doctor
        name = POLICY.name, self._node.get_namespace()
        twins = self._node.get_node_names_and_namespaces().count(name)
        if twins > 1:
            yield Reason(TWIN, f'{twins} nodes are named {name[1].rstrip("/")}/{name[0]}; end '
                         'all but one, or give them other names or namespaces')

    def _placed(self) -> list[str]:
        """Return the groups of which the node must know where they are."""
        limits = body.limits(self.settings, self._targets).groups
        return [name for name, limit in limits.items() if limit.group.kind != 'gripper' and (
            limit.group.meaning.is_absolute or limit.workspace_m is not None
            or limit.joint_limits is not None)]

    def _topics(self) -> list[str]:
        return [target.topic('gripper_command' if target.group.kind == 'gripper' else 'arm_delta')
                for target in self._targets if target.group.kind in ('gripper', 'ee_delta')]

    def _clock(self, began_ns: int, ended_ns: int) -> list[Finding]:
        if not self._node.get_parameter('use_sim_time').value:
            return [Finding('clock', "the system's")]
        if ended_ns > began_ns:
            return [Finding('clock', f'/clock says {ended_ns / 1e9:.1f} s and runs')]
        return [Finding('clock', f'use_sim_time is set, and /clock '
                        f'{"stands still" if ended_ns else "says nothing"}', 'start the '
                        'simulator, or leave use_sim_time false on a robot')]

    def _streams(self, faulty: set[str]) -> list[Finding]:
        """Say what came of each camera and state that nothing is wrong with so far."""
        assert self._inputs is not None and self.manifest is not None
        found = []
        for camera, topic in self._inputs.topics.items():
            tally = self._tallies.get(camera)
            if camera in faulty or tally is None:
                continue
            rate_hz = 1 / tally.interval_s() if tally.interval_s() > 0 else 0.0
            arrival = self._inputs.arrivals[camera]
            height, width = self._seen[camera][:2]
            what = (f'{camera}: {topic} {width}x{height} {self._kind(topic)} at {rate_hz:.1f} Hz, '
                    f'{1e3 * arrival.transport_ns / 1e9:.0f} ms from stamp to here')
            wanted_hz = 1 / self.manifest.control_period_s
            if rate_hz < _SLOW_CAMERA * wanted_hz:
                found.append(Finding('cameras', f'{what}, the policy takes {wanted_hz:g} Hz',
                                     "raise the camera's rate (exposure time, USB bandwidth, "
                                     'DDS profile)'))
            elif self._is_frozen(camera, tally):
                found.append(Finding('cameras', f'{what}: one image again and again',
                                     "start the camera's driver again, unless the scene is "
                                     'simulated and at rest (max_frozen_s: 0.0)'))
            else:
                found.append(Finding('cameras', what))
        for stream, heard in self._inputs.states.heard.items():
            if stream in self._inputs.states.of_policy and stream not in faulty:
                topic = self._inputs.states.subscriptions[stream].topic_name
                found.append(Finding('states', f'{stream}: {topic} at '
                                     f'{heard.rate.read_hz():.1f} Hz'))
        presents = self._inputs.presents(self._node.get_clock().now().nanoseconds)
        placed = self._placed()
        if placed and not any(isinstance(presents.get(name), Reason) for name in placed):
            found.append(Finding('frames', f'where {", ".join(placed)} is, is told'))
        return found

    def _is_frozen(self, camera: str, tally: Tally) -> bool:
        assert self._inputs is not None
        return (self.settings.max_frozen_s > 0 and tally.count > 5
                and self._inputs.frozen.repeats(camera) >= tally.count - 1)

    def _kind(self, topic: str) -> str:
        publisher = next(iter(self._node.get_publishers_info_by_topic(topic)), None)
        reliability = '' if publisher is None else publisher.qos_profile.reliability.name.lower()
        return f'{"compressed" if self.settings.compressed else "raw"} ({reliability})'

    def _finding(self, reason: Reason) -> Finding:
        assert self._inputs is not None
        area = ('cameras' if reason.camera in self._inputs.topics or reason.code == 'skew' else
                'frames' if reason.code in ('pose_frame', 'bad_pose') else
                'states' if reason.camera else 'commands')
        return Finding(area, reason.text, ADVICE.get(reason.code, f'see {_PAGE}'))


def policy_parameters(arguments: list[str]) -> dict[str, Any]:
    """
    Return what the policy node would be given by these ROS arguments.

    It is asked of a node of its name, on a domain of its own: on the robot's, a running policy
    would hold for a second one.
    """
    import rclpy
    context = rclpy.Context()
    rclpy.init(args=arguments, context=context, domain_id=_ASIDE)
    try:
        node = LifecycleNode(POLICY.name, context=context, enable_rosout=False,
                             start_parameter_services=False)
        found = {name: given.value for name, given in node._parameter_overrides.items()}
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    return found


_ASIDE = 101  # the last domain whose ports no system hands out to others


def _line(error: Exception) -> str:
    return ' '.join(str(error).split())

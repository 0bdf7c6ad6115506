"""
The episode bag: which topics a recorded episode has and what they mean.

The recorder node, the collector of demonstrations and the reader share these names, so a bag from
any of them is the same thing to training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import math
from pathlib import Path
from typing import Any, Literal

from ros2_lstm_policy.config import ConfigError, dump, parse, plain
from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.data.body import short, short_streams, Streams
from ros2_lstm_policy.data.conventions import cameras_by_name
from ros2_lstm_policy.manifest import ActionGroup, image_topic, StateSpec
from ros2_lstm_policy.streams import StreamConfig

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
STRING = 'std_msgs/msg/String'
BOOL = 'std_msgs/msg/Bool'
TWIST = 'geometry_msgs/msg/TwistStamped'
GRIPPER = 'std_msgs/msg/Float64MultiArray'
POSE = 'geometry_msgs/msg/PoseStamped'
JOINTS = 'sensor_msgs/msg/JointState'

ArmKind = Literal['displacement', 'velocity']
StampKind = Literal['observation', 'now']
CutKind = Literal['instruction', 'message', 'marker', 'pause', 'times']


@dataclass(frozen=True)
class TopicNames:
    """
    Names of the topics, without a leading slash.

    A bag's topic matches where it is the name or ends with `/` and the name, so that
    `arm_delta` finds `/policy/arm_delta`.

    :param cameras: by the name of the camera; one that is not named here has the topic
        `manifest.image_topic`: `rgb` for `static`, `hand_rgb` for `hand`, its own name otherwise.
        The name and `/compressed` is looked for as well.
    :param instruction: String, what to do.
    :param arm_delta: TwistStamped, see :class:`BagLayout`.
    :param gripper_command: Float64MultiArray of one value.
    :param ee_pose: PoseStamped of the tool; need not be there.
    :param joint_states: JointState; need not be there.
    :param success: Bool, how the episode ended; need not be there.
    :param info: String, what the recorder knows about the episode.
    :param problems: what the recorder promised and did not get, one line each.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    instruction: str = 'instruction'
    arm_delta: str = 'arm_delta'
    gripper_command: str = 'gripper_command'
    ee_pose: str = 'ee_pose'
    joint_states: str = 'joint_states'
    success: str = 'episode/success'
    info: str = 'episode/info'
    problems: str = 'episode/problems'

    def camera(self, name: str) -> str:
        """Return the image topic of that camera."""
        return self.cameras.get(name, image_topic(name))

    @staticmethod
    def upgrade(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read 0.1's keys `static` and `hand`, a camera each."""
        return cameras_by_name(values)

    def all_names(self, cameras: Sequence[str], words: bool) -> tuple[str, ...]:
        """
        Return every name that an episode is made of.

        :param words: whether the instruction is one of them.
        """
        images = [name for camera in cameras
                  for name in (self.camera(camera), self.camera(camera) + '/compressed')]
        return (*images, self.arm_delta, self.gripper_command, self.success, self.info,
                self.problems, *((self.instruction,) if words else ()))


@dataclass(frozen=True)
class EpisodeCut:
    """
    Where the episodes of a bag begin and end.

    :param by: 'instruction': where the words change; 'message': at each message on the
        instruction topic; 'marker': from a start word to a stop word on a topic; 'pause': where
        no command comes for longer than `pause_s`; 'times': as given. None is 'instruction',
        where it is sure; a bag that may hold several episodes of one instruction is refused.
    :param marker: topic of std_msgs/String, matched as those of :class:`TopicNames`.
    :param start: words that begin an episode: a message that is one, or begins with one.
    :param stop: words that end it; none where the next start ends it.
    :param discard: words after which it is none.
    :param success: words in a stop message that label it as a success.
    :param failure: likewise as a failure.
    :param pause_s: longest silence of the commands inside of an episode.
    :param times: begin and end of each episode in s since the first message of the bag.
    """

    by: CutKind | None = None
    marker: str = 'episode_marker'
    start: tuple[str, ...] = ('start',)
    stop: tuple[str, ...] = ('stop',)
    discard: tuple[str, ...] = ('discard',)
    success: tuple[str, ...] = ('success',)
    failure: tuple[str, ...] = ('failure',)
    pause_s: float = 1.0
    times: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        """Refuse words and times that cut nothing."""
        if not self.pause_s > 0:
            raise ValueError(f'pause_s must be positive, found {self.pause_s}')
        if not self.start:
            raise ValueError('start: expected at least one word that begins an episode')
        for begin, end in self.times:
            if not 0 <= begin < end < math.inf:
                raise ValueError(f'times: expected [begin, end] in s, found [{begin}, {end}]')
        for (_, end), (begin, _) in zip(self.times, self.times[1:]):
            if not end <= begin:
                raise ValueError(f'times: an episode begins at {begin} s, before the one before '
                                 f'it ends, at {end} s')


@dataclass(frozen=True)
class RecordedAction:
    """
    Where the values of a group of actions come from in a recording.

    :param command: the stream of its commands.
    :param state: instead, the name of a state: what the robot did next is the action, which is
        how most teleoperation is recorded.
    :param shift: control periods from the observation to that state.
    :param answers: each command has the stamp of the observation that it answers, and there is a
        step for each; all groups alike.
    """

    command: StreamConfig | None = None
    state: str = ''
    shift: int = 1
    answers: bool = False

    def __post_init__(self) -> None:
        """Refuse what says twice or not at all where the values are."""
        if (self.command is None) == (not self.state):
            raise ValueError('say either command (a topic) or state (the name of a state)')
        if self.shift < 1:
            raise ValueError(f'shift must be at least 1, found {self.shift}')
        if self.answers and self.command is None:
            raise ValueError('answers: only commands answer an observation')


@dataclass(frozen=True)
class RecordedBody:
    """
    What a bag holds beside the deltas of one arm and a gripper.

    :param cameras: names of its cameras.
    :param actions: its groups; none for `arm_delta` and `gripper_command`.
    :param states: its states.
    :param sources: where the values of groups come from, by name.
    :param streams: where states come from, by name.
    """

    cameras: tuple[str, ...]
    actions: tuple[ActionGroup, ...] = ()
    states: tuple[StateSpec, ...] = ()
    sources: Mapping[str, RecordedAction] = field(default_factory=dict)
    streams: Mapping[str, StreamConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse groups and states of which nothing says where they are."""
        lost = [group.name for group in self.actions if group.name not in self.sources]
        lost += [state.name for state in self.states if state.name not in self.streams]
        if lost:
            raise ValueError(f'body: nothing says where {", ".join(lost)} come from')

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, without defaults."""
        return {'cameras': list(self.cameras),
                **short_streams(Streams(self.actions, self.states)),
                'sources': {name: short(action) | ({'command': short(action.command)}
                                                   if action.command else {})
                            for name, action in self.sources.items()},
                'streams': {name: short(stream) for name, stream in self.streams.items()}}


@dataclass(frozen=True)
class BagLayout:
    """
    How to read a bag. One that has `episode/info` says most of it itself.

    :param arm: 'displacement': a TwistStamped is the motion of one control period in m and rad;
        'velocity': it is m/s and rad/s (MoveIt Servo's input), held until the next one, and is
        integrated over each control period.
    :param stamps: 'observation': an action's stamp is that of the observation it answers, and a
        step whose observation is missing is left out; 'now': the stamp is the time of sending, and
        the newest frames before it are its observation. Displacements only.
    :param rotation: convention of the rotations in bags that do not say it themselves.
    :param gripper_closed: value of the gripper topic that means closed.
    :param gripper_open: value that means open.
    :param max_image_age_s: oldest frame that a step may use, as the node's parameter.
    :param max_skew_s: largest distance between the cameras' stamps, as the node's parameter.
    :param states: where states come from, by name; one that is not named here is the joint
        positions of `joint_states` for `joints`, the PoseStamped `ee_pose` for `ee_pose`, and
        the topic of its own name otherwise.
    :param actions: where the values of groups come from, by name; none for `arm_delta` and
        `gripper_command` as the robot has them. Where this is said, there is a step each control
        period instead of one for each `arm_delta`.
    :param instruction: words for bags that have none; None to take them from the bag.
    :param episodes: where its episodes begin and end.
    """

    topics: TopicNames = field(default_factory=TopicNames)
    arm: ArmKind = 'displacement'
    stamps: StampKind = 'observation'
    rotation: Literal['rotation_vector', 'euler_xyz'] = 'rotation_vector'
    gripper_closed: float = 0.0
    gripper_open: float = 1.0
    max_image_age_s: float = 0.2
    max_skew_s: float = 0.05
    states: Mapping[str, StreamConfig] = field(default_factory=dict)
    actions: Mapping[str, RecordedAction] = field(default_factory=dict)
    instruction: str | None = None
    episodes: EpisodeCut = field(default_factory=EpisodeCut)

    def __post_init__(self) -> None:
        """Refuse numbers that decide nothing."""
        _check_gripper(self.gripper_closed, self.gripper_open)
        for name in ('max_image_age_s', 'max_skew_s'):
            if not getattr(self, name) >= 0:
                raise ValueError(f'{name} must not be negative, found {getattr(self, name)}')

    def described_by(self, info: EpisodeInfo | None) -> BagLayout:
        """Return the layout with what the bag says about itself."""
        if info is None:
            return self
        body = info.body or RecordedBody(())
        return replace(self, arm=info.arm, stamps=info.stamps, rotation=info.rotation,
                       gripper_closed=info.gripper_closed, gripper_open=info.gripper_open,
                       states={**body.streams, **self.states},
                       actions=self.actions or body.sources)


@dataclass(frozen=True)
class EpisodeInfo:
    """
    What is known about an episode when it begins; the first message of its bag.

    :param name: unique name, the bag's folder.
    :param actor: who acted.
    :param frame: axes of the deltas, as in the action manifest.
    :param rotation: convention of the rotations in `arm_delta`; ours are rotation vectors.
    :param control_period_s: time that one action covers.
    :param model: SHA-256 of the checkpoint where a policy acted, else None.
    :param source: what the robot was, for people ('LIBERO benchmark_a seed 3').
    :param arm: as in :class:`BagLayout`, which it overrides.
    :param stamps: likewise.
    :param gripper_closed: likewise.
    :param gripper_open: likewise.
    :param body: what else it holds; None for the deltas of one arm and a gripper alone.
    """

    name: str
    actor: Literal['expert', 'policy', 'operator']
    frame: Literal['base', 'tool']
    rotation: Literal['rotation_vector', 'euler_xyz']
    control_period_s: float
    model: str | None = None
    source: str = ''
    arm: ArmKind = 'displacement'
    stamps: StampKind = 'observation'
    gripper_closed: float = 0.0
    gripper_open: float = 1.0
    body: RecordedBody | None = None

    def __post_init__(self) -> None:
        """Refuse names that are no folder names, and a policy without its fingerprint."""
        if not 0 < self.control_period_s < math.inf:
            raise ValueError(f'control_period_s must be positive, found {self.control_period_s}')
        _check_gripper(self.gripper_closed, self.gripper_open)
        if not self.name or self.name != Path(self.name).name or self.name.startswith('.'):
            raise ValueError(f'episode name {self.name!r} cannot be a folder name')
        if self.actor == 'policy' and not self.model:
            raise ValueError('an episode in which a policy acted needs the fingerprint of its '
                             'checkpoint (model)')


def _check_gripper(closed: float, opened: float) -> None:
    if not (math.isfinite(opened - closed) and opened != closed):
        raise ValueError(f'gripper_closed and gripper_open must be two numbers, found {closed} '
                         f'and {opened}')


def write_info(info: EpisodeInfo) -> str:
    """Return the text of the `episode/info` topic."""
    values = plain(info)
    del values['body']  # a bag without one is read by earlier versions as well
    return dump(values | ({} if info.body is None else {'body': info.body.plain()}))


def parse_info(text: str, where: str) -> EpisodeInfo:
    """Read the text of the `episode/info` topic; :raises ConfigError: where it is not one."""
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f'{where}: is not valid YAML ({error})') from error
    return parse(EpisodeInfo, values, where)

"""
The manifest: a robot's body as a policy knows it, and what the policy's numbers mean on it.

Four frozen dataclasses: the cameras that it sees with, the states that it measures, the groups of
values that it commands, and the period of one command. It travels inside the checkpoint as
action.yaml, and everything that turns numbers into motion or recordings into labels reads it:
training, the node, the simulator and the evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import re
from typing import Any, Literal

from ros2_lstm_policy.config import require_finite
from ros2_lstm_policy.kinds import Kind, KINDS, Rotation
from ros2_lstm_policy.types import ARM, GRIPPER

DEFAULT_CAMERAS = ('static', 'hand')  # those of the reference
# Of the widest axis of its kind (x y z, or the three of a rotation): what an axis that hardly
# moves is normalised by, as its values are only noise.
SMALLEST_SHARE = 0.05
_TOPICS = {'static': 'rgb', 'hand': 'hand_rgb'}

Frame = Literal['base', 'tool']


def image_topic(camera: str) -> str:
    """
    Return the topic on which a camera's images are expected, before any remapping.

    It is the camera's name; the reference's two cameras have the names of its topics.
    """
    return _TOPICS.get(camera, camera)


def check_name(kind: str, name: str) -> None:
    """
    Refuse a name that cannot be a topic, a folder and a key alike.

    :param kind: what it is the name of, for the message.
    :raises ValueError: for anything but a lower-case word with digits and underscores.
    """
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise ValueError(f'{kind} {name!r}: a name is a lower-case letter, then lower-case '
                         'letters, digits and underscores')


@dataclass(frozen=True)
class CameraSpec:
    """
    How one camera's image becomes the model's input.

    :param name: unique in the manifest; its images' topic follows from it (`image_topic`).
    :param height: pixels after the resize.
    :param width: the same.
    :param interpolation: 'area' (OpenCV), or 'bicubic' (Pillow, as CLIP's preprocessing).
    :param mean: per channel RGB, of values in [0, 1].
    :param std: the same; the input is (value - mean) / std.
    :param crop: (top, left, bottom, right) of the part that is resized, as shares of the image's
        height and width, so that it fits any resolution; None for the whole image.
    """

    name: str
    height: int
    width: int
    interpolation: Literal['area', 'bicubic']
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    crop: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        """Validate the name, the size, the crop and the statistics."""
        check_name('camera', self.name)
        require_finite(self)
        if min(self.std) <= 0:
            raise ValueError(f'camera {self.name!r}: std must be positive, found '
                             f'{list(self.std)}')
        if self.height < 1 or self.width < 1:
            raise ValueError(f'camera {self.name!r}: size {self.height}x{self.width} is empty')
        if self.crop is not None:
            top, left, bottom, right = self.crop
            if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
                raise ValueError(f'camera {self.name!r}: crop must be top, left, bottom, right '
                                 'with 0 <= top < bottom <= 1 and 0 <= left < right <= 1, '
                                 f'found {list(self.crop)}')


@dataclass(frozen=True)
class Normalisation:
    """
    normalised = clip((value - offset) / scale, -1, 1), then mu-law where `mu` is set.

    States are not clipped: one beyond what training saw stays visible as such.

    :param offset: one a value, in the value's unit.
    :param scale: the same; all positive.
    :param mu: strength of the mu-law companding (ITU-T G.711 form), None for none.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    mu: float | None = None

    def __post_init__(self) -> None:
        """Refuse statistics that cannot be inverted."""
        if len(self.offset) != len(self.scale):
            raise ValueError('offset and scale need as many values, found '
                             f'{len(self.offset)} and {len(self.scale)}')
        require_finite(self)
        if min(self.scale, default=1) <= 0:
            raise ValueError(f'every scale must be positive, found {list(self.scale)}')
        if self.mu is not None and self.mu <= 0:
            raise ValueError(f'mu must be positive, found {self.mu}')

    @classmethod
    def unit(cls, size: int) -> Normalisation:
        """Return the one that changes nothing but clips."""
        return cls((0.0,) * size, (1.0,) * size)


@dataclass(frozen=True)
class StateSpec:
    """
    A stream of numbers that the robot measures: joint positions, a pose, a wrench.

    :param name: unique among the states.
    :param size: its values.
    :param normalisation: of its values; None, in a configuration, to compute it from the data.
    :param names: of its values, such as the joints', in their order; empty where they have none.
    """

    name: str
    size: int
    normalisation: Normalisation | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the name and the sizes."""
        check_name('state', self.name)
        _check_sizes(f'state {self.name!r}', self.size, self.size, self.normalisation, self.names)

    @property
    def axes(self) -> tuple[str, ...]:
        """Return a name for each value."""
        return self.names or tuple(map(str, range(1, self.size + 1)))


@dataclass(frozen=True)
class ActionGroup:
    """
    Values that one controller of the robot takes.

    | kind | values, in physical units |
    |---|---|
    | `ee_delta` | 6: displacement of the tool in one period, m and a rotation vector in rad |
    | `ee_pose` | 6: where the tool is to be, in the base frame, in the same units |
    | `joint_delta` | by joint: displacement in one period, rad or m |
    | `joint_position` | by joint: where it is to be, rad or m |
    | `joint_velocity` | by joint, rad/s or m/s |
    | `gripper` | opening by finger or hand: 0 closed, 1 open |

    :param name: unique among the groups.
    :param kind: what its values mean.
    :param size: its values.
    :param normalisation: of what the network gives, continuous groups only; None, in a
        configuration, to compute it from the data. `ee_pose` has nine numbers there: the rotation
        is the first two columns of its matrix (Zhou et al., arXiv 1812.07035).
    :param binary: each value is 0 or 1, and the network gives the probability of 1.
    :param threshold: of a binary group: the probability above which a value is 1.
    :param frame: of `ee_delta`, where it must be said: 'base' for the robot's axes, 'tool' for
        those of the moving tool.
    :param rotation: of `ee_delta`, what the network's numbers are: 'rotation_vector' (axis times
        angle) or 'euler_xyz', both rad.
    :param names: of the joints, in the values' order; empty where they have none.
    :param largest: by value, the largest |step| of one period seen in training: the value itself
        for deltas and velocities, its distance from the command before for positions and poses;
        None if unknown.
    """

    name: str
    kind: str
    size: int
    normalisation: Normalisation | None = None
    binary: bool = False
    threshold: float = 0.5
    frame: Frame | None = None
    rotation: Rotation = 'rotation_vector'
    names: tuple[str, ...] = ()
    largest: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a group that cannot be acted on."""
        where = f'action {self.name!r}'
        check_name('action', self.name)
        require_finite(self)
        if self.kind not in KINDS:
            raise ValueError(f'{where}: kind: expected one of {", ".join(KINDS)}, found '
                             f'{self.kind!r}')
        if self.meaning.axes and self.size != len(self.meaning.axes):
            raise ValueError(f'{where}: {self.kind} has {len(self.meaning.axes)} values, found '
                             f'size {self.size}')
        _check_sizes(where, self.size, self.label_size, self.normalisation, self.names)
        if self.binary and (self.kind != 'gripper' or self.normalisation is not None):
            raise ValueError(f'{where}: only a gripper is binary, and what is binary has no '
                             f'normalisation; found kind {self.kind!r}')
        if not 0 <= self.threshold <= 1:
            raise ValueError(f'{where}: threshold is a probability, found {self.threshold}')
        if self.largest is not None and (len(self.largest) != self.size or min(self.largest) < 0):
            raise ValueError(f'{where}: largest needs {self.size} values, none below 0, found '
                             f'{list(self.largest)}')

    @property
    def meaning(self) -> Kind:
        """Return what its kind says."""
        return KINDS[self.kind]

    @property
    def label_size(self) -> int:
        """Return how many numbers the network gives for it."""
        return self.meaning.numbers or self.size

    @property
    def axes(self) -> tuple[str, ...]:
        """Return a name for each value."""
        return self.meaning.axes or self.names or tuple(map(str, range(1, self.size + 1)))

    @property
    def units(self) -> tuple[str, ...]:
        """Return the unit of each value; empty for a gripper's opening."""
        return self.meaning.units if self.meaning.axes else self.meaning.units * self.size


@dataclass(frozen=True)
class Manifest:
    """
    A robot's body as a policy knows it.

    :param control_period_s: time that one action covers.
    :param cameras: the cameras the policy needs, in the order of its tokens.
    :param actions: what it commands, in the order of its values; at least one is continuous.
    :param states: what it needs to be told of the robot, in the order of its values.
    """

    control_period_s: float
    cameras: tuple[CameraSpec, ...]
    actions: tuple[ActionGroup, ...]
    states: tuple[StateSpec, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a manifest that cannot be acted on."""
        require_finite(self)
        if self.control_period_s <= 0:
            raise ValueError(f'control_period_s must be positive, found {self.control_period_s}')
        for kind, items in (('cameras', self.cameras), ('actions', self.actions)):
            if not items:
                raise ValueError(f'{kind}: expected at least one')
        for kind, names in (('cameras', [c.name for c in self.cameras]),
                            ('actions', [g.name for g in self.actions]),
                            ('states', [s.name for s in self.states])):
            if len(set(names)) != len(names):
                raise ValueError(f'{kind} must be named once each, found {names}')
        if not self.continuous:
            raise ValueError('actions: expected at least one continuous group, found '
                             f'{[group.name for group in self.actions]}')
        for group in self.actions:
            if group.kind == 'ee_delta' and group.frame is None:
                raise ValueError(f"action {group.name!r}: frame: 'base' or 'tool' must be said")
        lacking = [group.name for group in self.continuous if group.normalisation is None]
        lacking += [state.name for state in self.states if state.normalisation is None]
        if lacking:
            raise ValueError(f'{", ".join(lacking)}: a normalisation is needed')

    @staticmethod
    def upgrade(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn the manifest of 0.1, which had one arm and one gripper, into today's."""
        return with_groups(values, one_arm_groups)

    def camera(self, name: str) -> CameraSpec:
        """Return the camera of that name. :raises ValueError: where there is none."""
        return _find('camera', self.cameras, name)

    def action(self, name: str) -> ActionGroup:
        """Return the group of that name. :raises ValueError: where there is none."""
        return _find('action', self.actions, name)

    @property
    def continuous(self) -> tuple[ActionGroup, ...]:
        """Return the groups whose values the network gives as they are."""
        return tuple(group for group in self.actions if not group.binary)

    @property
    def binary(self) -> tuple[ActionGroup, ...]:
        """Return the groups of which the network gives probabilities."""
        return tuple(group for group in self.actions if group.binary)

    @property
    def continuous_size(self) -> int:
        """Return the numbers C that the network gives for the continuous groups."""
        return sum(group.label_size for group in self.continuous)

    @property
    def binary_size(self) -> int:
        """Return the probabilities G that the network gives."""
        return sum(group.size for group in self.binary)

    @property
    def state_size(self) -> int:
        """Return the values S of all states."""
        return sum(state.size for state in self.states)


def one_arm(frame: Frame, rotation: Rotation, control_period_s: float, arm: Normalisation,
            cameras: tuple[CameraSpec, ...], threshold: float = 0.5,
            largest: tuple[float, ...] | None = None) -> Manifest:
    """Return the body of the reference: six Cartesian deltas of one arm, and a binary gripper."""
    return Manifest(control_period_s, cameras, (
        ActionGroup(ARM, 'ee_delta', 6, arm, frame=frame, rotation=rotation, largest=largest),
        ActionGroup(GRIPPER, 'gripper', 1, binary=True, threshold=threshold)))


def one_arm_groups(old: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups that 0.1 had, as plain values, out of its keys."""
    arm = {'name': ARM, 'kind': 'ee_delta', 'size': 6}
    for new, key in (('normalisation', 'arm'), ('frame', 'frame'), ('rotation', 'rotation'),
                     ('largest', 'max_arm_delta')):
        if key in old:
            arm[new] = old[key]
    gripper = {'name': GRIPPER, 'kind': 'gripper', 'size': 1, 'binary': True}
    if 'gripper_threshold' in old:
        gripper['threshold'] = old['gripper_threshold']
    return [arm, gripper]


def with_groups(values: Mapping[str, Any], groups: Any) -> Mapping[str, Any]:
    """Replace 0.1's keys by `groups(old)`; values that have `actions` already stay as they are."""
    keys = ('frame', 'rotation', 'arm', 'gripper_threshold', 'max_arm_delta')
    old = {key: values[key] for key in keys if key in values}
    if 'actions' in values or not old:
        return values
    rest = {key: value for key, value in values.items() if key not in old}
    return {**rest, 'actions': groups(old)}


def _check_sizes(where: str, size: int, numbers: int, normalisation: Normalisation | None,
                 names: tuple[str, ...]) -> None:
    if size < 1:
        raise ValueError(f'{where}: size must be at least 1, found {size}')
    if normalisation is not None and len(normalisation.scale) != numbers:
        raise ValueError(f'{where}: offset and scale need {numbers} values each, found '
                         f'{len(normalisation.scale)}')
    if names and (len(names) != size or len(set(names)) != size):
        raise ValueError(f'{where}: expected {size} names, each once, found {list(names)}')


def _find(kind: str, items: Iterable[Any], name: str) -> Any:
    for item in items:
        if item.name == name:
            return item
    raise ValueError(f'there is no {kind} {name!r}; there are '
                     f'{", ".join(item.name for item in items)}')


ONE_ARM = (ActionGroup(ARM, 'ee_delta', 6), ActionGroup(GRIPPER, 'gripper', 1, binary=True))

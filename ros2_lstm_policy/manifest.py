"""
The action manifest: what a policy's numbers mean on a robot.

It travels inside the checkpoint as action.yaml, and everything that turns numbers into motion or
recordings into labels reads it: training, the node, the simulator and the evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
import re
from typing import Literal

from ros2_lstm_policy.config import require_finite
from ros2_lstm_policy.types import ARM_DIM

DEFAULT_CAMERAS = ('static', 'hand')  # those of the reference
# Of the widest axis of its kind (x y z, or the three of a rotation): what an axis that hardly
# moves is normalised by, as its values are only noise.
SMALLEST_SHARE = 0.05
_TOPICS = {'static': 'rgb', 'hand': 'hand_rgb'}


def image_topic(camera: str) -> str:
    """
    Return the topic on which a camera's images are expected, before any remapping.

    It is the camera's name; the reference's two cameras have the names of its topics.
    """
    return _TOPICS.get(camera, camera)


def check_camera_name(name: str) -> None:
    """
    Refuse a name that cannot be a topic, a folder and a key alike.

    :raises ValueError: for anything but a lower-case word with digits and underscores.
    """
    if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
        raise ValueError(f'camera {name!r}: a name is a lower-case letter, then lower-case '
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
        check_camera_name(self.name)
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
class ArmNormalisation:
    """
    normalised = clip((value - offset) / scale, -1, 1), then mu-law where `mu` is set.

    :param offset: six values, m and rad.
    :param scale: six positive values, m and rad.
    :param mu: strength of the mu-law companding (ITU-T G.711 form), None for none.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    mu: float | None = None

    def __post_init__(self) -> None:
        """Refuse statistics that cannot be inverted."""
        if len(self.offset) != ARM_DIM or len(self.scale) != ARM_DIM:
            raise ValueError(f'offset and scale need {ARM_DIM} values each, found '
                             f'{len(self.offset)} and {len(self.scale)}')
        require_finite(self)
        if min(self.scale) <= 0:
            raise ValueError(f'every scale must be positive, found {list(self.scale)}')
        if self.mu is not None and self.mu <= 0:
            raise ValueError(f'mu must be positive, found {self.mu}')


@dataclass(frozen=True)
class ActionManifest:
    """
    What the policy's numbers mean.

    :param frame: axes of the deltas: 'base' for the robot's base, 'tool' for the moving tool.
    :param rotation: 'rotation_vector' (axis times angle) or 'euler_xyz', both rad.
    :param control_period_s: time that one action covers.
    :param arm: normalisation of the six deltas.
    :param gripper_threshold: the gripper opens where its probability of open is above this.
    :param cameras: the cameras the policy needs, in the order of its tokens.
    :param max_arm_delta: the largest |delta| seen in training by axis, m and rad; None if unknown.
    """

    frame: Literal['base', 'tool']
    rotation: Literal['rotation_vector', 'euler_xyz']
    control_period_s: float
    arm: ArmNormalisation
    cameras: tuple[CameraSpec, ...]
    gripper_threshold: float = 0.5
    max_arm_delta: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse a manifest that cannot be acted on."""
        require_finite(self)
        if self.control_period_s <= 0:
            raise ValueError(f'control_period_s must be positive, found {self.control_period_s}')
        if not 0 <= self.gripper_threshold <= 1:
            raise ValueError('gripper_threshold is a probability, found '
                             f'{self.gripper_threshold}')
        self._check_limit()
        names = [camera.name for camera in self.cameras]
        if not names or len(set(names)) != len(names):
            raise ValueError(f'cameras must be named once each, found {names}')

    def _check_limit(self) -> None:
        if self.max_arm_delta is None:
            return
        if len(self.max_arm_delta) != ARM_DIM or min(self.max_arm_delta) < 0:
            raise ValueError(f'max_arm_delta needs {ARM_DIM} values, none below 0, found '
                             f'{list(self.max_arm_delta)}')

    def camera(self, name: str) -> CameraSpec:
        """Return the camera of that name. :raises ValueError: where there is none."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ValueError(f'there is no camera {name!r}; there are '
                         f'{", ".join(camera.name for camera in self.cameras)}')

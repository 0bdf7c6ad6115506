"""The recorder's parameters: declared with range and description, read when an episode begins."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rclpy.node import Node
from ros2_lstm_policy.manifest import DEFAULT_CAMERAS, Manifest
from ros2_lstm_policy.ros.declared import Declared, parameter


@dataclass(frozen=True)
class RecorderSettings:
    """The values of all parameters; the table of them, too."""

    directory: str = parameter('recordings', 'folder of the bags', read_only=True)
    prefix: str = parameter('episode', 'first part of the names of the bags')
    cameras: tuple[str, ...] = parameter(DEFAULT_CAMERAS, 'the cameras to record', read_only=True)
    manifest: str = parameter(
        '', "a checkpoint's folder, its action.yaml, or a training configuration: its cameras, "
        'states and groups are recorded, from the topics of streams.NAME.topic, at its period; '
        'empty: the cameras, arm_delta and gripper_command', read_only=True)
    compressed: bool = parameter(False, 'the image topics carry CompressedImage',
                                 read_only=True)
    automatic: bool = parameter(False, 'an instruction begins an episode, a message on '
                                'episode/success labels and ends it')
    instruction: str = parameter('', 'words of the next episodes; empty: from the topic')
    actor: str = parameter('operator', 'who acts; for a policy its fingerprint is taken from '
                           '/diagnostics', choices=('operator', 'policy', 'expert'))
    policy: str = parameter('policy', 'name of the policy node whose fingerprint is recorded')
    arm: str = parameter('displacement', 'what arm_delta carries: m and rad for one control '
                         'period, or m/s and rad/s', choices=('displacement', 'velocity'))
    stamps: str = parameter('auto', "what an action's stamp is: that of the observation it "
                            'answers, or the time of sending; auto: by the actor',
                            choices=('auto', 'observation', 'now'))
    frame: str = parameter('base', 'axes of the deltas', choices=('base', 'tool'))
    rotation: str = parameter('rotation_vector', 'convention of their rotations',
                              choices=('rotation_vector', 'euler_xyz'))
    control_period_s: float = parameter(0.1, 'time that one action covers', 's', 0.001, 10.0)
    gripper_closed: float = parameter(0.0, 'what gripper_command says for closed')
    gripper_open: float = parameter(1.0, 'what gripper_command says for open')
    source: str = parameter('', 'what the robot is, in words, for the bag')
    max_camera_gap_s: float = parameter(
        0.5, 'longest time without a frame of a camera; an episode with a longer one is marked',
        's', 0.01, 3600.0)
    max_action_gap_s: float = parameter(
        3.0, 'longest time without an action; an episode with a longer one is marked', 's',
        0.01, 3600.0)
    queue_mb: float = parameter(256.0, 'memory for messages that wait for the disk', 'MB',
                                1.0, 1e5)
    min_free_mb: float = parameter(500.0, 'an episode ends when the disk has less than this',
                                   'MB', 0.0, 1e7)


class RecorderParameters(Declared[RecorderSettings]):
    """The parameters of a node."""

    def __init__(self, node: Node, manifest: Manifest | None = None) -> None:
        """Declare every parameter; :param manifest: says the cameras and the period."""
        super().__init__(node, RecorderSettings)
        self._manifest = manifest

    def read(self) -> RecorderSettings:
        """Return all values. :raises ParameterError: naming each that cannot be used."""
        settings = super().read()
        if self._manifest is None:
            return settings
        return replace(settings, control_period_s=self._manifest.control_period_s,
                       cameras=tuple(camera.name for camera in self._manifest.cameras))

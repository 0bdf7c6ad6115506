"""
What a benchmark of the vla-eval harness sends and takes, against what a policy does.

The defaults are LIBERO's: images turned by 180 degrees against the renderer's, which is ours
mirrored; seven values in [-1, 1] at 20 Hz, of which the last closes the gripper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import math
from typing import Any, Literal

import numpy as np
from ros2_lstm_policy.config import require_finite
from ros2_lstm_policy.manifest import ActionGroup, Frame, Manifest
from ros2_lstm_policy.types import Decision, Observation

Images = Literal['as_sent', 'mirrored', 'flipped', 'turned']
Gripper = Literal['close_positive', 'close_negative', 'open_01', 'close_01']

_SIDES: Mapping[str, tuple[slice, slice]] = {
    'as_sent': (slice(None), slice(None)), 'mirrored': (slice(None), slice(None, None, -1)),
    'flipped': (slice(None, None, -1), slice(None)),
    'turned': (slice(None, None, -1), slice(None, None, -1))}
# What the harness calls it, the range, and the values of closed and open.
_GRIPPERS: Mapping[str, tuple[str, tuple[int, int], float, float]] = {
    'close_positive': ('binary_close_positive', (-1, 1), 1.0, -1.0),
    'close_negative': ('binary_close_negative', (-1, 1), -1.0, 1.0),
    'open_01': ('continuous_01', (0, 1), 0.0, 1.0),
    'close_01': ('binary_close_01', (0, 1), 1.0, 0.0)}
_IMAGE = {'name': 'image', 'dims': 0, 'format': 'rgb_hwc_uint8'}
_RATE_TOLERANCE = 0.01


@dataclass(frozen=True)
class HarnessConfig:
    """
    How benchmarks of the harness are spoken to.

    :param rate_hz: calls a second of the benchmark; a whole multiple of the policy's rate. Each
        decision is held for so many calls.
    :param cameras: camera of the policy, and what the benchmark calls it.
    :param images: what the benchmark's images are against those of the policy's training:
        'as_sent' the same, 'mirrored' left to right, 'flipped' upside down, 'turned' both.
    :param position_m: displacement that the benchmark's 1 means.
    :param rotation_rad: angle that its 1 means.
    :param gripper: its gripper: 'close_positive' (1 closes, -1 opens), 'close_negative',
        'open_01' (0 closes, 1 opens) or 'close_01'.
    :param frame: axes that it takes deltas in; a policy with others is refused.
    :param states: state of the policy, and which values of the benchmark's state vector it is:
        the first, and the one after the last.
    """

    rate_hz: float = 20.0
    cameras: Mapping[str, str] = field(
        default_factory=lambda: {'static': 'agentview', 'hand': 'wrist'})
    images: Images = 'mirrored'
    position_m: float = 0.05
    rotation_rad: float = 0.5
    gripper: Gripper = 'close_positive'
    frame: Frame = 'base'
    states: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what converts nothing."""
        require_finite(self)
        for name in ('rate_hz', 'position_m', 'rotation_rad'):
            if getattr(self, name) <= 0:
                raise ValueError(f'{name} must be positive, found {getattr(self, name)}')
        for name, (first, end) in self.states.items():
            if not 0 <= first < end:
                raise ValueError(f'states.{name}: expected the first value and the one after the '
                                 f'last, found {[first, end]}')


class Harness:
    """
    The benchmark of one episode: its observations read, its actions written.

    :param manifest: the policy's.
    :raises ValueError: for a policy that is not for such a benchmark.
    """

    def __init__(self, manifest: Manifest, settings: HarnessConfig) -> None:
        """Hold the policy against the settings."""
        self._manifest, self._settings = manifest, settings
        self._arm, self._gripper = _groups(manifest, settings.frame)
        self.calls_per_decision = _calls(settings.rate_hz, manifest.control_period_s)
        absent = [camera.name for camera in manifest.cameras
                  if camera.name not in settings.cameras]
        absent += [state.name for state in manifest.states if state.name not in settings.states]
        if absent:
            raise ValueError(f'the policy needs {", ".join(absent)}; say in harness.cameras or '
                             'harness.states what the benchmark calls it')
        for state in manifest.states:
            first, end = settings.states[state.name]
            if end - first != state.size:
                raise ValueError(f'harness.states.{state.name}: the policy has {state.size} '
                                 f'values, found {[first, end]}')

    def description(self) -> dict[str, Any]:
        """Return what the harness is told of the policy in the greeting."""
        wanted = [self._settings.cameras[camera.name] for camera in self._manifest.cameras]
        name, limits, _, _ = _GRIPPERS[self._settings.gripper]
        observation = dict.fromkeys(wanted, _IMAGE)
        params = {'send_wrist_image': True} if 'wrist' in wanted else {}
        if self._manifest.states:
            params['send_state'] = True
        return {
            'observation_params': params,
            'observation_spec': {**observation,
                                 'language': {'name': 'language', 'dims': 0,
                                              'format': 'language'}},
            'action_spec': {
                'position': {'name': 'position', 'dims': 3, 'format': 'delta_xyz',
                             'range': [-1, 1]},
                'rotation': {'name': 'rotation', 'dims': 3, 'format': 'axis_angle',
                             'range': [-3.15, 3.15]},
                'gripper': {'name': 'gripper', 'dims': 1, 'format': name,
                            'range': list(limits)}}}

    def read(self, payload: Mapping[str, Any], call: int) -> Observation:
        """
        Return what the policy sees.

        :param call: of the episode, from 0.
        :raises ValueError: naming what is not there, or not an image.
        """
        found = payload.get('images')
        found = found if isinstance(found, Mapping) else {}
        images = {}
        for camera in self._manifest.cameras:
            name = self._settings.cameras[camera.name]
            if name not in found:
                raise ValueError(
                    f'the policy needs the image {name!r} (camera {camera.name}); the observation '
                    f'has {", ".join(map(str, found)) or "none"}; see harness.cameras')
            image = as_image(found[name], name)
            images[camera.name] = np.ascontiguousarray(image[_SIDES[self._settings.images]])
        stamp_ns = round(call / self._settings.rate_hz * 1e9)
        return Observation(stamp_ns, images, self._states(payload))

    def write(self, decision: Decision) -> dict[str, Any]:
        """Return the benchmark's seven values."""
        settings, action = self._settings, decision.action
        arm = np.asarray(action.groups[self._arm.name], np.float64)
        scaled = np.concatenate([arm[:3] / settings.position_m, arm[3:] / settings.rotation_rad])
        _, _, closed, opened = _GRIPPERS[settings.gripper]
        opening = float(action.groups[self._gripper.name][0])
        if settings.gripper == 'open_01' and not self._gripper.binary:
            last = float(np.clip(opening, 0, 1))
        else:
            last = opened if opening > self._gripper.threshold else closed
        return {'actions': np.append(scaled.clip(-1, 1), last).astype(np.float32)}

    def _states(self, payload: Mapping[str, Any]) -> dict[str, np.ndarray]:
        if not self._manifest.states:
            return {}
        try:
            vector = np.asarray(payload.get('states'), np.float64).reshape(-1)
        except (TypeError, ValueError):
            vector = np.zeros(0)
        values = {}
        for state in self._manifest.states:
            first, end = self._settings.states[state.name]
            if end > len(vector) or not np.isfinite(vector[first:end]).all():
                raise ValueError(f'state {state.name!r}: expected finite numbers at [{first}, '
                                 f'{end}) of "states", found {len(vector)} values')
            values[state.name] = vector[first:end]
        return values


def as_image(value: Any, name: str) -> np.ndarray:
    """Return a value that is a (H, W, 3) uint8 image. :raises ValueError: where it is none."""
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 \
            or value.shape[2] != 3 or value.size == 0:
        found = f'{value.dtype} {value.shape}' if isinstance(value, np.ndarray) else \
            type(value).__name__
        raise ValueError(f'image {name!r}: expected uint8 (H, W, 3) RGB, found {found}')
    return value


def _groups(manifest: Manifest, frame: str) -> tuple[ActionGroup, ActionGroup]:
    arms = [group for group in manifest.actions if group.kind == 'ee_delta']
    grippers = [group for group in manifest.actions if group.kind == 'gripper']
    if len(manifest.actions) != 2 or len(arms) != 1 or [g.size for g in grippers] != [1]:
        raise ValueError('a benchmark takes one arm of ee_delta and one gripper, the policy has '
                         f'{", ".join(f"{g.name} ({g.kind})" for g in manifest.actions)}')
    if arms[0].frame != frame:
        raise ValueError(f"the policy's deltas are in {arms[0].frame} axes, and the benchmark "
                         f'takes {frame} axes (harness.frame)')
    return arms[0], grippers[0]


def _calls(rate_hz: float, period_s: float) -> int:
    """Return the calls that one decision is held for."""
    exact = rate_hz * period_s
    calls = round(exact)
    if calls < 1 or not math.isclose(exact, calls, rel_tol=_RATE_TOLERANCE):
        raise ValueError(f"harness.rate_hz is {rate_hz:g}; expected a multiple of the policy's "
                         f'{1 / period_s:g} Hz')
    return calls

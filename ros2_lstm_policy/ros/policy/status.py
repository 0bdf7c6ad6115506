"""The policy node's four statuses on /diagnostics: state, inputs, commands, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import time

from diagnostic_msgs.msg import DiagnosticStatus
from ros2_lstm_policy.ros import diagnostics
from ros2_lstm_policy.ros.diagnostics import (ERROR, HELD, HOLDING, Holds, latency_values, OK,
                                              status, WARN)
from ros2_lstm_policy.ros.policy.controller import Controller
from ros2_lstm_policy.ros.policy.inputs import Inputs
from ros2_lstm_policy.ros.policy.parameters import Settings
from ros2_lstm_policy.ros.policy.takeover import Takeover
from ros2_lstm_policy.types import Reason


BETWEEN_CAMERAS = ('skew',)  # reasons that are about cameras, and about none alone
SLOW_CAMERA_SHARE = 0.2  # of the ticks; jitter of a camera of the policy's own rate is less


def state(name: str, label: str, error: str, doubts: Sequence[Reason], fingerprint: str,
          settings: Settings) -> DiagnosticStatus:
    """
    Say what the node is: lifecycle state, checkpoint, shadow, the last transition's error.

    :param doubts: of what there is more than one, in every lifecycle state.
    """
    values: dict[str, object] = {
        'state': label, 'checkpoint': settings.checkpoint, 'server': settings.server,
        'checkpoint sha256': fingerprint,
        'shadow': settings.shadow, 'trigger': settings.trigger, 'device': settings.device}
    if error or doubts:
        problems = ([error] if error else []) + [reason.text for reason in doubts]
        return status(f'{name}: state', ERROR, '; '.join(problems), values)
    if settings.shadow:
        return status(f'{name}: state', WARN, f'{label}, in shadow: nothing is commanded', values)
    return status(f'{name}: state', OK, label, values)


def inputs(name: str, found: Inputs, reasons: Sequence[Reason]) -> DiagnosticStatus:
    """Say what comes from each camera, and of each stream of the robot's state."""
    values: dict[str, object] = {}
    for camera, rate in found.rates.items():
        arrival = found.arrivals.get(camera)
        age = f'{(time.monotonic_ns() - arrival.received_ns) / 1e9:.3f}' if arrival else 'never'
        values |= {f'{camera} rate [Hz]': f'{rate.read_hz():.1f}',
                   f'{camera} received': rate.count,
                   f'{camera} dropped': found.dropped[camera],
                   f'{camera} repeated images': found.frozen.repeats(camera),
                   f'{camera} repeated stamps': found.repeated_stamps[camera],
                   f'{camera} last good image [s ago]': age}
        values |= {f'{camera} refused: {code}': count
                   for code, count in sorted(found.refused[camera].items())}
    for stream, heard in found.states.heard.items():
        values |= {f'{stream} rate [Hz]': f'{heard.rate.read_hz():.1f}',
                   f'{stream} received': heard.rate.count,
                   f'{stream} dropped': heard.dropped,
                   f'{stream} last good value [s ago]': heard.age}
    about = [reason for reason in reasons if reason.camera or reason.code in BETWEEN_CAMERAS]
    good = 'all cameras are seen' + (', all states heard' if found.states.of_policy else '')
    message = '; '.join(reason.text for reason in about) or good
    return status(f'{name}: inputs', ERROR if about else OK, message, values)


def commands(name: str, controller: Controller, holds: Holds) -> DiagnosticStatus:
    """Say what is commanded, and why not."""
    seen = controller.worker.seen
    values: dict[str, object] = {
        'episode': controller.worker.episode, 'instruction': controller.instruction[:200],
        'ticks': controller.ticks.count, 'tick rate [Hz]': f'{controller.ticks.read_hz():.2f}',
        'commands': controller.commands.count,
        'command rate [Hz]': f'{controller.commands.read_hz():.2f}',
        'slowed to the speed limits': controller.slowed,
        'slowed to the acceleration limits': controller.smoothed,
        'history restarts': controller.restarts,
        'history steps': seen.steps, 'history lasts [s]': f'{seen.lasts_s:.1f}'}
    takeover = controller.takeover
    values |= {'actor': 'operator' if takeover.is_on else 'policy', 'takeovers': takeover.count,
               "memory after the operator's last command": takeover.memory}
    values |= {f'{HELD}{code}': count for code, count in sorted(holds.counts.items())}
    values['ticks without a new observation'] = controller.repeats
    if holds.current:
        message = '; '.join(reason.text for reason in holds.current)
        return status(f'{name}: commands', diagnostics.level(holds.current), HOLDING + message,
                      values)
    if takeover.is_on:
        return _of_operator(name, takeover, values)
    missed, ticks = controller.recent_repeats()
    if missed > SLOW_CAMERA_SHARE * ticks:
        return status(f'{name}: commands', WARN, f'acting, but {missed} of the last {ticks} ticks '
                      'found no new observation: a camera is slower than the policy', values)
    return status(f'{name}: commands', OK, 'acting', values)


def _of_operator(name: str, takeover: Takeover, values: Mapping[str, object]) -> DiagnosticStatus:
    """Say that a person acts, and when that has been so for long."""
    message = f'an operator has had the robot for {takeover.duration_s:.0f} s'
    if not takeover.is_long:
        return status(f'{name}: commands', OK, message, values)
    return status(f'{name}: commands', WARN, f'{message} and does not let go, so the policy '
                  'waits: stop sending, then call ~/release (operator_warn_s)', values)


def latency(name: str, controller: Controller) -> DiagnosticStatus:
    """Say where the time between camera and command goes."""
    values = latency_values(controller.latencies)
    total = values.get('total p99 [ms]')
    message = 'no command yet' if total is None else f'camera to command p99 {total} ms'
    return status(f'{name}: latency', OK, message, values)

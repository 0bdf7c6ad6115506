"""
Human takeover: who acts, and what an operator's commands become.

The operator's first message takes the robot from the policy at once; the policy gets it back from
the service `~/release`, or after a silence where `operator_release_s` says so. All of it is used
under the worker's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
import time
from typing import NamedTuple

import numpy as np
from ros2_lstm_policy.ros.diagnostics import Holds
from ros2_lstm_policy.ros.policy.inputs import Inputs
from ros2_lstm_policy.ros.policy.outputs import OPERATOR, Outputs
from ros2_lstm_policy.ros.policy.parameters import Settings
from ros2_lstm_policy.runtime.safety import blend_in, Command, Guard, Limits, motion, Present
from ros2_lstm_policy.types import Action, Reason

_NS = 1_000_000_000


class _Given(NamedTuple):
    """What the operator commanded a group last, or why that meant nothing."""

    values: np.ndarray | Reason
    heard_ns: int


class Takeover:
    """
    Who acts, and since when; times are monotonic.

    :param now_ns: tells the time by the ROS clock.
    :param guard: stands between commands and the robot, the policy's and the operator's alike.
    :ivar count: takeovers so far.
    :ivar answered_ns: stamp of the newest observation that was answered for the operator; what the
        policy decides for it is not published any more.
    :ivar memory: what became of the policy's memory when it got the robot back last.
    """

    def __init__(self, settings: Settings, inputs: Inputs, outputs: Outputs, holds: Holds,
                 guard: Guard, now_ns: Callable[[], int]) -> None:
        """Begin with the policy."""
        self._settings, self._inputs, self._outputs = settings, inputs, outputs
        self._holds, self._guard, self._now_ns = holds, guard, now_ns
        self._given: dict[str, _Given] = {}
        self._since_ns: int | None = None
        self._heard_ns = 0
        self._released_ns: int | None = None
        self.count, self.memory = 0, ''
        self.answered_ns: int | None = None

    @property
    def is_on(self) -> bool:
        """Return whether the operator has the robot."""
        return self._since_ns is not None

    @property
    def duration_s(self) -> float:
        """Return for how long the operator has had the robot."""
        return 0.0 if self._since_ns is None else (time.monotonic_ns() - self._since_ns) / _NS

    @property
    def is_long(self) -> bool:
        """Return whether the operator has had the robot for so long that it is to be said."""
        return self.duration_s > self._settings.operator_warn_s

    @property
    def silence_s(self) -> float:
        """Return how long ago the operator commanded last."""
        return (time.monotonic_ns() - self._heard_ns) / _NS

    def take(self, group: str, values: np.ndarray | Reason) -> bool:
        """Hear the operator; return whether a takeover begins with it."""
        self._heard_ns = time.monotonic_ns()
        self._given[group] = _Given(values, self._heard_ns)
        if self.is_on:
            return False
        self._since_ns = self._heard_ns
        self.count += 1
        return True

    def release(self) -> None:
        """Give the robot back to the policy."""
        self._since_ns, self._released_ns = None, time.monotonic_ns()
        self._given.clear()
        followed = self._settings.operator_memory == 'follow'
        self.memory = ('followed along: the policy saw what the operator did' if followed else
                       'began afresh: operator_memory is restart')

    @property
    def is_over(self) -> bool:
        """Return whether the operator has been silent for as long as gives the robot back."""
        after_s = self._settings.operator_release_s
        return self.is_on and 0 < after_s <= self.silence_s

    def share(self) -> float:
        """Return how much of its first commands the policy gives after it got the robot back."""
        if self._released_ns is None:
            return 1.0
        elapsed_s = (time.monotonic_ns() - self._released_ns) / _NS
        return blend_in(elapsed_s, self._settings.release_blend_in_s)

    def answer(self, stamp_ns: int, limits: Limits, doubts: Sequence[Reason]) -> None:
        """
        Answer one observation with what the operator commands, or hold.

        :param stamp_ns: of the observation; now where there is none.
        :param doubts: all there are; those about no camera hold an operator, too.
        """
        self.answered_ns = stamp_ns
        found = self._command(limits, doubts)
        if isinstance(found, list):
            self._guard.reset()
            self._holds.begin([*found, *self._outputs.hold(stamp_ns, self._presents)])
            return
        present = self._presents()
        self._outputs.command(stamp_ns, found.groups, OPERATOR, self._presents)
        moving = replace(limits, groups={name: limits.groups[name] for name in found.groups})
        self._guard.note(Action(found.groups), found.groups, moving, present)
        if not self._outputs.is_shadow:
            period_s = next(iter(limits.groups.values())).period_s
            self._inputs.frozen.move(motion(found.groups, moving, present), period_s)
        self._holds.end()

    def steer(self, limits: Limits, doubts: Sequence[Reason]) -> None:
        """Have what is repeated as a velocity follow the operator at once."""
        found = self._command(limits, doubts)
        self._outputs.steer({} if isinstance(found, list) else found.groups)

    def repeat(self) -> None:
        """Repeat the velocity, while the operator's last command counts."""
        if self.silence_s > self._settings.operator_command_s:
            self._outputs.steer({})
        else:
            self._outputs.servo()

    def _presents(self) -> Mapping[str, Present]:
        return self._inputs.presents(self._now_ns())

    def _command(self, limits: Limits, doubts: Sequence[Reason]) -> Command | list[Reason]:
        """
        Return what the operator commands now, within the robot's limits.

        Speeds, accelerations, workspace, joint limits and lead hold for a person as for the
        policy; the largest steps of training do not. A command counts for `operator_command_s`,
        a gripper's until the next one; groups that are not commanded are left out and stay.

        :return: or why the robot is to hold.
        """
        if others := [doubt for doubt in doubts if not doubt.camera]:
            return others  # what a camera or a state leaves in doubt stops no operator
        oldest_ns = time.monotonic_ns() - round(self._settings.operator_command_s * _NS)
        fresh = {name: given.values for name, given in self._given.items()
                 if given.heard_ns >= oldest_ns or (
                     limits.groups[name].group.kind == 'gripper'
                     and not isinstance(given.values, Reason))}
        for values in fresh.values():
            if isinstance(values, Reason):
                return [values]
        if self.silence_s > self._settings.operator_command_s:
            return [Reason('operator_silent', 'the operator has the robot, and has commanded '
                           f'nothing for {self.silence_s:.1f} s; the service ~/release gives it '
                           'back to the policy')]
        groups = {name: replace(limits.groups[name], max_step=None) for name in fresh}
        found = self._guard.passed(Action(fresh), 0.0,  # type: ignore[arg-type]
                                   replace(limits, groups=groups), self._presents())
        return [found] if isinstance(found, Reason) else found

    @property
    def given(self) -> dict[str, np.ndarray]:
        """Return what the operator commanded each group last."""
        return {name: given.values for name, given in self._given.items()
                if not isinstance(given.values, Reason)}

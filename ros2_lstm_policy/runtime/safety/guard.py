"""All checks of an action in their order, and what they remember of the one before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ros2_lstm_policy.runtime.safety.checks import check
from ros2_lstm_policy.runtime.safety.limits import Command, Limits, Present
from ros2_lstm_policy.runtime.safety.smooth import Smoother
from ros2_lstm_policy.runtime.safety.ways import eased
from ros2_lstm_policy.types import Action, Reason


class Guard:
    """Stands between decisions and a robot from one hold to the next."""

    def __init__(self) -> None:
        """Begin at rest."""
        self._smoother = Smoother()
        self._decided: dict[str, np.ndarray] = {}
        self._sent: dict[str, np.ndarray] = {}

    def reset(self) -> None:
        """Forget what was told: the robot holds."""
        self._smoother.reset()
        self._decided, self._sent = {}, {}

    def passed(self, action: Action, age_s: float, limits: Limits,
               present: Mapping[str, Present], share: float = 1.0) -> Command | Reason:
        """
        Turn an action into a command, or refuse it.

        What acceleration and jerk limits make of it is checked again: a motion that may not end
        at once can lead where the policy does not want to go.

        :param share: less than 1 of the command while an episode begins; see `blend_in`.
        """
        checked = check(action, age_s, limits, present, self._decided)
        if isinstance(checked, Reason):
            return checked
        wanted = {name: eased(given, limits.groups[name].group, present.get(name), share)
                  for name, given in checked.groups.items()}
        smoothed = self._smoother.smoothed(wanted, limits.groups, present)
        if all(smoothed[name] is wanted[name] for name in wanted):
            return Command(wanted, checked.slowed)
        again = check(Action(smoothed), age_s, limits, present, self._sent)
        if isinstance(again, Reason):
            return again
        return Command(again.groups, min(checked.slowed, again.slowed), is_smoothed=True)

    def note(self, action: Action, sent: Mapping[str, np.ndarray], limits: Limits,
             present: Mapping[str, Present]) -> None:
        """Remember a decision, and what was sent for it."""
        self._decided = {name: np.asarray(given, np.float64)
                         for name, given in action.groups.items()}
        self._smoother.note(sent, limits.groups, present)
        self._sent = dict(sent)

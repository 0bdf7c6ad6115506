"""
What a recording says itself about the robot's body, so that reading it needs no word of anybody.

`convert` and the recorder write it: into a bag's `episode/info`, and beside a LeRobot dataset.
Normalisation and what was measured stay out: they belong to a policy, not to a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ros2_lstm_policy.config import plain
from ros2_lstm_policy.data.episodes import Reading, Wanted
from ros2_lstm_policy.manifest import ActionGroup, ONE_ARM, StateSpec


@dataclass(frozen=True)
class Streams:
    """
    The streams of a recorded episode.

    :param actions: its groups; none for the deltas of one arm and a gripper.
    :param states: its states.
    """

    actions: tuple[ActionGroup, ...] = ()
    states: tuple[StateSpec, ...] = ()

    @classmethod
    def of(cls, reading: Reading) -> Streams:
        """Return those of an episode; one arm's deltas and a gripper need no word."""
        groups = tuple(replace(group, normalisation=None, largest=None)
                       for group in reading.groups)
        states = tuple(replace(state, normalisation=None) for state in reading.states)
        return cls(() if Wanted(actions=groups).is_one_arm else groups, states)

    def wanted(self, cameras: tuple[str, ...]) -> Wanted:
        """Return the wish for all of it, with these cameras."""
        return Wanted(cameras, self.actions or ONE_ARM, self.states)


def short(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain values, without those that are the defaults."""
    return {f.name: plain(found) for f in fields(value)
            if (found := getattr(value, f.name)) != f.default}


def short_streams(streams: Streams) -> Mapping[str, list[dict[str, Any]]]:
    """Return streams as plain values; keys without any are left out."""
    found = {'actions': [short(group) for group in streams.actions],
             'states': [short(state) for state in streams.states]}
    return {key: values for key, values in found.items() if values}

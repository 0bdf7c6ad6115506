"""What every source of recordings gives: a list of recordings, each of which reads one episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ros2_lstm_policy.data.problems import Problem, RecordingError, refuse
from ros2_lstm_policy.manifest import ActionGroup, DEFAULT_CAMERAS, Manifest, ONE_ARM, StateSpec
from ros2_lstm_policy.types import Episode


@dataclass(frozen=True)
class Wanted:
    """
    What an episode must have: a source finds it, or refuses the recording.

    :param cameras: names of cameras.
    :param actions: the groups, as in the manifest; statistics are not looked at.
    :param states: likewise.
    """

    cameras: tuple[str, ...] = DEFAULT_CAMERAS
    actions: tuple[ActionGroup, ...] = ONE_ARM
    states: tuple[StateSpec, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Wanted:
        """Return what a policy of this manifest is trained on."""
        return cls(tuple(camera.name for camera in manifest.cameras), manifest.actions,
                   manifest.states)

    @property
    def is_one_arm(self) -> bool:
        """Return whether the groups are one arm's deltas and a gripper."""
        return ([(group.name, group.kind) for group in self.actions]
                == [(group.name, group.kind) for group in ONE_ARM])

    def require_one_arm(self, where: Path, form: str) -> None:
        """
        Refuse groups that a format does not have: it holds one arm's deltas and a gripper.

        :raises RecordingError: naming those that were asked for.
        """
        if not self.is_one_arm:
            raise refuse('action-meaning', where, '', f'{form} holds the deltas of one arm '
                         f'(arm: ee_delta) and a gripper; asked for was '
                         + ', '.join(f'{group.name}: {group.kind}' for group in self.actions))


@dataclass(frozen=True)
class Reading:
    """
    One episode as it was read.

    :param episode: the episode; its frames decode when they are asked for.
    :param groups: what its actions are.
    :param states: what its states are.
    :param remarks: problems that training may live with.
    :param facts: what else the recording says about itself (actor, model, stream rates).
    :param others: names of what else it holds, for which an episode has no place.
    """

    episode: Episode
    groups: tuple[ActionGroup, ...] = ONE_ARM
    states: tuple[StateSpec, ...] = ()
    remarks: tuple[Problem, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()


class Recording(Protocol):
    """A recording that has not been read yet: one episode, or several in one bag."""

    @property
    def name(self) -> str:
        """Return the name, unique in its source."""

    @property
    def where(self) -> Path:
        """Return the file or folder."""

    def read(self) -> tuple[Reading, ...]:
        """Read its episodes; :raises RecordingError: where training must not see it."""


@dataclass(frozen=True)
class BrokenRecording:
    """A recording that is known to be broken as soon as it is listed; the others are read."""

    name: str
    problem: Problem

    @property
    def where(self) -> Path:
        """Return the file or folder."""
        return self.problem.where

    def read(self) -> tuple[Reading, ...]:
        """Read nothing; :raises RecordingError: always."""
        raise RecordingError(self.problem)

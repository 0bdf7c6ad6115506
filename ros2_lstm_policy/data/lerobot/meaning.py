"""
Whether the columns of a group of actions are of the kind that the manifest wants.

A kind is never guessed: the names of the columns say it, the dataset says it (what `convert` wrote
does), or a person says it with `lerobot.actions.GROUP.kind`. Joints are never read as motions or
poses of the hand, whatever is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ros2_lstm_policy.data.lerobot.layout import FeatureColumns
from ros2_lstm_policy.data.lerobot.words import (CLOSING, DELTA, GRIPPER_PLACE, GRIPPERS,
                                                 is_joint, listed, OPENING, place, POSE, VELOCITY,
                                                 words_of)
from ros2_lstm_policy.data.problems import refuse
from ros2_lstm_policy.kinds import POSE_AXES
from ros2_lstm_policy.manifest import ActionGroup

_SAYS_POSE = POSE - {'ee'}  # whose hand it is says nothing of what it does
_QUATERNION = {'qx', 'qy', 'qz', 'qw'}


def check_meaning(group: ActionGroup, feature: str, names: Sequence[str], said: FeatureColumns,
                  recorded: str | None, info: Path) -> None:
    """
    Refuse columns that are of another kind than the group, or of which nobody says the kind.

    :param names: of the group's columns; empty where they have none.
    :param recorded: the kind that the dataset itself says; None where it says nothing.
    :raises RecordingError: with the names that were found, what was wanted, and the key to set.
    """
    key = f'lerobot.actions.{group.name}'
    words = words_of(names)
    if said.kind not in (None, group.kind):
        raise refuse('action-meaning', info, '', f'{key}.kind says {said.kind}, the manifest '
                     f'wants {group.kind} for {group.name!r}; make them the same')
    if recorded is not None and recorded != group.kind:
        raise refuse('action-meaning', info, '', f'{group.name!r} was recorded as {recorded}; the '
                     f'manifest wants {group.kind}: set its kind there')
    if recorded is None:
        _refuse_joints(group, feature, names, words, key, info)
    if group.kind == 'gripper':
        _refuse_other_way_round(feature, names, words, said, key, info)
    if recorded is not None or said.kind is not None:
        return
    found = kind_of(words)
    if found != group.kind:
        says = f'say {found}' if found else 'do not say what they are'
        raise refuse('action-meaning', info, '', f'{feature}: the names of {group.name!r} '
                     f'({listed(names) or "none in info.json"}) {says}; wanted is {group.kind}: '
                     f'where they are that, say {key}.kind={group.kind}; or name other columns '
                     f'with {key}.columns')


def _refuse_joints(group: ActionGroup, feature: str, names: Sequence[str],
                   words: Sequence[Sequence[str]], key: str, info: Path) -> None:
    if group.meaning.axes != POSE_AXES:
        return
    wrong = [name for name, each in zip(names, words)
             if is_joint(each) or place(each) == GRIPPER_PLACE]
    if wrong:
        raise refuse('action-meaning', info, '', f'{feature}: its names are those of joints '
                     f'({listed(wrong)}); wanted is {group.kind} for {group.name!r}; name other '
                     f'columns with {key}, or let the manifest say joint_position')


def _refuse_other_way_round(feature: str, names: Sequence[str], words: Sequence[Sequence[str]],
                            said: FeatureColumns, key: str, info: Path) -> None:
    """Refuse a gripper whose name says that its larger value closes it, and the scale not."""
    scales = said.scale * len(names) if len(said.scale) == 1 else said.scale
    for name, each, scale in zip(names, words, scales):
        if (CLOSING if scale > 0 else OPENING) & set(each):
            larger, other = ('closed', 'open') if scale > 0 else ('open', 'closed')
            raise refuse('action-meaning', info, '', f'{feature}: {name!r} says that its larger '
                         f'value means {larger}, {key}.scale={scale:g} that it means {other}; '
                         f'its offset is the value for closed, its scale that for open less it')


def kind_of(words: Sequence[Sequence[str]]) -> str:
    """Return the kind that names say; empty where they leave it open."""
    every = {word for each in words for word in each}
    hands = [bool(GRIPPERS & set(each)) for each in words]
    if words and all(hands) and not every & (VELOCITY | DELTA):
        return 'gripper'
    if any(map(is_joint, words)) and all(hand or is_joint(each)
                                         for hand, each in zip(hands, words)):
        return ('joint_velocity' if every & VELOCITY else
                'joint_delta' if every & DELTA else 'joint_position')
    if words and all((place(each) is not None or _QUATERNION & set(each)) and not hand
                     for hand, each in zip(hands, words)):
        if every & VELOCITY:
            return ''
        return 'ee_delta' if every & DELTA else 'ee_pose' if every & _SAYS_POSE else ''
    return ''

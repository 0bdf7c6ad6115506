"""
What the seven columns of an action are, by the names that info.json gives them.

The same shape holds joint positions of a six-axis arm, absolute poses and displacements; the names
are all that tells them apart. Joints are never read as displacements. Names of axes alone do not
say whether they are poses or displacements: that is asked for (`lerobot.arm`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout, Rotation
from ros2_lstm_policy.data.lerobot.words import (CLOSING, DELTA, EULER, flat, GRIPPER_PLACE,
                                                 GRIPPERS, is_joint, listed, OPENING, place, POSE,
                                                 VELOCITY, words_of)
from ros2_lstm_policy.data.problems import refuse
from ros2_lstm_policy.data.promises import check_promises, Promise
from ros2_lstm_policy.kinds import ACTION_DIM

ACTION_NAMES = ('x_m', 'y_m', 'z_m', 'rx_rad', 'ry_rad', 'rz_rad', 'gripper_open')


class ActionColumns(NamedTuple):
    """
    Where the parts of an action lie.

    :param order: the column of each of the six displacements, then of the gripper.
    :param rotation: convention of the rotations.
    :param remark: what the names leave open; empty for nothing.
    """

    order: tuple[int, ...]
    rotation: Rotation
    remark: str = ''


def action_columns(feature: Mapping[str, Any], layout: LeRobotLayout, info: Path) -> ActionColumns:
    """
    Find the columns of an action by their names.

    :param feature: the action's entry in info.json.
    :param info: that file, for errors.
    :raises RecordingError: where the names say something else than displacements and a gripper,
        or leave open what they are and the layout does not say it.
    """
    names = flat(feature.get('names'))
    said = layout.arm is not None or any(factor != 1 for factor in layout.arm_scale)
    in_order = tuple(range(ACTION_DIM))
    if tuple(names) == ACTION_NAMES:
        return ActionColumns(in_order, layout.rotation or 'rotation_vector')
    words = words_of(names)
    _refuse_joints(names, words, layout, info)
    if len(names) not in (0, 1):  # a single one names the whole
        check_promises([Promise('values', layout.action, len(names), ACTION_DIM, 'the list of '
                                'its names')], info, '', f'{listed(names)}; six '
                       'displacements and a gripper are wanted')
    places = [place(each) for each in words]
    if sorted(each for each in places if each is not None) != list(in_order):
        _refuse_misplaced(names, places, layout, info)
        remark = '' if said else (
            f'{layout.action}: {listed(names) if names else "no names"} in info.json; taken for '
            'six displacements and a gripper; lerobot.arm=displacement says that it is so')
        return ActionColumns(in_order, layout.rotation or 'rotation_vector', remark)
    _refuse_other_meaning(names, words, layout, said, info)
    order = tuple(places.index(part) for part in in_order)
    _refuse_other_gripper(names[order[GRIPPER_PLACE]], words[order[GRIPPER_PLACE]], layout, info)
    euler = any(word.removeprefix('d') in EULER for each in words for word in each)
    return ActionColumns(order, layout.rotation or ('euler_xyz' if euler else 'rotation_vector'))


def _refuse_joints(names: Sequence[str], words: Sequence[Sequence[str]], layout: LeRobotLayout,
                   info: Path) -> None:
    joints = [name for name, each in zip(names, words) if is_joint(each)]
    if joints:
        raise refuse('action-meaning', info, '', f'{layout.action}: its names are those of joints '
                     f'({listed(joints)}); expected six displacements of the hand and a gripper; '
                     'name another feature with lerobot.action, or convert the joints first')


def _refuse_misplaced(names: Sequence[str], places: Sequence[int | None], layout: LeRobotLayout,
                      info: Path) -> None:
    """Refuse names of which some are known and stand elsewhere than the shape would have them."""
    wrong = [name for column, (name, found) in enumerate(zip(names, places))
             if found is not None and found != column and len(names) == ACTION_DIM]
    if wrong:
        raise refuse('action-meaning', info, '', f'{layout.action}: {listed(wrong)} stand where '
                     f'something else is expected, and not every name is known: {listed(names)}')


def _refuse_other_meaning(names: Sequence[str], words: Sequence[Sequence[str]],
                          layout: LeRobotLayout, said: bool, info: Path) -> None:
    every = {word for each in words for word in each if not GRIPPERS & set(each)}
    if layout.arm is not None or (every & DELTA and not every & VELOCITY):
        return
    if meaning := ('poses' if every & POSE else 'velocities' if every & VELOCITY else ''):
        raise refuse('action-meaning', info, '', f'{layout.action}: its names are those of '
                     f'{meaning} ({listed(names)}); expected displacements of one control '
                     'period; where they are that, say lerobot.arm=displacement')
    if not said:
        raise refuse('action-meaning', info, '', f'{layout.action}: {listed(names)} may be poses '
                     'or displacements; where they are displacements of one control period, say '
                     'lerobot.arm=displacement (and lerobot.arm_scale, where their units are not '
                     'm and rad)')


def _refuse_other_gripper(name: str, words: Sequence[str], layout: LeRobotLayout,
                          info: Path) -> None:
    grows = layout.gripper_open > layout.gripper_closed
    if CLOSING & set(words) if grows else OPENING & set(words):
        larger = 'closed' if grows else 'open'
        raise refuse('action-meaning', info, '', f'{layout.action}: {name!r} says that its larger '
                     f'value means {larger}, lerobot.gripper_closed='
                     f'{layout.gripper_closed:g} and lerobot.gripper_open='
                     f'{layout.gripper_open:g} say the opposite')

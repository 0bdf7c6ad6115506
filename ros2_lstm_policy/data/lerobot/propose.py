"""Proposes how to read a LeRobot dataset: its cameras, states, and what its actions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ros2_lstm_policy.data.lerobot.columns import STATE
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.lerobot.meaning import kind_of
from ros2_lstm_policy.data.lerobot.meta import INFO, LeRobotMeta, read_meta
from ros2_lstm_policy.data.lerobot.names import action_columns
from ros2_lstm_policy.data.lerobot.words import flat, listed, words_of
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.proposal import free_name, Line, plain_name, Proposal
from ros2_lstm_policy.data.values import as_whole
from ros2_lstm_policy.kinds import ACTION_DIM

_COUNTERS = {'timestamp', 'frame_index', 'episode_index', 'index', 'task_index', 'stamp_ns'}


def propose_lerobot(root: Path) -> Proposal:
    """Return a proposal for a dataset, by what its info.json says."""
    meta = read_meta(root)
    rows = sum(line.length for line in meta.episodes)
    proposal = Proposal(
        str(root), round(1 / meta.fps, 6), f'{meta.fps:g} rows a second', 'lerobot',
        [f'LeRobot {meta.version}, {len(meta.episodes)} episodes, {rows} rows, {meta.fps:g} a '
         'second, with', *(f'  {_described(name, feature)}'
                           for name, feature in meta.features.items() if name not in _COUNTERS)])
    _add_cameras(proposal, meta)
    _add_state(proposal, meta)
    _add_actions(proposal, meta)
    return proposal


def _described(name: str, feature: Mapping[str, Any]) -> str:
    names = flat(feature.get('names'))
    said = f', {listed(names)}' if names and 'images' not in name else ''
    return f'{name} ({feature.get("dtype")}, shape {feature.get("shape")}){said}'


def _add_cameras(proposal: Proposal, meta: LeRobotMeta) -> None:
    layout, named = LeRobotLayout(), {}
    for feature, entry in meta.features.items():
        if entry.get('dtype') not in ('video', 'image') or 'depth' in feature:
            continue
        name = plain_name(feature, ('observation', 'observations', 'images', 'image'), 'camera')
        name = free_name(name, [str(line.values['name']) for line in proposal.cameras])
        if layout.camera(name) != feature:
            named[name] = feature
        proposal.add_camera(name, f'{feature}: shape {entry.get("shape")}')
    if named:
        proposal.how['cameras'] = Line(named)


def _columns(feature: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    """Return the width of a feature of numbers, and the names of its columns; 0 for none."""
    shape = feature.get('shape')
    width = as_whole(shape[0]) if isinstance(shape, list) and len(shape) == 1 else None
    names = tuple(flat(feature.get('names')))
    if len(names) != width or len(set(names)) != len(names):
        names = ()
    return width or 0, names


def _named(names: Sequence[str]) -> dict[str, list[str]]:
    return {'names': list(names)} if names else {}


def _add_state(proposal: Proposal, meta: LeRobotMeta) -> None:
    width, names = _columns(meta.features.get(STATE, {}))
    others = [name for name, feature in meta.features.items()
              if name.startswith('observation.') and name != STATE and _columns(feature)[0]]
    note = STATE + (f'; {", ".join(others)} may be states, too (lerobot.states.NAME.feature)'
                    if others else '')
    if width:
        proposal.states.append(Line({'name': 'state', 'size': width} | _named(names), note))


def _add_actions(proposal: Proposal, meta: LeRobotMeta) -> None:
    feature = LeRobotLayout().action
    width, names = _columns(meta.features.get(feature, {}))
    if not width:
        return
    if width == ACTION_DIM and _is_one_arm(meta, feature):
        proposal.actions += [
            Line({'name': 'arm', 'kind': 'ee_delta', 'size': 6, 'frame': 'base'},
                 'DECIDE: in the axes of the base or of the tool'),
            Line({'name': 'gripper', 'kind': 'gripper', 'size': 1, 'binary': True})]
        return
    parts = _parts(names) or {'arm': names}
    said: dict[str, Any] = {}
    for name, part in parts.items():
        kind = kind_of(words_of(part))
        if not kind.startswith('joint'):
            said[name] = {'columns': list(part) or list(range(width)), 'kind': 'joint_position'}
        found = kind if kind.startswith('joint') else 'joint_position'
        note = '' if name not in said else (
            f'DECIDE: the names of {feature} ({listed(part) or "none"}) do not say what it is: '
            'joint_position is only an example; set kind here and in lerobot.actions')
        proposal.actions.append(Line({'name': name, 'kind': found, 'size': len(part) or width}
                                     | _named(part), note))
    if said:
        proposal.how['actions'] = Line(said, 'DECIDE: say which columns a group has and its kind')


def _is_one_arm(meta: LeRobotMeta, feature: str) -> bool:
    try:
        return not action_columns(meta.features[feature], LeRobotLayout(),
                                  meta.root / INFO).remark
    except RecordingError:
        return False


def _parts(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the joints of two arms by the side that their names begin with."""
    sides = {f'{side}_arm': tuple(name for name in names if name.lower().startswith(side))
             for side in ('left', 'right')}
    return sides if all(sides.values()) and sum(map(len, sides.values())) == len(names) else {}

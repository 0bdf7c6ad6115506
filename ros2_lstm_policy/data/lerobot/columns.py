"""Which columns of a LeRobot dataset are the states and the groups of actions of a manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ros2_lstm_policy import config
from ros2_lstm_policy.data.body import Streams
from ros2_lstm_policy.data.conventions import to_rotation_vectors
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.lerobot.layout import FeatureColumns, LeRobotLayout
from ros2_lstm_policy.data.lerobot.meaning import check_meaning
from ros2_lstm_policy.data.lerobot.meta import INFO, LeRobotMeta, SIDECAR
from ros2_lstm_policy.data.lerobot.names import action_columns
from ros2_lstm_policy.data.lerobot.rows import Rows
from ros2_lstm_policy.data.lerobot.words import EULER, flat, listed, place, words_of
from ros2_lstm_policy.data.problems import RecordingError, refuse
from ros2_lstm_policy.data.promises import check_promises, Promise
from ros2_lstm_policy.data.values import as_whole, shown
from ros2_lstm_policy.kinds import ACTION_DIM, ARM_DIM, POSE_AXES, rotation_6d
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from ros2_lstm_policy.types import ARM, GRIPPER

STATE = 'observation.state'
_UNSAID = FeatureColumns()
_QUATERNION_DIM, _POSE_NUMBERS = 7, 9
_UNIT_TOLERANCE = 0.01  # of a quaternion's length, as in live messages


class Columns(NamedTuple):
    """
    Where the values of one state or group lie, and how they are stored.

    :param width: columns of the feature.
    :param places: of each wanted value.
    :param offset: what is subtracted of each, (n,).
    :param factor: what the rest is multiplied by.
    :param rotation: of a pose, how its rotation is stored; None for what is none.
    """

    feature: str
    width: int
    places: tuple[int, ...]
    offset: np.ndarray
    factor: np.ndarray
    rotation: str | None = None

    def of(self, rows: Rows) -> np.ndarray:
        """Return the values, (T, n) float64."""
        stored = rows.vectors(self.feature, self.width)[:, self.places]
        values = (stored - self.offset) * self.factor
        if self.rotation == 'quaternion_xyzw':
            lengths = np.linalg.norm(values[:, 3:], axis=1)
            bad = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
            if len(bad):
                raise rows.wrong(int(bad[0]), self.feature, 'a unit quaternion in the last four '
                                 'columns', values[bad[0], 3:].tolist())
        return values

    def pose_of(self, rows: Rows) -> np.ndarray:
        """Return the values, rotations as vectors, (T, n) float32."""
        return to_rotation_vectors(self.of(rows), self.rotation or 'rotation_vector')


class Body(NamedTuple):
    """
    Where everything of an episode lies but its images.

    :param remarks: what the names of columns leave open.
    """

    groups: Mapping[str, Columns]
    states: Mapping[str, Columns]
    remarks: tuple[str, ...] = ()

    @property
    def features(self) -> list[str]:
        """Return the features that are read."""
        return list(dict.fromkeys(c.feature for c in (*self.groups.values(),
                                                      *self.states.values())))


def find_body(meta: LeRobotMeta, layout: LeRobotLayout, wanted: Wanted) -> Body:
    """
    Find the columns of what is wanted.

    :raises RecordingError: for what is not there, or may be several things.
    """
    remarks: list[str] = []
    if wanted.is_one_arm and not layout.actions:
        groups = _one_arm(meta, layout, remarks)
    else:
        _refuse_unread(meta, layout, wanted)
        groups = {group.name: _group(meta, layout, group, wanted.actions, remarks)
                  for group in wanted.actions}
    _refuse_unknown(meta, 'states', layout.states, wanted.states)
    return Body(groups, {state.name: _state(meta, layout, state, wanted.states, remarks)
                         for state in wanted.states}, tuple(remarks))


def _refuse_unread(meta: LeRobotMeta, layout: LeRobotLayout, wanted: Wanted) -> None:
    """Refuse keys for seven columns where groups are read by name: nothing would read them."""
    for key in ('arm', 'arm_scale', 'gripper_closed', 'gripper_open'):
        if getattr(layout, key) != getattr(LeRobotLayout, key):
            raise refuse('action-meaning', meta.root, '', f'lerobot.{key} is for an action of six '
                         'deltas and a gripper, without lerobot.actions; say the offset and scale '
                         'of groups with lerobot.actions.GROUP')
    _refuse_unknown(meta, 'actions', layout.actions, wanted.actions)


def _refuse_unknown(meta: LeRobotMeta, key: str, said: Mapping[str, FeatureColumns],
                    wanted: Sequence[ActionGroup] | Sequence[StateSpec]) -> None:
    known = [item.name for item in wanted]
    if unknown := [name for name in said if name not in known]:
        raise refuse('missing-topic', meta.root, '', f'lerobot.{key}.{unknown[0]}: the manifest '
                     f'has the {key} {", ".join(known) or "none"}; name it there, too')


def _one_arm(meta: LeRobotMeta, layout: LeRobotLayout,
             remarks: list[str]) -> dict[str, Columns]:
    """Return six deltas and a gripper out of seven columns."""
    require(meta, layout.action)
    found = action_columns(meta.features[layout.action], layout, meta.root / INFO)
    remarks += [found.remark] if found.remark else []
    opening = layout.gripper_open - layout.gripper_closed
    return {ARM: Columns(layout.action, ACTION_DIM, found.order[:ARM_DIM], np.zeros(ARM_DIM),
                         np.array(layout.arm_scale), found.rotation),
            GRIPPER: Columns(layout.action, ACTION_DIM, found.order[ARM_DIM:],
                             np.array([layout.gripper_closed]), np.array([1 / opening]))}


def require(meta: LeRobotMeta, feature: str,
            keys: str = 'lerobot.cameras.NAME, lerobot.action') -> None:
    """Refuse a dataset without a feature; :param keys: where another one is named."""
    if feature not in meta.features:
        raise refuse('missing-topic', meta.root, '', f'no feature {feature!r}; it has '
                     f'{", ".join(meta.features)}; set {keys}')


def _state(meta: LeRobotMeta, layout: LeRobotLayout, state: StateSpec,
           states: Sequence[StateSpec], remarks: list[str]) -> Columns:
    said = layout.states.get(state.name, _UNSAID)
    key = f'lerobot.states.{state.name}'
    table = _Table(meta, said.feature or STATE, key, remarks)
    is_whole = state.name == 'state' or len(states) == 1 or bool(said.feature)
    chosen = table.choose(said, state.name, state.axes, state.names, is_whole,
                          f'state {state.name!r} of {state.size} values')
    if said.rotation is not None:
        size, needed = _POSE_NUMBERS, _rotation_size(said.rotation)
        table.require_size(chosen, needed, f'the pose {state.name!r}')
    else:
        size = len(chosen)
        table.require_size(chosen, state.size, f'state {state.name!r}')
    if size != state.size:
        raise refuse('state-size', meta.root / INFO, '', f'{key}.rotation makes nine numbers of '
                     f'a pose; the manifest says size {state.size}')
    return table.columns(chosen, said, said.rotation)


def _group(meta: LeRobotMeta, layout: LeRobotLayout, group: ActionGroup,
           groups: Sequence[ActionGroup], remarks: list[str]) -> Columns:
    said = layout.actions.get(group.name, _UNSAID)
    key = f'lerobot.actions.{group.name}'
    table = _Table(meta, said.feature or layout.action, key, remarks)
    is_whole = len(groups) == 1 or bool(said.feature)
    chosen = table.choose(said, group.name, group.axes, group.names, is_whole,
                          f'action {group.name!r} ({group.kind}, {group.size} values)')
    names = [table.names[column] for column in chosen] if table.names else []
    recorded = recorded_kind(meta, group.name)
    check_meaning(group, table.feature, names, said, recorded, meta.root / INFO)
    if group.meaning.axes != POSE_AXES:
        table.require_size(chosen, group.size, f'action {group.name!r}')
        return table.columns(chosen, said, None)
    rotation = said.rotation or layout.rotation or _rotation_of([] if recorded else names)
    table.require_size(chosen, _rotation_size(rotation), f'action {group.name!r} with its '
                       f'rotation as {rotation}')
    if not said.columns and len(chosen) == group.size:
        chosen = _in_order(chosen, names)
    return table.columns(chosen, said, rotation)


def _rotation_size(rotation: str) -> int:
    return _QUATERNION_DIM if rotation == 'quaternion_xyzw' else ARM_DIM


def _rotation_of(names: Sequence[str]) -> str:
    """Return what the names say of the rotation."""
    words = {word.removeprefix('d') for each in words_of(names) for word in each}
    if {'qx', 'qy', 'qz', 'qw'} <= words:
        return 'quaternion_xyzw'
    return 'euler_xyz' if words & set(EULER) else 'rotation_vector'


def _in_order(chosen: Sequence[int], names: Sequence[str]) -> tuple[int, ...]:
    """Return columns in the order of x y z and their rotations, where the names tell it."""
    places = [place(each) for each in words_of(names)]
    if sorted(each for each in places if each is not None) != list(range(len(chosen))):
        return tuple(chosen)
    return tuple(chosen[places.index(part)] for part in range(len(chosen)))


def recorded_kind(meta: LeRobotMeta, name: str) -> str | None:
    """Return the kind that `convert` wrote beside the dataset; None for others' datasets."""
    streams = described(meta)
    return next((group.kind for group in streams.actions if group.name == name),
                None) if streams is not None else None


def described(meta: LeRobotMeta) -> Streams | None:
    """
    Return the streams that `convert` wrote beside the dataset; None where it wrote none.

    :raises RecordingError: where it is something else.
    """
    said = next((ours for ours in meta.ours.values()), {})
    values = {key: said[key] for key in ('actions', 'states') if key in said}
    try:
        return config.parse(Streams, values, 'its streams') if values else None
    except config.ConfigError as error:
        raise refuse('damaged', meta.root / SIDECAR, '', str(error)) from error


class _Table:
    """
    The columns of one feature, and their choice.

    :param names: of its columns; empty where they have none.
    """

    def __init__(self, meta: LeRobotMeta, feature: str, key: str, remarks: list[str]) -> None:
        """Find the feature; :raises RecordingError: where it is none of numbers in a row."""
        self.feature, self._key, self._remarks = feature, key, remarks
        self._info = meta.root / INFO
        require(meta, feature, f'{key}.feature')
        entry = meta.features[feature]
        self.width = _width(entry, feature, self._info)
        names = flat(entry.get('names'))
        self.names = [] if len(names) == 1 < self.width else names
        if self.names and len(self.names) != self.width:
            check_promises([Promise('values', feature, len(names), self.width,
                                    'the list of its names')], self._info, '',
                           f'{listed(names)}; correct its names in info.json')

    def choose(self, said: FeatureColumns, name: str, axes: Sequence[str],
               wanted: Sequence[str], is_whole: bool, what: str) -> tuple[int, ...]:
        """
        Return the columns of a stream.

        :param axes: what they are called where `convert` wrote them, behind the stream's name.
        :param wanted: names that the manifest gives them; empty for none.
        :param is_whole: whether nothing else can be meant by the whole feature.
        :param what: is wanted, for errors.
        """
        if said.columns:
            return tuple(self._place(column) for column in said.columns)
        for given in ([f'{name}.{axis}' for axis in axes], wanted):
            if given and set(given) <= set(self.names):
                return tuple(self._place(each) for each in given)
        if wanted and self.names:
            raise self._ask(f'{what} wants the names {listed(wanted)}')
        if not is_whole:
            raise self._ask(f'nothing says which of them are {what}')
        if wanted:
            self._remarks.append(f'{self.feature}: no names in info.json; its columns are taken '
                                 f'in the order of the names of {name!r} in the manifest')
        return tuple(range(self.width))

    def _place(self, column: Any) -> int:
        if isinstance(column, int):
            if not 0 <= column < self.width:
                raise self._ask(f'there is no column {column} of {self.width}')
            return column
        if self.names.count(column) != 1:
            raise self._ask(f'{self.names.count(column)} columns are called {column!r}')
        return self.names.index(column)

    def _ask(self, problem: str) -> RecordingError:
        found = listed(self.names) or f'no names for its {self.width} columns in info.json'
        return refuse('missing-topic', self._info, '', f'{self.feature}: {problem}; it has '
                      f'{found}; set {self._key}.columns (names, or numbers from 0 on) and '
                      f'{self._key}.feature')

    def require_size(self, chosen: Sequence[int], size: int, what: str) -> None:
        """Refuse another number of columns than is wanted."""
        if len(chosen) != size:
            raise refuse('state-size', self._info, '', f'{self.feature}: expected {size} columns '
                         f'for {what}, found {len(chosen)}: '
                         f'{listed(self.names) or "without names"}; set {self._key}.columns, or '
                         'its size in the manifest')

    def columns(self, chosen: Sequence[int], said: FeatureColumns,
                rotation: str | None) -> Columns:
        """Return the columns with what is said of their values."""
        for key, values in (('offset', said.offset), ('scale', said.scale)):
            if len(values) not in (1, len(chosen)):
                raise refuse('state-size', self._info, '', f'{self._key}.{key}: expected one '
                             f'value, or {len(chosen)}, found {len(values)}')
        ones = np.ones(len(chosen))
        return Columns(self.feature, self.width, tuple(chosen), ones * said.offset,
                       1 / (ones * said.scale), rotation)


def _width(entry: Mapping[str, Any], feature: str, info: Path) -> int:
    shape, dtype = entry.get('shape'), str(entry.get('dtype'))
    width = as_whole(shape[0]) if isinstance(shape, list) and len(shape) == 1 else None
    if width is None or width < 1 or not dtype.startswith(('float', 'int', 'uint')):
        raise refuse('missing-topic', info, '', f'{feature}: expected numbers in one row, found '
                     f'dtype {shown(entry.get("dtype"))} of shape {shown(shape)}')
    return width


def state_values(columns: Columns, rows: Rows) -> np.ndarray:
    """Return the values of a state, (T, size) float32; of a pose nine numbers."""
    if columns.rotation is None:
        return columns.of(rows).astype(np.float32)
    pose = columns.pose_of(rows)
    return np.concatenate([pose[:, :3], rotation_6d(pose[:, 3:])], axis=1).astype(np.float32)

"""
LIBERO's demonstrations: one HDF5 file a task, one group a demonstration.

Actions are seven values in [-1, 1]: three positions in units of 0.05 m and a rotation vector in
units of 0.5 rad, in the world's axes, and the gripper, -1 open, 1 closed. Images are stored bottom
row first (OpenGL's order) and turned upright here. robomimic's files differ in what
:class:`LiberoLayout` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
import re
from typing import Any

import numpy as np
from ros2_lstm_policy.data.conventions import cameras_by_name
from ros2_lstm_policy.data.episodes import BrokenRecording, Reading, Recording, Wanted
from ros2_lstm_policy.data.hdf5 import hdf5_names, HdfFrames, read_hdf5
from ros2_lstm_policy.data.problems import Problem, reading, RecordingError, refuse
from ros2_lstm_policy.data.promises import check_promises, Promise
from ros2_lstm_policy.data.values import parse_object, shown, Values
from ros2_lstm_policy.kinds import ACTION_DIM, ARM_DIM
from ros2_lstm_policy.manifest import StateSpec
from ros2_lstm_policy.types import ARM, Episode, GRIPPER

SCALE = (0.05,) * 3 + (0.5,) * 3
PATTERNS = ('*.hdf5', '*.h5')
_IMAGES = {'static': 'agentview_rgb', 'hand': 'eye_in_hand_rgb'}
_DEFAULT_HZ = 20.0
_SCENE = re.compile(r'^[A-Z_]+_SCENE\d+_')  # KITCHEN_SCENE10_close_the_top_drawer_demo.hdf5
_SAY = 'say the words with libero.instruction'


@dataclass(frozen=True)
class LiberoLayout:
    """
    How to read HDF5 demonstrations; the defaults are LIBERO's own.

    :param cameras: dataset under `obs` by the name of the camera; one that is not named here has
        LIBERO's own where it is `static` or `hand`, and its name otherwise.
    :param states: dataset under `obs` by the name of the state, where it has another name.
    :param bottom_row_first: whether images are stored upside down, as a simulator renders them.
    :param instruction: the words; None to take them from the file's attribute `problem_info`, or,
        where there is no such attribute, from the name of a file `..._demo.hdf5`.
    """

    cameras: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    bottom_row_first: bool = True
    instruction: str | None = None

    def camera(self, name: str) -> str:
        """Return the dataset of that camera."""
        return self.cameras.get(name, _IMAGES.get(name, name))

    def state(self, name: str) -> str:
        """Return the dataset of that state."""
        return self.states.get(name, name)

    @staticmethod
    def upgrade(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Read the keys `static` and `hand` of earlier versions."""
        return cameras_by_name(values)


@dataclass(frozen=True)
class _Task:
    """What a file says about all of its demonstrations; :param remarks: of the file as a whole."""

    instruction: str
    rate_hz: float
    scale: tuple[float, ...]
    demos: tuple[str, ...]
    remarks: tuple[Problem, ...] = ()


def list_libero(root: Path, layout: LiberoLayout, wanted: Wanted) -> list[Recording]:
    """
    List the demonstrations of one file or of a folder of files, in which broken ones are named.

    :raises RecordingError: for a single file that is damaged or holds no demonstrations.
    """
    root = Path(root)
    wanted.require_one_arm(root, 'HDF5')
    paths = [root] if root.is_file() else sorted(
        path for pattern in PATTERNS for path in root.glob(pattern))
    found: list[Recording] = []
    for path in paths:
        try:
            task = _describe(path, layout)
        except RecordingError as error:
            if path == root:
                raise
            found.append(BrokenRecording(path.stem, error.problem))
        else:
            found += [LiberoRecording(path, demo, task, layout, wanted) for demo in task.demos]
    return found


@dataclass(frozen=True)
class LiberoRecording:
    """One demonstration that has not been read yet."""

    path: Path
    demo: str
    task: _Task
    layout: LiberoLayout
    wanted: Wanted

    @property
    def name(self) -> str:
        """Return the file's and the demonstration's name."""
        return f'{self.path.stem}/{self.demo}'

    @property
    def where(self) -> Path:
        """Return the file."""
        return self.path

    def read(self) -> tuple[Reading, ...]:
        """Read the actions; :raises RecordingError: for a damaged demonstration."""
        actions = self._dataset('actions')
        if actions.ndim != 2 or actions.shape[1] != ACTION_DIM or actions.dtype.kind not in 'fiu':
            raise refuse('damaged', self.path, self.name, f'actions: expected (T, {ACTION_DIM}) '
                         f'numbers, found {actions.dtype} {actions.shape}')
        self._check_samples(len(actions))
        period_ns = round(1e9 / self.task.rate_hz)
        episode = Episode(
            self.name, self.task.instruction, np.arange(len(actions), dtype=np.int64) * period_ns,
            {camera: self._frames(camera) for camera in self.wanted.cameras},
            {ARM: (actions[:, :ARM_DIM] * self.task.scale).astype(np.float32),
             GRIPPER: (1 - actions[:, ARM_DIM:]).astype(np.float32) / 2},
            {state.name: self._state(state, len(actions)) for state in self.wanted.states},
            success=self._success(len(actions)))
        facts = {'frame': 'base', 'control_period_s': f'{1 / self.task.rate_hz:g}'}
        remarks = self.task.remarks if self.demo == self.task.demos[0] else ()
        return (Reading(episode, self.wanted.actions, self.wanted.states, remarks, facts,
                        self._others()),)

    def _others(self) -> tuple[str, ...]:
        """Return the data sets that an episode has no place for."""
        read = {'actions', 'dones', *(self.layout.camera(name) for name in self.wanted.cameras),
                *map(self.layout.state, (state.name for state in self.wanted.states))}
        group = f'data/{self.demo}'
        return tuple(name for place in (group, f'{group}/obs')
                     for name in hdf5_names(self.path, place) if name not in {*read, 'obs'})

    def _check_samples(self, count: int) -> None:
        with reading(self.path, self.name), _open(self.path) as file:
            attributes = dict(file[f'data/{self.demo}'].attrs)
        if 'num_samples' in attributes:
            promised = Values({'num_samples': _plain(attributes['num_samples'])}, self.path,
                              self.demo).whole('num_samples')
            check_promises([Promise('actions', '', promised, count, 'num_samples')], self.path,
                           self.name)

    def _frames(self, camera: str) -> HdfFrames:
        key = f'data/{self.demo}/obs/{self.layout.camera(camera)}'
        try:
            return HdfFrames.of(self.path, key, self.name, self.layout.bottom_row_first)
        except RecordingError as error:
            there = hdf5_names(self.path, f'data/{self.demo}/obs')
            if error.problem.rule != 'missing-topic' or not there:
                raise
            advice = ('set libero.cameras.NAME, and libero.bottom_row_first=false where '
                      'images are stored upright, as in robomimic')
            raise refuse('missing-topic', self.path, self.name, f'no dataset {key!r}; beside it '
                         f'are {", ".join(there)}; {advice}') from error

    def _state(self, state: StateSpec, count: int) -> np.ndarray:
        """Return the values of a state; :raises RecordingError: where they are not there."""
        key = self.layout.state(state.name)
        there = hdf5_names(self.path, f'data/{self.demo}/obs')
        if key not in there:
            raise refuse('missing-topic', self.path, self.name, f'no dataset {key!r} for the '
                         f'state {state.name!r}; in obs are {", ".join(there)}; name it with '
                         f'libero.states.{state.name}')
        values = self._dataset(f'obs/{key}')
        if values.shape != (count, state.size) or values.dtype.kind not in 'fiu':
            raise refuse('state-size', self.path, self.name, f'{key}: expected ({count}, '
                         f'{state.size}) numbers, found {values.dtype} {values.shape}')
        return values.astype(np.float32)

    def _success(self, count: int) -> bool | None:
        dones = self._dataset('dones', None)
        if dones is None or not count:
            return None
        if dones.shape != (count,) or dones.dtype.kind not in 'biuf':
            raise refuse('lengths', self.path, self.name, f'dones: expected {count} numbers, as '
                         f'there are actions, found {dones.dtype} {dones.shape}')
        return bool(dones[-1] == 1)

    def _dataset(self, key: str, *default: Any) -> Any:
        return read_hdf5(self.path, f'data/{self.demo}/{key}', self.name, *default)


def _open(path: Path) -> Any:
    import h5py
    return h5py.File(path, 'r')


def _describe(path: Path, layout: LiberoLayout) -> _Task:
    """Read what a file says about its demonstrations; :raises RecordingError: where it is bad."""
    import h5py
    with reading(path), _open(path) as file:
        names, data = list(file), file.get('data')
        if isinstance(data, h5py.Group):
            attributes = {key: _plain(value) for key, value in data.attrs.items()}
            demos = [name for name in data if re.fullmatch(r'demo_\d+', name)]
    if not isinstance(data, h5py.Group) or not demos:
        raise refuse('no-dataset', path, '', _what_it_is(names))
    demos.sort(key=lambda name: int(name.removeprefix('demo_')))
    instruction, remarks = _instruction(path, attributes, layout)
    kwargs = _env_kwargs(path, attributes)
    rate_hz = kwargs.number('control_freq') if 'control_freq' in kwargs.content else _DEFAULT_HZ
    if rate_hz <= 0:
        raise kwargs.wrong('control_freq', 'a number above 0', rate_hz)
    if 'num_demos' in attributes:
        promised = Values(attributes, path, 'data').whole('num_demos')
        if promised != len(demos):
            remarks.append(Problem('counts', path, '', f'num_demos promises {promised} '
                                   f'demonstrations, found {len(demos)}', fatal=False))
    return _Task(instruction, rate_hz, _scale(kwargs), tuple(demos), tuple(remarks))


def _plain(value: Any) -> Any:
    """Return an attribute as a plain value."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _what_it_is(names: list[str]) -> str:
    """Say what an HDF5 file without demonstrations seems to be."""
    if {'action', 'observations'} <= set(names):
        return ('it is an episode of ALOHA (action, observations/qpos), whose actions are joint '
                'positions; these are never read as displacements')
    if any(name.startswith('traj_') for name in names):
        return 'it holds trajectories of ManiSkill (traj_0, ...); expected data/demo_0, ...'
    return (f'the file holds no demonstration (data/demo_0, ...); it has '
            f'{", ".join(names) or "nothing"}')


def _instruction(path: Path, attributes: Mapping[str, Any],
                 layout: LiberoLayout) -> tuple[str, list[Problem]]:
    """Return the words, and a note where they are those of the file's name."""
    if layout.instruction is not None:
        return layout.instruction, []
    if 'problem_info' not in attributes:
        if not path.stem.endswith('_demo'):
            raise refuse('no-instruction', path, '', f'no attribute problem_info; {_SAY}')
        words = _SCENE.sub('', path.stem.removesuffix('_demo')).replace('_', ' ').strip()
        return words, [Problem('no-instruction', path, '', 'no attribute problem_info; the words '
                               f'are those of the name of the file, {words!r}; others: '
                               'libero.instruction', fatal=False)]
    text = Values(attributes, path, 'data').text('problem_info')
    said = parse_object(text, path, 'problem_info').content.get('language_instruction')
    if isinstance(said, list) and all(isinstance(part, str) for part in said):
        said = ''.join(said)  # LIBERO's own files have one letter an item
    if not isinstance(said, str):
        raise refuse('no-instruction', path, '', 'problem_info: language_instruction: expected a '
                     f'text, found {shown(said)}; {_SAY}')
    return said.strip().strip('"'), []


def _env_kwargs(path: Path, attributes: Mapping[str, Any]) -> Values:
    """Return how the simulator was set up; empty where the file does not say it."""
    if 'env_args' not in attributes:
        return Values({}, path)
    arguments = parse_object(Values(attributes, path, 'data').text('env_args'), path, 'env_args')
    if 'env_kwargs' not in arguments.content:
        return Values({}, path)
    return Values(arguments.mapping('env_kwargs'), path, 'env_args: env_kwargs')


def _scale(kwargs: Values) -> tuple[float, ...]:
    """
    Return m and rad for an action of 1, by the controller that the file names.

    :raises RecordingError: where its actions are no displacements of the hand.
    """
    if not kwargs.content.get('controller_configs'):
        return SCALE
    controller = Values(kwargs.mapping('controller_configs'), kwargs.where, 'controller_configs')
    parts = controller.content.get('body_parts')
    if isinstance(parts, Mapping) and 'right' in parts:  # robosuite from 1.5 on
        controller = Values(Values(parts, kwargs.where, 'body_parts').mapping('right'),
                            kwargs.where, 'controller_configs: body_parts: right')
    kind = controller.text('type')
    absolute = (controller.content.get('control_delta') is False
                or controller.content.get('input_type') == 'absolute')
    if kind != 'OSC_POSE' or absolute:
        raise refuse('action-meaning', kwargs.where, '', f'its controller is {kind}'
                     f'{" with absolute poses" if absolute else ""}; expected OSC_POSE with '
                     'displacements: its actions are none')
    largest = controller.content.get('output_max', list(SCALE))
    if isinstance(largest, list) and len(largest) == ARM_DIM:
        numbers = Values({str(axis): value for axis, value in enumerate(largest)}, kwargs.where,
                         'output_max')
        return tuple(numbers.number(str(axis)) for axis in range(ARM_DIM))
    raise controller.wrong('output_max', f'{ARM_DIM} numbers', largest)

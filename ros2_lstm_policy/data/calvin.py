"""
CALVIN's directory layout: one npz a step, language annotations as ranges of steps.

Actions are `rel_actions`: seven values in [-1, 1], three positions in units of 0.02 m, three Euler
angles (x y z) in units of 0.05 rad, in the world's axes, and the gripper, -1 closed, 1 open, at
30 Hz (https://github.com/mees/calvin, dataset/README.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import io
from pathlib import Path
import pickle
from typing import Any

import numpy as np
from ros2_lstm_policy.data.conventions import check_cameras, to_rotation_vectors
from ros2_lstm_policy.data.episodes import BrokenRecording, Reading, Recording, Wanted
from ros2_lstm_policy.data.problems import Problem, reading, refuse
from ros2_lstm_policy.data.promises import check_promises, Promise
from ros2_lstm_policy.data.values import as_whole, shown, Values
from ros2_lstm_policy.manifest import StateSpec
from ros2_lstm_policy.types import ARM, Episode, GRIPPER

PERIOD_NS = round(1e9 / 30)
SCALE = np.array([0.02] * 3 + [0.05] * 3)
FACTS = {'frame': 'base', 'control_period_s': f'{1 / 30:.6f}'}
ANNOTATIONS = Path('lang_annotations') / 'auto_lang_ann.npy'
_KEYS = {'static': 'rgb_static', 'hand': 'rgb_gripper'}
_PICKLED = {('numpy', 'ndarray'), ('numpy', 'dtype'),
            ('numpy.core.multiarray', '_reconstruct'), ('numpy.core.multiarray', 'scalar'),
            ('numpy._core.multiarray', '_reconstruct'), ('numpy._core.multiarray', 'scalar'),
            ('_codecs', 'encode')}


def list_calvin(root: Path, wanted: Wanted) -> list[Recording]:
    """
    List the annotated episodes of a CALVIN folder (`training` or `validation`).

    :raises RecordingError: where the index or the annotations are missing or damaged.
    """
    check_cameras(wanted.cameras, _KEYS, root, 'CALVIN')
    wanted.require_one_arm(root, 'CALVIN')
    ranges = _load_array(root / 'ep_start_end_ids.npy')
    if ranges.ndim != 2 or ranges.shape[1] != 2 or ranges.dtype.kind not in 'iu':
        raise refuse('damaged', root / 'ep_start_end_ids.npy', '', 'expected rows of first and '
                     f'last step as whole numbers, found {ranges.dtype} {ranges.shape}')
    annotations = Values(_load_annotations(root / ANNOTATIONS), root / ANNOTATIONS)
    words = _sequence(annotations, 'language', 'ann')
    spans = _sequence(annotations, 'info', 'indx')
    check_promises([Promise('texts', 'language/ann', len(spans), len(words), 'info/indx')],
                   root / ANNOTATIONS, '')
    return [_recording(root, number, text, span, wanted, ranges)
            for number, (text, span) in enumerate(zip(words, spans))]


def _sequence(annotations: Values, section: str, key: str) -> Sequence[Any]:
    values = Values(annotations.mapping(section), annotations.where, section)
    found = values.content.get(key)
    if isinstance(found, (list, tuple)) or (isinstance(found, np.ndarray) and found.ndim):
        return found  # type: ignore[return-value]
    raise values.wrong(key, 'a list', found)


def _recording(root: Path, number: int, text: Any, span: Any, wanted: Wanted,
               ranges: np.ndarray) -> Recording:
    """Return one annotated range, which is broken where its words or its steps are none."""
    steps = [as_whole(step.item() if isinstance(step, np.generic) else step)
             for step in span] if isinstance(span, (list, tuple, np.ndarray)) else []
    name = f'{root.name}-{number:05d}'
    if not isinstance(text, str):
        problem = Problem('no-instruction', root / ANNOTATIONS, name, f'language/ann {number}: '
                          f'expected a text, found {shown(text)}')
        return BrokenRecording(name, problem)
    if len(steps) != 2 or steps[0] is None or steps[1] is None:
        return BrokenRecording(name, Problem('range', root / ANNOTATIONS, name, 'info/indx '
                               f'{number}: expected first and last step, found {shown(span)}'))
    return CalvinRecording(root, number, str(text), steps[0], steps[1], wanted,
                           _is_inside(ranges, steps[0], steps[1]))


@dataclass(frozen=True)
class CalvinRecording:
    """
    One annotated range of steps.

    :param last: included, as in the annotations.
    :param whole: whether it lies in one recorded sequence.
    """

    root: Path
    number: int
    instruction: str
    first: int
    last: int
    wanted: Wanted
    whole: bool

    @property
    def name(self) -> str:
        """Return a name with the range of steps."""
        return f'{self.root.name}-{self.number:05d}-{self.first}-{self.last}'

    @property
    def where(self) -> Path:
        """Return the folder."""
        return self.root

    def read(self) -> tuple[Reading, ...]:
        """Read the actions of the range; :raises RecordingError: for a step that is damaged."""
        if not self.whole:
            raise refuse('range', self.root, self.name, 'the annotation does not lie within one '
                         'sequence of ep_start_end_ids.npy')
        paths = tuple(self.root / f'episode_{step:07d}.npz'
                      for step in range(self.first, self.last + 1))
        actions = np.stack([self._action(path) for path in paths])
        stamps_ns = np.arange(self.first, self.last + 1, dtype=np.int64) * PERIOD_NS
        frames = {camera: NpzFrames(paths, _KEYS[camera], self.name)
                  for camera in self.wanted.cameras}
        states = {state.name: np.stack([self._state(path, state) for path in paths])
                  for state in self.wanted.states}
        episode = Episode(self.name, self.instruction, stamps_ns, frames,
                          {ARM: to_rotation_vectors(actions[:, :6] * SCALE, 'euler_xyz'),
                           GRIPPER: (actions[:, 6:].astype(np.float32) + 1) / 2}, states)
        return (Reading(episode, self.wanted.actions, self.wanted.states, facts=FACTS,
                        others=self._others(paths[0])),)

    def _others(self, path: Path) -> tuple[str, ...]:
        """Return the arrays of a step that an episode has no place for."""
        with reading(path, self.name), np.load(path, allow_pickle=False) as arrays:
            read = {'rel_actions', *(_KEYS[camera] for camera in self.wanted.cameras),
                    *(state.name for state in self.wanted.states)}
            return tuple(name for name in arrays.files if name not in read)

    def _state(self, path: Path, state: StateSpec) -> np.ndarray:
        """Return the values of the array that has the state's name, such as robot_obs."""
        values = read_npz(path, state.name, self.name)
        if values.shape != (state.size,) or values.dtype.kind not in 'fiu':
            raise refuse('state-size', path, self.name, f'{state.name}: expected {state.size} '
                         f'numbers, found {values.dtype} {values.shape}')
        return values.astype(np.float32)

    def _action(self, path: Path) -> np.ndarray:
        action = read_npz(path, 'rel_actions', self.name)
        # NaN passes here, and is left to the rule that names it.
        if action.shape != (7,) or action.dtype.kind not in 'fiu' \
                or np.any(np.abs(action) > 1):
            raise refuse('action-range', path, self.name,
                         f'expected 7 rel_actions in [-1, 1], found {shown(action.tolist())}')
        return action


@dataclass(frozen=True)
class NpzFrames:
    """A `types.FrameSequence` over one array of many npz files."""

    paths: Sequence[Path]
    key: str
    episode: str

    def __len__(self) -> int:
        """Return T."""
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one (H, W, 3) uint8 image; :raises RecordingError: where it is none."""
        image = read_npz(self.paths[index], self.key, self.episode)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise refuse('damaged', self.paths[index], self.episode,
                         f'{self.key}: expected (H, W, 3) uint8, found {image.shape} '
                         f'{image.dtype}')
        return image


def read_npz(path: Path, key: str, episode: str) -> np.ndarray:
    """Read one array of an npz file; :raises RecordingError: where it is not there."""
    with reading(path, episode), np.load(path, allow_pickle=False) as arrays:
        if key not in arrays:
            raise refuse('missing-topic', path, episode, f'no array {key!r}')
        return arrays[key]


def _load_array(path: Path) -> np.ndarray:
    with reading(path):
        return np.load(path, allow_pickle=False)


def _is_inside(ranges: np.ndarray, first: int, last: int) -> bool:
    return bool(np.any((ranges[:, 0] <= first) & (last <= ranges[:, 1]) & (first <= last)))


class _ArraysOnly(pickle.Unpickler):
    """Builds plain containers and NumPy arrays, and refuses to run anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few functions that arrays need."""
        if (module, name) not in _PICKLED:
            raise pickle.UnpicklingError(f'it asks to run {module}.{name}')
        return super().find_class(module, name)


def _load_annotations(path: Path) -> Mapping[str, Any]:
    """Read the pickled dictionary in auto_lang_ann.npy without running code from it."""
    with reading(path), open(path, 'rb') as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                       (2, 0): np.lib.format.read_array_header_2_0}[version]
        _, _, dtype = read_header(file)
        if not dtype.hasobject:
            raise ValueError(f'expected a pickled dictionary, found an array of {dtype}')
        content = _ArraysOnly(io.BytesIO(file.read())).load()
        annotations = content.item() if isinstance(content, np.ndarray) else content
    if not isinstance(annotations, dict):
        raise refuse('damaged', path, '', f'expected a dictionary, found {type(annotations)}')
    return annotations

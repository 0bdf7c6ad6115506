"""The axes along which an evaluation's conditions can be changed, and how strongly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
import math
from typing import Any

import numpy as np
from ros2_lstm_policy.sim.cameras import MODEL_CAMERAS

_PICK = ('seed', 'cameras', 'black_from')  # say how an axis is drawn, change nothing alone
# the greatest strength of each axis; beyond it there is nothing left to see or to reach
_MOST = {'noise': 255.0, 'blur': 50.0, 'exposure': 8.0, 'white_balance': 0.9, 'camera_move_m': 1.0,
         'camera_turn_rad': math.pi, 'start_rad': 0.5, 'light': 8.0, 'light_colour': 0.9,
         'light_move_m': 10.0, 'table': 0.9, 'distractors': 20, 'object_move_m': 0.3,
         'synonyms': 1.0, 'typos': 20, 'delay': 50}


@dataclass(frozen=True)
class PerturbConfig:
    """
    How strongly each axis is changed; 0 leaves it as it is, and any of them go together.

    A strength is a size. Its direction (brighter or darker, where to, which letter) is drawn for
    each episode from the seed and the episode's name.

    :param seed: another one draws other directions.
    :param cameras: whose pictures and places are changed: 'static', 'hand'.
    :param noise: standard deviation of a sensor's noise, of 255, at `image_size`.
    :param blur: standard deviation of a Gaussian, pixels at `image_size`.
    :param jpeg: quality of JPEG compression, 1 to 100; None for none.
    :param exposure: stops; one doubles or halves the light of the picture.
    :param white_balance: share by which red grows and blue falls, or the reverse.
    :param camera_move_m: how far the cameras are moved, m.
    :param camera_turn_rad: how far the cameras are turned, rad.
    :param black: cameras that fail and give black pictures.
    :param black_from: control period from which on they do.
    :param start_rad: largest change of each joint of the arm at the beginning, rad.
    :param light: stops; one doubles or halves all lamps.
    :param light_colour: share by which the lamps' red grows and blue falls, or the reverse.
    :param light_move_m: how far the lamps are moved, level, m.
    :param table: share by which red, green and blue of the table, or the floor that things stand
        on, each grow or fall.
    :param synonyms: share of the known words of the instruction that are said otherwise.
    :param typos: typing errors in the instruction.
    :param distractors: coloured blocks and balls on the table; seen, but not there to touch.
    :param delay: control periods by which all pictures come late.
    :param object_move_m: how far the object that is meant is moved, m, once, when the hand comes
        within 9 cm of it.
    """

    seed: int = 0
    cameras: tuple[str, ...] = tuple(MODEL_CAMERAS)
    noise: float = 0.0
    blur: float = 0.0
    jpeg: int | None = None
    exposure: float = 0.0
    white_balance: float = 0.0
    camera_move_m: float = 0.0
    camera_turn_rad: float = 0.0
    black: tuple[str, ...] = ()
    black_from: int = 0
    start_rad: float = 0.0
    light: float = 0.0
    light_colour: float = 0.0
    light_move_m: float = 0.0
    table: float = 0.0
    synonyms: float = 0.0
    typos: int = 0
    distractors: int = 0
    delay: int = 0
    object_move_m: float = 0.0

    def __post_init__(self) -> None:
        """Refuse strengths that mean nothing."""
        for name, most in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f'{name} must be in [0, {most:.4g}], '
                                 f'found {getattr(self, name)}')
        if self.jpeg is not None and not 1 <= self.jpeg <= 100:
            raise ValueError(f'jpeg must be a quality, 1 to 100, found {self.jpeg}')
        if self.seed < 0 or self.black_from < 0:
            raise ValueError(f'seed and black_from must not be negative, found {self.seed} and '
                             f'{self.black_from}')
        for name in ('cameras', 'black'):
            if unknown := set(getattr(self, name)) - set(MODEL_CAMERAS):
                raise ValueError(f'{name}: no camera {", ".join(sorted(unknown))}; there are '
                                 f'{", ".join(MODEL_CAMERAS)}')
        if not self.cameras:
            raise ValueError("cameras: expected 'static', 'hand' or both, found none")

    @property
    def axes(self) -> Mapping[str, Any]:
        """Return the axes that are changed, with their strengths."""
        return {f.name: getattr(self, f.name) for f in fields(self)
                if f.name not in _PICK and getattr(self, f.name) != f.default}

    @property
    def changed(self) -> Mapping[str, Any]:
        """Return all that decides what is changed, as plain values; empty where nothing is."""
        if not self.axes:
            return {}
        picked = {f.name: getattr(self, f.name) for f in fields(self)
                  if f.name in _PICK and getattr(self, f.name) != f.default}
        values = {'seed': self.seed, **picked, **self.axes}
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in values.items()}

    def rng(self, episode: str, axis: str) -> np.random.Generator:
        """Return the random numbers of one axis of one episode, whatever others there are."""
        return np.random.default_rng([self.seed, *episode.encode(), 256, *axis.encode()])


def described(changed: Mapping[str, Any]) -> str:
    """Return what is changed, for a table: 'noise 10, black static, seed 0'."""
    return ', '.join(f'{name} {"+".join(value) if isinstance(value, list) else value}'
                     for name, value in sorted(changed.items(), key=lambda item: item[0] in _PICK))

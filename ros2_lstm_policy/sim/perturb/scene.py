"""What is seen differently of the same scene: cameras' places, lamps, the table, distractors."""

from __future__ import annotations

from typing import Any

import numpy as np
from ros2_lstm_policy.sim.cameras import MODEL_CAMERAS, Shape
from ros2_lstm_policy.sim.perturb.settings import PerturbConfig
from ros2_lstm_policy.sim.robot import SimRobot

CLEARANCE_M = 0.09  # of a distractor from every object
_REACH_M = (0.05, 0.30)  # of a distractor from the middle of the objects
_TRIES = 200
_VISUAL_GROUP = 1
_COLOURS = ((0.85, 0.1, 0.1), (0.1, 0.6, 0.15), (0.1, 0.25, 0.85), (0.95, 0.8, 0.1),
            (0.6, 0.15, 0.7), (0.95, 0.5, 0.1))
_CHANGED = ('cam_pos', 'cam_quat', 'light_pos', 'light_diffuse', 'light_ambient',
            'light_specular', 'mat_rgba', 'geom_rgba')
_LAMPS = ('light_diffuse', 'light_ambient', 'light_specular')
_HEADLIGHT = ('diffuse', 'ambient', 'specular')


class ChangedScene:
    """
    Changes what the renderer draws of one robot's scene; the physics sees none of it.

    :param robot: whose compiled model is changed; it is as it was at the next :meth:`restore`.
    """

    def __init__(self, robot: SimRobot) -> None:
        """Keep what is there."""
        self._model: Any = robot.environment.sim.model._model
        self._kept = {name: getattr(self._model, name).copy() for name in _CHANGED}
        headlight = self._model.vis.headlight
        self._headlight = {name: getattr(headlight, name).copy() for name in _HEADLIGHT}

    def restore(self, robot: SimRobot) -> None:
        """Undo every change."""
        for name, values in self._kept.items():
            getattr(self._model, name)[:] = values
        for name, values in self._headlight.items():
            getattr(self._model.vis.headlight, name)[:] = values
        if robot.cameras is not None:
            robot.cameras.shapes = ()

    def begin(self, robot: SimRobot, config: PerturbConfig) -> list[str]:
        """Change the scene for the episode that the robot has begun; return notes in words."""
        name, notes = robot.episode.name, []
        for camera in config.cameras:
            notes += self._place_camera(camera, config, name)
        notes += self._light(config, name)
        if config.table:
            factors = 1 + config.table * config.rng(name, 'table').choice([-1.0, 1.0], 3)
            self._paint_table(factors)
            notes.append(f'table: red, green, blue times {_numbers(factors)}')
        if config.distractors and robot.cameras is not None:
            robot.cameras.shapes = _distractors(robot, config)
            notes += [f'{shape.kind} at {_numbers(np.array(shape.position))} m'
                      for shape in robot.cameras.shapes]
        return notes

    def place(self, robot: SimRobot) -> None:
        """Compute where cameras and lamps are now; a step would do it, and move the rest."""
        import mujoco
        mujoco.mj_camlight(self._model, robot.environment.sim.data._data)

    def _place_camera(self, camera: str, config: PerturbConfig, episode: str) -> list[str]:
        index = self._model.camera(MODEL_CAMERAS[camera]).id
        notes = []
        if config.camera_move_m:
            way = config.camera_move_m * _direction(config.rng(episode, f'move {camera}'))
            self._model.cam_pos[index] = self._kept['cam_pos'][index] + way
            notes.append(f'{camera}: moved by {_numbers(way)} m')
        if config.camera_turn_rad:
            axis = _direction(config.rng(episode, f'turn {camera}'))
            self._model.cam_quat[index] = _turned(self._kept['cam_quat'][index], axis,
                                                  config.camera_turn_rad)
            notes.append(f'{camera}: turned about {_numbers(axis)}')
        return notes

    def _light(self, config: PerturbConfig, episode: str) -> list[str]:
        notes, gains = [], np.ones(3)
        if config.light:
            stops = config.light * config.rng(episode, 'light').choice([-1.0, 1.0])
            gains *= 2.0 ** stops
            notes.append(f'light {stops:+g}')
        if config.light_colour:
            shift = config.light_colour * config.rng(episode, 'light_colour').choice([-1.0, 1.0])
            gains *= [1 + shift, 1.0, 1 - shift]
            notes.append(f'light colour {shift:+g}')
        if config.light or config.light_colour:
            for name in _LAMPS:
                getattr(self._model, name)[:] = self._kept[name] * gains
            for name, kept in self._headlight.items():
                getattr(self._model.vis.headlight, name)[:] = kept * gains
        if config.light_move_m:
            angle = config.rng(episode, 'light_move_m').uniform(0, 2 * np.pi)
            way = config.light_move_m * np.array([np.cos(angle), np.sin(angle), 0.0])
            self._model.light_pos[:] = self._kept['light_pos'] + way
            notes.append(f'light moved by {_numbers(way)} m')
        return notes

    def _paint_table(self, factors_3: np.ndarray) -> None:
        for geom in table_geoms(self._model):
            material = int(self._model.geom_matid[geom])
            name, row = ('geom_rgba', geom) if material < 0 else ('mat_rgba', material)
            getattr(self._model, name)[row, :3] = self._kept[name][row, :3] * factors_3


def table_geoms(model: Any) -> list[int]:
    """Return the visible parts of the table, or of the floor where things stand on it."""
    names = [f'{model.body(model.geom_bodyid[g]).name} {model.geom(g).name}'.lower()
             for g in range(model.ngeom)]
    seen = [g for g in range(model.ngeom) if model.geom_group[g] == _VISUAL_GROUP]
    tables = [g for g in seen if 'table' in names[g]]
    return tables or [g for g in seen if names[g].split() and names[g].split()[-1] == 'floor']


def _distractors(robot: SimRobot, config: PerturbConfig) -> tuple[Shape, ...]:
    """Draw shapes on the table, clear of every object and of each other where there is room."""
    rng = config.rng(robot.episode.name, 'distractors')
    taken = [robot.privileged.position(name)[:2] for name in robot.privileged.objects]
    middle = np.mean(taken, axis=0) if taken else np.zeros(2)
    ground = min((robot.privileged.points(name)[:, 2].min() for name in robot.privileged.objects),
                 default=0.0)
    shapes = []
    for number in range(config.distractors):
        place = _free_place(rng, middle, taken)
        taken.append(place)
        size = rng.uniform(0.02, 0.035)
        shapes.append(Shape(str(rng.choice(['box', 'sphere', 'cylinder'])), float(size),
                            (float(place[0]), float(place[1]), float(ground + size)),
                            _COLOURS[number % len(_COLOURS)]))
    return tuple(shapes)


def _free_place(rng: np.random.Generator, middle: np.ndarray,
                taken: list[np.ndarray]) -> np.ndarray:
    """Return the first of many places that is clear, or the one that is clearest."""
    places = [middle + rng.uniform(*_REACH_M) * np.array([np.cos(a), np.sin(a)])
              for a in rng.uniform(0, 2 * np.pi, _TRIES)]
    room = [min((float(np.linalg.norm(p - t)) for t in taken), default=np.inf) for p in places]
    return next((p for p, r in zip(places, room) if r > CLEARANCE_M),
                places[int(np.argmax(room))])


def _direction(rng: np.random.Generator) -> np.ndarray:
    way = rng.normal(size=3)
    return way / np.linalg.norm(way)


def _turned(quaternion: np.ndarray, axis: np.ndarray, angle_rad: float) -> np.ndarray:
    import mujoco
    turn, turned = np.zeros(4), np.zeros(4)
    mujoco.mju_axisAngle2Quat(turn, axis, angle_rad)
    mujoco.mju_mulQuat(turned, quaternion, turn)
    return turned


def _numbers(values: np.ndarray) -> str:
    return ' '.join(f'{value:.3g}' for value in values)

"""
Scenes of our own for memory tasks, made of LIBERO's objects on its living room's table.

LIBERO reads a scene from a file, so one is written for each process that builds it.
"""

from __future__ import annotations

import functools
from pathlib import Path
import tempfile
from typing import NamedTuple

SPREAD_M = 0.01  # of each place, to both sides
TABLE = 'living_room_table'


class Standing(NamedTuple):
    """
    Where an object stands: the middle of its place.

    :param kind: LIBERO's name of its category.
    :param x: m from the table's middle, away from the robot.
    :param y: m, to the right of who looks at the robot.
    """

    kind: str
    x: float
    y: float


PLATES, BASKETS = 'memory/plates', 'memory/baskets'
SCENES: dict[str, dict[str, Standing]] = {
    PLATES: {
        'plate_1': Standing('plate', -0.14, -0.24), 'plate_2': Standing('plate', -0.14, -0.05),
        'plate_3': Standing('plate', 0.06, -0.24), 'plate_4': Standing('plate', 0.06, -0.05),
        'akita_black_bowl_1': Standing('akita_black_bowl', -0.14, 0.14),
        'butter_1': Standing('butter', 0.06, 0.14),
        'wooden_tray_1': Standing('wooden_tray', -0.05, 0.34)},
    BASKETS: {
        'tomato_sauce_1': Standing('tomato_sauce', -0.12, 0.0),
        'alphabet_soup_1': Standing('alphabet_soup', 0.08, 0.0),
        'butter_1': Standing('butter', -0.02, -0.06),
        'cream_cheese_1': Standing('cream_cheese', -0.02, 0.06),
        'basket_1': Standing('basket', 0.0, -0.26), 'basket_2': Standing('basket', 0.0, 0.26)},
}


@functools.cache
def file(scene: str) -> Path | None:
    """Return the file from which a scene of `SCENES` is built; None for another scene."""
    if scene not in SCENES:
        return None
    folder = Path(tempfile.mkdtemp(prefix='memory_scene_'))
    path = folder / f'{scene.replace("/", "_")}.bddl'
    path.write_text(_text(SCENES[scene]))
    return path


def _text(objects: dict[str, Standing]) -> str:
    """Return a scene in LIBERO's language; what success is comes from elsewhere."""
    regions = ''.join(
        f'(place_{name} (:target {TABLE}) (:ranges (({at.x - SPREAD_M} {at.y - SPREAD_M} '
        f'{at.x + SPREAD_M} {at.y + SPREAD_M}))) (:yaw_rotation ((0.0 0.0))))\n'
        for name, at in objects.items())
    containers = [name for name, at in objects.items() if at.kind in ('basket', 'wooden_tray')]
    regions += ''.join(f'(contain_region (:target {name}))\n' for name in containers)
    kinds = dict.fromkeys(at.kind for at in objects.values())
    things = '\n'.join(' '.join(name for name, at in objects.items() if at.kind == kind)
                       + f' - {kind}' for kind in kinds)
    places = '\n'.join(f'(On {name} {TABLE}_place_{name})' for name in objects)
    first = next(iter(objects))
    return (f'(define (problem LIBERO_Living_Room_Tabletop_Manipulation)\n(:domain robosuite)\n'
            f'(:language remember)\n(:regions\n{regions})\n(:fixtures\n{TABLE} - {TABLE}\n)\n'
            f'(:objects\n{things}\n)\n(:obj_of_interest\n{first}\n)\n(:init\n{places}\n)\n'
            f'(:goal\n(And (On {first} {TABLE}_place_{first}))\n)\n)\n')

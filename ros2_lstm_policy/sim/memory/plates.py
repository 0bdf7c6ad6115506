"""What M2 and M3 ask of four equal plates: who is on which."""

from __future__ import annotations

import numpy as np

from ros2_lstm_policy.sim.memory import scenes
from ros2_lstm_policy.sim.world import World

PLATES = ('plate_1', 'plate_2', 'plate_3', 'plate_4')
BOWL, BUTTER, TRAY = 'akita_black_bowl_1', 'butter_1', 'wooden_tray_1'
SCENE = scenes.PLATES
MOVABLE = len(scenes.SCENES[SCENE]) - 1
ABOVE_M = 0.03  # an object that is put onto something falls from there
WITHIN_M = 0.06  # of a plate's middle: its rim has 0.068


def rests_on(world: World, name: str) -> str | None:
    """Return the plate on which an object is that nobody holds; None for none."""
    if world.privileged.held(name):
        return None
    here = world.middle(name)
    return next((plate for plate in PLATES if world.privileged.touch(name, plate)
                 and np.linalg.norm(here - world.middle(plate)) < WITHIN_M), None)


def put_onto(world: World, name: str, support: str, turn: float = 0.0) -> None:
    """
    Place an object over the middle of another one and let it come to rest there.

    :param turn: rad about the vertical.
    """
    world.place(name, np.append(world.middle(support), world.position(support)[2] + ABOVE_M),
                turn)
    world.settle()

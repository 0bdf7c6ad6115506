"""
M5, alternate: the same can is offered four times; into two baskets in turn.

After each delivery the can is taken away and, after the gap, offered again in the same scene, the
arm at home. Who does not remember takes one basket with one and the same probability p each time,
and is right four times with p (1 - p) p (1 - p), at best 1/16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_lstm_policy.sim.memory import scenes
from ros2_lstm_policy.sim.memory.task import MemoryTask, Setting
from ros2_lstm_policy.sim.stages import Put, Show, Stage, Standing
from ros2_lstm_policy.sim.world import Snapshot, World

CAN, LEFT, RIGHT = 'tomato_sauce_1', 'basket_1', 'basket_2'
SIDES = {'left': LEFT, 'right': RIGHT}
OFFERS = 4


class Deliver:
    """
    The can into one of two baskets, let go of.

    :param scene: with which it begins.
    """

    def __init__(self, world: World, scene: Snapshot, basket: str) -> None:
        """Ask for a basket."""
        self._world, self._scene, self._basket = world, scene, basket

    def begin(self) -> None:
        """Offer the can."""
        self._world.load(self._scene)

    def holds(self, arm: np.ndarray) -> bool:
        """Let the robot move."""
        return False

    def look(self) -> Standing:
        """Judge where the can is."""
        inside = [basket for basket in SIDES.values() if self._world.inside(CAN, basket)]
        if not inside or self._world.privileged.held(CAN):
            return Standing()
        if inside != [self._basket]:
            return Standing(failure='wrong basket')
        return Standing(done=True)

    def wanted(self) -> Put:
        """Want the can in the basket."""
        return Put(CAN, self._basket)


def plan(world: World, setting: Setting) -> Sequence[Stage]:
    """Offer the can four times, with nothing on the table in between."""
    world.hide([name for name in scenes.SCENES[scenes.BASKETS]
                if name not in (CAN, LEFT, RIGHT)])
    offer = world.save()
    world.hide([CAN])
    gap = world.save()
    world.load(offer)
    first, second = (LEFT, RIGHT) if setting.cue == 0 else (RIGHT, LEFT)
    stages: list[Stage] = []
    for number in range(OFFERS):
        stages += [Show(world, gap, setting.gap_periods)] if number else []
        stages.append(Deliver(world, offer, first if number % 2 == 0 else second))
    return stages


TASK = MemoryTask(
    name='memory/alternate', benchmark='m5', scene=scenes.BASKETS, cues=len(SIDES),
    movable=len(scenes.SCENES[scenes.BASKETS]) - len(SIDES),
    instruction=lambda cue: 'put the can in the left and the right basket in turn, the '
                            f'{list(SIDES)[cue]} one first',
    target=lambda cue: CAN, container=lambda cue: (RIGHT, LEFT)[cue],
    chance=lambda cue: 1 / 2 ** OFFERS, plan=plan)

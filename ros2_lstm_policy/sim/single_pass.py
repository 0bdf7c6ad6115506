"""
One pass of the physics a simulation step, where robosuite makes three: same states, bit for bit.

In each of its 50 simulation steps a control period robosuite 1.4 computes the whole dynamics for
the controller, again when the controller asks, and again with the controller's torques. MuJoCo
splits a step where the controls come in (mj_step1, mj_step2), which computes everything once.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from typing import Any


@contextlib.contextmanager
def single_pass(simulation: Any) -> Iterator[None]:
    """
    Let robosuite's own step loop compute every step once.

    :param simulation: `robosuite.utils.binding_utils.MjSim`; as it was, afterwards. Within, its
        `forward` gives what a controller reads: positions, velocities, inertia; no accelerations.
    """
    import mujoco
    model, data = simulation.model._model, simulation.data._data
    computed = False

    def forward() -> None:
        nonlocal computed
        if not computed:
            mujoco.mj_step1(model, data)
        computed = True

    def step(with_udd: bool = True) -> None:
        nonlocal computed
        forward()
        mujoco.mj_step2(model, data)
        computed = False

    simulation.forward, simulation.step = forward, step
    try:
        yield
    finally:
        del simulation.forward, simulation.step

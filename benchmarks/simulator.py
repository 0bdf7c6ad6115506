"""
A control period of the simulated robot with and without computing each step once, in one run.

Both ways give the same states bit for bit, which the last column shows.

    PYTHONPATH=. python benchmarks/simulator.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import contextlib
import time

import numpy as np
from ros2_lstm_policy.sim import benchmarks, robot as robots
from ros2_lstm_policy.sim.expert import ScriptedExpert


@contextlib.contextmanager
def as_robosuite_does(is_on: bool) -> Iterator[None]:
    """Leave robosuite's own loop alone."""
    kept = robots.single_pass
    if is_on:
        robots.single_pass = contextlib.nullcontext  # type: ignore[assignment]
    try:
        yield
    finally:
        robots.single_pass = kept


def episode_ms(robot: robots.SimRobot, number: int) -> tuple[float, np.ndarray]:
    """Run one episode of the expert; return ms a period and the last joint positions."""
    state, expert = robot.reset(benchmarks.training_b(number)), ScriptedExpert(robot)
    spent_s = 0.0
    while not state.success and state.step < 150:
        action = expert.act()
        begin_s = time.perf_counter()
        state = robot.step(action)
        spent_s += time.perf_counter() - begin_s
    return 1e3 * spent_s / state.step, state.joint_positions


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--episodes', type=int, default=5)
    options = parser.parse_args()
    robot = robots.SimRobot(benchmarks.SCENE, render=False)
    print('| episode | ms a period as robosuite | each step once | ratio | same end |\n'
          '|---|---|---|---|---|')
    for number in range(options.episodes):
        found = []
        for is_slow in (True, False):
            with as_robosuite_does(is_slow):
                found.append(episode_ms(robot, number))
        (slow_ms, slow_end), (fast_ms, fast_end) = found
        print(f'| {number} | {slow_ms:.1f} | {fast_ms:.1f} | {slow_ms / fast_ms:.2f} | '
              f'{np.array_equal(slow_end, fast_end)} |', flush=True)
    robot.close()


if __name__ == '__main__':
    main()

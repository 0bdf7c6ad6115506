"""
Run an evaluation's episodes through the nodes in lock-step, and hold them to the actor's results.

`ros2 run ros2_lstm_policy evaluate_nodes --config config/evaluate.yaml benchmark=a every=5`
The policy node and the simulated robot run as they do in the demo, over DDS. Each episode is also
run by the actor in one process, as `evaluate` does; both have to command the same at every step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import sys
from typing import NamedTuple

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions
from ros2_lstm_policy import config
from ros2_lstm_policy.evaluation import actors
from ros2_lstm_policy.evaluation.evaluate import EvaluateConfig
from ros2_lstm_policy.evaluation.rollout import rollout
from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.ros.closed_loop.observer import DemoError, DemoObserver
from ros2_lstm_policy.ros.closed_loop.processes import ChildError, Children
from ros2_lstm_policy.ros.sim import parameters
from ros2_lstm_policy.sim.backend import SimulatorMissingError
from ros2_lstm_policy.sim.fleet import RobotKeeper
from ros2_lstm_policy.sim.perturb.settings import described
from ros2_lstm_policy.sim.tasks import SimEpisode
from ros2_lstm_policy.types import Action
from tqdm import tqdm

REPORT = 'nodes.md'
TOLERANCE = 1e-6  # m, rad: commands are the actor's float32 values in float64 messages


class Ending(NamedTuple):
    """
    How an episode went.

    :param actions: (T, 7) what was commanded: m, rad, 1 for an open gripper.
    :param held: how many steps the node held, and why; empty where it held none.
    """

    success: bool
    actions: np.ndarray
    held: str = ''

    def __str__(self) -> str:
        """Return, for example, 'success, 61 steps'."""
        text = f'{"success" if self.success else "failure"}, {len(self.actions)} steps'
        return f'{text}; {self.held}' if self.held else text


class Pair(NamedTuple):
    """One episode, both ways."""

    episode: str
    by_nodes: Ending
    by_actor: Ending

    @property
    def difference(self) -> float:
        """Return the largest difference of a command, m or rad; inf where the steps differ."""
        nodes_T7, actor_T7 = self.by_nodes.actions, self.by_actor.actions
        if nodes_T7.shape != actor_T7.shape:
            return float('inf')
        return float(np.abs(nodes_T7 - actor_T7).max(initial=0.0))

    @property
    def is_same(self) -> bool:
        """Return whether both ended alike after the same commands."""
        return self.by_nodes.success == self.by_actor.success and self.difference < TOLERANCE


def check(settings: EvaluateConfig, episodes: Sequence[SimEpisode]) -> None:
    """
    Make sure that the nodes can run these episodes.

    :raises ValueError: where they cannot.
    """
    if settings.actor != 'policy':
        raise ValueError(f"the nodes run a policy; set actor=policy, found '{settings.actor}'")
    if settings.history is not None:
        raise ValueError('the policy node looks back as the policy was trained for; set '
                         f'history=null, found {settings.history!r}')
    if settings.control == 'blank':
        raise ValueError('an empty instruction stops the policy node; set control=none or swapped')
    if settings.perturb.axes:
        raise ValueError('the nodes run unchanged conditions; leave perturb out, found '
                         f'{described(settings.perturb.changed)}')
    if settings.control.startswith('state_'):
        raise ValueError('the policy node keeps its own state; set control=none or swapped, found '
                         f'{settings.control!r}')
    for episode in episodes:
        parameters.parameters_of(episode)


def run(settings: EvaluateConfig) -> Iterator[Pair]:
    """
    Run every episode both ways.

    :raises DemoError: where an episode could not be run.
    :raises ChildError: where a node ended.
    """
    episodes = settings.episodes()
    check(settings, episodes)
    by_actor = _by_actor(settings, episodes)
    for episode, by_nodes in zip(episodes, _by_nodes(settings, episodes)):
        yield Pair(episode.name, by_nodes, next(by_actor))


def _by_actor(settings: EvaluateConfig, episodes: Sequence[SimEpisode]) -> Iterator[Ending]:
    keeper = RobotKeeper(settings.image_size)
    actor = actors.make(settings.actor, settings.checkpoint, settings.execute)
    for episode in episodes:
        robot, state = keeper.reset(episode)
        done: list[Action] = []
        result = rollout(robot, state, episode, actor, episode.instruction, settings.limit,
                         lambda state, action, done=done: done.append(action))  # type: ignore
        yield Ending(result.success, _rows(done))


def _by_nodes(settings: EvaluateConfig, episodes: Sequence[SimEpisode]) -> Iterator[Ending]:
    height, width = settings.image_size
    robot, policy = nodes.simulation()
    specs = (robot.having(autostart=False, image_height=height, image_width=width),
             policy.having(checkpoint=str(settings.checkpoint.resolve()),  # type: ignore
                           execute=settings.execute))
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with Children(specs, settings.output / 'nodes') as children:
            observer = DemoObserver(policy.name, children.check)
            try:
                observer.activate()
                for episode in episodes:
                    yield _episode(settings, observer, episode)
            finally:
                observer.close()
    finally:
        rclpy.try_shutdown()


def _episode(settings: EvaluateConfig, observer: DemoObserver, episode: SimEpisode) -> Ending:
    observer.prepare(max_steps=settings.limit, **parameters.parameters_of(episode))
    record = observer.run_episode(lambda: None, lambda: None)
    return Ending(bool(record.success),
                  _rows([record.actions[stamp] for stamp in sorted(record.actions)]),
                  record.holds())


def _rows(actions: Sequence[Action]) -> np.ndarray:
    return np.array([[*action.arm, action.gripper_open > 0.5] for action in actions])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 where all episodes ended alike."""
    try:
        settings = config.from_command_line(
            EvaluateConfig, argv,
            "Run an evaluation's episodes through the nodes in lock-step, and hold them "
            "to the actor's own results.",
            'benchmark=a every=5')
        pairs = list(tqdm(run(settings), total=len(settings.episodes()), unit='episode'))
    except (ValueError, SimulatorMissingError, DemoError, ChildError) as error:
        print(f'evaluate_nodes: {error}', file=sys.stderr)
        return 1
    written = table(pairs)
    (settings.output / REPORT).write_text(written + '\n')
    print(written)
    return 0 if all(pair.is_same for pair in pairs) else 1


def table(pairs: Sequence[Pair]) -> str:
    """Return a Markdown table of all episodes."""
    lines = ['| episode | nodes | actor | largest difference | same |', '|---|---|---|---|---|']
    lines += [f'| {pair.episode} | {pair.by_nodes} | {pair.by_actor} | {pair.difference:.1e} | '
              f'{"yes" if pair.is_same else "NO"} |' for pair in pairs]
    same = sum(pair.is_same for pair in pairs)
    return '\n'.join([*lines, '', f'{same} of {len(pairs)} episodes went alike'])


if __name__ == '__main__':
    sys.exit(main())

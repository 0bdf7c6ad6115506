"""One run of the demo: start the nodes, run episodes, draw them, sum up."""

from __future__ import annotations

import sys

import rclpy
from rclpy.signals import SignalHandlerOptions
from ros2_lstm_policy.evaluation import pictures
from ros2_lstm_policy.evaluation.video import write_mp4, write_webp
from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.ros.closed_loop.observer import DemoError, DemoObserver, EpisodeRecord
from ros2_lstm_policy.ros.closed_loop.options import DemoOptions
from ros2_lstm_policy.ros.closed_loop.processes import Children
from ros2_lstm_policy.ros.closed_loop.summary import EpisodeSummary, report, summarise
from ros2_lstm_policy.ros.nodes import NodeSpec
from ros2_lstm_policy.sim.robot import CONTROL_PERIOD_S
from tqdm import tqdm

MAX_STEPS = 150


def run(options: DemoOptions, began_s: float) -> None:
    """
    Run every episode and print the summary.

    :param began_s: when the command was given, on the monotonic clock.
    :raises DemoError: where an episode could not be run.
    :raises ChildError: where a node ended.
    """
    actor, specs = _nodes(options)
    print(f'starting {" and ".join(spec.name for spec in specs)}; logs in {options.output}',
          file=sys.stderr)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with Children(specs, options.output) as children:
            observer = DemoObserver(actor, children.check)
            try:
                episodes = _episodes(options, observer, children)
            finally:
                observer.close()
    finally:
        rclpy.try_shutdown()
    first_s = observer.first_command_s
    print(report(options, episodes, float('nan') if first_s is None else first_s - began_s))


def _nodes(options: DemoOptions) -> tuple[str, tuple[NodeSpec, ...]]:
    """Return the acting node's name and all nodes."""
    if options.checkpoint is None:
        (robot,) = nodes.simulation_with_expert(options.lock_step)
        return 'expert', (robot.having(autostart=False),)
    robot, policy = nodes.simulation(options.lock_step)
    return policy.name, (robot.having(autostart=False),
                         policy.having(checkpoint=str(options.checkpoint.resolve())))


def _episodes(options: DemoOptions, observer: DemoObserver,
              children: Children) -> list[EpisodeSummary]:
    try:
        if options.checkpoint is not None:
            observer.activate()
        return [_episode(options, observer, number) for number in range(options.episodes)]
    except DemoError as error:
        words = '\n'.join(f'{name} said last:\n{children.last_words(name)}'
                          for name in children.names)
        raise DemoError(f'{error}\n{words}') from error


def _episode(options: DemoOptions, observer: DemoObserver, number: int) -> EpisodeSummary:
    observer.prepare(task=options.task, seed=options.seed + number, max_steps=MAX_STEPS,
                     instruction=options.instruction)
    with tqdm(total=MAX_STEPS, unit='step', desc=f'episode {number + 1}/{options.episodes}',
              dynamic_ncols=True) as progress:
        record = observer.run_episode(progress.unpause, progress.update)
        progress.set_postfix_str('success' if record.success else 'no success')
    return _draw(options, record, number)


def _draw(options: DemoOptions, record: EpisodeRecord, number: int) -> EpisodeSummary:
    outcome = 'success' if record.success else 'no_success'
    stem = options.output / f'episode_{number + 1:02d}_{outcome}'
    video, picture = stem.with_suffix('.mp4'), stem.with_suffix('.png')
    title = f'{record.name.partition(": ")[2]} ({outcome.replace("_", " ")})'
    shots = record.shots()
    write_mp4(video, shots, title, 1 / CONTROL_PERIOD_S)
    if options.animation:
        write_webp(stem.with_suffix('.webp'), shots, title, 1 / CONTROL_PERIOD_S)
    pictures.save(picture, pictures.contact_sheet(shots, title))
    return summarise(record, video, picture)

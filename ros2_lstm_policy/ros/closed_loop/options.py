"""What the demo is asked to do: its command line, and who acts."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
import datetime
from pathlib import Path

from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.sim import tasks
from ros2_lstm_policy.sim.tasks import SimTask

DESCRIPTION = 'The simulated robot does what it is told: a summary, a video, a picture.'
SCENE, DEFAULT_OBJECT = 'living_room_scene2', 'butter'
SHIPPED_CHECKPOINT = Path('checkpoints') / 'compact_libero'


@dataclass(frozen=True)
class DemoOptions:
    """
    What to run.

    :param checkpoint: of the acting policy; None where the expert acts.
    :param notes: what the person who runs it should know.
    """

    task: str
    instruction: str
    checkpoint: Path | None
    episodes: int
    seed: int
    lock_step: bool
    output: Path
    notes: tuple[str, ...] = ()
    animation: bool = False


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    demo = argparse.ArgumentParser(prog='demo', description=DESCRIPTION)
    demo.add_argument('--task', help='task of the simulated robot: a name of --list-tasks, or '
                      "any LIBERO task as suite/index (default: the instruction's in "
                      f'{SCENE}, else {SCENE}/{DEFAULT_OBJECT})')
    demo.add_argument('--list-tasks', action='store_true', help='list tasks by name and leave')
    demo.add_argument('--instruction', default='',
                      help="words for the robot instead of the task's own")
    demo.add_argument('--checkpoint', type=Path, help='directory of the acting policy '
                      '(default: the shipped one)')
    demo.add_argument('--actor', choices=('policy', 'expert'),
                      help='who acts (default: the policy if there is a checkpoint)')
    demo.add_argument('--episodes', type=_positive, default=1, help='default: %(default)s')
    demo.add_argument('--seed', type=int, default=0,
                      help='of the first episode; each next one has the next (default: 0)')
    pace = demo.add_mutually_exclusive_group()
    pace.add_argument('--lock-step', dest='lock_step', action='store_true', default=True,
                      help='the simulator waits for each command: reproducible (default)')
    pace.add_argument('--real-time', dest='lock_step', action='store_false',
                      help='the simulator does not wait')
    demo.add_argument('--animation', action='store_true',
                      help='write each episode as a WebP too, which plays in a README')
    demo.add_argument('--output', type=Path, help='directory for video, picture, summary and '
                      'logs (default: outputs/demo/DATE_TIME)')
    return demo


def options(given: argparse.Namespace) -> DemoOptions:
    """
    Settle the task and who acts.

    :raises ValueError: for an unknown task, or where the policy that is asked for is not there.
    """
    task = _task(given)
    stamp = datetime.datetime.now().strftime('%Y%m%d_%H%M%S')
    checkpoint, notes = given.checkpoint, []
    if given.instruction and given.instruction.strip().lower() != task.instruction:
        notes.append(f'the words are not those of {task.name} ({task.instruction!r}), which is '
                     'what success asks for')
    if given.actor == 'expert':
        if checkpoint is not None:
            raise ValueError('--checkpoint names a policy, and --actor expert needs none')
    elif checkpoint is None:
        checkpoint = nodes.share_directory() / SHIPPED_CHECKPOINT
        if not checkpoint.is_dir():
            if given.actor == 'policy':
                raise ValueError(f'no checkpoint at {checkpoint}; name one with --checkpoint (an '
                                 'untrained one is made by init_checkpoint)')
            notes.append(f'no trained checkpoint at {checkpoint}: the scripted expert acts, which '
                         'sees more than a robot can; give a policy with --checkpoint')
            checkpoint = None
    elif not checkpoint.is_dir():
        raise ValueError(f'--checkpoint {checkpoint}: there is no such directory')
    return DemoOptions(
        task=task.name, instruction=given.instruction, checkpoint=checkpoint,
        episodes=given.episodes, seed=given.seed, lock_step=given.lock_step,
        output=given.output or Path('outputs') / 'demo' / stamp, notes=tuple(notes),
        animation=given.animation)


def _task(given: argparse.Namespace) -> SimTask:
    """Return the task that is named; else the default scene's that has these words."""
    if given.task is not None:
        return tasks.find(given.task)
    of_scene = [task for task in tasks.suite('libero_90') if task.scene == SCENE]
    meant = [task for task in of_scene if task.instruction == given.instruction.strip().lower()]
    return meant[0] if meant else tasks.find(f'{SCENE}/{DEFAULT_OBJECT}')


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected 1 or more, found {value}')
    return value

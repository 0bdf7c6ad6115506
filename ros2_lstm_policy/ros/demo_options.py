"""What the demo is asked to do: its command line, and who acts."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
import datetime
from pathlib import Path

from ros2_lstm_policy.ros import nodes

DESCRIPTION = 'The simulated robot does what it is told: a summary, a video, a picture.'
SHIPPED_CHECKPOINT = Path('checkpoints') / 'compact_libero'


@dataclass(frozen=True)
class DemoOptions:
    """
    What to run.

    :param checkpoint: of the acting policy; None where the expert acts.
    :param note: what the person who runs it should know about the choice of who acts.
    """

    task: str
    instruction: str
    checkpoint: Path | None
    episodes: int
    seed: int
    lock_step: bool
    output: Path
    note: str = ''


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    demo = argparse.ArgumentParser(prog='demo', description=DESCRIPTION)
    demo.add_argument('--task', default='living_room_scene2/butter',
                      help='task of the simulated robot (default: %(default)s); any LIBERO '
                      'task as suite/index')
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
    demo.add_argument('--output', type=Path, help='directory for video, picture, summary and '
                      'logs (default: outputs/demo/DATE_TIME)')
    return demo


def options(given: argparse.Namespace) -> DemoOptions:
    """
    Settle who acts.

    :raises ValueError: where the policy that is asked for is not there.
    """
    stamp = datetime.datetime.now().strftime('%Y%m%d_%H%M%S')
    checkpoint, note = given.checkpoint, ''
    if given.actor == 'expert':
        if checkpoint is not None:
            raise ValueError('--checkpoint names a policy, and --actor expert needs none')
    elif checkpoint is None:
        checkpoint = nodes.share_directory() / SHIPPED_CHECKPOINT
        if not checkpoint.is_dir():
            note = (f'no trained checkpoint at {checkpoint}: the scripted expert acts, which sees '
                    'more than a robot can; give a policy with --checkpoint')
            if given.actor == 'policy':
                raise ValueError(f'no checkpoint at {checkpoint}; name one with --checkpoint (an '
                                 'untrained one is made by init_checkpoint)')
            checkpoint = None
    elif not checkpoint.is_dir():
        raise ValueError(f'--checkpoint {checkpoint}: there is no such directory')
    return DemoOptions(
        task=given.task, instruction=given.instruction, checkpoint=checkpoint,
        episodes=given.episodes, seed=given.seed, lock_step=given.lock_step,
        output=given.output or Path('outputs') / 'demo' / stamp, note=note)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'expected 1 or more, found {value}')
    return value

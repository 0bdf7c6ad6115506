"""Command `import_robovlms`: make a checkpoint of ours from a published RoboVLMs checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import hashlib
from pathlib import Path
import sys
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from ros2_lstm_policy.robovlms.settings import Run

TOLERANCE = 1e-5

QUESTIONS = {
    'control_period': 'seconds that one action covers (CALVIN: 0.0333)',
    'metres_per_unit': 'metres of a position delta of 1 in the data (CALVIN: 0.02; most of Open '
                       'X-Embodiment: 1)',
    'radians_per_unit': 'radians of a rotation delta of 1 in the data (CALVIN: 0.05; most of '
                        'Open X-Embodiment: 1)',
    'gripper_one': 'what a gripper label of 1 means: open or closed (CALVIN: open)',
    'frame': 'axes of the deltas: base or tool (CALVIN without tcp_rel: base)',
    'rotation': 'rotation deltas: rotation_vector or euler_xyz (CALVIN without tcp_rel: '
                'euler_xyz)',
    'statistics': 'dataset_statistics_*.json of the data, whose q01 and q99 scaled each axis '
                  '(RoboVLMs has those of Bridge and RT-1 in configs/data/oxe_dataset_stats)',
}

CARD = """# {robovlm_name}, imported from a RoboVLMs checkpoint

Made by `import_robovlms` from `{checkpoint}` (SHA-256 `{digest}`) and `{configuration}`.

- backbone: {family}; window {window}, chunk {chunk}; cameras: {cameras}
- training task: {task}
- answers: {answers}
- measured success: none by this project; see the publication of the checkpoint
"""


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(prog='import_robovlms', description=__doc__)
    made.add_argument('checkpoint', type=Path, metavar='CKPT',
                      help='the .pt or .ckpt file: torch, lightning or consolidated DeepSpeed')
    made.add_argument('configuration', type=Path, metavar='CONFIG',
                      help='the JSON configuration of the run')
    made.add_argument('--backbone', type=Path, required=True, metavar='DIR',
                      help='the model directory: config.json and tokenizer files are read')
    made.add_argument('--out', type=Path, required=True, metavar='DIR',
                      help='the checkpoint directory to make')
    about = made.add_argument_group('what the configuration does not say (asked for)')
    for name in ('control_period', 'metres_per_unit', 'radians_per_unit'):
        about.add_argument(_option(name), type=float, help=QUESTIONS[name])
    about.add_argument('--gripper-one', choices=('open', 'closed'),
                       help=QUESTIONS['gripper_one'])
    about.add_argument('--frame', choices=('base', 'tool'), help=QUESTIONS['frame'])
    about.add_argument('--rotation', choices=('rotation_vector', 'euler_xyz'),
                       help=QUESTIONS['rotation'])
    about.add_argument('--statistics', type=Path, metavar='JSON',
                       help=f'for runs on OpenVLADataset: {QUESTIONS["statistics"]}')
    made.add_argument('--verify', nargs=2, type=Path, metavar=('INPUTS.npz', 'OUTPUTS.npz'),
                      help=f'compare with recorded values; fails beyond {TOLERANCE:g}')
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    :return: 0; 1 where the values differ; 2 where something cannot be used.
    """
    options = parser().parse_args(arguments)
    from ros2_lstm_policy.robovlms import files, settings
    try:
        run = settings.parse(files.read_configuration(options.configuration),
                             options.configuration)
        unanswered = missing_answers(options, run)
        if unanswered:
            print('import_robovlms: the configuration does not say these; answer them:\n'
                  + '\n'.join(unanswered), file=sys.stderr)
            return 2
        make(options, run)
        return check(options, run) if options.verify else 0
    except (ValueError, OSError) as error:
        print(f'import_robovlms: {error}', file=sys.stderr)
        return 2


def missing_answers(options: argparse.Namespace, run: Run) -> list[str]:
    """Return a line for each question that has no answer yet."""
    from ros2_lstm_policy.robovlms.settings import OPEN_X
    known = (*(('frame', 'rotation') if run.tcp_rel else ()),
             *(() if run.data == OPEN_X else ('statistics',)))
    return [f'  {_option(name)}: {question}' for name, question in QUESTIONS.items()
            if getattr(options, name) is None and name not in known]


def make(options: argparse.Namespace, run: Run) -> None:
    """Convert and save."""
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.robovlms import convert, files, statistics
    answers = convert.Answers(
        options.control_period, options.metres_per_unit, options.radians_per_unit,
        options.gripper_one, options.frame, options.rotation,
        options.statistics and statistics.read(options.statistics))
    policy = convert.build(files.read_weights(options.checkpoint), run,
                           options.configuration, options.backbone, answers)
    checkpoint.save(options.out, policy, _card(options, run, policy))
    print(f'{options.out}: {policy.config.backbone.family}, '
          f'{sum(p.numel() for p in policy.parameters()):,} parameters, '
          f'{checkpoint.fingerprint(options.out)[:12]}')


def check(options: argparse.Namespace, run: Run) -> int:
    """Load what was saved, compare it with the recorded values, print the differences."""
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.robovlms import convert, verify
    conventions = verify.Conventions(
        convert.sign_of_arm(run), -1.0 if options.gripper_one == 'closed' else 1.0,
        run.arm_gripper_loss_ratio)
    inputs, outputs = map(verify.Recording, options.verify)
    found = verify.differences(checkpoint.load(options.out), inputs, outputs, conventions)
    print('largest difference from the reference:')
    for name, difference in found.items():
        print(f'  {name:<10} {difference:.1e}')
    agrees = all(difference <= TOLERANCE for difference in found.values())
    print(f'{"agrees" if agrees else "DIFFERS"} (limit {TOLERANCE:.0e})')
    return 0 if agrees else 1


def _card(options: argparse.Namespace, run: Run, policy: Any) -> str:
    with options.checkpoint.open('rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    answers = ', '.join(f'{_option(name)[2:]} {getattr(options, name)}' for name in QUESTIONS
                        if getattr(options, name) is not None)
    return CARD.format(
        robovlm_name=run.robovlm_name, checkpoint=options.checkpoint.name,
        digest=digest, configuration=options.configuration.name,
        family=policy.config.backbone.family, window=policy.config.decoder.window_size,
        chunk=policy.config.decoder.fwd_pred_next_n, task=f'{run.task_name} on {run.data}',
        cameras=', '.join(camera.name for camera in policy.manifest.cameras), answers=answers)


def _option(name: str) -> str:
    return '--' + name.replace('_', '-')


if __name__ == '__main__':
    sys.exit(main())

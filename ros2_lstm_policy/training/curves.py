"""
Command `curves`: a picture of a run's curves, from the CSV files of all its parts.

    ros2 run ros2_lstm_policy curves runs/compact     # writes runs/compact/curves.png
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import csv
from pathlib import Path
import sys

PICTURE = 'curves.png'
_PANELS = (('arm loss', 'loss_arm', 'val_arm'), ('gripper loss', 'loss_gripper', 'val_gripper'),
           ('gripper accuracy', 'gripper_accuracy', 'val_gripper_accuracy'),
           ('swap ratio', '', 'val_swap_ratio'), ('learning rate', 'lr', ''))
_AUXILIARY = ('kl', 'forward_static', 'forward_hand', 'caption', 'cotrain')


def read(run: Path) -> list[dict[str, float]]:
    """
    Return all rows of a run, in order; a row has only the values that were logged at its step.

    :raises ValueError: where there are none.
    """
    rows = []
    for path in sorted(run.glob('logs/part_*/metrics.csv'), key=_part):
        with path.open() as file:
            rows += [{name: float(value) for name, value in row.items() if value}
                     for row in csv.DictReader(file)]
    if not rows:
        raise ValueError(f'{run}: expected curves in logs/part_*/metrics.csv, found none')
    return rows


def _part(path: Path) -> int:
    return int(path.parent.name.removeprefix('part_'))


def picture(rows: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """Plot training and validation against the optimiser step."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    known = {name for row in rows for name in row}
    panels = list(_PANELS) + [(f'{name} loss', f'loss_{name}', f'val_{name}')
                              for name in _AUXILIARY if f'loss_{name}' in known]
    figure, axes = pyplot.subplots((len(panels) + 2) // 3, 3, figsize=(12, 6), squeeze=False)
    for (name, training, validation), panel in zip(panels, axes.flat):
        for column, label, style in ((training, 'training', '-'),
                                     (validation, 'held-out episodes', 'o-')):
            points = [(row['step'], row[column]) for row in rows if column in row]
            if points:
                panel.plot(*zip(*points), style, label=label, linewidth=1, markersize=3)
        panel.set_title(name)
        panel.set_xlabel('optimiser step')
        panel.grid(alpha=0.3)
        if 'loss' in name:
            panel.set_yscale('log')
    axes.flat[0].legend()
    for panel in axes.flat[len(panels):]:
        panel.axis('off')
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog='curves', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, help='output directory of a run')
    run = parser.parse_args(arguments).run
    try:
        picture(read(run), run / PICTURE, str(run))
    except ValueError as error:
        print(f'curves: {error}', file=sys.stderr)
        return 2
    print(run / PICTURE)
    return 0


if __name__ == '__main__':
    sys.exit(main())

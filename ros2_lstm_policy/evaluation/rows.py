"""
Finished evaluations as the rows of a comparison: one policy a row, one benchmark a column.

Rows of one name are repetitions, such as training seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ros2_lstm_policy.evaluation import runs
from ros2_lstm_policy.evaluation.intervals import exact_mcnemar
from ros2_lstm_policy.evaluation.report import success_rate
from ros2_lstm_policy.evaluation.runs import Run
from ros2_lstm_policy.sim.resumable import SETTINGS

WHO = ('actor', 'checkpoint_fingerprint', 'execute', 'history')


@dataclass(frozen=True)
class Row:
    """
    One policy's evaluations.

    :param name: what it is; repetitions share it.
    :param label: what tells it from all other rows.
    :param runs: by benchmark.
    """

    name: str
    label: str
    runs: Mapping[str, Run]

    @property
    def act_ms(self) -> float:
        """Return the median of the episodes' median decisions."""
        return float(np.median([r.act_ms for run in self.runs.values() for r in run.results]))


class Paired(NamedTuple):
    """
    One row against another on the episodes that both ran.

    :param won: episodes that only the row succeeded in.
    :param lost: episodes that only the other succeeded in.
    """

    won: int
    lost: int
    episodes: int

    @property
    def p(self) -> float:
        """Return the two-sided p-value of the exact McNemar test."""
        return exact_mcnemar(self.won, self.lost)


class Spread(NamedTuple):
    """
    Shares of success of repetitions, 0 to 1.

    :param deviation: sample standard deviation.
    """

    mean: float
    deviation: float
    low: float
    high: float
    repetitions: int


def read(arguments: Sequence[str]) -> list[Row]:
    """
    Read rows.

    :param arguments: `[NAME=]FOLDER[,FOLDER ...]`, where a folder is an evaluation's, or holds
        such folders; without a name, the first folder's. Evaluations under a control, with other
        words or under changed conditions get a row of their own.
    :raises ValueError: for what is no evaluation, and for evaluations that do not go together.
    """
    found = [(name, of) for argument in arguments for name, of in _named_runs(argument)]
    repeated, count = Counter(name for name, _ in found), Counter[str]()
    rows = []
    for name, of in found:
        count[name] += 1
        label = f'{name} {count[name]}' if repeated[name] > 1 else name
        rows.append(Row(name, label, _by_benchmark(label, of)))
    _check_horizons(rows)
    return rows


def benchmarks(rows: Sequence[Row]) -> list[str]:
    """Return the benchmarks of any row, a, b and c before others."""
    names = {name for row in rows for name in row.runs}
    return sorted(names, key=lambda name: (len(name) > 1, name))


def paired(row: Row, other: Row, benchmark: str) -> Paired | None:
    """Compare two rows episode by episode; None where they share none."""
    if benchmark not in row.runs or benchmark not in other.runs:
        return None
    ours, theirs = ({r.episode: r.success for r in each.runs[benchmark].results}
                    for each in (row, other))
    both = [(ours[name], theirs[name]) for name in ours if name in theirs]
    if not both:
        return None
    return Paired(both.count((True, False)), both.count((False, True)), len(both))


def spread(rows: Sequence[Row], benchmark: str) -> Spread | None:
    """Return mean and spread of repetitions; None where fewer than two ran the benchmark."""
    shares = [success_rate(row.runs[benchmark].results).share
              for row in rows if benchmark in row.runs]
    if len(shares) < 2:
        return None
    return Spread(float(np.mean(shares)), float(np.std(shares, ddof=1)), min(shares), max(shares),
                  len(shares))


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group repetitions."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.name, []).append(row)
    return groups


def _named_runs(argument: str) -> list[tuple[str, list[Run]]]:
    """Return one named group of runs for each variant of an argument."""
    name, separator, folders = argument.partition('=')
    paths = [Path(text) for text in (folders if separator else argument).split(',')]
    found = [runs.read(path) for folder in paths for path in _evaluations(folder)]
    groups: dict[str, list[Run]] = {}
    for run in found:
        suffix = f', {run.variant}' if run.variant else ''
        groups.setdefault((name if separator else paths[0].stem) + suffix, []).append(run)
    return list(groups.items())


def _evaluations(path: Path) -> list[Path]:
    """Return the evaluation itself, or those that a folder holds."""
    if not path.is_dir() or (path / SETTINGS).exists() or (path / runs.REPORT).exists():
        return [path]
    inside = sorted(folder.parent for folder in path.glob(f'*/{SETTINGS}'))
    if not inside:
        raise ValueError(f'{path}: neither an evaluation nor a folder of evaluations')
    return inside


def _by_benchmark(label: str, of: Sequence[Run]) -> dict[str, Run]:
    found: dict[str, Run] = {}
    for run in of:
        other = found.setdefault(run.benchmark, run)
        if other is not run:
            raise ValueError(f'{label}: benchmark {run.benchmark} twice: {other.path} and '
                             f'{run.path}; give each a row: NAME=FOLDER NAME=FOLDER')
        for key in WHO:
            if run.settings.get(key) != of[0].settings.get(key):
                raise ValueError(f'{label}: {key} is {of[0].settings.get(key)} in {of[0].path} '
                                 f'and {run.settings.get(key)} in {run.path}; one row is one '
                                 'policy')
    return found


def _check_horizons(rows: Sequence[Row]) -> None:
    """Refuse to compare successes that had different times."""
    first: dict[str, Run] = {}
    for run in (run for row in rows for run in row.runs.values()):
        other = first.setdefault(run.benchmark, run)
        if run.settings.get('horizon') != other.settings.get('horizon'):
            raise ValueError(f'{run.path}: horizon {run.settings.get("horizon")}, but '
                             f'{other.settings.get("horizon")} in {other.path}')

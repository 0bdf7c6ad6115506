"""
What an evaluation keeps in its folder, and how it is read again.

`settings.yaml` and `episodes.jsonl` grow while it runs; `report.json` has all when it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from ros2_lstm_policy.evaluation.rollout import Result
from ros2_lstm_policy.sim import fleet
from ros2_lstm_policy.sim.perturb.settings import described
from ros2_lstm_policy.sim.resumable import open_ledger
from ros2_lstm_policy.sim.tasks import SimEpisode

EPISODES = 'episodes.jsonl'
REPORT = 'report.json'


@dataclass(frozen=True)
class Run:
    """
    One finished evaluation.

    :param path: its report.
    :param settings: how it was measured, as plain values.
    :param results: one an episode, in the benchmark's order.
    """

    path: Path
    settings: Mapping[str, Any]
    results: tuple[Result, ...]

    @property
    def benchmark(self) -> str:
        """Return which episodes were run."""
        return str(self.settings['benchmark'])

    @property
    def control(self) -> str:
        """Return what was said instead of the truth."""
        return str(self.settings['control'])

    @property
    def variant(self) -> str:
        """Return how it differs from the benchmark as it stands; empty where it does not."""
        told = [self.control] if self.control != 'none' else []
        words = self.settings.get('words', 'suite')
        told += [f'words of the {words}'] if words != 'suite' else []
        changed = self.settings.get('perturb')
        told += [f'perturbed: {described(changed)}'] if changed else []
        return ', '.join(told)


def complete(folder: Path, settings: Mapping[str, Any], episodes: Sequence[SimEpisode],
             make_worker: Callable[[], fleet.Work[Result]], processes: int) -> list[Result]:
    """
    Run the episodes whose results the folder lacks; return all results, in the episodes' order.

    :param settings: what decides the results, as plain values; the folder keeps to them.
    :param make_worker: called once in each process, as :func:`fleet.run` does.
    :raises ValueError: as :func:`open_ledger` does.
    """
    with open_ledger(folder, EPISODES, Result, settings) as ledger:
        known = {result.episode for result in ledger.records}
        rest = [episode for episode in episodes if episode.name not in known]
        ledger.run(rest, len(episodes), make_worker, processes)
        results = {result.episode: result for result in ledger.records}
    return [results[episode.name] for episode in episodes]


def read(path: Path) -> Run:
    """
    Read a finished evaluation.

    :param path: its folder or its report.
    :raises ValueError: where there is none that can be read.
    """
    report = path / REPORT if path.is_dir() else path
    try:
        values = json.loads(report.read_text())
        results = tuple(from_row(row) for row in values['episodes'])
        settings = values['settings']
        return Run(report, {key: settings[key] for key in ('benchmark', 'control')} | settings,
                   results)
    except OSError as error:
        raise ValueError(f'{path}: no finished evaluation: {report.name} cannot be read '
                         f'({error.strerror}); run evaluate with the same settings to its end'
                         ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{report}: is no report of evaluate that has its episodes ({error!r}); '
                         'run evaluate again, into another folder where this one is of another '
                         'version') from error


def row(result: Result) -> dict[str, Any]:
    """Return a result as plain values."""
    return dataclasses.asdict(result)


def from_row(values: Mapping[str, Any]) -> Result:
    """Return the result of plain values."""
    return Result(**{**values, 'lifted': tuple(values['lifted']),
                     'changes': tuple(values.get('changes', ()))})

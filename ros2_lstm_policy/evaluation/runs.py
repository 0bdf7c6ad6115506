"""
What an evaluation keeps in its folder, and how it is read again.

`settings.yaml` and `episodes.jsonl` grow while it runs; `report.json` has all when it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from ros2_lstm_policy.evaluation.rollout import Result
from ros2_lstm_policy.sim import fleet
from ros2_lstm_policy.sim.tasks import SimEpisode
from tqdm import tqdm
import yaml

EPISODES = 'episodes.jsonl'
SETTINGS = 'settings.yaml'
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


def complete(folder: Path, settings: Mapping[str, Any], episodes: Sequence[SimEpisode],
             make_worker: Callable[[], fleet.Work[Result]], processes: int) -> list[Result]:
    """
    Run the episodes whose results the folder lacks; return all results, in the episodes' order.

    :param settings: what decides the results, as plain values; the folder keeps to them.
    :param make_worker: called once in each process, as :func:`fleet.run` does.
    :raises ValueError: where the folder was begun with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep_settings(folder, settings)
    results = {result.episode: result for result in read_lines(folder)}
    rest = [episode for episode in episodes if episode.name not in results]
    with open(folder / EPISODES, 'a') as lines, \
            tqdm(total=len(episodes), initial=len(episodes) - len(rest), unit='episode') as bar, \
            contextlib.closing(fleet.run(rest, make_worker, processes)) as found:
        for result in found:
            lines.write(json.dumps(row(result)) + '\n')
            lines.flush()
            results[result.episode] = result
            succeeded = sum(each.success for each in results.values())
            bar.set_postfix_str(f'{succeeded} of {len(results)} succeeded')
            bar.update()
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


def read_lines(folder: Path) -> list[Result]:
    """Return the results so far of a folder; a line that a crash cut off is taken away."""
    path = folder / EPISODES
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[:text.rfind('\n') + 1]
    if whole != text:
        path.write_text(whole)
    return [from_row(json.loads(line)) for line in whole.splitlines()]


def row(result: Result) -> dict[str, Any]:
    """Return a result as plain values."""
    return dataclasses.asdict(result)


def from_row(values: Mapping[str, Any]) -> Result:
    """Return the result of plain values."""
    return Result(**{**values, 'lifted': tuple(values['lifted'])})


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """
    Write the settings into a new folder, or hold an old one to its own.

    :raises ValueError: where it was begun with others.
    """
    path = folder / SETTINGS
    if not path.exists():
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
        return
    found = yaml.safe_load(path.read_text())
    if found != settings:
        differ = [key for key in {**found, **settings} if found.get(key) != settings.get(key)]
        pairs = ', '.join(f'{key} {found.get(key)!r} (now {settings.get(key)!r})'
                          for key in differ)
        raise ValueError(f'{folder}: was begun with other settings; give another output. '
                         f'There: {pairs}')

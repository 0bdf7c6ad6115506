"""Which of a benchmark's episodes `every=N` leaves out, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ros2_lstm_policy.sim.tasks import SimEpisode

NAMED_AT_MOST = 5


def left_out(episodes: Sequence[SimEpisode], run: Sequence[SimEpisode]) -> str:
    """
    Say what is not run.

    :param episodes: the benchmark's.
    :param run: those of them that are run.
    :return: one line; empty where all are run.
    """
    if len(run) == len(episodes):
        return ''
    of_all, of_run = _by_task(episodes), _by_task(run)
    parts = [f'{len(run)} of {len(episodes)} episodes are run', _beginnings(of_all, of_run)]
    if absent := [name for name in of_all if name not in of_run]:
        more = ', ...' if len(absent) > NAMED_AT_MOST else ''
        parts.append(f'NOT RUN AT ALL: {len(absent)} of {len(of_all)} tasks '
                     f'({", ".join(absent[:NAMED_AT_MOST])}{more})')
    return '; '.join(parts)


def _by_task(episodes: Sequence[SimEpisode]) -> dict[str, list[SimEpisode]]:
    """Group episodes that ask for the same: their names are alike but for the last part."""
    groups: dict[str, list[SimEpisode]] = {}
    for episode in episodes:
        groups.setdefault(episode.name.rpartition('/')[0], []).append(episode)
    return groups


def _beginnings(of_all: dict[str, list[SimEpisode]], of_run: dict[str, list[SimEpisode]]) -> str:
    most = max(map(len, of_all.values()))
    states = {tuple(episode.official_state for episode in of) for of in of_run.values()}
    if len(states) == 1 and None not in (only := next(iter(states))):
        return (f'of each task that is run, official state{"s" if len(only) > 1 else ""} '
                f'{", ".join(map(str, only))} of {most}')
    fewest, largest = min(map(len, of_run.values())), max(map(len, of_run.values()))
    count = f'{fewest}' if fewest == largest else f'{fewest} to {largest}'
    return f'of each task that is run, {count} of {most} beginnings'

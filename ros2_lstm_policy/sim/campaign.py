"""
Recording many episodes into one folder: in parallel, resumable, with an account of every one.

A folder holds one bag an episode, `outcomes.jsonl` with a line for each episode that was run, kept
or not, and the settings that it was begun with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ros2_lstm_policy.data.rosbag.writer import set_aside, set_aside_unfinished
from ros2_lstm_policy.sim import benchmarks, fleet
from ros2_lstm_policy.sim.demonstration import Outcome
from ros2_lstm_policy.sim.memory.catalogue import check_gap
from ros2_lstm_policy.sim.resumable import open_ledger
from ros2_lstm_policy.sim.tasks import SimEpisode

OUTCOMES = 'outcomes.jsonl'
_SAMPLERS: Mapping[str, Callable[[int], SimEpisode]] = {
    'a': benchmarks.training_a, 'b': benchmarks.training_b, 'c': benchmarks.training_c,
    'lift': benchmarks.training_lift}


@dataclass(frozen=True)
class EpisodeCounts:
    """
    How many training episodes like those of each benchmark; never one of its own.

    :param a: one scene, five instructions, own places.
    :param b: one scene, seven objects in permuted places.
    :param c: 24 tasks in 13 scenes.
    :param lift: two arms that lift a pot.
    :param m1: memory: the object that was shown.
    :param m2: memory: put the butter back to where it came from.
    :param m3: memory: the bowl to where the butter was.
    :param m4: memory: count the lifts of a bowl, and stop.
    :param m5: memory: a can into two baskets in turn.
    :param m6: memory: wait for five or ten seconds.
    :param gap_s: shortest and longest gap of memory tasks, in s: its logarithm is uniform between
        theirs.
    :param first: number of the first of each; a second folder that begins where the first one
        ended holds other episodes.
    """

    a: int = 0
    b: int = 0
    c: int = 0
    lift: int = 0
    m1: int = 0
    m2: int = 0
    m3: int = 0
    m4: int = 0
    m5: int = 0
    m6: int = 0
    gap_s: tuple[float, float] = benchmarks.GAP
    first: int = 0

    def __post_init__(self) -> None:
        """Refuse negative counts, none at all, and episodes that are validation's."""
        counts = self._counts()
        if min(*counts.values(), self.first) < 0 or not any(counts.values()):
            said = ', '.join(f'{name} {count}' for name, count in counts.items() if count)
            raise ValueError('expected counts that are not negative, of which at least one is '
                             f'positive, found {said or "none"}, first {self.first}')
        benchmarks.check_training(self.first + max(counts.values()) - 1)
        check_gap(self.gap_s)

    def episodes(self) -> list[SimEpisode]:
        """Return the episodes."""
        return [self._sample(name, self.first + i)
                for name, count in self._counts().items() for i in range(count)]

    def gaps(self) -> dict[str, Any]:
        """Return how long gaps are, where episodes have any: what their folder keeps to."""
        with_gaps = any(count for name, count in self._counts().items() if name not in _SAMPLERS)
        return {'gap_s': self.gap_s} if with_gaps else {}

    def _counts(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in fields(self)
                if f.name not in ('gap_s', 'first')}

    def _sample(self, name: str, index: int) -> SimEpisode:
        if name in _SAMPLERS:
            return _SAMPLERS[name](index)
        return benchmarks.training_memory(name, index, self.gap_s)


def bag_name(episode: SimEpisode) -> str:
    """Return the name of an episode's bag: its own, as one folder name."""
    return episode.name.replace('/', '-').replace(' ', '_')


def record_one(keeper: fleet.RobotKeeper, episode: SimEpisode,
               record: Callable[[fleet.Robot, fleet.State], Outcome]) -> Outcome:
    """Record an episode from its beginning; one that cannot begin is an outcome, too."""
    try:
        robot, state = keeper.reset(episode)
    except ValueError as error:  # the objects do not fit into their drawn places
        return Outcome(bag_name(episode), episode.name, episode.instruction, False, False, 0,
                       str(error))
    return record(robot, state)


def record_all(output: Path, episodes: Sequence[SimEpisode], settings: Mapping[str, Any],
               make_worker: Callable[[], fleet.Work[Outcome]], processes: int) -> list[Outcome]:
    """
    Record the episodes that the folder lacks.

    :param settings: all that decides what an episode holds; the folder keeps to them.
    :return: outcomes of all episodes of the folder.
    :raises ValueError: as :func:`open_ledger` does.
    """
    with open_ledger(output, OUTCOMES, Outcome, settings) as ledger:
        set_aside_unfinished(output)
        known = {outcome.name for outcome in ledger.records}
        rest = [episode for episode in episodes if bag_name(episode) not in known]
        for bag in (output / bag_name(episode) for episode in rest):
            if bag.exists():  # all was ended between the bag and its line
                set_aside(output, bag)
        ledger.run(rest, len(episodes), make_worker, processes)
        return ledger.records


def account(outcomes: Sequence[Outcome]) -> str:
    """Say in a table how many episodes of each instruction were run, succeeded and are kept."""
    by_instruction: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_instruction.setdefault(outcome.instruction, []).append(outcome)
    rows = [('instruction', 'run', 'succeeded', 'kept', 'steps')]
    for instruction, of in [*sorted(by_instruction.items()), ('all', list(outcomes))]:
        rows.append((instruction, str(len(of)), str(sum(o.success for o in of)),
                     str(sum(o.kept for o in of)), str(sum(o.steps for o in of if o.kept))))
    width = max(len(row[0]) for row in rows)
    lines = [f'{row[0]:<{width}} ' + ' '.join(f'{cell:>9}' for cell in row[1:]) for row in rows]
    notes = [f'{o.episode}: {o.note}' for o in outcomes if o.note]
    return '\n'.join(lines + notes)

"""What a set of recordings holds, gathered episode by episode, as a table and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TYPE_CHECKING

import numpy as np
from ros2_lstm_policy.data.episodes import Reading
from ros2_lstm_policy.data.problems import Problem
from ros2_lstm_policy.manifest import ActionGroup, StateSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

_NS = 1_000_000_000
_LONGEST_LIST = 30
_DRAWN_GRIPPERS = 40
_DRAWN_EPISODES, _DRAWN_OF_ONE = 9, 3
_IMAGES_A_ROW = 6
_VALUES_A_ROW = 3
_NO_MOTION = 1e-4  # m, rad and so on: a histogram that is narrower shows rounding


@dataclass(frozen=True)
class EpisodeSummary:
    """
    One episode in numbers.

    :param length: steps T.
    :param groups: what its actions are.
    :param actions: group name to (T, size).
    :param states: state name to (T, size).
    :param camera_hz: camera to its own rate, where the recording says it.
    :param first_images: camera to its first image, where they are to be drawn.
    :param specs: what its states are.
    """

    name: str
    instruction: str
    period_s: float
    success: bool | None
    length: int
    groups: tuple[ActionGroup, ...]
    actions: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray]
    camera_hz: dict[str, str]
    actor: str
    first_images: dict[str, np.ndarray]
    specs: tuple[StateSpec, ...] = ()

    @classmethod
    def of(cls, reading: Reading, with_images: bool) -> EpisodeSummary:
        """Summarise an episode, with the first image of each camera or without."""
        episode, facts = reading.episode, reading.facts
        steps_ns = np.diff(episode.stamps_ns)
        period_s = float(np.median(steps_ns)) / _NS if len(steps_ns) else float('nan')
        rates = {key.removesuffix('_hz'): value for key, value in facts.items()
                 if key.endswith('_hz')}
        return cls(episode.name, episode.instruction, period_s, episode.success, len(episode),
                   reading.groups, episode.actions, episode.states, rates, facts.get('actor', ''),
                   {camera: frames[0] for camera, frames in episode.frames.items()
                    if with_images}, reading.states)


class Column(NamedTuple):
    """
    One number of every step.

    :param title: its name and unit.
    :param values: (F,).
    :param kind: the same for those that are drawn on one scale.
    """

    title: str
    values: np.ndarray
    kind: tuple[str, str]


@dataclass(frozen=True)
class DatasetSummary:
    """
    A set of recordings.

    :param problems: what `validate` finds without decoding images.
    :param broken: how many recordings could not be read.
    :param others: names of what the recordings hold that nothing is read from.
    """

    path: Path
    episodes: tuple[EpisodeSummary, ...]
    problems: tuple[Problem, ...]
    broken: int
    others: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[ActionGroup, ...]:
        """Return what the actions are: the same for all, since it was asked for."""
        return self.episodes[0].groups

    def action(self, name: str) -> np.ndarray:
        """Return all values (F, size) of a group."""
        return np.concatenate([episode.actions[name] for episode in self.episodes])

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """Return what the states are, likewise."""
        return self.episodes[0].specs

    def state(self, name: str) -> np.ndarray:
        """Return all values (F, size) of a state."""
        return np.concatenate([episode.states[name] for episode in self.episodes])

    @property
    def begins(self) -> np.ndarray:
        """Return whether a step is the first of its episode, (F,) bool."""
        return np.concatenate([np.arange(episode.length) == 0 for episode in self.episodes])

    def columns(self) -> list[Column]:
        """Return every continuous value of the actions, then of the states."""
        moving = [group for group in self.groups if not group.binary]
        several = len(moving) > 1 or self.states
        found = [Column(f'{group.name} ' * bool(several) + axis + f' [{unit}]' * bool(unit),
                        values, (group.name, unit))
                 for group in moving for axis, unit, values
                 in zip(group.axes, group.units, self.action(group.name).T)]
        for state in self.states:
            found += [Column(f'{state.name} {axis}', values, (state.name, ''))
                      for axis, values in zip(state.axes, self.state(state.name).T)]
        return found

    def table(self, every_episode: bool) -> str:
        """Return the table for people."""
        if not self.episodes:
            return f'{self.path}: no episode can be read; {self.broken} are broken'
        lengths = np.array([episode.length for episode in self.episodes])
        seconds = sum(e.length * e.period_s for e in self.episodes if e.length > 1)
        rates = [f'control rate: {_rates(1 / e.period_s for e in self.episodes)} Hz',
                 *self._camera_rates()]
        outcomes = _counts(_label(e.success) for e in self.episodes)
        actors = _counts(e.actor or 'not said' for e in self.episodes)
        lines = [
            (f'{self.path}: {len(self.episodes)} episodes, {lengths.sum()} steps, '
             f'{seconds / 60:.1f} min; {self.broken} broken'),
            (f'steps an episode: {lengths.min()} to {lengths.max()}, median '
             f'{np.median(lengths):g}'),
            '; '.join(rates), f'outcome: {outcomes}; actor: {actors}', '',
            *self._actions(), '', *self._instructions()]
        if self.others:
            lines += ['', unread_said(self.others)]
        if every_episode:
            lines += ['', *self._episodes()]
        return '\n'.join(lines)

    def _camera_rates(self) -> list[str]:
        cameras = sorted({camera for e in self.episodes for camera in e.camera_hz})
        return [f'{camera} camera: ' + _rates(
            float(e.camera_hz[camera]) for e in self.episodes if camera in e.camera_hz) + ' Hz'
            for camera in cameras]

    def _actions(self) -> list[str]:
        columns = self.columns()
        values = np.stack([column.values for column in columns], 1)
        shown = {'min': values.min(0), '1 %': np.quantile(values, 0.01, 0),
                 'median': np.median(values, 0), '99 %': np.quantile(values, 0.99, 0),
                 'max': values.max(0), 'zero': (values == 0).mean(0)}
        width = max(10, *(len(column.title) for column in columns))
        lines = [f'{"value":{width}}' + ''.join(f'{name:>10}' for name in shown)]
        for place, column in enumerate(columns):
            cells = [f'{each[place]:10.4f}' for each in list(shown.values())[:-1]]
            lines.append(f'{column.title:{width}}' + ''.join(cells)
                         + f'{shown["zero"][place]:10.1%}')
        for group in self.groups:
            if group.binary:
                changes = sum(int(np.abs(np.diff(e.actions[group.name], axis=0)).sum())
                              for e in self.episodes)
                lines.append(f'{group.name} open {self.action(group.name).mean():.1%} of the '
                             f'time, {changes / len(self.episodes):.1f} changes an episode')
        return lines

    def _instructions(self) -> list[str]:
        counts = Counter(episode.instruction for episode in self.episodes)
        lines = [f'{count:6}  {words}' for words, count in counts.most_common(_LONGEST_LIST)]
        if len(counts) > _LONGEST_LIST:
            lines.append(f'        and {len(counts) - _LONGEST_LIST} more')
        return [f'{len(counts)} instructions', *lines]

    def _episodes(self) -> list[str]:
        width = max(len(episode.name) for episode in self.episodes)
        return [f'{"episode":{width}}  steps   rate  outcome   instruction', *(
            f'{e.name:{width}} {e.length:6} {1 / e.period_s:6.1f}  {_label(e.success):8}  '
            f'{e.instruction}' for e in self.episodes)]


class Drawn:
    """Chooses the episodes whose first images are drawn: some of every instruction."""

    def __init__(self) -> None:
        """Choose none yet."""
        self._counts: Counter[str] = Counter()

    def wants(self, instruction: str) -> bool:
        """Return whether another episode of these words is to be drawn."""
        wanted = (self._counts[instruction] < _DRAWN_OF_ONE
                  and (instruction in self._counts or len(self._counts) < _DRAWN_EPISODES))
        self._counts[instruction] += 1
        return wanted


def unread_said(others: Iterable[str]) -> str:
    """Say what of the recordings nothing is read from."""
    return f'not read, since an episode has no place for it: {", ".join(others)}'


def drawn_episodes(episodes: Sequence[EpisodeSummary]) -> list[EpisodeSummary]:
    """Return the episodes to draw: one of each instruction first, then further ones."""
    seen: Counter[str] = Counter()
    ranked = []
    for number, episode in enumerate(episodes):
        if episode.first_images:
            ranked.append((seen[episode.instruction], number, episode))
            seen[episode.instruction] += 1
    most = max(_DRAWN_OF_ONE, min(_DRAWN_EPISODES, len(seen)))
    return [episode for *_, episode in sorted(ranked, key=lambda item: item[:2])][:most]


def histogram_bins(columns: Sequence[Column], column: Column) -> list[float]:
    """Return the edges for a column, as wide as the widest of its kind and never only rounding."""
    alike = [other.values for other in columns if other.kind == column.kind]
    limit = max(float(np.abs(np.concatenate(alike)).max()), _NO_MOTION)
    return np.linspace(-limit, limit, 62).tolist()


def draw(summary: DatasetSummary, png: Path) -> None:
    """Draw first images, lengths, instructions, the histogram of each action and the gripper."""
    from matplotlib.figure import Figure
    images = _images(summary.episodes)
    rows = max(1, -(-len(images) // _IMAGES_A_ROW))
    columns = summary.columns()
    value_rows = -(-len(columns) // _VALUES_A_ROW)
    figure = Figure(figsize=(12, 6 + 2 * (value_rows + rows)), layout='constrained')
    grid = figure.add_gridspec(2 + value_rows + rows, _IMAGES_A_ROW)
    _draw_images(figure, grid, images)
    lengths = figure.add_subplot(grid[rows, :2])
    lengths.hist([episode.length for episode in summary.episodes], bins=30)
    lengths.set(title=f'{len(summary.episodes)} episodes', xlabel='steps', ylabel='episodes')
    _draw_instructions(figure.add_subplot(grid[rows, 2:]), summary.episodes)
    for number, column in enumerate(columns):
        place = 2 * (number % _VALUES_A_ROW)
        plot = figure.add_subplot(grid[rows + 1 + number // _VALUES_A_ROW, place:place + 2])
        plot.hist(column.values, bins=histogram_bins(columns, column), log=True)
        plot.set(xlabel=column.title, ylabel='steps')
        plot.locator_params('x', nbins=5)
    _draw_grippers(figure.add_subplot(grid[rows + 1 + value_rows, :]), summary)
    figure.savefig(png, dpi=110)


def _draw_grippers(plot: Axes, summary: DatasetSummary) -> None:
    names = [group.name for group in summary.groups if group.kind == 'gripper']
    for number, episode in enumerate(summary.episodes[:_DRAWN_GRIPPERS]):
        for name in names:
            plot.step(np.arange(episode.length), episode.actions[name][:, 0] * 0.8 + number,
                      lw=0.8, where='post')
    plot.set(xlabel='step', ylabel='episode', title='gripper: closed low, open high')


def _images(episodes: Sequence[EpisodeSummary]) -> list[tuple[str, np.ndarray]]:
    """Return the first image of each camera with its title."""
    return [(f'{camera}, {episode.name}\n{episode.instruction}', image)
            for episode in drawn_episodes(episodes)
            for camera, image in episode.first_images.items()]


def _draw_images(figure: Figure, grid: GridSpec,
                 images: Sequence[tuple[str, np.ndarray]]) -> None:
    """Draw them: an upside-down or swapped camera shows here."""
    for number, (title, image) in enumerate(images):
        plot = figure.add_subplot(grid[number // _IMAGES_A_ROW, number % _IMAGES_A_ROW])
        plot.imshow(image)
        plot.set_title('\n'.join(line if len(line) <= 26 else line[:23] + '...'
                                 for line in title.split('\n')), fontsize=7)
        plot.axis('off')


def _draw_instructions(plot: Axes, episodes: Sequence[EpisodeSummary]) -> None:
    counts = Counter(episode.instruction for episode in episodes).most_common(10)[::-1]
    plot.barh(range(len(counts)), [count for _, count in counts], color='lightsteelblue')
    for row, (text, _) in enumerate(counts):
        plot.text(0, row, ' ' + (text if len(text) <= 80 else text[:77] + '...'), va='center',
                  fontsize=8)
    plot.set(title='instructions', xlabel='episodes', yticks=[])


def _label(success: bool | None) -> str:
    return {True: 'success', False: 'failure', None: 'no label'}[success]


def _counts(labels: Iterable[str]) -> str:
    return ', '.join(f'{count} {label}' for label, count in Counter(labels).most_common())


def _rates(rates: Iterable[float]) -> str:
    values = np.array([rate for rate in rates if np.isfinite(rate)])
    if not len(values):
        return 'unknown'
    low, high = values.min(), values.max()
    return f'{low:.1f}' if high - low < 0.05 else f'{low:.1f} to {high:.1f}'

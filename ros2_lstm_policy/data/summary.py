"""What a set of recordings holds, gathered episode by episode, as a table and as a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ros2_lstm_policy.data.episodes import Reading
from ros2_lstm_policy.data.problems import Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

AXES = ('x [m]', 'y [m]', 'z [m]', 'rx [rad]', 'ry [rad]', 'rz [rad]')
_NS = 1_000_000_000
_LONGEST_LIST = 30
_DRAWN_GRIPPERS = 40
_DRAWN_EPISODES, _DRAWN_OF_ONE = 9, 3
_IMAGES_A_ROW = 6
_NO_MOTION = 1e-4  # m or rad: a histogram that is narrower shows rounding


@dataclass(frozen=True)
class EpisodeSummary:
    """
    One episode in numbers.

    :param arm: (T, 6), m and rad.
    :param gripper_open: (T,).
    :param camera_hz: camera to its own rate, where the recording says it.
    :param first_images: camera to its first image, where they are to be drawn.
    """

    name: str
    instruction: str
    period_s: float
    success: bool | None
    arm: np.ndarray
    gripper_open: np.ndarray
    camera_hz: dict[str, str]
    actor: str
    first_images: dict[str, np.ndarray]

    @classmethod
    def of(cls, reading: Reading, with_images: bool) -> EpisodeSummary:
        """Summarise an episode, with the first image of each camera or without."""
        episode, facts = reading.episode, reading.facts
        steps_ns = np.diff(episode.stamps_ns)
        period_s = float(np.median(steps_ns)) / _NS if len(steps_ns) else float('nan')
        rates = {key.removesuffix('_hz'): value for key, value in facts.items()
                 if key.endswith('_hz')}
        return cls(episode.name, episode.instruction, period_s, episode.success, episode.arm,
                   episode.gripper_open, rates, facts.get('actor', ''),
                   {camera: frames[0] for camera, frames in episode.frames.items()
                    if with_images})


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
    def arm(self) -> np.ndarray:
        """Return all deltas (F, 6)."""
        return np.concatenate([episode.arm for episode in self.episodes])

    def table(self, every_episode: bool) -> str:
        """Return the table for people."""
        if not self.episodes:
            return f'{self.path}: no episode can be read; {self.broken} are broken'
        lengths = np.array([len(episode.arm) for episode in self.episodes])
        seconds = sum(len(e.arm) * e.period_s for e in self.episodes if len(e.arm) > 1)
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
        arm = self.arm
        columns = {'min': arm.min(0), '1 %': np.quantile(arm, 0.01, 0),
                   'median': np.median(arm, 0), '99 %': np.quantile(arm, 0.99, 0),
                   'max': arm.max(0), 'zero': (arm == 0).mean(0)}
        lines = [f'{"delta":10}' + ''.join(f'{name:>10}' for name in columns)]
        for axis, name in enumerate(AXES):
            values = [f'{column[axis]:10.4f}' for column in list(columns.values())[:-1]]
            lines.append(f'{name:10}' + ''.join(values) + f'{columns["zero"][axis]:10.1%}')
        gripper = np.concatenate([episode.gripper_open for episode in self.episodes])
        changes = sum(int(np.abs(np.diff(e.gripper_open)).sum()) for e in self.episodes)
        lines.append(f'gripper open {gripper.mean():.1%} of the time, '
                     f'{changes / len(self.episodes):.1f} changes an episode')
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
            f'{e.name:{width}} {len(e.arm):6} {1 / e.period_s:6.1f}  {_label(e.success):8}  '
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


def histogram_bins(arm: np.ndarray, axis: int) -> list[float]:
    """Return the edges for an axis, as wide as the widest of its kind and never only rounding."""
    kind = slice(0, 3) if axis < 3 else slice(3, 6)
    limit = max(float(np.abs(arm[:, kind]).max()), _NO_MOTION)
    return np.linspace(-limit, limit, 62).tolist()


def draw(summary: DatasetSummary, png: Path) -> None:
    """Draw first images, lengths, instructions, the histogram of each action and the gripper."""
    from matplotlib.figure import Figure
    images = _images(summary.episodes)
    rows = max(1, -(-len(images) // _IMAGES_A_ROW))
    figure = Figure(figsize=(12, 10 + 2 * rows), layout='constrained')
    grid = figure.add_gridspec(4 + rows, _IMAGES_A_ROW)
    _draw_images(figure, grid, images)
    lengths = figure.add_subplot(grid[rows, :2])
    lengths.hist([len(episode.arm) for episode in summary.episodes], bins=30)
    lengths.set(title=f'{len(summary.episodes)} episodes', xlabel='steps', ylabel='episodes')
    _draw_instructions(figure.add_subplot(grid[rows, 2:]), summary.episodes)
    arm = summary.arm
    for axis, name in enumerate(AXES):
        column = 2 * (axis % 3)
        plot = figure.add_subplot(grid[rows + 1 + axis // 3, column:column + 2])
        plot.hist(arm[:, axis], bins=histogram_bins(arm, axis), log=True)
        plot.set(xlabel=name, ylabel='steps')
        plot.locator_params('x', nbins=5)
    plot = figure.add_subplot(grid[rows + 3, :])
    for number, episode in enumerate(summary.episodes[:_DRAWN_GRIPPERS]):
        plot.step(np.arange(len(episode.arm)), episode.gripper_open * 0.8 + number, lw=0.8,
                  where='post')
    plot.set(xlabel='step', ylabel='episode', title='gripper: closed low, open high')
    figure.savefig(png, dpi=110)


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

"""What an evaluation found, for people and for programs: Markdown, JSON and a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np
from ros2_lstm_policy.evaluation import runs
from ros2_lstm_policy.evaluation.intervals import Rate, wilson
from ros2_lstm_policy.evaluation.rollout import CATEGORIES, Result
from ros2_lstm_policy.sim.perturb.settings import described
from ros2_lstm_policy.sim.tasks import PUBLISHED_BY_NAME, SimEpisode, words

NOTHING = 'nothing'


def write(output: Path, settings: Mapping[str, Any], results: Sequence[Result],
          own: Sequence[SimEpisode], left_out: str = '') -> str:
    """
    Write report.json, report.md and report.png.

    :param settings: how it was measured, as plain values.
    :param own: the benchmark's own episode of each result, without any control.
    :param left_out: which episodes of the benchmark were not run, in words.
    :return: the Markdown.
    """
    summary = summarise(settings, results, own)
    text = markdown(settings, results, own, left_out)
    (output / runs.REPORT).write_text(json.dumps(
        {'settings': dict(settings), **summary, 'episodes': [runs.row(r) for r in results]},
        indent=1) + '\n')
    (output / 'report.md').write_text(text)
    draw(output / 'report.png', results)
    return text


def by_instruction(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Group results by what was said, or by the target where nothing was."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.said or f'(nothing) {_target(result)}', []).append(result)
    return groups


def by_scene(results: Sequence[Result], own: Sequence[SimEpisode]) -> dict[str, list[Result]]:
    """Group results by scene; the scenes of a suite that has one a task are one group."""
    groups: dict[str, list[Result]] = {}
    for result, episode in zip(results, own):
        groups.setdefault(episode.scene.partition('/')[0], []).append(result)
    return groups


def success_rate(results: Sequence[Result]) -> Rate:
    """Return the rate of success."""
    return wilson(sum(result.success for result in results), len(results))


def chance(results: Sequence[Result]) -> float | None:
    """Return the best rate of success without memory; None where not all are memory tasks."""
    chances = [result.chance for result in results if result.chance is not None]
    return float(np.mean(chances)) if chances and len(chances) == len(results) else None


def right_rate(results: Sequence[Result]) -> Rate | None:
    """Return the rate at which the object asked for was lifted; None where none ever was."""
    lifted = [result.right_lifted for result in results if result.target is not None]
    return wilson(sum(lifted), len(lifted)) if lifted else None


def cell(rate: Rate | None) -> str:
    """Return a rate for a table."""
    return 'no such object' if rate is None else str(rate)


def plain(rate: Rate | None) -> dict[str, Any] | None:
    """Return a rate as plain values."""
    return None if rate is None else rate._asdict()


def unsaid_rate(results: Sequence[Result], own: Sequence[SimEpisode]) -> Rate:
    """Return the rate of episodes in which the object of the benchmark's own words was lifted."""
    return wilson(sum(episode.target in result.lifted for result, episode in zip(results, own)),
                  len(results))


def summarise(settings: Mapping[str, Any], results: Sequence[Result],
              own: Sequence[SimEpisode]) -> dict[str, Any]:
    """Return the numbers as plain values."""
    numbers = {
        'success': success_rate(results)._asdict(),
        'right_object_lifted': plain(right_rate(results)),
        'categories': _categories(results),
        'by_instruction': _rates(by_instruction(results)),
        'by_scene': _rates(by_scene(results, own)),
        'median_steps_to_success': _median([r.steps for r in results if r.success]),
        'median_act_ms': _median([r.act_ms for r in results])}
    best = chance(results)
    if best is not None:
        numbers['chance'] = best
    if settings['control'] == 'swapped':
        numbers['unsaid_object_lifted'] = unsaid_rate(results, own)._asdict()
    return numbers


def markdown(settings: Mapping[str, Any], results: Sequence[Result],
             own: Sequence[SimEpisode], left_out: str = '') -> str:
    """Return the report as Markdown."""
    numbers = summarise(settings, results, own)
    lines = [f'# Benchmark {settings["benchmark"]}, {settings["actor"]}, '
             f'control: {settings["control"]}', '',
             f'Success {success_rate(results)}, right object lifted {cell(right_rate(results))}; '
             'Wilson 95 % intervals.',
             f'Median steps to success {_or_none(numbers["median_steps_to_success"], ".0f")}, '
             f'median decision {numbers["median_act_ms"]:.1f} ms.']
    if 'chance' in numbers:
        lines.append(f'The best that can be done without memory: {100 * numbers["chance"]:.1f} % '
                     '(computed).')
    lines += _on_the_words(settings)
    if began := sum(result.success and not result.steps for result in results):
        lines.append(f'Of the successes, {began} had their goal reached before the first step.')
    lines += _on_the_conditions(settings.get('perturb') or {}, results)
    lines += [f'{left_out[0].upper()}{left_out[1:]}.'] if left_out else []
    lines += _on_the_control(settings['control'], results, own)
    lines += _table(*_by_words(settings, results, own))
    if len(by_scene(results, own)) > 1:
        lines += _table('scene', by_scene(results, own))
    lines += ['', '| what became of it | episodes |', '|---|---|']
    lines += [f'| {category} | {count} |'
              for category, count in numbers['categories'].items() if count]
    return '\n'.join(lines) + '\n'


def _by_words(settings: Mapping[str, Any], results: Sequence[Result],
              own: Sequence[SimEpisode]) -> tuple[str, dict[str, list[Result]]]:
    """Group results by what was said, or by what was meant where each is said otherwise."""
    changed = settings.get('perturb') or {}
    if settings['control'] != 'none' or not {'synonyms', 'typos'} & set(changed):
        return 'said', by_instruction(results)
    groups: dict[str, list[Result]] = {}
    for result, episode in zip(results, own):
        groups.setdefault(episode.instruction, []).append(result)
    return 'meant, and said in other words', groups


def _on_the_words(settings: Mapping[str, Any]) -> list[str]:
    """Say whose words were said, where a suite has two kinds."""
    name, source = str(settings['benchmark']), settings.get('words', 'suite')
    if not name.startswith('libero_'):
        return []
    if source == 'name' or (source == 'suite' and name in PUBLISHED_BY_NAME):
        return ["Words: LIBERO's task.language, which is made of the files' names."]
    return ["Words: those in the tasks' files, (:language ...)."]


def _on_the_conditions(changed: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """Say what was changed, if anything was."""
    if not changed:
        return []
    lines = [f'CHANGED CONDITIONS: {described(changed)}; what was drawn for an episode is in its '
             '`changes` in report.json.']
    if 'object_move_m' in changed:
        moved = sum(any(' moved by ' in note and ' at step ' in note for note in result.changes)
                    for result in results)
        lines.append(f'The object was moved on the way in {moved} of {len(results)} episodes.')
    return lines


def _categories(results: Sequence[Result]) -> dict[str, int]:
    """Count endings; those of memory tasks after the common ones."""
    counts = Counter(result.category for result in results)
    return {name: counts[name] for name in (*CATEGORIES, *sorted(set(counts) - {*CATEGORIES}))}


def _on_the_control(control: str, results: Sequence[Result],
                    own: Sequence[SimEpisode]) -> list[str]:
    """Say what success means under a control."""
    if control == 'swapped':
        return ["Another object's words were said: success and the right object are those of the "
                f"said words. The object of the episode's own words was lifted in "
                f'{unsaid_rate(results, own)}.']
    if control == 'state_cleared':
        return ["The actor's state was cleared at each step: what the same weights do without "
                'memory.']
    if control == 'state_swapped':
        return ["The actor came to the choice with another episode's state: success means that "
                'the choice followed that state.']
    if control == 'blank':
        return ["Nothing was said: success and the right object are those of the episode's own "
                'words.']
    return []


def _table(head: str, groups: Mapping[str, Sequence[Result]]) -> list[str]:
    lines = ['', f'| {head} | success | right object lifted |', '|---|---|---|']
    return [*lines, *(f'| {name} | {success_rate(of)} | {cell(right_rate(of))} |'
                      for name, of in groups.items())]


def _rates(groups: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    return {name: success_rate(of)._asdict() for name, of in groups.items()}


def confusion(results: Sequence[Result]) -> tuple[list[str], list[str], np.ndarray]:
    """
    Count instructed against first lifted objects.

    :return: targets, lifted objects, counts (targets, lifted).
    """
    pairs = Counter((_target(r), words(r.lifted[0]) if r.lifted else NOTHING) for r in results)
    targets = sorted({target for target, _ in pairs})
    lifted = [*sorted({thing for _, thing in pairs} - {NOTHING} | set(targets)), NOTHING]
    counts = np.array([[pairs[target, thing] for thing in lifted] for target in targets])
    return targets, lifted, counts


def draw(path: Path, results: Sequence[Result]) -> None:
    """Draw success by instruction and the confusion of instructed and lifted object."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    groups = by_instruction(results)
    figure = Figure(figsize=(15, 2.5 + 0.32 * len(groups)), layout='constrained')
    FigureCanvasAgg(figure)
    bars, matrix = figure.subplots(1, 2)
    _draw_success(bars, groups)
    _draw_confusion(matrix, *confusion(results))
    figure.suptitle(f'success {success_rate(results)}')
    figure.savefig(path, dpi=90)


def _draw_success(axes: Any, groups: Mapping[str, Sequence[Result]]) -> None:
    rates = [success_rate(of) for of in groups.values()]
    shares = np.array([rate.share for rate in rates])
    ends = np.array([[rate.share - rate.low, rate.high - rate.share] for rate in rates]).T
    places = np.arange(len(rates))
    axes.barh(places, shares, xerr=np.maximum(ends, 0), color='#4878a8', ecolor='#555555')
    axes.set_yticks(places, list(groups))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel('success, Wilson 95 % interval')


def _draw_confusion(axes: Any, targets: list[str], lifted: list[str], counts: np.ndarray) -> None:
    axes.imshow(counts, cmap='Blues', vmin=0)
    axes.set_xticks(range(len(lifted)), lifted, rotation=40, ha='right')
    axes.set_yticks(range(len(targets)), targets)
    axes.set_xlabel('lifted first')
    axes.set_ylabel('asked for')
    for row, column in zip(*np.nonzero(counts)):
        dark = counts[row, column] > counts.max() / 2
        axes.text(column, row, str(counts[row, column]), ha='center', va='center',
                  color='white' if dark else 'black')


def _target(result: Result) -> str:
    return words(result.target) if result.target else 'other'


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _or_none(value: float | None, form: str) -> str:
    return 'none' if value is None else format(value, form)

"""
Compare finished evaluations: seeds, ablations, peers.

`ros2 run ros2_lstm_policy compare lstm=outputs/lstm_1 lstm=outputs/lstm_2 act=outputs/act`
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import sys
from typing import Any

from ros2_lstm_policy.evaluation import report, rows as table
from ros2_lstm_policy.evaluation.report import right_rate, success_rate
from ros2_lstm_policy.evaluation.rows import Row

NOT_RUN = 'not run'


def markdown(rows: Sequence[Row]) -> str:
    """Return the tables: rates, differences from the first row, repetitions."""
    names = table.benchmarks(rows)
    lines = _head('policy', [f'{name.upper()} {what}' for name in names
                             for what in ('success', 'right object')] + ['decision [ms]'])
    for row in rows:
        cells = [report.cell(rate(row.runs[name].results)) if name in row.runs else NOT_RUN
                 for name in names for rate in (success_rate, right_rate)]
        lines.append(_line(row.label, [*cells, f'{row.act_ms:.1f}']))
    lines += ['', 'Wilson 95 % intervals. Decision: median.']
    if len(rows) > 1:
        lines += ['', *_head(f'against {rows[0].label}', [name.upper() for name in names])]
        lines += [_line(row.label, [_against(row, rows[0], name) for name in names])
                  for row in rows[1:]]
        lines += ['', 'Episodes that only one of both succeeded in; two-sided p of the exact '
                  'McNemar test, one test at a time.']
    repeated = {name: of for name, of in table.by_name(rows).items() if len(of) > 1}
    if repeated:
        lines += ['', *_head('success of repetitions', [name.upper() for name in names])]
        lines += [_line(name, [_spread(of, each) for each in names])
                  for name, of in repeated.items()]
        lines += ['', 'Mean, sample standard deviation, and lowest to highest.']
    return '\n'.join(lines) + '\n'


def plain(rows: Sequence[Row]) -> dict[str, Any]:
    """Return all numbers as plain values."""
    names = table.benchmarks(rows)
    found: dict[str, Any] = {'policies': [], 'repetitions': {}}
    for row in rows:
        of = {name: {'report': str(run.path), 'success': success_rate(run.results)._asdict(),
                     'right_object_lifted': report.plain(right_rate(run.results)),
                     'against_first': _paired_values(row, rows[0], name)}
              for name, run in row.runs.items()}
        found['policies'].append({'label': row.label, 'act_ms': row.act_ms, 'benchmarks': of})
    for label, of_name in table.by_name(rows).items():
        spreads = {name: table.spread(of_name, name) for name in names}
        found['repetitions'][label] = {name: value._asdict()
                                       for name, value in spreads.items() if value}
    return found


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Draw success as bars with intervals and the right object as dots, a panel a benchmark."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    names = table.benchmarks(rows)
    figure = Figure(figsize=(2 + 4 * len(names), 1.3 + 0.36 * len(rows)), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names):
        _draw_panel(axes, rows, name)
    panels[0].set_yticks(range(len(rows)), [row.label for row in rows])
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=100)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='compare', description='Compare finished evaluations: success with intervals, a '
        'paired test against the first one, mean and spread of repetitions.')
    parser.add_argument('policies', nargs='+', metavar='[NAME=]FOLDER[,FOLDER...]',
                        help='one policy: folders that evaluate wrote, or folders of such; a name '
                        'given several times is one policy trained several times')
    parser.add_argument('--output', type=Path, help='folder for comparison.md, .json and .png')
    arguments = parser.parse_args(argv)
    try:
        rows = table.read(arguments.policies)
    except ValueError as error:
        print(f'compare: {error}', file=sys.stderr)
        return 1
    text = markdown(rows)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / 'comparison.md').write_text(text)
        (arguments.output / 'comparison.json').write_text(
            json.dumps(plain(rows), indent=2) + '\n')
        draw(arguments.output / 'comparison.png', rows)
    print(text, end='')
    return 0


def _head(first: str, rest: Sequence[str]) -> list[str]:
    return [_line(first, rest), '|' + '---|' * (len(rest) + 1)]


def _line(first: str, rest: Sequence[str]) -> str:
    return f'| {" | ".join([first, *rest])} |'


def _against(row: Row, first: Row, name: str) -> str:
    pair = table.paired(row, first, name)
    if pair is None:
        return NOT_RUN
    return f'{pair.won} won, {pair.lost} lost of {pair.episodes}, p {pair.p:.2g}'


def _paired_values(row: Row, first: Row, name: str) -> dict[str, Any] | None:
    pair = table.paired(row, first, name)
    return None if pair is None or row is first else {**pair._asdict(), 'p': pair.p}


def _spread(rows: Sequence[Row], name: str) -> str:
    found = table.spread(rows, name)
    if found is None:
        return NOT_RUN
    return (f'{100 * found.mean:.1f} % ± {100 * found.deviation:.1f} '
            f'({100 * found.low:.0f} to {100 * found.high:.0f}, {found.repetitions} runs)')


def _draw_panel(axes: Any, rows: Sequence[Row], name: str) -> None:
    for place, row in enumerate(rows):
        if name not in row.runs:
            continue
        results = row.runs[name].results
        rate, right = success_rate(results), right_rate(results)
        ends = [[max(rate.share - rate.low, 0)], [max(rate.high - rate.share, 0)]]
        axes.barh(place, rate.share, xerr=ends, color='#4878a8', ecolor='#555555')
        if right is not None:
            axes.plot(right.share, place, 'o', color='#d62728', markersize=4)
    axes.set_xlim(0, 1)
    axes.set_title(name.upper())
    axes.set_xlabel('success, Wilson 95 %; dot: right object lifted')


if __name__ == '__main__':
    sys.exit(main())

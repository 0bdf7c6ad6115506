"""
Proposes how to read recordings of others: the `manifest` and `data` of a training configuration.

What a recording cannot say (kinds, units, which value means closed) is proposed and marked DECIDE:
a person looks at it before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
import re
from typing import Any

from ros2_lstm_policy import config
from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.manifest_config import ManifestConfig
from ros2_lstm_policy.data.problems import Problem, RecordingError, refuse
from ros2_lstm_policy.data.sources import detect, open_source, SourceSpec
import yaml

# What the compact backbone takes: see config/train_compact.yaml.
_CAMERA = {'height': 128, 'width': 128, 'interpolation': 'area', 'mean': [0.498039216] * 3,
           'std': [0.501960784] * 3}
_LONGEST = 400


@dataclass
class Line:
    """One entry of the proposal; :param note: what is said above it, if anything."""

    values: Any
    note: str = ''


@dataclass
class Proposal:
    """
    What is proposed for one path, and what was found there.

    :param found: one line for each topic or feature.
    :param period_note: where the control period comes from.
    :param reading: section of the source: 'bag' or 'lerobot'.
    :param how: its keys.
    :param cuts: other ways to cut a bag into episodes, where the first one is refused.
    """

    path: str
    period_s: float
    period_note: str
    reading: str
    found: list[str] = field(default_factory=list)
    cameras: list[Line] = field(default_factory=list)
    states: list[Line] = field(default_factory=list)
    actions: list[Line] = field(default_factory=list)
    how: dict[str, Line] = field(default_factory=dict)
    cuts: list[Mapping[str, Any]] = field(default_factory=list)

    def add_camera(self, name: str, note: str) -> None:
        """Propose a camera."""
        self.cameras.append(Line({'name': name, **_CAMERA}, note))

    def text(self) -> str:
        """Return it as YAML with comments."""
        lines = [f'# {line}' for line in self.found]
        lines += ['# What is marked DECIDE cannot be told from the recording: look at each.', '#',
                  'manifest:', *_comment(self.period_note, 2),
                  f'  control_period_s: {self.period_s:g}']
        for key, items in (('cameras', self.cameras), ('states', self.states),
                           ('actions', self.actions)):
            if items:
                lines.append(f'  {key}:')
            for item in items:
                lines += [*_comment(item.note, 4), f'    - {_flow(item.values)}']
        lines += ['data:', '  sources:', f'    - path: {_flow(self.path)}']
        if self.how:
            lines.append(f'      {self.reading}:')
        for key, item in self.how.items():
            lines += [*_comment(item.note, 8), f'        {key}: {_flow(item.values)}']
        return '\n'.join(lines)


def propose(spec: SourceSpec) -> str:
    """
    Return the YAML that reads a path, with what was found there and what has to be decided.

    :raises RecordingError: where there is nothing to propose: no camera, nothing that moves.
    """
    kind = spec.kind or detect(spec.path)
    if kind == 'bag':
        from ros2_lstm_policy.data.rosbag.propose import propose_bag
        proposal = propose_bag(spec.path)
    elif kind == 'lerobot':
        from ros2_lstm_policy.data.lerobot.propose import propose_lerobot
        proposal = propose_lerobot(spec.path)
    else:
        raise refuse('no-dataset', spec.path, '', f'{kind} needs no proposal: its columns are '
                     'known; `dataset inspect` without --propose reads it')
    for what, items in (('cameras', proposal.cameras), ('actions', proposal.actions)):
        if not items:
            raise refuse('missing-topic', spec.path, '', f'nothing in it can be the {what}: '
                         + '; '.join(proposal.found))
    tried = _tried(proposal)  # which may change it
    return '\n'.join([proposal.text(), *_comment(tried, 0)])


def _tried(proposal: Proposal) -> str:
    """Read the first recording as proposed, cut as it lets itself; return what came of it."""
    said = ''
    for cut in [None, *proposal.cuts]:
        if cut is not None:
            proposal.how['episodes'] = Line(cut, 'DECIDE: where its episodes begin and end')
        values = parse_yaml(proposal.text())
        spec = config.parse(SourceSpec, values['data']['sources'][0], 'the proposal')
        manifest = config.parse(ManifestConfig, values['manifest'], 'the proposal').manifest()
        problems, count, steps = _read(spec, Wanted.of(manifest), manifest.control_period_s)
        fatal = [problem for problem in problems if problem.fatal]
        if not fatal:
            return f'Read like this, the first recording gives {count} episodes, {steps} steps.'
        said = said or f'Read like this, the first recording is refused: {fatal[0]}'
        if fatal[0].rule != 'several-episodes':
            return f'Read like this, the first recording is refused: {fatal[0]}'
    proposal.how.pop('episodes', None)
    return said


def _read(spec: SourceSpec, wanted: Wanted, period_s: float) -> tuple[list[Problem], int, int]:
    """Return the problems of the first recording, and how many episodes and steps it gives."""
    try:
        recordings = open_source(spec, wanted, period_s)
    except RecordingError as error:
        return [error.problem], 0, 0
    good, problems = read_checked(recordings[0], Limits())
    return problems, len(good), sum(len(reading.episode) for reading in good)


def plain_name(text: str, without: Iterable[str] = (), otherwise: str = 'stream') -> str:
    """Return a name that a manifest takes, of the words of a topic or feature."""
    words = [word for word in re.findall(r'[a-z0-9]+', text.lower()) if word not in set(without)]
    name = '_'.join(words) or otherwise
    return name if name[0].isalpha() else f'{otherwise}_{name}'


def free_name(name: str, taken: Sequence[str]) -> str:
    """Return the name, with a number where it is taken."""
    if name not in taken:
        return name
    return next(free for number in range(2, len(taken) + 3)
                if (free := f'{name}_{number}') not in taken)


def _comment(text: str, indent: int) -> list[str]:
    return [f'{" " * indent}# {line[:_LONGEST]}' for line in text.splitlines()]


def _flow(values: Any) -> str:
    """Write a value in one line of YAML."""
    text = yaml.safe_dump(config.plain(values), default_flow_style=True, sort_keys=False,
                          allow_unicode=True, width=100_000)
    return text.removesuffix('\n').removesuffix('\n...')

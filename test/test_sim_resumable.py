"""Commands on many episodes go on wherever they were ended, in the middle of a byte's line too."""

from collections.abc import Callable
import dataclasses
import os
from pathlib import Path
import signal
import subprocess
import sys

import pytest
from ros2_lstm_policy.evaluation import evaluate
from ros2_lstm_policy.evaluation.evaluate import EvaluateConfig
from ros2_lstm_policy.evaluation.rollout import Result
from ros2_lstm_policy.sim import collect, dagger, resumable
from ros2_lstm_policy.sim.campaign import bag_name, EpisodeCounts, OUTCOMES
from ros2_lstm_policy.sim.collect import CollectConfig
from ros2_lstm_policy.sim.dagger import DaggerConfig
from ros2_lstm_policy.sim.demonstration import Outcome
from ros2_lstm_policy.sim.tasks import SimEpisode

CHECKPOINT = Path(__file__).parents[1] / 'checkpoints' / 'compact_libero'
COUNTS = EpisodeCounts(b=3)


def outcome_of(episode: SimEpisode) -> Outcome:
    """Return an outcome whose words need more than one byte a letter."""
    return Outcome(bag_name(episode), episode.name, 'Milch für Žofie', True, True, 1)


def result_of(episode: SimEpisode) -> Result:
    """Return a result."""
    return Result(episode.name, 'Milch für Žofie', None, True, 1, None, ('milk_1',), 1.5)


def run_collect(folder: Path) -> list[Outcome]:
    """Return the outcomes of `collect`."""
    return collect.collect(CollectConfig(folder, COUNTS, processes=1))


def run_dagger(folder: Path) -> list[Outcome]:
    """Return the outcomes of `dagger`."""
    return dagger.dagger(DaggerConfig(folder, CHECKPOINT, COUNTS, processes=1))


def run_evaluate(folder: Path) -> list[Result]:
    """Return the results of `evaluate`."""
    return evaluate.evaluate(EvaluateConfig(folder, 'a', actor='zero', every=20, processes=1))


@pytest.mark.parametrize(('module', 'worker', 'record', 'command', 'name'), [
    (collect, 'Collector', outcome_of, run_collect, OUTCOMES),
    (dagger, 'Labeller', outcome_of, run_dagger, OUTCOMES),
    (evaluate, 'Evaluator', result_of, run_evaluate, 'episodes.jsonl')],
    ids=['collect', 'dagger', 'evaluate'])
def test_a_command_killed_between_two_bytes_of_a_line_goes_on(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, worker: str,
        record: Callable[[SimEpisode], Outcome | Result],
        command: Callable[[Path], list[Outcome] | list[Result]], name: str) -> None:
    """Two of the three stopped for good; now the cut line's episode alone is run again."""
    ran: list[str] = []

    def work(episode: SimEpisode) -> Outcome | Result:
        ran.append(episode.name)
        return record(episode)

    monkeypatch.setattr(module, worker, lambda settings: work)
    whole = command(tmp_path)
    content = (tmp_path / name).read_bytes()
    *before, last = content.splitlines(keepends=True)
    assert len(whole) == len(before) + 1 == len(ran) == 3
    for cut in (1, len(last) // 2, len(last) - 1):
        ran.clear()
        (tmp_path / name).write_bytes(b''.join(before) + last[:cut])
        assert command(tmp_path) == whole
        assert ran == [whole[-1].episode]
        assert (tmp_path / name).read_bytes() == content


@dataclasses.dataclass(frozen=True)
class Row:
    """A record."""

    name: str
    success: bool = True


def test_a_line_is_whole_or_not_there_wherever_it_is_cut(tmp_path: Path) -> None:
    """At every byte, in the middle of a letter too."""
    path, lines = tmp_path / 'rows.jsonl', [b'{"name": "a"}\n', '{"name": "Žofie"}\n'.encode()]
    for cut in range(len(lines[1])):
        path.write_bytes(lines[0] + lines[1][:cut])
        assert resumable.read_records(path, Row) == [Row('a')]
        assert path.read_bytes() == lines[0]
    path.write_bytes(b''.join(lines))
    assert resumable.read_records(path, Row) == [Row('a'), Row('Žofie')]


@pytest.mark.parametrize(('line', 'words'), [
    (b'{"name": "b', 'line 2: is no JSON'), (b'\0\0\0', 'line 2: is no JSON'), (b'', 'line 2'),
    (b'[1]', 'line 2: expected a mapping, found list'),
    (b'{"named": "b"}', "line 2: unknown key 'named'"),
    (b'{"name": 3}', 'line 2: name: expected str, found int 3'),
    (b'\xff', 'line 2: is no JSON')])
def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_changed(
        tmp_path: Path, line: bytes, words: str) -> None:
    """That was no kill; whoever edited it knows what is right."""
    path = tmp_path / 'rows.jsonl'
    content = b'{"name": "a"}\n' + line + b'\n{"name": "c'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        resumable.read_records(path, Row)
    assert str(path) in str(caught.value) and 'take the line away' in str(caught.value)
    assert path.read_bytes() == content


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    """Each would run the other's episodes, and one takes away the line that the other writes."""
    code = ('import sys, time, pathlib; from ros2_lstm_policy.sim import resumable\n'
            'from ros2_lstm_policy.sim.demonstration import Outcome\n'
            f'with resumable.open_ledger(pathlib.Path({str(tmp_path)!r}), "rows", Outcome, {{}}):'
            ' print("begun", flush=True); time.sleep(600)')
    other = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True,
                             cwd=Path(__file__).parents[1])
    try:
        assert other.stdout is not None and other.stdout.readline() == 'begun\n'
        with pytest.raises(ValueError, match='another process works in it'), \
                resumable.open_ledger(tmp_path, 'rows', Row, {}):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with resumable.open_ledger(tmp_path, 'rows', Row, {}) as ledger:
        assert ledger.records == []


def test_settings_that_a_kill_left_empty_are_written_again(tmp_path: Path) -> None:
    """Nothing was recorded under them yet."""
    (tmp_path / resumable.SETTINGS).write_text('')
    resumable.keep_settings(tmp_path, {'horizon': 3})
    with pytest.raises(ValueError, match=r'horizon 3 \(now 4\)'):
        resumable.keep_settings(tmp_path, {'horizon': 4})

"""The command `evaluate`: resumable, strict, and the same whoever runs it."""

import json
from pathlib import Path

import pytest
from ros2_lstm_policy.evaluation import evaluate

SMALL = ('image_size=[32, 32]', 'horizon=2', 'processes=1', 'every=25', 'benchmark=a')


def run(folder: Path, *overrides: str) -> int:
    """Run the command with the shipped configuration, made small."""
    config = Path(__file__).parents[1] / 'config' / 'evaluate.yaml'
    return evaluate.main(['--config', str(config), f'output={folder}', *SMALL, *overrides])


def episodes(folder: Path) -> list[dict]:
    """Return the results on disk."""
    return [json.loads(line) for line in (folder / 'episodes.jsonl').read_text().splitlines()]


def test_doing_nothing_never_succeeds_and_the_report_says_so(tmp_path, capsys):
    """The control that every other number is worth something against."""
    assert run(tmp_path, 'actor=zero', 'checkpoint=null', 'pictures=1') == 0
    assert [e['success'] for e in episodes(tmp_path)] == [False, False]
    assert 'Success 0/2' in capsys.readouterr().out
    assert {path.suffix for path in (tmp_path / 'pictures').iterdir()} == {'.png', '.mp4'}


def test_an_interrupted_evaluation_goes_on_where_it_was(tmp_path):
    """What has a result is not run again."""
    assert run(tmp_path, 'actor=zero', 'checkpoint=null') == 0
    first, second = episodes(tmp_path)
    (tmp_path / 'episodes.jsonl').write_text(json.dumps(first | {'act_ms': 7.0}) + '\n')
    assert run(tmp_path, 'actor=zero', 'checkpoint=null') == 0
    assert [e['act_ms'] for e in episodes(tmp_path)] == [7.0, second['act_ms']]


def test_results_of_other_settings_are_not_mixed(tmp_path, capsys):
    """A folder keeps to what it was begun with."""
    assert run(tmp_path, 'actor=zero', 'checkpoint=null', 'every=50') == 0
    assert run(tmp_path, 'actor=zero', 'checkpoint=null', 'every=50', 'horizon=3') == 1
    assert 'begun with other settings' in capsys.readouterr().err


@pytest.mark.parametrize(('override', 'complaint'), [
    ('benchmark=z', "'z' is no LIBERO suite"),
    ('checkpoint=null', 'needs a checkpoint'),
    ('checkpoint=/nowhere', '/nowhere'),
    ('every=0', 'at least 1'),
    ('actor=human', 'expected one of')])
def test_what_cannot_be_measured_is_refused_with_a_reason(tmp_path, capsys, override, complaint):
    """On one line, before a simulator starts."""
    assert run(tmp_path, override) == 1
    assert complaint in capsys.readouterr().err

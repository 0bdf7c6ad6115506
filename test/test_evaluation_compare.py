"""A comparison says what the reports say, pairs episodes, and mixes nothing."""

import json
from pathlib import Path

import pytest
from ros2_lstm_policy.evaluation import compare, report, rows
from ros2_lstm_policy.evaluation.intervals import exact_mcnemar
from ros2_lstm_policy.evaluation.rollout import Result
from ros2_lstm_policy.sim import resumable
from ros2_lstm_policy.sim.tasks import SimEpisode

SETTINGS = {'benchmark': 'a', 'actor': 'policy', 'control': 'none', 'horizon': 150,
            'execute': 'first', 'history': None, 'checkpoint_fingerprint': 'f'}


def finished(folder: Path, successes: str, **settings) -> Path:
    """Write an evaluation whose episodes succeeded where `successes` has a 1."""
    folder.mkdir(parents=True)
    results = [Result(f'A/milk/{i}', 'pick up the milk', 'milk_1', letter == '1', 50, None,
                      ('milk_1',) if letter == '1' else (), 20.0)
               for i, letter in enumerate(successes)]
    own = [SimEpisode(r.episode, 'libero_90/51', 'room', r.said, (), r.target, None)
           for r in results]
    resumable.keep_settings(folder, SETTINGS | settings)
    report.write(folder, SETTINGS | settings, results, own)
    return folder


@pytest.mark.parametrize(('won', 'lost', 'p'), [
    (0, 0, 1.0), (3, 3, 1.0), (0, 5, 0.0625), (1, 9, 22 / 1024), (2, 8, 112 / 1024)])
def test_mcnemar_is_the_coin_of_the_differing_episodes(won, lost, p):
    """Sums of binomial coefficients over 2^n, by hand."""
    assert exact_mcnemar(won, lost) == exact_mcnemar(lost, won) == pytest.approx(p)


def test_rows_have_a_column_for_each_benchmark_and_a_paired_test(tmp_path, capsys):
    """Six episodes: the second policy loses five of them and wins none."""
    finished(tmp_path / 'lstm' / 'one', '111110')
    finished(tmp_path / 'lstm' / 'two', '11', benchmark='b')
    finished(tmp_path / 'act', '000000', checkpoint_fingerprint='other')
    output = tmp_path / 'out'
    assert compare.main([f'ours={tmp_path / "lstm"}', str(tmp_path / 'act'),
                         '--output', str(output)]) == 0
    text = capsys.readouterr().out
    assert '| ours | 5/6 (83 %, 44 to 97) | 5/6 (83 %, 44 to 97) | 2/2' in text
    assert '| act | 0/6 (0 %, 0 to 39) | 0/6 (0 %, 0 to 39) | not run | not run | 20.0 |' in text
    assert '| act | 0 won, 5 lost of 6, p 0.062 | not run |' in text
    assert (output / 'comparison.md').read_text() == text
    numbers = json.loads((output / 'comparison.json').read_text())
    assert numbers['policies'][1]['benchmarks']['a']['against_first'] == {
        'won': 0, 'lost': 5, 'episodes': 6, 'p': 0.0625}
    assert (output / 'comparison.png').stat().st_size > 5_000


def test_only_episodes_that_both_ran_are_paired(tmp_path):
    """The shorter one decides."""
    long, short = finished(tmp_path / 'long', '0110'), finished(tmp_path / 'short', '10')
    first, second = rows.read([str(long), str(short)])
    assert rows.paired(second, first, 'a') == (1, 1, 2)


def test_seeds_of_one_name_have_a_mean_and_a_spread(tmp_path, capsys):
    """One half, all, and none of the episodes: the mean is one half."""
    folders = [finished(tmp_path / str(i), successes, checkpoint_fingerprint=str(i))
               for i, successes in enumerate(('10', '11', '00'))]
    assert compare.main([f'lstm={folder}' for folder in folders]) == 0
    text = capsys.readouterr().out
    assert '| lstm 3 | 0/2' in text
    assert '| lstm | 50.0 % ± 50.0 (0 to 100, 3 runs) |' in text


def test_swapped_words_have_a_row_of_their_own(tmp_path):
    """So that they are compared with the unswapped words on the same beginnings."""
    finished(tmp_path / 'a', '11')
    finished(tmp_path / 'swapped', '10', control='swapped')
    plain, swapped = rows.read([f'lstm={tmp_path}'])
    assert (plain.label, swapped.label) == ('lstm', 'lstm, swapped')
    assert rows.paired(swapped, plain, 'a') == (0, 1, 2)


@pytest.mark.parametrize(('changes', 'complaint'), [
    ({}, 'benchmark a twice'),
    ({'benchmark': 'b', 'checkpoint_fingerprint': 'g'}, 'one row is one policy'),
    ({'benchmark': 'b', 'execute': 'ensemble'}, 'execute is first in')])
def test_what_is_not_one_policy_is_no_row(tmp_path, changes, complaint):
    """Numbers of two policies in one row would be nobody's."""
    finished(tmp_path / 'one', '11')
    finished(tmp_path / 'two', '11', **changes)
    with pytest.raises(ValueError, match=complaint):
        rows.read([str(tmp_path)])


def test_other_horizons_are_not_compared(tmp_path):
    """More time is more success."""
    folders = [finished(tmp_path / 'one', '11'), finished(tmp_path / 'two', '11', horizon=300)]
    with pytest.raises(ValueError, match='horizon 300, but 150'):
        rows.read([str(folder) for folder in folders])


def test_other_words_get_a_row_of_their_own(tmp_path):
    """What was said is not what another run was told."""
    finished(tmp_path / 'one', '11')
    finished(tmp_path / 'two', '10', words='file')
    labels = [row.label for row in rows.read([f'lstm={tmp_path}'])]
    assert labels == ['lstm', 'lstm, words of the file']


def test_an_unfinished_evaluation_is_refused_with_what_to_do(tmp_path, capsys):
    """Half of a benchmark is not its rate."""
    resumable.keep_settings(tmp_path, SETTINGS)
    assert compare.main([str(tmp_path)]) == 1
    assert 'run evaluate with the same settings to its end' in capsys.readouterr().err
    (tmp_path / 'empty').mkdir()
    assert compare.main([str(tmp_path / 'empty')]) == 1
    assert 'neither an evaluation nor a folder' in capsys.readouterr().err

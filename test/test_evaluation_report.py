"""Rates have honest intervals, and a report says what became of every episode."""

import json

import numpy as np
import pytest
from ros2_lstm_policy.evaluation import report, runs
from ros2_lstm_policy.evaluation.intervals import wilson
from ros2_lstm_policy.evaluation.rollout import (MISSED, NEVER_CLOSED, NOT_PLACED, NOT_REACHED,
                                                 Result, SUCCESS, WRONG_CLOSED, WRONG_LIFTED)
from ros2_lstm_policy.sim.tasks import goal_in, SimEpisode

MILK, SOUP = 'milk_1', 'alphabet_soup_1'


SETTINGS = {'benchmark': 'b', 'actor': 'policy', 'control': 'none'}


def own(target: str, scene: str = 'room') -> SimEpisode:
    """Return an episode of putting an object into the basket."""
    return SimEpisode('B/milk/0', 'libero_90/51', scene, f'pick up the {target}',
                      goal_in(target, 'basket_1'), target, 'basket_1')


def result(**changes) -> Result:
    """Return an episode of nothing happening, with changes."""
    values = {'episode': 'B/milk/0', 'said': 'pick up the milk', 'target': MILK, 'success': False,
              'steps': 150, 'first_grasp': None, 'lifted': (), 'act_ms': 20.0}
    return Result(**values | changes)


@pytest.mark.parametrize(('successes', 'trials', 'low', 'high'), [
    (38, 50, 0.626, 0.857), (10, 35, 0.163, 0.451), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0)])
def test_wilson_intervals_are_those_of_the_literature(successes, trials, low, high):
    """The first two are the prototype's published rows; the others textbook values."""
    rate = wilson(successes, trials)
    assert (rate.low, rate.high) == pytest.approx((low, high), abs=1e-3)


def test_a_rate_without_trials_is_refused():
    """Nothing measured is not a rate of zero."""
    with pytest.raises(ValueError, match='and a trial, found 0 of 0'):
        wilson(0, 0)


@pytest.mark.parametrize(('changes', 'category'), [
    ({'success': True, 'lifted': (MILK,)}, SUCCESS),
    ({'lifted': (SOUP, MILK)}, NOT_PLACED),
    ({'lifted': (SOUP,)}, WRONG_LIFTED),
    ({'first_grasp': MILK}, MISSED),
    ({'first_grasp': SOUP}, WRONG_CLOSED),
    ({'target': None, 'lifted': (SOUP,)}, NOT_REACHED),
    ({}, NEVER_CLOSED)])
def test_every_ending_has_its_category(changes, category):
    """Each way to end is told from the others."""
    assert result(**changes).category == category


def test_confusion_counts_the_object_lifted_first():
    """A row is what was asked for, a column what was lifted first."""
    targets, lifted, counts = report.confusion([
        result(success=True, lifted=(MILK,)), result(lifted=(SOUP, MILK)), result()])
    assert (targets, lifted) == (['milk'], ['alphabet soup', 'milk', 'nothing'])
    assert np.array_equal(counts, [[1, 1, 1]])


def test_a_report_is_written_for_people_and_programs(tmp_path):
    """Markdown, JSON and a picture agree on the numbers."""
    results = [result(success=True, steps=50, lifted=(MILK,)), result(said='', lifted=(SOUP,))]
    text = report.write(tmp_path, SETTINGS, results, [own(MILK), own(MILK, 'libero_object/milk')])
    numbers = json.loads((tmp_path / 'report.json').read_text())
    assert numbers['success']['successes'] == 1
    assert numbers['categories'][WRONG_LIFTED] == 1
    assert 'Success 1/2 (50 %, 9 to 91)' in text
    assert '| (nothing) milk | 0/1' in text
    assert '| libero_object | 0/1' in text and numbers['by_scene']['room']['successes'] == 1
    assert runs.read(tmp_path).results == tuple(results)
    assert (tmp_path / 'report.md').read_text() == text
    assert (tmp_path / 'report.png').stat().st_size > 10_000


def test_under_swapped_words_a_report_counts_the_said_object_and_the_unsaid_one(tmp_path):
    """Three episodes of soup in which milk was said: milk put away, soup lifted, milk missed."""
    results = [result(success=True, lifted=(MILK,)), result(lifted=(SOUP,)),
               result(first_grasp=MILK)]
    text = report.write(tmp_path, SETTINGS | {'control': 'swapped'}, results, [own(SOUP)] * 3)
    numbers = json.loads((tmp_path / 'report.json').read_text())
    assert numbers['success']['successes'] == numbers['right_object_lifted']['successes'] == 1
    assert numbers['unsaid_object_lifted']['successes'] == 1
    assert "object of the episode's own words was lifted in 1/3" in text
    assert numbers['categories'][WRONG_LIFTED] == numbers['categories'][MISSED] == 1


def test_where_no_object_is_asked_for_none_is_counted_as_missed(tmp_path):
    """To open a drawer nothing has to be lifted."""
    text = report.write(tmp_path, SETTINGS, [result(target=None)], [own(MILK)])
    assert 'right object lifted no such object' in text and '| goal not reached | 1 |' in text
    assert json.loads((tmp_path / 'report.json').read_text())['right_object_lifted'] is None


@pytest.mark.parametrize(('benchmark', 'words', 'told'), [
    ('libero_object_task', {}, "in the tasks' files"), ('libero_goal', {}, 'task.language'),
    ('libero_goal', {'words': 'file'}, "in the tasks' files"),
    ('libero_goal_lan', {'words': 'name'}, 'task.language'), ('a', {}, '')])
def test_a_report_says_whose_words_were_said(tmp_path, benchmark, words, told):
    """The number of a suite of paraphrases is worth nothing without it."""
    text = report.write(tmp_path, SETTINGS | {'benchmark': benchmark} | words, [result()],
                        [own(MILK)])
    assert ('Words: ' in text) == bool(told) and told in text


def test_a_success_that_nobody_brought_about_is_said_to_be_one(tmp_path):
    """Two tasks of libero_study_table begin with their goal reached; doing nothing had 2 of 5."""
    done, begun = result(success=True, steps=50), result(success=True, steps=0)
    told = 'Of the successes, 1 had their goal reached before the first step'
    assert told in report.write(tmp_path, SETTINGS, [done, begun], [own(MILK)] * 2)
    assert 'before the first step' not in report.write(tmp_path, SETTINGS, [done], [own(MILK)])


def test_without_a_success_the_report_is_still_json(tmp_path):
    """A median of nothing is no number, and NaN is no JSON."""
    report.write(tmp_path, SETTINGS, [result()], [own(MILK)])
    text = (tmp_path / 'report.json').read_text()
    assert json.loads(text, parse_constant=pytest.fail)['median_steps_to_success'] is None

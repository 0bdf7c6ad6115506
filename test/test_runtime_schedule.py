"""Schedules: which action of which chunk is due."""

import numpy as np
import pytest
from ros2_lstm_policy.runtime import schedule

CHUNK = 4


def chunks(count=9):
    """Return arrays (CHUNK, 7) whose values are 10 * time made + place in the chunk."""
    return [np.full((CHUNK, 7), 10.0 * t, np.float32) + np.arange(CHUNK)[:, None]
            for t in range(count)]


def run(text, count=9):
    """Return the first value of the action due at each step."""
    due, pending = schedule.parse(text, CHUNK), ()
    actions = []
    for chunk in chunks(count):
        action, pending = due(chunk, pending)
        assert action.shape == (7,)
        actions.append(float(action[0]))
    return actions


def test_first_takes_the_first_action_of_every_chunk():
    assert run('first') == [0, 10, 20, 30, 40, 50, 60, 70, 80]


def test_chunk_finishes_its_actions_before_it_plans_again():
    assert run('chunk:3') == [0, 1, 2, 30, 31, 32, 60, 61, 62]
    assert run('chunk:1') == run('first')


def test_ensemble_averages_all_chunks_that_reach_the_moment():
    # At t = 5 the chunks of t = 2, 3, 4 and 5 say 23, 32, 41 and 50.
    weights = np.exp(-0.01 * np.arange(4))
    wanted = (weights * [23, 32, 41, 50]).sum() / weights.sum()
    assert run('ensemble')[5] == pytest.approx(wanted, rel=1e-6)
    assert run('ensemble')[0] == 0
    assert run('ensemble:0')[5] == pytest.approx(36.5)


def test_a_large_decay_listens_to_the_oldest_chunk():
    assert run('ensemble:50')[5] == pytest.approx(23)


def test_agreeing_chunks_are_averaged_to_themselves():
    due, pending = schedule.parse('ensemble', CHUNK), ()
    steady = np.ones((CHUNK, 7), np.float32)
    for _ in range(6):
        action, pending = due(steady, pending)
        assert np.allclose(action, 1)
    assert action.dtype == np.float32


@pytest.mark.parametrize('text', ['', 'last', 'chunk', 'chunk:0', 'chunk:5', 'chunk:-1', 'first:2',
                                  'ensemble:-1', 'ensemble:x', 'ensemble:nan'])
def test_what_is_no_schedule_is_refused_with_what_is_one(text):
    with pytest.raises(ValueError, match="'chunk:N' with N from 1 to 4"):
        schedule.parse(text, CHUNK)

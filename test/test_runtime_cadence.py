"""Which sets of frames are due."""

from itertools import pairwise

import pytest
from ros2_lstm_policy.runtime.cadence import Cadence

MS = 1_000_000


def taken(stamps_ms, period_ms=100):
    cadence = Cadence(period_ms * MS)
    return [stamp for stamp in stamps_ms if cadence.takes(stamp * MS)]


def test_jitter_of_a_camera_at_the_policys_rate_loses_no_step():
    """Holding each set against the one before lost every seventh in the real-time demo."""
    stamps = [0, 104, 225, 301, 388, 520, 595, 700, 829, 900]
    assert taken(stamps) == stamps


@pytest.mark.parametrize('rate_hz', [15, 20, 25, 30, 60, 100])
def test_a_faster_camera_is_thinned_to_the_policys_rate(rate_hz):
    stamps = [round(1000 * i / rate_hz) for i in range(20 * rate_hz)]
    assert len(taken(stamps)) == pytest.approx(200, abs=1)


@pytest.mark.parametrize('rate_hz', [30, 60, 100])
def test_from_the_second_step_on_all_are_a_period_apart(rate_hz):
    steps = taken([round(1000 * i / rate_hz) for i in range(2 * rate_hz)])
    apart = [late - early for early, late in pairwise(steps[1:])]
    assert apart == pytest.approx([100] * len(apart), abs=1) and 70 <= steps[1] <= 100


def test_every_set_of_a_slower_camera_is_due():
    stamps = [143 * i for i in range(50)]
    assert taken(stamps) == stamps


def test_after_a_gap_the_rate_does_not_rise_to_catch_up():
    steps = taken([0, 100, *range(1000, 2000, 20)])
    assert steps == [0, 100, 1000, *range(1080, 2000, 100)]


def test_a_set_that_is_seen_twice_is_taken_once():
    assert taken([0, 0, 100, 100]) == [0, 100]


def test_a_clock_that_jumps_back_stops_nothing():
    cadence = Cadence(100 * MS)
    assert [cadence.takes(t * MS) for t in (5000, 5100, 20, 60, 120)] == [
        True, True, True, False, True]


def test_a_new_episode_takes_the_next_set_at_once():
    cadence = Cadence(100 * MS)
    assert cadence.takes(1000 * MS) and not cadence.takes(1030 * MS)
    cadence.reset()
    assert cadence.takes(1060 * MS)

"""Tests of the watch for cameras that show one image while the arm moves."""

import numpy as np
import pytest
from ros2_lstm_policy.runtime.frozen import FrozenCameras

PERIOD_S = 0.1
STILL = np.zeros(6)
MOVE = np.array([0.0, 0.002, 0.0, 0.0, 0.0, 0.0])
TURN = np.array([0.0, 0.0, 0.0, 0.0, 0.02, 0.0])


def images(count=6, size=(48, 64)):
    """Return images with the noise of a sensor."""
    return list(np.random.default_rng(0).integers(0, 255, (count, *size, 3), np.uint8))


def ticks(watch, count, arm, hand, static=None):
    """Show images of both cameras and command, so many times; return when it was frozen first."""
    fresh = images(count)
    for number in range(count):
        watch.see('hand', hand[number % len(hand)].copy())
        watch.see('static', fresh[number] if static is None else static[number % len(static)])
        if watch.reasons():
            return number
        watch.move(arm, PERIOD_S)
    return None


@pytest.fixture
def watch():
    """Return a watch of two cameras."""
    return FrozenCameras(('static', 'hand'), 0.45)


@pytest.mark.parametrize('arm', [MOVE, TURN], ids=['m', 'rad'])
def test_one_image_with_new_stamps_is_frozen_once_the_arm_has_moved_for_a_time(watch, arm):
    """A driver that hung gave its last image for ever, and the policy acted on it."""
    assert ticks(watch, 20, arm, images(1)) == 5
    reason, = watch.reasons()
    assert (reason.code, reason.camera) == ('frozen_image', 'hand')
    assert 'hand: no new image, only new stamps, in 0.5 s' in reason.text
    assert 'max_frozen_s' in reason.text


def test_a_driver_that_goes_round_its_buffers_is_frozen_too(watch):
    """Each image differs from the one before; none is new."""
    assert ticks(watch, 20, MOVE, images(4)) == 4 + 5 - 1


def test_both_cameras_are_named_where_both_are_frozen(watch):
    """One hub that hangs takes both."""
    still = images(1)
    ticks(watch, 20, MOVE, still, still)
    assert [reason.camera for reason in watch.reasons()] == ['static', 'hand']


def test_an_image_that_stays_while_the_arm_rests_is_none_of_a_frozen_camera(watch):
    """A simulator renders a scene at rest equally, however long."""
    assert ticks(watch, 100, STILL, images(1)) is None
    assert watch.repeats('hand') == 99
    assert watch.repeats('static') == 0


def test_motion_too_small_to_be_seen_is_no_ground_to_expect_another_image(watch):
    """Two millimetres, added up over many commands."""
    assert ticks(watch, 20, MOVE / 20, images(1)) is None


def test_a_slow_camera_is_not_frozen(watch):
    """Between two images of its own nothing repeats one, however far the arm goes."""
    for image in images(3):
        watch.see('hand', image)
        for _ in range(20):
            watch.move(MOVE, PERIOD_S)
        assert watch.reasons() == ()


@pytest.mark.parametrize('end', ['a new image', 'a reset', 'another size'])
def test_a_new_image_or_a_reset_ends_it(watch, end):
    """After a reset the arm may move for that time once more."""
    still = images(1)
    ticks(watch, 20, MOVE, still)
    if end == 'a reset':
        watch.reset()
    else:
        watch.see('hand', images(2)[1] if end == 'a new image' else still[0][:24])
    assert watch.reasons() == ()
    assert ticks(watch, 20, MOVE, still) in (4, 5)


def test_a_single_pixel_is_another_image(watch):
    """Wherever it is: what is looked at first decides only that images differ."""
    first = images(1, (96, 96))[0]
    for number in range(20):
        image = first.copy()
        image[1 + number, 7] += 1
        watch.see('hand', image)
        watch.move(MOVE, PERIOD_S)
    assert watch.reasons() == ()
    assert watch.repeats('hand') == 0


def test_zero_switches_it_off_and_counts_on():
    """Nothing is held for what a robot without noise in its images shows."""
    watch = FrozenCameras(('static', 'hand'), 0.0)
    assert ticks(watch, 100, MOVE, images(1)) is None
    assert watch.repeats('hand') == 99

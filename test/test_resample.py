"""Tests of the sampler that live nodes and bag readers share."""

import numpy as np
import pytest
from ros2_lstm_policy.resample import Missing, StreamSampler
from ros2_lstm_policy.types import Observation, Reason

MS = 1_000_000
T0 = 1_700_000_000_000 * MS


def image(value=0, shape=(4, 6, 3)):
    """Return an image that can be told from others."""
    return np.full(shape, value, np.uint8)


@pytest.fixture
def sampler():
    """Return a sampler of two cameras."""
    return StreamSampler(('static', 'hand'), max_age_s=0.2, max_skew_s=0.05)


def push_both(sampler, at_ms, value=0):
    """Push a frame of each camera."""
    for camera in ('static', 'hand'):
        assert sampler.push(camera, T0 + at_ms * MS, image(value)) is None


def codes(sampled):
    """Return the reason codes of a Missing."""
    assert isinstance(sampled, Missing)
    return [reason.code for reason in sampled.reasons]


def test_an_observation_holds_the_newest_frames_and_the_newest_stamp(sampler):
    """Two pushes a camera: the later ones are in the observation."""
    push_both(sampler, 0, 1)
    sampler.push('static', T0 + 30 * MS, image(2))
    sampler.push('hand', T0 + 40 * MS, image(3))
    observation = sampler.sample(T0 + 50 * MS)
    assert isinstance(observation, Observation)
    assert observation.stamp_ns == T0 + 40 * MS
    assert [observation.images[c][0, 0, 0] for c in ('static', 'hand')] == [2, 3]


def test_each_missing_camera_is_named(sampler):
    """Nothing pushed: one reason a camera."""
    missing = sampler.sample(T0)
    assert codes(missing) == ['no_image', 'no_image']
    assert [reason.text for reason in missing.reasons] == [
        'static: no image yet', 'hand: no image yet']


def test_an_old_frame_is_never_observed(sampler):
    """Age is counted from the stamp to the given now."""
    push_both(sampler, 0)
    assert isinstance(sampler.sample(T0 + 200 * MS), Observation)
    assert codes(sampler.sample(T0 + 201 * MS)) == ['old_image', 'old_image']


def test_frames_too_far_apart_are_never_one_observation(sampler):
    """Skew is counted between stamps, whatever the arrival."""
    sampler.push('static', T0, image())
    sampler.push('hand', T0 + 60 * MS, image())
    assert codes(sampler.sample(T0 + 70 * MS)) == ['skew']
    sampler.push('static', T0 + 30 * MS, image())
    assert isinstance(sampler.sample(T0 + 70 * MS), Observation)


def test_a_frame_out_of_order_is_dropped_and_holds_nothing_up(sampler):
    """The newest by stamp stays the newest."""
    push_both(sampler, 50, 5)
    assert sampler.push('static', T0 + 20 * MS, image(2)).code == 'out_of_order'
    assert sampler.push('static', T0 + 50 * MS, image(3)).code == 'out_of_order'
    assert sampler.sample(T0 + 60 * MS).images['static'][0, 0, 0] == 5


def test_a_stamp_that_jumps_back_begins_afresh(sampler):
    """A restarted simulation or bag must not wait for its old time to come again."""
    push_both(sampler, 60_000)
    assert sampler.push('static', T0, image(7)) is None
    assert codes(sampler.sample(T0)) == ['no_image']
    sampler.push('hand', T0, image(7))
    assert sampler.sample(T0).images['hand'][0, 0, 0] == 7


def test_frames_from_the_future_are_refused_once_and_forgotten(sampler):
    """The node's own clock jumped back, or the camera's clock is another."""
    push_both(sampler, 60_000)
    missing = sampler.sample(T0)
    assert codes(missing) == ['clock', 'clock']
    assert '60.000 s ahead of now' in missing.reasons[0].text
    assert codes(sampler.sample(T0)) == ['no_image', 'no_image']
    push_both(sampler, 10)
    assert isinstance(sampler.sample(T0 + 10 * MS), Observation)


def test_a_zero_stamp_is_refused_until_a_stamped_frame_comes(sampler):
    """A driver that does not stamp its images is named."""
    push_both(sampler, 0)
    assert sampler.push('hand', 0, image()).code == 'no_stamp'
    assert codes(sampler.sample(T0)) == ['no_stamp']
    sampler.push('hand', T0 + MS, image())
    assert isinstance(sampler.sample(T0 + MS), Observation)


def test_a_size_that_changes_holds_until_it_returns_or_the_episode_ends(sampler):
    """Both ways out of a changed image size lead on."""
    push_both(sampler, 0)
    reason = sampler.push('hand', T0 + MS, image(shape=(2, 3, 3)))
    assert 'images are now 3x2, and were 6x4' in reason.text
    assert codes(sampler.sample(T0 + MS)) == ['image_size']
    sampler.push('hand', T0 + 2 * MS, image())
    assert isinstance(sampler.sample(T0 + 2 * MS), Observation)
    sampler.push('hand', T0 + 3 * MS, image(shape=(2, 3, 3)))
    sampler.reset()
    assert codes(sampler.sample(T0 + 3 * MS)) == ['no_image']
    assert sampler.push('hand', T0 + 4 * MS, image(shape=(2, 3, 3))) is None
    assert sampler.sample(T0 + 4 * MS).images['hand'].shape == (2, 3, 3)


def test_a_reset_keeps_good_frames(sampler):
    """What the robot sees now is what the new episode begins with."""
    push_both(sampler, 0)
    sampler.reset()
    assert isinstance(sampler.sample(T0), Observation)


def test_a_refused_frame_answers_until_a_good_one(sampler):
    """A frame that could not be decoded is the reason that is given."""
    push_both(sampler, 0)
    sampler.refuse('static', Reason('bad_image', 'static: broken'))
    assert codes(sampler.sample(T0)) == ['bad_image']
    sampler.push('static', T0 + MS, image())
    assert isinstance(sampler.sample(T0 + MS), Observation)


def test_a_complete_set_is_one_stamp_of_all_cameras(sampler):
    """What lock-step ticks come from; the one before stays until the next is whole."""
    sampler.push('static', T0, image())
    assert sampler.complete_set() is None
    sampler.push('hand', T0, image())
    assert sampler.complete_set() == T0
    sampler.push('static', T0 + 100 * MS, image())
    assert sampler.complete_set() == T0
    sampler.push('hand', T0 + 100 * MS, image())
    assert sampler.complete_set() == T0 + 100 * MS


def test_an_unknown_camera_is_our_own_error(sampler):
    """Names are fixed when the sampler is made."""
    with pytest.raises(ValueError, match="'side' is none of static, hand"):
        sampler.push('side', T0, image())


def test_a_camera_that_is_always_late_is_paired_with_the_frames_of_its_time(sampler):
    """A hand camera 80 ms behind never gave an observation: only the newest frames were kept."""
    for step in range(6):
        sampler.push('static', T0 + 33 * step * MS, image(step))
        if step >= 3:
            sampler.push('hand', T0 + (33 * (step - 3) + 2) * MS, image(100 + step))
    observation = sampler.sample(T0 + 170 * MS)
    assert observation.stamp_ns == T0 + 68 * MS
    assert observation.images['static'][0, 0, 0] == 2
    assert observation.images['hand'][0, 0, 0] == 105
    assert sampler.complete_set() == observation.stamp_ns


@pytest.mark.parametrize('offset_ns', [0, 1_000, 11 * MS, 16 * MS])
def test_cameras_that_do_not_share_a_stamp_make_sets_of_the_nearest_frames(sampler, offset_ns):
    """Stamps had to be equal to the nanosecond, and nobody was told."""
    sets = []
    for step in range(5):
        at_ns = T0 + 33 * step * MS
        sampler.push('static', at_ns, image(step))
        sets.append(sampler.complete_set())
        sampler.push('hand', at_ns + offset_ns, image(step))
        sets.append(sampler.complete_set())
        sampled = sampler.sample(at_ns + 20 * MS, complete=True)
        assert abs(int(sampled.images['static'][0, 0, 0]) - step) <= 1
    found = list(dict.fromkeys(stamp for stamp in sets if stamp is not None))
    assert found[-1] >= T0 + 33 * 3 * MS and len(found) >= 4
    assert found == sorted(found)


def test_frames_of_one_stamp_are_never_paired_with_those_of_another(sampler):
    """While the second camera's frame is on its way, the set before is the newest whole one."""
    push_both(sampler, 0, 1)
    sampler.push('static', T0 + 33 * MS, image(2))
    assert sampler.complete_set() == T0
    sampled = sampler.sample(T0 + 40 * MS, complete=True)
    assert [sampled.images[name][0, 0, 0] for name in ('static', 'hand')] == [1, 1]
    sampler.push('hand', T0 + 33 * MS, image(2))
    assert sampler.complete_set() == T0 + 33 * MS


def test_cameras_that_are_never_near_enough_are_a_named_reason(sampler):
    """A hand camera at 5 Hz, between whose frames lie more than the skew that is allowed."""
    sampler.push('hand', T0, image())
    sampler.push('static', T0 + 80 * MS, image())
    assert sampler.complete_set() is None
    assert codes(sampler.sample(T0 + 90 * MS, complete=True)) == ['skew']


def test_a_flood_of_frames_does_not_fill_the_memory(sampler):
    """What is kept is bounded by time and by number."""
    for number in range(500):
        sampler.push('static', T0 + number * MS, image())
    assert len(sampler._recent['static']) <= 32


def test_a_state_is_what_it_was_at_the_images_and_never_later():
    """A bag knows what came later; the robot does not, and training must not."""
    sampler = StreamSampler(('hand',), 0.5, 0.1, ('joints',))
    for step in range(12):
        sampler.push_state('joints', T0 + step * 10 * MS, np.array([float(step)]))
    sampler.push('hand', T0 + 55 * MS, image())
    found = sampler.sample(T0 + 120 * MS)
    assert isinstance(found, Observation)
    assert found.states['joints'].tolist() == [5.0]


def test_a_set_is_complete_when_every_state_has_reached_it():
    """Lock-step simulation: the joints of this moment may come after its images."""
    sampler = StreamSampler(('hand',), 0.5, 0.1, ('joints',))
    sampler.push_state('joints', T0, np.zeros(1))
    sampler.push('hand', T0 + 100 * MS, image())
    assert sampler.complete_set() is None
    sampler.push_state('joints', T0 + 100 * MS, np.ones(1))
    assert sampler.complete_set() == T0 + 100 * MS
    found = sampler.sample(T0 + 100 * MS, complete=True)
    assert isinstance(found, Observation) and found.states['joints'].tolist() == [1.0]


@pytest.mark.parametrize(('stamps_ms', 'code'), [
    ((), 'no_state'), ((-700,), 'old_state'), ((-150,), 'state_skew'), ((20,), 'state_skew'),
    ((900,), 'clock')])
def test_a_state_that_is_missing_late_or_of_another_moment_is_named(
        stamps_ms, code):
    """Doubt means hold, and the operator is told which stream it is."""
    sampler = StreamSampler(('hand',), 0.5, 0.1, ('joints',))
    sampler.push('hand', T0, image())
    for stamp_ms in stamps_ms:
        sampler.push_state('joints', T0 + stamp_ms * MS, np.zeros(1))
    found = sampler.sample(T0 + 30 * MS)
    assert isinstance(found, Missing)
    assert [(reason.code, reason.camera) for reason in found.reasons] == [(code, 'joints')]


def test_a_state_begins_afresh_with_the_episode_where_it_was_refused():
    """A driver without stamps, a message out of order, a clock that jumped back."""
    sampler = StreamSampler(('hand',), 0.5, 0.1, ('joints',))
    assert sampler.push_state('joints', 0, np.zeros(1)).code == 'no_stamp'
    sampler.push('hand', T0, image())
    found = sampler.sample(T0)
    assert isinstance(found, Missing) and found.reasons[0].code == 'no_stamp'
    assert sampler.push_state('joints', T0, np.zeros(1)) is None
    assert isinstance(sampler.sample(T0), Observation)
    late = sampler.push_state('joints', T0 - 10 * MS, np.ones(1))
    assert late.code == 'out_of_order'
    sampler.push_state('joints', T0 - 5000 * MS, np.ones(1))
    found = sampler.sample(T0)
    assert isinstance(found, Missing) and {r.code for r in found.reasons} == {
        'no_image', 'old_state'}

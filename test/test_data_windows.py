"""The window rule: what each position sees, which labels count, where windows begin and end."""

import numpy as np
import pytest
from ros2_lstm_policy.data.windows import mixed_ids, WindowIndex


def test_a_window_holds_consecutive_frames_of_one_episode():
    """Windows never cross from one episode into the next."""
    index = WindowIndex((5, 4), window=3, chunk=2)
    assert len(index) == 3 + 2
    assert index.frames(np.arange(5)).tolist() == [
        [0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8]]
    assert index.episodes(np.arange(5)).tolist() == [0, 0, 0, 1, 1]


def test_the_first_window_begins_at_the_first_frame_as_the_robot_does():
    """At the start of an episode position t has seen t + 1 frames."""
    index = WindowIndex((4, 6), window=4, chunk=1)
    assert index.frames(np.array([0]))[0].tolist() == [0, 1, 2, 3]
    assert index.frames(np.array([1]))[0].tolist() == [4, 5, 6, 7]


def test_labels_end_with_the_episode():
    """An action after the last step is no label."""
    actions, valid = WindowIndex((4,), window=2, chunk=3).actions(np.array([2]))
    assert actions[0].tolist() == [[2, 3, 3], [3, 3, 3]]
    assert valid[0].tolist() == [[True, True, False], [True, False, False]]


def test_a_short_episode_is_one_window_padded_at_its_end():
    """The steps come first, as live; padding repeats the last frame and has no label."""
    index = WindowIndex((2, 5), window=4, chunk=2)
    assert len(index) == 1 + 2
    assert index.frames(np.array([0]))[0].tolist() == [0, 1, 1, 1]
    _, valid = index.actions(np.array([0]))
    assert valid[0].tolist() == [[True, True], [True, False], [False, False], [False, False]]


@pytest.mark.parametrize('lengths', [(1,), (7, 3, 9), (8, 8), (1, 2, 30)])
def test_every_step_is_a_label_and_the_last_of_a_window_or_in_the_first(lengths):
    """No recorded step is lost, whatever the lengths."""
    index = WindowIndex(lengths, window=5, chunk=3)
    frames = index.frames(np.arange(len(index)))
    _, valid = index.actions(np.arange(len(index)))
    assert set(frames[valid[..., 0]]) == set(range(sum(lengths)))


def test_future_frames_follow_each_position_and_stop_at_the_end():
    """The forward prediction's frame k is the one after action k."""
    index = WindowIndex((4,), window=2, chunk=2)
    assert index.future_frames(np.array([1]))[0].tolist() == [[2, 3], [3, 3]]


def test_a_window_outside_is_an_error():
    """A wrong number never reads another episode's frames."""
    with pytest.raises(IndexError, match='numbered 0 to 2'):
        WindowIndex((5,), window=3, chunk=1).frames(np.array([3]))


@pytest.mark.parametrize('arguments', [((), 2, 2), ((3, 0), 2, 2), ((3,), 0, 2), ((3,), 2, 0)])
def test_an_index_without_windows_is_refused(arguments):
    """Empty episodes, windows and chunks are errors where they are known."""
    with pytest.raises(ValueError, match='at least 1|at least one step'):
        WindowIndex(*arguments)


def test_sources_are_drawn_by_weight_and_not_by_size():
    """A source of 10 windows and one of 1000 with weights 3 and 1."""
    sources = np.repeat([1, 0], [1000, 10])
    ids = mixed_ids(sources, [3.0, 1.0], 20000, np.random.default_rng(0))
    assert np.mean(sources[ids] == 0) == pytest.approx(0.75, abs=0.02)
    assert set(ids[sources[ids] == 0]) == set(range(1000, 1010))


def test_a_source_without_windows_cannot_be_mixed():
    """A weight for an empty source is an error, not a silent zero."""
    with pytest.raises(ValueError, match='window counts'):
        mixed_ids(np.zeros(4, int), [1.0, 1.0], 5, np.random.default_rng(0))

"""Steps that see the same as the one before."""

import numpy as np
from ros2_lstm_policy.data.repeats import distinct


def test_a_step_is_new_where_any_camera_sees_something_else():
    """In each row anew, and every step finds what it sees."""
    static, hand = np.array([[3, 3, 4, 4], [4, 4, 4, 4]]), np.array([[0, 0, 0, 1], [1, 1, 2, 2]])
    found = distinct([static, hand])
    assert found.first_U.tolist() == [0, 2, 3, 4, 6]
    assert found.of_BT.tolist() == [[0, 0, 1, 2], [3, 3, 4, 4]]
    for images in (static, hand):
        np.testing.assert_array_equal(images.ravel()[found.first_U][found.of_BT], images)


def test_counts_are_filled_up_and_full_batches_are_left_alone():
    """A GPU sees few shapes; filling up to all that there is saves nothing."""
    images = np.array([[0, 0, 0, 0, 1, 1]])
    assert distinct([images], 4).first_U.tolist() == [0, 4, 0, 0]
    assert distinct([images], 6) is None
    assert distinct([np.arange(6)[None]]) is None

"""As much as a recording promises is what is read, whatever its format."""

from pathlib import Path

import numpy as np
import pytest
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.promises import check_promises, Promise

HERE = Path('here')


def test_a_kept_promise_is_no_problem():
    """Equal numbers, and spans that differ by rounding."""
    assert check_promises([Promise('rows', '', 20, 20, 'info.json'),
                           Promise('seconds', 'a.mp4', 2.0, 2.00005, 'info.json', 1e-4)],
                          HERE, 'one') == []


@pytest.mark.parametrize('came', [19, 21, 0, np.nan])
def test_another_number_than_promised_breaks_the_episode(came):
    """One fewer, one more, none, and what is no number, which no comparison may pass."""
    with pytest.raises(RecordingError) as caught:
        check_promises([Promise('frames', 'static', 20, came, 'info.json')], HERE, 'one',
                       'convert it again')
    assert str(caught.value) == (
        "here: episode 'one': [counts] info.json promises 20 frames of static, found "
        f'{came:.12g}: convert it again')


def test_more_than_promised_is_a_note_where_that_is_fine():
    """A counter that was written down too early; fewer is still an error."""
    promise = Promise('messages', '/rgb', 0, 20, 'metadata.yaml', more_is_fine=True)
    note, = check_promises([promise], HERE, 'one')
    assert (note.rule, note.fatal) == ('counts', False)
    for came in (19, np.nan):
        with pytest.raises(RecordingError, match='promises 20 messages of /rgb'):
            check_promises([promise._replace(promised=20, came=came)], HERE, 'one')


def test_many_broken_promises_are_one_line():
    """The first three are named and the others counted."""
    promises = [Promise('messages', f'/{n}', 2, 1, 'metadata.yaml') for n in range(9)]
    with pytest.raises(RecordingError, match='/2, found 1; and 6 more$'):
        check_promises(promises, HERE, '')

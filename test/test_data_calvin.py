"""CALVIN folders whose annotations or steps are not what they should be."""

from data_recordings import RunsCode, smooth_image, write_calvin
import numpy as np
import pytest
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.sources import open_source, SourceSpec

SPANS = ((100, 107), (110, 119))


def read(root):
    """Return the names of good episodes, and (rule, file) of every problem."""
    readings, problems = [], []
    for recording in open_source(SourceSpec(root)):
        good, found = read_checked(recording, Limits())
        for reading in good:
            try:
                for frames in reading.episode.frames.values():
                    assert len([frames[step] for step in range(len(frames))]) == len(frames)
            except RecordingError as error:
                found.append(error.problem)
            else:
                readings.append(reading.episode.instruction)
        problems += [(problem.rule, problem.where.name) for problem in found]
    return readings, problems


def annotated(root, words, spans):
    """Write a folder with these annotations."""
    return write_calvin(root, content={'language': {'ann': words}, 'info': {'indx': spans}})


@pytest.mark.parametrize(('words', 'spans', 'rule'), [
    ([None, 'go'], SPANS, 'no-instruction'), ([b'go', 'go'], SPANS, 'no-instruction'),
    ([['go'], 'go'], SPANS, 'no-instruction'), ([float('nan'), 'go'], SPANS, 'no-instruction'),
    (['go', 'go'], (None, SPANS[1]), 'range'), (['go', 'go'], ((100,), SPANS[1]), 'range'),
    (['go', 'go'], (('a', 'b'), SPANS[1]), 'range'),
    (['go', 'go'], ((100.5, 107), SPANS[1]), 'range'),
    (['go', 'go'], ((float('nan'), 107), SPANS[1]), 'range'),
    (['go', 'go'], ((107, 100), SPANS[1]), 'range'),
    (['go', 'go'], ((95, 107), SPANS[1]), 'range')])
def test_an_annotation_that_means_nothing_leaves_the_others(tmp_path, words, spans, rule):
    """None is never the instruction 'None', and a span of text no span."""
    readings, problems = read(annotated(tmp_path / 'training', words, spans))
    assert readings == ['go']
    assert [found for found, _ in problems] == [rule]


@pytest.mark.parametrize(('words', 'spans', 'said'), [
    (['go'], SPANS, r'\[counts\] info/indx promises 2 texts of language/ann, found 1'),
    (None, SPANS, r'ann: expected a list, found null'), ('go', SPANS, 'ann: expected a list'),
    (['go'], 3, 'indx: expected a list')])
def test_words_and_spans_that_are_not_of_each_other_are_refused(tmp_path, words, spans, said):
    """One text less shifts the words of all that follow."""
    with pytest.raises(RecordingError, match=said):
        read(annotated(tmp_path / 'training', words, spans))


@pytest.mark.parametrize('content', [{'language': None, 'info': {}}, {}, [1], 'text',
                                     {'language': {'ann': []}}])
def test_annotations_of_another_shape_are_refused(tmp_path, content):
    """One line, no traceback."""
    with pytest.raises(RecordingError, match='expected'):
        read(write_calvin(tmp_path / 'training', content=content))


@pytest.mark.parametrize('ranges', [np.zeros((2, 3), int), np.array([[100.0, np.nan]]),
                                    np.array([['100', '119']]), np.array(100)])
def test_an_index_of_another_type_is_refused(tmp_path, ranges):
    """Rows of first and last step, as whole numbers."""
    root = write_calvin(tmp_path / 'training')
    np.save(root / 'ep_start_end_ids.npy', ranges)
    with pytest.raises(RecordingError, match='expected rows of first and last step'):
        read(root)


@pytest.mark.parametrize('place', ['ep_start_end_ids.npy', 'episode_0000104.npz'])
def test_a_pickle_in_an_array_file_never_runs(tmp_path, place):
    """Where plain arrays belong, no object is built from a file."""
    root, target = write_calvin(tmp_path / 'training'), tmp_path / 'it_ran'
    objects = np.empty((), object)
    objects[()] = RunsCode(target)
    if place.endswith('.npy'):
        np.save(root / place, objects, allow_pickle=True)
        with pytest.raises(RecordingError, match='damaged'):
            read(root)
    else:
        np.savez(root / place, rel_actions=objects)
        assert read(root) == (['push the block 1'], [('damaged', place)])
    assert not target.exists()


@pytest.mark.parametrize(('arrays', 'rule'), [
    ({'rel_actions': None}, 'missing-topic'), ({'rel_actions': np.zeros(8)}, 'action-range'),
    ({'rel_actions': np.array(['0'] * 7)}, 'action-range'),
    ({'rgb_static': smooth_image(4, 'static').transpose(2, 0, 1)}, 'damaged'),
    ({'rgb_static': smooth_image(4, 'static') / 255.0}, 'damaged')])
def test_a_step_that_lacks_something_leaves_its_episode_out(tmp_path, arrays, rule):
    """Named by its own file; the other annotation is read."""
    root = write_calvin(tmp_path / 'training')
    path = root / 'episode_0000104.npz'
    found = dict(np.load(path)) | arrays
    np.savez(path, **{name: array for name, array in found.items() if array is not None})
    assert read(root) == (['push the block 1'], [(rule, path.name)])

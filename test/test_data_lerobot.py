"""LeRobot datasets that are not what their tables say, or mean something else."""

import json

from data_recordings import (arm_of, rewrite_info, rewrite_rows, smooth_image, WORDS,
                             write_lerobot_v21, write_lerobot_v30)
import numpy as np
import pytest
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.lerobot.names import ACTION_NAMES
from ros2_lstm_policy.data.lerobot.video import FrameTimes, VideoFrames
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.sources import open_source, SourceSpec

KEY = 'observation.images.static'
ROLL = ['x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper']


def read(path, **layout):
    """Return the readings and the problems of every episode."""
    readings, problems = [], []
    for recording in open_source(SourceSpec(path, lerobot=LeRobotLayout(**layout))):
        good, found = read_checked(recording, Limits())
        readings += good
        problems += found
    return readings, problems


def rules_of(path, **layout):
    """Return (rule, fatal) of every problem, decoding every image."""
    readings, problems = read(path, **layout)
    for reading in readings:
        for frames in reading.episode.frames.values():
            assert [frames[step].dtype for step in range(len(frames))] == ['uint8'] * len(frames)
    return [(problem.rule, problem.fatal) for problem in problems]


def read_strictly(path):
    """Read every episode, and raise what is wrong with the first broken one."""
    return [recording.read() for recording in open_source(SourceSpec(path))]


def frame_numbers(episode):
    """Return which of the written images each step sees, by the camera in front."""
    wanted = np.stack([smooth_image(step, 'static') for step in range(40)]).astype(int)
    frames = episode.frames['static']
    return [int(np.abs(wanted - frames[step]).mean((1, 2, 3)).argmin())
            for step in range(len(frames))]


def keep_rows(columns, kept, renumber):
    """Remove rows from the table, as a script that trims pauses does."""
    for name, values in columns.items():
        columns[name] = [values[row] for row in kept]
    if renumber:
        columns['frame_index'] = list(range(len(kept)))


def set_lengths(root, length):
    """Say in the table of episodes how many rows the first one has."""
    (root / 'meta' / 'episodes.jsonl').write_text(json.dumps(
        {'episode_index': 0, 'tasks': [WORDS], 'length': length}))


@pytest.mark.parametrize('renumber', [False, True])
@pytest.mark.parametrize('kept', [list(range(3, 10)), [0, 1, 2, 3, 7, 8, 9]])
def test_rows_that_were_removed_leave_every_other_with_its_own_frame(tmp_path, kept, renumber):
    """A row's time says where it lies in the video; its place in the table has moved."""
    root = write_lerobot_v21(tmp_path / 'set', 1)
    rewrite_rows(root, lambda columns: keep_rows(columns, kept, renumber))
    set_lengths(root, len(kept))
    (reading,), _ = read(root)
    assert frame_numbers(reading.episode) == kept
    np.testing.assert_array_equal(reading.episode.actions['arm'],
                                  np.stack([arm_of(row) for row in kept]))


def test_frames_behind_the_last_row_are_refused(tmp_path):
    """Rows were removed and their times counted anew: nothing says which frames are theirs."""
    root = write_lerobot_v21(tmp_path / 'set', 1)

    def renumber(columns):
        keep_rows(columns, list(range(3, 10)), True)
        columns['timestamp'] = [row / 10 for row in range(7)]
    rewrite_rows(root, renumber)
    set_lengths(root, 7)
    assert rules_of(root) == [('lengths', True)]
    assert rules_of(write_lerobot_v30(tmp_path / 'late', frames=20)) == [('lengths', True)]


def write_clip(root, images, **options):
    """Replace the first video of a camera by these images."""
    from ros2_lstm_policy.data.lerobot.video import write_video
    path = root / 'videos' / 'chunk-000' / KEY / 'episode_000000.mp4'
    path.unlink()
    write_video(path, images, **options)


@pytest.mark.parametrize(('count', 'fps', 'rule'), [
    (8, 10, 'no-frame'),   # two images were dropped
    (10, 30, 'no-frame'),  # played three times as fast
    (10, 5, 'no-frame')])
def test_a_video_without_a_frame_at_a_rows_time_is_refused(tmp_path, count, fps, rule):
    """The nearest frame is another step's: LeRobot's own loader raises there."""
    root = write_lerobot_v21(tmp_path / 'set', 2)
    write_clip(root, [smooth_image(step, 'static') for step in range(count)], fps=fps)
    readings, problems = read(root)
    assert [(p.rule, p.episode) for p in problems] == [(rule, 'set-000000')]
    assert [reading.episode.name for reading in readings] == ['set-000001']


def test_a_faster_video_is_read_by_its_times(tmp_path):
    """Thirty frames a second under ten rows a second: every third frame is a row's."""
    root = write_lerobot_v21(tmp_path / 'set', 1)
    write_clip(root, [smooth_image(step, 'static') for step in range(30)], fps=30)
    (reading,), problems = read(root)
    assert problems == []
    assert frame_numbers(reading.episode) == list(range(0, 30, 3))


def test_a_missing_video_names_its_file(tmp_path):
    """Downloads stop half-way; the other episodes are read."""
    root = write_lerobot_v21(tmp_path / 'set', 2)
    path = root / 'videos' / 'chunk-000' / KEY / 'episode_000000.mp4'
    path.unlink()
    readings, problems = read(root)
    assert [(problem.rule, problem.where) for problem in problems] == [('damaged', path)]
    assert len(readings) == 1


def test_frames_are_found_after_a_jump_to_any_of_them(tmp_path):
    """Frames stored out of order, few key frames: a seek may land behind what is wanted."""
    import av
    path = tmp_path / 'one.mp4'
    images = [smooth_image(step, 'static') for step in range(30)]
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=10, options={
            'crf': '10', 'g': '10', 'bf': '3', 'x264-params': 'open-gop=1:b-adapt=0'})
        stream.width, stream.height, stream.pix_fmt = 32, 24, 'yuv420p'
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
    times = FrameTimes.of(path)
    frames = VideoFrames(path, 'one', times, np.arange(30), np.arange(30) / 10)
    for step in (29, 9, 10, 0, 11, 19, 18, 8):
        assert np.abs(frames[step].astype(int) - images[step]).mean() < 6, step


@pytest.mark.parametrize(('spans', 'good'), [
    (((0, 0.6), (0.6, 1.2), (1.2, 1.8)), [0, 1, 2]),
    (((0, 0.4), (0.4, 1.0), (1.0, 1.6)), [1]),         # four frames for six rows, the last early
    (((0, 0.6), (0.7, 1.3), (1.2, 1.8)), [0]),         # drifted by a frame
    (((0, 0.6), (0.54, 1.2), (1.2, 1.8)), [2]),        # by less than one
    (((0, 0.6), (0, 0.6), (1.2, 1.8)), [2]),           # the same span twice
    (((0.1, 0.7), (0.7, 1.3), (1.3, 1.9)), [1]),       # all of them late
    (((0.05, 0.65), (0.65, 1.25), (1.25, 1.85)), [])])
def test_spans_that_cannot_be_right_leave_their_episodes_out(tmp_path, spans, good):
    """One span that drifted shifts every image of its episode against its actions."""
    root = write_lerobot_v30(tmp_path / 'set', spans=spans)
    readings, problems = read(root)
    assert {problem.rule for problem in problems} <= {'counts', 'no-frame', 'lengths'}
    assert [int(reading.episode.name[-1]) for reading in readings] == good
    if good == [0, 1, 2]:
        assert frame_numbers(readings[1].episode) == list(range(6, 12))


def test_an_episode_that_was_deleted_from_the_tables_leaves_its_frames_behind(tmp_path):
    """Then frames between two spans belong to nobody, and that is right."""
    import pyarrow.parquet as pq
    root = write_lerobot_v30(tmp_path / 'set')
    path = root / 'meta' / 'episodes' / 'chunk-000' / 'file-000.parquet'
    pq.write_table(pq.read_table(path).take([0, 2]), path)
    rewrite_info(root, lambda info: info.update(total_episodes=2, total_frames=12))
    readings, problems = read(root)
    assert problems == []
    assert frame_numbers(readings[1].episode) == list(range(12, 18))


@pytest.mark.parametrize(('change', 'rule'), [
    (lambda columns: columns.update(frame_index=[0, 1, 2, 3, 3, 5, 6, 7, 8, 9]), 'row-order'),
    (lambda columns: columns.update(index=[0, 1, 2, 4, 3, 5, 6, 7, 8, 9]), 'row-order'),
    (lambda columns: columns.update(episode_index=[0] * 5 + [1] * 5), 'lengths'),
    (lambda columns: columns.update(episode_index=[1] * 10), 'lengths'),
    (lambda columns: columns.update(stamp_ns=list(range(1, 11)), timestamp=[
        0, .1, .3, .2, .4, .5, .6, .7, .8, .9]), 'row-order'),
    (lambda columns: keep_rows(columns, [*range(10), 0], False)
     or columns['episode_index'].__setitem__(10, 1), 'counts'),
    (lambda columns: columns.pop('timestamp'), 'missing-topic'),
    (lambda columns: columns.pop('episode_index'), 'missing-topic')])
def test_rows_that_several_columns_order_differently_are_refused(tmp_path, change, rule):
    """Which of them is right nobody knows."""
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1), change)
    assert rules_of(root) == [(rule, True)]


def test_rows_are_read_by_their_numbers_and_not_by_their_place(tmp_path):
    """A table that was shuffled as a whole is still the same table."""
    order = np.random.default_rng(3).permutation(10).tolist()
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1), lambda columns: keep_rows(
        columns, order, False))
    (reading,), problems = read(root)
    assert problems == []
    assert frame_numbers(reading.episode) == list(range(10))


@pytest.mark.parametrize(('name', 'cell'), [
    *((name, cell) for name in ('timestamp', 'frame_index', 'task_index')
      for cell in (None, 'three', [0], float('nan'))),
    *(('action', cell) for cell in (None, 'three', [None] * 7, [0.0] * 6, ['a'] * 7, 0.0))])
def test_a_cell_of_another_type_is_named_by_its_row(tmp_path, name, cell):
    """Null, text, a list where a number belongs: file, episode, row, found, wanted."""
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1), lambda columns: columns.update(
        {name: [cell] * 10}))
    _, (problem,) = read(root)
    assert problem.rule == 'damaged'
    assert problem.episode == 'set-000000'
    assert f'row 0: {name}: expected a' in problem.message
    assert 'found' in problem.message


def test_numbers_of_other_types_are_numbers(tmp_path):
    """Whole numbers that pandas kept as floats, and half precision."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    root = write_lerobot_v21(tmp_path / 'set', 1)
    path = root / 'data' / 'chunk-000' / 'episode_000000.parquet'
    table = pq.read_table(path)
    for name, kind in (('task_index', pa.float64()), ('frame_index', pa.int8()),
                       ('timestamp', pa.float64()), ('action', pa.list_(pa.float64(), 7))):
        column = pa.array(table[name].to_pylist(), kind)
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, path)
    assert rules_of(root) == []


@pytest.mark.parametrize(('cell', 'said'), [
    (lambda png: png, None), (lambda png: {'bytes': png, 'path': None}, None),
    (lambda png: None, 'found null'), (lambda png: {'bytes': None, 'path': 'a.png'}, 'a.png'),
    (lambda png: 'images/0.png', 'images/0.png'), (lambda png: [[[0, 0, 0]]], 'found [[[0'),
    (lambda png: b'', "found b''"), (lambda png: png[:20], 'cannot|can be decoded')])
def test_images_in_rows_are_encoded_bytes_or_named(tmp_path, cell, said):
    """Two ways to keep them are read; everything else is said."""
    import cv2
    root = write_lerobot_v21(tmp_path / 'set', 1)
    cells = {camera: [
        cell(cv2.imencode('.png', smooth_image(step, camera)[..., ::-1])[1].tobytes())
        for step in range(10)] for camera in ('static', 'hand')}
    rewrite_rows(root, lambda columns: columns.update(
        {f'observation.images.{camera}': values for camera, values in cells.items()}))
    rewrite_info(root, lambda info: [feature.update(dtype='image') for name, feature
                                     in info['features'].items() if 'images' in name])
    if said is None:
        assert rules_of(root) == []
        (reading,), _ = read(root)
        np.testing.assert_array_equal(reading.episode.frames['hand'][7], smooth_image(7, 'hand'))
    else:
        recording, = open_source(SourceSpec(root))
        with pytest.raises(RecordingError, match=said.replace('[', r'\[')):
            recording.read()[0].episode.frames['static'][0]


@pytest.mark.parametrize('task', [None, ['pick', 'lift'], {'en': 'pick'}, 3])
def test_words_that_are_no_text_are_named(tmp_path, task):
    """Annotations in several languages, or none."""
    root = write_lerobot_v21(tmp_path / 'set', 1)
    (root / 'meta' / 'tasks.jsonl').write_text(json.dumps({'task_index': 0, 'task': task}))
    _, (problem,) = read(root)
    assert problem.rule == 'no-instruction'
    assert 'expected a text in' in problem.message
    assert 'tasks.jsonl' in problem.message


@pytest.mark.parametrize(('key', 'value'), [
    ('fps', None), ('fps', 'ten'), ('fps', 0), ('fps', float('nan')), ('fps', True),
    ('features', []), ('features', {'action': None}), ('chunks_size', 0), ('chunks_size', '9'),
    ('data_path', None), ('data_path', 'data/{nothing}.parquet'), ('video_path', 3),
    ('codebase_version', 3), ('total_episodes', 'two')])
def test_a_value_of_another_type_in_info_json_is_named(tmp_path, key, value):
    """One line with the file and the key, before anything is read."""
    root = rewrite_info(write_lerobot_v21(tmp_path / 'set', 1),
                        lambda info: info.update({key: value}))
    with pytest.raises(RecordingError, match=r'info.json: \[damaged\]'):
        read_strictly(root)


def test_a_count_in_info_json_that_is_wrong_is_said(tmp_path):
    """Episodes that are missing stop it; rows are counted by episode, so theirs is a note."""
    root = rewrite_info(write_lerobot_v21(tmp_path / 'set', 2),
                        lambda info: info.update(total_episodes=3))
    with pytest.raises(RecordingError, match='promises 3 episodes, found 2'):
        read(root)
    rewrite_info(root, lambda info: info.update(total_episodes=2, total_frames=21))
    assert rules_of(root) == [('counts', False)]


@pytest.mark.parametrize('line', ['{"episode_index": 1, "length": null}', '{"episode', '[]',
                                  '{"episode_index": "1", "length": 10}',
                                  '{"episode_index": 1, "length": 10.5}',
                                  '{"episode_index": 1}'])
def test_a_bad_line_in_the_table_of_episodes_leaves_the_others(tmp_path, line):
    """It is named by its number, and the other episodes are read."""
    root = write_lerobot_v21(tmp_path / 'set', 3)
    path = root / 'meta' / 'episodes.jsonl'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join([lines[0], line, lines[2]]))
    readings, (problem,) = read(root)
    assert [reading.episode.name[-1] for reading in readings] == ['0', '2']
    assert (problem.rule, problem.where) == ('damaged', path)
    assert 'line 2' in str(problem) or 'cannot be read' in problem.message


def test_an_episode_that_is_listed_twice_is_left_out(tmp_path):
    """Two lines of one number: which is right nobody knows."""
    root = write_lerobot_v21(tmp_path / 'set', 2)
    path = root / 'meta' / 'episodes.jsonl'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join([*lines, lines[0]]))
    readings, problems = read(root)
    assert [reading.episode.name[-1] for reading in readings] == ['1']
    assert {problem.message for problem in problems} == {'episode 0 is listed twice'}


def test_rows_and_tables_that_name_different_tasks_are_said(tmp_path):
    """The words of the rows are taken."""
    root = write_lerobot_v21(tmp_path / 'set', 1)
    path = root / 'meta' / 'episodes.jsonl'
    path.write_text(path.read_text().replace(WORDS, 'open the drawer'))
    assert rules_of(root) == [('several-tasks', False)]


def with_names(root, names, features='names'):
    """Give the action other names in info.json."""
    return rewrite_info(root, lambda info: info['features']['action'].update({features: names}))


@pytest.mark.parametrize('names', [
    [*(f'joint_{n}.pos' for n in range(6)), 'gripper.pos'],
    {'motors': ['shoulder_pan', 'shoulder_lift', 'elbow', 'wrist_1', 'wrist_2', 'wrist_3',
                'gripper']},
    [*(f'J{n}' for n in range(1, 7)), 'gripper'], [*(f'delta_joint_{n}' for n in range(6)), 'g'],
    {f'joint{n}': n for n in range(7)}, [*(f'panda_joint{n}' for n in range(1, 8))]])
@pytest.mark.parametrize('layout', [{}, {'arm': 'displacement'}, {'arm_scale': (0.1,) * 6}])
def test_joints_are_never_read_as_displacements(tmp_path, names, layout):
    """A six-axis arm with a gripper has seven values, too; a constant angle is no motion."""
    root = with_names(write_lerobot_v21(tmp_path / 'set', 1), names)
    with pytest.raises(RecordingError, match=r'action-meaning.*those of joints'):
        read(root, **layout)


def test_joints_are_named_before_cameras_that_have_other_names(tmp_path):
    """Nobody should set the cameras of a dataset whose action cannot be read."""
    root = with_names(write_lerobot_v21(tmp_path / 'set', 1), [f'{n}.pos' for n in (
        'shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll', 'gripper')])
    rewrite_info(root, lambda info: info['features'].pop(KEY))
    with pytest.raises(RecordingError, match='those of joints'):
        read(root)


@pytest.mark.parametrize(('names', 'said'), [
    (ROLL, 'may be poses or displacements'),
    (['x', 'y', 'z', 'rx', 'ry', 'rz', 'gripper'], 'may be poses or displacements'),
    (['ee.x', 'ee.y', 'ee.z', 'ee.wx', 'ee.wy', 'ee.wz', 'ee.gripper_pos'], 'those of poses'),
    ([f'target_{name}' for name in ROLL], 'those of poses'),
    (['vx', 'vy', 'vz', 'wx', 'wy', 'wz', 'gripper'], 'those of velocities')])
def test_names_that_leave_the_meaning_open_are_asked_about(tmp_path, names, said, capsys):
    """The same names are given to poses and to displacements; a key says which it is."""
    root = with_names(write_lerobot_v21(tmp_path / 'set', 1), names)
    assert main(['validate', str(root)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert 'lerobot.arm=displacement' in error
    assert main(['validate', str(root), 'lerobot.arm=displacement']) == 0


def test_columns_are_found_by_their_names(tmp_path):
    """The gripper first, and the rotations before the positions."""
    names = ['gripper', 'delta_yaw', 'delta_pitch', 'delta_roll', 'delta_z', 'delta_x', 'delta_y']
    order = [6, 5, 4, 3, 2, 0, 1]
    root = with_names(write_lerobot_v21(tmp_path / 'set', 1), names)
    rewrite_rows(root, lambda columns: columns.update(
        action=[[row[place] for place in order] for row in columns['action']]))
    (reading,), problems = read(root, rotation='rotation_vector')
    assert problems == []
    np.testing.assert_array_equal(reading.episode.actions['arm'],
                                  np.stack([arm_of(n) for n in range(10)]))
    assert reading.episode.actions['gripper'][:, 0].tolist() == [0, 1] * 5


def test_roll_pitch_and_yaw_are_euler_angles_unless_it_is_said(tmp_path):
    """The names decide the convention where the layout leaves it open."""
    root = with_names(write_lerobot_v21(tmp_path / 'set', 1), [f'delta_{name}' for name in ROLL])
    rewrite_rows(root, lambda columns: columns.update(
        action=[[0.0, 0.0, 0.0, 0.5, 0.4, 0.3, 1.0]] * 10))
    (euler,), _ = read(root)
    (vector,), _ = read(root, rotation='rotation_vector')
    np.testing.assert_allclose(vector.episode.actions['arm'][0, 3:], [0.5, 0.4, 0.3], rtol=1e-6)
    assert np.abs(euler.episode.actions['arm'][0, 3:] - [0.5, 0.4, 0.3]).max() > 0.01


@pytest.mark.parametrize('names', [
    ['world_vector_0', 'world_vector_1', 'world_vector_2', 'rotation_delta_0', 'rotation_delta_1',
     'rotation_delta_2', 'gripper_closedness_action'], [*ACTION_NAMES[:6], 'gripper_closed']])
def test_a_gripper_that_is_named_the_other_way_round_is_refused(tmp_path, names):
    """One means closed, says its name; the layout says that one means open."""
    root = with_names(write_lerobot_v21(tmp_path / 'set', 1), names)
    with pytest.raises(RecordingError, match='say the opposite'):
        read(root, arm='displacement')
    (reading,), _ = read(root, arm='displacement', gripper_closed=1.0, gripper_open=0.0)
    assert reading.episode.actions['gripper'][:, 0].tolist() == [1, 0] * 5


@pytest.mark.parametrize(('names', 'said'), [
    (['x', 'y', 'z'], 'promises 3 values of action, found 7'),
    (['x', 'y', 'z', 'qx', 'qy', 'qz', 'qw', 'gripper'], 'promises 8 values'),
    (['gripper', *(f'motor_{n}' for n in range(6))], 'not every name is known')])
def test_names_that_do_not_fit_are_refused(tmp_path, names, said):
    """Another number of them, or a gripper that stands where it is not expected."""
    root = with_names(write_lerobot_v21(tmp_path / 'set', 1), names)
    with pytest.raises(RecordingError, match=said):
        read(root, arm='displacement')


@pytest.mark.parametrize('names', [None, [], ['action'], {'motors': [f'motor_{n}'
                                                                     for n in range(7)]}])
def test_names_that_say_nothing_are_noted_once(tmp_path, names):
    """Nothing is known then but the number of columns; a key says what they are."""
    root = with_names(write_lerobot_v21(tmp_path / 'set', 2), names)
    assert rules_of(root) == [('action-meaning', False)]
    assert rules_of(root, arm='displacement') == []


@pytest.mark.parametrize('details', [{'info': {'video.is_depth_map': True}},
                                     {'info': {'is_depth_map': True}}, {'dtype': 'float32'}])
def test_a_camera_that_is_no_colour_camera_is_refused(tmp_path, details):
    """Info.json says that the feature holds depths, or no images at all."""
    root = rewrite_info(write_lerobot_v21(tmp_path / 'set', 1),
                        lambda info: info['features'][KEY].update(details))
    with pytest.raises(RecordingError, match=KEY):
        read(root)

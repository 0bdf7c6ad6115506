"""Every rule of docs/recordings.md is broken by a recording made for it, and named."""

from pathlib import Path
import re

from data_recordings import (arm_of, info, manifest, PERIOD_NS, rewrite_rows, smooth_image,
                             START_NS, write_bag, write_calvin, write_lerobot_v21, write_libero)
import numpy as np
import pytest
from ros2_lstm_policy.config import dump
from ros2_lstm_policy.data.build import open_store, StoreRequest
from ros2_lstm_policy.data.checks import check, Limits, read_checked
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.episodes import Reading
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.rosbag import BagFile, format as bag
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.types import Episode

RULES = Path(__file__).parents[1] / 'docs' / 'recordings.md'


def problems_at(path, limits=None, **options):
    """Return (rule, fatal) of every problem that training would meet at a path."""
    found = []
    try:
        for recording in open_source(SourceSpec(path, **options)):
            readings, problems = read_checked(recording, limits or Limits())
            found += problems
            for reading in readings:
                for frames in reading.episode.frames.values():
                    for step in range(len(frames)):
                        frames[step]
    except RecordingError as error:
        found.append(error.problem)
    return [(problem.rule, problem.fatal) for problem in found]


def broken(rule):
    """Return what `problems_at` gives for one fatal problem."""
    return [(rule, True)]


def noted(rule):
    """Return what `problems_at` gives for one note."""
    return [(rule, False)]


def write_by_hand(path, messages, text=None):
    """Write a bag from (topic, step, content), the stamp's step behind it where it differs."""
    file = BagFile(path)
    types = {'/rgb': bag.IMAGE, '/hand_rgb': bag.IMAGE, '/top/rgb': bag.IMAGE,
             '/arm_delta': bag.TWIST, '/gripper_command': bag.GRIPPER, '/instruction': bag.STRING,
             '/episode/info': bag.STRING, '/episode/problems': bag.STRING}
    layout = file.message('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
    if text is not None:
        messages = [('/episode/info', 0, text), *messages]
    for topic, step, content, *stamped in messages:
        file.add_topic(topic, types[topic])
        stamp = START_NS + (stamped or [step])[0] * PERIOD_NS
        if types[topic] == bag.STRING:
            data = {'data': content}
        elif types[topic] == bag.GRIPPER:
            data = {'layout': layout, 'data': np.array([content])}
        elif types[topic] == bag.TWIST:
            vectors = [file.message('geometry_msgs/msg/Vector3', x=content, y=0.0, z=0.0)
                       for _ in range(2)]
            data = {'header': file.header(stamp), 'twist': file.message(
                'geometry_msgs/msg/Twist', linear=vectors[0], angular=vectors[1])}
        else:
            image = smooth_image(step, 'static')
            data = {'header': file.header(stamp), 'height': image.shape[0],
                    'width': image.shape[1], 'encoding': 'rgb8', 'is_bigendian': 0,
                    'step': 3 * image.shape[1], 'data': image.reshape(-1)}
        file.write(topic, START_NS + step * PERIOD_NS, file.serialise(types[topic], **data))
    return file.close()


def steps_of(begin, end, cameras=('/rgb', '/hand_rgb')):
    """Return the messages of good steps."""
    return [message for step in range(begin, end) for message in (
        *((camera, step, None) for camera in cameras),
        ('/gripper_command', step, 1.0), ('/arm_delta', step, 0.01))]


def test_a_good_bag_by_hand_has_no_problem(tmp_path):
    """What the broken ones below are held against."""
    assert problems_at(write_by_hand(
        tmp_path / 'one', [('/instruction', 0, 'go'), *steps_of(0, 6)])) == []


def test_what_the_recorder_missed_is_told_again(tmp_path):
    """The bag is good; that a camera was silent for a while is said to whoever reads it."""
    assert problems_at(write_by_hand(tmp_path / 'one', [
        ('/instruction', 0, 'go'), *steps_of(0, 6),
        ('/episode/problems', 6, '/hand_rgb was silent')])) == noted('recorder')


@pytest.mark.parametrize('words', ['', '   '])
def test_empty_words_are_no_instruction(tmp_path, words):
    """An empty instruction stops the robot; nothing is learned from it."""
    assert problems_at(write_bag(tmp_path / 'one', words=words)) == broken('no-instruction')


def test_a_task_without_words_is_no_instruction(tmp_path):
    """The row names a task that the table does not have."""
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1),
                        lambda columns: columns.update(task_index=[7] * 10))
    assert problems_at(root) == broken('no-instruction')
    root = write_lerobot_v21(tmp_path / 'silent', 1)
    (root / 'meta' / 'tasks.jsonl').write_text('{"task_index": 0, "task": " "}')
    assert problems_at(root) == broken('no-instruction')


@pytest.mark.parametrize('text', ['no mapping', 'name: [', 'name: one',
                                  dump(info('one')).replace('expert', 'somebody')])
def test_an_info_that_the_recorder_never_writes_is_refused(tmp_path, text):
    """What a bag says about itself is read as strictly as a configuration."""
    path = write_by_hand(tmp_path / 'one', [('/instruction', 0, 'go'), *steps_of(0, 6)], text)
    assert problems_at(path) == broken('episode-info')


def test_a_task_that_changes_on_the_way_is_refused(tmp_path):
    """The words of its beginning are not those of its end."""
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1),
                        lambda columns: columns.update(task_index=[0] * 6 + [1] * 4))
    assert problems_at(root) == broken('several-tasks')


def test_two_topics_that_fit_are_never_chosen_between(tmp_path, capsys):
    """Two static cameras: which one was meant is said, not guessed."""
    path = write_by_hand(tmp_path / 'one', [
        ('/instruction', 0, 'go'), *steps_of(0, 6, ('/rgb', '/top/rgb', '/hand_rgb'))])
    names = bag.TopicNames(cameras={'static': 'camera'})
    assert problems_at(path, bag=bag.BagLayout(topics=names)) == broken('missing-topic')
    assert problems_at(path) == []  # the whole name is meant before one that ends with it
    both = write_by_hand(tmp_path / 'two', [
        ('/instruction', 0, 'go'), *steps_of(0, 6, ('/top/rgb', '/hand_rgb'))])
    assert problems_at(both) == []
    assert main(['validate', str(path), 'bag.topics.cameras.static=top/rgb']) == 0


def test_words_without_an_action_are_empty(tmp_path):
    """The robot was told something and did nothing, or the next thing came at the very end."""
    nothing = write_by_hand(tmp_path / 'one', [
        *steps_of(0, 6), ('/instruction', 7, ''), ('/instruction', 8, 'go')])
    assert problems_at(nothing) == broken('empty')
    next_one = write_by_hand(tmp_path / 'two', [
        ('/instruction', 0, 'go'), *steps_of(0, 6), ('/instruction', 7, 'come back')])
    recording, = open_source(SourceSpec(next_one))
    assert [reading.episode.instruction for reading in recording.read()] == ['go']


def test_rows_that_are_missing_are_counted(tmp_path):
    """The table of episodes says ten."""
    def shorten(columns):
        for values in columns.values():
            del values[7:]
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1), shorten)
    assert problems_at(root) == broken('lengths')


def test_an_episode_without_steps_is_empty(tmp_path):
    """Of any source."""
    episode = Episode('one', 'go', np.zeros(0, np.int64), {}, np.zeros((0, 6)), np.zeros(0))
    assert [p.rule for p in check(Reading(episode), tmp_path, Limits())] == ['empty']


@pytest.mark.parametrize('value', [0.4, 3.0, np.nan])
def test_a_gripper_between_open_and_closed_is_refused_in_every_format(tmp_path, value):
    """The polarity of each format is fixed, or said; a value in between is neither."""
    import h5py
    path = write_libero(tmp_path / 'milk_demo.hdf5', 1)
    with h5py.File(path, 'r+') as file:
        file['data/demo_0/actions'][4, 6] = value
    assert problems_at(path)[0][0] in ('gripper-values', 'nan')
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1),
                        lambda columns: columns['action'][4].__setitem__(6, value))
    assert problems_at(root)[0][0] in ('gripper-values', 'nan')
    root = write_calvin(tmp_path / 'calvin', spans=((100, 107),))
    change_npz(root / 'episode_0000103.npz', rel_actions=np.append(np.zeros(6), value))
    assert problems_at(root)[0][0] in ('gripper-values', 'nan', 'action-range')


def change_npz(path, **arrays):
    """Replace arrays of one step of CALVIN; None removes one."""
    found = dict(np.load(path)) | arrays
    np.savez(path, **{name: array for name, array in found.items() if array is not None})


def test_a_gripper_of_minus_one_and_one_is_read_as_it_is_said(tmp_path, capsys):
    """A foreign bag does not say which is closed; the message says how to."""
    messages = [(topic, step, -1.0 if topic == '/gripper_command' and step > 2 else content)
                for topic, step, content in steps_of(0, 6)]
    path = write_by_hand(tmp_path / 'one', [('/instruction', 0, 'go'), *messages])
    assert main(['validate', str(path)]) == 1
    assert 'set bag.gripper_closed and bag.gripper_open' in capsys.readouterr().out
    assert main(['validate', str(path), 'bag.gripper_closed=-1']) == 0


@pytest.mark.parametrize(('value', 'rule'), [(1.5, 'action-range'), (np.nan, 'nan')])
def test_calvin_actions_outside_of_their_range_are_refused(tmp_path, value, rule):
    """Rel_actions are in [-1, 1]; absolute ones would be read as metres."""
    root = write_calvin(tmp_path / 'training', spans=((100, 107),))
    change_npz(root / 'episode_0000104.npz', rel_actions=np.array([value, 0, 0, 0, 0, 0, 1.0]))
    assert problems_at(root) == broken(rule)


def test_a_missing_array_dataset_or_feature_is_named(tmp_path):
    """As a missing topic is."""
    import h5py
    root = write_calvin(tmp_path / 'training', spans=((100, 107),))
    change_npz(root / 'episode_0000104.npz', rgb_gripper=None)
    assert problems_at(root) == broken('missing-topic')
    path = write_libero(tmp_path / 'milk_demo.hdf5', 1)
    with h5py.File(path, 'r+') as file:
        del file['data/demo_0/obs/agentview_rgb']
    assert problems_at(path) == broken('missing-topic')
    root = write_lerobot_v21(tmp_path / 'set', 1)
    info_json = root / 'meta' / 'info.json'
    info_json.write_text(info_json.read_text().replace('images.hand', 'images.wrist'))
    assert problems_at(root) == broken('missing-topic')


@pytest.mark.parametrize('stamps', ['observation', 'now'])
def test_actions_that_go_back_in_time_are_refused(tmp_path, stamps):
    """The clock jumped, or two nodes command the arm."""
    messages = [('/instruction', 0, 'go'), *steps_of(0, 12)]
    arm = [number for number, message in enumerate(messages) if message[0] == '/arm_delta']
    messages[arm[4]] = ('/arm_delta', 4, 0.01, 5)
    messages[arm[5]] = ('/arm_delta', 5, 0.01, 4)
    path = write_by_hand(tmp_path / 'one', messages, dump(info('one', stamps=stamps)))
    assert problems_at(path) == broken('backward-stamps')


@pytest.mark.parametrize(('stamps', 'rule'), [
    ([0, 1, 2, 3, 3, 5, 6, 7, 8, 9], 'duplicate-stamps'),
    ([0, 1, 2, 5, 4, 5, 6, 7, 8, 9], 'backward-stamps'), ([0] * 10, 'zero-stamps')])
def test_stamps_of_rows_that_order_nothing_are_refused(tmp_path, stamps, rule):
    """Also where a dataset says times of its own."""
    root = rewrite_rows(write_lerobot_v21(tmp_path / 'set', 1), lambda columns: columns.update(
        timestamp=[stamp / 10 for stamp in stamps]))
    assert problems_at(root)[0] == (rule, True)


def test_many_steps_without_an_observation_break_an_episode(tmp_path):
    """One of twenty is left out and said; three of twenty are too many."""
    def without(*dropped):
        return lambda step, camera: (None if camera == 'hand' and step in dropped
                                     else START_NS + step * PERIOD_NS)
    few = write_bag(tmp_path / 'few', steps=20, image_stamp=without(9))
    many = write_bag(tmp_path / 'many', steps=20, image_stamp=without(5, 9, 12))
    assert problems_at(few)[0] == ('no-observation', False)
    assert problems_at(many) == broken('no-observation')


def test_a_camera_that_changes_its_size_is_refused_by_every_command(tmp_path, capsys):
    """A size that changes is another camera, or another crop of it."""
    root = write_calvin(tmp_path / 'training', spans=((100, 107), (110, 119)))
    change_npz(root / 'episode_0000104.npz', rgb_gripper=smooth_image(4, 'hand', 48, 64))
    assert problems_at(root) == broken('image-size')
    assert main(['validate', str(root)]) == 1
    said = capsys.readouterr().out
    assert '[image-size] the hand images are now 64x48, and were 32x24 before' in said
    assert 'at 0.133 s' in said
    assert '1 good, 1 broken of 2 recordings' in said
    request, lines = StoreRequest((SourceSpec(root),), manifest()), []
    store = open_store(request, tmp_path / 'cache', 1, lines.append)
    assert [episode.instruction for episode in store.episodes] == ['push the block 1']
    assert '[image-size]' in lines[0]
    for kind in ('lerobot', 'bag'):
        assert main(['convert', str(root), str(tmp_path / kind), '--to', kind]) == 1
        assert '[image-size]' in capsys.readouterr().out
        assert problems_at(tmp_path / kind) == []


def problems_said(root, capsys, *options):
    """Return what `validate` prints over a broken source."""
    assert main(['validate', str(root), *options]) == 1
    return capsys.readouterr().out


@pytest.mark.parametrize('kind', ['calvin', 'bag', 'lerobot'])
def test_images_of_one_colour_are_refused_as_the_robot_refuses_them(tmp_path, capsys, kind):
    """A sensor that died on the way taught the policy to act on black."""
    root = tmp_path / 'training'
    if kind == 'calvin':
        write_calvin(root)
        change_npz(root / 'episode_0000104.npz', rgb_gripper=np.zeros((24, 32, 3), np.uint8))
    elif kind == 'bag':
        write_bag(root, image=lambda step, camera: (
            np.zeros((24, 32, 3), np.uint8) if step > 7 else smooth_image(step, camera)))
    else:
        write_lerobot_v21(root, 1, image=lambda step, camera: np.zeros((24, 32, 3), np.uint8))
    assert problems_at(root)[0] == ('constant-image', True)
    assert '[constant-image]' in problems_said(root, capsys)
    if kind == 'calvin':
        assert main(['convert', str(root), str(tmp_path / 'out'), '--to', 'bag']) == 1
        assert '[constant-image] hand: all 32x24 pixels' in capsys.readouterr().out


def test_images_too_small_for_a_policy_are_refused_where_one_is_meant(tmp_path, capsys):
    """Without a policy nobody knows what is too small."""
    root, policy = write_bag(tmp_path / 'one'), tmp_path / 'action.yaml'
    assert problems_at(root) == []
    policy.write_text(dump(manifest(256)))
    said = problems_said(root, capsys, '--manifest', str(policy))
    assert '[small-image] static: the image has 32x24 pixels, expected at least 32x32' in said
    request = StoreRequest((SourceSpec(root),), manifest(256))
    with pytest.raises(ValueError, match='small-image'):
        open_store(request, tmp_path / 'cache', 1)


def test_a_bag_whose_camera_changes_its_size_has_no_observation_there(tmp_path):
    """The robot refuses such frames, so there are no steps to train on."""
    images = [message for message in steps_of(0, 12) if message[:2] != ('/rgb', 9)]
    path = write_by_hand(tmp_path / 'one', [('/instruction', 0, 'go'), *images])
    assert problems_at(path)[0] == ('no-observation', False)


def test_gaps_are_said_and_trained_on(tmp_path):
    """A step whose observation was lost leaves one."""
    def stamp(step, camera=None):
        return START_NS + (step + (3 if step >= 6 else 0)) * PERIOD_NS
    path = write_bag(tmp_path / 'one', action_stamp=stamp, image_stamp=stamp)
    assert problems_at(path) == noted('gap')


def test_an_arm_that_never_moves_is_said(tmp_path):
    """It may be right: only the gripper acts."""
    path = write_bag(tmp_path / 'one', arm=lambda step: np.zeros(6))
    assert problems_at(path) == noted('no-motion')


def test_the_limits_of_a_step_can_be_set(tmp_path):
    """A faster robot has larger steps."""
    path = write_bag(tmp_path / 'one', arm=lambda step: 80 * arm_of(step))
    assert problems_at(path) == broken('action-range')
    assert problems_at(path, Limits(max_step_m=0.5)) == []


def test_failures_are_counted_or_left_out(tmp_path):
    """A person's failures teach the wrong thing; corrected ones of a policy do not."""
    write_bag(tmp_path / 'bags' / 'done')
    write_bag(tmp_path / 'bags' / 'failed', success=False)
    write_bag(tmp_path / 'bags' / 'unsaid', success=None)
    for failures, kept in ((True, ['done', 'failed', 'unsaid']), (False, ['done', 'unsaid'])):
        request, said = StoreRequest((SourceSpec(tmp_path / 'bags'),), manifest(),
                                     Limits(failures=failures)), []
        store = open_store(request, tmp_path / 'cache', 1, said.append)
        assert [episode.name for episode in store.episodes] == kept
        assert ('1 labelled failures' in said[-1]) is failures
    assert problems_at(tmp_path / 'bags', Limits(failures=False)) == broken('failure')


def test_period_and_axes_have_one_home():
    """They are the manifest's; a second one in the limits would be passed over silently."""
    with pytest.raises(ValueError, match='those of the manifest'):
        Limits(period_s=0.2).for_policy(manifest())
    assert Limits(max_step_m=0.5).for_policy(manifest()) == Limits(
        0.5, period_s=0.1, frame='base')


def test_every_documented_rule_is_tested_and_every_rule_is_documented():
    """The table in docs/recordings.md, the code and the tests name the same rules."""
    table = RULES.read_text().partition('## Rules')[2].partition('\n## ')[0]
    documented = set(re.findall(r'`([a-z-]+)`', ' '.join(
        line.split('|')[1] for line in table.splitlines() if line.startswith('| `'))))
    sources = ''.join(path.read_text() for path in (
        RULES.parents[1] / 'ros2_lstm_policy' / 'data').rglob('*.py'))
    used = set(re.findall(r"(?:refuse|Problem|_Finding)\(\s*'([a-z-]+)'", sources))
    used |= {'duplicate-stamps', 'backward-stamps', 'image-size'}
    used |= {'constant-image', 'small-image'}  # the codes of image_checks
    assert documented == used
    tests = ''.join(path.read_text() for path in Path(__file__).parent.glob('test_data_*.py'))
    assert {rule for rule in documented if f"'{rule}'" not in tests} == set()

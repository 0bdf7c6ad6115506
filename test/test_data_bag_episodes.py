"""A bag of a whole session is cut into its episodes where that is sure, and else refused."""

from pathlib import Path

from data_bag_files import message, messages_of, store
from data_recordings import PERIOD_NS, START_NS, WORDS, write_bag
import pytest
from ros2_lstm_policy.config import ConfigError, parse
from ros2_lstm_policy.data.problems import RecordingError
from ros2_lstm_policy.data.rosbag import BagLayout, EpisodeCut, read_episodes

STRING = 'std_msgs/msg/String'
FIRST, HOME, SECOND, END = 0, 12, 27, 40  # the arm drives home by itself from 12 to 27


@pytest.fixture(name='recording', scope='module')
def a_recording(tmp_path_factory):
    """Return the messages of a session whose cameras go on while the arm drives home."""
    whole = write_bag(tmp_path_factory.mktemp('bags') / 'whole', steps=END, success=None)
    home = range(START_NS + HOME * PERIOD_NS, START_NS + SECOND * PERIOD_NS)
    return [item for item in messages_of(whole) if item.topic not in (
        '/episode/info', '/instruction') and not (
            item.topic in ('/arm_delta', '/gripper_command') and item.log_ns in home)]


def session(path: Path, recording: list, *said: tuple[str, float, str]) -> Path:
    """Store a session in which (topic, step, text) is said."""
    texts = [message(topic, STRING, START_NS + round(step * PERIOD_NS), data=text)
             for topic, step, text in said]
    return store(path, sorted([*texts, *recording], key=lambda item: item.log_ns))


def steps_of(path: Path, **cut: object) -> list[tuple[int, int, str, bool | None]]:
    """Return first and last step, words and label of each episode."""
    layout = BagLayout(episodes=EpisodeCut(**cut))
    return [(*((stamps - START_NS) // PERIOD_NS for stamps in episode.stamps_ns[[0, -1]]),
             episode.instruction, episode.success) for episode in read_episodes(path, layout)]


WORDS_FIRST = ('/instruction', 0, WORDS)
WORDS_AGAIN = ('/instruction', 26.5, WORDS)
MARKERS = (('/episode_marker', -0.2, 'start'), ('/episode_marker', 11.5, 'stop success'),
           ('/episode_marker', 26.2, 'Start'), ('/episode_marker', 39.5, 'stop failure'))
TWO = [(0, 11, WORDS, None), (27, 39, WORDS, None)]
LABELLED = [(0, 11, WORDS, True), (27, 39, WORDS, False)]


@pytest.mark.parametrize(('said', 'evidence', 'way'), [
    ((WORDS_AGAIN,), 'its instruction is said 2 times', 'by=message'),
    ((), 'no command comes for 1.6 s', 'by=pause'),
    (MARKERS, "/episode_marker says 'start' 2 times", 'marker bag.episodes.marker=/episode_marker')
], ids=['words', 'pause', 'marker'])
def test_a_session_that_may_hold_several_episodes_is_refused(tmp_path, recording, said, evidence,
                                                             way):
    """
    It was one episode, in which the arm drives home while its labels say that it rests.

    The message says what was found and how to cut it.
    """
    path = session(tmp_path / 'one', recording, WORDS_FIRST, *said)
    with pytest.raises(RecordingError) as caught:
        steps_of(path)
    assert caught.value.problem.rule == 'several-episodes'
    assert evidence in str(caught.value) and way in str(caught.value)
    assert '=instruction where it is one' in str(caught.value)
    assert steps_of(path, by='instruction') == [(0, 39, WORDS, None)]


def test_a_marker_topic_cuts_and_labels(tmp_path, recording):
    """Start and stop words; what lies between is no demonstration."""
    path = session(tmp_path / 'one', recording, WORDS_FIRST, WORDS_AGAIN, *MARKERS)
    assert steps_of(path, by='marker') == LABELLED
    assert steps_of(path, by='marker', marker='/episode_marker') == LABELLED
    said = [*MARKERS[:3], ('/episode_marker', 39.5, 'discard: gripper slipped')]
    other = session(tmp_path / 'two', recording, WORDS_FIRST, *said)
    assert steps_of(other, by='marker', discard=('discard:',)) == LABELLED[:1]
    only_starts = session(tmp_path / 'three', recording, WORDS_FIRST, MARKERS[0], MARKERS[2])
    assert steps_of(only_starts, by='marker', stop=()) == TWO


@pytest.mark.parametrize(('markers', 'error'), [
    ((MARKERS[0], *MARKERS[2:]), "marker 'Start' comes before the last one was ended"),
    (MARKERS[1:], "marker 'stop success' ends an episode that nothing began"),
    (MARKERS[:3], 'the last episode is never ended'),
    ((*MARKERS, ('/episode_marker', 39.8, 'abort')), "'abort' is none of the words"),
    ((), "0 topics of std_msgs/msg/String with messages fit to 'episode_marker'")],
    ids=['start twice', 'stop first', 'no stop', 'unknown', 'none'])
def test_markers_that_contradict_each_other_are_named(tmp_path, recording, markers, error):
    """A marker that was lost shifts every episode after it."""
    path = session(tmp_path / 'one', recording, WORDS_FIRST, *markers)
    with pytest.raises(RecordingError) as caught:
        steps_of(path, by='marker')
    assert error in str(caught.value)


def test_messages_pauses_and_times_cut(tmp_path, recording):
    """Each as it is asked for."""
    path = session(tmp_path / 'one', recording, WORDS_FIRST, WORDS_AGAIN)
    assert steps_of(path, by='message') == TWO
    assert steps_of(path, by='pause') == TWO
    assert steps_of(path, by='pause', pause_s=2.0) == [(0, 39, WORDS, None)]
    assert steps_of(path, by='times', times=((0.0, 0.65), (2.65, 3.05))) == [
        (0, 6, WORDS, None), (27, 30, WORDS, None)]
    with pytest.raises(RecordingError, match='by=times needs'):
        steps_of(path, by='times')


def test_words_that_change_in_the_pause_cut_by_themselves(tmp_path, recording):
    """A marker's start that comes just before the words belongs to them."""
    path = session(tmp_path / 'one', recording, WORDS_FIRST, *MARKERS,
                   ('/instruction', 26.5, 'open the drawer'))
    both = [(0, 11, WORDS, None), (27, 39, 'open the drawer', None)]
    assert steps_of(path) == both
    assert [episode[2] for episode in steps_of(path, by='marker')] == [WORDS, 'open the drawer']
    assert steps_of(path, by='pause') == both


def test_words_that_change_inside_of_an_episode_are_refused(tmp_path, recording):
    """Which of them the robot was told to do is not guessed."""
    path = session(tmp_path / 'one', recording, WORDS_FIRST, *MARKERS,
                   ('/instruction', 6, 'open the drawer'))
    with pytest.raises(RecordingError, match=r'\[several-tasks\] the instruction changes inside'):
        steps_of(path, by='marker')


def test_commands_after_a_stop_are_refused(tmp_path, recording):
    """The way home is commanded too, and is no demonstration."""
    path = session(tmp_path / 'one', [item for item in recording if item.log_ns
                                      <= START_NS + 11 * PERIOD_NS],
                   WORDS_FIRST, MARKERS[0], ('/episode_marker', 0.4, 'end'))
    with pytest.raises(RecordingError, match='says that it ended 1.1 s before the last command'):
        steps_of(path)


def test_words_that_a_publisher_repeats_are_one_episode(tmp_path, recording):
    """Once a second, as long as the arm acts."""
    first = [item for item in recording if item.log_ns < START_NS + HOME * PERIOD_NS]
    path = session(tmp_path / 'one', first, *(
        ('/instruction', step, WORDS) for step in (0, 0.5, 10)))
    assert steps_of(path) == TWO[:1]


def test_an_episode_of_the_recorder_is_one_whatever_pauses_it_has(tmp_path):
    """Its bag says so itself; an operator may rest."""
    path = write_bag(tmp_path / 'one', action_stamp=lambda step: (
        START_NS + (step + 20 * (step > 5)) * PERIOD_NS), image_stamp=lambda step, camera: (
        START_NS + (step + 20 * (step > 5)) * PERIOD_NS))
    assert [episode[:2] for episode in steps_of(path)] == [(0, 31)]


def test_labels_belong_to_the_episode_that_they_follow(tmp_path, recording):
    """The last label of the bag was given to every episode of it."""
    labels = [message('/episode/success', 'std_msgs/msg/Bool', START_NS + step * PERIOD_NS,
                      data=success) for step, success in ((13, True), (41, False))]
    path = session(tmp_path / 'one', [*recording, *labels], WORDS_FIRST, WORDS_AGAIN)
    assert steps_of(path, by='message') == LABELLED
    assert steps_of(path, by='pause') == LABELLED
    assert steps_of(path, by='times', times=((0.0, 1.15), (2.65, 4.0))) == LABELLED


@pytest.mark.parametrize('values', [
    {'pause_s': float('nan')}, {'pause_s': 0.0}, {'start': []}, {'times': [[2.0, 1.0]]},
    {'times': [[0.0, float('nan')]]}, {'times': [[0.0, 2.0], [1.0, 3.0]]}, {'by': 'chance'}],
    ids=str)
def test_a_cut_that_cuts_nothing_is_refused(values):
    """Before a bag is read."""
    with pytest.raises(ConfigError, match='bag'):
        parse(BagLayout, {'episodes': values}, 'bag')


@pytest.mark.parametrize('values', [
    {'gripper_closed': 1.0}, {'gripper_open': float('nan')}, {'max_skew_s': float('nan')}],
    ids=str)
def test_a_layout_of_numbers_that_decide_nothing_is_refused(values):
    """What is no number is neither more nor less than anything."""
    with pytest.raises(ConfigError, match=next(iter(values)).split('_')[0]):
        parse(BagLayout, values, 'bag')

"""Cameras of any number and name: what a robot has is said in YAML, and no room knows more."""

from __future__ import annotations

from pathlib import Path

from data_recordings import arm_of, info, PERIOD_NS, smooth_image, START_NS, WORDS
from node_robot import node_process, Robot
import numpy as np
import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.data.episodes import Wanted
from ros2_lstm_policy.data.lerobot.layout import LeRobotLayout
from ros2_lstm_policy.data.rosbag import EpisodeBagWriter, TopicNames
from ros2_lstm_policy.data.sources import open_source, SourceSpec
from ros2_lstm_policy.manifest import CameraSpec, image_topic
from ros2_lstm_policy.model import checkpoint
from ros2_lstm_policy.runtime.actor import MissingCamera, PolicyActor
from ros2_lstm_policy.training import run
from ros2_lstm_policy.training.auxiliary.forward_head import ForwardConfig
from ros2_lstm_policy.training.callbacks import LAST
from ros2_lstm_policy.types import Observation
from training_data import configured, values

CAMERAS = ('head', 'left_wrist', 'right_wrist')


def write_bag(path: Path, cameras: tuple[str, ...] = CAMERAS) -> Path:
    """Write an episode of a robot with these cameras."""
    with EpisodeBagWriter(path, info(path.name), WORDS, START_NS) as writer:
        for step in range(8):
            stamp = START_NS + step * PERIOD_NS
            for number, camera in enumerate(cameras):
                writer.write_frame(camera, stamp, smooth_image(step + 30 * number, 'static'))
            writer.write_action(stamp, arm_of(step), float(step % 2))
        writer.label(True)
    return path


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint trained from bags of three cameras; only the YAML says so."""
    folder = tmp_path_factory.mktemp('three')
    for number in range(3):
        write_bag(folder / 'bags' / f'episode_{number}')
    chosen = values(folder / 'run', folder, 2)
    chosen['data'].pop('store')
    chosen['data'].update(sources=[{'path': str(folder / 'bags')}], cache=str(folder / 'cache'))
    chosen['data']['loader']['validation_share'] = 0.34
    first = chosen['manifest']['cameras'][0]
    chosen['manifest']['cameras'] = [{**first, 'name': name} for name in CAMERAS]
    run.fit(configured(chosen))
    return folder / 'run' / LAST


def test_three_cameras_of_free_names_are_trained_on_and_each_of_them_matters(
        trained: Path) -> None:
    """The package knew two cameras by name, which turned away every robot with others."""
    policy = checkpoint.load(trained)
    assert tuple(camera.name for camera in policy.manifest.cameras) == CAMERAS
    images = {name: np.full((48, 64, 3), 90, np.uint8) for name in CAMERAS}
    plain = PolicyActor(policy).act(Observation(0, images), WORDS).chunk
    for name in CAMERAS:
        changed = images | {name: smooth_image(3, 'static')}
        assert not np.array_equal(PolicyActor(policy).act(Observation(0, changed), WORDS).chunk,
                                  plain), name
    del images['head']
    with pytest.raises(MissingCamera, match='head'):
        PolicyActor(policy).act(Observation(0, images), WORDS)


def test_the_node_subscribes_to_each_camera_by_its_name(trained: Path, tmp_path: Path) -> None:
    """A camera's topic is its name, so wiring it is remapping that name."""
    with node_process(tmp_path / 'log', checkpoint=str(trained), autostart=True,
                      cameras=list(CAMERAS), instruction=WORDS):
        robot = Robot(cameras=CAMERAS)
        try:
            robot.until(lambda: robot.arms)
        finally:
            robot.close()


def test_a_robot_without_a_camera_of_the_checkpoint_is_told_which(trained: Path,
                                                                  tmp_path: Path) -> None:
    """Doubt means hold: the node stays unconfigured, and says what is missing."""
    with node_process(tmp_path / 'log', checkpoint=str(trained), autostart=True,
                      cameras=['head', 'left_wrist']):
        robot = Robot(cameras=('head',))
        try:
            robot.until(lambda: 'right_wrist' in (tmp_path / 'log').read_text())
            assert not robot.arms
        finally:
            robot.close()


def test_a_bag_is_read_by_the_names_of_its_cameras_or_by_topics_that_are_said(
        tmp_path: Path) -> None:
    """By default a camera's topic is its name; `topics.cameras` says another one."""
    bag = write_bag(tmp_path / 'bag')
    assert image_topic('static') == 'rgb' and image_topic('head') == 'head'
    spec = config.parse(SourceSpec, {'path': str(bag), 'bag': {
        'topics': {'cameras': {'static': '/left_wrist'}}}}, 'test')
    (reading,) = open_source(spec, Wanted(('static', 'head')))[0].read()
    frames = reading.episode.frames
    np.testing.assert_array_equal(frames['static'][2], smooth_image(32, 'static'))
    np.testing.assert_array_equal(frames['head'][2], smooth_image(2, 'static'))


def test_the_keys_of_earlier_versions_are_still_read() -> None:
    """Configurations of 0.1 named the two cameras by keys of their own."""
    topics = config.parse(TopicNames, {'static': '/top', 'success': '/done'}, 'test')
    assert topics.camera('static') == '/top' and topics.camera('hand') == 'hand_rgb'
    layout = config.parse(LeRobotLayout, {'hand': 'observation.images.wrist'}, 'test')
    assert layout.camera('hand') == 'observation.images.wrist'
    assert layout.camera('side') == 'observation.images.side'
    foresight = config.parse(ForwardConfig, {'static': False, 'hand': True, 'frames': 1}, 'test')
    assert foresight.cameras == ('hand',)


@pytest.mark.parametrize('name', ['', 'Left', 'a/b', '1st', 'two words', '../up'])
def test_a_name_that_is_no_topic_is_refused(name: str) -> None:
    """It becomes a topic, a folder of frames and a key of weights."""
    with pytest.raises(ValueError, match='a name is a lower-case letter'):
        CameraSpec(name, 8, 8, 'area', (0.5,) * 3, (0.5,) * 3)


def test_a_camera_that_a_format_does_not_have_is_named(tmp_path: Path) -> None:
    """A CALVIN folder has two cameras, whatever is asked for."""
    from ros2_lstm_policy.data.problems import RecordingError
    np.save(tmp_path / 'ep_start_end_ids.npy', np.array([[0, 1]]))
    with pytest.raises(RecordingError, match='side was asked for'):
        open_source(SourceSpec(tmp_path, kind='calvin'), Wanted(('static', 'side')))

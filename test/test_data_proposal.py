"""Proposals for recordings of others are read as they stand, and say what is to be decided."""

from data_aloha import CAMERAS, GROUPS, LEFT, write_aloha
from data_recordings import (smooth_image, START_NS, write_bag, write_calvin, write_lerobot_v21,
                             write_velocity_bag)
import numpy as np
import pytest
from ros2_lstm_policy import config
from ros2_lstm_policy.config_files import parse_yaml
from ros2_lstm_policy.data.dataset import main
from ros2_lstm_policy.data.manifest_config import ManifestConfig
from ros2_lstm_policy.data.rosbag import BagFile, format as bag
from test_data_bodies import JOINTS, write_lab_bag


@pytest.fixture
def proposed(tmp_path, capsys):
    """Propose for a path, write the YAML into a file, and return its text and values."""
    def propose(path):
        assert main(['inspect', str(path), '--propose']) == 0
        text = capsys.readouterr().out
        (tmp_path / 'train.yaml').write_text(text)
        return text, parse_yaml(text)
    return propose


def write_robot_bag(path, words=('pick', 'pick'), marker=True, depth=True):
    """Write what a lab's robot has: two episodes, trajectories, a depth camera, a wrench."""
    file = BagFile(path)
    types = {'/front/image_raw': bag.IMAGE, '/front/depth': bag.IMAGE, '/task': bag.STRING,
             '/joint_states': bag.JOINTS, '/marker': bag.STRING,
             '/arm_controller/command': bag.JOINTS, '/hand/target': bag.GRIPPER}
    for topic, msgtype in types.items():
        file.add_topic(topic, msgtype)

    def put(topic, tick, **fields):
        file.write(topic, START_NS + tick * 20_000_000, file.serialise(types[topic], **fields))
    layout = file.message('std_msgs/msg/MultiArrayLayout', dim=[], data_offset=0)
    for number, text in enumerate(words):
        begin = 200 * number
        put('/task', begin, data=text)
        if marker:
            put('/marker', begin + 1, data='start')
            put('/marker', begin + 99, data='stop')
        for tick in range(begin, begin + 100):
            header = file.header(START_NS + tick * 20_000_000)
            if tick % 2 == 0:
                image = smooth_image(tick, 'static')
                put('/front/image_raw', tick, header=header, height=24, width=32,
                    encoding='rgb8', is_bigendian=0, step=96, data=image.reshape(-1))
                put('/front/depth', tick, header=header, height=24, width=32, encoding='16UC1',
                    is_bigendian=0, step=64, data=np.zeros(24 * 64, np.uint8))
            for topic, ahead in (('/joint_states', 0), ('/arm_controller/command', 1)):
                put(topic, tick, header=header, name=JOINTS, velocity=np.zeros(0),
                    position=0.01 * np.array([1.0, 2, 3]) * (tick + ahead), effort=np.zeros(0))
            put('/hand/target', tick, layout=layout, data=np.array([0.08 * (tick % 50 > 25)]))
    return file.close()


@pytest.mark.parametrize('write', [
    lambda path: write_lab_bag(path / 'bag').parent, lambda path: write_velocity_bag(path / 'bag'),
    write_bag, lambda path: write_robot_bag(path / 'bag'), write_aloha, write_lerobot_v21,
    lambda path: write_aloha(path, 'v2.1', names=None, state_names=None)],
    ids=['lab', 'velocity', 'ours', 'robot', 'aloha', 'one_arm', 'nameless'])
def test_a_proposal_is_read_as_it_stands(tmp_path, proposed, capsys, write):
    """The same file goes to inspect, validate and stats, and its manifest is one."""
    path = write(tmp_path / 'set')
    text, values = proposed(path)
    assert 'Read like this, the first recording gives' in text
    config.parse(ManifestConfig, values['manifest'], 'proposal').manifest()
    for command in ('inspect', 'validate', 'stats'):
        assert main([command, str(path), '--config', str(tmp_path / 'train.yaml')]) == 0, command
    assert 'scale' in capsys.readouterr().out


def test_a_bag_without_commands_gets_its_actions_from_what_it_did_next(tmp_path, proposed):
    """Joints without the finger, a gripper by its range, and every topic with type and rate."""
    text, values = proposed(write_lab_bag(tmp_path / 'bag'))
    assert '/joint_states (sensor_msgs/msg/JointState): 150 messages, 100.0 Hz, 3 values' in text
    arm, gripper = values['manifest']['actions']
    assert (arm['kind'], arm['names']) == ('joint_position', ['shoulder', 'elbow'])
    assert gripper['kind'] == 'gripper'
    how = values['data']['sources'][0]['bag']
    assert how['states']['opening']['scale'] == 0.08
    assert how['actions'] == {'arm': {'state': 'arm_position'}, 'gripper': {'state': 'opening'}}
    assert text.count('DECIDE') >= 3


def test_commands_are_actions_and_a_bag_of_several_episodes_is_cut(tmp_path, proposed):
    """By its markers; the depth camera is no camera, and the task's topic has the words."""
    text, values = proposed(write_robot_bag(tmp_path / 'bag'))
    how = values['data']['sources'][0]['bag']
    assert how['episodes'] == {'by': 'marker', 'marker': 'marker'}
    assert how['topics'] == {'cameras': {'front': 'front/image_raw'}, 'instruction': 'task'}
    assert [group['kind'] for group in values['manifest']['actions']] == ['joint_position',
                                                                          'gripper']
    assert set(how['actions']) == {'arm_controller_command', 'hand_target'}
    assert 'gives 2 episodes' in text


def test_two_arms_of_a_dataset_need_nothing_but_their_names(tmp_path, proposed):
    """Left and right by the names; what has no names is marked to be decided."""
    _, values = proposed(write_aloha(tmp_path / 'set'))
    assert [camera['name'] for camera in values['manifest']['cameras']] == list(CAMERAS)
    assert [group['name'] for group in values['manifest']['actions']] == [
        group.name for group in GROUPS]
    assert values['manifest']['actions'][0]['names'] == list(LEFT)
    assert values['data']['sources'] == [{'path': str(tmp_path / 'set')}]
    text, values = proposed(write_aloha(tmp_path / 'bare', names=None))
    assert 'do not say what it is: joint_position is only an example' in text
    assert values['data']['sources'][0]['lerobot']['actions']['arm']['kind'] == 'joint_position'


@pytest.mark.parametrize(('write', 'said'), [
    (write_calvin, 'calvin needs no proposal'),
    (lambda path: write_robot_bag(path, ()), 'nothing in it can be the cameras')])
def test_where_nothing_can_be_proposed_it_is_said(tmp_path, capsys, write, said):
    """With what was found; no half a file."""
    assert main(['inspect', str(write(tmp_path / 'set')), '--propose']) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert found.out == ''

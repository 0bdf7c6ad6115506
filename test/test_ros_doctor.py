"""The doctor, over real DDS and files: each planted fault is found, and none where none is."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
import subprocess
import sys

from node_robot import Robot, small_checkpoint, stamp
import numpy as np
import pytest
import rclpy
from rclpy.qos import qos_profile_sensor_data
from ros2_lstm_policy.manifest import Normalisation, StateSpec
from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.ros.doctor import machine
from ros2_lstm_policy.ros.doctor import main as doctor
from sensor_msgs.msg import Image

NAMES = ('shoulder', 'elbow', 'wrist')
JOINTS = StateSpec('joints', 3, Normalisation((0.0,) * 3, (1.0,) * 3), NAMES)
BOX = 'workspace_m:=[-1.0, -1.0, 0.0, 1.0, 1.0, 1.0]'
BAD, SECONDS = 1, '3.0'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two cameras that is told of three joints."""
    return small_checkpoint(tmp_path_factory.mktemp('joints') / 'checkpoint', states=[JOINTS])


@pytest.fixture
def robot(monkeypatch):
    """Return a robot of which all is told, whose images travel as the launch files make them."""
    profile = nodes.share_directory() / 'config' / nodes.DDS_PROFILE
    monkeypatch.setenv(nodes.DDS_PROFILE_VARIABLE, str(profile))
    monkeypatch.delenv('RMW_IMPLEMENTATION', raising=False)
    robot = Robot()
    robot.rate_hz = 30.0
    robot.joints, robot.pose_m = dict.fromkeys((*NAMES, 'finger'), 0.1), (0.3, 0.0, 0.2)
    yield robot
    robot.close()


def look(robot, checkpoint, *arguments, options=()):
    """Run the doctor beside the robot; return its exit status and its lines."""
    def run():
        with redirect_stdout(StringIO()) as said:
            status = doctor.main(['--seconds', SECONDS, *options, '--ros-args',
                                  '-p', f'checkpoint:={checkpoint}', '-p', BOX, *arguments])
        return status, said.getvalue().splitlines()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run)
        robot.until(future.done)
    return future.result()


def faults(lines):
    """Return the lines that say what is wrong."""
    return [line for line in lines if line.startswith('FAULT')]


def test_a_healthy_robot_has_no_fault(robot, checkpoint, tmp_path):
    """Each thing that was looked at has its line."""
    status, lines = look(robot, checkpoint, options=('--recordings', str(tmp_path / 'new')))
    assert (status, faults(lines)) == (0, []), faults(lines)
    for said in ('ok    cameras    static: /rgb 64x48 raw (best_effort) at ',
                 'ok    states     joints', 'ok    checkpoint', 'ok    frames', 'ok    dds',
                 'ok    cpu', 'ok    gpu', 'ok    disk', 'ok    clock', 'nothing is wrong in'):
        assert any(line.startswith(said) for line in lines), (said, lines)


@dataclass(frozen=True)
class Planted:
    """A fault: :param said: what the doctor must say, and what it must advise."""

    said: str
    advice: str
    arguments: tuple[str, ...] = ()
    robot: dict = field(default_factory=dict)
    image: object = None
    joints: object = None


def every_image(change):
    """Return what changes the messages of the hand camera."""
    return lambda name, message: change(message) if name == 'hand' else None


def unstamped(message):
    """Forget the stamp."""
    message.header.stamp = stamp(0)


def constant(message):
    """Show one colour."""
    message.data = bytes(len(message.data))


def thumbnail(message):
    """Show 8 x 8 pixels."""
    message.height = message.width = 8
    message.step, message.data = 24, np.random.default_rng(0).bytes(192)


def cut_off(message):
    """Lose half of the data."""
    message.data = message.data[:len(message.data) // 2]


def renamed(message):
    """Call a joint otherwise."""
    message.name = [f'left_{name}' for name in message.name]


def frozen():
    """Return what shows one image with new stamps."""
    image = np.random.default_rng(1).bytes(48 * 64 * 3)

    def freeze(message):
        message.data = image
    return every_image(freeze)


PLANTED = {
    'a camera that is off': Planted('nobody publishes /hand_rgb', 'start', robot={
        'cameras': {'static'}}),
    'a slow camera': Planted('the policy takes 10 Hz', "raise the camera's rate",
                             ('-p', 'max_image_age_s:=1.0'), {'rate_hz': 4.0}),
    'a clock that lags': Planted('s old, at most', 'chrony', robot={'stamp_offset_s': -5.0}),
    'a clock ahead': Planted('ahead of now', 'chrony', robot={'stamp_offset_s': 5.0}),
    'no stamps': Planted('header stamp is zero', 'stamp', image=every_image(unstamped)),
    'a covered lens': Planted('have the colour (0, 0, 0)', 'lens cap',
                              image=every_image(constant)),
    'a thumbnail': Planted('expected at least', "camera's mode", image=every_image(thumbnail)),
    'a broken link': Planted('hand (/hand_rgb)', 'link', image=every_image(cut_off)),
    'another encoding': Planted('encoding', 'rgb8', image=every_image(
        lambda message: setattr(message, 'encoding', 'yuv_of_mine'))),
    'a frozen driver': Planted('one image again and again', 'driver again', image=frozen()),
    'another type': Planted('is published as sensor_msgs/msg/Image', 'set that parameter',
                            ('-p', 'compressed:=true')),
    'another QoS': Planted('incompatible', 'best_effort', (
        '-p', 'qos_overrides./rgb.subscription.reliability:=reliable')),
    'joints of another robot': Planted('has the joints left_', 'names', joints=renamed),
    'a pose in another frame': Planted("is in the frame 'map'", 'base_frame_id', robot={
        'pose_frame': 'map'}),
    'no pose': Planted('ee_pose', 'ros2 topic hz', robot={'pose_m': None}),
    'no simulated clock': Planted('/clock says nothing', 'leave use_sim_time false', (
        '-p', 'use_sim_time:=true')),
    'a robot of one camera': Planted('it needs the camera hand', 'another checkpoint', (
        '-p', 'cameras:=[static]')),
    'a typing error': Planted('did you mean max_image_age_s', 'correct', (
        '-p', 'max_image_ag_s:=1.0')),
    'a value of another type': Planted('deadline_s is 1 (integer)', 'correct', (
        '-p', 'deadline_s:=1')),
    'no such GPU': Planted("device 'cuda:7' cannot be used", 'cpu', ('-p', 'device:=cuda:7')),
    'more threads than cores': Planted('64 thread(s)', 'cores', ('-p', 'threads:=64')),
    'a server that is off': Planted('cannot be reached', 'serving.md', (
        '-p', 'server:=ws://127.0.0.1:9')),
}


@pytest.mark.parametrize('name', PLANTED)
def test_each_planted_fault_is_found(robot, checkpoint, name):
    """In a line that says what is wrong and what to do; the exit status says so, too."""
    planted = PLANTED[name]
    robot.__dict__.update(planted.robot)
    robot.change_image = planted.image or robot.change_image
    robot.change_joints = planted.joints or robot.change_joints
    if planted.robot.get('cameras') == {'static'}:
        robot.node.destroy_publisher(robot._images['hand'])
    status, lines = look(robot, checkpoint, *planted.arguments)
    assert status == BAD
    assert any(planted.said in line and planted.advice in line for line in faults(lines)), lines


def test_a_second_camera_on_the_topic_is_found(robot, checkpoint):
    """Two take turns."""
    robot.node.create_publisher(Image, 'rgb', qos_profile_sensor_data)
    status, lines = look(robot, checkpoint)
    assert status == BAD and 'has 2 publishers' in faults(lines)[0]


def test_two_nodes_of_the_policys_name_are_found(robot, checkpoint):
    """Both are told what one is told."""
    twins = [rclpy.create_node('policy', context=robot.context) for _ in range(2)]
    status, lines = look(robot, checkpoint)
    for twin in twins:
        twin.destroy_node()
    assert status == BAD and any('2 nodes are named /policy' in line for line in faults(lines))


@pytest.mark.parametrize(('spoil', 'said'), [
    (lambda path: (path / 'config.yaml').unlink(), 'config.yaml is missing'),
    (lambda path: (path / 'model.safetensors').write_bytes(b'short'), 'model.safetensors'),
    (lambda path: (path / 'action.yaml').write_text('cameras: 5'), 'action.yaml')])
def test_a_checkpoint_that_is_damaged_is_found(robot, tmp_path, spoil, said):
    """And the machine is looked at all the same."""
    path = small_checkpoint(tmp_path / 'checkpoint')
    spoil(path)
    status, lines = look(robot, path)
    assert status == BAD and said in faults(lines)[0]
    assert any('disk' in line for line in lines)


def test_no_checkpoint_at_all_is_found(robot):
    """What is run first, without a word."""
    status, lines = look(robot, '""')
    assert status == BAD and 'the parameter checkpoint is empty' in faults(lines)[0]


def said(found):
    """Return the faults among findings as one text."""
    return ' '.join(str(finding) for finding in found if finding.is_fault)


@pytest.mark.parametrize(('profile', 'words'), [
    (None, '0.5 MiB of shared memory for images of 0.9 MiB'),
    ('gone', 'there is no such file'), ('<dds', 'is no profile of Fast DDS'),
    ('<dds><transport_descriptor><type>SHM</type><segment_size>1000000</segment_size>'
     '</transport_descriptor></dds>', '1.0 MiB of shared memory for images'),
    ('<dds><transport_descriptor><type>SHM</type><segment_size>big</segment_size>'
     '</transport_descriptor></dds>', 'is no profile of Fast DDS')])
def test_a_dds_profile_without_room_for_images_is_found(tmp_path, profile, words):
    """A third of the images was lost, and nobody said so."""
    environment = {}
    if profile is not None:
        environment[nodes.DDS_PROFILE_VARIABLE] = str(tmp_path / 'profile.xml')
        if profile != 'gone':
            (tmp_path / 'profile.xml').write_text(profile)
    assert words in said(machine.dds(environment, 640 * 480 * 3))
    assert nodes.DDS_PROFILE in said(machine.dds(environment, 640 * 480 * 3))


def test_another_middleware_and_the_shipped_profile_are_well():
    """What is not Fast DDS has settings of its own."""
    profile = nodes.share_directory() / 'config' / nodes.DDS_PROFILE
    assert not said(machine.dds({'RMW_IMPLEMENTATION': 'rmw_zenoh_cpp'}, 10**9))
    assert not said(machine.dds({nodes.DDS_PROFILE_VARIABLE: str(profile)}, 640 * 480 * 3,
                                profile.parent))


@pytest.mark.parametrize(('governor', 'driver', 'limit', 'is_fault'), [
    ('performance', 'acpi-cpufreq', 3000, False), ('powersave', 'acpi-cpufreq', 3000, True),
    ('powersave', 'intel_pstate', 3000, False), ('schedutil', 'acpi-cpufreq', 1200, True)])
def test_cores_that_are_kept_slow_are_found(tmp_path, governor, driver, limit, is_fault):
    """A laptop's power mode halves the rate of decisions."""
    clock = tmp_path / 'cpu0' / 'cpufreq'
    clock.mkdir(parents=True)
    for name, value in (('scaling_governor', governor), ('scaling_driver', driver),
                        ('scaling_max_freq', limit * 1000), ('cpuinfo_max_freq', 3_000_000)):
        (clock / name).write_text(f'{value}\n')
    assert ('cpupower' in said(machine.cpu(1, tmp_path))) == is_fault


def test_a_disk_without_room_or_leave_is_found(tmp_path):
    """A recording ends in the middle, or never begins."""
    assert 'the recorder needs' in said(machine.disk(tmp_path, 1e9, 1.0))
    (tmp_path / 'file').write_text('')
    assert 'cannot be written to' in said(machine.disk(tmp_path / 'file' / 'bags', 1.0, 1.0))
    assert not said(machine.disk(tmp_path / 'not' / 'yet', 0.1, 1e6))


def test_the_doctor_says_what_it_cannot_do(capsys):
    """In one line each, and with another status than a fault has."""
    for arguments, words in ((['--seconds', '0'], 'expected 1 to 600'),
                             (['--second', 'x'], 'expected 1 to 600'),
                             (['checkpoint'], 'unrecognized arguments')):
        with pytest.raises(SystemExit) as error:
            doctor.main(arguments)
        assert error.value.code == 2 and words in capsys.readouterr().err
    assert doctor.main(['--ros-args', '-p', 'no value']) == 2
    assert doctor.main(['--ros-args', '--params-file', 'nowhere.yaml']) == 2
    assert all(line.startswith('doctor: ') for line in capsys.readouterr().err.splitlines()
               if line and not line.startswith('['))


def test_without_ros_there_is_one_clear_answer():
    """Outside a sourced shell."""
    done = subprocess.run([sys.executable, '-c', (
        'import sys; sys.modules["rclpy"] = None\n'
        'from ros2_lstm_policy.ros.doctor.main import main; sys.exit(main([]))')],
        capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('doctor: there is no ROS 2 here') and (
        done.stderr.count('\n') == 1)

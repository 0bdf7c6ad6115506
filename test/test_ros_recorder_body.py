"""The recorder with a manifest, over real DDS: every stream of it is recorded and watched."""

import time

import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros2_lstm_policy.data.checks import Limits, read_checked
from ros2_lstm_policy.data.sources import describe, open_source, SourceSpec
from ros2_lstm_policy.manifest import ActionGroup, StateSpec
from ros2_lstm_policy.ros.declared import ParameterError
from ros2_lstm_policy.ros.recorder.body import declared_body
from ros2_lstm_policy.ros.recorder.inputs import streams
from ros2_lstm_policy.ros.recorder.parameters import RecorderSettings
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float32, Float64MultiArray
from test_ros_recorder import Cell, image_message, picture, recorder, stamp, WORDS

CAMERA = ('{name: front, height: 16, width: 16, interpolation: area, mean: [0.5, 0.5, 0.5], '
          'std: [0.5, 0.5, 0.5]}')
MANIFEST = f"""
manifest:
  control_period_s: 0.05
  cameras: [{CAMERA}]
  states:
    - {{name: joints, size: 2, names: [waist, elbow]}}
    - {{name: touch, size: 3}}
    - {{name: opening, size: 1}}
  actions:
    - {{name: arm, kind: joint_position, size: 2, names: [elbow, waist]}}
    - {{name: hand, kind: gripper, size: 1}}
"""
SAID = {'streams.joints.topic': 'left/joint_states', 'streams.touch.topic': 'touch',
        'streams.touch.msgtype': 'std_msgs/msg/Float64MultiArray',
        'streams.opening.topic': 'left/joint_states', 'streams.opening.names': ['finger'],
        'streams.opening.scale': 0.08, 'streams.arm.topic': 'left/command',
        'streams.hand.state': 'opening'}


@pytest.fixture
def manifest(tmp_path):
    """Write the manifest of a body with one camera, joints and a sense of touch."""
    (tmp_path / 'train.yaml').write_text(MANIFEST)
    return str(tmp_path / 'train.yaml')


def joints(number, stamp_ns):
    """Return the robot's joints at a step, in an order of its own."""
    message = JointState(name=['finger', 'waist', 'elbow'],
                         position=[0.04, 0.01 * number, -0.02 * number])
    message.header.stamp = stamp(stamp_ns)
    return message


def test_every_stream_of_a_manifest_is_recorded_and_described_and_missed(tmp_path, manifest):
    """Two arms' worth of topics: what is in the bag is read without a word, silence is said."""
    cell = Cell()
    create, destroy = cell.node.create_publisher, cell.node.destroy_publisher
    publishers = {'front': create(Image, 'front', 10),
                  'state': create(JointState, 'left/joint_states', 10),
                  'command': create(JointState, 'left/command', 10)}
    wrong = create(Float32, 'touch', 10)
    with recorder(tmp_path / 'log.txt', directory=str(tmp_path / 'bags'), instruction=WORDS,
                  manifest=manifest, **{**SAID, 'max_camera_gap_s': 1.0}):
        cell.until(lambda: 'touch: /touch is published as std_msgs/msg/Float32, and '
                   'std_msgs/msg/Float64MultiArray is wanted (parameters streams.touch.topic and '
                   '.msgtype)' in cell.call('start').message)
        destroy(wrong)
        publishers['touch'] = create(Float64MultiArray, 'touch', 10)
        cell.until(lambda: all(p.get_subscription_count() for p in publishers.values()))

        def step(number, has_touch=True):
            if has_touch:  # without a header its time is that of its sending: before the frame's
                publishers['touch'].publish(Float64MultiArray(data=[1.0, 2.0, float(number)]))
            stamp_ns = time.time_ns()
            publishers['state'].publish(joints(number, stamp_ns))
            publishers['front'].publish(image_message(picture(number, 'static'), stamp_ns))
            publishers['command'].publish(joints(number + 1, stamp_ns))
            cell.wait(0.05)
        name = cell.begin()
        for number in range(14):
            step(number)
        answer = cell.call('stop')
        assert answer.success, answer.message
        cell.begin()
        for number in range(30):
            step(number, has_touch=number < 3)
        answer = cell.call('stop')
        assert not answer.success
        assert 'touch' in answer.message
    cell.close()
    spec = SourceSpec(tmp_path / 'bags' / name)
    wanted = describe(spec)
    assert wanted.cameras == ('front',)
    assert wanted.actions == (ActionGroup('arm', 'joint_position', 2, names=('elbow', 'waist')),
                              ActionGroup('hand', 'gripper', 1))
    assert wanted.states[0] == StateSpec('joints', 2, names=('waist', 'elbow'))
    (recording,) = open_source(spec, wanted)
    readings, problems = read_checked(recording, Limits())
    assert [str(problem) for problem in problems if problem.fatal] == []
    episode = readings[0].episode
    assert len(episode) > 5
    np.testing.assert_allclose(episode.states['joints'] @ [2, 1], 0, atol=1e-6)
    np.testing.assert_allclose(episode.actions['arm'] @ [1, 2], 0, atol=1e-6)
    np.testing.assert_allclose(episode.states['touch'][:, :2], [[1, 2]] * len(episode))
    np.testing.assert_allclose(episode.actions['hand'], 0.5)


class Parameters:
    """A node's parameters as they were given, and their declaration."""

    def __init__(self, **given):
        """Take what a launch file gives."""
        self._parameter_overrides = {name: Parameter(name, value=value)
                                     for name, value in given.items()}

    def has_parameter(self, name):
        """Return false: each is declared once."""
        return False

    def declare_parameter(self, name, default, descriptor):
        """Return what was given, or the default."""
        return self._parameter_overrides.get(name, Parameter(name, value=default))


@pytest.mark.parametrize(('change', 'said'), [
    ({'streams.arm.topic': ''}, 'streams.arm: expected either topic'),
    ({'streams.hand.state': 'width'}, 'has the states joints, touch, opening'),
    ({'streams.touch.msgtype': 'my_msgs/msg/Touch'}, "'my_msgs/msg/Touch' is no type of messages"),
    ({'streams.touch.msgtype': 'Float64'}, "'Float64' is no type of messages"),
    ({'streams.touch.scale': 0.0}, 'scale not 0'),
    ({'streams.touch.scale': 'one'}, 'streams.touch.scale is '),
    ({'streams.joints.state': 'touch'}, 'it is a state itself'),
    ({'streams.touch.topic': 'left/joint_states'}, 'left/joint_states is recorded twice'),
    ({'streams.touch.topic': 'front'}, 'front is recorded twice'),
    ({'manifest': '/nowhere/action.yaml'}, 'cannot be read')])
def test_streams_that_cannot_be_recorded_are_named_at_the_start(manifest, change, said):
    """The parameter, what was found, what was wanted."""
    node = Parameters(**{'manifest': manifest, **SAID, **change})
    with pytest.raises(ParameterError) as refused:
        streams(RecorderSettings(cameras=('front',)), declared_body(node))
    assert said in str(refused.value)


def test_a_manifest_of_one_arm_keeps_the_usual_topics(tmp_path):
    """Its deltas and its gripper need no parameter, and its states are promised."""
    text = MANIFEST[:MANIFEST.index('  actions:')] + """  actions:
    - {name: arm, kind: ee_delta, size: 6, frame: base}
    - {name: gripper, kind: gripper, size: 1, binary: true}
"""
    (tmp_path / 'train.yaml').write_text(text)
    body = declared_body(Parameters(manifest=str(tmp_path / 'train.yaml'), **{
        'streams.touch.msgtype': 'std_msgs/msg/Float64MultiArray'}))
    found = {stream.name: (stream.in_bag, stream.role)
             for stream in streams(RecorderSettings(cameras=('front',)), body)}
    assert found['arm_delta'] == ('/arm_delta', 'arm')
    assert found['joint_states'] == ('/joint_states', 'stream')
    assert found['touch'] == ('/states/touch', 'stream')
    assert body.recorded().actions == ()

"""Messages to numbers: the wanted values in the wanted order, or a message that says why not."""

from types import SimpleNamespace as Message

import numpy as np
import pytest
from ros2_lstm_policy.kinds import rotation_vector
from ros2_lstm_policy.streams import (decode, DECODERS, stream_of, StreamConfig, StreamError,
                                      time_ns)

JOINT_STATE = 'sensor_msgs/msg/JointState'


def joint_state(**more):
    """Return a message of three joints."""
    return Message(name=['b', 'a', 'finger'], position=[2.0, 1.0, 0.02],
                   velocity=[20.0, 10.0, 0.0], effort=[], **more)


def xyz(*values, **more):
    """Return a vector message."""
    return Message(**dict(zip('xyz', values)), **more)


def pose(x=0.0, y=0.0, z=0.0, quaternion=(0.0, 0.0, 0.0, 1.0)):
    """Return a Pose."""
    return Message(position=xyz(x, y, z), orientation=Message(**dict(zip('xyzw', quaternion))))


@pytest.mark.parametrize(('msgtype', 'message', 'config', 'wanted'), [
    (JOINT_STATE, joint_state(), {'names': ('a', 'b')}, [1, 2]),
    (JOINT_STATE, joint_state(), {}, [2, 1, 0.02]),
    (JOINT_STATE, joint_state(), {'names': ('a', 'b'), 'field': 'velocity'}, [10, 20]),
    (JOINT_STATE, joint_state(), {'names': ('finger',), 'scale': 0.04}, [0.5]),
    ('std_msgs/msg/Float64', Message(data=0.3), {'offset': 0.1, 'scale': 2.0}, [0.1]),
    ('std_msgs/msg/Float32MultiArray', Message(data=np.float32([1, 2])), {}, [1, 2]),
    ('geometry_msgs/msg/TwistStamped', Message(twist=Message(linear=xyz(1, 2, 3),
                                                             angular=xyz(4, 5, 6))), {},
     [1, 2, 3, 4, 5, 6]),
    ('geometry_msgs/msg/WrenchStamped', Message(wrench=Message(force=xyz(1, 2, 3),
                                                               torque=xyz(4, 5, 6))), {},
     [1, 2, 3, 4, 5, 6]),
    ('geometry_msgs/msg/Wrench', Message(force=xyz(1, 2, 3), torque=xyz(4, 5, 6)), {},
     [1, 2, 3, 4, 5, 6]),
    ('trajectory_msgs/msg/JointTrajectory',
     Message(joint_names=['b', 'a'], points=[Message(positions=[0, 0]),
                                             Message(positions=[2, 1])]), {'names': ('a', 'b')},
     [1, 2]),
    ('lab_msgs/msg/Hand', Message(fingers=[Message(force=3.0), Message(force=4.0)]),
     {'field': 'fingers.1.force'}, [4]),
    ('geometry_msgs/msg/PoseStamped', Message(pose=pose(1, 2, 3)), {'field': 'pose.position'},
     [1, 2, 3]),
])
def test_the_wanted_values_are_read_in_the_wanted_order(msgtype, message, config, wanted):
    """Joints come in whatever order; a field takes what a type of its own does not give."""
    np.testing.assert_allclose(decode(message, msgtype, StreamConfig('/topic', **config)), wanted)


def test_a_pose_is_its_place_and_the_columns_of_its_rotation():
    """A quaternion and its negative are the same rotation, and give the same numbers."""
    quaternion = np.array([0.1, -0.2, 0.3, 0.9])
    quaternion /= np.linalg.norm(quaternion)
    found, other = (decode(Message(pose=pose(1, 2, 3, sign * quaternion)),
                           'geometry_msgs/msg/PoseStamped', StreamConfig('ee_pose'))
                    for sign in (1, -1))
    assert found.shape == (9,)
    np.testing.assert_allclose(found, other, atol=1e-12)
    angle = np.linalg.norm(rotation_vector(found[3:]))
    assert angle == pytest.approx(2 * np.arccos(quaternion[3]))


@pytest.mark.parametrize(('msgtype', 'message', 'config', 'said'), [
    (JOINT_STATE, joint_state(), {'names': ('a', 'c')},
     'no joint c; the message has b, a, finger'),
    (JOINT_STATE, Message(name=['a', 'b'], position=[1.0]), {'names': ('a',)},
     '2 names and 1 values'),
    (JOINT_STATE, Message(name=['a'], position=[float('nan')]), {}, 'expected finite numbers'),
    ('geometry_msgs/msg/Pose', pose(quaternion=(0, 0, 0, 0)), {}, 'no unit quaternion'),
    ('geometry_msgs/msg/Pose', pose(quaternion=(0, 0, 0, float('nan'))), {}, 'no unit quaternion'),
    ('trajectory_msgs/msg/JointTrajectory', Message(joint_names=[], points=[]), {},
     'without points'),
    ('lab_msgs/msg/Hand', Message(), {}, 'say which with `field`'),
    ('lab_msgs/msg/Hand', Message(words='grip'), {'field': 'words'}, 'no number'),
    ('lab_msgs/msg/Hand', Message(fingers=[1]), {'field': 'fingers.2'}, 'nothing under'),
])
def test_a_message_without_them_says_what_it_has(msgtype, message, config, said):
    """Found, wanted, and on which topic."""
    with pytest.raises(StreamError, match='/topic') as error:
        decode(message, msgtype, StreamConfig('/topic', **config))
    assert said in str(error.value)


@pytest.mark.parametrize('change', [{'topic': ''}, {'scale': 0.0}, {'offset': float('nan')}])
def test_a_stream_that_means_nothing_is_refused(change):
    """Nothing can be divided by 0."""
    with pytest.raises(ValueError, match='expected|must be'):
        StreamConfig(**{'topic': 'a', **change})


def test_a_message_without_a_header_is_of_the_time_when_it_came():
    """As the newest value of a Float64 is."""
    stamp = Message(sec=2, nanosec=5)
    assert time_ns(Message(header=Message(stamp=stamp)), 7) == 2_000_000_005
    assert time_ns(Message(data=1.0), 7) == 7


def test_a_state_has_the_usual_topic_unless_another_is_said():
    """Joints are on joint_states on most robots; what nobody knows has its own name."""
    assert stream_of('joints', {}).topic == 'joint_states'
    assert stream_of('wrench', {}).topic == 'wrench'
    assert stream_of('joints', {'joints': StreamConfig('/left/joint_states')}).topic.startswith(
        '/left')
    assert JOINT_STATE in DECODERS

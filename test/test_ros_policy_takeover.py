"""Human takeover over real DDS: the operator wins at once, and the policy comes back gently."""

from functools import partial

from geometry_msgs.msg import Twist, TwistStamped
from node_robot import nanoseconds, node_process, Robot, small_checkpoint, values
import pytest
from rclpy.qos import QoSProfile
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger

VELOCITY, PERIOD_S = 0.03125, 0.1  # no policy gives exactly this


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two cameras."""
    return str(small_checkpoint(tmp_path_factory.mktemp('two') / 'checkpoint'))


class Operator:
    """A person with a joystick, as teleop_twist_joy publishes it, beside the robot."""

    def __init__(self, robot, kind=TwistStamped):
        """Publish on a node of the robot's."""
        self.robot, self.kind = robot, kind
        self.twist = robot.node.create_publisher(kind, 'operator/twist', 1)
        self.grip = robot.node.create_publisher(Float64MultiArray, 'operator/gripper_command', 1)

    def close(self):
        """Put the joystick away."""
        self.robot.node.destroy_publisher(self.twist)
        self.robot.node.destroy_publisher(self.grip)

    def say(self, velocity=VELOCITY, frame=''):
        """Publish one velocity along x."""
        message = self.kind()
        if self.kind is TwistStamped:
            message.header.frame_id = frame
        getattr(message, 'twist', message).linear.x = velocity
        self.twist.publish(message)

    def until(self, condition, **what):
        """Send until a condition holds: a message may be lost."""
        def sent():
            self.say(**what)
            return condition()
        self.robot.until_heard(self.twist)
        self.robot.until(sent)


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    """Return a robot beside a running node."""
    robot = Robot()
    robot.actors = []
    robot.node.create_subscription(String, 'policy/actor', lambda m: robot.actors.append(m.data),
                                   QoSProfile(depth=100))
    robot.release = partial(robot.call, robot.node.create_client(Trigger, 'policy/release'),
                            Trigger.Request())
    with node_process(tmp_path_factory.mktemp('log') / 'node.log'):
        yield robot
    robot.close()


def begin(robot, checkpoint, **parameters):
    """Bring the node to a policy that acts."""
    robot.bring_to('active', **{
        'checkpoint': checkpoint, 'instruction': 'pick up the milk', 'deadline_s': 1.0,
        'max_image_age_s': 0.5, 'operator_command_s': 1.0, 'operator_release_s': 0.0,
        'operator_memory': 'follow', 'operator_twist': 'TwistStamped', 'operator_warn_s': 60.0,
        'release_blend_in_s': 0.0, 'max_linear_speed_m_s': 0.4, 'shadow': False,
        'gripper_initial': 'unknown', **parameters})
    robot.until(robot.acts)
    robot.actors.clear()


@pytest.fixture
def robot(running, checkpoint):
    """Return the robot with cameras on and a policy that acts."""
    running.__dict__.update(cameras={'static', 'hand'}, rate_hz=20.0, pose_m=None)
    begin(running, checkpoint)
    return running


@pytest.fixture
def operator(robot):
    """Return a person with a joystick."""
    person = Operator(robot)
    yield person
    person.close()


def is_operators(twist, scale=PERIOD_S):
    """Return whether a command is what the operator says."""
    return values(twist) == pytest.approx((VELOCITY * scale, 0, 0, 0, 0, 0), abs=1e-9)


def test_the_operator_wins_at_once_and_the_policy_commands_nothing_after(robot, operator):
    """On both topics of motion: after the first of the operator's none is another's."""
    robot.forget()
    operator.until(lambda: sum(map(is_operators, robot.arms)) >= 10)
    first = next(n for n, arm in enumerate(robot.arms) if is_operators(arm))
    assert all(is_operators(arm) for arm in robot.arms[first:])
    first = next(n for n, twist in enumerate(robot.twists) if is_operators(twist, 1.0))
    assert all(is_operators(twist, 1.0) for twist in robot.twists[first:])
    assert 'policy' not in robot.actors[robot.actors.index('operator'):]
    stamps = [nanoseconds(arm) for arm in robot.arms]
    assert len(set(stamps)) == len(stamps)


def test_the_policy_gets_the_robot_back_by_the_service_alone(robot, operator):
    """A silent operator holds; the answer and the diagnostics say what became of the memory."""
    operator.until(lambda: 'operator' in robot.actors)
    robot.until_holding('~/release gives it back')
    robot.until(lambda: len(robot.arms) >= 3)
    assert not robot.acts()
    answer = robot.release()
    assert answer.success and 'followed along' in answer.message
    robot.forget()
    robot.until(robot.acts)
    robot.until(lambda: robot.message('commands') == 'acting')
    assert 'followed along' in robot.value('commands', "memory after the operator's last command")
    assert not robot.release().success


def test_a_silence_gives_the_robot_back_where_a_parameter_says_so(robot, checkpoint):
    """The memory restarts by parameter, and the diagnostics count it."""
    begin(robot, checkpoint, operator_release_s=0.5, operator_memory='restart',
          operator_command_s=0.2)
    person = Operator(robot)
    person.until(lambda: 'operator' in robot.actors)
    robot.actors.clear()
    robot.until(lambda: 'policy' in robot.actors)
    robot.diagnostics.clear()
    robot.until(lambda: 'commands' in robot.diagnostics)
    person.close()
    assert 'began afresh' in robot.value('commands', "memory after the operator's last command")
    assert robot.value('commands', 'takeovers') == '1'


def test_limits_hold_for_the_operator(robot, operator, checkpoint):
    """Too fast is slowed; NaN, other axes and the way out of the workspace hold the robot."""
    begin(robot, checkpoint, max_linear_speed_m_s=0.25)
    operator.until(lambda: any(values(arm)[0] == pytest.approx(0.025) for arm in robot.arms),
                   velocity=7.0)
    operator.until(robot.holds('finite numbers'), velocity=float('nan'))
    operator.until(robot.holds("its frame is 'joystick'"), frame='joystick')
    robot.pose_m = (0.5, 0.0, 0.2)
    robot.bring_to('active', workspace_m=[-0.5, -0.5, 0.0, 0.5, 0.5, 0.5])
    operator.until(robot.holds('outside'))
    robot.bring_to('unconfigured', workspace_m=[-float('inf')] * 3 + [float('inf')] * 3)


def test_two_operators_hold_the_robot_by_name(robot, operator):
    """Their motions would add up."""
    operator.until(lambda: 'operator' in robot.actors)
    other = Operator(robot)
    robot.until_holding('an operator of arm) has 2 publishers')
    robot.until(lambda: len(robot.arms) >= 3)
    assert not robot.acts()
    other.close()
    robot.forget()
    operator.until(robot.acts)


def test_an_operator_who_never_lets_go_is_told_of(robot, checkpoint, operator):
    """The robot does what the person says, and the diagnostics say that the policy waits."""
    begin(robot, checkpoint, operator_warn_s=0.5)
    operator.until(lambda: 'does not let go' in robot.message('commands'))
    assert robot.diagnostics['commands'].level == b'\x01'


def test_the_operator_moves_a_robot_that_sees_nothing(robot, operator):
    """That is when a person is needed."""
    robot.cameras = set()
    robot.until_holding('the newest image')
    operator.until(lambda: any(map(is_operators, robot.arms)))


def test_the_gripper_is_the_operators_until_the_policy_decides_again(robot, operator):
    """Its last command stays while the arm is steered."""
    robot.until_heard(operator.grip)
    operator.grip.publish(Float64MultiArray(data=[0.0]))
    operator.until(lambda: robot.grippers and robot.grippers[-1].data[0] == 0.0
                   and sum(map(is_operators, robot.arms)) > 0)
    robot.grippers.clear()
    operator.until(lambda: len(robot.grippers) >= 5)
    assert {tuple(gripper.data) for gripper in robot.grippers} == {(0.0,)}


def test_a_plain_twist_is_taken_by_parameter(robot, checkpoint):
    """What teleop_twist_joy sends by default."""
    begin(robot, checkpoint, operator_twist='Twist')
    person = Operator(robot, Twist)
    person.until(lambda: any(map(is_operators, robot.arms)))
    person.close()


def test_shadow_commands_nothing_for_an_operator_either(robot, checkpoint, operator):
    """Whoever moves the robot there is not this node."""
    robot.give(shadow=True)
    robot.until(lambda: 'in shadow' in robot.message('state'))
    robot.until_silent()
    robot.until_heard(operator.twist)
    operator.say()
    robot.until_silent()


def test_a_takeover_ends_with_the_node_s_activity(robot, operator):
    """Who activates the node again gives it to the policy, which then waits for words."""
    operator.until(lambda: 'operator' in robot.actors)
    robot.bring_to('active', instruction='pick up the milk')
    robot.until(robot.acts)


def test_a_person_s_hold_stops_an_operator_as_well(robot, operator):
    """Whoever calls ~/hold stands beside the robot; the operator may be in another room."""
    client = robot.node.create_client(SetBool, 'policy/hold')
    operator.until(lambda: 'operator' in robot.actors)
    assert robot.call(client, SetBool.Request(data=True)).success
    robot.forget()
    operator.until(lambda: len(robot.arms) >= 5)
    assert not robot.acts()
    assert not any(map(any, map(values, robot.twists)))
    assert robot.call(client, SetBool.Request(data=False)).success
    operator.until(robot.acts)

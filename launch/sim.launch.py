"""
Start the simulated robot and who acts: `ros2 launch ros2_lstm_policy sim.launch.py`.

The policy of `checkpoint` acts, or with `actor:=expert` the scripted expert. The first episode
begins at once; the next ones with `ros2 service call /sim_robot/reset std_srvs/srv/Trigger`.
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from ros2_lstm_policy.ros.nodes import (for_launch, share_directory, simulation,
                                        simulation_with_expert)

SWITCH = ['true', 'false']
ARGUMENTS = (
    DeclareLaunchArgument(
        'actor', default_value='policy', choices=['policy', 'expert'],
        description='who acts: the policy of the checkpoint, or the scripted expert'),
    DeclareLaunchArgument(
        'checkpoint', default_value=str(share_directory() / 'checkpoints' / 'compact_libero'),
        description='directory of the acting policy'),
    DeclareLaunchArgument(
        'task', default_value='living_room_scene2/butter',
        description='task of the first episode: a short name or suite/index'),
    DeclareLaunchArgument(
        'seed', default_value='0', description='seed of the first episode'),
    DeclareLaunchArgument(
        'instruction', default_value='', description="words instead of the task's own"),
    DeclareLaunchArgument(
        'lock_step', default_value='true', choices=SWITCH,
        description='the simulator waits for each command; false: real time'),
    DeclareLaunchArgument(
        'namespace', default_value='', description='namespace of the nodes and their topics'),
    DeclareLaunchArgument(
        'log_level', default_value='info', choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description='least severity that is logged'),
)


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the nodes."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_nodes)])


def _nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {argument.name: LaunchConfiguration(argument.name).perform(context)
             for argument in ARGUMENTS}
    lock_step = given['lock_step'] == 'true'
    if given['actor'] == 'expert':
        robot, *others = simulation_with_expert(lock_step)
    else:
        robot, policy = simulation(lock_step)
        others = [policy.having(checkpoint=given['checkpoint'], autostart=True)]
    robot = robot.having(task=given['task'], seed=int(given['seed']),
                         instruction=given['instruction'])
    return [Node(**for_launch(spec), namespace=given['namespace'], output='screen',
                 arguments=['--ros-args', '--log-level', given['log_level']])
            for spec in (robot, *others)]

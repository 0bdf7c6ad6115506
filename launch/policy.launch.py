"""
Start the policy node: `ros2 launch ros2_lstm_policy policy.launch.py checkpoint:=DIRECTORY`.

The node waits to be configured and activated unless `autostart:=true`. Cameras are wired by the
arguments `rgb` and `hand_rgb`.
"""

from dataclasses import replace

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from ros2_lstm_policy.ros.nodes import for_launch, POLICY, share_directory

SWITCH = ['true', 'false']
ARGUMENTS = (
    DeclareLaunchArgument(
        'params_file', default_value=str(share_directory() / 'config' / POLICY.params_file),
        description='YAML file with the parameters of the node'),
    DeclareLaunchArgument(
        'checkpoint', default_value='',
        description='directory of the checkpoint; empty: what the params_file says'),
    DeclareLaunchArgument(
        'shadow', default_value='', choices=['', *SWITCH],
        description='compute everything, command nothing; empty: what the params_file says'),
    DeclareLaunchArgument(
        'rgb', default_value='rgb', description='topic of the static camera'),
    DeclareLaunchArgument(
        'hand_rgb', default_value='hand_rgb', description='topic of the hand camera'),
    DeclareLaunchArgument(
        'namespace', default_value='', description='namespace of the node and its topics'),
    DeclareLaunchArgument(
        'use_sim_time', default_value='false', choices=SWITCH,
        description='take the time from /clock'),
    DeclareLaunchArgument(
        'log_level', default_value='info', choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description='least severity that is logged'),
    DeclareLaunchArgument(
        'autostart', default_value='false', choices=SWITCH,
        description='configure and activate at once'),
)


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_policy)])


def _policy(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {argument.name: LaunchConfiguration(argument.name).perform(context)
             for argument in ARGUMENTS}
    spec = replace(POLICY, params_file=given['params_file'], remappings={
        topic: given[topic] for topic in ('rgb', 'hand_rgb') if given[topic] != topic})
    spec = spec.having(use_sim_time=given['use_sim_time'] == 'true',
                       autostart=given['autostart'] == 'true')
    if given['checkpoint']:
        spec = spec.having(checkpoint=given['checkpoint'])
    if given['shadow']:
        spec = spec.having(shadow=given['shadow'] == 'true')
    return [Node(**for_launch(spec), namespace=given['namespace'], output='screen',
                 arguments=['--ros-args', '--log-level', given['log_level']])]

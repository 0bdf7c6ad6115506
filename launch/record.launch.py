"""
Start the recorder: `ros2 launch ros2_lstm_policy record.launch.py directory:=recordings`.

Cameras are wired by `rgb` and `hand_rgb`, whoever acts by `arm_delta` and `gripper_command`; for
the policy node: `actor:=policy arm_delta:=policy/arm_delta
gripper_command:=policy/gripper_command`.
"""

from dataclasses import replace

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from ros2_lstm_policy.ros.nodes import for_launch, RECORDER, share_directory

SWITCH = ['true', 'false']
WIRES = ('rgb', 'hand_rgb', 'instruction', 'arm_delta', 'gripper_command', 'ee_pose',
         'joint_states')
ARGUMENTS = (
    DeclareLaunchArgument(
        'params_file', default_value=str(share_directory() / 'config' / RECORDER.params_file),
        description='YAML file with the parameters of the node'),
    DeclareLaunchArgument(
        'directory', default_value='',
        description='folder of the bags; empty: what the params_file says'),
    DeclareLaunchArgument(
        'actor', default_value='',
        description='operator, policy or expert; empty: what the params_file says'),
    DeclareLaunchArgument(
        'automatic', default_value='false', choices=SWITCH,
        description='an instruction begins an episode, episode/success ends it'),
    *(DeclareLaunchArgument(topic, default_value=topic, description=f'topic to record as {topic}')
      for topic in WIRES),
    DeclareLaunchArgument(
        'namespace', default_value='', description='namespace of the node and its topics'),
    DeclareLaunchArgument(
        'log_level', default_value='info', choices=['debug', 'info', 'warn', 'error', 'fatal'],
        description='least severity that is logged'),
)


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and the node."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_recorder)])


def _recorder(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {argument.name: LaunchConfiguration(argument.name).perform(context)
             for argument in ARGUMENTS}
    spec = replace(RECORDER, params_file=given['params_file'], remappings={
        topic: given[topic] for topic in WIRES if given[topic] != topic})
    spec = spec.having(automatic=given['automatic'] == 'true', **{
        name: given[name] for name in ('directory', 'actor') if given[name]})
    return [Node(**for_launch(spec), namespace=given['namespace'], output='screen',
                 arguments=['--ros-args', '--log-level', given['log_level']])]

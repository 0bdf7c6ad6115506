"""
Start the policy node: `ros2 launch ros2_lstm_policy policy.launch.py checkpoint:=DIRECTORY`.

The node waits to be configured and activated unless `autostart:=true`. Its topics are wired by
arguments of their names. An argument that is left empty changes nothing: the params_file says it.
"""

from dataclasses import replace

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from ros2_lstm_policy.ros.nodes import for_launch, POLICY, share_directory

SWITCH = ['true', 'false']
TEXTS = ('checkpoint', 'server', 'instruction', 'device', 'trigger')
SWITCHES = ('compressed', 'shadow')
UNSAID = '; empty: what the params_file says'
INPUTS = {'rgb': 'topic of the static camera', 'hand_rgb': 'topic of the hand camera',
          'ee_pose': "topic of the tool's pose, for workspace_m"}
OUTPUTS = {'arm_delta': 'displacements of the arm', 'delta_twist_cmds': 'velocities of the arm',
           'gripper_command': 'commands of the gripper', 'action_chunk': 'intended paths'}
ARGUMENTS = (
    DeclareLaunchArgument(
        'params_file', default_value=str(share_directory() / 'config' / POLICY.params_file),
        description='YAML file with the parameters of the node'),
    DeclareLaunchArgument(
        'checkpoint', default_value='',
        description='directory of the checkpoint' + UNSAID),
    DeclareLaunchArgument(
        'server', default_value='',
        description='act with the policy that serve answers with here, ws://HOST:PORT' + UNSAID),
    DeclareLaunchArgument(
        'instruction', default_value='',
        description='what the robot is told; it moves once the node is active' + UNSAID),
    DeclareLaunchArgument(
        'device', default_value='', description='where the policy runs: cpu, cuda' + UNSAID),
    DeclareLaunchArgument(
        'trigger', default_value='', choices=['', 'timer', 'frames'],
        description='what begins a tick' + UNSAID),
    DeclareLaunchArgument(
        'compressed', default_value='', choices=['', *SWITCH],
        description='subscribe to CompressedImage on the image topics' + UNSAID),
    DeclareLaunchArgument(
        'shadow', default_value='', choices=['', *SWITCH],
        description='compute everything, command nothing' + UNSAID),
    *(DeclareLaunchArgument(topic, default_value=topic, description=text)
      for topic, text in INPUTS.items()),
    DeclareLaunchArgument(
        'instruction_topic', default_value='instruction', description='topic of the words'),
    *(DeclareLaunchArgument(topic, default_value=f'~/{topic}', description=f'topic of the {text}')
      for topic, text in OUTPUTS.items()),
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
    wires = {**{topic: given[topic] for topic in INPUTS},
             'instruction': given['instruction_topic'],
             **{f'~/{topic}': given[topic] for topic in OUTPUTS}}
    spec = replace(POLICY, params_file=given['params_file'], remappings={
        topic: to for topic, to in wires.items() if to != topic})
    spec = spec.having(use_sim_time=given['use_sim_time'] == 'true',
                       autostart=given['autostart'] == 'true')
    spec = spec.having(**{name: given[name] for name in TEXTS if given[name]})
    spec = spec.having(**{name: given[name] == 'true' for name in SWITCHES if given[name]})
    return [Node(**for_launch(spec), namespace=given['namespace'], output='screen',
                 arguments=['--ros-args', '--log-level', given['log_level']])]

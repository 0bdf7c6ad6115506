"""
How each node is started, described once for the launch files, the demo and the tests.

A launch file turns a :class:`NodeSpec` into the keywords of an action with :func:`for_launch`, the
demo and the tests turn the same one into a process with :func:`command`. Neither rclpy nor torch
is imported: `ros2 launch` runs on the system's Python, which need not have the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
import json
import os
from pathlib import Path
import sys
from typing import Any

from ament_index_python.packages import get_package_prefix, PackageNotFoundError

PACKAGE = 'ros2_lstm_policy'
# The one name that this version of Fast DDS reads; FASTDDS_DEFAULT_PROFILES_FILE has no effect.
DDS_PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
DDS_PROFILE = 'fastdds_shm.xml'
# How long launch waits for a node that was asked to end [s]; a busy machine needs more than 5.
LEAVE_S = '15'


@dataclass(frozen=True)
class NodeSpec:
    """
    One node as it is started, whoever starts it.

    :param executable: its console script; its module in `ros/` has the same name.
    :param name: the name that it gives itself, the `~` of its topics. A process may hold further
        nodes, so nobody renames them all.
    :param params_file: YAML with its parameters: a file in `config/`, or a path.
    :param parameters: what is set on top; the last word.
    :param remappings: topic as the node knows it, to the topic it is wired to.
    :param lifecycle: whether it waits to be configured and activated.
    """

    executable: str
    name: str
    params_file: Any
    parameters: Mapping[str, Any] = field(default_factory=dict)
    remappings: Mapping[str, str] = field(default_factory=dict)
    lifecycle: bool = False

    def having(self, **parameters: Any) -> NodeSpec:
        """Return the same node with further parameters."""
        return replace(self, parameters={**self.parameters, **parameters})


POLICY = NodeSpec('policy_node', 'policy', 'policy.yaml', lifecycle=True)
SIM_ROBOT = NodeSpec('sim_robot_node', 'sim_robot', 'sim_robot.yaml')
RECORDER = NodeSpec('recorder_node', 'recorder', 'recorder.yaml')
NODES = (POLICY, SIM_ROBOT, RECORDER)


def obeying(spec: NodeSpec, actor: str) -> NodeSpec:
    """Return a node wired to the commands of the acting node of that name."""
    return replace(spec, remappings={
        **spec.remappings, 'arm_delta': f'{actor}/arm_delta',
        'gripper_command': f'{actor}/gripper_command',
        'reset_episode': f'{actor}/reset_episode'})


def simulation(lock_step: bool = True) -> tuple[NodeSpec, NodeSpec]:
    """Return the simulated robot and the policy that it obeys."""
    robot = obeying(SIM_ROBOT, POLICY.name).having(lock_step=lock_step, use_sim_time=lock_step)
    policy = replace(POLICY, params_file='policy_sim.yaml').having(use_sim_time=lock_step)
    return robot, policy


def simulation_with_expert(lock_step: bool = True) -> tuple[NodeSpec]:
    """Return the simulated robot with the scripted expert, which lives in its process."""
    robot = obeying(SIM_ROBOT, 'expert')
    return (robot.having(lock_step=lock_step, use_sim_time=lock_step, expert=True),)


def share_directory() -> Path:
    """Return the installed share directory; the source tree where the package is not installed."""
    try:
        return Path(get_package_prefix(PACKAGE)) / 'share' / PACKAGE
    except (PackageNotFoundError, OSError):  # OSError: no AMENT_PREFIX_PATH
        return Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """
    Return what the environment of every process of ours must add to its own.

    The Fast DDS profile gives room for whole images in shared memory; a profile that the user
    has set stands.
    """
    profile = os.environ.get(DDS_PROFILE_VARIABLE, share_directory() / 'config' / DDS_PROFILE)
    return {DDS_PROFILE_VARIABLE: str(profile)}


def for_launch(spec: NodeSpec) -> dict[str, Any]:
    """Return the keywords of `launch_ros.actions.Node` (or LifecycleNode) for a node."""
    return {
        'package': PACKAGE,
        'executable': spec.executable,
        **({'name': spec.name} if spec.lifecycle else {}),
        'parameters': [_params_path(spec), dict(spec.parameters)],
        'remappings': list(spec.remappings.items()),
        'additional_env': environment(),
        'sigterm_timeout': LEAVE_S,
    }


def command(spec: NodeSpec) -> list[str]:
    """
    Return the command line that starts a node as a process.

    Values are written as JSON, which is YAML that no parser takes for another type: the
    instruction `yes` stays a text.
    """
    words = [*_program(spec.executable), '--ros-args', '--params-file', str(_params_path(spec))]
    for name, value in spec.parameters.items():
        words += ['--param', f'{name}:={json.dumps(value)}']
    for source, target in spec.remappings.items():
        words += ['--remap', f'{source}:={target}']
    return words


def _params_path(spec: NodeSpec) -> Any:
    if isinstance(spec.params_file, str) and os.sep not in spec.params_file:
        return str(share_directory() / 'config' / spec.params_file)
    return spec.params_file


def _program(executable: str) -> list[str]:
    """Return the installed console script, as launch runs it, or its module in a source tree."""
    try:
        prefix = Path(get_package_prefix(PACKAGE))
    except (PackageNotFoundError, OSError):  # OSError: no AMENT_PREFIX_PATH
        return [sys.executable, '-m', f'{PACKAGE}.ros.{executable}']
    return [str(prefix / 'lib' / PACKAGE / executable)]

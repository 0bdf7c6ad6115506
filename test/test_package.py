"""What the package says about itself agrees with what it is."""

import ast
from collections.abc import Iterator
import hashlib
import importlib
import os
from pathlib import Path
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from catkin_pkg.package import parse_package
import pytest
import ros2_lstm_policy

ROOT = Path(__file__).parents[1]
APACHE_2_0 = 'cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30'
ROS_PACKAGES = re.compile(
    r'rclpy|cv_bridge|launch|launch_ros|ament_\w+|\w+_interfaces|\w+_msgs|std_srvs')
OPTIONAL = {'control_msgs'}  # used where it is installed, and said so there
HELP = """
try:
    module.main()
except SystemExit as stop:
    assert not stop.code
"""
NO_TORCH = """
import sys
assert 'torch' not in sys.modules, 'torch was imported'
"""


def console_scripts() -> dict[str, str]:
    """Return the module of each console script in setup.py."""
    lines = re.findall(r"'(\w+) = ([\w.]+):main'", (ROOT / 'setup.py').read_text())
    return dict(lines)


def imported_packages(path: Path) -> Iterator[str]:
    """Yield the top-level names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition('.')[0]


@pytest.mark.linter
@pytest.mark.xmllint
def test_package_xml_is_valid_and_free_of_warnings() -> None:
    """Format 3, with everything that REP-149 asks for."""
    warnings: list[str] = []
    package = parse_package(str(ROOT / 'package.xml'), warnings=warnings)
    assert package.package_format == 3
    assert not warnings
    assert package.get_build_type() == 'ament_python'


def test_every_ros_package_that_is_imported_is_declared() -> None:
    """A robot that ran rosdep has all that the nodes and the launch files import."""
    declared = {d.name for d in parse_package(str(ROOT / 'package.xml')).exec_depends}
    found = {name for folder in ('ros2_lstm_policy', 'launch')
             for path in (ROOT / folder).rglob('*.py') for name in imported_packages(path)
             if ROS_PACKAGES.fullmatch(name)}
    assert found - declared - OPTIONAL == set()


def test_the_version_is_the_same_everywhere() -> None:
    """In package.xml, setup.py, the module and the changelog."""
    version = ElementTree.parse(ROOT / 'package.xml').findtext('version')
    assert f"version='{version}'" in (ROOT / 'setup.py').read_text()
    assert ros2_lstm_policy.__version__ == version
    assert version in (ROOT / 'CHANGELOG.rst').read_text()


@pytest.mark.copyright
@pytest.mark.linter
def test_the_licence_is_apache_2_0() -> None:
    """LICENSE holds the whole text, unchanged, and package.xml names it."""
    assert hashlib.sha256((ROOT / 'LICENSE').read_bytes()).hexdigest() == APACHE_2_0
    assert parse_package(str(ROOT / 'package.xml')).licenses == ['Apache-2.0']


@pytest.mark.parametrize('name', console_scripts())
def test_help_of_a_program_needs_no_torch(name: str) -> None:
    """`--help` answers at once, on a machine where torch is still to be installed."""
    module = console_scripts()[name]
    code = f'import {module} as module\n' + HELP + NO_TORCH
    result = subprocess.run([sys.executable, '-c', code, '--help'], capture_output=True, text=True,
                            cwd=ROOT, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(('name', 'parameter'), [
    ('policy_node', 'max_linear_speed_m_s (double; default 0.4; m/s; 0.001 to 10; live): faster'),
    ('recorder_node', "cameras (string array; default ['static', 'hand']; read only): the camera"),
    ('sim_robot_node', 'lock_step (boolean; default True; read only): wait for the answer to ea'),
])
def test_a_node_answers_questions_about_itself_instead_of_starting(
        name: str, parameter: str) -> None:
    """Its `--help` once started it: the robot's node ran twice, the second time for a question."""
    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, '-m', console_scripts()[name], *arguments],
                              capture_output=True, text=True, cwd=ROOT, timeout=60)
    told = ask('--help', '--ros-args', '-p', 'seed:=3')
    assert told.returncode == 0 and not told.stderr
    assert parameter in ' '.join(told.stdout.split())
    assert ask('--version').stdout == f'{name} {ros2_lstm_policy.__version__}\n'
    wrong = ask('--checkpoint', 'x')
    assert wrong.returncode == 2
    assert wrong.stderr == (f"{name}: unknown argument '--checkpoint'; parameters are given as "
                            f'--ros-args -p NAME:=VALUE, see {name} --help\n')


@pytest.mark.parametrize('name', ['policy_node', 'recorder_node', 'sim_robot_node'])
@pytest.mark.parametrize(('arguments', 'words'), [
    (['-p', 'box:=[0, 0.5]'], "'-p box:=[0, 0.5]'"),
    (['--params-file', 'mixed.yaml'], "'numbers: [0.5, 1]'; all values of a list must be of one "),
    (['--params-file', 'torn.yaml'], "'--params-file torn.yaml'"),
    (['--params-file', 'nowhere.yaml'], "'--params-file nowhere.yaml'. Error: Error opening"),
    (['-r', '__node:=bad-name'], "'-r __node:=bad-name'"),
])
def test_what_ros_cannot_read_of_a_command_line_is_one_line(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
        name: str, arguments: list[str], words: str) -> None:
    """A list of whole numbers and others ended the node with a traceback of twenty lines."""
    (tmp_path / 'mixed.yaml').write_text(
        '/**:\n  ros__parameters:\n    numbers: [0.5, 1]\n')
    (tmp_path / 'torn.yaml').write_text('/**:\n  ros__parameters:\n    numbers: [0.5\n')
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(console_scripts()[name]).main
    assert main(['--ros-args', *arguments]) == 2
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f'{name}: ') and words in line and ' at /' not in line


@pytest.mark.parametrize(('name', 'argument', 'words'), [
    ('recorder_node', 'control_period_s:=1', 'control_period_s is 1 (integer); expected double; '
     'write 1.0'),
    ('recorder_node', 'queue_mb:=0.5', 'queue_mb is 0.5; expected 1 to 100000 MB'),
    ('sim_robot_node', 'command_timeout_s:=1', 'command_timeout_s is 1 (integer); expected '),
    ('policy_node', 'use_sim_time:=1', "'use_sim_time'"),
])
def test_a_node_that_cannot_use_a_parameter_ends_with_one_line(
        tmp_path: Path, name: str, argument: str, words: str) -> None:
    """The recorder raised it as a traceback; what to do stood in its last line."""
    ended = subprocess.run(
        [sys.executable, '-m', console_scripts()[name], '--ros-args', '-p', argument],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path[1:]])})
    assert ended.returncode == 1
    line, = ended.stderr.splitlines()
    assert '[FATAL]' in line and words in line


def test_what_a_launch_file_imports_needs_neither_torch_nor_rclpy() -> None:
    """`ros2 launch ... --show-args` works wherever launch does."""
    code = ('import sys, ros2_lstm_policy.ros.nodes\n'
            "sys.exit(', '.join({'torch', 'rclpy'} & set(sys.modules)))")
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
    assert not result.stderr.strip()


def test_every_requirement_is_pinned_as_in_the_lock() -> None:
    """One version of each package, whichever file asks for it."""
    lock = dict(re.findall(r'^([\w.-]+)==(\S+)$',
                           (ROOT / 'requirements/constraints.txt').read_text(), re.M))
    normal = {re.sub(r'[-_.]+', '-', name).lower(): version for name, version in lock.items()}
    for path in sorted((ROOT / 'requirements').glob('*.txt')):
        lines = [line.split('#')[0].strip(' \\\n') for line in path.read_text().splitlines()]
        for line in lines:
            if line and not line.startswith(('-', '--')):
                name, separator, version = line.partition('==')
                wanted = normal.get(re.sub(r'[-_.]+', '-', name).lower(), version)
                if name != 'setuptools':
                    assert separator and version == wanted, f'{path.name}: {line}, lock {wanted}'

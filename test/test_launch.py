"""The nodes start and stop as they are described once, as processes and by the real launch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import signal
import subprocess
import threading
import time

from node_robot import small_checkpoint
import pytest
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.node import Node
from ros2_lstm_policy.ros import nodes
from ros2_lstm_policy.ros.nodes import NodeSpec

ROOT = Path(__file__).parents[1]
LAUNCH_FILES = sorted(path.name for path in (ROOT / 'launch').glob('*.launch.py'))
START_S = 180.0  # far more than it takes, for a machine with much else to do
ANSWER_S = 10.0  # then it is asked again
STOP_S = 60.0


@pytest.fixture
def observer() -> Iterator[Node]:
    """Return a node of our own, which sees the graph."""
    rclpy.init()
    node = Node('observer')
    yield node
    node.destroy_node()
    rclpy.shutdown()


def parameters_of(observer: Node, name: str, wanted: list[str],
                  child: subprocess.Popen[bytes] | None = None) -> list[object]:
    """Wait for a node, while its process lives; return its strings and booleans."""
    client = observer.create_client(GetParameters, f'/{name}/get_parameters')
    deadline = time.monotonic() + START_S
    while not client.wait_for_service(0.5):
        assert child is None or child.poll() is None, f'{name} ended with {child.returncode}'
        assert time.monotonic() < deadline, f'{name} did not appear in {START_S} s'
    while True:  # a request that crosses the discovery is lost: nothing waits for its answer
        future = client.call_async(GetParameters.Request(names=wanted))
        rclpy.spin_until_future_complete(observer, future, timeout_sec=ANSWER_S)
        if future.done():
            break
        assert child is None or child.poll() is None, f'{name} ended with {child.returncode}'
        assert time.monotonic() < deadline, f'{name} did not answer in {START_S} s'
    values = future.result().values
    return [value.bool_value if value.type == 1 else value.string_value for value in values]


@contextmanager
def process(spec: NodeSpec) -> Iterator[subprocess.Popen[bytes]]:
    """Start a node; whatever happens, leave nothing behind."""
    with subprocess.Popen(nodes.command(spec), env={**os.environ, **nodes.environment()}) as child:
        try:
            yield child
        finally:
            child.kill()


def quiet(spec: NodeSpec) -> NodeSpec:
    """Return a node that waits instead of beginning to act."""
    return spec.having(autostart=False) if spec is nodes.SIM_ROBOT else spec


def tell_once(child: subprocess.Popen[bytes]) -> None:
    """Send one signal, as launch does."""
    child.send_signal(signal.SIGTERM)


def tell_many_times(child: subprocess.Popen[bytes]) -> None:
    """Send both signals until it has ended, as an impatient person does."""
    deadline = time.monotonic() + STOP_S
    while child.poll() is None and time.monotonic() < deadline:
        for number in (signal.SIGINT, signal.SIGTERM):
            child.send_signal(number)
        time.sleep(0.01)


@pytest.mark.parametrize('stop', [tell_once, tell_many_times], ids=lambda s: s.__name__)
@pytest.mark.parametrize('spec', nodes.NODES, ids=lambda spec: spec.name)
def test_every_described_node_starts_and_stops_cleanly(
        observer: Node, spec: NodeSpec, stop: Callable[[subprocess.Popen[bytes]], None]) -> None:
    """The command line of each description runs, under its name; signals end it with 0."""
    with process(quiet(spec).having(use_sim_time=True)) as child:
        assert parameters_of(observer, spec.name, ['use_sim_time'], child) == [True]
        stop(child)
        assert child.wait(STOP_S) == 0


def test_a_text_that_looks_like_another_type_stays_a_text(observer: Node) -> None:
    """An instruction such as `yes` or `10` is YAML for something else unless it is quoted."""
    texts = {'instruction': 'put "it": there, schön', 'base_frame_id': '10',
             'tool_frame_id': 'yes', 'gripper_joint': '[1, 2]'}
    with process(nodes.POLICY.having(**texts)) as child:
        found = parameters_of(observer, 'policy', list(texts), child)
    assert found == list(texts.values())


def test_a_parameter_file_of_the_package_exists_for_every_node() -> None:
    """What a description names is shipped."""
    specs = (*nodes.NODES, *nodes.simulation(), *nodes.simulation_with_expert())
    for spec in specs:
        assert (ROOT / 'config' / spec.params_file).is_file(), spec.params_file
    assert (ROOT / 'config' / nodes.DDS_PROFILE).is_file()


def test_a_dds_profile_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours is the default only."""
    assert nodes.environment()[nodes.DDS_PROFILE_VARIABLE].endswith(nodes.DDS_PROFILE)
    monkeypatch.setenv(nodes.DDS_PROFILE_VARIABLE, '/etc/mine.xml')
    assert nodes.environment() == {nodes.DDS_PROFILE_VARIABLE: '/etc/mine.xml'}


def launched(name: str, look: Callable[[], None], **arguments: str) -> None:
    """Launch a file, look, and have everything end cleanly."""
    launch = pytest.importorskip('launch', reason='launch comes with ROS 2, not from PyPI')
    pytest.importorskip('launch_ros', reason='launch_ros comes with ROS 2, not from PyPI')
    source = launch.launch_description_sources.PythonLaunchDescriptionSource(
        str(ROOT / 'launch' / name))
    codes: dict[str, int] = {}
    on_exit = launch.event_handlers.OnProcessExit(
        on_exit=lambda event, _: codes.update({event.process_name: event.returncode}))
    service = launch.LaunchService(noninteractive=True)
    service.include_launch_description(launch.LaunchDescription([
        launch.actions.RegisterEventHandler(on_exit),
        launch.actions.IncludeLaunchDescription(source, launch_arguments=arguments.items())]))
    failures: list[BaseException] = []

    def look_then_end() -> None:
        try:
            look()
        except BaseException as error:  # told by the test's own thread
            failures.append(error)
        finally:
            service.shutdown()

    watcher = threading.Thread(target=look_then_end)
    watcher.start()
    assert service.run() == 0
    watcher.join()
    assert not failures, failures
    assert codes and set(codes.values()) == {0}


@pytest.mark.parametrize('name', LAUNCH_FILES)
def test_the_real_launch_starts_and_stops(observer: Node, name: str) -> None:
    """The file's nodes appear, and end cleanly when launch is told to stop."""
    wanted = {'policy.launch.py': ['policy'], 'record.launch.py': ['recorder'],
              'sim.launch.py': ['sim_robot', 'policy']}[name]

    def look() -> None:
        for node in wanted:
            parameters_of(observer, node, ['use_sim_time'])

    launched(name, look)


def test_every_argument_of_the_policy_launch_reaches_the_node(
        observer: Node, tmp_path: Path) -> None:
    """The outputs could not be remapped, and most parameters needed a file."""
    topics = {'arm_delta': '/arm/delta', 'delta_twist_cmds': '/servo/twist',
              'gripper_command': '/hand/command', 'action_chunk': '/plan', 'rgb': '/cam/rgb',
              'hand_rgb': '/cam/hand', 'instruction_topic': '/words'}
    texts = {'checkpoint': str(small_checkpoint(tmp_path / 'checkpoint')), 'trigger': 'frames',
             'device': 'cpu', 'instruction': 'pick up: "the" milk'}

    def look() -> None:
        assert parameters_of(observer, 'left/policy', [*texts, 'compressed', 'shadow']) == [
            *texts.values(), True, True]
        deadline = time.monotonic() + START_S
        outputs = list(topics.values())[:4]
        inputs = list(topics.values())[4:]
        while not (all(map(observer.count_publishers, outputs))
                   and all(map(observer.count_subscribers, inputs))):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    launched('policy.launch.py', look, namespace='left', autostart='true', compressed='true',
             shadow='true', **topics, **texts)

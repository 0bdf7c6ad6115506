"""The demo: it runs episodes, says who acted, and leaves nothing behind."""

from contextlib import suppress
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TwistStamped
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros2_lstm_policy.ros.closed_loop import demo, options
from ros2_lstm_policy.ros.closed_loop.observer import DemoObserver
from ros2_lstm_policy.ros.closed_loop.processes import ChildError, Children
from ros2_lstm_policy.ros.closed_loop.summary import summarise
from ros2_lstm_policy.ros.nodes import NodeSpec
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Header
from std_srvs.srv import Trigger

COMMAND = [sys.executable, '-m', 'ros2_lstm_policy.ros.closed_loop.demo']


def given(*arguments: str) -> options.DemoOptions:
    """Return what a command line asks for."""
    return options.options(options.parser().parse_args(arguments))


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(word) for word in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process lives; one whose end nobody has asked for does not."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except (FileNotFoundError, ProcessLookupError):
        return False


def watch(children: Children) -> None:
    """Watch until a child ends, which raises."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children.check()
        time.sleep(0.01)


def test_the_expert_runs_an_episode_and_the_summary_says_so(tmp_path: Path) -> None:
    """One episode over DDS, a video, a picture, numbers, and who acted."""
    result = subprocess.run([*COMMAND, '--actor', 'expert', '--output', str(tmp_path)],
                            capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    assert 'acted:          the scripted expert' in result.stdout
    assert 'successes:      1 of 1' in result.stdout
    summary = json.loads((tmp_path / 'summary.json').read_text())
    (episode,) = summary['episodes']
    assert episode['success'] and 20 < episode['steps'] < 100
    assert summary['first_command_s'] > 0 and episode['latency_p50_ms'] > 0
    for made in (episode['video'], episode['picture'], tmp_path / 'sim_robot.log'):
        assert Path(made).stat().st_size > 0


def test_an_interruption_ends_every_process(tmp_path: Path) -> None:
    """Ctrl-C while the simulator is being built, too."""
    demo_process = subprocess.Popen(
        [*COMMAND, '--actor', 'expert', '--output', str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started: list[int] = []
    try:
        deadline = time.monotonic() + 60
        while not children_of(demo_process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = children_of(demo_process.pid)
        demo_process.send_signal(signal.SIGINT)
        assert demo_process.wait(120) == 130
        assert not [pid for pid in started if is_running(pid)]
    finally:
        demo_process.kill()
        demo_process.wait()
        for pid in started:  # a robot left behind would answer the next tests
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_node_that_ends_is_an_error_with_its_last_words(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for the cause finds it, or the file where it is."""
    spec = NodeSpec('sim_robot_node', 'sim_robot', 'sim_robot.yaml')
    monkeypatch.setattr('ros2_lstm_policy.ros.nodes.command', lambda _: [
        sys.executable, '-c', 'import sys; sys.exit("no libOSMesa here")'])
    with Children([spec], tmp_path) as children, pytest.raises(ChildError) as caught:
        watch(children)
    assert 'status 1' in str(caught.value) and 'no libOSMesa here' in str(caught.value)
    assert str(tmp_path / 'sim_robot.log') in str(caught.value)


def test_a_node_that_does_not_listen_is_killed_with_all_it_started(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left behind, whatever a node does about signals."""
    stubborn = ('import signal, subprocess, time; signal.signal(signal.SIGINT, signal.SIG_IGN)\n'
                'print(subprocess.Popen(["sleep", "600"]).pid, flush=True); time.sleep(600)')
    monkeypatch.setattr('ros2_lstm_policy.ros.nodes.command',
                        lambda _: [sys.executable, '-c', stubborn])
    monkeypatch.setattr('ros2_lstm_policy.ros.closed_loop.processes.END_TIMEOUT_S', 0.2)
    with Children([NodeSpec('a', 'a', 'a.yaml')], tmp_path) as children:
        while not children.log('a').read_text().strip():
            time.sleep(0.01)
        grandchild = int(children.log('a').read_text())
    deadline = time.monotonic() + 60
    while is_running(grandchild):  # a signal takes effect when the system comes to it
        assert time.monotonic() < deadline
        time.sleep(0.01)


class HoldingRobot(Node):
    """Both nodes of an episode of three steps, of which the actor refuses two."""

    def __init__(self, context: rclpy.Context, observer: DemoObserver) -> None:
        """Wait for the reset; each message waits until the observer has the one before."""
        super().__init__('sim_robot', context=context)
        self._observer = observer
        self._images = [self.create_publisher(Image, topic, 10) for topic in ('rgb', 'hand_rgb')]
        self._arm = self.create_publisher(TwistStamped, 'policy/arm_delta', 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._success = self.create_publisher(Bool, 'episode/success', 10)
        self.create_service(Trigger, '~/reset', self._reset)
        self.create_timer(0.02, self._step)
        self._steps: list[tuple[int, float]] = []
        self._refused = 7  # in episodes before
        self._diagnose()

    def _reset(self, _: Trigger.Request, answer: Trigger.Response) -> Trigger.Response:
        self._steps = [(1, 0.0), (2, 0.1), (3, 0.0)]
        answer.success, answer.message = True, 'episode 1: butter: pick it up'
        return answer

    def _step(self) -> None:
        self._diagnose()
        record = self._observer._record
        unanswered = [step for step in self._steps if step[0] * 10**9 not in record.arms]
        self._refused = 7 + sum(not arm.any() for _, arm in record.arms.values())
        if self._steps and not unanswered:
            self._success.publish(Bool(data=False))
        for second, x_m in unanswered[:1]:
            header = Header(stamp=Time(sec=second))
            for publisher in self._images:
                publisher.publish(Image(header=header, height=1, width=1, encoding='rgb8', step=3,
                                        data=b'rgb'))
            arm = TwistStamped(header=header)
            arm.twist.linear.x = x_m
            if second * 10**9 in record.images:
                self._arm.publish(arm)

    def _diagnose(self) -> None:
        counts = {'held: step': self._refused, 'held: episode_reset': self._refused,
                  'held: no_image': 1, 'ticks': 99}
        self._diagnostics.publish(DiagnosticArray(status=[DiagnosticStatus(
            name='/policy: commands', message='holding: a step of 0.1 rad on rx is beyond',
            values=[KeyValue(key=key, value=str(value)) for key, value in counts.items()])]))


def test_steps_that_were_held_are_counted_and_their_reason_is_told() -> None:
    """A policy that was always refused once gave 150 steps of nothing, and nobody said why."""
    rclpy.init()
    context = rclpy.Context()
    rclpy.init(context=context)
    observer = DemoObserver('policy', lambda: None)
    robot, executor = HoldingRobot(context, observer), SingleThreadedExecutor(context=context)
    executor.add_node(robot)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    try:
        while not observer._diagnostics:
            observer._spin()
        record = observer.run_episode(lambda: None, lambda: None)
    finally:
        executor.shutdown()
        thread.join()
        observer.close()
        rclpy.shutdown(context=context)
        rclpy.shutdown()
    assert record.refusals == {'step': 2}
    assert record.holds() == ('held 2 of 3 steps (step 2): '
                              'a step of 0.1 rad on rx is beyond')
    assert summarise(record, Path('a.mp4'), Path('a.png')).held == 2


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--task', 'living_room_scene2/cup'), 'unknown task.*living_room_scene2/butter'),
    (('--checkpoint', '/nowhere'), '/nowhere: there is no such directory'),
    (('--actor', 'expert', '--checkpoint', '/nowhere'), 'needs none'),
])
def test_a_request_that_cannot_be_met_is_refused(arguments: tuple[str, ...],
                                                 message: str) -> None:
    """What was found, what was wanted, before anything is started."""
    with pytest.raises(ValueError, match=message):
        given(*arguments)


def test_without_a_shipped_checkpoint_the_expert_acts_and_it_is_said(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the expert for the policy."""
    monkeypatch.setattr('ros2_lstm_policy.ros.nodes.share_directory', lambda: tmp_path)
    chosen = given()
    assert chosen.checkpoint is None
    assert 'the scripted expert acts' in chosen.notes[0]
    with pytest.raises(ValueError, match='no checkpoint at'):
        given('--actor', 'policy')
    shipped = tmp_path / options.SHIPPED_CHECKPOINT
    shipped.mkdir(parents=True)
    assert given().checkpoint == shipped and given().notes == ()


def test_words_choose_the_task_that_has_them_and_strange_ones_are_noted() -> None:
    """Success must be judged for what the robot was told, or it is said that it is not."""
    chosen = given('--actor', 'expert', '--instruction',
                   'Pick up the milk and put it in the basket')
    assert (chosen.task, chosen.notes) == ('living_room_scene2/milk', ())
    chosen = given('--actor', 'expert', '--instruction', 'dance')
    assert chosen.task == 'living_room_scene2/butter' and 'the words are not' in chosen.notes[0]


def test_an_error_is_one_line_and_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback for a typing error."""
    handler = signal.getsignal(signal.SIGTERM)
    environment = dict(os.environ)
    try:
        assert demo.main(['--task', 'cup']) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
        os.environ.clear()
        os.environ.update(environment)
    error = capsys.readouterr().err
    assert error.startswith("demo: unknown task 'cup'") and 'Traceback' not in error

"""The demo: it runs episodes, says who acted, and leaves nothing behind."""

from contextlib import suppress
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest
from ros2_lstm_policy.ros import demo, demo_options
from ros2_lstm_policy.ros.demo_processes import ChildError, Children
from ros2_lstm_policy.ros.nodes import NodeSpec

COMMAND = [sys.executable, '-m', 'ros2_lstm_policy.ros.demo']


def options(*arguments: str) -> demo_options.DemoOptions:
    """Return what a command line asks for."""
    return demo_options.options(demo_options.parser().parse_args(arguments))


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(word) for word in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


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
        assert not [pid for pid in started if Path(f'/proc/{pid}').exists()]
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
    monkeypatch.setattr('ros2_lstm_policy.ros.demo_processes.END_TIMEOUT_S', 0.2)
    with Children([NodeSpec('a', 'a', 'a.yaml')], tmp_path) as children:
        while not children.log('a').read_text().strip():
            time.sleep(0.01)
        grandchild = int(children.log('a').read_text())
    state = Path(f'/proc/{grandchild}/stat')
    assert not state.exists() or state.read_text().split()[2] == 'Z'


@pytest.mark.parametrize(('arguments', 'message'), [
    (('--task', 'living_room_scene2/cup'), 'unknown task.*living_room_scene2/butter'),
    (('--checkpoint', '/nowhere'), '/nowhere: there is no such directory'),
    (('--actor', 'expert', '--checkpoint', '/nowhere'), 'needs none'),
])
def test_a_request_that_cannot_be_met_is_refused(arguments: tuple[str, ...],
                                                 message: str) -> None:
    """What was found, what was wanted, before anything is started."""
    with pytest.raises(ValueError, match=message):
        options(*arguments)


def test_without_a_shipped_checkpoint_the_expert_acts_and_it_is_said(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes the expert for the policy."""
    monkeypatch.setattr('ros2_lstm_policy.ros.nodes.share_directory', lambda: tmp_path)
    chosen = options()
    assert chosen.checkpoint is None
    assert 'the scripted expert acts' in chosen.notes[0]
    with pytest.raises(ValueError, match='no checkpoint at'):
        options('--actor', 'policy')
    shipped = tmp_path / demo_options.SHIPPED_CHECKPOINT
    shipped.mkdir(parents=True)
    assert options().checkpoint == shipped and options().notes == ()


def test_words_choose_the_task_that_has_them_and_strange_ones_are_noted() -> None:
    """Success must be judged for what the robot was told, or it is said that it is not."""
    chosen = options('--actor', 'expert', '--instruction',
                     'Pick up the milk and put it in the basket')
    assert (chosen.task, chosen.notes) == ('living_room_scene2/milk', ())
    chosen = options('--actor', 'expert', '--instruction', 'dance')
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

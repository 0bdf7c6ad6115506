"""The policy node with a policy behind a port: real DDS, real sockets, links that break."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import importlib
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import msgpack
from node_robot import (CLEANUP, CONFIGURE, DEACTIVATE, nanoseconds, node_process, Robot,
                        small_checkpoint, until_it_rests, values, WAIT_S)
import numpy as np
import pytest
from ros2_lstm_policy.model import checkpoint as checkpoints
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.serving import wire
from ros2_lstm_policy.serving.link import greet, Link, ServerError
from ros2_lstm_policy.serving.remote import RemoteActor
from ros2_lstm_policy.serving.server import bind, Doorman, listening
from ros2_lstm_policy.serving.sessions import Session, SharedPolicy
from ros2_lstm_policy.types import ActorFault, Observation
from websockets.sync.server import serve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))

Network = importlib.import_module('cut_link').Network

WORDS, PERIOD_S, MS = 'pick up the milk', 0.1, 1_000_000


@contextmanager
def serving(checkpoint: Path, prefix: tuple[str, ...] = (),
            *changes: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a server; give its process and port."""
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [*prefix, sys.executable, '-m', 'ros2_lstm_policy.serving.serve', '--config',
         str(root / 'config' / 'serve.yaml'), f'checkpoint={checkpoint}', 'port=0', *changes],
        cwd=root, env={**os.environ}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if ' answers at ' in line:
            break
    assert said and ' answers at ' in said[-1], said
    try:
        yield process, int(said[-1].rpartition(':')[2])
    finally:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small checkpoint of two cameras."""
    return small_checkpoint(tmp_path_factory.mktemp('served') / 'checkpoint')


@pytest.fixture(scope='module')
def server(checkpoint: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Return a running server."""
    with serving(checkpoint) as running:
        yield running


@pytest.fixture
def network(server: tuple[subprocess.Popen[str], int]) -> Iterator[Any]:
    """Return the network between node and server."""
    network = Network(server[1])
    yield network
    network.close()


@pytest.fixture(scope='module')
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """Return a robot beside a running node."""
    robot = Robot()
    robot.log = tmp_path_factory.mktemp('log') / 'node.log'
    with node_process(robot.log):
        yield robot
    robot.close()


@pytest.fixture
def robot(running: Robot, network: Any) -> Robot:
    """Return the robot with cameras on, whose active node acts over the network."""
    running.rate_hz = 20.0
    running.bring_to('unconfigured')
    running.bring_to('active', server=network.url, checkpoint='', trigger='timer',
                     instruction=WORDS, deadline_s=1.0, max_image_age_s=0.5, max_gap_s=1.0)
    running.until(running.acts)
    return running


def observations(count: int, seed: int = 0) -> list[Observation]:
    """Return what two cameras of 64 x 48 show."""
    rng = np.random.default_rng(seed)
    return [Observation(step, {name: rng.integers(0, 256, (48, 64, 3), np.uint8)
                               for name in ('static', 'hand')}) for step in range(count)]


def test_a_served_policy_decides_bit_for_bit_as_one_in_this_process(
        server: tuple[subprocess.Popen[str], int], checkpoint: Path) -> None:
    """Actions, chunks, and what is remembered; a reset forgets on both sides."""
    local = PolicyActor(checkpoints.load(checkpoint))
    link = Link(f'ws://127.0.0.1:{server[1]}')
    remote = RemoteActor(link)
    for _ in range(2):
        local.reset()
        remote.reset()
        for observation in observations(6):
            wanted = local.act(observation, WORDS)
            found = remote.act(observation, WORDS)
            np.testing.assert_array_equal(found.chunk, wanted.chunk)
            for name, values_ in wanted.action.groups.items():
                np.testing.assert_array_equal(found.action.groups[name], values_)
            assert found.stage_s['wire'] > 0
    link.close()


def test_the_node_acts_over_the_wire_and_says_what_it_costs(
        robot: Robot, checkpoint: Path) -> None:
    """The wire is a stage of its own; the state names the server and its checkpoint."""
    robot.until(lambda: 'policy wire p99 [ms]' in {
        pair.key for pair in robot.diagnostics['latency'].values} if 'latency' in robot.diagnostics
        else False)
    assert robot.value('state', 'server').startswith('ws://127.0.0.1:')
    assert robot.value('state', 'checkpoint sha256') == checkpoints.fingerprint(checkpoint)


@pytest.mark.parametrize('breaks', ['cut', 'reset'])
def test_a_link_that_breaks_holds_within_a_period_and_mends(
        robot: Robot, network: Any, breaks: str) -> None:
    """Twenty times: no cut is missed, and nothing moves after the hold until it is mended."""
    for _ in range(20):
        robot.forget()
        robot.until(robot.acts)
        robot.arms.clear()
        cut_s = time.time()
        network.cut()
        if breaks == 'reset':
            network.reset()
        robot.until(lambda: any(not any(values(arm)) for arm in robot.arms))
        held_s = robot._arm_sent_ns / 1e9
        assert held_s - cut_s < PERIOD_S + 0.03  # what a busy machine adds to a timer
        robot.forget()
        robot.listen(0.15)
        assert not robot.acts()
        network.mend()
    robot.forget()
    robot.until(robot.acts)
    robot.until(lambda: 'commands' in robot.diagnostics)
    counts = {pair.key for pair in robot.diagnostics['commands'].values}
    assert {'held: link_slow', 'held: link_lost'} & counts


def test_a_slow_link_holds_and_says_so(robot: Robot, network: Any) -> None:
    """Answers that come, but later than a period, are not acted on."""
    network.delay_s = 0.08
    robot.until_holding('has not answered for')
    robot.listen(0.5)
    assert not robot.acts()
    network.mend()
    robot.until(robot.acts)


def test_a_server_that_hangs_holds_and_another_connection_begins_afresh(
        robot: Robot, server: tuple[subprocess.Popen[str], int]) -> None:
    """Stopped as a debugger stops it: the connection stands, and nobody answers."""
    server[0].send_signal(signal.SIGSTOP)
    robot.until_holding('the server ws://')
    robot.listen(1.5)
    assert not robot.acts()
    server[0].send_signal(signal.SIGCONT)
    robot.until(robot.acts)


def test_nothing_of_an_earlier_episode_is_published_after_a_reset(
        robot: Robot, network: Any) -> None:
    """An observation was under way on a slow link when the episode was reset."""
    network.delay_s = 0.02
    for _ in range(20):
        robot.forget()
        robot.until(robot.acts)
        shown = len(robot.shown)
        assert robot.reset().success
        answered_ns = time.time_ns()
        robot.forget()
        robot.until(robot.acts)
        moved = robot.commands()[0]
        assert nanoseconds(moved) in robot.shown[max(0, shown - 1):]
        assert robot._arm_sent_ns > answered_ns - 20 * MS


def test_a_deactivation_ends_in_a_hold_while_the_link_is_cut(
        robot: Robot, network: Any) -> None:
    """The worker waits for an answer that never comes."""
    network.cut()
    robot.until(robot.holds('the server ws://'))
    assert robot.change(DEACTIVATE)
    until_it_rests(robot) if robot.arms and robot.twists else None
    assert robot.change(CLEANUP)
    network.mend()


def refusal(robot: Robot, **parameters: Any) -> str:
    """Return the one line of a node that does not configure."""
    robot.bring_to('unconfigured', **parameters)
    assert not robot.change(CONFIGURE)
    robot.until(lambda: robot.message('state').startswith('configure: '))
    line = robot.message('state')
    assert '\n' not in line
    return line


def test_a_server_of_another_checkpoint_is_refused(
        running: Robot, server: tuple[subprocess.Popen[str], int], tmp_path: Path) -> None:
    """Where the node was told which one it is to act with."""
    other = small_checkpoint(tmp_path / 'other', cameras=('static',))
    line = refusal(running, server=f'ws://127.0.0.1:{server[1]}', checkpoint=str(other))
    assert f'and {other} is {checkpoints.fingerprint(other)[:12]}: serve that one' in line


def test_a_server_of_a_policy_for_another_robot_is_refused(
        running: Robot, server: tuple[subprocess.Popen[str], int]) -> None:
    """As a checkpoint is."""
    line = refusal(running, server=f'ws://127.0.0.1:{server[1]}', checkpoint='',
                   cameras=['static'])
    running.give(cameras=['static', 'hand'])
    assert 'it needs the camera hand, and this robot has static' in line


def test_nobody_there_and_addresses_that_are_none_are_refused(running: Robot) -> None:
    """Each in one line that says what to do."""
    with socket.create_server(('127.0.0.1', 0)) as unused:
        port = unused.getsockname()[1]
    assert 'cannot be reached: Connection refused; is serve running there' in refusal(
        running, server=f'ws://127.0.0.1:{port}', checkpoint='')
    for url in ('127.0.0.1:8000', 'http://127.0.0.1:8000', 'ws://127.0.0.1', 'ws://a:b', 'ws:'):
        assert 'expected ws://HOST:PORT' in refusal(running, server=url)


@contextmanager
def fake_server(answer: Callable[[wire.Message], bytes | None]) -> Iterator[str]:
    """Run a server that says what a test wants."""
    def attend(connection: Any) -> None:
        for data in connection:
            said = answer(wire.unpack(data))
            if said is not None:
                connection.send(said)
    with serve(attend, '127.0.0.1', 0, close_timeout=0.1) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f'ws://127.0.0.1:{running.socket.getsockname()[1]}'


def hello(checkpoint: Path, **changes: Any) -> dict[str, Any]:
    """Return a greeting."""
    policy = SharedPolicy(PolicyActor(checkpoints.load(checkpoint)), 'abc')
    answer = Session(policy, 'no benchmark').answer(wire.Message(
        'hello', {'client': wire.NODE, 'protocol_version': 1}, 1))
    assert answer is not None
    return {**answer.payload, **changes}


@pytest.mark.parametrize(('changes', 'said'), [
    ({'harness_version': '9.9.9'}, 'runs ros2_lstm_policy 9.9.9, and this node'),
    ({'protocol_version': 2}, 'protocol version 2; expected serve of this package, version 1'),
    ({'manifest': {'cameras': 1}}, 'manifest: '),
    ({'manifest': None}, 'expected serve of this package'),
    ({'manifest': 'x' * 9}, 'expected serve of this package')])
def test_a_greeting_of_another_version_is_refused(
        checkpoint: Path, changes: dict[str, Any], said: str) -> None:
    """In one line that says what was found."""
    payload = hello(checkpoint, **changes)
    with fake_server(lambda m: wire.pack(wire.Message('hello', payload, m.seq))) as url, (
            pytest.raises(ServerError, match='the server ws')) as error:
        greet(url)
    assert said in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('answer', [
    b'', b'\xc1', msgpack.packb({'type': 'action', 'payload': {}, 'seq': 1})])
def test_a_greeting_that_is_none_is_refused(answer: bytes) -> None:
    """Something else listens on the port."""
    with fake_server(lambda m: answer) as url, pytest.raises(ServerError):
        greet(url)


@pytest.mark.parametrize('spoil', [
    lambda a: {}, lambda a: {**a, 'episode': 99}, lambda a: {**a, 'groups': {}},
    lambda a: {**a, 'groups': 1}, lambda a: {**a, 'chunk': np.zeros((2, 3), np.float32)},
    lambda a: {**a, 'chunk': 'x'}, lambda a: {**a, 'stage_s': None},
    lambda a: {**a, 'groups': {**a['groups'], 'arm': np.zeros(5, np.float32)}}])
def test_an_answer_that_is_no_action_is_a_fault(
        checkpoint: Path, spoil: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Named, in one line; the robot holds for it."""
    policy = SharedPolicy(PolicyActor(checkpoints.load(checkpoint)), 'abc')
    session = Session(policy, 'no benchmark')

    def answer(message: wire.Message) -> bytes | None:
        found = session.answer(message)
        if found is None:
            return None
        payload = spoil(dict(found.payload)) if found.kind == 'action' else found.payload
        return wire.pack(wire.Message(found.kind, payload, found.seq))
    with fake_server(answer) as url:
        link = Link(url)
        remote = RemoteActor(link)
        remote.reset()
        with pytest.raises(ActorFault, match='answers with no action of this policy') as error:
            remote.act(observations(1)[0], WORDS)
        assert error.value.reason.code == 'bad_answer' and '\n' not in error.value.reason.text
        link.close()


def test_a_server_that_has_another_policy_now_is_not_acted_with(
        checkpoint: Path, tmp_path: Path) -> None:
    """It was restarted with another checkpoint on the same port."""
    listener = bind('127.0.0.1', 0)
    port = listener.getsockname()[1]

    def listen(directory: Path, socket_: socket.socket) -> Any:
        policy = SharedPolicy(PolicyActor(checkpoints.load(directory)),
                              checkpoints.fingerprint(directory))
        return listening(Doorman(lambda: Session(policy, 'none'), lambda line: None, 4), socket_)
    with listen(checkpoint, listener):
        link = Link(f'ws://127.0.0.1:{port}')
        assert link.fault() is None
    other = small_checkpoint(tmp_path / 'other', cameras=('static',))
    assert link.fault() is not None
    with listen(other, bind('127.0.0.1', port)):
        end_s = time.monotonic() + WAIT_S
        while (fault := link.fault()) is None or fault.code != 'other_server':
            assert time.monotonic() < end_s
            time.sleep(0.01)
    assert 'has another policy now' in fault.text
    link.close()


@pytest.fixture
def cable(checkpoint: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Return a server in a network of its own, and what sets the cable to it up or down."""
    holder = subprocess.Popen(['unshare', '-n', 'sleep', '600'])
    name = f'r{os.getpid() % 100000}'
    inside = ['nsenter', '-t', str(holder.pid), '-n']
    steps = ([['ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', f'{name}b', 'netns',
               str(holder.pid)], ['ip', 'addr', 'add', '10.211.5.1/30', 'dev', name],
              ['ip', 'link', 'set', name, 'up'],
              [*inside, 'ip', 'addr', 'add', '10.211.5.2/30', 'dev', f'{name}b'],
              [*inside, 'ip', 'link', 'set', f'{name}b', 'up']])
    try:
        end_s = time.monotonic() + WAIT_S  # until the holder has its own network
        while (os.readlink(f'/proc/{holder.pid}/ns/net') == os.readlink('/proc/self/ns/net')
               and holder.poll() is None and time.monotonic() < end_s):
            time.sleep(0.01)
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f'network namespaces cannot be made here: {done.stderr.strip()}')
        with serving(checkpoint, tuple(inside), 'host=10.211.5.2') as (_, port):
            yield (f'ws://10.211.5.2:{port}', lambda state: subprocess.run(
                ['ip', 'link', 'set', name, state], check=True) and None)
    except FileNotFoundError as error:
        pytest.skip(f'network namespaces cannot be made here: {error}')
    finally:
        holder.kill()
        holder.wait()


def test_a_pulled_cable_holds_and_a_plugged_one_acts_again(
        running: Robot, cable: tuple[str, Callable[[str], None]]) -> None:
    """A server in a network namespace of its own, behind an interface that goes down and up."""
    url, cable_is = cable
    running.rate_hz = 20.0
    running.bring_to('unconfigured')
    running.bring_to('active', server=url, checkpoint='', instruction=WORDS, deadline_s=1.0,
                     max_image_age_s=0.5)
    for _ in range(3):
        running.forget()
        running.until(running.acts)
        running.arms.clear()
        cut_s = time.time()
        cable_is('down')
        running.until(lambda: any(not any(values(arm)) for arm in running.arms))
        assert running._arm_sent_ns / 1e9 - cut_s < PERIOD_S + 0.05
        running.forget()
        running.listen(0.5)
        assert not running.acts()
        cable_is('up')
    running.until(running.acts)
    running.bring_to('unconfigured')

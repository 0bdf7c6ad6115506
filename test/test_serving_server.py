"""A policy behind a port, asked as the vla-eval harness asks: real processes and sockets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any
import urllib.request

import msgpack
from node_robot import small_checkpoint
import numpy as np
from PIL import Image
import pytest
from ros2_lstm_policy.manifest import (CameraSpec, DEFAULT_CAMERAS, Manifest, Normalisation,
                                       one_arm, StateSpec)
from ros2_lstm_policy.model import checkpoint as checkpoints
from ros2_lstm_policy.runtime.actor import PolicyActor
from ros2_lstm_policy.serving import serve
from ros2_lstm_policy.serving.harness import Harness, HarnessConfig
from ros2_lstm_policy.serving.server import bind, Doorman, listening
from ros2_lstm_policy.serving.sessions import Session, SharedPolicy
from ros2_lstm_policy.types import Action, Decision, Observation
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

ROOT = Path(__file__).parents[1]
WAIT_S = 60.0
WORDS = 'pick up the milk'
HARNESS_NAMES = {'static': 'agentview', 'hand': 'wrist'}


class Server:
    """A server's process and what it said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until it answers."""
        self.process, self.said = process, []
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            if ' answers at ' in line:
                break
        assert self.said and 'answers at' in self.said[-1], ''.join(self.said)
        self.url = self.said[-1].split()[-1]


@contextmanager
def serving(checkpoint: Path, *changes: str) -> Iterator[Server]:
    """Run a server on a free port; it must end well when told to."""
    process = start(f'checkpoint={checkpoint}', 'port=0', *changes)
    try:
        yield Server(process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, rest


def start(*changes: str) -> subprocess.Popen[str]:
    """Start a server."""
    return subprocess.Popen(
        [sys.executable, '-m', 'ros2_lstm_policy.serving.serve', '--config',
         str(ROOT / 'config' / 'serve.yaml'), *changes], cwd=ROOT, env={**os.environ},
        stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small checkpoint of two cameras at 10 Hz."""
    return small_checkpoint(tmp_path_factory.mktemp('served') / 'checkpoint')


@pytest.fixture(scope='module')
def server(checkpoint: Path) -> Iterator[Server]:
    """Return a running server."""
    with serving(checkpoint) as running:
        yield running


class Client:
    """The harness's side of the wire, written from its format alone."""

    def __init__(self, url: str) -> None:
        """Connect and greet."""
        self.socket: ClientConnection = connect(url, compression=None, max_size=None)
        self.seq = 0
        self.greeting = self.ask('hello', {'harness_version': '0.8.0', 'protocol_version': 1})

    def tell(self, kind: str, payload: Mapping[str, Any]) -> int:
        """Send a message."""
        self.seq += 1
        self.socket.send(msgpack.packb({'type': kind, 'payload': payload, 'seq': self.seq,
                                        'timestamp': 0.0}))
        return self.seq

    def ask(self, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message and return its answer, as a whole."""
        seq = self.tell(kind, payload)
        answer = msgpack.unpackb(self.socket.recv(timeout=WAIT_S))
        assert answer['seq'] == seq
        return answer

    def act(self, images: Mapping[str, Any], words: Any = WORDS) -> np.ndarray:
        """Return the seven values for an observation."""
        answer = self.ask('observation', {'images': images, 'task_description': words})
        assert answer['type'] == 'action', answer['payload']
        actions = answer['payload']['actions']
        return np.frombuffer(actions['data'], actions['dtype']).reshape(actions['shape'])

    def error(self, images: Any, words: Any = WORDS) -> str:
        """Return what the server says to an observation that is none."""
        answer = self.ask('observation', {'images': images, 'task_description': words})
        assert answer['type'] == 'error'
        return answer['payload']['error']


def noise(seed: int) -> dict[str, np.ndarray]:
    """Return an image of each camera as the renderer makes it: bottom up."""
    rng = np.random.default_rng(seed)
    return {camera: rng.integers(0, 256, (64, 64, 3), np.uint8) for camera in DEFAULT_CAMERAS}


def sent(rendered: Mapping[str, np.ndarray], codec: str = 'PNG') -> dict[str, Any]:
    """Return images as the harness sends them: turned by 180 degrees, as PNG or raw."""
    return {HARNESS_NAMES[name]: encoded(image[::-1, ::-1], codec)
            for name, image in rendered.items()}


def encoded(image: np.ndarray, codec: str) -> dict[str, Any]:
    """Return one image as the harness encodes it."""
    if codec == 'raw':
        return {'__ndarray__': True, 'data': image.tobytes(), 'dtype': '|u1',
                'shape': list(image.shape)}
    file = BytesIO()
    Image.fromarray(image).save(file, codec)
    return {'__image__': True, 'format': codec.lower(), 'data': file.getvalue(),
            'shape': list(image.shape)}


def upright(rendered: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the same images as the policy was trained on them."""
    return {name: np.ascontiguousarray(image[::-1]) for name, image in rendered.items()}


def wanted_actions(checkpoint: Path, episode: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """Return what LIBERO's controller is to get for an episode at the policy's rate."""
    actor = PolicyActor(checkpoints.load(checkpoint))
    actions = []
    for step, rendered in enumerate(episode):
        action = actor.act(Observation(step, upright(rendered)), WORDS).action
        arm = np.concatenate([action.arm[:3] / 0.05, action.arm[3:] / 0.5]).clip(-1, 1)
        actions.append(np.append(arm, -1.0 if action.gripper_open > 0.5 else 1.0))
    return actions


def test_the_harness_gets_the_policys_own_actions_each_for_two_calls(
        server: Server, checkpoint: Path) -> None:
    """At 20 Hz, of a policy at 10: turned images, units of 1, a gripper whose 1 closes."""
    harness = Client(server.url)
    payload = harness.greeting['payload']
    assert payload['observation_params'] == {'send_wrist_image': True}
    assert payload['fingerprint'] == checkpoints.fingerprint(checkpoint)
    assert payload['action_spec']['gripper']['format'] == 'binary_close_positive'
    episode = [noise(seed) for seed in range(6)]
    harness.tell('episode_start', {'task': {'name': WORDS}})
    for call, wanted in enumerate(wanted_actions(checkpoint, episode)):
        found = harness.act(sent(episode[call]))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        np.testing.assert_array_equal(harness.act(sent(noise(1000 + call))), found)


def test_sessions_of_one_server_keep_their_episodes_apart(
        server: Server, checkpoint: Path) -> None:
    """Each has the memory of its own frames; a reset of one is none of the other."""
    episodes = [[noise(10 * number + step) for step in range(5)] for number in range(3)]
    clients = [Client(server.url) for _ in episodes]
    wanted = [wanted_actions(checkpoint, episode) for episode in episodes]
    for client in clients:
        client.tell('episode_start', {})
    for step in range(5):
        if step == 3:  # begins anew: as at its first step
            clients[0].tell('episode_start', {})
            episodes[0][3:] = episodes[0][:2]
            wanted[0][3:] = wanted[0][:2]
        for number, client in enumerate(clients):
            found = client.act(sent(episodes[number][step], 'raw'))
            np.testing.assert_allclose(found, wanted[number][step], atol=1e-6)
            client.act(sent(episodes[number][step], 'raw'))


@pytest.mark.parametrize(('images', 'words', 'said'), [
    ({'agentview': 0}, WORDS, "image 'agentview': expected uint8 (H, W, 3) RGB, found int"),
    ({'front': encoded(noise(0)['static'], 'PNG')}, WORDS,
     "the policy needs the image 'agentview' (camera static); the observation has front"),
    ({'agentview': sent(noise(0))['agentview']}, WORDS, "the policy needs the image 'wrist'"),
    (None, WORDS, 'the observation has none'),
    (sent({name: np.zeros((64, 64, 3), np.uint8) for name in DEFAULT_CAMERAS}), WORDS,
     'static: all 64x64 pixels have the colour (0, 0, 0)'),
    (sent({name: image[:3] for name, image in noise(0).items()}), WORDS, 'static: the image has'),
    ({**sent(noise(0)), 'wrist': {'__image__': True, 'format': 'png', 'data': b'PNG'}}, WORDS,
     'an image: 3 bytes that are no whole PNG or JPEG'),
    ({**sent(noise(0)), 'wrist': {'__ndarray__': True, 'data': b'12', 'dtype': '|u1',
                                  'shape': [2, 2, 3]}}, WORDS,
     'an array: shape [2, 2, 3] of uint8 needs 12 bytes, found 2'),
    ({**sent(noise(0)), 'wrist': {'__ndarray__': True, 'data': b'12', 'dtype': '|O',
                                  'shape': [1]}}, WORDS, 'expected numbers, found dtype object'),
    (sent(noise(0)), '', 'task_description: expected the instruction, found nothing'),
    (sent(noise(0)), 7, 'task_description: expected the instruction, found int'),
    (sent(noise(0)), 'go ' * 400, 'the instruction has 1200 characters, at most 1000'),
    (sent(noise(0)), 'go ' * 200, 'tokens'),
])
def test_an_observation_that_is_none_is_answered_with_what_is_wrong(
        server: Server, checkpoint: Path, images: Any, words: Any, said: str) -> None:
    """In one line; the session goes on as if it had never come."""
    harness = Client(server.url)
    harness.tell('episode_start', {})
    error = harness.error(images, words)
    assert said in error and '\n' not in error and 'Error' not in error
    rendered = noise(1)
    np.testing.assert_allclose(harness.act(sent(rendered)),
                               wanted_actions(checkpoint, [rendered])[0], atol=1e-6)


@pytest.mark.parametrize('data', [b'', b'\xc1', b'\x93\x01\x02\x03', b'\x80', 'text', b'\xff' * 99,
                                  b'\x91' * 5000,
                                  msgpack.packb({'type': 'action?', 'payload': {}, 'seq': 1}),
                                  msgpack.packb({'type': 'hello', 'payload': [], 'seq': 1})])
def test_bytes_that_are_no_message_are_answered_and_survived(
        server: Server, data: bytes | str) -> None:
    """Whoever knocks on the port, the others are served on."""
    with connect(server.url) as socket:
        socket.send(data)
        answer = msgpack.unpackb(socket.recv(timeout=WAIT_S))
    assert answer['type'] == 'error' and 'expected' in answer['payload']['error']
    assert Client(server.url).greeting['type'] == 'hello'


def test_what_comes_out_of_turn_is_refused(server: Server) -> None:
    """Before the greeting, before an episode, or in another version of the protocol."""
    harness = Client(server.url)
    assert 'begin it with episode_start' in harness.error(sent(noise(0)))
    assert 'protocol version 1 is spoken here' in harness.ask(
        'hello', {'protocol_version': 2})['payload']['error']
    with connect(server.url) as socket:
        harness.socket = socket
        assert 'expected a hello' in harness.error(sent(noise(0)))


def test_a_browser_is_refused_and_health_answered(server: Server) -> None:
    """Any page that somebody looks at could otherwise ask a server of that machine."""
    with pytest.raises(InvalidStatus, match='403'):
        connect(server.url, origin='http://example.com')
    health = urllib.request.urlopen(server.url.replace('ws:', 'http:') + '/health', timeout=WAIT_S)
    assert health.read() == b'{"status": "ok"}\n'


def test_one_client_too_many_is_told_so(checkpoint: Path) -> None:
    """And is let in when another has left."""
    policy = SharedPolicy(PolicyActor(checkpoints.load(checkpoint)), '')
    doorman = Doorman(lambda: Session(policy, Harness(policy.manifest, HarnessConfig())),
                      lambda line: None, max_sessions=1)
    socket = bind('127.0.0.1', 0)
    url = f'ws://127.0.0.1:{socket.getsockname()[1]}'
    with listening(doorman, socket):
        first = Client(url)
        assert Client(url).greeting['payload']['error'] == (
            '1 sessions are open already (max_sessions)')
        first.socket.close()
        while Client(url).greeting['type'] != 'hello':  # until the server has noticed
            pass


def refused(capsys: pytest.CaptureFixture[str], *changes: str) -> str:
    """Return the one line of a server that does not start."""
    assert serve.main(['--config', str(ROOT / 'config' / 'serve.yaml'), *changes]) == 1
    line = capsys.readouterr().err
    assert line.startswith('serve: ') and line.count('\n') == 1
    return line


def test_a_second_server_on_the_port_says_so(
        server: Server, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before it loads anything."""
    port = server.url.rpartition(':')[2]
    assert refused(capsys, 'checkpoint=nowhere', f'port={port}') == (
        f'serve: 127.0.0.1:{port} is in use: another server runs there; end it, or choose another '
        'port=\n')


@pytest.mark.parametrize(('changes', 'said'), [
    (('checkpoint=nowhere',), 'nowhere/config.yaml is missing: a checkpoint is a directory'),
    (('port=70000',), 'port: expected 0 to 65535, found 70000'),
    (('device=cuda:99',), "device 'cuda:99' cannot be used"),
    (('execute=sometimes',), 'execute'),
    (('harness.rate_hz=.nan',), 'expected a finite number'),
    (('harness.gripper=open',), 'expected one of'),
    (('hots=0.0.0.0',), "unknown key 'hots'; did you mean 'host'?"),
])
def test_a_server_that_cannot_start_says_why(
        checkpoint: Path, changes: tuple[str, ...], said: str,
        capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with a status that is none of success."""
    assert said in refused(capsys, f'checkpoint={checkpoint}', 'port=0', *changes)


@pytest.mark.parametrize(('settings', 'body', 'said'), [
    ({}, {'arm': {'frame': 'tool'}}, 'deltas are in tool axes, and the benchmark takes base'),
    ({'rate_hz': 15.0}, {}, "harness.rate_hz is 15; expected a multiple of the policy's 10 Hz"),
    ({'rate_hz': 5.0}, {}, 'harness.rate_hz is 5; expected a multiple'),
    ({'cameras': {'static': 'agentview'}}, {}, 'the policy needs hand; say in harness.cameras'),
    ({}, {'arm': {'kind': 'joint_delta', 'frame': None}}, 'the policy has arm (joint_delta)'),
])
def test_a_policy_that_the_benchmark_does_not_fit_is_refused(
        settings: dict[str, Any], body: dict[str, Any], said: str) -> None:
    """By name, when the server starts; policy nodes are answered all the same."""
    with pytest.raises(ValueError, match='.') as refusal:
        Harness(robot_body(**body), HarnessConfig(**settings))
    assert said in str(refusal.value)


@pytest.mark.parametrize(('gripper', 'closed', 'opened'), [
    ('close_positive', 1, -1), ('close_negative', -1, 1), ('open_01', 0, 1), ('close_01', 1, 0)])
def test_the_gripper_is_said_as_the_benchmark_takes_it(gripper: Any, closed: float,
                                                       opened: float) -> None:
    """A wrong sign would drop whatever was lifted."""
    harness = Harness(robot_body(), HarnessConfig(gripper=gripper))
    for opening, wanted in ((0.1, closed), (0.9, opened)):
        action = Action.one_arm(np.array([0.05, -0.1, 0, 0, 0, 0.25], np.float32), opening)
        np.testing.assert_allclose(
            harness.write(Decision(action, np.zeros((1, 7))))['actions'],
            [1, -1, 0, 0, 0, 0.5, wanted])


def test_states_are_cut_out_of_the_benchmarks_vector() -> None:
    """And refused where they are not there, or no numbers."""
    body = replace(robot_body(), states=(StateSpec('fingers', 2, Normalisation.unit(2)),))
    with pytest.raises(ValueError, match='the policy needs fingers'):
        Harness(body, HarnessConfig())
    harness = Harness(body, HarnessConfig(states={'fingers': (6, 8)}))
    assert harness.description()['observation_params']['send_state']
    images = {'agentview': noise(0)['static'], 'wrist': noise(0)['hand']}
    found = harness.read({'images': images, 'states': np.arange(8.0)}, 0)
    np.testing.assert_array_equal(found.states['fingers'], [6, 7])
    for wrong in (None, 'much', np.arange(7.0), np.full(8, np.nan)):
        with pytest.raises(ValueError, match="state 'fingers': expected finite numbers"):
            harness.read({'images': images, 'states': wrong}, 0)


def robot_body(**changes: dict[str, Any]) -> Manifest:
    """Return the body of one arm, changed by group."""
    cameras = tuple(CameraSpec(name, 32, 32, 'area', (0.5,) * 3, (0.5,) * 3)
                    for name in DEFAULT_CAMERAS)
    body = one_arm('base', 'rotation_vector', 0.1, Normalisation.unit(6), cameras)
    return replace(body, actions=tuple(replace(group, **changes.get(group.name, {}))
                                       for group in body.actions))

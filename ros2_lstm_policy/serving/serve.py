"""
Let a policy answer over the network: benchmarks of the vla-eval harness, and policy nodes.

`ros2 run ros2_lstm_policy serve --config config/serve.yaml checkpoint=checkpoints/compact_libero`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
import signal
import sys
import threading
from typing import Literal, TYPE_CHECKING

from ros2_lstm_policy import config
from ros2_lstm_policy.serving.harness import Harness, HarnessConfig

if TYPE_CHECKING:
    from ros2_lstm_policy.serving.sessions import SharedPolicy

FAILED, INTERRUPTED = 1, 130


@dataclass(frozen=True)
class ServeConfig:
    """
    What is served, and where.

    :param checkpoint: directory of the checkpoint.
    :param host: address to listen on. Nobody is asked who they are and nothing is encrypted:
        beyond 127.0.0.1 listen on a network that you trust alone.
    :param port: TCP port; 0 for any that is free.
    :param max_sessions: clients at once, each with an episode of its own.
    :param device: where the policy runs: cpu, cuda, cuda:1.
    :param threads: that one operation of the policy may use on the CPU.
    :param precision: of the backbone; bf16 is for a GPU.
    :param engine: how a GPU runs a tick: operation by operation, as one CUDA graph, or as one of
        compiled layers; without effect on a CPU.
    :param execute: which action of which chunk is due: 'first' of each, 'chunk:N' actions of one
        before the next, or 'ensemble' of all.
    :param harness: how benchmarks are spoken to.
    """

    checkpoint: Path
    host: str = '127.0.0.1'
    port: int = 8000
    max_sessions: int = 64
    device: str = 'cpu'
    threads: int = 1
    precision: Literal['fp32', 'bf16'] = 'fp32'
    engine: Literal['eager', 'graph', 'compiled'] = 'graph'
    execute: str = 'first'
    harness: HarnessConfig = field(default_factory=HarnessConfig)

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        if not 0 <= self.port <= 65535:
            raise ValueError(f'port: expected 0 to 65535, found {self.port}')
        if min(self.max_sessions, self.threads) < 1:
            raise ValueError('max_sessions and threads must be at least 1')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line until SIGINT or SIGTERM; return the exit status."""
    try:
        settings = config.from_command_line(
            ServeConfig, argv, 'Let a policy answer over the network: benchmarks of the vla-eval '
            'harness, and policy nodes (their parameter server).', 'port=8001')
        serve(settings)
    except (ValueError, OSError) as error:
        print(f'serve: {error}', file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:  # while it loads
        return INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name not in ('websockets', 'msgpack'):
            raise
        print(f'serve: {error}; install requirements/core.txt', file=sys.stderr)
        return FAILED
    return 0


def serve(settings: ServeConfig) -> None:
    """
    Serve until told to end.

    :raises ValueError: for a checkpoint or a device that cannot be used.
    :raises OSError: for an address that cannot be listened on.
    """
    from ros2_lstm_policy.serving import server
    from ros2_lstm_policy.serving.sessions import Session
    # The port first: a second server is told at once, not after its policy is loaded.
    with server.bind(settings.host, settings.port) as listener:
        policy = load(settings)
        harness = harness_of(policy, settings.harness)
        doorman = server.Doorman(partial(Session, policy, harness), _say, settings.max_sessions)
        host, port = listener.getsockname()[:2]
        end = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: end.set())
        with server.listening(doorman, listener):
            _say(f'{settings.checkpoint} {policy.fingerprint[:12]} answers at ws://{host}:{port}')
            if isinstance(harness, str):
                _say(f'policy nodes alone are answered, no benchmark: {harness}')
            if not ip_address(host).is_loopback:
                _say(f'whoever reaches {host}:{port} is answered: trusted networks only')
            end.wait()
    _say('ended')


def load(settings: ServeConfig) -> SharedPolicy:
    """Load and warm up the policy. :raises ValueError: where it cannot be used."""
    from ros2_lstm_policy.model import checkpoint
    from ros2_lstm_policy.runtime.actor import PolicyActor
    from ros2_lstm_policy.serving.sessions import SharedPolicy
    import torch
    try:
        torch.zeros(1, device=settings.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device {settings.device!r} cannot be used: {error}') from error
    policy = checkpoint.load(settings.checkpoint, settings.device)
    actor = PolicyActor(policy, settings.execute, settings.precision,
                        cuda_graph=settings.engine != 'eager', threads=settings.threads,
                        compiled=settings.engine == 'compiled')
    actor.warm_up()
    return SharedPolicy(actor, checkpoint.fingerprint(settings.checkpoint))


def harness_of(policy: SharedPolicy, settings: HarnessConfig) -> Harness | str:
    """Return how benchmarks are spoken to, or why they cannot be."""
    try:
        return Harness(policy.manifest, settings)
    except ValueError as error:
        return str(error)


def _say(line: str) -> None:
    print(f'serve: {line}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    sys.exit(main())

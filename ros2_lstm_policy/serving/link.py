"""
The connection of a policy node to a server: greeted, watched, and renewed when it breaks.

A ping goes out ten times in a control period. One that is unanswered for half of a period means
that no action would be answered in time either: :meth:`Link.fault` says so, and the robot holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
import logging
import socket
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import ros2_lstm_policy
from ros2_lstm_policy import config
from ros2_lstm_policy.manifest import Manifest
from ros2_lstm_policy.serving import wire
from ros2_lstm_policy.serving.wire import Kind, Message, NODE, PROTOCOL_VERSION
from ros2_lstm_policy.types import ActorFault, Reason
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

SLOW, LOST = 'link_slow', 'link_lost'
_BEATS = 10  # pings in a control period
_PATIENCE = 0.5  # of a period, that a ping may be unanswered; with two beats still within one
_LOST_S = 1.0  # of silence: the connection is given up, and another one made
_ANSWER_S = 2.0  # for one observation: a server that needs longer hangs
_CONNECT_S = 2.0
_RETRY_S = 0.1
_FORM = 'expected ws://HOST:PORT, such as ws://127.0.0.1:8000'


class ServerError(ValueError):
    """A server that cannot be acted with, and what to do."""


class Greeting(NamedTuple):
    """What a server says of its policy."""

    fingerprint: str
    manifest: Manifest


@dataclass(frozen=True)
class _Ping:
    sent_s: float
    answered: threading.Event


class Link:
    """
    One server, over one connection after another.

    :meth:`tell` and :meth:`ask` belong to one thread, :meth:`fault` may be called from any.

    :param url: of the server, ws://HOST:PORT.
    :raises ServerError: where it cannot be reached, or is none for this node.
    """

    def __init__(self, url: str) -> None:
        """Connect, greet, and watch from now on."""
        self.url = url
        self._connection, self.greeting = greet(url)
        period_s = self.greeting.manifest.control_period_s
        self.beat_s, self._patience_s = period_s / _BEATS, _PATIENCE * period_s
        self._number, self._seq = 1, 1
        self._lock = threading.Lock()  # of the pings
        self._pings: deque[_Ping] = deque()
        self._down: Reason | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep, name='link', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the server."""
        self._closed.set()
        _abandon(self._connection)
        self._thread.join(_CONNECT_S)

    def fault(self) -> Reason | None:
        """Return why the server cannot be asked now; None: it can."""
        if self._down is not None:
            return self._down
        if self._connection.state is not State.OPEN:
            return self._lost('the connection has ended')
        silent_s = self._silent_s()
        if silent_s > self._patience_s:
            return Reason(SLOW, f'the server {self.url} has not answered for '
                          f'{1e3 * silent_s:.0f} ms, at most {1e3 * self._patience_s:.0f} ms are '
                          'allowed: the network between is cut, slow or loses packets, or the '
                          'machine is busy')
        return None

    def tell(self, kind: Kind, payload: Mapping[str, Any]) -> int:
        """
        Send what is not answered.

        :return: number of the connection that it was sent over.
        :raises ActorFault: where the server cannot be asked.
        """
        number, connection = self._number, self._connection
        self._send(connection, kind, payload)
        return number

    def ask(self, kind: Kind, payload: Mapping[str, Any], number: int) -> Mapping[str, Any]:
        """
        Return the payload of the answer.

        :param number: of the connection that knows what the question is about.
        :raises ActorFault: where the server cannot be asked, refuses, or was connected to anew.
        """
        connection = self._connection
        if number != self._number:
            raise ActorFault(self._lost('it was connected to anew; the history begins afresh'))
        self._send(connection, kind, payload)
        try:
            answer = self._answer(connection)
        except TimeoutError as error:
            _abandon(connection)
            raise ActorFault(self._lost(f'no answer within {_ANSWER_S:g} s; the connection is '
                                        'given up')) from error
        except ConnectionClosed as error:
            raise ActorFault(self._lost('the connection has ended')) from error
        except wire.WireError as error:
            raise ActorFault(Reason('bad_answer', f'the server {self.url}: {error}')) from error
        if answer.kind == 'error':
            raise ActorFault(Reason('policy_failed', f'the server {self.url}: '
                                    f'{answer.payload.get("error")}'))
        return answer.payload

    def _send(self, connection: ClientConnection, kind: Kind, payload: Mapping[str, Any]) -> None:
        self._seq += 1
        try:
            connection.send(wire.pack(Message(kind, payload, self._seq)))
        except (ConnectionClosed, OSError) as error:
            raise ActorFault(self._lost('the connection has ended')) from error

    def _answer(self, connection: ClientConnection) -> Message:
        """Return the answer to the last question; what else comes is of one given up."""
        end_s = time.monotonic() + _ANSWER_S
        while True:
            answer = wire.unpack(connection.recv(timeout=end_s - time.monotonic()))
            if answer.seq == self._seq:
                return answer

    def _lost(self, what: str) -> Reason:
        return Reason(LOST, f'the server {self.url} cannot be asked: {what}')

    def _silent_s(self) -> float:
        """Return how long the oldest ping has been unanswered."""
        with self._lock:
            while self._pings and self._pings[0].answered.is_set():
                self._pings.popleft()
            return time.monotonic() - self._pings[0].sent_s if self._pings else 0.0

    def _keep(self) -> None:
        """Ping while the connection stands, and make another when it does not."""
        wait_s = self.beat_s
        while not self._closed.wait(wait_s):
            connection = self._connection
            if connection.state is State.OPEN and self._silent_s() < _LOST_S:
                wait_s = self.beat_s
                self._ping(connection)
            else:
                wait_s = _RETRY_S
                _abandon(connection)
                self._renew()

    def _ping(self, connection: ClientConnection) -> None:
        """Send a ping; it counts from here on, also where the socket takes nothing more."""
        waiting = _Ping(time.monotonic(), threading.Event())
        with self._lock:
            self._pings.append(waiting)
        answered = waiting.answered
        with suppress(ConnectionClosed, OSError):
            answered = connection.ping()
        with self._lock:
            if self._pings and self._pings[-1] is waiting:
                self._pings[-1] = _Ping(waiting.sent_s, answered)

    def _renew(self) -> None:
        """Connect again, to the same policy alone."""
        self._down = self._down or self._lost('the connection has ended')
        try:
            connection, greeting = greet(self.url)
        except ServerError as error:
            self._down = Reason(LOST, str(error))
            return
        if greeting != self.greeting:
            _abandon(connection)
            self._down = Reason('other_server', f'the server {self.url} has another policy now, '
                                f'{greeting.fingerprint[:12]} instead of '
                                f'{self.greeting.fingerprint[:12]}: deactivate, clean up and '
                                'configure the node to act with it')
            return
        with self._lock:
            self._pings.clear()
        self._number, self._connection = self._number + 1, connection
        self._down = None
        if self._closed.is_set():
            _abandon(connection)


def greet(url: str) -> tuple[ClientConnection, Greeting]:
    """
    Connect to a server and greet it.

    :raises ServerError: where it cannot be reached, or is none for this node.
    """
    _check_url(url)
    logger = logging.getLogger(__name__)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    try:
        connection = connect(url, compression=None, max_size=wire.MAX_BYTES, proxy=None,
                             ping_interval=None, open_timeout=_CONNECT_S, close_timeout=_RETRY_S,
                             logger=logger)
        # The system gives up on data that nobody takes, also where a thread waits to send it.
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT,
                                     round(1e3 * _LOST_S))
    except TimeoutError as error:
        raise _unreachable(url, f'no answer within {_CONNECT_S:g} s') from error
    except OSError as error:
        raise _unreachable(url, error.strerror or str(error)) from error
    except WebSocketException as error:
        raise ServerError(f'the server {url} speaks another language than serve: '
                          f'{" ".join(str(error).split())}') from error
    try:
        connection.send(wire.pack(Message('hello', {'client': NODE,
                                                    'protocol_version': PROTOCOL_VERSION}, 1)))
        return connection, _understood(url, wire.unpack(connection.recv(timeout=_CONNECT_S)))
    except (ConnectionClosed, TimeoutError) as error:
        _abandon(connection)
        raise _unreachable(url, 'it did not answer the greeting') from error
    except wire.WireError as error:
        _abandon(connection)
        raise ServerError(f'the server {url}: {error}') from error
    except ServerError:
        _abandon(connection)
        raise


def _understood(url: str, answer: Message) -> Greeting:
    """Return what a greeting says. :raises ServerError: where this node cannot act with it."""
    said, own = answer.payload, ros2_lstm_policy.__version__
    if answer.kind != 'hello':
        raise ServerError(f'the server {url}: {said.get("error")}')
    if said.get('protocol_version') != PROTOCOL_VERSION or not isinstance(
            said.get('manifest'), Mapping):
        raise ServerError(f'the server {url} is {said.get("model_server")!r:.60}, protocol '
                          f'version {said.get("protocol_version")!r:.20}; expected serve of this '
                          f'package, version {PROTOCOL_VERSION}')
    if said.get('harness_version') != own:
        raise ServerError(f'the server {url} runs ros2_lstm_policy '
                          f'{said.get("harness_version")!s:.40}, and this node {own}: install one '
                          'version on both machines')
    try:
        manifest = config.parse(Manifest, said['manifest'], 'manifest')
    except (ValueError, TypeError) as error:
        raise ServerError(f'the server {url}: {error}') from error
    return Greeting(str(said.get('fingerprint')), manifest)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme == 'ws' and bool(parts.hostname) and parts.port is not None
    except ValueError:
        is_good = False
    if not is_good:
        raise ServerError(f'server is {url!r}; {_FORM}')


def _unreachable(url: str, why: str) -> ServerError:
    return ServerError(f'the server {url} cannot be reached: {why}; is serve running there, and '
                       'does it listen on this network (its key host)?')


def _abandon(connection: ClientConnection) -> None:
    """End a connection at once, without a word: whoever waits on it is woken."""
    with suppress(OSError):
        connection.socket.shutdown(socket.SHUT_RDWR)

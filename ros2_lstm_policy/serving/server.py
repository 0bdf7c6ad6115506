"""Sessions over websockets: a thread a client, one port, and an end that takes them all along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import errno
from http import HTTPStatus
import logging
import socket
import threading

from ros2_lstm_policy.serving import wire
from ros2_lstm_policy.serving.sessions import Session
from ros2_lstm_policy.serving.wire import Message
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import serve, ServerConnection

_CLOSE_S = 1.0
# A client whose machine is gone: TCP asks after 30 s of silence, and gives up after 3 more times.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class PortInUse(OSError):
    """An address that cannot be listened on, and what to do."""


class Doorman:
    """
    Lets clients in and speaks to them.

    :param make_session: for each client.
    :param say: takes a line for the person who runs the server.
    :param max_sessions: at once.
    """

    def __init__(self, make_session: Callable[[], Session], say: Callable[[str], None],
                 max_sessions: int) -> None:
        """Begin without a client."""
        self._make_session, self._say, self._max_sessions = make_session, say, max_sessions
        self._lock, self._open, self._count = threading.Lock(), 0, 0

    def attend(self, connection: ServerConnection) -> None:
        """Speak to one client until it leaves."""
        number, is_welcome = self._enter()
        peer = _peer(connection)
        try:
            if is_welcome:
                self._say(f'session {number}: {peer} came')
                self._converse(connection, number)
            else:
                text = f'{self._max_sessions} sessions are open already (max_sessions)'
                self._say(f'session {number}: {peer} is turned away: {text}')
                greeting = wire.unpack(connection.recv(timeout=_CLOSE_S))
                connection.send(wire.pack(Message('error', {'error': text}, greeting.seq)))
        except (ConnectionClosed, TimeoutError, wire.WireError):
            pass
        finally:
            with self._lock:
                self._open -= 1
            self._say(f'session {number}: {peer} left')

    def _converse(self, connection: ServerConnection, number: int) -> None:
        session, told = self._make_session(), ''
        for data in connection:
            try:
                answer = session.answer(wire.unpack(data))
            except wire.WireError as error:
                answer = Message('error', {'error': str(error)}, error.seq)
            if answer is None:
                continue
            connection.send(wire.pack(answer))
            session.settle()
            problem = str(answer.payload['error']) if answer.kind == 'error' else ''
            if problem and problem != told:  # a client that goes on with it fills no log
                self._say(f'session {number}: {problem}')
            told = problem

    def _enter(self) -> tuple[int, bool]:
        with self._lock:
            self._open += 1
            self._count += 1
            return self._count, self._open <= self._max_sessions


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens. :raises PortInUse: where the address cannot be had."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f'{host}:{port} is in use: another server runs there; end it, or '
                            'choose another port=') from error
        raise PortInUse(f'{host}:{port} cannot be listened on: {error.strerror}; choose another '
                        'host= or port=') from error


@contextmanager
def listening(doorman: Doorman, listener: socket.socket) -> Iterator[None]:
    """
    Let clients in while the context lasts.

    Browsers are refused: any page that somebody looks at could ask a server of this machine.
    """
    logger = logging.getLogger(__name__)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False  # what a scanner of ports does is no news
    with serve(doorman.attend, sock=listener, compression=None, max_size=wire.MAX_BYTES,
               origins=[None], ping_interval=None, close_timeout=_CLOSE_S, logger=logger,
               process_request=_health, create_connection=_Connection) as server:
        threading.Thread(target=server.serve_forever, name='listener').start()
        yield


class _Connection(ServerConnection):
    """One that notices when the client's machine is gone."""

    def handshake(self, *arguments: object, **options: object) -> None:
        """Set up the socket first."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            self.socket.setsockopt(socket.IPPROTO_TCP, name, value)
        super().handshake(*arguments, **options)  # type: ignore[arg-type]


def _health(connection: ServerConnection, request: Request) -> Response | None:
    """Answer GET /health, which waits for a server ask for."""
    if request.path != '/health':
        return None
    body = b'{"status": "ok"}\n'
    return Response(HTTPStatus.OK, 'OK', Headers([
        ('Content-Type', 'application/json'), ('Content-Length', str(len(body))),
        ('Connection', 'close')]), body)


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f'{address[0]}:{address[1]}' if isinstance(address, tuple) else str(address)

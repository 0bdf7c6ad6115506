"""A network between two sockets of this machine that can be cut, slowed and mended at will."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
import socket
import threading
import time


class Network:
    """
    Carries bytes to a server on this machine, both ways, on threads of its own.

    :param port: of the server.
    :ivar url: where a client connects.
    :ivar delay_s: that every packet takes, each way.
    """

    def __init__(self, port: int) -> None:
        """Listen, and carry."""
        self._port, self.delay_s = port, 0.0
        self._is_cut = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(('127.0.0.1', 0))
        self.url = f'ws://127.0.0.1:{self._listener.getsockname()[1]}'
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Carry nothing any more and say nothing about it, as a pulled cable does."""
        self._is_cut = True

    def reset(self) -> None:
        """End every connection with a reset, as a server does that dies."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                   b'\x01\0\0\0\0\0\0\0')
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Carry again what comes from now on, over connections of before or new ones."""
        self._is_cut, self.delay_s = False, 0.0

    def close(self) -> None:
        """End."""
        self._is_cut = True
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(('127.0.0.1', self._port))
                except OSError:
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                self._pairs.append((client, server))
                for source, target in ((client, server), (server, client)):
                    packets: deque[tuple[float, bytes]] = deque()
                    ready = threading.Semaphore(0)
                    for run, end in ((self._read, source), (self._write, target)):
                        threading.Thread(target=run, args=(end, packets, ready),
                                         daemon=True).start()

    def _read(self, source: socket.socket, packets: deque[tuple[float, bytes]],
              ready: threading.Semaphore) -> None:
        data = b'begun'
        while data:
            data = b''
            with suppress(OSError):
                data = source.recv(1 << 16)
            packets.append((time.monotonic(), data))
            ready.release()

    def _write(self, target: socket.socket, packets: deque[tuple[float, bytes]],
               ready: threading.Semaphore) -> None:
        while True:
            ready.acquire()
            came_s, data = packets.popleft()
            while self._is_cut or time.monotonic() < came_s + self.delay_s:
                time.sleep(0.001)
            try:
                if not data:
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)
            except OSError:
                return

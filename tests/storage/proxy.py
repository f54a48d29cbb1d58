"""A way to a PostgreSQL server that breaks where a test wants it to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_COMMIT = b"COMMIT"


class Proxy:
    """Listens on the loopback address and hands everything on to a unix socket and back."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._armed: bool | None = None
        self._dead = False
        threading.Thread(target=self._accept, daemon=True).start()

    def break_at_commit(self, *, deliver: bool) -> None:
        """The next COMMIT breaks its connection: before it arrives, or, with `deliver`, before its answer does."""
        self._armed = deliver

    def cut(self) -> None:
        """From now on nobody answers."""
        self._dead = True
        self._close_all()

    def mend(self) -> None:
        self._dead = False

    def close(self) -> None:
        self._listener.close()
        self._close_all()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._dead:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._connections += [client, server]
                broken = threading.Event()
                threading.Thread(target=self._to_server, args=(client, server, broken), daemon=True).start()
                threading.Thread(target=self._to_client, args=(client, server, broken), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, broken: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if _COMMIT in data and self._armed is not None:
                    deliver, self._armed = self._armed, None
                    broken.set()
                    if not deliver:
                        break
                server.sendall(data)
        _close(client, server)

    def _to_client(self, client: socket.socket, server: socket.socket, broken: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if broken.is_set():
                    break
                client.sendall(data)
        _close(client, server)

    def _close_all(self) -> None:
        for each in self._connections:
            _close(each)
        self._connections.clear()


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()

"""Prefect's server at a socket that is open already: `python -m tasks.serve NUMBER`, the socket's among the open files.

Whoever opens the socket knows the port, and that no other server can answer there.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

import uvicorn

_APP: Final = "prefect.server.api.server:create_app"


def serve(door: socket.socket) -> None:
    """Until it is told to end."""
    uvicorn.Server(uvicorn.Config(_APP, factory=True, timeout_keep_alive=5)).run(sockets=[door])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))

"""A mail server that keeps what it is given: enough of SMTP for a notification."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ANSWERS = {"DATA": "354 go on", "QUIT": "221 bye"}


@dataclass
class Mailbox:
    """What has arrived, letter by letter, headers and all."""

    port: int
    letters: list[str] = field(default_factory=list)


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 here")
            while line := self.rfile.readline().decode().strip():
                word = line.partition(" ")[0].upper()
                self.say(_ANSWERS.get(word, "250 yes"))
                if word == "QUIT":
                    return
                if word == "DATA":
                    box.letters.append(self.letter())
                    self.say("250 kept")

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def letter(self) -> str:
            lines = []
            while (line := self.rfile.readline().decode()).rstrip("\r\n") != ".":
                lines.append(line)
            return "".join(lines)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        box = Mailbox(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield box
        server.shutdown()

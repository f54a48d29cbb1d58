"""Write docs/cli.md from the commands' own --help: `make docs`. A test holds the two together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.testing import CliRunner

from cli.main import EXIT_CODES_HELP, app

TARGET = Path(__file__).parent / "cli.md"
_PLAIN = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
HEAD = f"""# The command line

Made from `--help` by `make docs`; edit the code, not this page.

Data goes to stdout, talk to stderr. `--debug`, anywhere on the line, shows tracebacks.

{EXIT_CODES_HELP}
"""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, parents before children, in the order of --help."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def page() -> str:
    parts = [HEAD]
    for path in commands(typer.main.get_command(app)):
        words = " ".join(("ntrader", *path))
        text = CliRunner().invoke(app, [*path, "--help"], prog_name="ntrader", terminal_width=100, env=_PLAIN).output
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"## {words}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")

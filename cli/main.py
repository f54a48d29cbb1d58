"""The command line's root, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from cli import data, db, history, run, services, strategy
from cli.output import complain
from ntrader.errors import (
    AmbiguousError,
    ConfigError,
    DatabaseError,
    Interruption,
    NotFoundError,
    NtraderError,
    RunError,
    ServiceError,
)

OK, UNEXPECTED, USAGE, NOT_FOUND, RUN_FAILED, DATABASE, DIFFERENT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

# The first class that fits decides.
EXIT_CODES: tuple[tuple[type[NtraderError], int], ...] = (
    (ConfigError, USAGE),
    (NotFoundError, NOT_FOUND),
    (AmbiguousError, NOT_FOUND),
    (RunError, RUN_FAILED),
    (DatabaseError, DATABASE),
    (ServiceError, DATABASE),
)

app = typer.Typer(
    name="ntrader",
    help="Every backtest recorded, every claim re-provable, every Sharpe paid for its trials.",
    epilog=(
        "Exit codes: 0 ok; 1 unexpected; 2 usage or configuration; 3 not found or ambiguous; 4 a run failed; "
        "5 database unavailable or schema behind; 6 checked and different; 130 Ctrl-C; 143 terminated."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run-backtest")(run.run_backtest)
app.add_typer(history.app, name="history")
app.add_typer(strategy.app, name="strategy")
app.add_typer(data.app, name="data")
app.add_typer(db.app, name="db")
app.command("status")(services.status)
app.command("down")(services.down)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ntrader {version('ntrader')}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks (accepted anywhere).")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run backtests, record them, find them again."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Always ends by raising SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL) if hasattr(signal, "SIGPIPE") else None
    try:
        app(words, prog_name="ntrader")
    except NtraderError as error:
        if debug:
            _show_traceback(error)
        complain(error.message, error.hint)
        raise SystemExit(exit_code(error)) from None
    except Interruption as interruption:
        complain("terminated" if interruption.number == signal.SIGTERM else "interrupted")
        raise SystemExit(128 + interruption.number) from None
    except OSError as error:
        if debug:
            _show_traceback(error)
        where = f" {error.filename}" if error.filename else ""
        complain(f"{os.strerror(error.errno) if error.errno else error}{where}", "Use --debug to see where.")
        raise SystemExit(UNEXPECTED) from None
    except Exception as error:
        if debug:
            _show_traceback(error)
        complain(f"unexpected {type(error).__name__}: {error}", "Use --debug to see where; this is a bug in ntrader.")
        raise SystemExit(UNEXPECTED) from None


def exit_code(error: NtraderError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), UNEXPECTED)


def _show_traceback(error: BaseException) -> None:
    stored = getattr(error, "traceback_text", None)
    sys.stderr.write(stored or "".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main()

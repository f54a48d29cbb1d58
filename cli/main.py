"""The command line's root, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    canary,
    compare,
    data,
    db,
    doctor,
    history,
    notify,
    reproduce,
    run,
    schedule,
    services,
    sql,
    strategy,
    sweep,
    watch,
)
from cli.narrow import narrowed
from cli.output import complain
from ntrader.errors import (
    AmbiguousError,
    ConfigError,
    DatabaseError,
    DriftError,
    Interruption,
    NotFoundError,
    NtraderError,
    RunError,
    ServiceError,
)
from ntrader.signals import once_is_enough

OK, UNEXPECTED, USAGE, NOT_FOUND, RUN_FAILED, DATABASE, DIFFERENT, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130

# The first class that fits decides.
EXIT_CODES: tuple[tuple[type[NtraderError], int], ...] = (
    (ConfigError, USAGE),
    (NotFoundError, NOT_FOUND),
    (AmbiguousError, NOT_FOUND),
    (RunError, RUN_FAILED),
    (DriftError, DIFFERENT),
    (DatabaseError, DATABASE),
    (ServiceError, DATABASE),
)

EXIT_CODES_HELP = (
    "Exit codes: 0 ok; 1 unexpected; 2 usage or configuration; 3 not found or ambiguous; 4 a run failed, or bad data; "
    "5 database or service unavailable, or schema behind; 6 checked and different; 130 Ctrl-C; 143 terminated."
)

app = typer.Typer(
    name="ntrader",
    help="Run backtests, record every one of them, and find them again.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run-backtest")(run.run_backtest)
app.command("reproduce")(reproduce.reproduce)
app.command("watch")(watch.watch)
app.command("verify")(reproduce.verify)
app.command("canary")(canary.canary)
app.add_typer(sweep.app, name="sweep")
app.add_typer(schedule.app, name="schedule")
app.add_typer(history.app, name="history")
app.command("compare")(compare.compare)
app.add_typer(strategy.app, name="strategy")
app.add_typer(data.app, name="data")
app.add_typer(db.app, name="db")
app.command("doctor")(doctor.doctor)
app.command("sql")(sql.sql)
app.add_typer(notify.app, name="notify")
app.command("up")(services.up)
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
    """The console script; with `arguments`, the same in this process, ended by SystemExit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        once_is_enough()
    _prepare_streams()
    debug = "--debug" in words
    code = _run([word for word in words if word != "--debug"], debug=debug)
    if arguments is None:
        _leave(code)
    raise SystemExit(code)


def _run(words: list[str], *, debug: bool) -> int:
    """Run the command; what went wrong becomes a message and an exit code."""
    try:
        narrowed(app, words)(words, prog_name="ntrader")
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which Typer answers with 1
            return _seen_enough()
        return end.code if isinstance(end.code, int) else OK
    except Interruption as interruption:
        complain("terminated" if interruption.number == signal.SIGTERM else "interrupted")
        return 128 + interruption.number
    except NtraderError as error:
        _show_traceback(error, debug)
        complain(error.message, error.hint)
        return exit_code(error)
    except BrokenPipeError:
        return _seen_enough()
    except OSError as error:
        _show_traceback(error, debug)
        where = f": {error.filename}" if error.filename else ""
        complain(f"{os.strerror(error.errno) if error.errno else error}{where}", "Use --debug to see where.")
        return UNEXPECTED
    except Exception as error:
        _show_traceback(error, debug)
        complain(f"unexpected {type(error).__name__}: {error}", "Use --debug to see where; this is a bug in ntrader.")
        return UNEXPECTED
    return OK


def _seen_enough() -> int:
    """Whoever read our output left (`| head`): what is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK


def _prepare_streams() -> None:
    """Output that was closed (`>&-`) goes nowhere; what its encoding cannot say is escaped, not fallen over."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open for as long as we are
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int) -> None:
    """End the process without taking it apart: unloading Prefect and the engine takes most of a second.

    What has to be finished is finished here: output is written, Prefect's events are sent, the worker is ended.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(code)
    sys.stderr.flush()
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # nobody has to wait for Prefect's events
    if "prefect" in sys.modules:
        from flows.launch import finish

        finish()
    if worker := sys.modules.get("ntrader.worker"):
        worker.leave_nothing()
    os._exit(code)


def exit_code(error: NtraderError) -> int:
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), UNEXPECTED)


def _show_traceback(error: BaseException, debug: bool) -> None:
    if not debug:
        return
    stored = getattr(error, "traceback_text", None)
    sys.stderr.write(stored or "".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main()

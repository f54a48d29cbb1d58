"""The one exception tree. Each message says what happened, with the value; `hint` says what to do next.

The command line maps these classes to exit codes (`cli/main.py`); nothing below it knows about exit codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntrader.results import Fingerprints, Inputs


class NtraderError(Exception):
    """Anything ntrader raises on purpose.

    `hint` is the next step for a person, kept apart from the message so that it is printed on a line of its own
    and stored error messages stay short.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross a process border on their way back from the engine; keyword arguments must survive pickling.
        return _rebuild, (type(self), self.message, self.hint, self.__dict__)


def _rebuild(kind: type[NtraderError], message: str, hint: str | None, state: dict[str, object]) -> NtraderError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    error.message, error.hint = message, hint
    return error


class ConfigError(NtraderError):
    """The request itself is wrong: an option, a YAML file, a parameter, a setting. Nothing has been run."""


class UnknownStrategyError(ConfigError):
    """No strategy of that name or import path."""


class BrokenStrategyError(ConfigError):
    """The strategy's module raised while it was imported. The original traceback is in `traceback_text`."""

    def __init__(self, message: str, *, hint: str | None = None, traceback_text: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.traceback_text = traceback_text


class RefusedParametersError(ConfigError):
    """Each parameter fits by itself, and the strategy's own checks refuse them together."""


class NotFoundError(NtraderError):
    """What was named is not there."""


class AmbiguousError(NtraderError):
    """What was named fits more than one thing; the message lists them."""


class RunError(NtraderError):
    """A backtest could not be carried out. The run is recorded as failed, with what went in as far as it is known."""

    fingerprints: Fingerprints | None = None
    inputs: Inputs | None = None


class DataError(RunError):
    """The bars asked for are missing or bad."""


class DataNotFoundError(DataError):
    """No bars for the symbol, source or period asked for; the message says what there is."""


class BadDataError(DataError):
    """Bars that no engine should be fed: unsorted, duplicate, not finite, high < low, negative, empty."""


class StrategyError(RunError):
    """The strategy raised. The original traceback is in `traceback_text`."""

    def __init__(self, message: str, *, hint: str | None = None, traceback_text: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.traceback_text = traceback_text


class EngineStoppedError(RunError):
    """The engine ended before the last bar without raising; its result would cover only a part of the period."""


class EngineKilledError(RunError):
    """The process that ran the engine died (out of memory, killed, crashed). Another try may succeed."""


class DriftError(NtraderError):
    """Recorded results do not come out the same any more."""


class DatabaseError(NtraderError):
    """The database refused or failed. `transient` says whether trying again can help."""

    transient = False


class DatabaseUnavailableError(DatabaseError):
    """No connection can be had."""


class TransientDatabaseError(DatabaseUnavailableError):
    """A connection was lost or the server is starting, stopping or deadlocked: the same call may work in a moment."""

    transient = True


class SchemaError(DatabaseError):
    """The tables are missing or of another version than this code."""


class ServiceError(NtraderError):
    """A local service (embedded PostgreSQL, Prefect server) could not be started or stopped."""


class Interruption(BaseException):
    """A signal asked for an end. Like KeyboardInterrupt no Exception, so that nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

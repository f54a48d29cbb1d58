"""Bringing a database to the schema this code needs. Alembic is imported only when there is something to do."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from ntrader.errors import DatabaseError, DatabaseUnavailableError, SchemaError
from ntrader.settings import Settings
from storage.database import HEAD, connect, schema_error, schema_version

if TYPE_CHECKING:
    from alembic.config import Config


def prepare(settings: Settings) -> None:
    """Make sure that runs can be stored: the embedded database is migrated, another one is only looked at.

    Raises SchemaError when a database that is not ours to change is behind, DatabaseError when it cannot be had.
    """
    found = current(settings)
    if found == HEAD:
        return
    problem = schema_error(found)
    if not settings.embedded or (found and found > HEAD):
        raise problem
    upgrade(settings)


def current(settings: Settings) -> str | None:
    """The revision the database is at; None where there are no tables."""
    with connect(settings) as connection:
        return schema_version(connection)


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Migrate up to `revision`. Two at once are safe: the second waits, then finds nothing to do."""
    from alembic import command

    _run(settings, lambda config: command.upgrade(config, revision))


def downgrade(settings: Settings, revision: str) -> None:
    """Migrate down to `revision`; "base" removes every table and all that is in them."""
    from alembic import command

    _run(settings, lambda config: command.downgrade(config, revision))


def check(settings: Settings) -> None:
    """Raises SchemaError when the tables are not what the models say, whatever their revision claims."""
    from alembic import command

    _run(settings, command.check)


def _run(settings: Settings, action: Callable[[Config], None]) -> None:
    from alembic.util import CommandError

    try:
        action(_config(settings))
    except CommandError as error:
        raise SchemaError(
            f"the schema does not fit: {error}",
            hint="Run `ntrader db upgrade`; if the database is the newer one, upgrade ntrader.",
        ) from error
    except DatabaseError as error:
        failed = _failed_revision(error.__cause__)
        if failed is None or isinstance(error, DatabaseUnavailableError):
            raise
        raise SchemaError(
            f"the migration {failed} failed and changed nothing: {error.message}",
            hint=error.hint or "Mend that, then run `ntrader db upgrade` again: it begins where the database is.",
        ) from error


def _failed_revision(cause: BaseException | None) -> str | None:
    """The revision whose code raised; None where it was raised on the way to one."""
    from traceback import walk_tb

    if cause is None:
        return None
    frames = (frame for frame, _ in walk_tb(cause.__traceback__) if frame.f_code.co_name in {"upgrade", "downgrade"})
    # `command.upgrade` of Alembic is called like that too.
    return next((frame.f_globals["revision"] for frame in frames if "down_revision" in frame.f_globals), None)


def _config(settings: Settings) -> Config:
    from alembic.config import Config

    config = Config(stdout=StringIO())  # what is said is said by us
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["settings"] = settings
    return config


def _scripts() -> Path:
    """Beside the packages in a checkout, inside this one in an installed wheel."""
    installed = Path(__file__).parent / "alembic"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "alembic"

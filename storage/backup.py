"""Everything ntrader remembers as one file, and back: pg_dump's custom format.

A backup holds the schema that our tables are in: tables, views, functions, triggers. In a database that is shared,
tables of others in that schema are left out, and so are views on them. Owners and grants stay out too: a backup is
for another home, another server, other users.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg import sql

from ntrader.errors import ConfigError, DatabaseError, NtraderError, SchemaError, TransientDatabaseError
from ntrader.files import full, replacing
from ntrader.settings import Settings
from storage.database import HEAD, connect, schema_error, schema_version, translate
from storage.programs import Programs, newest, way_to

# The number that alembic/env.py locks: no migration runs while tables are restored.
_MIGRATION_LOCK = 0x6E747261646572
_LOCK_TIMEOUT = "10s"
_LOCK_WAIT = "30s"
_DISK_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")
# pg_restore 17 writes it whatever the server; older servers do not know it.
_NEW_SETTING, _KNOWN_SINCE = b"SET transaction_timeout = 0;\n", 17

_PLACE = """
SELECT (SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass('alembic_version')) AS ours,
       current_schema() AS first, to_regclass('backtest_runs') IS NOT NULL AS has_runs
"""

# Tables that no model of ours describes, and the views on them.
_OTHERS = """
WITH RECURSIVE others AS (
    SELECT c.oid FROM pg_class c
    WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace
      AND c.relkind IN ('r', 'p', 'f') AND c.relname <> ALL (%(ours)s)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
    UNION
    SELECT r.ev_class FROM others o
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = o.oid
                    AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite r ON r.oid = d.objid
)
SELECT c.relname AS name FROM others o JOIN pg_class c ON c.oid = o.oid
WHERE c.relnamespace = quote_ident(%(schema)s)::regnamespace ORDER BY c.relname
"""

# Everything in the schema but what belongs to an extension. CASCADE, because the order would else matter.
_CLEAR = """
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT format('DROP %s IF EXISTS %I.%I CASCADE',
                      CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                                   WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, {schema}, relname)
        FROM pg_class c
        WHERE relnamespace = quote_ident({schema})::regnamespace AND relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
                          AND deptype IN ('e', 'a', 'i'))
        UNION ALL
        SELECT format('DROP ROUTINE IF EXISTS %I.%I(%s) CASCADE', {schema}, proname,
                      pg_get_function_identity_arguments(oid))
        FROM pg_proc p WHERE pronamespace = quote_ident({schema})::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid
                          AND deptype IN ('e', 'i'))
        UNION ALL
        SELECT format('DROP TYPE IF EXISTS %I.%I CASCADE', {schema}, typname)
        FROM pg_type t WHERE typnamespace = quote_ident({schema})::regnamespace
          AND (typtype IN ('d', 'e', 'r') OR typtype = 'c'
               AND (SELECT relkind FROM pg_class WHERE pg_class.oid = typrelid) = 'c')
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_type'::regclass AND objid = t.oid
                          AND deptype = 'e')
    LOOP
        EXECUTE statement;
    END LOOP;
END $$;
"""

_REFUSE_RUNS = """
LOCK TABLE {runs} IN ACCESS EXCLUSIVE MODE;
DO $$ BEGIN IF EXISTS (SELECT FROM {runs}) THEN RAISE 'runs were recorded meanwhile'; END IF; END $$;
"""


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written; `left_out` are tables and views of others in the same schema."""

    path: Path
    size: int
    runs: int
    revision: str
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Archive:
    """A backup that was looked into: the schema its tables are in, and their revision."""

    path: Path
    programs: Programs
    schema: str
    revision: str
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """What the database holds now. With `behind` its tables are older than this code needs."""

    runs: int
    revision: str
    behind: bool


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in a database: `schema` is that of our tables, or where they would go; `ours` whether they are there."""

    schema: str
    ours: bool
    revision: str | None
    runs: int
    others: tuple[str, ...]
    has_runs_table: bool


# -- backup --------------------------------------------------------------------------------------------------


def back_up(settings: Settings, path: Path, *, force: bool = False) -> Backup:
    """Write everything to `path`: all of it or no file. The schema may be older than this code.

    Raises ConfigError when the file exists (without `force`) or cannot be made, SchemaError when there is nothing
    of ours or it is newer, ServiceError when no pg_dump fits the server, NtraderError when the disk is full.
    """
    if path.exists() and not path.is_dir() and not force:
        raise ConfigError(f"{path} exists", hint="Choose another name, or let --force replace it.")
    with replacing(path) as fresh, _connected(settings) as connection:
        # One snapshot for the count and for pg_dump.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        contents = _contents(settings, connection)
        if contents.revision is None or not _is_known(contents.revision):
            raise schema_error(contents.revision)
        (snapshot,) = connection.execute("SELECT pg_export_snapshot() AS id").fetchall()
        programs = newest(settings, connection.info.server_version // 10_000)
        with way_to(settings, programs, connection) as (place, environment):
            arguments = _dump_arguments(contents, snapshot["id"], fresh)
            done = programs.run("pg_dump", *arguments, f"--dbname={place}", environment=environment)
        if done.returncode != 0:
            raise _dump_error(path, done.stderr)
        size = fresh.stat().st_size
    return Backup(path, size, contents.runs, contents.revision, contents.others)


def _dump_arguments(contents: _Contents, snapshot: str, target: Path) -> list[str]:
    # In quotes a name is no pattern.
    schema = _quoted(contents.schema)
    left_out = [f"--exclude-table={_quoted(contents.schema, name)}" for name in contents.others]
    # We hold a snapshot and with it locks: whoever waits for us must not make pg_dump wait for ever behind him.
    options = ["--format=custom", "--no-password", f"--lock-wait-timeout={_LOCK_WAIT}", f"--snapshot={snapshot}"]
    return [*options, f"--schema={schema}", *left_out, f"--file={target}"]


def _dump_error(path: Path, said: str) -> NtraderError:
    reason = _reason(said)
    if (match := _DISK_FULL.search(said)) and "ERROR:" not in said:
        return full(path, match[0])
    if "canceling statement due to" in said:  # pg_dump sets no other limit
        return TransientDatabaseError(
            f"the tables were locked for {_LOCK_WAIT}: no backup was made", hint="Try again once the migration is over."
        )
    return DatabaseError(f"no backup was made: {reason}", hint="The user needs to read every table.")


# -- restore -------------------------------------------------------------------------------------------------


def look_into(settings: Settings, path: Path) -> Archive:
    """What a backup holds, before anything is touched.

    Raises ConfigError for a file that cannot be read or is no backup of ours, SchemaError for one that is too new.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}" if not path.exists() else f"{path} is not a file")
    programs = newest(settings)
    listed = _read(programs, path, "--list")
    tables = re.findall(r"^\d+; \d+ \d+ TABLE DATA (.+) (\S+) \S+$", listed, flags=re.MULTILINE)
    schema = next((schema for schema, table in tables if table == "alembic_version"), None)
    ours = tuple(table for home, table in tables if home == schema)
    if schema is None or "backtest_runs" not in ours:
        raise ConfigError(f"{path} is a PostgreSQL backup, but not of ntrader: it has no table backtest_runs")
    script = _read(programs, path, "--data-only", "--table=alembic_version", "--file=-")
    match = re.search(r"^COPY .*\n(\d{3}_\w*)$", script, flags=re.MULTILINE)
    if match is None:
        raise ConfigError(f"{path} is a PostgreSQL backup, but not of ntrader: it names no revision of its tables")
    if not _is_known(match[1]):
        raise SchemaError(
            f"{path} has tables of revision {match[1]}, newer than this ntrader, which is at {HEAD}",
            hint="Upgrade ntrader, then restore.",
        )
    return Archive(path, programs, schema, match[1], ours)


def _read(programs: Programs, path: Path, *arguments: str) -> str:
    done = programs.run("pg_restore", *arguments, str(path.absolute()))
    if done.returncode == 0:
        return done.stdout
    if "unsupported version" in done.stderr:
        raise ConfigError(
            f"{path} was written by a newer pg_dump than the pg_restore here ({programs.major}) can read",
            hint="Install the client programs of a newer PostgreSQL.",
        )
    raise _damaged(path, done.stderr)


def _damaged(path: Path, said: str) -> ConfigError:
    return ConfigError(
        f"{path} is no backup, or a damaged one: {_reason(said)}", hint="Nothing was changed. Use another file."
    )


def recorded_runs(settings: Settings) -> int:
    """How many runs a restore would replace."""
    with _connected(settings) as connection:
        return _contents(settings, connection).runs


def restore(settings: Settings, archive: Archive, *, replace: bool = False) -> Restored:
    """Put a backup's tables in the place of ours, in one transaction: a failure leaves everything as it was.

    The embedded database is then migrated to this code's revision. Raises ConfigError when there are runs (without
    `replace`), when the file is damaged, or when tables of others are in the way; DatabaseError when the database
    refuses.
    """
    with _connected(settings) as connection:
        contents = _contents(settings, connection)
        server = connection.info.server_version // 10_000
        _check_target(settings, archive, contents, replace=replace)
        prelude = _prelude(connection, contents, replace=replace)
        postlude = "".join(f"ANALYZE {_quoted(archive.schema, name)};\n" for name in archive.tables)
        connection.rollback()  # our look at the tables must not stand in the way of replacing them
        with way_to(settings, archive.programs, connection) as (place, environment):
            _pipe(archive, place, environment, prelude, f"{postlude}COMMIT;\n", server)
    return _outcome(settings)


def _check_target(settings: Settings, archive: Archive, contents: _Contents, *, replace: bool) -> None:
    where = settings.masked_database_url
    if contents.revision is not None and not _is_known(contents.revision):
        raise schema_error(contents.revision)
    if contents.runs and not replace:
        raise ConfigError(
            f"{where} holds runs already: {contents.runs:,}",
            hint="Use --replace to give them up for those of the backup, or restore into another database.",
        )
    if contents.schema != archive.schema:
        raise ConfigError(
            f"the backup is of schema {archive.schema!r}, but tables of {where} are in {contents.schema!r}",
            hint=f"Create that schema, and add options=-csearch_path={archive.schema} to DATABASE_URL.",
        )
    if contents.ours and contents.others:
        raise ConfigError(
            f"{where} holds tables or views that are not ntrader's: {', '.join(contents.others)}",
            hint="ntrader clears no schema that others use: restore into a database of its own.",
        )


def _prelude(connection: psycopg.Connection[dict[str, Any]], contents: _Contents, *, replace: bool) -> str:
    lines = [
        "BEGIN;",
        f"SET lock_timeout = '{_LOCK_TIMEOUT}'; SET statement_timeout = 0;",
        "SET client_min_messages = warning;",
        f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK});",
    ]
    if contents.has_runs_table and not replace:
        lines.append(_REFUSE_RUNS.format(runs=_quoted(contents.schema, "backtest_runs")))
    if contents.ours:
        lines.append(sql.SQL(_CLEAR).format(schema=sql.Literal(contents.schema)).as_string(connection))
    return "\n".join([*lines, ""])


def _pipe(archive: Archive, place: str, environment: dict[str, str], prelude: str, postlude: str, server: int) -> None:
    """pg_restore writes a script, psql runs it, and what we put around it makes it one transaction.

    COMMIT is said only after pg_restore has ended well: a file that breaks off changes nothing. (pg_restore by itself
    clears only what is in the file, and does not talk to servers older than 17.)
    """
    with (
        tempfile.TemporaryFile() as complaints,
        tempfile.TemporaryFile() as answers,
        _reader(archive, complaints) as (reader, script),
        _runner(archive.programs, place, environment, answers) as (runner, target),
    ):
        with suppress(BrokenPipeError):  # psql gave up: it says why
            target.write(prelude.encode())
            _copy(script, target, without=_NEW_SETTING if server < _KNOWN_SINCE else None)
            if reader.wait() != 0:
                raise _damaged(archive.path, _text_of(complaints))
            target.write(postlude.encode())
            target.close()
        if runner.wait() != 0:
            raise _restore_error(_text_of(answers))


_Child = tuple["subprocess.Popen[bytes]", IO[bytes]]


@contextmanager
def _reader(archive: Archive, complaints: IO[bytes]) -> Iterator[_Child]:
    """pg_restore, and the script that it writes."""
    options = ["--file=-", "--no-owner", "--no-privileges", f"--schema={archive.schema}"]
    process = subprocess.Popen(
        archive.programs.command("pg_restore", *options, str(archive.path.absolute())),
        env=archive.programs.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
    )
    assert process.stdout is not None
    with _ending(process):
        yield process, process.stdout


@contextmanager
def _runner(programs: Programs, place: str, environment: dict[str, str], answers: IO[bytes]) -> Iterator[_Child]:
    """psql, and where it reads."""
    options = ["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1", f"--dbname={place}"]
    process = subprocess.Popen(
        programs.command("psql", *options),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=answers,
    )
    assert process.stdin is not None
    with _ending(process):
        yield process, process.stdin


@contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The process does not outlive the block."""
    try:
        yield
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        process.wait()


def _copy(source: IO[bytes], target: IO[bytes], *, without: bytes | None) -> None:
    """Pass everything on, but for the first line that reads `without`: it is among the first dozen."""
    while without is not None and (line := source.readline()):
        if line == without:
            break
        target.write(line)
    shutil.copyfileobj(source, target, 1 << 16)


def _text_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _restore_error(said: str) -> DatabaseError:
    if "lock timeout" in said:
        return TransientDatabaseError(
            f"the tables are in use, and did not get free within {_LOCK_TIMEOUT}; nothing was changed",
            hint="Wait for running backtests, or stop what else works on the database.",
        )
    if match := _DISK_FULL.search(said):
        return DatabaseError(
            f"the disk of the database is full ({match[0]}); the restore was taken back",
            hint="Make room there, then restore again.",
        )
    return DatabaseError(f"the database refused the backup, nothing was changed: {_reason(said)}")


def _outcome(settings: Settings) -> Restored:
    with _connected(settings) as connection:
        contents = _contents(settings, connection)
    revision = contents.revision or ""
    if revision != HEAD and settings.embedded:
        from storage import migrations

        migrations.upgrade(settings)
        revision = HEAD
    return Restored(contents.runs, revision, revision != HEAD)


# -- both ----------------------------------------------------------------------------------------------------


@contextmanager
def _connected(settings: Settings) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection that begins a transaction with its first query; errors inside come out as ours."""
    with connect(settings, autocommit=False) as connection:
        try:
            yield connection
        except psycopg.Error as error:
            raise translate(error, settings) from error


def _contents(settings: Settings, connection: psycopg.Connection[dict[str, Any]]) -> _Contents:
    (place,) = connection.execute(_PLACE).fetchall()
    schema = place["ours"] or place["first"] or ""
    runs = connection.execute("SELECT count(*) AS runs FROM backtest_runs").fetchone() if place["has_runs"] else None
    return _Contents(
        schema=schema,
        ours=place["ours"] is not None,
        revision=schema_version(connection),
        has_runs_table=place["has_runs"],
        runs=runs["runs"] if runs else 0,
        # The embedded database is ours, whatever is in it.
        others=() if settings.embedded else _others(connection, schema),
    )


def _others(connection: psycopg.Connection[dict[str, Any]], schema: str) -> tuple[str, ...]:
    from sqlmodel import SQLModel

    from storage import models  # noqa: F401 - it fills the list of tables

    ours = [*SQLModel.metadata.tables, "alembic_version"]
    return tuple(row["name"] for row in connection.execute(_OTHERS, {"schema": schema, "ours": ours}))


def _is_known(revision: str) -> bool:
    """Whether it is a revision of ours that this code has heard of."""
    return re.match(r"\d{3}_", revision) is not None and revision <= HEAD


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def _reason(said: str) -> str:
    """What a program complained of first, without its name."""
    lines = [line for line in said.splitlines() if "error:" in line or "ERROR:" in line or "FATAL:" in line]
    text = (lines or said.splitlines() or ["it did not say why"])[0]
    return re.sub(r"^.*?(?:ERROR|FATAL|error): +(?:query failed: ERROR: +)?", "", text).strip()

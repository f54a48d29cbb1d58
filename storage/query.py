"""One question in SQL, answered row by row; it can change nothing.

What holds it: a read-only transaction; one statement, because it is parsed by itself before it is run; and a role
without rights. The embedded PostgreSQL is asked by a login of its own that may only read. On another server a superuser
steps down to pg_read_all_data for the transaction; whoever is no superuser stays who he is.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Buffer, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from typing import Any, cast

import psycopg
from psycopg import capabilities
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.json import set_json_loads
from psycopg.types.string import TextLoader

from ntrader.errors import ConfigError, NtraderError
from ntrader.settings import Settings
from storage.database import connect, reading_apart, translate

READER = "ntrader_reader"

_CHUNK = 1_000
_NAME = b"ntrader"
_HINT = "`ntrader sql` answers one question, such as: ntrader sql 'select count(*) from backtest_runs'"
# They run statements of their own, where neither the one statement nor the role would hold; or outlive us.
_REFUSED = {"DO", "CALL", "PREPARE"}
# Classes of SQLSTATE for which the statement is to blame.
_BLAMED = {"0A", "20", "21", "22", "25", "26", "2F", "34", "38", "39", "3B", "3F", "42", "44", "54"}
_TOKEN = re.compile(
    r"""(?P<skip>\s+|--[^\n]*)
      | (?P<comment>/\*)
      | (?P<quoted>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
      | (?P<word>[^\W\d][\w$]*)
      | .""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of Python values, fetched while they are read; intervals are text, json numbers keep their digits."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Copied:
    """What a COPY ... TO STDOUT sends, as it comes."""

    chunks: Iterator[Buffer]


@dataclass(frozen=True, slots=True)
class Nothing:
    """A statement that has no rows to give, such as SET."""

    command: str


_Rows = Generator[tuple[Any, ...]]
Answer = Table | Copied | Nothing


@contextmanager
def ask(settings: Settings, statement: str) -> Iterator[Answer]:
    """The answer, for as long as the block lasts; the connection is open meanwhile.

    Raises ConfigError for what is wrong with the statement, a DatabaseError for what is wrong with the database.
    """
    words = _words(statement)
    _refuse(statement, words)
    with reading_apart(settings) as first, _as_reader(settings, first) as connection:
        try:
            _prepare_session(connection)
            with _answer(connection, statement, copies=words[0] == "COPY") as answer:
                yield answer
        except psycopg.Error as error:
            raise _explained(error, statement, settings) from error


# -- what is refused before it is sent -----------------------------------------------------------------------


def _refuse(statement: str, words: list[str]) -> None:
    if "\0" in statement:
        raise ConfigError("the statement holds a zero byte")
    if not words:
        raise ConfigError("there is no statement", hint=_HINT)
    if words[0] in _REFUSED:
        raise ConfigError(f"{words[0]} is no question", hint=_HINT)
    # TO is a reserved word: it stands there once, whatever the tables are called.
    if words[0] == "COPY" and "TO STDOUT" not in " ".join(words):
        raise ConfigError("COPY can only go TO STDOUT here", hint="Write to a file with -o FILE.")


def _words(statement: str) -> list[str]:
    """The words outside all brackets, in capitals; anything in quotes is a `'`."""
    words, position, depth = [], 0, 0
    while match := _TOKEN.match(statement, position):
        position = match.end()
        if match["comment"]:
            position = _comment_end(statement, position)
        elif not match["skip"]:
            depth += {"(": 1, ")": -1}.get(match[0], 0)
            if depth == 0 and match[0] != ";":
                words.append("'" if match["quoted"] else match[0].upper())
    return words


def _comment_end(statement: str, position: int) -> int:
    """PostgreSQL's comments nest."""
    depth = 1
    for mark in re.finditer(r"/\*|\*/", statement[position:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return position + mark.end()
    return len(statement)


# -- who asks ------------------------------------------------------------------------------------------------


@contextmanager
def _as_reader(
    settings: Settings, first: psycopg.Connection[dict[str, Any]]
) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """Embedded, a connection of the login that may only read; it is made at the first question."""
    if not settings.embedded:
        yield first
        return
    if first.execute("SELECT FROM pg_roles WHERE rolname = %s", [READER]).rowcount == 0:
        # Somebody else may be asking a first question too.
        with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            first.execute(f"CREATE ROLE {READER} LOGIN IN ROLE pg_read_all_data")
    with connect(settings, user=READER) as connection:
        yield connection


def _prepare_session(connection: psycopg.Connection[dict[str, Any]]) -> None:
    connection.execute("SET standard_conforming_strings = on")  # as _TOKEN reads them
    connection.execute("SET default_transaction_read_only = on")
    connection.execute("BEGIN READ ONLY")
    superuser = "SELECT FROM pg_roles WHERE rolname = session_user AND rolsuper"
    if connection.execute(superuser).rowcount:
        # A search path with "$user" in it would mean another schema for another role.
        connection.execute(
            "SELECT set_config('search_path', (SELECT string_agg(quote_ident(name), ', ')"
            " FROM unnest(current_schemas(false)) AS name), true)"
        )
        connection.execute("SET LOCAL ROLE pg_read_all_data")
    connection.adapters.register_loader("interval", TextLoader)  # a timedelta knows no months
    set_json_loads(partial(json.loads, parse_float=Decimal), connection)


# -- the answer ----------------------------------------------------------------------------------------------


@contextmanager
def _answer(connection: psycopg.Connection[dict[str, Any]], statement: str, *, copies: bool) -> Iterator[Answer]:
    columns = _parse(connection, statement)
    cursor = connection.cursor(row_factory=tuple_row)
    if columns:
        size = _CHUNK if capabilities.has_stream_chunked() else 1
        # Closed in any case: it holds the connection until it has cancelled what is left.
        with closing(cast("_Rows", cursor.stream(statement, size=size))) as rows:
            first = list(islice(rows, 1))  # an error comes before any output
            yield Table(columns, chain(first, rows))
    elif copies:
        with cursor.copy(statement) as copy:
            yield Copied(iter(copy))
            if connection.info.transaction_status == TransactionStatus.ACTIVE:
                # Nobody wants the rest.
                connection.cancel_safe()
                with suppress(psycopg.errors.QueryCanceled):
                    deque(copy, maxlen=0)
    else:
        cursor.execute(statement)
        yield Nothing(cursor.statusmessage or "")


def _parse(connection: psycopg.Connection[dict[str, Any]], statement: str) -> tuple[str, ...]:
    """The names of the columns. Several statements are refused here, by PostgreSQL itself."""
    encoding = connection.info.encoding
    parsed = connection.pgconn.prepare(_NAME, statement.encode(encoding))
    if parsed.status != ExecStatus.COMMAND_OK:
        raise error_from_result(parsed, encoding=encoding)
    described = connection.pgconn.describe_prepared(_NAME)
    if described.nparams:
        raise ConfigError("the statement has a parameter ($1), and nobody gives it a value", hint="Write the value.")
    return tuple((described.fname(index) or b"").decode(encoding) for index in range(described.nfields))


# -- errors --------------------------------------------------------------------------------------------------


def _explained(error: psycopg.Error, statement: str, settings: Settings) -> NtraderError:
    code = error.sqlstate or ""
    if isinstance(error, psycopg.DataError) and not code:
        return ConfigError(f"a value cannot be shown: {error}", hint="Ask for it as text: column::text")
    if code[:2] not in _BLAMED or code == "25P03":
        return translate(error, settings)
    diagnosis = error.diag
    message = diagnosis.message_primary or str(error)
    if code == "25006":
        return ConfigError(message, hint="`ntrader sql` reads, and changes nothing.")
    if "multiple commands" in message:
        return ConfigError("there is more than one statement", hint=_HINT)
    position = int(diagnosis.statement_position or 0)
    advice = " ".join(part for part in (diagnosis.message_detail, diagnosis.message_hint) if part)
    return ConfigError(message + _pointed(statement, position), hint=advice or None)


def _pointed(statement: str, position: int) -> str:
    """The line of the statement in which something is wrong, and a mark below the place. `position` counts from 1."""
    if not position:
        return ""
    begin = statement.rfind("\n", 0, position - 1) + 1
    line, column = statement[begin:].partition("\n")[0], position - 1 - begin
    cut = max(0, column - 50)
    shown = line[cut : cut + 100].replace("\t", " ")
    number = statement.count("\n", 0, begin) + 1
    return f"\nline {number}: {shown}\n{' ' * (len(f'line {number}: ') + column - cut)}^"

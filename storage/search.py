"""Finding runs: filters, order and page become one SQL statement, whose every value is a parameter.

Each list is served by an index that begins with `archived` and then its order (storage/models.py), so that what a
page costs does not depend on how many runs there are.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import product
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from ntrader.errors import ConfigError
from storage.conditions import Filters, Values, conditions
from storage.fields import ALIASES, FIELDS, LESS_IS_BETTER, METRICS, NEVER_NULL, RANKED_WITHIN, SORTABLE, column_name
from storage.periods import FIRST_OF_EACH, FOUND_IN_HEAD, WITHIN_SPAN, Span, find_spans, is_of_a_period, span_parameters
from storage.references import find_sweep_id

Connection = psycopg.Connection[dict[str, Any]]


MOST_BRANCHES = 50
# Where one run in fifty lies in a period, a page of twenty is among so many.
HEAD = 1_000


@dataclass(frozen=True, slots=True)
class Order:
    """`descending` None means best first: newest, highest, or lowest where less is better."""

    column: str = "created_at"
    descending: bool | None = None

    @property
    def resolved(self) -> tuple[str, bool]:
        """The column and whether it descends. Raises ConfigError for what no list can be sorted by."""
        column = column_name(self.column)
        if column not in SORTABLE:
            raise _not_sortable(self.column, column)
        best = column not in LESS_IS_BETTER
        return column, best if self.descending is None else self.descending


@dataclass(frozen=True, slots=True)
class Page:
    """Rows as they come from the database; `token` names the next page, None after the last."""

    rows: list[dict[str, Any]]
    token: str | None


def settle(connection: Connection, filters: Filters) -> Filters:
    """The same with the sweep's number in place of its name, and whether there are runs that it is linked to. Raises
    NotFoundError and AmbiguousError where the name of a sweep does."""
    if filters.sweep is None:
        return filters
    number = find_sweep_id(connection, filters.sweep) if isinstance(filters.sweep, str) else filters.sweep
    (row,) = connection.execute(
        "SELECT EXISTS (SELECT FROM trials WHERE sweep_id = %s AND linked) AS linked", [number]
    ).fetchall()
    return replace(filters, sweep=number, linked=row["linked"])


def find_page(
    connection: Connection,
    columns: sql.Composable,
    filters: Filters,
    order: Order,
    limit: int,
    token: str | None = None,
) -> Page:
    """At most `limit` runs in order; ties by id, runs without the value last.

    `columns` select from `backtest_runs r`. Pages neither repeat nor miss a run, whatever is added meanwhile. Raises
    ConfigError for a token of another list.
    """
    column, descending = order.resolved
    ranking = _Ranking(filters, column, descending)
    position = ranking.position(token)

    def fetch(statement: sql.Composed, most: int) -> list[dict[str, Any]]:
        return connection.execute(statement, ranking.parameters | {"limit": most}).fetchall()

    spans, rows = None, []
    if is_of_a_period(filters, ranking.column, limit):
        head = ranking.head(columns, position)
        rows = fetch(head, limit + 1) if head else []
        if len(rows) <= limit:
            spans, rows = find_spans(connection, filters), []
    for statement in ranking.phases(columns, position, spans):
        missing = limit + 1 - len(rows)
        if missing > 0:
            rows += fetch(statement, missing)
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, ranking.token(rows[-1]) if more and rows else None)


def stream(
    connection: Connection, columns: sql.Composable, filters: Filters, order: Order, limit: int | None
) -> Iterator[tuple[Any, ...]]:
    """The columns without pages, through a cursor of the server's: memory stays flat. Needs a transaction."""
    ranking = _Ranking(filters, *order.resolved)
    left = limit
    for number, statement in enumerate(ranking.phases(columns)):
        with connection.cursor(name=f"runs_{number}", row_factory=tuple_row) as cursor:
            cursor.itersize = 1_000
            cursor.execute(statement, ranking.parameters | {"limit": left}, binary=True)
            for row in cursor:
                left = None if left is None else left - 1
                yield row[:-2]  # without what it was ranked by, and its id


def count(connection: Connection, filters: Filters, *, cheap: float = 800.0) -> tuple[int, bool]:
    """How many runs fit, and whether that is exact.

    Where counting would cost more than `cheap` (in the planner's units, some 400 a millisecond) it is the planner's
    estimate; but of an array's length the planner knows nothing, and what a sweep is linked to is counted in any case.
    """
    parameters: dict[str, Any] = {}
    wanted = conditions(filters, Values(parameters))
    if not filters.archived:
        wanted.append(sql.SQL("NOT r.archived"))
    source = sql.SQL("FROM backtest_runs r WHERE {}").format(sql.SQL(" AND ").join(wanted or [sql.SQL("TRUE")]))
    (answer,) = connection.execute(sql.SQL("EXPLAIN (FORMAT JSON) SELECT {}").format(source), parameters).fetchall()
    plan = answer["QUERY PLAN"][0]["Plan"]
    if plan["Total Cost"] > cheap and not filters.linked:
        return plan["Plan Rows"], False
    (row,) = connection.execute(sql.SQL("SELECT count(*) AS number {}").format(source), parameters).fetchall()
    return row["number"], True


class _Ranking:
    """One list: its condition, its order, and where a page of it begins.

    Values that are there and values that are not are two statements. Each is one index scan in either direction,
    which a comparison that may meet NULL would not be.
    """

    def __init__(self, filters: Filters, column: str, descending: bool) -> None:
        self.parameters: dict[str, Any] = {}
        values = Values(self.parameters)
        # Metrics belong to successful runs alone. The planner, who does not know, would look through all of those for
        # a failed one that has any.
        if filters.statuses and "success" not in filters.statuses and column in METRICS:
            column = "created_at"
        self.column, self._descending = column, descending
        self._branches = [
            sql.SQL(" AND ").join([sql.SQL("r.archived = {}").format(archived), *conditions(branch, values)])
            for branch in _branches(filters, column)
            for archived in ((False, True) if filters.archived else (False,))
        ]
        self._within_span = sql.SQL(" AND ").join([WITHIN_SPAN, *conditions(filters, values)])
        self._mark = _fingerprint(filters)

    def head(self, columns: sql.Composable, position: tuple[Any, int] | None) -> sql.Composed | None:
        """What the conditions leave of the next HEAD runs: a page already, unless they leave out most. None where one
        scan would not do."""
        if len(self._branches) > 1 or (position is not None and position[0] is None):
            return None
        column = sql.Identifier("r", self.column)
        return FOUND_IN_HEAD.format(
            columns=columns,
            column=column,
            wanted=self._wanted(column, position, null=False),
            conditions=self._branches[0],
            order=self._order("r.", column),
            order_of_found=self._order("u.", sql.SQL("u.ranked_by")),
            head=HEAD,
        )

    def phases(
        self, columns: sql.Composable, position: tuple[Any, int] | None = None, spans: list[Span] | None = None
    ) -> Iterator[sql.Composed]:
        """Statements with `limit` open. `position` is the value and the id of the row before."""
        if position is None or position[0] is not None:
            yield self._statement(columns, position, spans, null=False)
        if self.column not in NEVER_NULL:
            yield self._statement(columns, position if position and position[0] is None else None, spans, null=True)

    def _statement(
        self, columns: sql.Composable, position: tuple[Any, int] | None, spans: list[Span] | None, *, null: bool
    ) -> sql.Composed:
        column = sql.Identifier("r", self.column)
        wanted = self._wanted(column, position, null=null)
        order, order_of_found = self._order("r.", column), self._order("u.", sql.SQL("u.ranked_by"))
        if spans is not None:
            self.parameters |= span_parameters(spans)
            return FIRST_OF_EACH.format(
                columns=columns, column=column, within=self._within_span, wanted=wanted, order=order,
                order_of_found=order_of_found,
            )  # fmt: skip
        template = "SELECT {}, {} AS ranked_by, r.id FROM backtest_runs r WHERE {} AND {} ORDER BY {} LIMIT %(limit)s"
        scans = [sql.SQL(template).format(columns, column, branch, wanted, order) for branch in self._branches]
        if len(scans) == 1:
            return scans[0]
        return sql.SQL("SELECT * FROM ({}) u ORDER BY {} LIMIT %(limit)s").format(
            sql.SQL(" UNION ALL ").join(sql.SQL("({})").format(scan) for scan in scans), order_of_found
        )

    def _wanted(self, column: sql.Composable, position: tuple[Any, int] | None, *, null: bool) -> sql.Composable:
        wanted = sql.SQL("{} IS NULL" if null else "{} IS NOT NULL").format(column)
        return sql.SQL("{} AND {}").format(wanted, self._behind(column, *position)) if position is not None else wanted

    def _order(self, table: str, column: sql.Composable) -> sql.Composable:
        """The indexes are DESC NULLS LAST; read backwards they are ASC NULLS FIRST. No statement meets both kinds."""
        words = f"{{}} DESC NULLS LAST, {table}id DESC" if self._descending else f"{{}} ASC NULLS FIRST, {table}id ASC"
        return sql.SQL(words).format(column)

    def _behind(self, column: sql.Composable, value: Any, row_id: int) -> sql.Composable:
        sign = sql.SQL("<" if self._descending else ">")
        self.parameters |= {"after_value": value, "after_id": row_id}
        if value is None:
            return sql.SQL("r.id {} %(after_id)s").format(sign)
        return sql.SQL("({}, r.id) {} (%(after_value)s, %(after_id)s)").format(column, sign)

    def token(self, row: dict[str, Any]) -> str:
        value = row["ranked_by"]
        if isinstance(value, datetime | Decimal):
            value = value.isoformat() if isinstance(value, datetime) else str(value)
        content = [self._mark, self.column, self._descending, value, row["id"]]
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    def position(self, token: str | None) -> tuple[Any, int] | None:
        """Raises ConfigError for a token that is damaged or of another list."""
        if token is None:
            return None
        try:
            content = base64.urlsafe_b64decode(token.strip() + "=" * (-len(token.strip()) % 4))
            mark, column, descending, value, row_id = json.loads(content)
            if [mark, column, descending] == [self._mark, self.column, self._descending]:
                return self._typed(value), int(row_id)
        except (ValueError, TypeError, ArithmeticError, RecursionError):
            hint = "Copy it whole from the end of the page before."
            raise ConfigError(f"{token!r} is no page token", hint=hint) from None
        raise ConfigError(
            "the page token belongs to a list with other filters or another order",
            hint="Repeat the options of the first page; only --limit and --columns may differ.",
        )

    def _typed(self, value: Any) -> Any:
        if value is None:
            return None
        if FIELDS[self.column] == "time":
            return datetime.fromisoformat(value)
        return Decimal(value) if self.column == "initial_capital" else float(value)


def _branches(filters: Filters, column: str) -> list[Filters]:
    """One index scan for each strategy and symbol, merged, instead of one that meets them all by chance."""
    pairs = list(product(filters.strategies or (None,), filters.symbols or (None,)))
    if column not in ("created_at", *RANKED_WITHIN) or not 1 < len(pairs) <= MOST_BRANCHES:
        return [filters]
    return [
        replace(
            filters,
            strategies=() if strategy is None else (strategy,),
            symbols=() if symbol is None else (symbol,),
        )
        for strategy, symbol in dict.fromkeys(pairs)
    ]


def _fingerprint(filters: Filters) -> str:
    """Without the execution dates: `7d` is another moment when the next page is asked for; and trials may be linked
    meanwhile."""
    filters = replace(filters, after=None, before=None, linked=False)
    return hashlib.sha256(repr(asdict(filters)).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _not_sortable(given: str, column: str) -> ConfigError:
    near = difflib.get_close_matches(column, [*SORTABLE, *ALIASES], n=1, cutoff=0.5)
    known = ", ".join(SORTABLE)
    return ConfigError(
        f"runs cannot be sorted by {given!r}", hint=f"Did you mean {near[0]}?" if near else f"Known: {known}."
    )

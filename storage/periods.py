"""Lists of all runs whose test period lies in some other.

No index can be in order and skip what lies outside a period: rolling periods go along with the date of the run, long
ones with the return, and a list of old ones would read past every newer run. So runs are grouped in the index by the
quarter in which their period begins and the month in which it ends: a group is a *span*. There are few spans, each is
in order, and the first runs of each, merged, are the first runs of all.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from storage.conditions import Filters
from storage.fields import RANKED_WITHIN

Connection = psycopg.Connection[dict[str, Any]]

# As the indexes have them (storage/models.py) and as PostgreSQL prints them: `alembic check` compares letters. Runs
# that never came to their data may lack either end; psycopg reads no infinity.
BEGAN = (
    "COALESCE(date_trunc('quarter'::text, timezone('UTC'::text, {table}start_date)),"
    " '0001-01-01 00:00:00'::timestamp without time zone)"
)
ENDED = (
    "COALESCE(date_trunc('month'::text, timezone('UTC'::text, {table}end_date)),"
    " '9999-12-01 00:00:00'::timestamp without time zone)"
)

ORDERS = ("created_at", *RANKED_WITHIN)
LONGEST_PAGE = 1_000
MOST_SPANS = 300

_BEGAN, _ENDED = (sql.SQL(expression.format(table="r.")) for expression in (BEGAN, ENDED))
# One step a span. Behind the last month that is wanted comes the next quarter.
_SPANS = sql.SQL("""
WITH RECURSIVE span AS (
    SELECT lowest.* FROM unnest(%(archived)s::bool[]) AS kind (archived) CROSS JOIN LATERAL (
        SELECT r.archived, {began} AS began, {ended} AS ended FROM backtest_runs r
        WHERE r.archived = kind.archived AND {began} >= {first} ORDER BY 1, 2, 3 LIMIT 1) AS lowest
    UNION ALL
    SELECT higher.* FROM span CROSS JOIN LATERAL (
        SELECT r.archived, {began} AS began, {ended} AS ended FROM backtest_runs r
        WHERE r.archived = span.archived AND ({began}, {ended}) >
            (span.began, CASE WHEN span.ended < {last} THEN span.ended ELSE 'infinity' END)
        ORDER BY 1, 2, 3 LIMIT 1) AS higher
)
SELECT archived, began, ended FROM span WHERE ended <= {last} LIMIT %(most)s
""")
WITHIN_SPAN = sql.SQL("r.archived = span.archived AND {} = span.began AND {} = span.ended").format(_BEGAN, _ENDED)
# The rows themselves are fetched for those alone that are listed.
FIRST_OF_EACH = sql.SQL("""
SELECT {columns}, u.ranked_by, r.id FROM (
    SELECT u.* FROM unnest(%(span_archived)s::bool[], %(span_began)s::timestamp[], %(span_ended)s::timestamp[])
        AS span (archived, began, ended)
    CROSS JOIN LATERAL (
        SELECT {column} AS ranked_by, r.id FROM backtest_runs r WHERE {within} AND {wanted}
        ORDER BY {order} LIMIT %(limit)s) AS u
    ORDER BY {order_of_found} LIMIT %(limit)s) AS u
JOIN backtest_runs r ON r.id = u.id ORDER BY {order_of_found}
""")
FOUND_IN_HEAD = sql.SQL("""
SELECT {columns}, u.ranked_by, r.id FROM (
    SELECT {column} AS ranked_by, r.id FROM (
        SELECT id, archived, {column}, start_date, end_date, execution_status FROM backtest_runs r
        WHERE NOT r.archived AND {wanted} ORDER BY {order} LIMIT {head}) AS r
    WHERE {conditions} ORDER BY {order} LIMIT %(limit)s) AS u
JOIN backtest_runs r ON r.id = u.id ORDER BY {order_of_found}
""")

Span = tuple[bool, datetime, datetime]


def is_of_a_period(filters: Filters, column: str, limit: int) -> bool:
    """Whether it is one of these lists: with other filters, other indexes are better."""
    if not (filters.period_start or filters.period_end) or column not in ORDERS or limit > LONGEST_PAGE:
        return False
    return filters == Filters(
        period_start=filters.period_start,
        period_end=filters.period_end,
        statuses=filters.statuses,
        archived=filters.archived,
    )


def find_spans(connection: Connection, filters: Filters) -> list[Span] | None:
    """Those that can have runs of the period asked for; None where there are so many that spans are no help."""
    first = sql.SQL("date_trunc('quarter', timezone('UTC', %(first)s::timestamptz))")
    last = sql.SQL("date_trunc('month', timezone('UTC', %(last)s::timestamptz))")
    rows = connection.execute(
        _SPANS.format(
            began=_BEGAN,
            ended=_ENDED,
            first=first if filters.period_start else sql.SQL("'-infinity'::timestamp"),
            last=last if filters.period_end else sql.SQL("'infinity'::timestamp"),
        ),
        {
            "archived": [False, True] if filters.archived else [False],
            "first": filters.period_start,
            "last": filters.period_end,
            "most": MOST_SPANS + 1,
        },
    ).fetchall()
    return [(row["archived"], row["began"], row["ended"]) for row in rows] if len(rows) <= MOST_SPANS else None


def span_parameters(spans: list[Span]) -> dict[str, Any]:
    """For FIRST_OF_EACH."""
    archived, began, ended = zip(*spans, strict=True) if spans else ((), (), ())
    return {"span_archived": list(archived), "span_began": list(began), "span_ended": list(ended)}

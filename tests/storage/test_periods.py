"""Lists of a test period come through its spans, and are what reading every run in order would give."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ntrader.settings import Settings
from storage import database, periods, search
from storage.columns import pick
from storage.conditions import Filters
from storage.periods import ORDERS, find_spans
from storage.search import Order, find_page
from tests.storage import rows
from tests.storage.rows import Row

Db = psycopg.Connection[dict[str, object]]
BEGAN = datetime(2019, 12, 28, tzinfo=UTC)
RUN_ID = pick(["run_id"])


def made_up(number: int, luck: Random) -> Row:
    """Over six years and to the microsecond, with either end missing now and then."""
    status = luck.choice(["success", "success", "failed"])
    start = BEGAN + timedelta(days=luck.randrange(2_000), microseconds=luck.choice([-1, 0, 1]))
    end = start + timedelta(days=luck.randrange(400))
    numbers = {name: luck.choice([None, -1.0, 0.0, 0.5, luck.random()]) for name in ORDERS if name != "created_at"}
    return rows.row(
        number,
        execution_status=status,
        archived=luck.random() < 0.2,
        start_date=start if luck.random() < 0.9 else None,
        end_date=end if luck.random() < 0.9 else None,
        **(numbers if status == "success" else {}),
    )


RUNS = [made_up(number, Random(number)) for number in range(1, 301)]
BORDERS = st.sampled_from([run[end] for run in RUNS for end in ("start_date", "end_date") if run[end]])
MOMENTS = (
    BORDERS
    | BORDERS.map(lambda moment: moment + timedelta(microseconds=1))
    | BORDERS.map(lambda moment: moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    | st.datetimes(datetime(2018, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))
)
PERIODS = st.builds(
    Filters,
    period_start=st.none() | MOMENTS,
    period_end=st.none() | MOMENTS,
    statuses=st.sampled_from([(), ("success",), ("failed",), ("success", "failed")]),
    archived=st.booleans(),
).filter(lambda filters: filters.period_start or filters.period_end)


@pytest.fixture(scope="module")
def db(shared: Settings) -> Iterator[Db]:
    rows.insert(shared, RUNS)
    with database.connect(shared) as connection:
        yield connection


def fits(filters: Filters, run: Row) -> bool:
    return (
        (filters.archived or not run["archived"])
        and (not filters.statuses or run["execution_status"] in filters.statuses)
        and (
            filters.period_start is None
            or (run["start_date"] or datetime.min.replace(tzinfo=UTC)) >= filters.period_start
        )
        and (filters.period_end is None or (run["end_date"] or datetime.max.replace(tzinfo=UTC)) <= filters.period_end)
    )


def expected(filters: Filters, column: str, *, descending: bool) -> list[UUID]:
    found = sorted((run for run in RUNS if fits(filters, run)), key=lambda run: run["run_id"], reverse=descending)
    if filters.statuses == ("failed",):
        column = "created_at"
    there = [run for run in found if run.get(column) is not None]
    there.sort(key=lambda run: run[column], reverse=descending)
    return [run["run_id"] for run in (*there, *(run for run in found if run.get(column) is None))]


def paged(db: Db, filters: Filters, order: Order, limit: int) -> list[UUID]:
    found, token, more = [], None, True
    while more:
        page = find_page(db, RUN_ID.statement, filters, order, limit, token)
        found += [row["c0"] for row in page.rows]
        token, more = page.token, page.token is not None
    return found


@pytest.mark.parametrize(("head", "most_spans"), [(1, 300), (7, 300), (300, 300), (1, 3)])
@given(filters=PERIODS, column=st.sampled_from(ORDERS), descending=st.booleans(), limit=st.sampled_from([3, 20, 400]))
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_pages_are_those_of_a_plain_model(
    db: Db, head: int, most_spans: int, filters: Filters, column: str, *, descending: bool, limit: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "HEAD", head)
        patch.setattr(periods, "MOST_SPANS", most_spans)
        found = paged(db, filters, Order(column, descending), limit)
    assert found == expected(filters, column, descending=descending)


def test_spans_are_those_that_runs_of_the_period_can_be_in(db: Db) -> None:
    filters = Filters(period_start=datetime(2021, 5, 9, tzinfo=UTC), period_end=datetime(2022, 7, 3, tzinfo=UTC))
    wanted = {
        (
            False,
            datetime(run["start_date"].year, (run["start_date"].month - 1) // 3 * 3 + 1, 1),
            datetime(run["end_date"].year, run["end_date"].month, 1),
        )
        for run in RUNS
        if not run["archived"] and run["start_date"] and run["end_date"]
        if (run["start_date"].year, run["start_date"].month) >= (2021, 4)
        and (run["end_date"].year, run["end_date"].month) <= (2022, 7)
    }
    assert len(wanted) > 5
    assert find_spans(db, filters) == sorted(wanted)


@pytest.mark.parametrize("column", ORDERS)
@pytest.mark.parametrize("way", ["Index Only Scan", "Index Only Scan Backward"])
def test_each_span_is_read_in_the_index_alone(db: Db, column: str, way: str) -> None:
    """An index fits only where its expressions are those of the query to the letter; without, a list takes minutes."""
    filters = Filters(period_start=datetime(2021, 5, 9, tzinfo=UTC), statuses=("success",))
    spans = find_spans(db, filters)
    assert spans
    ranking = search._Ranking(filters, column, descending=not way.endswith("Backward"))
    (statement, *_) = ranking.phases(RUN_ID.statement, None, spans)
    db.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
    plan = "\n".join(
        row["QUERY PLAN"]
        for row in db.execute(b"EXPLAIN " + statement.as_bytes(db), ranking.parameters | {"limit": 20}).fetchall()
    )
    name = "newest" if column == "created_at" else f"by_{column}"
    assert f"{way} using ix_backtest_runs_period_{name} " in plan

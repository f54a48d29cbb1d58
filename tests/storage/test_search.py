"""Lists of runs: what fits, in which order, page by page, as a plain model over the same rows says."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ntrader.errors import ConfigError, NotFoundError
from ntrader.settings import Settings
from storage import database, runs
from storage.columns import pick
from storage.conditions import Filters
from storage.fields import ALIASES, LESS_IS_BETTER, METRICS, NEVER_NULL, SORTABLE
from storage.search import MOST_BRANCHES, Order, Page, count, find_page, settle, stream
from tests.storage import rows
from tests.storage.rows import BEGAN, Row

Db = psycopg.Connection[dict[str, Any]]
RUN_ID = pick(["run_id"])
ALL = Filters(archived=True)
NEWEST = Order()
RUNS = rows.random_rows(200, seed=2)
NUMBER = {run["run_id"]: number for number, run in enumerate(RUNS)}
# Runs from before that trials of these sweeps are linked to, one of them of the sweep itself.
LINKED = {2: {run["run_id"] for run in RUNS[::7]}, 3: {run["run_id"] for run in RUNS[100:120]}}
SWEEPS = {"2": 2, "the third": 3, "@last": 3}
DATED = HealthCheck.function_scoped_fixture


@pytest.fixture(scope="module")
def filled(shared: Settings) -> Settings:
    rows.insert(shared, RUNS)
    with database.connect(shared) as connection:
        for number, linked in LINKED.items():
            connection.execute(
                "INSERT INTO sweeps (id, name, fingerprint, strategy_name, config_snapshot, objective, direction,"
                " sampler, trials) VALUES (%s, %s, repeat('a', 64), 'SMA', '{}', 'cagr', 'maximize', 'grid', 100)",
                [number, "the third" if number == 3 else None],
            )
            connection.execute(
                "INSERT INTO trials (sweep_id, trial_number, point, run_key, state, run_id, linked)"
                " SELECT %(sweep)s, row_number() OVER (), '{}'::jsonb, 'k', 'success', id, true FROM backtest_runs"
                " WHERE run_id = ANY(%(runs)s) UNION ALL"
                # Its own, one whose run is gone, and one that waits, which add nothing.
                " SELECT %(sweep)s, 1000 + id, '{}', 'k', 'success', id, false FROM backtest_runs"
                " WHERE sweep_id = %(sweep)s UNION ALL"
                " SELECT %(sweep)s, 5000, '{}', 'k', 'success', NULL, true UNION ALL"
                " SELECT %(sweep)s, 5001, '{}', 'k', 'waiting', NULL, false",
                {"sweep": number, "runs": list(linked)},
            )
    return shared


@pytest.fixture(scope="module")
def db(filled: Settings) -> Iterator[Db]:
    with database.connect(filled) as connection:
        yield connection


def page_of(db: Db, filters: Filters, order: Order, limit: int = 1000, token: str | None = None) -> Page:
    return find_page(db, RUN_ID.statement, settle(db, filters), order, limit, token)


def ids(page: Page) -> list[UUID]:
    return [row["c0"] for row in page.rows]


def listed(db: Db, filters: Filters, order: Order = NEWEST) -> list[UUID]:
    return ids(page_of(db, filters, order))


def paged(
    db: Db, filters: Filters, order: Order, limit: int, between: Callable[[], object] = lambda: None
) -> list[UUID]:
    """All pages, one after another; a list that never ends is none."""
    found: list[UUID] = []
    token = None
    for _ in range(1000):
        page = page_of(db, filters, order, limit, token)
        found += ids(page)
        if page.token is None:
            return found
        assert len(page.rows) == limit
        token = page.token
        between()
    raise AssertionError(found)


# -- the model -----------------------------------------------------------------------------------------------


WHERE: dict[str | None, Callable[[Row], bool]] = {
    None: lambda run: True,
    "trial_number >= 1": lambda run: (run["trial_number"] or 0) >= 1,
    "not archived = true": lambda run: not run["archived"],
    "sharpe_ratio is null": lambda run: run.get("sharpe_ratio") is None,
    "notes like '%\\%' or tag.n is not null": lambda run: (run["notes"] or "").endswith("%") or "n" in run["tags"],
}
FITS: dict[str, Callable[[Any, Row], bool]] = {
    "strategies": lambda wanted, run: not wanted or run["strategy_name"] in wanted,
    "strategy_type": lambda wanted, run: run["strategy_type"] == wanted,
    "symbols": lambda wanted, run: not wanted or run["instrument_symbol"] in wanted,
    "statuses": lambda wanted, run: not wanted or run["execution_status"] in wanted,
    "data_source": lambda wanted, run: run["data_source"] == wanted,
    "sweep": lambda wanted, run: of_sweep(SWEEPS.get(wanted, wanted), run),
    "tags": lambda wanted, run: dict(wanted).items() <= run["tags"].items(),
    "after": lambda wanted, run: run["created_at"] >= wanted,
    "before": lambda wanted, run: run["created_at"] < wanted,
    "period_start": lambda wanted, run: run["start_date"] is not None and run["start_date"] >= wanted,
    "period_end": lambda wanted, run: run["end_date"] is not None and run["end_date"] <= wanted,
    "where": lambda wanted, run: WHERE[wanted](run),
    "archived": lambda wanted, run: wanted or not run["archived"],
}


def of_sweep(number: int, run: Row) -> bool:
    return run["sweep_id"] == number or run["run_id"] in LINKED.get(number, ())


def fits(filters: Filters, run: Row) -> bool:
    given = {name: getattr(filters, name) for name in FITS}
    return all(test(given[name], run) for name, test in FITS.items() if given[name] is not None)


def in_order(found: list[Row], column: str, *, descending: bool) -> list[UUID]:
    """By value and then by the order in which they were stored; those without a value last."""
    found = sorted(found, key=lambda run: NUMBER[run["run_id"]], reverse=descending)
    there = [run for run in found if run.get(column) is not None]
    there.sort(key=lambda run: run[column], reverse=descending)
    return [run["run_id"] for run in (*there, *(run for run in found if run.get(column) is None))]


def expected(filters: Filters, column: str = "created_at", *, descending: bool = True) -> list[UUID]:
    return in_order([run for run in RUNS if fits(filters, run)], column, descending=descending)


# -- filters -------------------------------------------------------------------------------------------------


def hours(number: float) -> datetime:
    return BEGAN + timedelta(hours=number)


MOMENTS = st.sampled_from([hours(0), hours(5), hours(5.5), hours(24), hours(29), hours(-1), hours(72), hours(1000)])
CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "strategies": st.lists(st.sampled_from(["SMA", "RSI", "o'clock", "nobody", ""]), max_size=3).map(tuple),
    "strategy_type": st.sampled_from(["trend", "mean", "nothing", ""]),
    "symbols": st.lists(st.sampled_from(["AAPL", "MSFT", "ß", "%"]), max_size=3).map(tuple),
    "statuses": st.lists(st.sampled_from(["success", "failed", "interrupted", "running"]), max_size=3).map(tuple),
    "data_source": st.sampled_from(["sample", "csv"]),
    "sweep": st.sampled_from([1, 2, 3, 2**62, 0, -1, *SWEEPS]),
    "tags": st.lists(st.sampled_from([(name, text) for run in RUNS[:20] for name, text in run["tags"].items()]),
                     max_size=2, unique_by=lambda pair: pair[0]).map(tuple),
    "after": MOMENTS,
    "before": MOMENTS,
    "period_start": MOMENTS,
    "period_end": MOMENTS,
    "where": st.sampled_from(list(WHERE)),
    "archived": st.booleans(),
}  # fmt: skip
ANY_FILTERS = st.fixed_dictionaries({}, optional=CHOICES).map(lambda given: Filters(**given))
ANY_ORDER = st.builds(Order, st.sampled_from(SORTABLE), st.booleans())


@pytest.mark.parametrize("name", CHOICES)
@given(data=st.data())
@hypothesis_settings(max_examples=12, suppress_health_check=[DATED])
def test_each_filter_finds_what_fits(db: Db, name: str, data: st.DataObject) -> None:
    filters = Filters(**{name: data.draw(CHOICES[name])})
    assert listed(db, filters) == expected(filters)


@given(ANY_FILTERS, ANY_ORDER)
@example(Filters(strategies=("SMA", "")), Order("created_at", True))
@hypothesis_settings(max_examples=300, suppress_health_check=[DATED])
def test_filters_together_find_what_fits_in_order(db: Db, filters: Filters, order: Order) -> None:
    column, descending = order.resolved
    found = listed(db, filters, order)
    if column in METRICS and filters.statuses and "success" not in filters.statuses:
        found, column = sorted(found), "run_id"  # none has the value: in any order
        assert found == sorted(expected(filters))
    else:
        assert found == expected(filters, column, descending=descending)


def test_archived_runs_are_listed_only_when_asked_for(db: Db) -> None:
    put_away = {run["run_id"] for run in RUNS if run["archived"]}
    assert set(listed(db, ALL)) - set(listed(db, Filters())) == put_away
    assert 20 < len(put_away) < 180


def test_dates_begin_with_the_moment_and_end_before_it(db: Db) -> None:
    (created,) = {run["created_at"] for run in RUNS[:1]}
    at = set(listed(db, replace(ALL, after=created, before=created + timedelta(microseconds=1))))
    assert at == {run["run_id"] for run in RUNS if run["created_at"] == created}


@pytest.mark.parametrize("count_of_names", [MOST_BRANCHES, MOST_BRANCHES + 1, 1000])
def test_very_many_names_are_looked_for(db: Db, count_of_names: int) -> None:
    names = (*(f"nobody {number}" for number in range(count_of_names - 1)), "SMA")
    filters = Filters(strategies=names)
    assert listed(db, filters) == expected(filters)


def test_a_name_given_twice_is_found_once(db: Db) -> None:
    for twice in (Filters(strategies=("SMA", "SMA")), Filters(symbols=("ß", "AAPL", "ß"), strategies=("SMA",) * 2)):
        assert listed(db, twice) == expected(twice)


ODD = ["a\x00b", "\udcff", "'; DROP TABLE backtest_runs; --", "%(v0)s", "x" * 100_000, "{}"]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "with_text",
    [
        lambda odd: Filters(strategies=(odd,)),
        lambda odd: Filters(strategies=(odd, odd * 2)),
        lambda odd: Filters(strategy_type=odd),
        lambda odd: Filters(symbols=(odd,)),
        lambda odd: Filters(data_source=odd),
        lambda odd: Filters(tags=(("team", odd),)),
        lambda odd: Filters(tags=((odd, "x"),)),
    ],
)
def test_text_that_no_run_has_finds_nothing_or_is_refused(
    filled: Settings, with_text: Callable[[str], Filters], odd: str
) -> None:
    storable = odd.isprintable()
    try:
        assert (runs.list_runs(filled, 10, with_text(odd)).runs, storable) == ([], True)
    except ConfigError:
        assert not storable


# -- order ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("column", SORTABLE)
def test_by_every_column_both_ways_with_what_is_missing_last(db: Db, column: str, *, descending: bool) -> None:
    missing = [run for run in RUNS if run.get(column) is None]
    assert bool(missing) is (column not in {*NEVER_NULL, "finished_at"})
    assert listed(db, ALL, Order(column, descending)) == expected(ALL, column, descending=descending)


@pytest.mark.parametrize("column", SORTABLE)
def test_the_best_come_first_unless_one_says_otherwise(db: Db, column: str) -> None:
    best = column not in {"volatility", "kurtosis", "losing_trades", "execution_duration_seconds"}
    assert listed(db, ALL, Order(column)) == expected(ALL, column, descending=best)


def test_drawdowns_are_negative_so_more_is_better() -> None:
    assert "max_drawdown" not in LESS_IS_BETTER
    assert Order("drawdown").resolved == ("max_drawdown", True)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("sharpe", "sharpe_ratio"),
        ("Sharpe-Ratio", "sharpe_ratio"),
        (" metrics.total_return ", "total_return"),
        ("metrics.sharpe", "sharpe_ratio"),
        *((alias, column) for alias, column in ALIASES.items() if column in SORTABLE),
    ],
)
def test_a_column_by_its_other_names(name: str, column: str) -> None:
    assert Order(name).resolved[0] == column


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sharp", "Did you mean sharpe?"),
        ("totalreturn", "Did you mean total_return?"),
        ("qqq", "Known: created_at"),
        ("", "Known: "),
        ("; DROP TABLE", "Known: "),
        ("\udcff", "Known: "),
        ("id", "Known: "),
    ],
)
def test_what_no_list_can_be_sorted_by_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="runs cannot be sorted by") as caught:
        _ = Order(name).resolved
    assert (caught.value.hint or "").startswith(hint)


# -- pages ---------------------------------------------------------------------------------------------------


@given(ANY_FILTERS, ANY_ORDER, st.integers(3, 80))
@example(Filters(strategies=("SMA", "RSI"), symbols=("AAPL", "ß"), archived=True), Order("created_at", False), 3)
@example(Filters(strategies=("SMA", "RSI"), symbols=("AAPL", "ß"), archived=True), Order("sharpe_ratio", True), 3)
@example(Filters(statuses=("failed",), archived=True), Order("sharpe_ratio", False), 7)
@hypothesis_settings(max_examples=60, suppress_health_check=[DATED])
def test_pages_are_one_big_page_cut_up(db: Db, filters: Filters, order: Order, limit: int) -> None:
    assert paged(db, filters, order, limit) == listed(db, filters, order)


@pytest.mark.parametrize("column", SORTABLE)
@pytest.mark.parametrize("descending", [True, False])
def test_pages_across_every_border(db: Db, column: str, *, descending: bool) -> None:
    """Between values, between equal values, to what is missing, and within it."""
    assert paged(db, ALL, Order(column, descending), 11) == expected(ALL, column, descending=descending)


def test_pages_of_one_run_each(db: Db) -> None:
    filters = Filters(strategies=("SMA",), data_source="csv")
    assert paged(db, filters, Order("sharpe"), 1) == expected(filters, "sharpe_ratio")


def test_the_last_page_has_no_token_even_if_it_is_full(db: Db) -> None:
    number = len(expected(ALL))
    assert page_of(db, ALL, Order(), number).token is None
    assert page_of(db, ALL, Order(), number - 1).token is not None


def test_a_token_outlives_a_change_of_the_limit_the_columns_and_relative_dates(db: Db) -> None:
    filters = Filters(after=hours(1.5), archived=True)
    first = page_of(db, filters, Order(), 10)
    again = find_page(
        db, pick(["name", "run_id"]).statement, replace(filters, after=hours(1.6)), Order(), 1000, first.token
    )
    assert [*ids(first), *(row["c1"] for row in again.rows)] == expected(filters)


def test_values_survive_the_way_through_a_token_to_the_bit(settings: Settings) -> None:
    """Each is between the two beside it by the last bit only."""
    tiny = 2.0**-52
    returns = [0.1, 0.1 + 2 * 0.1 * tiny, 1 / 3, 1.0, 1.0 + tiny, 5e-324, 1e300]
    runs_of = [rows.row(n, execution_status="success", total_return=value) for n, value in enumerate(returns, 1)]
    rows.insert(settings, runs_of)
    with database.connect(settings) as connection:
        found = paged(connection, ALL, Order("total_return"), 1)
    assert [run.int for run in found] == [n for _, n in sorted(zip(returns, range(1, 8), strict=True), reverse=True)]


def newcomer(number: int, random: Random) -> Row:
    return rows.random_row(number, random) | {"archived": False}


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(archived=True), Filters(strategies=("SMA", "RSI"), symbols=("AAPL", "MSFT"))]
)
@pytest.mark.parametrize(
    "order",
    [Order("created_at", True), Order("created_at", False), Order("sharpe", True), Order("max_drawdown_date", False)],
)
def test_runs_that_are_added_between_pages_neither_push_nor_hide_others(
    settings: Settings, filters: Filters, order: Order
) -> None:
    rows.insert(settings, RUNS[:80])
    random = Random(3)
    numbers = iter(range(1000, 9999))
    with database.connect(settings) as connection:
        before = listed(connection, filters, order)
        found = paged(
            connection,
            filters,
            order,
            7,
            lambda: rows.insert(settings, [newcomer(next(numbers), random) for _ in range(3)]),
        )
    assert len(before) > 20
    assert [run_id for run_id in found if run_id in set(before)] == before
    assert len(set(found)) == len(found)


def test_runs_that_are_added_all_the_time_neither_push_nor_hide_others(settings: Settings) -> None:
    rows.insert(settings, RUNS[:80])
    order = Order("sharpe_ratio", False)
    enough = threading.Event()

    def add() -> None:
        random = Random(4)
        for number in range(1000, 3000):
            if enough.is_set():
                return
            rows.insert(settings, [newcomer(number, random)])

    with database.connect(settings) as connection:
        before = listed(connection, Filters(), order)
        thread = threading.Thread(target=add)
        thread.start()
        try:
            found = paged(connection, Filters(), order, 3)
        finally:
            enough.set()
            thread.join()
        after = listed(connection, Filters(), order)
    assert len(after) > len(before)
    assert [run_id for run_id in found if run_id in set(before)] == before
    assert len(set(found)) == len(found)


# -- tokens --------------------------------------------------------------------------------------------------


ORDERS = [Order("created_at"), Order("created_at", False), Order("sharpe"), Order("sharpe", False),
          Order("initial_capital"), Order("max_drawdown_date")]  # fmt: skip


def token_of(db: Db, filters: Filters, order: Order) -> str:
    token = page_of(db, filters, order, 2).token
    assert token is not None
    return token


@pytest.mark.parametrize("first", ORDERS)
@pytest.mark.parametrize("second", ORDERS)
def test_a_token_of_another_order_is_refused(db: Db, first: Order, second: Order) -> None:
    token = token_of(db, ALL, first)
    if first == second:
        assert len(page_of(db, ALL, second, 2, token).rows) == 2
        return
    with pytest.raises(ConfigError, match="belongs to a list with other filters or another order"):
        page_of(db, ALL, second, 2, token)


@pytest.mark.parametrize(
    "other",
    [
        Filters(),
        Filters(archived=True, strategies=("SMA",)),
        Filters(archived=True, strategies=("SMA", "RSI")),
        Filters(archived=True, where="cagr > 1"),
        Filters(archived=True, tags=(("a", "b"),)),
        Filters(archived=True, period_start=BEGAN),
        Filters(archived=True, sweep=1),
    ],
)
def test_a_token_of_other_filters_is_refused(db: Db, other: Filters) -> None:
    with pytest.raises(ConfigError, match="belongs to a list with other filters"):
        page_of(db, other, Order(), 2, token_of(db, ALL, Order()))


def packed(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    ["", " ", "x", "null", "é", "\x00", "\udcff", "@last", "=" * 50, "A" * 100_000, packed(None), packed([]),
     packed({}), packed("abcde"), packed([1, 2, 3, 4]), packed([1, 2, 3, 4, 5, 6]), packed(dict.fromkeys("abcde", 1)),
     packed([1, 2, 3, [], 5]), packed([1, 2, 3, "2024-13-01", 5]), packed([1, 2, 3, None, "x"]),
     base64.urlsafe_b64encode(b"[" * 100_000).decode()],
)  # fmt: skip
@pytest.mark.parametrize("order", [Order("created_at"), Order("sharpe"), Order("initial_capital")])
def test_what_is_no_token_is_refused(db: Db, token: str, order: Order) -> None:
    with pytest.raises(ConfigError):
        page_of(db, ALL, order, 2, token)


def test_a_token_without_its_end_is_refused(db: Db) -> None:
    token = token_of(db, ALL, Order())
    for length in range(len(token) - 1):
        with pytest.raises(ConfigError, match="is no page token"):
            page_of(db, ALL, Order(), 2, token[:length])


@given(st.data())
@hypothesis_settings(max_examples=100, suppress_health_check=[DATED])
def test_a_damaged_token_is_refused_or_read(db: Db, data: st.DataObject) -> None:
    order = data.draw(st.sampled_from(ORDERS))
    token = token_of(db, ALL, order)
    at, letter = data.draw(st.integers(0, len(token) - 1)), data.draw(st.characters(codec=None))
    try:
        assert len(page_of(db, ALL, order, 2, token[:at] + letter + token[at + 1 :]).rows) <= 2
    except ConfigError as error:
        assert error.hint


# -- how many ------------------------------------------------------------------------------------------------


@given(ANY_FILTERS)
@hypothesis_settings(max_examples=60, suppress_health_check=[DATED])
def test_the_count_is_exact_where_it_costs_little(db: Db, filters: Filters) -> None:
    assert count(db, settle(db, filters)) == (len(expected(filters)), True)


def test_the_count_is_the_planners_estimate_where_it_would_cost_much(db: Db) -> None:
    db.execute("ANALYZE backtest_runs")
    number, exact = count(db, ALL, cheap=0.0)
    assert (number, exact) == (len(RUNS), False)


@pytest.mark.parametrize("limit", [1, 50, 199, 200, 201, 1000])
def test_a_page_says_how_many_there_are_on_all_pages(filled: Settings, limit: int) -> None:
    page = runs.list_runs(filled, limit, ALL)
    assert (len(page.runs), page.total, page.total_is_exact) == (min(limit, 200), 200, True)


def test_a_later_page_says_the_same(filled: Settings) -> None:
    first = runs.list_runs(filled, 150, ALL)
    last = runs.list_runs(filled, 150, ALL, token=first.next_page_token)
    assert (len(last.runs), last.next_page_token, last.total) == (50, None, 200)


def test_what_a_sweep_is_linked_to_is_counted_whatever_it_costs(db: Db) -> None:
    filters = Filters(sweep="the third")
    assert count(db, settle(db, filters), cheap=0.0) == (len(expected(filters)), True)


def test_a_list_of_a_sweep_goes_on_when_trials_are_linked_meanwhile(settings: Settings) -> None:
    rows.insert(settings, [rows.row(number, sweep_id=1 if number % 2 else None) for number in range(1, 9)])
    first = runs.list_runs(settings, 2, Filters(sweep=1))
    with database.connect(settings) as connection:
        connection.execute(
            "INSERT INTO sweeps (id, fingerprint, strategy_name, config_snapshot, objective, direction, sampler,"
            " trials) VALUES (1, repeat('a', 64), 'SMA', '{}', 'cagr', 'maximize', 'grid', 1)"
        )
        connection.execute(
            "INSERT INTO trials (sweep_id, trial_number, point, run_key, state, run_id, linked)"
            " SELECT 1, 0, '{}', 'k', 'success', id, true FROM backtest_runs WHERE run_id = %s",
            [UUID(int=2)],
        )
    rest = runs.list_runs(settings, 9, Filters(sweep="1"), token=first.next_page_token)
    found = [run.run_id.int for page in (first, rest) for run in page.runs]
    assert found == [7, 5, 3, 2, 1]


def test_a_sweep_that_is_not_there_is_said(filled: Settings) -> None:
    for sweep in ("4", "nobody", "@last~9"):
        with pytest.raises(NotFoundError, match=f"there is no sweep '{sweep}'"):
            runs.list_runs(filled, 5, Filters(sweep=sweep))


# -- without pages -------------------------------------------------------------------------------------------


@given(ANY_FILTERS, ANY_ORDER, st.none() | st.integers(0, 250))
@hypothesis_settings(max_examples=60, suppress_health_check=[DATED])
def test_a_stream_is_the_list_up_to_a_limit(db: Db, filters: Filters, order: Order, limit: int | None) -> None:
    with db.transaction():
        found = [run_id for (run_id,) in stream(db, RUN_ID.statement, settle(db, filters), order, limit)]
    assert found == listed(db, filters, order)[:limit]


def test_a_stream_shows_one_moment(filled: Settings, settings: Settings) -> None:
    """What is added while it is read belongs to another moment, also in its second part, the runs without a value."""
    rows.insert(settings, RUNS[:50])
    random = Random(5)
    with runs.streamed_runs(settings, ["run_id"], ALL, Order("sharpe"), None) as (_, values):
        found = [next(values)[0]]
        rows.insert(settings, [newcomer(number, random) for number in range(1000, 1020)])
        found += [row[0] for row in values]
    assert found == in_order(RUNS[:50], "sharpe_ratio", descending=True)

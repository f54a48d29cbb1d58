"""Columns of one's choice: by every name they have, and from every place."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ntrader.errors import ConfigError
from ntrader.settings import Settings
from storage import database, runs
from storage.columns import exported, pick
from storage.conditions import Filters
from storage.fields import ALIASES, FIELDS
from storage.search import Order
from tests.storage import rows
from tests.storage.rows import BEGAN

ODD = ["", "a b", "100%", "%s", "%(v0)s", "{}", "o'clock", 'say "x"', "back\\slash", "; DROP TABLE backtest_runs", "ñ",
       "😀", "a.b", "$1", "n" * 1000]  # fmt: skip


@pytest.fixture(scope="module")
def filled(shared: Settings) -> Settings:
    """A run with a value of everything, and a later one that says it reproduces it."""
    parameters = {name: f"params {name}" for name in ODD} | {"n": 5, "list": [1, "x"], "on": True, "none": None}
    tags = {name: f"tag {name}" for name in ODD}
    first = rows.row(
        1, execution_status="success", sharpe_ratio=1.25, total_trades=7, max_drawdown_date=BEGAN, notes="note",
        warnings=["one", "two"], parameters=parameters, tags=tags, initial_capital=Decimal("0.10"),
        error_traceback="at",
    )  # fmt: skip
    rows.insert(shared, [first, rows.row(2)])
    with database.connect(shared) as connection:
        connection.execute("UPDATE backtest_runs SET reproduced_from_run_id = 1 WHERE id = 2")
    return shared


def values(settings: Settings, *names: str) -> tuple[Any, ...]:
    """Of the older run."""
    return runs.tabulate_runs(settings, names, Filters(), Order("created_at", False), 1).rows[0]


def test_columns_come_in_the_order_they_are_asked_for(filled: Settings) -> None:
    names = ("total_trades", "run_id", "sharpe_ratio", "total_trades")
    table = runs.tabulate_runs(filled, names, Filters(), Order("created_at", False), 10)
    assert table.columns == list(names)
    assert table.rows == [(7, UUID(int=1), 1.25, 7), (None, UUID(int=2), None, None)]


def test_values_come_as_what_they_are(filled: Settings) -> None:
    found = values(
        filled, "initial_capital", "created_at", "archived", "max_drawdown_date", "notes", "warnings", "name"
    )
    assert found == (
        Decimal("0.10"),
        datetime.fromisoformat("2024-01-01T00:01Z"),
        False,
        BEGAN,
        "note",
        ["one", "two"],
        None,
    )


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("sharpe", "sharpe_ratio"),
        ("Sharpe-Ratio", "sharpe_ratio"),
        ("metrics.sharpe", "sharpe_ratio"),
        (" run_id ", "run_id"),
        ("param.Fast", "params.Fast"),
        ("Parameters.n", "params.n"),
        ("TAGS.team", "tag.team"),
        ("tags", "tags"),
        ("parameters", "parameters"),
        ("reproduced_from_run_id", "reproduced_from_run_id"),
        *ALIASES.items(),
    ],
)
def test_a_column_has_one_name_whichever_way_it_is_said(said: str, name: str) -> None:
    assert pick([said]).names == [name]


@pytest.mark.parametrize("name", ODD)
def test_parameters_and_tags_of_any_name(filled: Settings, name: str) -> None:
    assert values(filled, f"params.{name}", f"tag.{name}") == (f"params {name}", f"tag {name}")


def test_parameters_keep_their_type(filled: Settings) -> None:
    assert values(filled, "params.n", "params.list", "params.on", "params.none", "params.missing", "tag.missing") == (
        5, [1, "x"], True, None, None, None,
    )  # fmt: skip


def test_the_original_of_a_reproduction(filled: Settings) -> None:
    table = runs.tabulate_runs(filled, ["reproduced_from_run_id"], Filters(), Order("created_at"), 10)
    assert table.rows == [(UUID(int=1),), (None,)]


def test_wide_columns_can_be_asked_for(filled: Settings) -> None:
    snapshot, traceback = values(filled, "config_snapshot", "error_traceback")
    assert (snapshot["strategy"]["parameters"]["n"], traceback) == (5, "at")


def test_an_export_has_every_field_once(filled: Settings) -> None:
    names = exported()
    assert len(set(names)) == len(names)
    assert set(names) == {*FIELDS, "parameters", "tags", "warnings", "reproduced_from_run_id"}
    assert len(values(filled, *names)) == len(names)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sharp", "Did you mean sharpe?"),
        ("traceback", "Did you mean error_traceback?"),
        ("qqqq", "A parameter is params.NAME, a tag is tag.NAME."),
        ("*", "A parameter"),
        ("1; DROP TABLE backtest_runs", ""),
        ("config.n", ""),
        ("\udcff", "A parameter"),
        ("\x00", "A parameter"),
        ("x" * 100_000, "A parameter"),
    ],
)
def test_what_is_no_column_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="there is no column") as caught:
        pick(["run_id", name])
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize("name", ["lease_owner", "lease_expires_at", "id"])
def test_what_is_nobodys_business_is_no_column(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no column"):
        pick([name])


@pytest.mark.parametrize("names", [[], [""], [" ", "\t"]])
def test_no_columns_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="no columns are named"):
        pick(names)


def test_empty_names_among_others_are_passed_over() -> None:
    assert pick(["run_id", "", " ", "name"]).names == ["run_id", "name"]


@pytest.mark.parametrize("name", ["params.a\x00b", "tag.\udcff"])
def test_names_that_no_parameter_can_have_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        pick([name])


@given(st.lists(st.text() | st.builds("{}.{}".format, st.sampled_from(["params", "tag"]), st.text()), max_size=4))
@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_are_columns_or_are_refused(filled: Settings, names: list[str]) -> None:
    try:
        table = runs.tabulate_runs(filled, names, Filters(), Order(), 10)
    except ConfigError:
        return
    assert {len(row) for row in table.rows} == {len(table.columns)}

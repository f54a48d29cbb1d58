"""RunConfig: what may be asked for, what is said about the rest, and one text for one meaning."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ntrader.config import (
    RunConfig,
    RunRequest,
    build_config,
    canonical_json,
    describe,
    first_moment,
    last_moment,
    plain_number,
    read_request,
)
from ntrader.errors import ConfigError

SMALLEST: dict[str, Any] = {"strategy": {"path": "sma_crossover"}, "data": {"symbol": "AAPL"}}


def build(path: str = "", value: object = None) -> RunConfig:
    """The smallest config with one setting changed, named like `data.symbol`."""
    raw = json.loads(json.dumps(SMALLEST))
    place = raw
    *parents, name = path.split(".")
    for parent in parents:
        place = place.setdefault(parent, {})
    if name:
        place[name] = value
    return build_config(raw, origin="x.yaml")


def refusal(path: str, value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        build(path, value)
    message = str(caught.value)
    assert message.startswith("x.yaml: ")
    assert not any(jargon in message.lower() for jargon in ("pydantic", "input should", "value error", "http"))
    return message.removeprefix("x.yaml: ")


def from_file(folder: Path, text: str, **overrides: Any) -> RunConfig:
    file = folder / "x.yaml"
    file.write_text(text)
    return build_config(read_request(RunRequest(config_path=str(file), **overrides)), origin="x.yaml")


# What does not fit


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sede", 1, "sede: unknown setting; did you mean seed?"),
        ("symbol", "AAPL", "symbol: unknown setting; did you mean data.symbol?"),
        ("parameters", {}, "parameters: unknown setting; did you mean strategy.parameters?"),
        ("strategy.pth", "x", "strategy.pth: unknown setting; did you mean path?"),
        ("data.symbl", "A", "data.symbl: unknown setting; did you mean symbol?"),
        ("data.synthetic.sed", 1, "data.synthetic.sed: unknown setting; did you mean seed?"),
        ("venue.levarage", 2, "venue.levarage: unknown setting; did you mean leverage?"),
        ("venue.fees.modle", "none", "venue.fees.modle: unknown setting; did you mean model?"),
        ("venue.model", "none", "venue.model: unknown setting; did you mean venue.fees.model?"),
        ("instrument.precision", 2, "instrument.precision: unknown setting; did you mean price_precision?"),
        ("data.zzz", 1, "data.zzz: unknown setting; "
         "known: symbol, source, venue, timeframe, path, stamp, start, end, synthetic"),
        ("data", "AAPL", "data: must be a mapping of settings, got 'AAPL'"),
        ("venue", ["CASH"], "venue: must be a mapping of settings, got ['CASH']"),
        ("strategy.path", 5, "strategy.path: must be text; put it in quotes, got 5"),
        ("strategy.parameters", [1], "strategy.parameters: must be a mapping of settings, got [1]"),
        ("strategy.parameters", {"x": float("nan")}, "strategy.parameters: x is nan; a parameter must be finite"),
        ("strategy.parameters", {"x": [float("inf")]}, "strategy.parameters: x[0] is inf; a parameter must be finite"),
        ("strategy.parameters", {"x": {"y": "\0"}}, "strategy.parameters: x.y is '\\x00', text that cannot be stored"),
        ("strategy.parameters", {"x": {1: 2}}, "strategy.parameters: x has the key 1, which is not text"),
        ("strategy.parameters", {1: 2}, "strategy.parameters.1.[key]: must be text; put it in quotes, got 1"),
        ("data.symbol", "", "data.symbol: must have at least 1 character, got ''"),
        ("data.symbol", True, "data.symbol: must not be true; if it is meant as text, put it in quotes"),
        ("data.symbol", "A\nB", "data.symbol: 'A\\nB' has a control character in it"),
        ("data.venue", "NEW-YORK", "data.venue: 'NEW-YORK' is not a venue; "
         "write it with letters, digits and _, like XNAS"),
        ("data.source", "csvs", "data.source: must be 'auto', 'sample', 'csv', 'catalog' or 'synthetic', got 'csvs'"),
        ("data.source", "csv", "data: source csv needs a path"),
        ("data.timeframe", "7m", "data.timeframe: timeframe '7m' is not one the engine can run on. "
         "Use steps that divide the next unit: 1, 5, 15, 30-MINUTE; 1, 4, 12-HOUR; 1-DAY."),
        ("data.timeframe", "soon", "data.timeframe: timeframe 'soon' is not known. "
         "Write it like 1-DAY, 1-HOUR or 5-MINUTE."),
        ("data.start", "2012-13-45", "data.start: '2012-13-45' is not a date; "
         "write it like 2012-12-31 or 2012-12-31T15:30"),
        ("data.start", "31.12.2012", "data.start: '31.12.2012' is not a date; "
         "write it like 2012-12-31 or 2012-12-31T15:30"),
        ("data.start", 20121231, "data.start: 20121231 is not a date; write it like 2012-12-31 or 2012-12-31T15:30"),
        ("data.start", [1], "data.start: [1] is not a date; write it like 2012-12-31 or 2012-12-31T15:30"),
        ("data.end", "0210-01-01", "data.end: the year of 0210-01-01 is not between 1900 and 2199"),
        ("data.end", "9999-12-31", "data.end: the year of 9999-12-31 is not between 1900 and 2199"),
        ("initial_capital", 0, "initial_capital: must be greater than 0, got 0"),
        ("initial_capital", -5, "initial_capital: must be greater than 0, got -5"),
        ("initial_capital", float("nan"), "initial_capital: must be a finite number, got nan"),
        ("initial_capital", "Infinity", "initial_capital: must be a finite number, got 'Infinity'"),
        ("initial_capital", 1e13, "initial_capital: must be less than or equal to 1000000000000, got 10000000000000.0"),
        ("initial_capital", "lots", "initial_capital: must be a number, got 'lots'"),
        ("initial_capital", "$100,000", "initial_capital: must be a number, got '$100,000'"),
        ("initial_capital", [], "initial_capital: must be a number, got []"),
        ("initial_capital", True, "initial_capital: must not be true; if it is meant as text, put it in quotes"),
        ("initial_capital", 0.1 + 0.2, "initial_capital: must have no more than 9 decimal places, "
         "got 0.30000000000000004"),
        ("venue.leverage", 2, "venue: leverage 2 needs account_type MARGIN"),
        ("venue.account_type", "cash", "venue.account_type: must be 'CASH' or 'MARGIN', got 'cash'"),
        ("venue.currency", "dollars", "venue.currency: must be a code such as USD, got 'dollars'"),
        ("venue.slippage", 1, "venue.slippage: must be less than 1, got 1"),
        ("venue.slippage", float("nan"), "venue.slippage: must be a finite number, got nan"),
        ("venue.fees.rate", "cheap", "venue.fees.rate: must be a number, got 'cheap'"),
        ("data.synthetic.drift", float("inf"), "data.synthetic.drift: must be a finite number, got inf"),
        ("instrument.price_precision", 1.5, "instrument.price_precision: must be a whole number, got 1.5"),
        ("seed", "x", "seed: must be a whole number, got 'x'"),
        ("seed", -1, "seed: must be greater than or equal to 0, got -1"),
        ("schema_version", 2, "schema_version: must be 1, got 2"),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_fit_is_named_in_one_line(path: str, value: object, message: str) -> None:
    assert refusal(path, value) == message


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(refusal("initial_capital", "9" * 5000 + "x")) < 200


def test_every_problem_has_a_line_of_its_own() -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({**SMALLEST, "seed": -1, "venue": {"levarage": 1}, "initial_capital": 0})
    assert len(str(caught.value).splitlines()) == 3


def test_start_after_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data: start 2013-01-01 is after end 2012-01-01$"):
        build_config({**SMALLEST, "data": {"symbol": "A", "start": "2013-01-01", "end": "2012-01-01"}})


def test_one_day_is_a_period() -> None:
    data = build_config({**SMALLEST, "data": {"symbol": "A", "start": "2013-01-01", "end": "2013-01-01"}}).data
    assert data.start == data.end == date(2013, 1, 1)


@pytest.mark.parametrize(
    ("missing", "message", "hint"),
    [
        ("strategy", "the request: strategy: is missing", "--strategy"),
        ("data", "the request: data: is missing", "--symbol"),
    ],
)
def test_what_is_missing_is_named_with_the_option_that_gives_it(missing: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config({key: value for key, value in SMALLEST.items() if key != missing})
    assert str(caught.value) == message
    assert hint in (caught.value.hint or "")


# From a file and overrides to one request

LONG = """
strategy:
  path: sma_crossover
  parameters: {fast_period: 5, slow_period: 20}
data: {symbol: AAPL, start: 2008-01-01, end: 2012-12-31}
initial_capital: 1e5
"""
SHORT = """
strategy: sma_crossover
parameters: {slow_period: 20, fast_period: 5}
initial_capital: 100000.00
data:
  end: 2012-12-31
  start: 2008-01-01
  symbol: AAPL
"""


def test_the_short_form_means_the_same_as_the_long_one(tmp_path: Path) -> None:
    assert from_file(tmp_path, SHORT).canonical_json() == from_file(tmp_path, LONG).canonical_json()


@pytest.mark.parametrize("form", [SHORT, LONG])
def test_overrides_win_over_the_file(tmp_path: Path, form: str) -> None:
    config = from_file(
        tmp_path, form, parameters={"fast_period": 7, "risk_percent": 1.0}, symbol="IBM", end=date(2010, 1, 1),
        initial_capital=Decimal(5), account_type="MARGIN", seed=9,
    )  # fmt: skip
    assert config.strategy.parameters == {"fast_period": 7, "slow_period": 20, "risk_percent": 1.0}
    assert (config.data.symbol, config.data.start, config.data.end) == ("IBM", date(2008, 1, 1), date(2010, 1, 1))
    assert (config.initial_capital, config.venue.account_type, config.seed) == (Decimal(5), "MARGIN", 9)


def test_another_strategy_may_be_named_for_a_files_parameters(tmp_path: Path) -> None:
    strategy = from_file(tmp_path, SHORT, strategy="momentum").strategy
    assert (strategy.path, strategy.parameters) == ("momentum", {"fast_period": 5, "slow_period": 20})


def test_a_file_may_leave_the_strategy_to_the_request(tmp_path: Path) -> None:
    strategy = from_file(tmp_path, "parameters: {a: 1}\ndata: {symbol: A}", strategy="momentum").strategy
    assert (strategy.path, strategy.parameters) == ("momentum", {"a": 1})


def test_a_request_alone_is_enough() -> None:
    assert build_config(read_request(RunRequest(strategy="momentum", symbol="A"))).strategy.path == "momentum"


def test_a_setting_left_blank_keeps_its_default(tmp_path: Path) -> None:
    blank = "\nvenue:\ninstrument:\n  price_precision:\nparameters:\n"
    assert from_file(tmp_path, "strategy: x\ndata: {symbol: AAPL}" + blank) == build("strategy.path", "x")


def test_a_parameter_may_be_null_on_purpose(tmp_path: Path) -> None:
    file = "strategy: x\nparameters: {stop: null, size: 1}\ndata: {symbol: A}"
    assert from_file(tmp_path, file).strategy.parameters == {"stop": None, "size": 1}
    assert from_file(tmp_path, file, parameters={"size": None}).strategy.parameters == {"stop": None, "size": None}


def test_parameters_that_are_no_mapping_are_refused_whatever_the_request_adds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: strategy\.parameters: must be a mapping of settings, got \[1\]$"):
        from_file(tmp_path, "strategy: x\nparameters: [1]\ndata: {symbol: A}", parameters={"a": 1})


def test_a_section_that_is_no_mapping_is_refused_whatever_the_request_adds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: data: must be a mapping of settings, got 'AAPL'$"):
        from_file(tmp_path, "strategy: x\ndata: AAPL", symbol="IBM")


def test_numbers_that_are_symbols_stay_text(tmp_path: Path) -> None:
    assert from_file(tmp_path, "strategy: x\ndata: {symbol: 600519}").data.symbol == "600519"
    assert from_file(tmp_path, "strategy: x\ndata: {symbol: 000001}").data.symbol == "000001"


def test_a_config_of_100_kb_is_read(tmp_path: Path) -> None:
    levels = {f"level_{number:05}": number / 7 for number in range(4000)}
    text = f"strategy: x\nparameters:\n  levels: {json.dumps(levels)}\ndata: {{symbol: A}}\n"
    assert len(text) > 100_000
    assert from_file(tmp_path, text).strategy.parameters["levels"] == levels


def test_the_problems_of_a_request_are_described_in_the_same_words() -> None:
    with pytest.raises(ValidationError) as caught:
        RunRequest.model_validate({"initial_capital": "lots", "start": "soon", "sede": 1})
    problems = dict(describe(caught.value))
    assert problems["initial_capital"] == "must be a number, got 'lots'"
    assert problems["start"] == "'soon' is not a date; write it like 2012-12-31 or 2012-12-31T15:30"
    assert problems["sede"] == "unknown setting; did you mean seed?"
    assert len(problems) == 3


def test_a_request_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="symbl"):
        RunRequest(symbl="AAPL")  # type: ignore[call-arg]


# Dates


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("2012-12-31", date(2012, 12, 31)),
        (" 2012-12-31 ", date(2012, 12, 31)),
        (date(2012, 12, 31), date(2012, 12, 31)),
        ("2012-12-31T15:30", datetime(2012, 12, 31, 15, 30, tzinfo=UTC)),
        ("2012-12-31 15:30:00", datetime(2012, 12, 31, 15, 30, tzinfo=UTC)),
        ("2012-12-31T15:30:00Z", datetime(2012, 12, 31, 15, 30, tzinfo=UTC)),
        ("2012-12-31T15:30:00.5+02:00", datetime(2012, 12, 31, 13, 30, 0, 500_000, tzinfo=UTC)),
        ("2013-01-01T00:30+01:00", datetime(2012, 12, 31, 23, 30, tzinfo=UTC)),
        (datetime(2012, 12, 31, 15, 30), datetime(2012, 12, 31, 15, 30, tzinfo=UTC)),
    ],
)
def test_a_date_stays_a_date_and_a_time_becomes_utc(value: object, meaning: date) -> None:
    start = build("data.start", value).data.start
    assert start == meaning
    assert type(start) is type(meaning)
    assert not isinstance(start, datetime) or start.tzinfo is UTC


def test_dates_of_a_file_are_read_like_those_of_the_command_line(tmp_path: Path) -> None:
    text = "strategy: x\ndata: {symbol: A, start: 2012-01-01, end: 2012-12-31 10:00:00+02:00}"
    data = from_file(tmp_path, text).data
    assert data.start == date(2012, 1, 1)
    assert data.end == datetime(2012, 12, 31, 8, tzinfo=UTC)


def test_a_bad_date_in_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: data\.start: '2012-02-30' is not a date; write it like 2012-12"):
        from_file(tmp_path, "strategy: x\ndata: {symbol: A, start: 2012-02-30}")


def test_a_bare_date_covers_its_whole_day() -> None:
    day = date(2012, 12, 31)
    assert first_moment(day) == datetime(2012, 12, 31, tzinfo=UTC)
    assert last_moment(day) == datetime(2013, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    moment = datetime(2012, 12, 31, 15, tzinfo=UTC)
    assert first_moment(moment) == last_moment(moment) == moment


# One text for one meaning


@pytest.mark.parametrize("same", [100_000, 1e5, "100000", "100000.00", "1e5", " 1E+5 ", Decimal("1E+5")])
def test_equal_capital_is_equal_text(same: object) -> None:
    assert build("initial_capital", same).snapshot()["initial_capital"] == "100000"


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        ("venue.slippage", 0, 0.0),
        ("venue.slippage", 0.0, -0.0),
        ("venue.slippage", "1e-3", 0.001),
        ("venue.fees.rate", -0.0, 0),
        ("venue.leverage", 1, 1.0),
        ("seed", 7, "7"),
        ("data.symbol", " AAPL", "AAPL"),
        ("data.timeframe", "60m", "1-HOUR"),
        ("data.timeframe", "daily", "1-DAY"),
        ("data.start", "2012-12-31", date(2012, 12, 31)),
        ("data.start", "2012-12-31T12:00Z", "2012-12-31T14:00+02:00"),
        ("strategy.parameters", {"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_equal_meaning_is_equal_text(path: str, one: object, other: object) -> None:
    assert build(path, one).canonical_json() == build(path, other).canonical_json()


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        ("data.start", "2012-12-31", "2012-12-31T00:00Z"),
        ("data.end", "2012-12-31", "2012-12-31T00:00Z"),
        ("strategy.parameters", {"a": 1}, {"a": True}),
        ("strategy.parameters", {"a": "1"}, {"a": 1}),
        ("strategy.parameters", {"a": [1, 2]}, {"a": [2, 1]}),
        ("seed", 0, 1),
    ],
)
def test_another_meaning_is_another_text(path: str, one: object, other: object) -> None:
    assert build(path, one).canonical_json() != build(path, other).canonical_json()


@pytest.mark.parametrize(
    ("number", "text"),
    [("1E+5", "100000"), ("100000.00", "100000"), ("0.10", "0.1"), ("1e-9", "0.000000001"), ("120", "120"), ("0", "0")],
)
def test_plain_numbers_have_neither_exponent_nor_trailing_zeros(number: str, text: str) -> None:
    assert plain_number(Decimal(number)) == text


def test_json_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"x": float("nan")})


# Any config there can be

TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    lambda text: text.strip()
)
DAYS = st.dates(date(1950, 1, 1), date(2150, 1, 1))
ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=5, minutes=30))])
TIMES = st.datetimes(datetime(1950, 1, 1), datetime(2150, 1, 1), timezones=ZONES)
FRACTIONS = st.floats(0, 1, exclude_max=True)
PARAMETERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
RAW = st.fixed_dictionaries(
    {
        "strategy": st.fixed_dictionaries(
            {"path": TEXTS}, optional={"parameters": st.dictionaries(TEXTS, PARAMETERS, max_size=4)}
        ),
        "data": st.fixed_dictionaries(
            {"symbol": TEXTS},
            optional={
                "source": st.sampled_from(["auto", "sample", "catalog", "synthetic"]),
                "venue": st.from_regex(r"[A-Z0-9_]{1,32}", fullmatch=True),
                "timeframe": st.sampled_from(["1-DAY", "daily", "5m", "60min", "4h"]),
                "path": TEXTS,
                "start": DAYS | TIMES,
                "synthetic": st.fixed_dictionaries({"volatility": st.floats(0, 5), "drift": st.floats(-10, 10)}),
            },
        ),
    },
    optional={
        "instrument": st.fixed_dictionaries({"price_precision": st.integers(0, 9)}),
        "venue": st.fixed_dictionaries(
            {"account_type": st.just("MARGIN"), "leverage": st.floats(1, 1000), "slippage": FRACTIONS},
            optional={"fees": st.fixed_dictionaries({"model": st.just("proportional"), "rate": st.floats(0, 1e9)})},
        ),
        "initial_capital": st.decimals("0.01", 10**12, places=2) | st.integers(1, 10**12),
        "annualization": st.integers(1, 366),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@given(RAW)
def test_a_stored_config_is_the_config_again(raw: dict[str, Any]) -> None:
    config = build_config(raw)
    again = build_config(json.loads(json.dumps(config.snapshot())))
    assert again == config
    assert again.canonical_json() == config.canonical_json()


@given(RAW)
def test_the_order_of_keys_has_no_meaning(raw: dict[str, Any]) -> None:
    turned = {
        key: dict(reversed(list(value.items()))) if isinstance(value, dict) else value for key, value in raw.items()
    }
    assert build_config(dict(reversed(list(turned.items())))).canonical_json() == build_config(raw).canonical_json()


# The form that Prefect's pages make of a request


def test_each_field_of_the_form_is_a_plain_one_with_a_title_and_a_description() -> None:
    schema = RunRequest.model_json_schema()
    strategy, *fields = schema["properties"].values()

    assert "required" not in schema
    assert all({"title", "description", "type", "position"} <= field.keys() for field in fields)
    assert not any({"anyOf", "default", "$ref"} & field.keys() for field in fields)
    # Those that come along are picked from a list; one's own is written.
    assert [choice["title"] for choice in strategy["anyOf"]] == ["Shipped", "Another"]
    assert [field["position"] for field in (strategy, *fields)] == list(range(len(fields) + 1))
    assert list(schema["properties"])[:4] == ["strategy", "symbol", "start", "end"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [("100000", 100_000), ("100000.10", 100_000.1), ("123456789012.123456789", "123456789012.123456789")],
)
def test_a_request_goes_through_json_unchanged_and_leaves_out_what_is_not_asked(written: str, sent: object) -> None:
    request = RunRequest(symbol="AAPL", start="2010-01-04", initial_capital=Decimal(written))

    document = json.loads(json.dumps(request.model_dump(mode="json")))

    assert document == {"symbol": "AAPL", "start": "2010-01-04", "initial_capital": sent}
    assert RunRequest(**document) == request

"""`--where`: read as it is written, and true of the runs that a plain model of SQL's logic says."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ntrader.errors import ConfigError
from ntrader.settings import Settings
from storage import database
from storage.columns import pick
from storage.conditions import Filters
from storage.fields import ALIASES, FIELDS
from storage.search import Order, find_page
from storage.where import DEEPEST, LONGEST, And, Compare, Expression, Field, Not, Operator, Or, Value, parse_where
from tests.conftest import administer, create_database, settings_for
from tests.storage import rows
from tests.storage.rows import ODD_NUMBERS, ODD_TEXTS, Row

Db = psycopg.Connection[dict[str, Any]]


def column(name: str, sign: Operator, *values: Value) -> Compare:
    return Compare(Field("column", name), sign, values)


A, B, C = (column(name, "=", number) for number, name in enumerate(["total_trades", "sweep_id", "cagr"], 1))
SAID = {A: "total_trades = 1", B: "sweep_id = 2", C: "cagr = 3"}


def parsed(pattern: str) -> Expression:
    """The tree of a text in which a, b and c stand for the three comparisons."""
    return parse_where(
        re.sub(r"\b[abc]\b", lambda letter: {"a": SAID[A], "b": SAID[B], "c": SAID[C]}[letter[0]], pattern)
    )


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_where(text)
    return caught.value


# -- how it binds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", A),
        ("(a)", A),
        ("((a))", A),
        ("a and b and c", And((A, B, C))),
        ("a or b or c", Or((A, B, C))),
        ("a or b and c", Or((A, And((B, C))))),
        ("a and b or c", Or((And((A, B)), C))),
        ("(a or b) and c", And((Or((A, B)), C))),
        ("a and (b and c)", And((A, And((B, C))))),
        ("not a and b", And((Not(A), B))),
        ("not (a and b)", Not(And((A, B)))),
        ("not a or b", Or((Not(A), B))),
        ("not not a", A),
        ("not not not a", Not(A)),
        ("not (not a)", Not(Not(A))),
        ("a AND NOT b Or c", Or((And((A, Not(B))), C))),
    ],
)
def test_not_binds_before_and_and_and_before_or(text: str, tree: Expression) -> None:
    assert parsed(text) == tree


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("total_trades between 1 and 2 and cagr = 3", And((column("total_trades", "between", 1, 2), C))),
        ("cagr not between 1 and 2", Not(column("cagr", "between", 1, 2))),
        ("cagr in (1)", column("cagr", "in", 1)),
        ("cagr not in (1, 2.5)", Not(column("cagr", "in", 1, 2.5))),
        ("name like 'a%'", column("name", "like", "a%")),
        ("name not ilike 'a%'", Not(column("name", "ilike", "a%"))),
        ("name is null", column("name", "null")),
        ("name is not null", Not(column("name", "null"))),
        ("not name is not null", Not(Not(column("name", "null")))),
        ("archived = true", column("archived", "=", True)),
        ("archived != FALSE", column("archived", "!=", False)),
    ],
)
def test_comparisons(text: str, tree: Expression) -> None:
    assert parse_where(text) == tree


@pytest.mark.parametrize(
    ("sign", "meant"),
    [("=", "="), ("==", "="), ("!=", "!="), ("<>", "!="), ("<", "<"), ("<=", "<="), (">", ">"), (">=", ">=")],
)
def test_signs_need_no_space(sign: str, meant: Operator) -> None:
    assert parse_where(f"cagr{sign}-1") == parse_where(f" cagr \n{sign}\t-1 ") == column("cagr", meant, -1)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("sharpe_ratio", Field("column", "sharpe_ratio")),
        ("SHARPE_RATIO", Field("column", "sharpe_ratio")),
        ('"sharpe_ratio"', Field("column", "sharpe_ratio")),
        ("metrics.sharpe_ratio", Field("column", "sharpe_ratio")),
        ("Metrics.Sharpe", Field("column", "sharpe_ratio")),
        ("params.n", Field("params", "n")),
        ("param.N", Field("params", "N")),
        ("PARAMETERS.n", Field("params", "n")),
        ("params . n", Field("params", "n")),
        ("tag.team", Field("tag", "team")),
        ("tags.ñandú", Field("tag", "ñandú")),
        ('tag."my team"', Field("tag", "my team")),
        ('tag."say ""x"""', Field("tag", 'say "x"')),
        ('tag."and"', Field("tag", "and")),
        ('tag."a.b"', Field("tag", "a.b")),
        ('tag.""', Field("tag", "")),
        ('"tag".x', Field("tag", "x")),
        ("params.sharpe", Field("params", "sharpe")),
    ],
)
def test_fields_by_every_name(said: str, field: Field) -> None:
    assert parse_where(f"{said} = 1") == Compare(field, "=", (1,))


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_column(alias: str) -> None:
    assert parse_where(f"{alias} is null") == column(ALIASES[alias], "null")


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("5", 5), ("+5", 5), ("-5", -5), ("007", 7), ("5.", 5.0), (".5", 0.5), ("-.5e3", -500.0), ("1E-3", 0.001),
        ("1e5", 1e5), ("9" * 300, 10**300 - 1), ("1e-400", 0.0), ("0.1", 0.1),
        ("'5'", "5"), ("''", ""), ("''''", "'"), ("'it''s'", "it's"), ("'a\nb'", "a\nb"), ("'\\'", "\\"),
        ("'and'", "and"), ("'数😀'", "数😀"), ("true", True), ("False", False),
    ],
)  # fmt: skip
def test_values(said: str, value: Value) -> None:
    found = parse_where(f"cagr = {said}")
    assert found == column("cagr", "=", value)
    assert isinstance(found, Compare)
    assert type(found.values[0]) is type(value)


# -- what is refused, and where ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a field at character 1, but it ends"),
        ("   ", "expected a field at character 1, but it ends"),
        ("cagr", "expected =, !=, <, <=, >, >=, in, like, between or is null at character 5, but it ends"),
        ("cagr = ", "expected a number, 'text', true or false at character 7, but it ends"),
        ("cagr > 1 and", "expected a field at character 13, but it ends"),
        ("cagr > 1 cagr", "expected and, or, or the end at character 10, but there is cagr"),
        ("cagr > 1)", "expected and, or, or the end at character 9, but there is )"),
        ("(cagr > 1", "expected ) at character 10, but it ends"),
        ("()", "expected a field at character 2, but there is )"),
        ("and = 1", "expected a field at character 1, but there is and"),
        ("5 < cagr", "expected a field at character 1, but there is 5"),
        ("'a' = name", "expected a field at character 1, but there is 'a'"),
        ("cagr not = 1", "expected in, like or between at character 10, but there is ="),
        ("cagr is 5", "expected null at character 9, but there is 5"),
        ("cagr is not 5", "expected null at character 13, but there is 5"),
        ("cagr in 5", "expected ( at character 9, but there is 5"),
        ("cagr in ()", "expected a number, 'text', true or false at character 10, but there is )"),
        ("cagr in (1,)", "expected a number, 'text', true or false at character 12, but there is )"),
        ("cagr between 1 or 2", "expected and at character 16, but there is or"),
        ("cagr = null", "expected a number, 'text', true or false at character 8, but there is null"),
        ("params.in = 1", "expected a name after params. at character 8, but there is in"),
        ("params. = 1", "expected a name after params. at character 9, but there is ="),
        ("name = 'abc", "a quote is not closed at character 8"),
        ('name = "abc', "a quote is not closed at character 8"),
        ("name = 'it's'", "a quote is not closed at character 13"),
        ("cagr > 1; drop", "';' makes no sense at character 9"),
        ("cagr > 1 -- x", "'-' makes no sense at character 10"),
        ("cagr > 5x", "'5' makes no sense at character 8"),
        ("cagr & 1", "'&' makes no sense at character 6"),
        ("cagr > 1e400", "1e400 is too large a number"),
        ("cagr > " + "9" * 5000, "is too large a number"),
        ("\x00", "'\\x00' makes no sense at character 1"),
    ],
)
def test_a_mistake_is_shown_by_its_place(text: str, message: str) -> None:
    assert message in refusal(text).message


def test_text_without_quotes_is_told_how() -> None:
    assert refusal("status = success").hint == "Text goes in single quotes: 'success'."
    assert refusal('status = "success"').hint == "Text goes in single quotes: 'success'."


@pytest.mark.parametrize(
    ("name", "nearest"), [("sharp", "sharpe"), ("totl_trades", "total_trades"), ("Metrics.cagrr", "cagr")]
)
def test_the_nearest_field_is_offered(name: str, nearest: str) -> None:
    assert f"Did you mean {nearest}?" in (refusal(f"{name} = 1").hint or "")


def test_a_name_that_is_near_nothing_may_be_a_parameter_or_a_tag() -> None:
    error = refusal("qqqq = 1")
    assert error.message == "--where: there is no field qqqq"
    assert error.hint == "A parameter is params.qqqq, a tag is tag.qqqq."


def test_a_place_that_is_none_is_refused() -> None:
    assert refusal("config.n = 1").message == "--where: there is no config.n"


@pytest.mark.parametrize(
    "name", ["config_snapshot", "error_traceback", "lease_owner", "id", "reproduced_from_run_id", "warnings"]
)
def test_what_is_no_field_cannot_be_asked_for(name: str) -> None:
    assert "there is no field" in refusal(f"{name} is null").message


def test_depth_has_a_limit() -> None:
    deep = DEEPEST - 1
    assert parse_where("(" * deep + SAID[A] + ")" * deep) == A
    for depth in (deep + 1, 3000):
        assert refusal("(" * depth + SAID[A] + ")" * depth).message == f"--where is nested more than {DEEPEST} deep"


def test_many_groups_beside_each_other_are_not_deep() -> None:
    assert parse_where(" or ".join([f"({SAID[A]})"] * 300)) == Or((A,) * 300)


def test_many_nots_are_not_deep() -> None:
    assert parse_where("not " * 1001 + SAID[A]) == Not(A)


def test_length_has_a_limit() -> None:
    assert parse_where(SAID[A].ljust(LONGEST)) == A
    error = refusal(SAID[A].ljust(LONGEST + 1))
    assert error.message == "--where is 10,001 characters long, at most 10,000 are read"
    assert "at most" in refusal("x" * 100_000).message


@given(
    st.text()
    | st.lists(st.sampled_from([*"()'\",.=<>!5 a", "and", "or", "not", "in", "is", "null", "cagr"])).map(" ".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_where(text)
    except ConfigError as error:
        assert "--where" in error.message


# -- written and read again ----------------------------------------------------------------------------------


def written(expression: Expression) -> str:
    """An expression as a person could type it."""
    match expression:
        case Not(inner):
            return f"not ({written(inner)})"
        case And(inner):
            return " and ".join(f"({written(part)})" for part in inner)
        case Or(inner):
            return " or ".join(f"({written(part)})" for part in inner)
        case Compare(field, "null"):
            return f"{named(field)} is null"
        case Compare(field, "between", (low, high)):
            return f"{named(field)} between {quoted(low)} and {quoted(high)}"
        case Compare(field, "in", values):
            return f"{named(field)} in ({', '.join(map(quoted, values))})"
        case Compare(field, sign, (value,)):
            return f"{named(field)} {sign} {quoted(value)}"
    raise AssertionError(expression)


def named(field: Field) -> str:
    name = '"' + field.name.replace('"', '""') + '"'
    return field.name if field.place == "column" else f"{field.place}.{name}"


def quoted(value: Value) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value).lower()


def trees(comparisons: st.SearchStrategy[Compare]) -> st.SearchStrategy[Expression]:
    def wider(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
        several = st.lists(inner, min_size=2, max_size=4).map(tuple)
        return st.one_of(inner.map(Not), several.map(And), several.map(Or))

    return st.recursive(comparisons, wider, max_leaves=8)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
ANY_VALUE = st.one_of(st.integers(), FINITE, st.booleans(), st.text(st.characters(codec=None)))
ANY_FIELD = st.one_of(
    st.builds(Field, st.just("column"), st.sampled_from(list(FIELDS))),
    st.builds(Field, st.sampled_from(["params", "tag"]), st.text(st.characters(codec=None))),
)
ONE: list[Operator] = ["=", "!=", "<", "<=", ">", ">=", "like", "ilike"]


def compared(
    field: st.SearchStrategy[Field], sign: st.SearchStrategy[Operator], value: st.SearchStrategy[Any]
) -> st.SearchStrategy[Compare]:
    return st.builds(Compare, field, sign, st.tuples(value))


ANY_TREE = trees(
    st.one_of(
        compared(ANY_FIELD, st.sampled_from(ONE), ANY_VALUE),
        st.builds(Compare, ANY_FIELD, st.just("in"), st.lists(ANY_VALUE, min_size=1, max_size=4).map(tuple)),
        st.builds(Compare, ANY_FIELD, st.just("between"), st.tuples(ANY_VALUE, ANY_VALUE)),
        st.builds(Compare, ANY_FIELD, st.just("null"), st.just(())),
    )
)


@given(ANY_TREE)
def test_what_is_written_is_read_back(tree: Expression) -> None:
    found = parse_where(written(tree))
    assert repr(found) == repr(tree)  # 1, 1.0 and True are equal


# -- a plain model -------------------------------------------------------------------------------------------


def holds(expression: Expression, run: Row) -> bool | None:
    """True, false or, as in SQL, neither."""
    match expression:
        case Not(inner):
            found = holds(inner, run)
            return None if found is None else not found
        case And(inner):
            parts = [holds(part, run) for part in inner]
            return False if False in parts else None if None in parts else True
        case Or(inner):
            parts = [holds(part, run) for part in inner]
            return True if True in parts else None if None in parts else False
        case Compare():
            return compares(expression, run)


SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def compares(comparison: Compare, run: Row) -> bool | None:
    field, values = comparison.field, comparison.values
    if comparison.operator == "null":
        return stored(field, run) is None
    if comparison.operator == "in":
        parts: tuple[Expression, ...] = tuple(Compare(field, "=", (value,)) for value in values)
        return holds(Or(parts), run)
    if comparison.operator == "between":
        return holds(And((Compare(field, ">=", values[:1]), Compare(field, "<=", values[1:]))), run)
    left, right = fitting(field, stored(field, run), values[0])
    if left is None:
        return None
    if comparison.operator in {"like", "ilike"}:
        return matches(right, str(left), fold=comparison.operator == "ilike")
    return SIGNS[comparison.operator](left, right)


def stored(field: Field, run: Row) -> Any:
    if field.place == "column":
        return run.get(field.name)
    return run["parameters" if field.place == "params" else "tags"].get(field.name)


def fitting(field: Field, left: Any, right: Value) -> tuple[Any, Any]:
    """Both sides of one type. A parameter or tag of another type than what it is compared with is not there."""
    if field.place == "column":
        return fitting_column(FIELDS[field.name], left, right)
    if field.place == "tag" and isinstance(left, str) and not isinstance(right, str):
        left = Decimal(left) if re.fullmatch(r"[+-]?[0-9]+([.][0-9]+)?", left, re.ASCII) else None
    if isinstance(right, bool) or isinstance(left, bool):
        return (left if isinstance(left, bool) and isinstance(right, bool) else None), right
    if isinstance(right, str):
        return (left if isinstance(left, str) else None), right
    return (Decimal(str(left)) if isinstance(left, int | float | Decimal) else None), Decimal(str(right))


def fitting_column(kind: str, left: Any, right: Value) -> tuple[Any, Any]:
    if kind == "time" and isinstance(right, str):
        return left, datetime.fromisoformat(right).replace(tzinfo=UTC)
    if kind == "uuid" and isinstance(right, str) and "-" in right and "%" not in right:
        return left, UUID(right)
    if isinstance(left, Decimal) and isinstance(right, float):
        return float(left), right  # a decimal meets a float as a float
    return left, right


def matches(pattern: str, text: str, *, fold: bool) -> bool:
    """LIKE: % is any text, _ any character, and what a backslash precedes is itself."""
    parts = re.findall(r"\\(.)|(%)|(_)|(.)", pattern, re.DOTALL)
    body = "".join(".*" if many else "." if one else re.escape(escaped or plain) for escaped, many, one, plain in parts)
    return re.fullmatch(body, text, re.DOTALL | (re.IGNORECASE if fold else re.NOFLAG)) is not None


RUNS = rows.random_rows(150, seed=1)


@pytest.fixture(scope="module")
def db(shared: Settings) -> Iterator[Db]:
    rows.insert(shared, RUNS)
    with database.connect(shared) as connection:
        yield connection


def found(db: Db, text: str) -> set[UUID]:
    page = find_page(db, pick(["run_id"]).statement, Filters(where=text, archived=True), Order(), 1000)
    ids = [row["c0"] for row in page.rows]
    assert len(set(ids)) == len(ids)
    return set(ids)


def expected(tree: Expression) -> set[UUID]:
    return {run["run_id"] for run in RUNS if holds(tree, run) is True}


def of_column(names: list[str], values: st.SearchStrategy[Any], signs: list[Operator]) -> st.SearchStrategy[Compare]:
    return of_fields(st.builds(Field, st.just("column"), st.sampled_from(names)), values, signs)


def of_fields(
    fields: st.SearchStrategy[Field], values: st.SearchStrategy[Any], signs: list[Operator]
) -> st.SearchStrategy[Compare]:
    kinds = {
        "in": st.builds(Compare, fields, st.just("in"), st.lists(values, min_size=1, max_size=4).map(tuple)),
        "between": st.builds(Compare, fields, st.just("between"), st.tuples(values, values)),
        "null": st.builds(Compare, fields, st.just("null"), st.just(())),
    }
    plain = [sign for sign in signs if sign not in kinds]
    return st.one_of(
        compared(fields, st.sampled_from(plain), values), *(kinds[sign] for sign in signs if sign in kinds)
    )


def named_fields(place: Any) -> st.SearchStrategy[Field]:
    return st.builds(Field, st.just(place), st.sampled_from([*rows.NAMES, "not there"]))


EQUAL: list[Operator] = ["=", "!=", "in", "null"]
ORDERED: list[Operator] = [*EQUAL, "<", "<=", ">", ">=", "between"]
LIKE: list[Operator] = ["like", "ilike"]
NUMBERS = st.sampled_from([*ODD_NUMBERS, 0, 1, 5, -3, 2**62, 10**25, -(10**30), 0.2, 2.5, 1000, 1e-7]) | FINITE
TEXTS = st.sampled_from(ODD_TEXTS) | st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
PATTERNS = st.sampled_from(["%", "_", "", "a%", "%a", "%B%", "100\\%", "50\\_50", "50_50", "back\\\\slash", "_%_", "é%",
                            "%'%", "%(v0)s", "%%", "{_", "%\n%", "数", "o''clock", "A", "%NULL%"])  # fmt: skip
MOMENTS = st.sampled_from(["2024-01-01", "2024-01-02", "2024-01-01T12:00", "2024-01-03T05:00:00.000001", "1999-12-31"])
LABELS = ["notes", "config_path", "error_type", "strategy_name", "name", "execution_status", "error_message"]
REAL = trees(
    st.one_of(
        of_column(["total_return", "cagr", "sharpe_ratio", "execution_duration_seconds"], NUMBERS, ORDERED),
        of_column(["total_trades", "sweep_id", "trial_number", "initial_capital"], NUMBERS, ORDERED),
        of_column(LABELS, TEXTS, ORDERED),
        of_column([*LABELS, "run_id"], PATTERNS, LIKE),
        of_column(["created_at", "start_date", "max_drawdown_date"], MOMENTS, ORDERED),
        of_column(["archived"], st.booleans(), EQUAL),
        of_column(["run_id", "flow_run_id"], st.sampled_from([RUNS[0]["run_id"], UUID(int=7)]).map(str), EQUAL),
        of_fields(named_fields("params"), NUMBERS | TEXTS, ORDERED),
        of_fields(named_fields("params"), st.booleans() | NUMBERS | TEXTS, EQUAL),
        of_fields(named_fields("params"), PATTERNS, LIKE),
        of_fields(named_fields("tag"), NUMBERS | TEXTS, ORDERED),
        of_fields(named_fields("tag"), PATTERNS, LIKE),
    )
)


@given(REAL)
@hypothesis_settings(
    max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_the_runs_found_are_those_of_the_model(db: Db, tree: Expression) -> None:
    assert found(db, written(tree)) == expected(tree)


@given(REAL)
@hypothesis_settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_every_run_holds_or_does_not_hold_or_lacks_something(db: Db, tree: Expression) -> None:
    """Neither an expression nor its opposite finds what is not there; one finds the others, never both."""
    holding, failing = found(db, written(tree)), found(db, written(Not(tree)))
    lacking = {run["run_id"] for run in RUNS if holds(tree, run) is None}
    assert (holding & failing, holding | failing | lacking) == (set(), {run["run_id"] for run in RUNS})


# -- by hand -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(home: Path, template: str) -> Iterator[Db]:
    """Four runs that one can survey: their trial numbers tell them apart."""
    name = create_database(home, template)
    settings = settings_for(home, name)
    rows.insert(settings, [
        rows.row(1, trial_number=1, parameters={"n": 5, "on": True, "mode": "fast"}, tags={"team": "fx", "no": "10"}),
        rows.row(2, trial_number=2, parameters={"n": "5", "on": "true"}, tags={"team": "FX", "no": "9.5"}),
        rows.row(3, trial_number=3, parameters={"n": 5.0, "on": None, "mode": ["fast"]}, tags={"no": "ten"}),
        rows.row(4, trial_number=4, notes="100% sure, it's a\\b", execution_duration_seconds=2.0),
    ])  # fmt: skip
    with database.connect(settings) as connection:
        yield connection
    administer(home, f"DROP DATABASE {name} WITH (FORCE)")


def trials(db: Db, text: str) -> list[int]:
    page = find_page(db, pick(["trial_number"]).statement, Filters(where=text), Order("created_at", False), 10)
    return [row["c0"] for row in page.rows]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("params.n = 5", [1, 3]),
        ("params.n = '5'", [2]),
        ("params.n != 6", [1, 3]),
        ("not params.n = 6", [1, 3]),
        ("params.n > 4", [1, 3]),
        ("params.n between 4.5 and 5", [1, 3]),
        ("params.n in (5, '5')", [1, 2, 3]),
        ("params.on = true", [1]),
        ("params.on = 'true'", [2]),
        ("params.on != false", [1]),
        ("params.on is null", [3, 4]),
        ("params.mode = 'fast'", [1]),
        ("params.mode like 'f%'", [1]),
        ("params.mode is not null", [1, 3]),
        ("tag.team = 'fx'", [1]),
        ("tag.team ilike 'fx'", [1, 2]),
        ("tag.team != 'fx'", [2]),
        ("tag.no = 10", [1]),
        ("tag.no < 10", [2]),
        ("tag.no < '9'", [1]),
        ("not tag.no > 9.5", [2]),
        ("tag.no is null", [4]),
        ("notes = '100% sure, it''s a\\b'", [4]),
        ("notes like '100\\% sure%'", [4]),
        ("notes like '%a\\\\b'", [4]),
        ("notes is null and not notes = 'x'", []),
        ("duration = 2 or trial_number = 1", [1, 4]),
        ("created_at >= '2024-01-01T00:03'", [3, 4]),
        ("created_at >= '2024-01-01T02:03+02:00'", [3, 4]),
        ("run_id = '00000000-0000-0000-0000-000000000002'", [2]),
        ("run_id like '%4'", [4]),
        ("trial_number = 2.0", [2]),
        ("trial_number > 1.5 and trial_number < 99999999999999999999", [2, 3, 4]),
        ("trial_number > -1e300 and trial_number < 1e300", [1, 2, 3, 4]),
        ("trial_number in (1, 2.5, 10000000000000000000000, 4)", [1, 4]),
        ("sharpe > 0 or not sharpe > 0", []),
    ],
)
def test_found_by_hand(few: Db, text: str, numbers: list[int]) -> None:
    assert trials(few, text) == numbers


@pytest.mark.parametrize(
    "text",
    ["'; DROP TABLE backtest_runs; --", "') OR TRUE --", "%(v0)s", "%s", "%", "%%", "{}", "{0}", "$1", "\\", "数", "😀",
     "\x01\x7f", "x" * 1500],
)  # fmt: skip
@pytest.mark.parametrize("field", ["notes", "params.n", "tag.team", 'params."{}"', 'tag."{}"'])
def test_text_is_only_ever_text(few: Db, field: str, text: str) -> None:
    """No text is stored like it, so nothing is found; and nothing happens."""
    place = field.replace("{}", text.replace('"', '""'))
    assert trials(few, f"{place} = {quoted(text)} and {place} < {quoted(text)} or {place} in ({quoted(text)})") == []
    assert trials(few, "trial_number > 0") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cagr = 'high'", "cagr cannot be compared with 'high'"),
        ("cagr = true", "cagr cannot be compared with True"),
        ("cagr like '1%'", "cagr is no text: it cannot be compared with like"),
        ("created_at like '2024%'", "created_at is no text"),
        ("created_at > 5", "created_at cannot be compared with 5"),
        ("created_at > 'yesterday'", "'yesterday' is not a date"),
        ("name = 5", "name cannot be compared with 5"),
        ("name like 5", "name cannot be compared with 5"),
        ("archived > false", "archived can be compared with =, != and in only"),
        ("archived = 'true'", "archived cannot be compared with 'true'"),
        ("archived like 't%'", "archived is no text"),
        ("run_id > '00000000-0000-0000-0000-000000000002'", "run_id can be compared with =, != and in only"),
        ("run_id = 'dead'", "'dead' is no uuid"),
        ("params.on > true", "on cannot be compared with true like that"),
        ("params.on between false and true", "on cannot be compared with false like that"),
        ("params.n like 5", "like needs 'text', not 5"),
        ("params.on like true", "on cannot be compared with true like that"),
        ("tag.team = true", "team cannot be compared with true like that"),
        ("tag.team in ('a', true)", "team cannot be compared with true like that"),
        ("cagr > " + "9" * 400, "a number of more than 300 digits"),
        ("params.n > " + "9" * 400, "a number of more than 300 digits"),
        ("notes = 'a\x00b'", "has a NUL character in it"),
        ("params.n = 'a\x00b'", "has a NUL character in it"),
        ('params."a\x00b" = 1', "has a NUL character in it"),
        ('tag."a\x00b" is null', "has a NUL character in it"),
        ("notes = '\udcff'", "is not text that can be compared"),
        ("params.n != '\udcff'", "is not text that can be compared"),
        ('tag."\udcff" = 1', "is not text that can be compared"),
    ],
)
def test_what_cannot_be_compared_is_refused(few: Db, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        trials(few, text)


@pytest.mark.parametrize("field", ["notes", "params.mode", "tag.team"])
@pytest.mark.parametrize("sign", ["like", "ilike", "not like"])
def test_a_pattern_that_ends_in_half_an_escape_is_refused(few: Db, field: str, sign: str) -> None:
    with pytest.raises(ConfigError, match="ends with a single backslash"):
        trials(few, f"{field} {sign} '%\\'")


@given(ANY_TREE)
@hypothesis_settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_expression_finds_something_or_nothing_or_is_refused(few: Db, tree: Expression) -> None:
    try:
        assert set(trials(few, written(tree))) <= {1, 2, 3, 4}
    except ConfigError as error:
        assert error.message

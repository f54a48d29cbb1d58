"""`--where`: a small expression language over runs. Text in, a tree out; storage/search.py makes SQL of the tree.

    sharpe_ratio > 1 and (status = 'success' or tag.team = 'fx') and params.fast_period between 5 and 20

As in SQL, a comparison with something that is not there is neither true nor false, and `not` does not make it true.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ntrader.errors import ConfigError
from storage.fields import ALIASES, FIELDS, PLACES

Value = str | int | float | bool
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "like", "ilike", "between", "null"]
Place = Literal["column", "params", "tag"]

LONGEST, DEEPEST = 10_000, 50


@dataclass(frozen=True, slots=True)
class Field:
    """A column by its own name, or a parameter or tag by the name it was given."""

    place: Place
    name: str


@dataclass(frozen=True, slots=True)
class Compare:
    """`values` has one member, two for `between`, any number for `in`, none for `null`."""

    field: Field
    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    inner: Expression


@dataclass(frozen=True, slots=True)
class And:
    """Every one of two or more holds."""

    inner: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of two or more holds."""

    inner: tuple[Expression, ...]


Expression = Compare | Not | And | Or


def parse_where(text: str) -> Expression:
    """Raises ConfigError that says where and what was expected, or which field comes nearest."""
    if len(text) > LONGEST:
        raise ConfigError(f"--where is {len(text):,} characters long, at most {LONGEST:,} are read")
    return _Parser(text).parse()


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
      | (?P<string>'(?:[^']|'')*')
      | (?P<name>[^\W\d]\w*|"(?:[^"]|"")*")
      | (?P<sign><=|>=|<>|!=|==|[=<>(),.])
    )""",
    re.VERBOSE,
)
_KEYWORDS = {"and", "or", "not", "in", "like", "ilike", "between", "is", "null", "true", "false"}
_SIGNS: dict[str, Operator] = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_HINT = "Example: --where \"sharpe_ratio > 1 and params.fast_period between 5 and 20 and tag.team = 'fx'\""


class _Parser:
    """Recursive descent; the state is how far it has read and how deep it is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Expression:
        expression = self._any()
        if self._here().kind != "end":
            raise self._expected("and, or, or the end")
        return expression

    def _any(self) -> Expression:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ConfigError(f"--where is nested more than {DEEPEST} deep")
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Expression:
        parts = [self._negated()]
        while self._take("and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _negated(self) -> Expression:
        negated = False
        while self._take("not"):
            negated = not negated
        inner = self._group() if self._take("(") else self._comparison()
        return Not(inner) if negated else inner

    def _group(self) -> Expression:
        inner = self._any()
        self._need(")")
        return inner

    def _comparison(self) -> Expression:
        field = self._field()
        if self._take("is"):
            negated = self._take("not")
            self._need("null")
            found: Expression = Compare(field, "null", ())
        else:
            negated = self._take("not")
            found = self._compared(field, plain=not negated)
        return Not(found) if negated else found

    def _compared(self, field: Field, *, plain: bool) -> Compare:
        sign = self._here().text
        if plain and sign in _SIGNS:
            self._next += 1
            return Compare(field, _SIGNS[sign], (self._value(),))
        if self._take("in"):
            return Compare(field, "in", self._list())
        if self._take("between"):
            low = self._value()
            self._need("and")
            return Compare(field, "between", (low, self._value()))
        for word in ("like", "ilike"):
            if self._take(word):
                return Compare(field, word, (self._value(),))
        raise self._expected("=, !=, <, <=, >, >=, in, like, between or is null" if plain else "in, like or between")

    def _list(self) -> tuple[Value, ...]:
        self._need("(")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._need(")")
        return tuple(values)

    def _field(self) -> Field:
        first = self._name("a field")
        if not self._take("."):
            return Field("column", _column(first))
        name = self._name(f"a name after {first}.")
        if first.lower() == "metrics":
            return Field("column", _column(name))
        if first.lower() not in PLACES:
            raise ConfigError(f"--where: there is no {first}.{name}", hint="Write params.NAME, tag.NAME or a column.")
        return Field(PLACES[first.lower()], name)

    def _name(self, what: str) -> str:
        token = self._here()
        if token.kind != "name" or token.text.lower() in _KEYWORDS:
            raise self._expected(what)
        self._next += 1
        return token.text[1:-1].replace('""', '"') if token.text.startswith('"') else token.text

    def _value(self) -> Value:
        token = self._here()
        if token.kind == "string":
            self._next += 1
            return token.text[1:-1].replace("''", "'")
        if token.kind == "number":
            self._next += 1
            return _number(token.text)
        if token.text.lower() in {"true", "false"}:
            self._next += 1
            return token.text.lower() == "true"
        hint = f"Text goes in single quotes: '{token.text.strip(chr(34))}'." if token.kind == "name" else _HINT
        raise self._expected("a number, 'text', true or false", hint)

    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, text: str) -> bool:
        token = self._here()
        if token.kind in {"name", "sign"} and token.text.lower() == text:
            self._next += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            raise self._expected(text)

    def _expected(self, what: str, hint: str = _HINT) -> ConfigError:
        token = self._here()
        found = "it ends" if token.kind == "end" else f"there is {token.text}"
        return ConfigError(f"--where: expected {what} at character {token.position + 1}, but {found}", hint=hint)


def _tokens(text: str) -> Iterator[_Token]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if not match or match.lastgroup is None:
            rest = text[position:].lstrip()
            start = len(text) - len(rest)
            problem = "a quote is not closed" if rest[0] in "'\"" else f"{rest[0]!r} makes no sense"
            raise ConfigError(f"--where: {problem} at character {start + 1}", hint=_HINT)
        yield _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))
        position = match.end()
    yield _Token("end", "", end)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ConfigError(f"--where: {text} is too large a number")
    return number


def _column(name: str) -> str:
    wanted = name.lower()
    column = ALIASES.get(wanted, wanted)
    if column in FIELDS:
        return column
    near = difflib.get_close_matches(wanted, [*FIELDS, *ALIASES], n=1, cutoff=0.5)
    meant = f"Did you mean {near[0]}? " if near else ""
    raise ConfigError(
        f"--where: there is no field {name}", hint=f"{meant}A parameter is params.{name}, a tag is tag.{name}."
    )

"""Constraints: conditions that a point of a search space must fulfil, such as `fast_period < slow_period`.

A small language of its own in Python's spelling: names of parameters and `symbol`, numbers, text in quotes, True, False
and None, comparisons, and, or, not, + - * / // % **, parentheses, abs, min and max. Python's parser reads it;
nothing is ever given to `eval`: each piece is looked up here, and what is not listed is refused.
"""

from __future__ import annotations

import ast
import difflib
import functools
import math
import operator
import reprlib
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ntrader.errors import ConfigError

_LONGEST: Final = 1_000
_DEEPEST: Final = 40
_LARGEST_EXPONENT: Final = 64
_SHOWN = reprlib.Repr(maxstring=100)
_ALLOWED = (
    "Allowed are names of parameters, symbol, numbers, text in quotes, comparisons, and, or, not, "
    "+ - * / // % **, parentheses, abs, min and max."
)

Values = Mapping[str, Any]
Term = Callable[[Values], Any]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition that has been read. `text` is spelled in one way for one meaning; `names` are those it uses."""

    text: str
    names: frozenset[str]
    term: Term

    def holds(self, values: Values) -> bool:
        """Whether the condition is true of these values, by name.

        Raises ConfigError where it cannot be worked out (division by zero, text against a number, a value that is
        missing) or comes to something else than true or false.
        """
        try:
            return _truth(self.term(values))
        except _Unfit as error:
            problem = str(error)
        except ZeroDivisionError:
            problem = "division by zero"
        except OverflowError:
            problem = "a number is too large"
        where = ", ".join(f"{name}={reprlib.repr(values[name])}" for name in sorted(self.names) if name in values)
        raise ConfigError(f"constraint {self.text!r} cannot be worked out{f' at {where}' if where else ''}: {problem}")


class _Unfit(Exception):
    """These values do not go together in this way."""


class _NotAllowed(Exception):
    """A piece of the text is not of the language."""


@functools.lru_cache(maxsize=256)
def parse_constraint(text: str) -> Constraint:
    """Raises ConfigError for whatever is not of the language."""
    if len(text) > _LONGEST:
        raise ConfigError(f"constraint {_SHOWN.repr(text)} has {len(text):,} characters; at most {_LONGEST:,} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
        term = _term(tree)
        return Constraint(ast.unparse(tree), frozenset(_names(tree)), term)
    except _NotAllowed as error:
        problem = f": {error}"
    except SyntaxError as error:
        problem = f" cannot be read: {error.msg}"
    except (ValueError, RecursionError, MemoryError):
        problem = " cannot be read"
    raise ConfigError(f"constraint {_SHOWN.repr(text)}{problem}", hint=_ALLOWED)


def require_known(constraint: Constraint, known: Collection[str]) -> None:
    """Raises ConfigError where the constraint uses a name that has no value; the nearest one is suggested."""
    for name in sorted(constraint.names - {*known}):
        near = difflib.get_close_matches(name, [*known, "True", "False", "None"], n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
        raise ConfigError(f"constraint {constraint.text!r} uses {name!r}, which is no parameter", hint=hint)


def _names(tree: ast.AST) -> set[str]:
    """The names that stand for values; what is called is none."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}


def _term(node: ast.expr, depth: int = 0) -> Term:
    """A function from values by name to the value of this piece."""
    if depth > _DEEPEST:
        raise _NotAllowed("it is nested too deeply")
    inner = functools.partial(_term, depth=depth + 1)
    match node:
        case ast.Constant(value=float(value)) if not math.isfinite(value):
            raise _NotAllowed("a number in it is too large")
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            return lambda values: value
        case ast.Name(id=name):
            return lambda values: _looked_up(name, values)
        case ast.BoolOp(op=op, values=parts):
            return _joined(isinstance(op, ast.And), [inner(part) for part in parts])
        case ast.UnaryOp(op=op, operand=part) if type(op) in _UNARY:
            return _applied(_UNARY[type(op)], [inner(part)])
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
            return _applied(_ARITHMETIC[type(op)], [inner(left), inner(right)])
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARISONS for op in ops):
            return _compared([type(op) for op in ops], [inner(part) for part in (left, *others)])
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as parts, keywords=[]) if name in _FUNCTIONS:
            return _applied(_FUNCTIONS[name], [inner(part) for part in parts])
    raise _NotAllowed(f"{reprlib.repr(ast.unparse(node))} is not allowed")


def _looked_up(name: str, values: Values) -> Any:
    if name not in values:
        raise _Unfit(f"{name} has no value")
    return values[name]


def _joined(every: bool, parts: list[Term]) -> Term:
    """`and` or `or`: what comes after the part that decides is not worked out."""
    if every:
        return lambda values: all(_truth(part(values)) for part in parts)
    return lambda values: any(_truth(part(values)) for part in parts)


def _applied(function: Callable[..., Any], parts: list[Term]) -> Term:
    return lambda values: function(*[part(values) for part in parts])


def _compared(kinds: list[type[ast.cmpop]], parts: list[Term]) -> Term:
    """`a < b <= c`; as in Python each piece is worked out at most once."""

    def compare(values: Values) -> bool:
        before = parts[0](values)
        for kind, part in zip(kinds, parts[1:], strict=True):
            after = part(values)
            if not _holds(kind, before, after):
                return False
            before = after
        return True

    return compare


def _holds(kind: type[ast.cmpop], left: Any, right: Any) -> bool:
    both = {_kind(left), _kind(right)}
    equality = kind in (ast.Eq, ast.NotEq)
    if not (len(both) == 1 or (equality and "nothing" in both)):
        raise _Unfit(f"{reprlib.repr(left)} and {reprlib.repr(right)} cannot be compared")
    if not equality and both & {"truth", "nothing", "other"}:
        raise _Unfit(f"of {reprlib.repr(left)} and {reprlib.repr(right)} neither is more or less")
    return bool(_COMPARISONS[kind](left, right))


def _kind(value: object) -> str:
    kinds = {bool: "truth", int: "number", float: "number", str: "text", type(None): "nothing"}
    return kinds.get(type(value), "other")


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Unfit(f"{reprlib.repr(value)} is neither true nor false")
    return value


def _numeric(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numbers alone, and none that grows without end: text times a number would be more text."""

    def checked(*numbers: Any) -> Any:
        for number in numbers:
            if _kind(number) != "number":
                raise _Unfit(f"{reprlib.repr(number)} is not a number")
        result = function(*numbers)
        # Of a whole number too large for a float this raises OverflowError.
        if isinstance(result, complex) or not math.isfinite(result):
            raise _Unfit("the result is not a number")
        return result

    return checked


def _power(base: float, exponent: float) -> Any:
    if abs(exponent) > _LARGEST_EXPONENT:
        raise _Unfit(f"the exponent {exponent} is beyond {_LARGEST_EXPONENT}")
    return base**exponent


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": _numeric(abs),
    "min": _numeric(lambda *numbers: min(numbers)),
    "max": _numeric(lambda *numbers: max(numbers)),
}
_UNARY: dict[type[ast.unaryop], Callable[..., Any]] = {
    ast.Not: lambda value: not _truth(value),
    ast.USub: _numeric(operator.neg),
    ast.UAdd: _numeric(operator.pos),
}
_ARITHMETIC: dict[type[ast.operator], Callable[..., Any]] = {
    ast.Add: _numeric(operator.add),
    ast.Sub: _numeric(operator.sub),
    ast.Mult: _numeric(operator.mul),
    ast.Div: _numeric(operator.truediv),
    ast.FloorDiv: _numeric(operator.floordiv),
    ast.Mod: _numeric(operator.mod),
    ast.Pow: _numeric(_power),
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

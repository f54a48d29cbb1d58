"""Any Nautilus strategy runs by its import path; its config class types, checks and completes the parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from ntrader.config import RunRequest, sha256
from ntrader.engine import simulate
from ntrader.errors import (
    BrokenStrategyError,
    ConfigError,
    RefusedParametersError,
    StrategyError,
    UnknownStrategyError,
)
from ntrader.fingerprints import code, documents
from ntrader.resolve import resolve
from ntrader.strategies.loader import build_strategy, complete_parameters, load_strategy, parameters_of
from ntrader.strategies.registry import strategy_path
from tests.factories import flat_bars, run_config

SMA = strategy_path("sma_crossover")

HEAD = """
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union
from datetime import timedelta
from msgspec import Meta
from nautilus_trader.config import PositiveInt, StrategyConfig
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import OrderSide
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import Price, Quantity
from nautilus_trader.trading.strategy import Strategy
"""

PLAIN = """
class BuyerConfig(StrategyConfig, frozen=True):
    instrument_id: InstrumentId
    bar_type: BarType
    trade_size: Decimal
    wait: PositiveInt = 2
    share: float = 1.0
    label: str | None = None

class Buyer(Strategy):
    def __init__(self, config: BuyerConfig) -> None:
        super().__init__(config)
        self.seen = 0

    def on_start(self) -> None:
        self.instrument = self.cache.instrument(self.config.instrument_id)
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar) -> None:
        self.seen += 1
        if self.seen == self.config.wait:
            quantity = self.instrument.make_qty(self.config.trade_size)
            self.submit_order(self.order_factory.market(self.config.instrument_id, OrderSide.BUY, quantity))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder; what was imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


_numbers = iter(range(1000))


def write(folder: Path, text: str, name: str = "") -> str:
    """A module of a name that no other test has used, in the current folder."""
    name = name or f"mine_{next(_numbers)}"
    (folder / f"{name}.py").write_text(HEAD + dedent(text))
    return name


def complete(folder: Path, text: str, **given: Any) -> dict[str, Any]:
    """The completed parameters of a strategy whose config class has these fields."""
    fields = "\n".join(f"    {line}" for line in dedent(text).strip().splitlines())
    module = write(folder, f"class SConfig(StrategyConfig, frozen=True):\n{fields}\nclass S(Strategy): ...\n")
    return complete_parameters(load_strategy(f"{module}:S"), given)


# Importing


def test_a_strategy_of_the_current_folder_is_found(folder: Path) -> None:
    module = write(folder, PLAIN)
    found = load_strategy(f"{module}:Buyer")
    assert (found.name, found.strategy_type, found.config.__name__) == ("Buyer", "custom", "BuyerConfig")


def test_a_strategy_of_a_package_in_the_current_folder_is_found(folder: Path) -> None:
    (folder / "my_pkg_a").mkdir()
    (folder / "my_pkg_a" / "helper.py").write_text("WAIT = 3\n")
    (folder / "my_pkg_a" / "mine.py").write_text(f"{HEAD}from .helper import WAIT\n{PLAIN}")
    assert load_strategy("my_pkg_a.mine:Buyer").name == "Buyer"


def test_spaces_around_the_colon_do_not_matter(folder: Path) -> None:
    module = write(folder, PLAIN)
    assert load_strategy(f" {module} : Buyer ").strategy.__name__ == "Buyer"


@pytest.mark.parametrize("path", ["nowhere_at_all:Mine", "nowhere_at_all.inner:Mine", "ntrader.nowhere:Mine"])
def test_a_missing_module_is_an_unknown_strategy(path: str) -> None:
    with pytest.raises(
        UnknownStrategyError, match=r"^there is no module '[a-z_.]*nowhere[a-z_]*' for strategy"
    ) as caught:
        load_strategy(path)
    assert caught.value.hint == "Install the package, or run ntrader in the folder that holds it."


@pytest.mark.parametrize("path", ["my/mine.py:Mine", "./my/mine.py:Mine", "my/mine:Mine", "my.mine.py:Mine"])
def test_a_file_name_is_answered_with_the_import_path(folder: Path, path: str) -> None:
    with pytest.raises(UnknownStrategyError, match="is not an import path") as caught:
        load_strategy(path)
    assert caught.value.hint == "Write it like my.mine:Mine."


@pytest.mark.parametrize(
    ("path", "example"),
    [(":Mine", "my_package.mine:Mine"), ("mine:", "mine:MyStrategy"), ("mine", "mine:MyStrategy"),
     (" : ", "my_package.mine:MyStrategy"), (".mine:Mine", "mine:Mine")],
)  # fmt: skip
def test_half_an_import_path_is_answered_with_an_example(path: str, example: str) -> None:
    with pytest.raises(UnknownStrategyError, match="is not an import path") as caught:
        load_strategy(path)
    assert caught.value.hint == f"Write it like {example}."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("from os import nothing_such\n", "ImportError: cannot import name 'nothing_such'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def (:\n", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
)
def test_an_error_inside_the_module_is_shown_with_its_traceback(folder: Path, text: str, message: str) -> None:
    module = write(folder, text)
    with pytest.raises(BrokenStrategyError) as caught:
        load_strategy(f"{module}:Mine")
    assert str(caught.value).startswith(f"importing {module} raised {message}")
    assert f"{module}.py" in (caught.value.traceback_text or "")


def test_a_missing_class_suggests_the_nearest_one() -> None:
    with pytest.raises(UnknownStrategyError, match="has no Nautilus Strategy named 'SMACrosover'") as caught:
        load_strategy("ntrader.strategies.sma_crossover:SMACrosover")
    assert caught.value.hint == "Did you mean ntrader.strategies.sma_crossover:SMACrossover?"


@pytest.mark.parametrize("name", ["Helper", "number", "Strategy", "nothing"])
def test_what_is_no_strategy_of_ones_own_is_refused(folder: Path, name: str) -> None:
    module = write(folder, "class Helper: ...\nnumber = 1\n")
    with pytest.raises(UnknownStrategyError, match=f"has no Nautilus Strategy named '{name}'") as caught:
        load_strategy(f"{module}:{name}")
    assert caught.value.hint is None


# The config class


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("class A(StrategyConfig, frozen=True): ...\n"
         "class S(Strategy):\n    def __init__(self, config: A): super().__init__(config)\n", "A"),
        ("class A(StrategyConfig, frozen=True): ...\n"
         "class S(Strategy):\n    def __init__(self, config: A | None = None): super().__init__(config)\n", "A"),
        ("class A(StrategyConfig, frozen=True): ...\n"
         "class S(Strategy):\n    def __init__(self, settings: Optional[A] = None): super().__init__(settings)\n", "A"),
        ("class A(StrategyConfig, frozen=True): ...\n"
         "class S(Strategy):\n    def __init__(self, config: 'A'): super().__init__(config)\n", "A"),
        ("class SConfig(StrategyConfig, frozen=True): ...\n"
         "class S(Strategy):\n    def __init__(self, config): super().__init__(config)\n", "SConfig"),
        ("class SConfig(StrategyConfig, frozen=True): ...\n"
         "class S(Strategy):\n    def __init__(self, config: 'Elsewhere'): super().__init__(config)\n", "SConfig"),
        ("class SConfig(StrategyConfig, frozen=True): ...\nclass S(Strategy): ...\n", "SConfig"),
        ("class A(StrategyConfig, frozen=True): ...\n"
         "class SConfig(A, frozen=True): ...\n"
         "class B(Strategy):\n    def __init__(self, config: A): super().__init__(config)\n"
         "class S(B): ...\n", "SConfig"),
        ("class A(StrategyConfig, frozen=True): ...\n"
         "class B(Strategy):\n    def __init__(self, config: A): super().__init__(config)\n"
         "class S(B): ...\n", "A"),
        ("class S(Strategy): ...\n", "StrategyConfig"),
        ("class S(Strategy):\n    def __init__(self): super().__init__()\n", "StrategyConfig"),
    ],
)  # fmt: skip
def test_the_config_class_is_found_and_the_strategy_built_with_it(folder: Path, text: str, config: str) -> None:
    path = f"{write(folder, text)}:S"
    found = load_strategy(path)
    assert found.config.__name__ == config
    built = build_strategy(run_config(strategy={"path": path}), flat_bars([1.0]))
    assert type(built) is found.strategy


def test_a_constructor_that_raises_is_a_strategy_error(folder: Path) -> None:
    path = f"{write(folder, 'class S(Strategy):\n    def __init__(self, config): 1 / 0\n')}:S"
    with pytest.raises(StrategyError, match=r"^constructing S raised ZeroDivisionError: division by zero$") as caught:
        build_strategy(run_config(strategy={"path": path}), flat_bars([1.0]))
    assert "in __init__" in (caught.value.traceback_text or "")


def test_a_plain_nautilus_strategy_runs(folder: Path) -> None:
    path = f"{write(folder, PLAIN)}:Buyer"
    parameters = complete_parameters(load_strategy(path), {"trade_size": "10"})
    result = simulate(run_config(strategy={"path": path, "parameters": parameters}), flat_bars([5.0, 6.0, 7.0, 8.0]))
    assert [(fill.side, fill.quantity, fill.price) for fill in result.fills] == [("buy", 10.0, 7.0)]


# Parameters


def test_every_default_is_written_out() -> None:
    assert complete_parameters(load_strategy(SMA), {"fast_period": 5}) == {
        "risk_percent": 2.0, "atr_period": 14, "atr_multiple": 2.0, "trade_size": None, "allow_short": False,
        "fast_period": 5, "slow_period": 50,
    }  # fmt: skip


def test_what_ntrader_fills_in_is_no_parameter(folder: Path) -> None:
    names = [item.name for item in parameters_of(load_strategy(f"{write(folder, PLAIN)}:Buyer"))]
    assert names == ["trade_size", "wait", "share", "label"]


@pytest.mark.parametrize("name", ["instrument_id", "bar_type", "oms_type", "strategy_id"])
def test_what_ntrader_fills_in_cannot_be_given(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^SMA Crossover has no parameter '{name}'$"):
        complete_parameters(load_strategy(SMA), {name: "x"})


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"fast_perod": 5}, "SMA Crossover has no parameter 'fast_perod'", "Did you mean 'fast_period'?"),
        ({"fast_period": "ten"}, "SMA Crossover: parameter fast_period: expected int, got 'ten'", None),
        ({"fast_period": 10.0}, "SMA Crossover: parameter fast_period: expected int, got 10.0", None),
        ({"fast_period": True}, "SMA Crossover: parameter fast_period: expected int, got True", None),
        ({"fast_period": None}, "SMA Crossover: parameter fast_period: expected int, got None", None),
        ({"fast_period": 0}, "SMA Crossover: parameter fast_period: expected int >= 1, got 0", None),
        ({"risk_percent": -1}, "SMA Crossover: parameter risk_percent: expected float > 0.0, got -1", None),
        ({"trade_size": 0}, "SMA Crossover: parameter trade_size: expected int >= 1, got 0", None),
        ({"trade_size": "x"}, "SMA Crossover: parameter trade_size: expected int | null, got 'x'", None),
        ({"allow_short": 1}, "SMA Crossover: parameter allow_short: expected bool, got 1", None),
        ({"fast_period": 50}, "SMA Crossover: fast_period 50 must be below slow_period 50", None),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(given: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        complete_parameters(load_strategy(SMA), given)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_a_slip_far_from_any_name_lists_them() -> None:
    with pytest.raises(ConfigError) as caught:
        complete_parameters(load_strategy(strategy_path("momentum")), {"zzz": 1})
    assert caught.value.hint == (
        "Known: risk_percent, atr_period, atr_multiple, trade_size, allow_short, lookback, threshold."
    )


def test_required_parameters_are_named_together(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^S needs a value for size, label$"):
        complete(folder, "size: Decimal\nlabel: str\nshare: float = 1.0")


def test_a_parameter_inside_another_is_named_by_its_place(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^S: parameter levels\[1\]: expected float, got str$"):
        complete(folder, "levels: list[float]", levels=[1.0, "x"])


@pytest.mark.parametrize("raised", ["KeyError('x')", "AssertionError('x')", "ZeroDivisionError('x')"])
def test_any_error_of_a_configs_own_check_is_a_config_error(folder: Path, raised: str) -> None:
    with pytest.raises(ConfigError, match=rf"^S: its parameters raised {raised.partition('(')[0]}: '?x'?$"):
        complete(folder, f"size: int = 1\ndef __post_init__(self):\n    raise {raised}")


@pytest.mark.parametrize(
    ("given", "kind"),
    [({"fast_period": 50}, RefusedParametersError), ({"fast_period": 0}, ConfigError), ({"fast": 1}, ConfigError)],
)
def test_what_fits_by_itself_and_not_together_is_told_apart(given: dict[str, Any], kind: type[ConfigError]) -> None:
    with pytest.raises(ConfigError) as caught:
        complete_parameters(load_strategy(SMA), given)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("type_", "given", "stored"),
    [
        ("float", 2, 2.0),
        ("float | None", 2, 2.0),
        ("Annotated[float, Meta(gt=0)]", 2, 2.0),
        ("list[float]", [1, 2.5], [1.0, 2.5]),
        ("dict[str, float]", {"a": 1}, {"a": 1.0}),
        ("tuple[float, ...]", [1], [1.0]),
        ("Decimal", 2, "2"),
        ("Decimal", 0.5, "0.5"),
        ("Decimal", "0.50", "0.5"),
        ("Decimal", "1E+2", "100"),
        ("list[Decimal]", ["1.0", 2], ["1", "2"]),
        ("Quantity", 5, "5"),
        ("Quantity", "5.0", "5.0"),
        ("Price", 1.25, "1.25"),
        ("InstrumentId", "AAPL.XNAS", "AAPL.XNAS"),
        ("BarType", "AAPL.XNAS-1-DAY-LAST-EXTERNAL", "AAPL.XNAS-1-DAY-LAST-EXTERNAL"),
        ("Literal['a', 'b']", "b", "b"),
        ("timedelta", "PT1H", "PT3600S"),
        ("Any", {"x": [1, None]}, {"x": [1, None]}),
    ],
)
def test_equal_values_are_stored_alike_and_read_back(folder: Path, type_: str, given: object, stored: object) -> None:
    module = write(folder, f"class SConfig(StrategyConfig, frozen=True):\n    x: {type_}\nclass S(Strategy): ...\n")
    found = load_strategy(f"{module}:S")
    complete = complete_parameters(found, {"x": given})
    assert complete == {"x": stored}
    assert type(complete["x"]) is type(stored)
    assert complete_parameters(found, complete) == complete


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_decimal_that_is_not_finite_is_refused(folder: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"^S: parameter x cannot be stored: {value} is not finite$"):
        complete(folder, "x: Decimal", x=value)


# What `ntrader strategy show` shows


@pytest.mark.parametrize(
    ("type_", "shown"),
    [
        ("int", "int"),
        ("Annotated[int, Meta(ge=1)]", "int"),
        ("Annotated[int, Meta(ge=1)] | None", "int or none"),
        ("Optional[Annotated[int, Meta(ge=1)]]", "int or none"),
        ("Union[int, float]", "int or float"),
        ("Literal['a', 'b']", "'a' or 'b'"),
        ("list[Annotated[float, Meta(gt=0)]]", "list[float]"),
        ("dict[str, list[int] | None]", "dict[str, list[int] or none]"),
        ("tuple[int, ...]", "tuple[int, ...]"),
        ("Decimal", "Decimal"),
        ("InstrumentId", "InstrumentId"),
        ("Any", "Any"),
        ("list", "list"),
    ],
)
def test_types_are_shown_readably(folder: Path, type_: str, shown: str) -> None:
    module = write(folder, f"class SConfig(StrategyConfig, frozen=True):\n    x: {type_}\nclass S(Strategy): ...\n")
    (parameter,) = parameters_of(load_strategy(f"{module}:S"))
    assert (parameter.name, parameter.type, parameter.required, parameter.default) == ("x", shown, True, None)


def test_descriptions_are_found_inside_optional_types() -> None:
    shown = {item.name: item for item in parameters_of(load_strategy(SMA))}
    assert (shown["trade_size"].type, shown["trade_size"].default) == ("int or none", None)
    assert shown["trade_size"].description.startswith("Fixed quantity instead of risk sizing")
    assert not [item.name for item in shown.values() if not item.description]
    assert (shown["fast_period"].type, shown["fast_period"].default, shown["fast_period"].required) == (
        "int",
        10,
        False,
    )


def test_defaults_are_shown_as_they_are_stored(folder: Path) -> None:
    module = write(
        folder,
        """
        class SConfig(StrategyConfig, frozen=True):
            size: Decimal = Decimal("1.50")
            levels: list[float] = []
            only: InstrumentId = InstrumentId.from_str("A.B")
        class S(Strategy): ...
        """,
    )
    found = load_strategy(f"{module}:S")
    assert {item.name: item.default for item in parameters_of(found)} == complete_parameters(found, {})
    assert complete_parameters(found, {}) == {"size": "1.5", "levels": [], "only": "A.B"}


# A strategy of one's own, from request to fingerprint


def test_whole_numbers_for_floats_make_equal_configs(tmp_path: Path) -> None:
    texts = {
        resolve(
            RunRequest(strategy=name, symbol="AAPL", parameters={"risk_percent": percent}), tmp_path
        ).canonical_json()
        for name, percent in (("sma_crossover", 2), ("SMA Crossover", 2.0), (SMA, 2))
    }
    assert len({sha256(text) for text in texts}) == 1


def test_an_edited_strategy_is_loaded_again_by_the_next_run(folder: Path, tmp_path: Path) -> None:
    path = f"{write(folder, PLAIN, name='edited_strategy')}:Buyer"
    request = RunRequest(strategy=path, symbol="AAPL", parameters={"trade_size": 1})
    assert resolve(request, tmp_path).strategy.parameters["wait"] == 2
    before = documents(code(path), [])["code"]
    write(folder, PLAIN.replace("wait: PositiveInt = 2", "wait: PositiveInt = 33"), name="edited_strategy")
    assert documents(code(path), [])["code"] == before
    assert resolve(request, tmp_path).strategy.parameters["wait"] == 33
    assert documents(code(path), [])["code"] != before

"""One thing is changed under a stored run, and reproducing it must name that thing and nothing else.

Where the results part is worked out here once more, by walking both runs' events in time order as SQL has them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from flows.reproduce import Reproduction, reproduce
from ntrader.config import RunConfig, canonical_json
from ntrader.data.bars import parse_timeframe
from ntrader.data.catalog import import_csv
from ntrader.errors import DatabaseError
from ntrader.fingerprints import fingerprints
from ntrader.results import Execution
from ntrader.settings import Settings
from ntrader.worker import default_worker
from storage.recording import save_success, start_run
from storage.rows import NewRun
from storage.runs import get_run
from tasks.run_backtest import run_backtest
from tests.factories import metrics_of
from tests.flows.stored import Own, events, make_own, tamper

pytestmark = pytest.mark.usefixtures("prefect_api")

SMA = "ntrader.strategies.sma_crossover"


# The independent model


def first_difference(settings: Settings, original: str, new: str) -> tuple[str, int, int, Any, Any] | None:
    """(kind, number, time, original, new) of the first event of either run that the other does not have."""
    one, other = list(events(settings, original)), list(events(settings, new))
    place = 0
    while place < min(len(one), len(other)) and bits(one[place]) == bits(other[place]):
        place += 1
    here, there = one[place : place + 1], other[place : place + 1]
    if not here and not there:
        return None
    time, rank, number = min(event[:3] for event in here + there)
    values = [event[0][3] if event and event[0][:3] == (time, rank, number) else None for event in (here, there)]
    return ("fill", "equity")[rank], number, time, values[0], values[1]


def bits(value: Any) -> Any:
    if isinstance(value, float):
        return struct.pack("<d", value)
    return tuple(map(bits, value)) if isinstance(value, tuple) else value


def same_place(settings: Settings, found: Reproduction) -> None:
    """The divergence that was found is the one that the model finds."""
    seen = first_difference(settings, str(found.original.run_id), str(found.run.run_id))
    said = found.verdict.divergence
    assert seen is not None
    assert said is not None
    kind, number, time, original, new = seen
    assert (said.kind, said.number, said.time) == (kind, number, time)
    for value, told in ((original, said.original), (new, said.new)):
        if kind == "equity":
            assert bits(value) == bits(told)
        elif value is not None:
            assert told is not None
            assert bits(value) == bits((told.side, told.quantity, told.price, told.fee, told.order_type))  # type: ignore[union-attr]


# What is run


@dataclass(frozen=True)
class Place:
    """A strategy and where its bars come from."""

    own: Own
    settings: Settings
    request: dict[str, Any]

    def run(self) -> str:
        return self.own.run(**self.request)

    def write(self) -> None:
        """Bring the bars to where they are read from."""
        self.own.data.write()
        if self.request.get("source") == "catalog":
            frame = parse_timeframe("1-DAY")
            import_csv(self.settings.home, self.own.data.path, self.request["symbol"], "SIM", frame, replace=True)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    monkeypatch.chdir(tmp_path)
    return make_own(tmp_path)


@pytest.fixture(params=["own csv", "own catalog", "sma csv", "sma catalog"])
def place(request: pytest.FixtureRequest, own: Own, environment: Settings) -> Place:
    strategy, source = request.param.split()
    asked: dict[str, Any] = {}
    if strategy == "sma":
        asked |= {"strategy": "sma_crossover", "parameters": {"fast_period": 3, "slow_period": 8, "atr_period": 5}}
    if source == "catalog":
        asked |= {"source": "catalog", "data_path": None, "symbol": own.package.upper(), "venue": "SIM"}
    made = Place(own, environment, asked)
    made.write()
    return made


def day_of_fill(place: Place, run: str, number: int) -> str:
    """The day on whose open the fill happened."""
    fills = [event for event in events(place.settings, run) if event[1] == 0]
    days = fills[number - 1][0] // 86_400_000_000_000
    return str(np.datetime64(days, "D"))


# One change of the bars


def a_tick_in_the_price_that_is_paid(place: Place, run: str) -> None:
    place.own.data.rows[day_of_fill(place, run, 1)][0] += 0.01


def a_tick_in_the_close_while_a_position_is_held(place: Place, run: str) -> None:
    row = place.own.data.rows[day_of_fill(place, run, 1)]
    row[3] = round(row[3] + 0.01, 2)


def a_bar_less(place: Place, run: str) -> None:
    del place.own.data.rows["2020-03-15"]


def a_bar_more_at_the_end(place: Place, run: str) -> None:
    place.own.data.rows["2020-05-02"] = [100.0, 101.0, 99.0, 100.5, 10_000.0]


def a_bar_more_at_the_beginning(place: Place, run: str) -> None:
    place.own.data.rows["2019-12-31"] = [100.0, 101.0, 99.0, 100.5, 10_000.0]


def the_volume_of_a_bar(place: Place, run: str) -> None:
    place.own.data.rows["2020-03-01"][4] += 1


MATTERS = [a_tick_in_the_price_that_is_paid, a_tick_in_the_close_while_a_position_is_held, a_bar_less,
           a_bar_more_at_the_end, a_bar_more_at_the_beginning]  # fmt: skip


def some(values: Iterable[Any], keep: int) -> list[Any]:
    """The first of them for every day, all of them with `-m long`."""
    marked = (pytest.param(value, marks=pytest.mark.long) for value in [*values][keep:])
    return [*[*values][:keep], *marked]


def caused(found: Reproduction, moved: str, factors: str, words: str, *, proven: bool = True) -> None:
    assert not found.verdict.identical
    assert found.verdict.moved == tuple(moved.split())
    assert found.explanation is not None
    cause = found.explanation.cause
    assert (cause.factors, cause.proven) == (tuple(factors.split()), proven), cause
    assert cause.sentence.startswith(words), cause


@pytest.mark.parametrize("change", some(MATTERS, 2))
def test_a_change_of_the_bars_that_matters_is_the_cause(
    place: Place, change: Callable[[Place, str], None], environment: Settings
) -> None:
    run = place.run()
    before = {day: list(row) for day, row in place.own.data.rows.items()}
    change(place, run)
    place.write()

    found = reproduce(run)

    caused(found, "data", "data", "Caused by data alone: ")
    same_place(environment, found)
    assert found.explanation is not None
    assert found.explanation.data is not None
    after = place.own.data.rows
    days = [day for day in sorted(before | after) if before.get(day) != after.get(day)]
    said = found.explanation.data
    assert list(said.days) == days
    assert (said.added, said.removed) == (len(after.keys() - before.keys()), len(before.keys() - after.keys()))
    assert said.changed == len(days) - said.added - said.removed


def test_a_change_of_the_bars_that_does_not_matter_is_not_a_cause(place: Place) -> None:
    run = place.run()
    the_volume_of_a_bar(place, run)
    place.write()

    found = reproduce(run)

    assert found.verdict.identical
    assert found.verdict.moved == ("data",)
    assert found.explanation is None


def test_a_tick_in_a_close_that_nobody_looks_at_does_not_matter(own: Own) -> None:
    run = own.run()
    lowest = min(own.data.rows, key=lambda day: own.data.rows[day][3])
    own.data.rows[lowest][3] = round(own.data.rows[lowest][3] + 0.01, 2)
    own.data.write()

    assert reproduce(run).verdict.identical


def test_the_original_comes_back_with_the_original_bars(own: Own) -> None:
    run = own.run()
    for row in own.data.rows.values():
        row[:4] = [round(price / 2, 3) for price in row[:4]]
    own.data.write()

    assert reproduce(run, with_original_data=True).verdict.identical
    caused(reproduce(run), "data", "data", "Caused by data alone: ")


# One change of the code

CODE_THAT_MATTERS = {
    "a constant of the package": ("__init__.py", "MARGIN = 1.0", "MARGIN = 1.5"),
    "a line of the helper": ("rules.py", "close > limit + ", "close > limit - "),
    "a number below the helper": ("inner/steps.py", "1.0", "2.0"),
    "a line of the strategy": ("mine.py", "float(bar.close)", "float(bar.open)"),
    "a comparison": ("mine.py", "if long else OrderSide.SELL", "if not long else OrderSide.SELL"),
}
CODE_THAT_DOES_NOT = {
    "a comment": ("mine.py", "        long = wants", "        # What now?\n        long = wants"),
    "a comment in the helper": ("rules.py", "from . import MARGIN", "from . import MARGIN  # ours"),
    "a docstring": ("rules.py", '"""When to be long."""', '"""When to be in."""'),
    "the default of a parameter": ("mine.py", "limit: float = 100.0", "limit: float = 90.0"),
    "a parameter more": ("mine.py", "quantity: int = 10", "quantity: int = 10\n    patience: int = 3"),
}


@pytest.mark.parametrize("what", some(CODE_THAT_MATTERS, 2))
def test_a_change_of_the_code_that_matters_is_the_cause(what: str, own: Own, environment: Settings) -> None:
    part, old, new = CODE_THAT_MATTERS[what]
    run = own.run(account_type="MARGIN")
    own.change(part, old, new)

    found = reproduce(run)

    caused(found, "code", "code", "Caused by code alone: ")
    same_place(environment, found)
    assert found.explanation is not None
    assert found.explanation.code is not None
    module = f"{own.package}/{part}".removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    (changed,) = found.explanation.code.modules
    assert (changed.module, changed.kind, changed.only_comments) == (module, "changed", False)


@pytest.mark.parametrize("what", some(CODE_THAT_DOES_NOT, 1))
def test_a_change_of_the_code_that_does_not_matter_is_not_a_cause(what: str, own: Own) -> None:
    part, old, new = CODE_THAT_DOES_NOT[what]
    run = own.run()
    own.change(part, old, new)

    found = reproduce(run)

    assert found.verdict.identical
    assert found.verdict.moved == ("code",)
    assert found.explanation is None


# Both, of which one matters, both, or only both


def code_matters(own: Own) -> None:
    own.change("__init__.py", "MARGIN = 1.0", "MARGIN = 1.5")


def code_does_not(own: Own) -> None:
    own.change("rules.py", "from . import MARGIN", "from . import MARGIN  # ours")


def data_matter(own: Own) -> None:
    # While a position is held, and on no day on which the code decides otherwise.
    highest = max(own.data.rows, key=lambda day: own.data.rows[day][3])
    own.data.rows[highest][3] = round(own.data.rows[highest][3] + 0.01, 2)


def data_do_not(own: Own) -> None:
    own.data.rows["2020-03-01"][4] += 1


BOTH: dict[str, tuple[Callable[[Own], None], Callable[[Own], None], str, str]] = {
    "code": (data_do_not, code_matters, "code", "Caused by code alone: "),
    "data": (data_matter, code_does_not, "data", "Caused by data alone: "),
    "both": (data_matter, code_matters, "data code", "Caused by data and code together: only with all of them"),
}


@pytest.mark.parametrize("which", BOTH)
def test_of_two_changes_the_one_that_matters_is_named(which: str, own: Own, environment: Settings) -> None:
    change_data, change_code, factors, words = BOTH[which]
    run = own.run()
    change_data(own)
    own.data.write()
    change_code(own)

    found = reproduce(run)

    caused(found, "data code", factors, words)
    same_place(environment, found)


def test_two_changes_that_matter_only_together_are_both_named(own: Own, environment: Settings) -> None:
    """The code now skips bars of one volume; there was none of that volume before."""
    run = own.run()
    place = Place(own, environment, {})
    own.change(
        "mine.py", "        long = wants", "        if int(bar.volume) == 77:\n            return\n        long = wants"
    )
    signal = sorted(own.data.rows).index(day_of_fill(place, run, 1)) - 1
    own.data.rows[sorted(own.data.rows)[signal]][4] = 77.0
    own.data.write()

    found = reproduce(run)

    caused(found, "data code", "data code", "Caused by data and code together: with either as it was")
    same_place(environment, found)


def test_with_one_of_two_put_back_by_hand_the_other_is_the_cause(own: Own, environment: Settings) -> None:
    run = own.run()
    data_matter(own)
    own.data.write()
    code_matters(own)

    without_data = reproduce(run, with_original_data=True)
    without_code = reproduce(run, with_original_code=True)

    caused(without_data, "code", "code", "Caused by code alone: ")
    caused(without_code, "data", "data", "Caused by data alone: ")
    same_place(environment, without_data)
    same_place(environment, without_code)


# What a former ntrader, engine or machine would have stored


def stored(settings: Settings, config: RunConfig, execution: Execution, **documents: Any) -> str:
    """A run with that result, of an engine or environment that is not this one."""
    assert execution.inputs is not None
    texts = execution.inputs.documents | {name: canonical_json(value) for name, value in documents.items()}
    run = NewRun(uuid4(), config, "SMA Crossover", "trend_following")
    changed = replace(
        execution,
        fingerprints=fingerprints(config, execution.fingerprints.data, texts),
        inputs=replace(execution.inputs, documents=texts),
    )
    start_run(settings, run)
    save_success(settings, run.run_id, changed, metrics_of(changed))
    return str(run.run_id)


def sma(own: Own, settings: Settings) -> RunConfig:
    parameters = {"fast_period": 3, "slow_period": 8, "atr_period": 5}
    request = own.request(strategy="sma_crossover", parameters=parameters)
    config: RunConfig = default_worker().call("ntrader.resolve:resolve", request, settings.home)
    return config


def otherwise_filled(config: RunConfig, settings: Settings) -> Execution:
    """What an engine with other fills makes of the config: at the close instead of the next open."""
    return run_backtest.fn(
        config.model_copy(update={"venue": config.venue.model_copy(update={"fill_timing": "close"})}), settings.home
    )


OLD_ENGINE = ["1.230.0", False]


def environments(execution: Execution) -> dict[str, Any]:
    assert execution.inputs is not None
    now: dict[str, Any] = json.loads(execution.inputs.documents["environment"])
    with_old_engine = now | {"libraries": now["libraries"] | {"nautilus-trader": "1.230.0"}}
    return {
        "old engine": with_old_engine,
        "old python": now | {"python": "3.12.1"},
        "old both": with_old_engine | {"python": "3.12.1"},
    }


ELSEWHERE = {
    "engine": ("old engine", "engine environment", "engine", True, "Caused by engine: the run is repeatable"),
    "environment": ("old python", "environment", "environment", True, "Caused by environment: the run is repeatable"),
    "either": ("old both", "engine environment", "engine environment", False, "Caused by engine or environment: which"),
}


@pytest.mark.parametrize("which", some(ELSEWHERE, 1))
def test_another_engine_or_machine_is_named_where_nothing_else_is_left(
    which: str, own: Own, environment: Settings
) -> None:
    older, moved, factors, proven, words = ELSEWHERE[which]
    config = sma(own, environment)
    other = otherwise_filled(config, environment)
    documents = {"environment": environments(other)[older]} | ({"engine": OLD_ENGINE} if "engine" in moved else {})
    run = stored(environment, config, other, **documents)

    found = reproduce(run)

    caused(found, moved, factors, words, proven=proven)
    same_place(environment, found)
    assert found.explanation is not None
    if "engine" in moved:
        assert found.explanation.engine is not None
        assert [each[0] for each in found.explanation.engine] == ["1.230.0", "1.231.0"]
    names = {"old engine": {"libraries.nautilus-trader"}, "old python": {"python"}}
    assert set(found.explanation.environment) == names.get(older, set().union(*names.values()))


@pytest.mark.parametrize("older", some(["old engine", "old python", "old both"], 1))
def test_another_engine_or_machine_with_the_same_result_is_no_cause(
    older: str, own: Own, environment: Settings
) -> None:
    config = sma(own, environment)
    same = run_backtest.fn(config, environment.home)
    documents = {"environment": environments(same)[older]} | ({"engine": OLD_ENGINE} if "python" not in older else {})

    found = reproduce(stored(environment, config, same, **documents))

    assert found.verdict.identical
    assert found.verdict.moved == (("engine", "environment") if "engine" in documents else ("environment",))
    assert found.explanation is None


@pytest.mark.parametrize("matters", [True, False])
def test_beside_another_engine_a_change_of_the_bars_is_named_if_it_matters(
    matters: bool, own: Own, environment: Settings
) -> None:
    config = sma(own, environment)
    other = otherwise_filled(config, environment)
    run = stored(environment, config, other, engine=OLD_ENGINE)
    if matters:
        a_bar_less(Place(own, environment, {}), run)
    else:
        data_do_not(own)
    own.data.write()

    found = reproduce(run)

    caused(
        found, "data engine", "data engine" if matters else "engine",
        "Caused by engine: with the original data the result still differs",
    )  # fmt: skip
    assert found.explanation is not None
    assert ("A change of data matters too." in found.explanation.cause.sentence) == matters
    same_place(environment, found)


FORMER = {
    "another comparison": ("above = self._fast.value > self._slow.value",
                           "above = self._fast.value > 1.01 * self._slow.value", False),
    "a comment": ("        crossed = ", "        # At last.\n        crossed = ", True),
}  # fmt: skip


@pytest.mark.parametrize("what", some(FORMER, 1))
def test_a_shipped_strategy_of_a_former_version_is_run_as_it_was(what: str, own: Own, environment: Settings) -> None:
    """The original is really run with the former text, as `--with-original-code` would run it."""
    now, then, same = FORMER[what]
    config = sma(own, environment)
    here = run_backtest.fn(config, environment.home)
    assert here.inputs is not None
    assert here.inputs.sources[SMA].count(now) == 1
    former = here.inputs.sources | {SMA: here.inputs.sources[SMA].replace(now, then)}
    made = run_backtest.fn(config, environment.home, None, former)
    run = stored(environment, config, made)
    assert get_run(environment, run).code_fingerprint != here.fingerprints.code

    found = reproduce(run)

    assert reproduce(run, with_original_code=True).verdict.identical
    if same:
        assert found.verdict.identical
        assert found.verdict.moved == ("code",)
        return
    caused(found, "code", "code", "Caused by code alone: ")
    same_place(environment, found)
    assert found.explanation is not None
    assert found.explanation.code is not None
    assert [module.module for module in found.explanation.code.modules] == [SMA]


@pytest.mark.parametrize("tampered", [False, True])
def test_a_former_ntrader_that_told_other_trades_is_no_tampering(
    tampered: bool, own: Own, environment: Settings
) -> None:
    """The digest is over those trades, and they cannot be told from the fills any more."""
    config = sma(own, environment)
    here = run_backtest.fn(config, environment.home)
    assert here.inputs is not None
    text = here.inputs.sources["ntrader.trades"]
    former = here.inputs.sources | {"ntrader.trades": f"{text}\n\ndef round_trips(fills):\n    return (), 0.0\n"}
    run = stored(environment, config, run_backtest.fn(config, environment.home, None, former))
    if tampered:
        tamper(environment, "UPDATE kept_contents SET content = content || '\\x20' WHERE kind = 'source'")
        with pytest.raises(DatabaseError, match="is not the one that was saved"):
            reproduce(run)
        return

    found = reproduce(run)

    caused(found, "code", "code", "Caused by code alone: ")
    # Fills and equity are the same: only what is told from them is not.
    assert found.verdict.divergence is None

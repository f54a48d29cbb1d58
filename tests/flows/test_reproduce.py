"""The reproduce and verify flows on real parts: what was stored runs again, or it is said why not and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.reproduce import Reproduction, reproduce
from flows.verify import verify
from ntrader.errors import BadDataError, ConfigError, DatabaseError, DataNotFoundError, NotFoundError, NtraderError
from ntrader.settings import Settings
from ntrader.summary import verdict_line
from storage.runs import get_run, list_runs
from tests.flows.stored import Own, make_own, tamper

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    monkeypatch.chdir(tmp_path)
    return make_own(tmp_path)


def as_stored(found: Reproduction) -> None:
    assert found.verdict.identical
    assert found.execution.result_digest == found.original.result_digest
    assert found.explanation is None


# Identical


def test_an_unchanged_world_gives_the_same_result_to_the_bit(own: Own, environment: Settings) -> None:
    first = own.run()

    found = reproduce(first)

    as_stored(found)
    assert found.verdict.moved == ()
    result = found.execution.result
    counts = f"{len(result.fills)} fills, {len(result.trades)} trades, {len(result.equity_curve)} equity points"
    assert verdict_line(found.verdict) == f"identical: {counts}"
    assert len(result.fills) > 4
    new, old = get_run(environment, str(found.run.run_id)), get_run(environment, first)
    assert new.reproduced_from_run_id == old.run_id
    assert (new.run_key, new.result_digest) == (old.run_key, old.result_digest)
    assert new.config_snapshot == old.config_snapshot
    assert new.metrics == old.metrics


def test_a_reproduction_is_a_run_like_any_other_and_can_be_reproduced(own: Own, environment: Settings) -> None:
    again = reproduce(str(reproduce(own.run()).run.run_id))

    as_stored(again)
    assert len(list_runs(environment, 10).runs) == 3


def test_nothing_is_saved_where_that_is_not_wanted(own: Own, environment: Settings) -> None:
    found = reproduce(own.run(), save=False)

    as_stored(found)
    assert not found.saved
    assert len(list_runs(environment, 10).runs) == 1


@pytest.mark.parametrize(
    "parameters",
    [{"quantity": 3}, {"limit": 1e20}, {"limit": 1e-20}, {"limit": 0.1 + 0.2}, {"limit": -0.0}, {"limit": 1e16}],
    ids=str,
)
def test_the_config_comes_back_as_it_was_whatever_the_numbers(own: Own, parameters: dict[str, Any]) -> None:
    found = reproduce(own.run(parameters=parameters))

    as_stored(found)
    assert found.execution.fingerprints.run_key == found.original.run_key


@pytest.mark.parametrize("strategy", ["sma_crossover", "mean_reversion", "momentum"])
@pytest.mark.parametrize("kept", [False, True], ids=["now", "kept"])
def test_shipped_strategies_come_out_the_same_from_what_is_there_and_from_what_was_kept(
    own: Own, strategy: str, kept: bool
) -> None:
    request = {"strategy": strategy, "symbol": "AAPL", "source": "sample", "data_path": None, "end": "2009-12-31"}

    found = reproduce(own.run(**request), with_original_data=kept, with_original_code=kept)

    as_stored(found)
    assert found.verdict.moved == ()


# With what was kept


def remove_the_strategy(own: Own) -> None:
    own.file("mine.py").unlink()


def remove_the_package(own: Own) -> None:
    shutil.rmtree(own.folder / own.package)


def change_a_submodule(own: Own) -> None:
    own.change("inner/steps.py", "1.0", "4.0")


def change_the_package_itself(own: Own) -> None:
    own.change("__init__.py", "MARGIN = 1.0", "MARGIN = -3.0")


def change_a_relative_import(own: Own) -> None:
    own.change("rules.py", "from .inner.steps import step", "def step() -> float:\n    return 5.0")


def break_the_strategy(own: Own) -> None:
    own.file("mine.py").write_text("this is no Python\n")


def turn_a_package_into_a_module(own: Own) -> None:
    shutil.rmtree(own.folder / own.package / "inner")
    own.file("inner.py").write_text("")


@pytest.mark.parametrize(
    "change",
    [remove_the_strategy, remove_the_package, change_a_submodule, change_the_package_itself, change_a_relative_import,
     break_the_strategy, turn_a_package_into_a_module],
)  # fmt: skip
def test_the_original_code_runs_whatever_became_of_it(own: Own, change: Callable[[Own], None]) -> None:
    first = own.run()
    change(own)

    found = reproduce(first, with_original_code=True)

    as_stored(found)
    assert found.verdict.moved == ()


def test_the_code_that_is_there_is_not_touched_by_running_the_original(own: Own) -> None:
    first = own.run()
    change_a_submodule(own)
    changed = own.run()

    as_stored(reproduce(first, with_original_code=True))
    as_stored(reproduce(changed))


def test_a_package_without_an_init_file_can_be_gone_altogether(own: Own) -> None:
    own.file("__init__.py").unlink()
    own.change("rules.py", "from . import MARGIN", "MARGIN = 1.0")
    first = own.run()
    remove_the_package(own)

    as_stored(reproduce(first, with_original_code=True))


def test_a_strategy_that_reads_a_file_beside_its_own_still_finds_it(own: Own) -> None:
    own.file("step.txt").write_text("1.0")
    own.file("inner/steps.py").write_text(
        "from pathlib import Path\n\nTEXT = Path(__file__).parent.parent / 'step.txt'\n\n\n"
        "def step() -> float:\n    return float(TEXT.read_text())\n"
    )
    first = own.run()
    own.change("__init__.py", "1.0", "9.0")

    as_stored(reproduce(first, with_original_code=True))


def test_the_original_bars_are_there_when_the_file_is_gone(own: Own) -> None:
    first = own.run()
    own.data.path.unlink()

    with pytest.raises(DataNotFoundError) as raised:
        reproduce(first)
    found = reproduce(first, with_original_data=True)

    assert str(own.data.path) in raised.value.message
    assert raised.value.hint == "The bars of the original were kept: add --with-original-data."
    as_stored(found)


def test_the_original_bars_and_code_together_need_nothing_else(own: Own) -> None:
    first = own.run()
    own.data.path.unlink()
    remove_the_package(own)

    as_stored(reproduce(first, with_original_data=True, with_original_code=True))


# What was not kept


def test_bars_that_were_not_kept_cannot_be_had(own: Own) -> None:
    first = own.run(keep_data=False)

    with pytest.raises(NotFoundError, match="--no-keep-data"):
        reproduce(first, with_original_data=True)
    as_stored(reproduce(first, with_original_code=True))


def test_of_bars_that_were_not_kept_the_days_that_changed_are_named(own: Own) -> None:
    first = own.run(keep_data=False)
    for day in ("2020-02-03", "2020-03-20"):
        own.data.rows[day][1] += 40
        own.data.rows[day][3] += 40
    own.data.write()

    found = reproduce(first)

    assert found.explanation is not None
    assert found.explanation.data is None
    assert found.explanation.days == ("2020-02-03", "2020-03-20")
    assert found.explanation.cause.factors == ("data",)


def test_bars_that_another_run_has_kept_are_kept(own: Own) -> None:
    first = own.run(keep_data=False)
    own.run()

    as_stored(reproduce(first, with_original_data=True))


def test_a_reproduction_keeps_what_the_original_did_not(own: Own) -> None:
    first = own.run(keep_data=False)
    reproduce(first)
    own.data.path.unlink()

    as_stored(reproduce(first, with_original_data=True))


def test_code_that_was_not_kept_cannot_be_had(own: Own, environment: Settings) -> None:
    first = own.run()
    tamper(environment, "DELETE FROM kept_contents WHERE kind = 'source'")

    with pytest.raises(NotFoundError, match=r"the code of run .* was not kept"):
        reproduce(first, with_original_code=True)
    as_stored(reproduce(first))


# What cannot be run any more


def other_parameter(own: Own) -> None:
    own.file("mine.py").write_text(own.file("mine.py").read_text().replace("limit", "bound"))


def other_class(own: Own) -> None:
    own.file("mine.py").write_text(own.file("mine.py").read_text().replace("class Mine(", "class Yours("))


GONE: dict[str, tuple[Callable[[Own], None], str]] = {
    "parameter removed": (other_parameter, "Mine has no parameter 'limit'"),
    "class gone": (other_class, "has no Nautilus Strategy named 'Mine'"),
    "module broken": (break_the_strategy, "raised SyntaxError"),
    "module gone": (remove_the_strategy, "there is no module"),
    "package gone": (remove_the_package, "there is no module"),
}


@pytest.mark.parametrize("what", GONE)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_a_strategy_that_is_gone_is_said_with_the_next_step(
    what: str, kept: bool, own: Own, environment: Settings
) -> None:
    change, words = GONE[what]
    first = own.run()
    change(own)
    if not kept:
        tamper(environment, "DELETE FROM kept_contents WHERE kind = 'source'")

    with pytest.raises(ConfigError) as raised:
        reproduce(first)

    assert raised.value.message.startswith(f"the strategy of run {first} cannot be run any more: ")
    assert words in raised.value.message
    assert ("--with-original-code" in str(raised.value.hint)) == kept
    # Nothing was run, so nothing is recorded.
    assert len(list_runs(environment, 10).runs) == 1


def test_a_run_without_a_result_is_refused(own: Own, environment: Settings) -> None:
    own.data.path.write_text("date,open\n")
    with pytest.raises(BadDataError):
        own.run()
    (failed,) = list_runs(environment, 10).runs

    with pytest.raises(ConfigError, match="is failed and has no result") as raised:
        reproduce(str(failed.run_id))

    assert "run-backtest --config again.yaml" in str(raised.value.hint)


def test_a_strategy_that_raises_now_leaves_a_failed_run_linked_to_the_original(own: Own, environment: Settings) -> None:
    first = own.run()
    own.change("inner/steps.py", "return 1.0", "raise RuntimeError('no steps')")

    with pytest.raises(NtraderError, match="no steps"):
        reproduce(first)

    new = list_runs(environment, 10).runs[0]
    assert (new.execution_status, str(new.reproduced_from_run_id)) == ("failed", first)


# What somebody changed in the database


TAMPERED = {
    "equity": "UPDATE equity_curves SET equity[3] = equity[3] + 0.01",
    "price of a fill": "UPDATE fills SET prices[1] = prices[1] + 0.01",
    "digest": "UPDATE backtest_runs SET result_digest = repeat('0', 64)",
    "capital": "UPDATE backtest_runs SET initial_capital = initial_capital + 1",
    "config": "UPDATE backtest_runs SET config_snapshot = jsonb_set(config_snapshot, '{seed}', '7')",
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_result_that_was_changed_in_the_database_is_no_original(what: str, own: Own, environment: Settings) -> None:
    first = own.run()
    tamper(environment, TAMPERED[what])

    with pytest.raises(DatabaseError, match="is not the one that was saved") as raised:
        reproduce(first)

    assert "backup" in str(raised.value.hint)
    (checked,) = verify([first])
    assert not checked.holds
    assert "is not the one that was saved" in str(checked.error)


def test_kept_bars_that_were_changed_are_not_run(own: Own, environment: Settings) -> None:
    first, other = own.run(), own.data
    other.rows["2020-02-03"][3] += 0.01
    other.write()
    own.run()
    # The chunk of the other run in the place of the first one's: sound in itself, and not what was kept.
    tamper(
        environment,
        "UPDATE kept_contents SET content = (SELECT content FROM kept_contents WHERE kind = 'bars'"
        " ORDER BY created_at DESC LIMIT 1) WHERE kind = 'bars'",
    )

    with pytest.raises(BadDataError, match="the kept bars of OWN are damaged"):
        reproduce(first, with_original_data=True)


@pytest.mark.parametrize("kind", ["source", "document"])
def test_kept_code_that_was_changed_is_not_run(kind: str, own: Own, environment: Settings) -> None:
    first = own.run()
    tamper(environment, f"UPDATE kept_contents SET content = content || ' ' WHERE kind = '{kind}'")

    with pytest.raises(BadDataError, match="is damaged"):
        reproduce(first, with_original_code=True)


def test_what_is_damaged_is_said_and_does_not_hide_the_verdict(own: Own, environment: Settings) -> None:
    first = own.run()
    tamper(environment, "UPDATE kept_contents SET content = content || ' ' WHERE kind = 'source'")
    change_a_submodule(own)

    found = reproduce(first)

    assert not found.verdict.identical
    assert found.explanation is not None
    assert len(found.explanation.damaged) == 1
    assert "is damaged" in found.explanation.damaged[0]
    assert (found.explanation.cause.factors, found.explanation.code) == (("code",), None)


# Verify


def test_verify_checks_many_runs_and_saves_none(own: Own, environment: Settings) -> None:
    same, other, gone = own.run(), own.run(parameters={"limit": 97.0}), own.run(strategy="momentum")
    tamper(environment, f"UPDATE equity_curves SET equity[1] = 1 WHERE backtest_run_id ="
                        f" (SELECT id FROM backtest_runs WHERE run_id = '{other}')")  # fmt: skip

    checked = verify([gone, other, same])

    assert [str(each.run_id) for each in checked] == [gone, other, same]
    assert [each.holds for each in checked] == [True, False, True]
    assert len(list_runs(environment, 10).runs) == 3


def test_verify_says_where_a_result_parts_and_goes_on(own: Own) -> None:
    first, second = own.run(), own.run(strategy="momentum")
    own.change("inner/steps.py", "1.0", "4.0")

    changed, same = verify([first, second])

    assert changed.verdict is not None
    assert changed.verdict.divergence is not None
    assert changed.verdict.moved == ("code",)
    assert same.holds

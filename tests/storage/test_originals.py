"""A stored success as a reproduction needs it, or a refusal that says why."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from ntrader.config import sha256
from ntrader.digest import result_digest
from ntrader.engine import simulate
from ntrader.errors import ConfigError, DatabaseError
from ntrader.results import Execution, Fingerprints
from ntrader.settings import Settings
from storage import recording
from storage.originals import read_original
from storage.rows import Failure
from storage.runs import get_run
from tests import factories
from tests.flows.stored import tamper

CLOSES = [100.0, 101.0, 99.0, 104.0, 98.0, 103.0, 97.0, 105.0]


def simulated(**changes: Any) -> tuple[Execution, Any]:
    """A result of the engine's, with the digest that it has."""
    script = {"1": "buy 10", "3": "sell 10", "5": "buy 4"}
    config = factories.run_config(strategy={"path": "tests.scripted:Scripted", "parameters": {"script": script}})
    result = simulate(config, factories.flat_bars(CLOSES))
    prints = Fingerprints(sha256(config.canonical_json()), *(letter * 64 for letter in "bcdef"))
    return factories.execution(result, fingerprints=prints, result_digest=result_digest(result)), config


@pytest.fixture
def stored(settings: Settings) -> tuple[UUID, Execution]:
    execution, config = simulated()
    run = factories.new_run(config=config)
    recording.start_run(settings, run)
    recording.save_success(settings, run.run_id, execution, factories.metrics_of(execution))
    return run.run_id, execution


def test_an_original_has_the_result_that_was_saved_to_the_bit(
    settings: Settings, stored: tuple[UUID, Execution]
) -> None:
    run_id, execution = stored

    original = read_original(settings, get_run(settings, str(run_id)))

    assert original.is_whole
    assert original.has_fills
    assert original.result.fills == execution.result.fills
    assert original.result.trades == execution.result.trades
    assert original.result.open_quantity == execution.result.open_quantity == 4
    assert original.result.equity_curve.equity.tobytes() == execution.result.equity_curve.equity.tobytes()
    assert original.fingerprints == execution.fingerprints
    assert result_digest(original.result) == original.result_digest == execution.result_digest


def test_a_run_from_before_fills_were_kept_is_an_original_without_them(
    settings: Settings, stored: tuple[UUID, Execution]
) -> None:
    run_id, execution = stored
    tamper(settings, "DELETE FROM fills")

    original = read_original(settings, get_run(settings, str(run_id)))

    assert not original.has_fills
    assert original.is_whole
    assert original.result_digest == execution.result_digest


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_without_a_result_says_how_it_ended_and_how_to_run_it_anew(settings: Settings, status: str) -> None:
    run = factories.new_run()
    recording.start_run(settings, run)
    recording.save_failure(settings, run.run_id, Failure(status, "StrategyError", "it broke", None))

    with pytest.raises(ConfigError, match=f"is {status} and has no result to compare with: it broke") as raised:
        read_original(settings, get_run(settings, str(run.run_id)))

    assert f"ntrader history show {str(run.run_id)[:8]} --config" in str(raised.value.hint)


def test_a_run_that_is_still_running_is_refused(settings: Settings) -> None:
    run = factories.new_run()
    recording.start_run(settings, run)

    with pytest.raises(ConfigError, match="is running and has no result"):
        read_original(settings, get_run(settings, str(run.run_id)))


TAMPERED = {
    "equity": "UPDATE equity_curves SET equity[3] = equity[3] + 1e-9",
    "time of a point": "UPDATE equity_curves SET steps[3] = steps[3] + 1",
    "price": "UPDATE fills SET prices[2] = 99.5",
    "fee": "UPDATE fills SET fees[1] = 0.01",
    "side": "UPDATE fills SET sides[1] = 'sell'",
    "order of fills": "UPDATE fills SET prices = ARRAY[prices[2], prices[1], prices[3]]",
    "capital": "UPDATE backtest_runs SET initial_capital = 1",
    "digest": "UPDATE backtest_runs SET result_digest = repeat('a', 64)",
    "config": "UPDATE backtest_runs SET config_snapshot = jsonb_set(config_snapshot, '{venue,slippage}', '0.5')",
    "config without a field": "UPDATE backtest_runs SET config_snapshot = config_snapshot - 'seed'",
    "curve gone": "DELETE FROM equity_curves",
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_in_the_database_is_noticed(
    settings: Settings, stored: tuple[UUID, Execution], what: str
) -> None:
    tamper(settings, TAMPERED[what])

    with pytest.raises(DatabaseError, match=r"is not the one that was saved|has no equity curve") as raised:
        read_original(settings, get_run(settings, str(stored[0])))

    assert "backup" in str(raised.value.hint)


@pytest.mark.parametrize("number", [1e16, 1e20, 1e300, -1e17, 2**60, 0.1, 1e-300, 5])
def test_a_config_with_odd_numbers_is_the_one_that_was_saved(settings: Settings, number: float) -> None:
    execution, _ = simulated()
    config = factories.run_config(strategy={"path": "a:B", "parameters": {"deep": [{"number": number}]}})
    prints = Fingerprints(sha256(config.canonical_json()), *(letter * 64 for letter in "bcdef"))
    run = factories.new_run(config=config)
    recording.start_run(settings, run)
    done = factories.execution(execution.result, fingerprints=prints, result_digest=execution.result_digest)
    recording.save_success(settings, run.run_id, done, factories.metrics_of(done))

    original = read_original(settings, get_run(settings, str(run.run_id)))

    assert original.config_snapshot == config.snapshot()
    assert repr(original.config_snapshot["strategy"]["parameters"]) == repr(config.strategy.parameters)

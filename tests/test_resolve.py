"""From what a person asked for to the complete RunConfig, with nothing left to a default."""

from __future__ import annotations

from pathlib import Path

import pytest

from ntrader.config import RunConfig, RunRequest, build_config
from ntrader.errors import ConfigError, UnknownStrategyError
from ntrader.resolve import resolve
from ntrader.strategies.registry import STRATEGIES

ROOT = Path(__file__).parent.parent


def resolved(home: Path, **values: object) -> RunConfig:
    return resolve(RunRequest.model_validate({"strategy": "sma_crossover", "symbol": "AAPL", **values}), home)


def test_path_parameters_source_and_venue_are_written_out(tmp_path: Path) -> None:
    config = resolved(tmp_path, parameters={"fast_period": 5})
    assert config.strategy.path == "ntrader.strategies.sma_crossover:SMACrossover"
    assert config.strategy.parameters == {
        "risk_percent": 2.0, "atr_period": 14, "atr_multiple": 2.0, "trade_size": None, "allow_short": False,
        "fast_period": 5, "slow_period": 50,
    }  # fmt: skip
    assert (config.data.source, config.data.venue) == ("sample", "XNAS")


def test_resolving_what_is_resolved_changes_nothing(tmp_path: Path) -> None:
    config = resolved(tmp_path)
    again = build_config(config.snapshot())
    assert again == config
    request = RunRequest(
        strategy=again.strategy.path, parameters=again.strategy.parameters, symbol=again.data.symbol,
        source=again.data.source, venue=again.data.venue, timeframe=again.data.timeframe,
    )  # fmt: skip
    assert resolve(request, tmp_path).canonical_json() == config.canonical_json()


def test_a_default_given_explicitly_makes_the_same_config(tmp_path: Path) -> None:
    plain = resolved(tmp_path).canonical_json()
    assert resolved(tmp_path, parameters={"fast_period": 10, "risk_percent": 2}).canonical_json() == plain
    assert (
        resolved(tmp_path, strategy="SMA Crossover", source="sample", initial_capital="1e5").canonical_json() == plain
    )


def test_a_csv_file_is_found_from_anywhere_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = resolved(tmp_path, source="csv", data_path="bars.csv").data
    assert (data.path, data.venue) == (str(tmp_path / "bars.csv"), "SIM")


def test_synthetic_data_get_their_walk_written_out(tmp_path: Path) -> None:
    data = resolved(tmp_path, source="synthetic", symbol="TEST", start="2020-01-01", end="2020-02-01").data
    assert data.synthetic is not None
    assert data.synthetic.seed == 0


def test_a_short_sale_needs_a_margin_account(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="allow_short needs a margin account, and account_type is CASH") as caught:
        resolved(tmp_path, parameters={"allow_short": True})
    assert caught.value.hint == "Add --account-type MARGIN."
    config = resolved(tmp_path, parameters={"allow_short": True}, account_type="MARGIN")
    assert config.strategy.parameters["allow_short"] is True


def test_a_currency_that_the_engine_would_make_up_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("strategy: sma_crossover\ndata: {symbol: AAPL}\nvenue: {currency: USX}\n")
    with pytest.raises(ConfigError, match=r"^currency USX is not one that Nautilus knows$"):
        resolve(RunRequest(config_path=str(file)), tmp_path)


def test_an_unknown_strategy_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownStrategyError, match="there is no strategy 'sma_crosover'"):
        resolved(tmp_path, strategy="sma_crosover")


def test_a_problem_of_a_file_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("strategy: sma_crossover\ndata: {symbl: AAPL}\n")
    with pytest.raises(ConfigError) as caught:
        resolve(RunRequest(config_path=str(file)), tmp_path)
    assert str(caught.value).splitlines() == [
        f"{file}: data.symbol: is missing",
        f"{file}: data.symbl: unknown setting; did you mean symbol?",
    ]


@pytest.mark.parametrize("entry", STRATEGIES, ids=lambda entry: entry.key)
def test_every_example_file_is_a_request_that_runs_on_the_sample(entry: object, tmp_path: Path) -> None:
    file = ROOT / "config" / "strategies" / f"{entry.key}.yaml"  # type: ignore[attr-defined]
    config = resolve(RunRequest(config_path=str(file)), tmp_path)
    assert config.strategy.path == entry.path  # type: ignore[attr-defined]
    assert config.data.source == "sample"

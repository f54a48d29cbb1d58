"""What differs, who is best, and when one input may be called the cause: worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from ntrader.comparison import (
    ABSENT,
    ComparedRun,
    Comparison,
    compare,
    compare_metrics,
    compare_settings,
    flatten,
    label_runs,
    verdict,
)
from ntrader.comparison_report import markdown
from ntrader.errors import ConfigError

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
CONFIG: dict[str, Any] = {
    "strategy": {"path": "a:B", "parameters": {"fast_period": 10, "slow_period": 50}},
    "data": {"symbol": "AAPL", "venue": "XNAS", "start": None, "path": None, "synthetic": None},
    "venue": {"currency": "USD", "fees": {"rate": 0.0}},
    "annualization": 252,
    "seed": 0,
}
PRINTS: dict[str, str | None] = {
    "data": "d" * 64, "code": "c" * 64, "engine": "e" * 64, "environment": "f" * 64, "config": "0" * 64,
}  # fmt: skip


def changed(**settings: Any) -> dict[str, Any]:
    """CONFIG with other values, by dotted names with __ for the dots."""
    config: dict[str, Any] = {**CONFIG, "strategy": {**CONFIG["strategy"]}, "data": {**CONFIG["data"]},
                              "venue": {**CONFIG["venue"]}}  # fmt: skip
    config["strategy"]["parameters"] = {**CONFIG["strategy"]["parameters"]}
    for name, value in settings.items():
        *sections, last = name.split("__")
        inner = config
        for section in sections:
            inner = inner[section]
        inner[last] = value
    return config


def run(number: int = 1, *, prints: Mapping[str, str | None] | None = None, **changes: Any) -> ComparedRun:
    values: dict[str, Any] = {
        "run_id": UUID(int=number << 96),
        "name": None,
        "status": "success",
        "strategy_name": "SMA Crossover",
        "symbol": "AAPL",
        "start": WHEN,
        "end": WHEN,
        "created_at": WHEN,
        "error": None,
        "config": CONFIG,
        "metrics": {"total_return": 0.5, "sharpe_ratio": 1.0, "total_trades": 3},
        "fingerprints": {**PRINTS, **(prints or {})},
        "result_digest": "1" * 64,
    }
    return ComparedRun(**(values | changes))


def other(*, digest: str = "2" * 64, **changes: Any) -> ComparedRun:
    """A second run with another result."""
    return run(2, result_digest=digest, **changes)


# The cause


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": changed(strategy__parameters__fast_period=20)}, "caused by fast_period: 10 -> 20"),
        ({"config": changed(venue__fees={"rate": 0.001})}, "caused by venue.fees.rate: 0.0 -> 0.001"),
        ({"config": changed(seed=7)}, "caused by seed: 0 -> 7"),
        # Other bars follow from another symbol, other code from another path.
        ({"config": changed(data__symbol="IBM"), "prints": {"data": "9" * 64}}, "caused by data.symbol: AAPL -> IBM"),
        ({"config": changed(data__start="2010-01-01"), "prints": {"data": "9" * 64}},
         "caused by data.start: none -> 2010-01-01"),
        ({"config": changed(strategy__path="a:C"), "prints": {"code": "9" * 64}},
         "caused by strategy.path: a:B -> a:C"),
        ({"prints": {"data": "98765432" * 8}}, "caused by data fingerprint: dddddddd -> 98765432"),
        ({"prints": {"environment": "9" * 64}}, "caused by environment fingerprint: ffffffff -> 99999999"),
        ({"prints": {"config": "9" * 64}}, "caused by config fingerprint: 00000000 -> 99999999"),
        # Of a config, its settings say it; its fingerprint is not counted once more.
        ({"config": changed(seed=7), "prints": {"config": "9" * 64}}, "caused by seed: 0 -> 7"),
    ],
)  # fmt: skip
def test_one_input_that_differs_is_the_cause(changes: dict[str, Any], sentence: str) -> None:
    found = verdict(run(), other(**changes))

    assert (found.results, found.sentence) == ("differ", f"The results differ; {sentence}")
    assert found.cause == found.inputs[0]
    assert len(found.inputs) == 1


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"config": changed(strategy__parameters__fast_period=20, seed=1)}, "fast_period, seed"),
        ({"config": changed(seed=1), "prints": {"data": "9" * 64}}, "seed, data"),
        ({"config": changed(seed=1), "prints": {"engine": "9" * 64}}, "seed, engine"),
        ({"config": changed(data__symbol="IBM"), "prints": {"data": "9" * 64, "code": "9" * 64}}, "data.symbol, code"),
        ({"config": changed(strategy__path="a:C"), "prints": {"data": "9" * 64, "code": "9" * 64}},
         "strategy.path, data"),
        ({"prints": {"data": "9" * 64, "code": "9" * 64}}, "data, code"),
    ],
)  # fmt: skip
def test_of_two_inputs_neither_is(changes: dict[str, Any], names: str) -> None:
    found = verdict(run(), other(**changes))

    expected = f"The results differ; 2 inputs differ ({names}): the difference cannot be attributed to one of them"
    assert (found.sentence, found.cause) == (expected, None)


def test_many_inputs_are_counted_and_not_all_named() -> None:
    config = changed(strategy__parameters={f"p{number:02}": number for number in range(12)})

    assert "14 inputs differ (fast_period, p00, " in verdict(run(), other(config=config)).sentence
    assert " and 6 more)" in verdict(run(), other(config=config)).sentence


def test_another_way_to_the_same_bars_is_no_cause() -> None:
    config = changed(data__path="/elsewhere.csv", strategy__parameters__fast_period=20)

    found = verdict(run(), other(config=config))

    assert found.sentence == (
        "The results differ; 2 inputs differ (fast_period, data.path): the difference cannot be attributed to one of"
        " them (data.path differs, and leads to the same bars)"
    )
    assert (found.cause, found.without_effect) == (None, ("data.path",))
    same = verdict(run(), run(2, config=changed(data__path="/elsewhere.csv", data__start="2010-01-01")))
    assert same.sentence == (
        "The results are identical to the bit, although 2 inputs differ (data.path, data.start)"
        " (data.path, data.start differ, and lead to the same bars)"
    )


def test_different_results_of_equal_inputs_are_said_loudly() -> None:
    for second in (other(), other(config=changed(data__path="/elsewhere.csv"))):
        found = verdict(run(), second)

        assert found.inexplicable
        assert found.cause is None
        assert found.sentence.startswith("THE RESULTS DIFFER, AND NO INPUT DOES: the run is not deterministic")
        assert "equal inputs, and different results" in " ".join(compare([run(), second]).warnings)


def test_equal_results_have_no_cause() -> None:
    same = verdict(run(), run(2))
    assert (same.results, same.cause) == ("identical", None)
    assert same.sentence == "The results are identical to the bit, and so are all inputs"
    seed = verdict(run(), run(2, config=changed(seed=1)))
    assert (seed.results, seed.cause) == ("identical", None)
    assert seed.sentence == "The results are identical to the bit, although one input differs: seed: 0 -> 1"
    both = verdict(run(), run(2, config=changed(seed=1), prints={"code": "9" * 64}))
    assert both.sentence == "The results are identical to the bit, although 2 inputs differ (seed, code)"


def test_metrics_may_differ_where_results_do_not() -> None:
    """The Sharpe ratio of the same equity, annualised otherwise."""
    found = verdict(run(), run(2, metrics={"sharpe_ratio": 1.2}, config=changed(annualization=365)))

    assert found.results == "metrics"
    assert found.sentence == (
        "The results are identical to the bit, but the metrics computed from them differ;"
        " caused by annualization: 252 -> 365"
    )


def test_what_has_no_fingerprint_may_have_been_it() -> None:
    found = verdict(run(prints={"data": None}), other(config=changed(seed=1)))

    assert found.cause is None
    assert found.sentence == (
        "The results differ; 1 input differs (seed), and data has no fingerprint: the difference cannot be attributed"
    )
    assert not verdict(run(prints={"data": None}), other()).inexplicable


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_a_run_without_a_result_explains_nothing(status: str) -> None:
    second = run(2, status=status, metrics=None, result_digest=None, prints=dict.fromkeys(PRINTS))

    found = verdict(run(), second)

    assert (found.results, found.cause) == ("none", None)
    assert found.sentence == f"Nothing to compare: 00000002 ({status}) has no result"
    assert verdict(second, second).sentence.endswith("have no result")


def test_a_parameter_that_reads_like_another_input_keeps_its_whole_name() -> None:
    config = changed(strategy__parameters__seed=1)

    assert "caused by strategy.parameters.seed: absent -> 1" in verdict(run(), other(config=config)).sentence


# Settings


def test_settings_are_flat_and_none_shares_a_name() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": {}}) == {"a.b.c": 1, "a.d": [], "e": {}}
    assert flatten({"a.b": 1, "a": {"b": 2}}) == {'"a.b"': 1, "a.b": 2}


def differing(*configs: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {setting.name: setting.values for setting in compare_settings(configs) if setting.differs}


def test_settings_differ_as_json_does() -> None:
    assert differing({"a": 1}, {"a": 1.0}) == {"a": (1, 1.0)}
    assert differing({"a": 1}, {"a": True}) == {"a": (1, True)}
    assert differing({"a": None}, {}) == {"a": (None, ABSENT)}
    assert differing({"a": [1, {"b": 2, "c": 3}]}, {"a": [1, {"c": 3, "b": 2}]}) == {}
    assert differing(CONFIG, changed()) == {}


def test_a_section_is_not_one_more_difference() -> None:
    walk = changed(data__synthetic={"seed": 1})

    assert differing(CONFIG, walk) == {"data.synthetic.seed": (ABSENT, 1)}
    assert differing(walk, CONFIG, {}, walk)["data.synthetic.seed"] == (1, ABSENT, ABSENT, 1)
    assert differing({"p": {}}, {"p": {"a": 1}}) == {"p.a": (ABSENT, 1)}


def test_settings_come_as_a_config_is_written() -> None:
    names = [setting.name for setting in compare_settings([CONFIG])]

    assert names[:3] == ["strategy.parameters.fast_period", "strategy.parameters.slow_period", "strategy.path"]
    assert names[3].startswith("data.")
    assert names[-2:] == ["annualization", "seed"]


# Metrics


def rows(*metrics: dict[str, Any] | None, baseline: int = 0) -> dict[str, tuple[tuple[Any, ...], tuple[int, ...]]]:
    return {row.name: (row.deltas, row.best) for row in compare_metrics(metrics, baseline)}


def test_deltas_and_the_best_by_hand() -> None:
    found = rows(
        {"total_return": 0.5, "max_drawdown": -0.25, "volatility": 0.5, "total_trades": 7, "max_drawdown_date": WHEN},
        {"total_return": 0.75, "max_drawdown": -0.5, "volatility": 0.25, "total_trades": 9, "max_drawdown_date": WHEN},
        {"total_return": -1.5, "max_drawdown": -0.25, "volatility": None, "total_trades": 7, "max_drawdown_date": None},
    )

    assert found == {
        "total_return": ((0.0, 0.25, -2.0), (1,)),
        "max_drawdown": ((0.0, -0.25, 0.0), (0, 2)),
        "volatility": ((0.0, -0.25, None), (1,)),
        "total_trades": ((0, 2, 0), ()),
        "max_drawdown_date": ((None, None, None), ()),
    }


def test_nobody_is_best_where_all_are_equal_or_unknown() -> None:
    assert rows({"cagr": 0.5}, {"cagr": 0.5}, None) == {"cagr": ((0.0, 0.0, None), ())}
    assert rows({"cagr": None}, {"cagr": None}) == {"cagr": ((None, None), ())}
    assert rows({"cagr": 0.5}, None) == {"cagr": ((0.0, None), (0,))}
    assert rows({"cagr": 0.5}, None, baseline=1) == {"cagr": ((None, None), (0,))}
    assert rows(None, None) == {}
    assert rows({"expectancy": 1.7e308}, {"expectancy": -1.7e308})["expectancy"][0] == (0.0, None)


# All of it


def test_causes_are_told_against_the_baseline() -> None:
    runs = [run(1), other(config=changed(seed=5)), run(3, config=changed(seed=5), result_digest="2" * 64)]

    assert [found.sentence.partition(" seed")[2] for found in compare(runs).verdicts] == [": 0 -> 5"] * 2
    found = compare(runs, runs[1].run_id)
    assert found.baseline == 1
    assert [(each.run, each.results) for each in found.verdicts] == [(0, "differ"), (2, "identical")]
    assert found.verdicts[0].sentence.endswith("seed: 5 -> 0")


@pytest.mark.parametrize("number", [0, 1, 11])
def test_how_many_can_be_compared(number: int) -> None:
    with pytest.raises(ConfigError, match=f"^{number} run"):
        compare([run(each) for each in range(number)])


def test_ten_runs_can() -> None:
    assert len(compare([run(number) for number in range(10)]).verdicts) == 9


def test_a_run_twice_and_a_baseline_from_elsewhere_are_refused() -> None:
    with pytest.raises(ConfigError, match="named more than once"):
        compare([run(1), run(2), run(1)])
    with pytest.raises(ConfigError, match="not among"):
        compare([run(1), run(2)], UUID(int=9))


def test_labels_are_short_and_different() -> None:
    near = [run(1, run_id=UUID(f"aaaaaaaa-{number:04}-4000-8000-000000000000")) for number in range(2)]
    same = [run(1, run_id=UUID(f"aaaaaaaa-0000-4000-8000-00000000000{number}")) for number in range(2)]

    assert label_runs([run(1), run(2, name="golden")]) == ("00000001", "golden")
    assert label_runs(near) == ("aaaaaaaa-0000", "aaaaaaaa-0001")
    assert label_runs(same) == tuple(str(each.run_id) for each in same)


def warnings(*runs: ComparedRun) -> str:
    return " ".join(compare(runs).warnings)


def test_what_makes_figures_hard_to_compare_is_said() -> None:
    later = WHEN.replace(year=2027)

    assert warnings(run(1), run(2)) == ""
    assert "The symbols do not match: AAPL (00000001, 00000003); IBM (00000002)." in warnings(
        run(1), run(2, symbol="IBM"), run(3)
    )
    longer = run(2, end=later, prints={"data": "9" * 64})
    assert "2026-01-02 to 2026-01-02 (00000001); 2026-01-02 to 2027-01-02 (00000002)" in warnings(run(1), longer)
    # The same bars, asked for with other words.
    assert warnings(run(1), run(2, end=later)) == ""
    assert "annualization factors" in warnings(run(1), run(2, config=changed(annualization=365)))
    assert "currencies" in warnings(run(1), run(2, config=changed(venue__currency="EUR")))


def test_a_config_of_another_time_is_compared_as_it_is() -> None:
    assert isinstance(compare([run(1), run(2, config={}), run(3, config={"venue": 5})]), Comparison)


# As Markdown


def test_markdown_has_fractions_and_harmless_texts() -> None:
    name = "a|b `c` <script>*d*\ne"
    page = markdown(compare([run(1, name=name), other(metrics=None, error="x", status="failed", digest="3" * 64)]))

    assert "<script>" not in page
    assert "%" not in page
    assert "| Total return | \\*0.5000 | - | - |" in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {8, 5, 4}
    assert "00000002 failed: x" in page

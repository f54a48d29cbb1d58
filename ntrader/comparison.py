"""What differs between runs, and whether that can be put down to one input. Plain values only, no numpy."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from ntrader.errors import ConfigError

FEWEST, MOST = 2, 10

# Which way is best. What is not here has no best: nobody wins by trading more, or by when the drawdown was.
MORE_IS_BETTER: Mapping[str, bool] = {
    "total_return": True,
    "final_balance": True,
    "cagr": True,
    "sharpe_ratio": True,
    "sortino_ratio": True,
    "max_drawdown": True,  # it is negative
    "calmar_ratio": True,
    "volatility": False,
    "win_rate": True,
    "profit_factor": True,
    "expectancy": True,
    "avg_win": True,
    "avg_loss": True,  # so is this
}
HEADLINES = ("total_return", "sharpe_ratio", "sortino_ratio", "max_drawdown", "win_rate", "profit_factor")

# The inputs of a run beside its config, each with one fingerprint.
FINGERPRINTS = ("data", "code", "engine", "environment")
_SECTIONS = ("strategy", "data", "instrument", "venue")
# Part of every bar: with another one the bars are not the same.
_OF_BARS = frozenset({"data.symbol", "data.venue", "data.timeframe"})
_PARAMETERS = "strategy.parameters."
_NAMED = 8


class Missing(Enum):
    """A setting that a config does not have at all; one that is null is None."""

    ABSENT = "absent"


ABSENT = Missing.ABSENT


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run as a comparison sees it; None where something is not recorded, or not defined.

    `config` is the whole snapshot, `metrics` go by name (fractions), `fingerprints` by input: those of FINGERPRINTS
    and "config". `error` says why there is no result.
    """

    run_id: UUID
    name: str | None
    status: str
    strategy_name: str
    symbol: str
    start: datetime | None
    end: datetime | None
    created_at: datetime
    error: str | None
    config: Mapping[str, Any]
    metrics: Mapping[str, Any] | None
    fingerprints: Mapping[str, str | None]
    result_digest: str | None


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the config by its dotted name, with a value for each run."""

    name: str
    values: tuple[Any, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric: a value for each run, how far it is from the baseline's, and whose is the best (positions)."""

    name: str
    values: tuple[Any, ...]
    deltas: tuple[float | int | None, ...]
    best: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InputDifference:
    """One input of two runs that is not the same: a setting by its name, or a fingerprint by its input."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a run's result differs from the baseline's, and why.

    `results` is "metrics" where fills, trades and equity are the same to the bit and only numbers derived from them
    differ, "none" where a run has no result. `inputs` are those that differ; `without_effect` are those of them that
    lead to the same bars; `unknown` are fingerprints that are not recorded. `cause` is the one input that differs,
    where there is but one and the results differ.
    """

    run: int
    results: Literal["identical", "metrics", "differ", "none"]
    inputs: tuple[InputDifference, ...]
    without_effect: tuple[str, ...]
    unknown: tuple[str, ...]
    cause: InputDifference | None
    sentence: str

    @property
    def inexplicable(self) -> bool:
        """Whether results differ that nothing can have made different."""
        differ = self.results in {"differ", "metrics"}
        return differ and len(self.inputs) == len(self.without_effect) and not self.unknown


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs beside one another. `baseline` is a position in `runs`; `verdicts` has one for each other run."""

    runs: tuple[ComparedRun, ...]
    labels: tuple[str, ...]
    baseline: int
    settings: tuple[Setting, ...]
    metrics: tuple[MetricRow, ...]
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]


def check_number(number: int) -> None:
    """Raises ConfigError unless so many runs can be compared."""
    if number < FEWEST:
        hint = "Name two or more: ntrader compare @last~1 @last."
        raise ConfigError(f"{number} run{'' if number == 1 else 's'} cannot be compared", hint=hint)
    if number > MOST:
        raise ConfigError(
            f"{number} runs are too many to compare", hint=f"Name {MOST} at most; `ntrader history list` shows more."
        )


def compare(runs: Sequence[ComparedRun], baseline: UUID | None = None) -> Comparison:
    """`baseline` is one of the runs, the first by default.

    Raises ConfigError for fewer than 2 or more than 10 runs, a run that is there twice, or a baseline that is not.
    """
    check_number(len(runs))
    twice = [run_id for run_id, count in Counter(run.run_id for run in runs).items() if count > 1]
    if twice:
        raise ConfigError(f"run {twice[0]} is named more than once", hint="Name every run once.")
    position = _position(runs, baseline)
    labels = label_runs(runs)
    verdicts = tuple(
        verdict(runs[position], run, number) for number, run in enumerate(runs) if number != position
    )  # fmt: skip
    return Comparison(
        runs=tuple(runs),
        labels=labels,
        baseline=position,
        settings=compare_settings([run.config for run in runs]),
        metrics=compare_metrics([run.metrics for run in runs], position),
        verdicts=verdicts,
        warnings=(*_mismatches(runs, labels), *_loud(verdicts, labels, position)),
    )


def label_runs(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    """Short and different: the name a run was given, or as much of the Run ID as tells it from the others."""
    texts = [str(run.run_id) for run in runs]
    length = next((length for length in (8, 13) if len({text[:length] for text in texts}) == len(texts)), 36)
    return tuple(run.name or text[:length] for run, text in zip(runs, texts, strict=True))


def _position(runs: Sequence[ComparedRun], baseline: UUID | None) -> int:
    if baseline is None:
        return 0
    for number, run in enumerate(runs):
        if run.run_id == baseline:
            return number
    raise ConfigError(f"the baseline {baseline} is not among the runs compared", hint="Name it among them as well.")


# Settings


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, `strategy.parameters.fast_period`; lists and empty mappings stay whole.

    A key with a dot in it is quoted, so that no two settings share a name.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = prefix + (json.dumps(key, ensure_ascii=False) if "." in key or not key else key)
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def compare_settings(configs: Sequence[Mapping[str, Any]]) -> tuple[Setting, ...]:
    """Every setting that any of the configs has: the strategy's, the data's, and so on, each by the alphabet."""
    flat = [flatten(config) for config in configs]
    names = sorted({name for settings in flat for name in settings}, key=_place)
    sections = {name[:dot] for name in names for dot, letter in enumerate(name) if letter == "."}
    return tuple(_setting(name, [_look_up(settings, name, name in sections) for settings in flat]) for name in names)


def _place(name: str) -> tuple[int, str]:
    """PostgreSQL keeps no order of keys: as a config is written, then."""
    section = name.partition(".")[0]
    return _SECTIONS.index(section) if section in _SECTIONS else len(_SECTIONS), name


def _look_up(settings: Mapping[str, Any], name: str, is_section: bool) -> Any:
    """A section that one config leaves empty and another fills differs in what is in it, and not once more itself."""
    value = settings.get(name, ABSENT)
    if is_section and (value in (None, {}) or any(key.startswith(f"{name}.") for key in settings)):
        return None
    return value


def _setting(name: str, values: list[Any]) -> Setting:
    return Setting(name, tuple(values), len({_exact(value) for value in values}) > 1)


def _exact(value: Any) -> str:
    """Equal for the same JSON only: 1, 1.0 and true are three values here, as they are in a fingerprint."""
    return "" if value is ABSENT else json.dumps(value, sort_keys=True, default=str)


# Metrics


def compare_metrics(metrics: Sequence[Mapping[str, Any] | None], baseline: int) -> tuple[MetricRow, ...]:
    """Every metric that any run has; None for a run without a result."""
    names = dict.fromkeys(name for known in metrics for name in known or ())
    return tuple(_metric(name, [(known or {}).get(name) for known in metrics], baseline) for name in names)


def _metric(name: str, values: list[Any], baseline: int) -> MetricRow:
    deltas = tuple(_delta(value, values[baseline]) for value in values)
    return MetricRow(name, tuple(values), deltas, _best(values, MORE_IS_BETTER.get(name)))


def _delta(value: Any, base: Any) -> float | int | None:
    if not isinstance(value, int | float) or not isinstance(base, int | float):
        return None
    delta = value - base
    return delta if math.isfinite(delta) else None


def _best(values: Sequence[Any], more: bool | None) -> tuple[int, ...]:
    """Positions of the best value; none where all that have one are equal: then nobody is better than another."""
    known = [value for value in values if value is not None]
    if more is None or not known or (len(known) > 1 and len(set(known)) == 1):
        return ()
    best = max(known) if more else min(known)
    return tuple(number for number, value in enumerate(values) if value == best)


# Why


def verdict(baseline: ComparedRun, other: ComparedRun, position: int = 1) -> Verdict:
    """`other` against `baseline`. A cause is named only where exactly one input differs."""
    inputs = differing_inputs(baseline, other)
    idle = _without_effect(baseline, other, inputs)
    # Settings that lead to the same bars have made no difference, but to tell which of several did is not theirs.
    suspects = inputs if len(idle) < len(inputs) else ()
    unknown = tuple(
        name for name in FINGERPRINTS if baseline.fingerprints.get(name) is None or other.fingerprints.get(name) is None
    )
    results = _results(baseline, other)
    alone = len(suspects) == 1 and not unknown and results in {"differ", "metrics"}
    if results == "none":
        sentence = _without_result([baseline, other])
    else:
        sentence = _sentence(results, inputs if results == "identical" else suspects, unknown) + _idle_note(idle)
    return Verdict(position, results, inputs, idle, unknown, suspects[0] if alone else None, sentence)


def differing_inputs(baseline: ComparedRun, other: ComparedRun) -> tuple[InputDifference, ...]:
    """Settings by their names, and fingerprints by what they are of.

    Settings under `data` say which bars to use: other bars follow from them and are no second input. In the same way
    other code follows from another `strategy.path`.
    """
    settings = [
        InputDifference(setting.name, *setting.values)
        for setting in compare_settings([baseline.config, other.config])
        if setting.differs
    ]
    prints = {name: (baseline.fingerprints.get(name), other.fingerprints.get(name)) for name in FINGERPRINTS}
    follows = {
        "data": any(found.name.startswith("data.") for found in settings),
        "code": any(found.name == "strategy.path" for found in settings),
    }
    others = [
        InputDifference(name, *pair)
        for name, pair in prints.items()
        if None not in pair and pair[0] != pair[1] and not follows.get(name)
    ]
    return (*settings, *others, *_config_itself(baseline, other, settings))


def _without_effect(baseline: ComparedRun, other: ComparedRun, inputs: Sequence[InputDifference]) -> tuple[str, ...]:
    """Settings under `data` reach a run through its bars alone: with the same bars they have changed nothing."""
    before, after = baseline.fingerprints.get("data"), other.fingerprints.get("data")
    if before is None or before != after:
        return ()
    return tuple(found.name for found in inputs if found.name.startswith("data.") and found.name not in _OF_BARS)


def _idle_note(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f" ({_listed(names)} {'differs, and leads' if len(names) == 1 else 'differ, and lead'} to the same bars)"


def _config_itself(
    baseline: ComparedRun, other: ComparedRun, settings: Sequence[InputDifference]
) -> list[InputDifference]:
    """What reading the configs back did not show, such as -0.0 for 0.0, their fingerprints still know."""
    before, after = baseline.fingerprints.get("config"), other.fingerprints.get("config")
    if settings or before is None or after is None or before == after:
        return []
    return [InputDifference("config", before, after)]


def _results(baseline: ComparedRun, other: ComparedRun) -> Literal["identical", "metrics", "differ", "none"]:
    if baseline.result_digest is None or other.result_digest is None:
        return "none"
    if baseline.result_digest != other.result_digest:
        return "differ"
    return "identical" if baseline.metrics == other.metrics else "metrics"


def _sentence(results: str, inputs: Sequence[InputDifference], unknown: Sequence[str]) -> str:
    if results == "identical":
        return f"The results are identical to the bit{_although(inputs, unknown)}"
    what = "The results differ"
    if results == "metrics":
        what = "The results are identical to the bit, but the metrics computed from them differ"
    if unknown:
        return f"{what}; {_number_of(inputs)}, and {_unrecorded(unknown)}: the difference cannot be attributed"
    if len(inputs) == 1:
        return f"{what}; caused by {change_text(inputs[0])}"
    if inputs:
        return f"{what}; {_number_of(inputs)}: the difference cannot be attributed to one of them"
    return (
        f"{what.upper()}, AND NO INPUT DOES: the run is not deterministic, or it reads something that no fingerprint"
        " covers (a file, the clock, the network, unseeded random numbers)"
    )


def _although(inputs: Sequence[InputDifference], unknown: Sequence[str]) -> str:
    if len(inputs) == 1:
        return f", although one input differs: {change_text(inputs[0])}"
    if inputs:
        return f", although {_number_of(inputs)}"
    return f"; {_unrecorded(unknown)}" if unknown else ", and so are all inputs"


def _without_result(runs: Sequence[ComparedRun]) -> str:
    lacking = [(label, run) for label, run in zip(label_runs(runs), runs, strict=True) if run.result_digest is None]
    said = " and ".join(f"{label} ({run.status})" for label, run in lacking)
    return f"Nothing to compare: {said} {'have' if len(lacking) > 1 else 'has'} no result"


def _number_of(inputs: Sequence[InputDifference]) -> str:
    if not inputs:
        return "no recorded input differs"
    shown = _listed([short_name(found.name) for found in inputs[:_NAMED]])
    more = f" and {len(inputs) - _NAMED} more" if len(inputs) > _NAMED else ""
    return f"{'1 input differs' if len(inputs) == 1 else f'{len(inputs)} inputs differ'} ({shown}{more})"


def _unrecorded(names: Sequence[str]) -> str:
    return f"{_listed(names)} {'has no fingerprint' if len(names) == 1 else 'have no fingerprints'}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def short_name(name: str) -> str:
    """`fast_period` for `strategy.parameters.fast_period`, where nothing else of a config is called that."""
    short = name.removeprefix(_PARAMETERS)
    return name if short in {"seed", "initial_capital", "annualization", "config", *FINGERPRINTS} else short


def change_text(difference: InputDifference) -> str:
    """`fast_period: 10 -> 20`; of fingerprints the first 8 digits."""
    if difference.name in {*FINGERPRINTS, "config"}:
        return f"{difference.name} fingerprint: {difference.before[:8]} -> {difference.after[:8]}"
    before, after = value_text(difference.before), value_text(difference.after)
    return f"{short_name(difference.name)}: {before} -> {after}"


def value_text(value: Any) -> str:
    """A setting as one reads it: texts as they are, the rest as JSON; `none` for null, `absent` for one not there."""
    if value is None or value is ABSENT:
        return "none" if value is None else "absent"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


# What makes figures hard to compare


def _mismatches(runs: Sequence[ComparedRun], labels: Sequence[str]) -> list[str]:
    """Whatever differs here makes the metrics answers to different questions."""
    symbols = _grouped(labels, [run.symbol for run in runs])
    same_bars = len({run.fingerprints.get("data") or run.run_id for run in runs}) == 1
    periods = [] if same_bars else _grouped(labels, [_period(run) for run in runs])
    venues = [_section(run.config, "venue") for run in runs]
    currencies = _grouped(labels, [venue.get("currency") for venue in venues])
    yearly = _grouped(labels, [run.config.get("annualization") for run in runs])
    found = {"symbols": symbols, "periods": periods, "currencies": currencies, "annualization factors": yearly}
    return [f"The {what} do not match: {'; '.join(groups)}." for what, groups in found.items() if len(groups) > 1]


def _grouped(labels: Sequence[str], values: Sequence[Any]) -> list[str]:
    """`AAPL (golden, 23b4fa06)` for each value there is."""
    known = dict.fromkeys(value for value in values if value is not None)
    return [
        f"{value} ({', '.join(label for label, other in zip(labels, values, strict=True) if other == value)})"
        for value in known
    ]


def _period(run: ComparedRun) -> str | None:
    if run.start is None or run.end is None:
        return None
    return f"{run.start:%Y-%m-%d} to {run.end:%Y-%m-%d}"


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, Mapping) else {}


def _loud(verdicts: Iterable[Verdict], labels: Sequence[str], baseline: int) -> list[str]:
    return [
        f"{labels[found.run]} against {labels[baseline]}: equal inputs, and different results."
        for found in verdicts
        if found.inexplicable
    ]

"""A sweep as one page that opens offline: what was searched, what was found, and what luck alone would have found.

Values in, text out. How metrics and times are written is the caller's: percent and rounding belong to the command line.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import numpy as np

from ntrader.comparison_report import TITLES, UNDEFINED, Section
from ntrader.page import document, drawn, library, paragraph, table_section
from ntrader.sweeps.analysis import FEWEST_FOR_IMPORTANCE, NOISE_OBJECTIVE, SHUFFLES, Analysis, Heatmap, Noise, Ranked
from ntrader.sweeps.axes import Axis, Choices, Interval
from ntrader.sweeps.charts import (
    MOST_LINES,
    Figure,
    Written,
    distribution_figure,
    heatmap_figure,
    importance_figure,
    parallel_figures,
    profile_figure,
    tick_format,
)
from ntrader.sweeps.config import SweepConfig
from ntrader.sweeps.plateau import Plateau
from ntrader.sweeps.points import space_of
from ntrader.sweeps.tried import level_text

# Beside the objective.
_METRICS: Final = ("sharpe_ratio", "total_return", "max_drawdown", "total_trades")
_MOST_LISTED: Final = 12


@dataclass(frozen=True, slots=True)
class Facts:
    """What is recorded of a sweep: `planned` trials at most, of which `success` and `failed` (by reason) are done and
    `linked` are runs that there were before; `seconds` in all sittings. `verified` says what came of running the best
    trial once more, None where it was not; `best_linked` that it is a run that there was before."""

    id: int
    name: str | None
    config: SweepConfig
    strategy_name: str
    state: str
    sampler_version: str | None
    planned: int
    success: int
    linked: int
    failed: Mapping[str, int]
    seconds: float
    verified: bool | None
    best_linked: bool | None
    created_at: datetime
    finished_at: datetime | None

    @property
    def done(self) -> int:
        return self.success + sum(self.failed.values())

    @property
    def title(self) -> str:
        return f"Sweep {self.id}: {self.name}" if self.name else f"Sweep {self.id}"


@dataclass(frozen=True, slots=True)
class TopRun:
    """The run that one of the best trials is."""

    run_id: UUID
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Style:
    """How a metric is written, by its name and value, and a length of time; which metrics are fractions."""

    value: Callable[[str, Any], str]
    duration: Callable[[float], str]
    fractions: frozenset[str]


def sweep_page(facts: Facts, analysis: Analysis, runs: Mapping[int, TopRun], style: Style) -> str:
    """`runs` are those of the best trials, by their numbers. Texts may hold anything."""
    name = analysis.objective

    def text(value: float) -> str:
        return style.value(name, value)

    ticks = tick_format(analysis.values, fraction=name in style.fractions)
    written = Written(TITLES.get(name, name), text, ticks)
    body = [
        library(), _heading(facts), _remainder(facts, analysis),
        f"<div class=beside>{table_section(_overview(facts, analysis, written, style))}<div class=stack>",
        f"{table_section(_space(facts))}{table_section(_verdict(facts, analysis, written))}</div></div>",
        _top(analysis, runs, written, style), _maps(analysis, written), _parallel(analysis, written),
        _importance(analysis), _distribution(analysis, written),
    ]  # fmt: skip
    return document(facts.title, "".join(body))


# Head


def _heading(facts: Facts) -> str:
    symbols = facts.config.symbols or (facts.config.base.data.symbol,)
    where = ", ".join(symbols) if len(symbols) <= _MOST_LISTED else f"{len(symbols):,} symbols"
    line = f"{facts.strategy_name} · {where} · {facts.created_at:%Y-%m-%d %H:%M} UTC"
    return f"<h1>{html.escape(facts.title)}</h1><p class=runs>{html.escape(line)}</p>"


def _remainder(facts: Facts, analysis: Analysis) -> str:
    """What the page does not show, and why."""
    notes = []
    if facts.state != "finished":
        notes.append(f"The sweep is {facts.state}: {facts.done:,} of {facts.planned:,} trials are done.")
    without = len(analysis.values) - analysis.defined
    if without:
        title = TITLES.get(analysis.objective, analysis.objective)
        notes.append(
            f"{without:,} of the trials that are done have no {title}: they failed, or it is not defined for them."
        )
    return f"<section class=warning>{''.join(map(paragraph, notes))}</section>" if notes else ""


def _overview(facts: Facts, analysis: Analysis, written: Written, style: Style) -> Section:
    config = facts.config
    seeded = config.sampler != "grid"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(facts.failed.items()))
    failed = sum(facts.failed.values())
    sampler = f"{config.sampler} ({facts.sampler_version})" if facts.sampler_version else config.sampler
    best = analysis.best
    pairs = [
        ("Strategy", facts.strategy_name),
        ("State", facts.state),
        ("Objective", f"{written.title}, {config.direction}"),
        ("Sampler", sampler),
        *([("Seed", str(config.seed))] if seeded else []),
        ("Trials", f"{facts.done:,} of {facts.planned:,}"),
        ("Linked to earlier runs", f"{facts.linked:,}"),
        ("Failed", f"{failed:,} ({reasons})" if failed else "0"),
        ("Time", style.duration(facts.seconds)),
        ("Best", f"{written.text(best.value)} (trial {best.number:,})" if best else UNDEFINED),
        ("Best verified", _verified(facts)),
    ]
    return Section("Sweep", (("", "left"), ("", "left")), tuple(pairs))


def _verified(facts: Facts) -> str:
    if facts.verified is None:
        return "not again, it was there before" if facts.best_linked else "no"
    return "identical when run by itself" if facts.verified else "DIFFERENT"


def _space(facts: Facts) -> Section:
    rows = tuple((dimension.name, axis_text(dimension.axis)) for dimension in space_of(facts.config).axes)
    held = facts.config.constraints
    notes = (f"Only where {' and '.join(held)}.",) if held else ()
    return Section("Search space", (("Axis", "left"), ("Values", "left")), rows, notes)


def axis_text(axis: Axis) -> str:
    """What an axis may take, in words."""
    if isinstance(axis, Interval):
        return f"{axis.low:.6g} to {axis.high:.6g}, even{' in the logarithm' if axis.log else ''}"
    assert isinstance(axis, Choices)
    if isinstance(axis.values, range):
        first, last, step = axis.values[0], axis.values[-1], axis.values.step
        return f"{first} to {last}{'' if step == 1 else f' by {step}'} ({axis.size:,} values)"
    listed = ", ".join(level_text(value) for value in axis.values[:_MOST_LISTED])
    more = axis.size - _MOST_LISTED
    return f"{listed} and {more:,} more" if more > 0 else listed


# What it comes to


def _verdict(facts: Facts, analysis: Analysis, written: Written) -> Section:
    notes = [*noise_lines(analysis, written.text), *plateau_lines(facts, analysis, written.text)]
    if analysis.best is None:
        notes = ["No trial has a value of the objective."]
    return Section("What it comes to", notes=tuple(notes))


def noise_lines(analysis: Analysis, text: Callable[[float], str]) -> list[str]:
    """The best trial against the best of as many trials of pure noise; nothing where the objective is another."""
    noise, best = analysis.noise, analysis.best
    if noise is None or best is None:
        return []
    if noise.trials == 1:
        return ["One trial alone: nothing was chosen, and its Sharpe ratio is no best of many."]
    side = "above" if analysis.direction == "maximize" else "below"
    verdict = side if noise.above else f"not {side}"
    sentence = (
        f"The best Sharpe ratio, {text(best.value)}, is {verdict} {text(noise.expected_best)}, which the best of"
        f" {noise.trials:,} trials of pure noise would be expected to show ({_returns(noise)} daily returns each)."
    )
    return [sentence if noise.above else f"{sentence} Luck alone would explain it."]


NOISE_NOTE: Final = (
    "In one respect noise is rated too high here: the trials of a sweep are alike, so that fewer of them are"
    " independent than there are, and luck alone gives less. In others it is rated too low: noise is taken to earn"
    " nothing, while in a market that rose whoever was long earned something; trials of other sweeps on the same bars"
    " are not counted; and rare large losses make a Sharpe ratio less certain than it is taken to be."
)


def _returns(noise: Noise) -> str:
    least, most = min(noise.observations), max(noise.observations)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def plateau_lines(facts: Facts, analysis: Analysis, text: Callable[[float], str]) -> list[str]:
    """Whether the best trial stands among good ones, in words."""
    best = analysis.best
    if best is None:
        return []
    around = best.plateau
    if not around.neighbours:
        return ["The best trial has no neighbours to hold it against."]
    where = (
        "one step away" if facts.config.sampler == "grid" else f"nearest, at most {around.reach:.2f} of an axis away"
    )
    who = f"{_count(around.neighbours, 'neighbour')} of the best trial ({where})"
    if around.mean is None:
        return [f"The {who} {_have(around.neighbours)} no value."]
    missing = f"; {around.undefined} of them {_have(around.undefined)} no value" if around.undefined else ""
    return [f"The {who} {_have(around.neighbours)} a mean of {text(around.mean)}{missing}.{_judged(around)}"]


def _judged(around: Plateau) -> str:
    if around.shortfall is None:
        return ""
    by = f"{_plain(abs(around.shortfall))} of the interquartile range of all trials"
    if around.lonely:
        return f" That is worse by {by}: a lonely peak."
    return f" That is {'worse' if around.shortfall > 0 else 'better'} by {by}."


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# The best


def _top(analysis: Analysis, runs: Mapping[int, TopRun], written: Written, style: Style) -> str:
    if not analysis.top:
        return ""
    metrics = [analysis.objective, *(name for name in _METRICS if name != analysis.objective)]
    headings = [("Trial", "right"), ("Run", "left"), *((axis.name, _side(axis.ordered)) for axis in analysis.axes)]
    headings += [(TITLES.get(name, name), "right") for name in metrics]
    headings += [("Neighbours", "right"), ("of its own", "right"), ("shortfall", "right")]
    head = "".join(f"<th class={side}>{html.escape(level_text(name))}</th>" for name, side in headings)
    rows = "".join(_top_row(one, analysis, runs.get(one.number), metrics, style) for one in analysis.top)
    title = f"The best {_count(len(analysis.top), 'trial')}" if len(analysis.top) > 1 else "The best trial"
    note = (
        "Neighbours: the mean of their objective, and what it is of the trial's own. Shortfall: how much worse that is,"
        " in interquartile ranges of all trials; 0 on a plateau, above 1 on a lonely peak. A click marks a command."
    )
    return _section(title, f'<div class="wide close"><table><tr>{head}</tr>{rows}</table></div>', [note])


def _side(ordered: bool) -> str:
    return "right" if ordered else "left"


def _top_row(one: Ranked, analysis: Analysis, run: TopRun | None, metrics: Sequence[str], style: Style) -> str:
    cells = [(level_text(axis.at(one.place)), _side(axis.ordered)) for axis in analysis.axes]
    cells += [(_metric(name, one, analysis, run, style), "right") for name in metrics]
    cells += [(part, "right") for part in _plateau_cells(one.plateau, analysis, style)]
    known = "".join(f"<td class={side}>{html.escape(text)}</td>" for text, side in cells)
    command = f"<code class=copy>ntrader history show {str(run.run_id)[:8]}</code>" if run else UNDEFINED
    return f"<tr><td class=right>{one.number:,}</td><td>{command}</td>{known}</tr>"


def _metric(name: str, one: Ranked, analysis: Analysis, run: TopRun | None, style: Style) -> str:
    value = one.value if name == analysis.objective else run.metrics.get(name) if run else None
    return UNDEFINED if value is None else style.value(name, value)


def _plateau_cells(around: Plateau, analysis: Analysis, style: Style) -> tuple[str, str, str]:
    mean = UNDEFINED if around.mean is None else style.value(analysis.objective, around.mean)
    missing = f" ({around.undefined} of {around.neighbours} without)" if around.undefined else ""
    ratio = UNDEFINED if around.ratio is None else _plain(around.ratio)
    shortfall = UNDEFINED if around.shortfall is None else _plain(around.shortfall)
    return mean + missing, ratio, f"lonely {shortfall}" if around.lonely else shortfall


def _plain(number: float) -> str:
    return f"{number:z.2f}" if abs(number) < 10_000 else f"{number:.3g}"


# Charts


def _maps(analysis: Analysis, written: Written) -> str:
    if not analysis.defined:
        return ""
    if len(analysis.axes) == 1:
        (axis,) = analysis.axes
        title = f"{written.title} along {axis.name}"
        return _section(title, _figure("profile", profile_figure(axis, analysis, written)), [])
    if not analysis.heatmaps:
        return ""
    found = _by_importance(analysis)
    figures = [heatmap_figure(one, analysis, written) for one in found]
    notes = ["The darker, the better; the frame is around the best trial. Empty: no trial there."]
    if len(analysis.axes) > 2:
        notes.append("Whatever the other axes are: the mean of all trials in a cell, and the best of them.")
    if analysis.histogram is not None and analysis.histogram.below + analysis.histogram.above:
        notes.append("Values far beyond all others have the colour of the nearest of these.")
    return _section(f"{written.title} over two axes", _selector(found) + _selected(figures), [" ".join(notes)])


def _by_importance(analysis: Analysis) -> list[Heatmap]:
    """What matters most comes first."""
    shares = analysis.importance.shares if analysis.importance else {}
    return sorted(
        analysis.heatmaps, key=lambda one: -min(shares.get(one.x.name, 0), shares.get(one.y.name, 0))
    )  # fmt: skip


def _selector(found: Sequence[Heatmap]) -> str:
    if len(found) == 1:
        return ""
    options = "".join(
        f"<option value={number}>{html.escape(f'{level_text(one.x.name)} and {level_text(one.y.name)}')}</option>"
        for number, one in enumerate(found)
    )
    return f"<p class=choice><label>Axes <select id=pair>{options}</select></label></p>"


def _selected(figures: Sequence[Figure]) -> str:
    """One of the figures at a time, in a place as high as it needs."""
    script = """const place = document.getElementById("heatmap"), pair = document.getElementById("pair");
const show = number => {
  place.style.height = FIGURES[number].layout.height + "px";
  Plotly.react(place, FIGURES[number].data, FIGURES[number].layout, CONFIG);
};
if (pair) { pair.addEventListener("change", () => show(Number(pair.value))); }
show(pair ? Number(pair.value) : 0);
"""
    return drawn("heatmap", figures[0]["layout"]["height"], script, FIGURES=figures)


def _parallel(analysis: Analysis, written: Written) -> str:
    if not analysis.axes or analysis.histogram is None:
        return ""
    script = """let able = false;
try { able = Boolean(document.createElement("canvas").getContext("webgl")); } catch (error) { able = false; }
const chosen = able ? WITH_WEBGL : AS_LINES;
document.getElementById("brush").hidden = !able;
Plotly.newPlot("parallel", chosen.data, chosen.layout, {...CONFIG, displayModeBar: false});
"""
    with_webgl, as_lines = parallel_figures(analysis, written)
    chart = drawn("parallel", with_webgl["layout"]["height"], script, WITH_WEBGL=with_webgl, AS_LINES=as_lines)
    brush = "<p class=note id=brush>Drag along an axis to choose a range of it, and an axis' name to move it.</p>"
    notes = ["A line a trial; the darker, the better. Lines that meet in one value lie side by side, the better above."]
    if analysis.defined > MOST_LINES:
        best = MOST_LINES // 10
        notes.append(f"Of {analysis.defined:,} trials {MOST_LINES:,} are drawn: the best {best:,}, others at random.")
    return _section("All axes", brush + chart, [" ".join(notes)])


def _importance(analysis: Analysis) -> str:
    found = analysis.importance
    if found is None:
        if len(analysis.axes) < 2:
            return ""
        why = (
            f"Fewer than {FEWEST_FOR_IMPORTANCE} trials have a value: too few to tell."
            if analysis.defined < FEWEST_FOR_IMPORTANCE
            else "The best trials cannot be told from the others."
        )
        return _section("Importance", "", [why])
    notes = [
        f"How much each axis, taken by itself, decides whether a trial is among the best {found.best:,} of"
        f" {found.trials:,}: an axis on which the best lie like all others has no share (PED-ANOVA, by ranks). The line"
        f" is what chance can do, the most that {SHUFFLES} shuffles of the objective gave; what does not reach beyond"
        " it is grey. Nothing is said about values that were not tried, nor about axes that matter only together: for"
        " these look at the charts of two axes."
    ]
    return _section("Importance", _figure("importance", importance_figure(found), bar=False), notes)


def _distribution(analysis: Analysis, written: Written) -> str:
    if not analysis.defined:
        return ""
    title = f"Distribution of {written.title}"
    if analysis.histogram is None:
        value = written.text(float(np.nanmin(analysis.values)))
        return _section(title, "", [f"All trials have {value}." if analysis.defined > 1 else f"One trial has {value}."])
    notes = []
    beyond = analysis.histogram.below + analysis.histogram.above
    if beyond:
        notes.append(f"The outermost bars also hold {_count(beyond, 'value')} from far beyond them.")
    if analysis.noise is not None and analysis.noise.trials > 1:
        notes += [*noise_lines(analysis, written.text), NOISE_NOTE]
    elif analysis.objective != NOISE_OBJECTIVE:
        notes.append("What noise would give is known of a Sharpe ratio only.")
    figure = distribution_figure(analysis.histogram, analysis, written)
    return _section(title, _figure("distribution", figure), notes)


def _figure(key: str, figure: Figure, *, bar: bool = True) -> str:
    """`bar` says whether there is anything for plotly's buttons to do."""
    config = "CONFIG" if bar else "{...CONFIG, displayModeBar: false}"
    script = f'Plotly.newPlot("{key}", FIGURE.data, FIGURE.layout, {config});\n'
    return drawn(key, figure["layout"]["height"], script, FIGURE=figure)


def _section(title: str, body: str, notes: Sequence[str]) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}{''.join(map(paragraph, notes))}</section>"

"""A comparison as one HTML page that needs nothing else, no network either: tables and charts. Values in, text out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntrader.comparison_report import BEST_PERFORMER, CAUSE, IDENTITY, PERFORMANCE, Section
from ntrader.page import COLORS, base_layout, chart, document, paragraph, rule, table_section
from ntrader.paired import DailySeries, common_days
from ntrader.results import Floats, Times

_MILLISECONDS_PER_DAY = 86_400_000.0
# Above so many points the browser draws them much faster with WebGL.
_MANY_POINTS = 12_000
_GIST = [CAUSE, BEST_PERFORMER]


@dataclass(frozen=True, slots=True, eq=False)
class PlottedRun:
    """A run with a result; `position` is its place among all the runs compared and decides its colour."""

    label: str
    position: int
    series: DailySeries


def comparison_page(
    title: str,
    labels: Sequence[str],
    sections: Sequence[Section],
    runs: Sequence[PlottedRun],
    baseline: int,
    warnings: Sequence[str] = (),
) -> str:
    """`baseline` is a position; without its curve there are no returns to pair. Texts may hold anything."""
    heading = f"<h1>{html.escape(title)}</h1><p class=runs>{html.escape(' · '.join(labels))}</p>"
    noted = [f"<section class=warning>{''.join(map(paragraph, warnings))}</section>"] if warnings else []
    rest = [part.title for part in sections if part.title not in (IDENTITY, PERFORMANCE, *_GIST)]
    # The columns of two runs leave room for everything.
    beside, below = ([*_GIST, *rest], []) if len(labels) == 2 else (_GIST, rest)
    body = [heading, *noted, *_tables(sections, [IDENTITY]), _beside(sections, beside)]
    body += [*_charts(runs, baseline), *_tables(sections, below)]
    return document(f"{title}: {', '.join(labels)}", "".join(body))


# Tables


def _tables(sections: Sequence[Section], titles: Sequence[str]) -> list[str]:
    return [table_section(section) for title in titles for section in sections if section.title == title]


def _beside(sections: Sequence[Section], titles: Sequence[str]) -> str:
    """The metrics, and beside them, where they leave room, what they come to."""
    metrics, others = _tables(sections, [PERFORMANCE]), _tables(sections, titles)
    return f"<div class=beside>{''.join(metrics)}<div class=stack>{''.join(others)}</div></div>"


# Charts


def _charts(runs: Sequence[PlottedRun], baseline: int) -> list[str]:
    if not runs:
        return []
    charts = [
        ("Equity", "growth of 1, at the end of each day", _over_time(runs, baseline, falls=False), "equity"),
        ("Drawdown", "below the highest equity before", _over_time(runs, baseline, falls=True), "drawdown"),
    ]
    scatter = _scatter(runs, baseline)
    if scatter is not None:
        charts.append(("Daily returns", "of the days both runs have", scatter, "returns"))
    return [
        f"<section><h2>{name} <small style='font-weight:400;color:#57606a'>{what}</small></h2>"
        f"{chart(figure, key, first=number == 0)}</section>"
        for number, (name, what, figure, key) in enumerate(charts)
    ]


def _over_time(runs: Sequence[PlottedRun], baseline: int, *, falls: bool) -> dict[str, Any]:
    shown = "%{y:.2%}" if falls else "%{y:,.4f}"
    traces = [
        _line(run, run.series.falls if falls else run.series.growth, shown, bold=run.position == baseline)
        for run in runs
    ]
    layout = base_layout(340 if falls else 440)
    layout["xaxis"] |= {"type": "date", "hoverformat": "%Y-%m-%d"}
    layout["yaxis"] |= {"tickformat": ".0%" if falls else ",.4~r"}
    layout["hovermode"] = "x unified"
    layout["shapes"] = [] if falls else [rule(1.0)]
    return {"data": traces, "layout": layout}


def _line(run: PlottedRun, values: Floats, shown: str, *, bold: bool) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        # plotly.js reads a few HTML tags in names.
        "name": html.escape(run.label),
        "x": _moments(run.series.days)[: len(values)],
        "y": values,
        "line": {"color": COLORS[run.position % len(COLORS)], "width": 2.4 if bold else 1.5},
        "hovertemplate": shown,
    }


def _moments(days: Times) -> Floats:
    """In ms since 1970 as plotly.js counts: the initial capital at the beginning of the first day, then days' ends."""
    ends = (days + 1) * _MILLISECONDS_PER_DAY
    return np.concatenate((days[:1] * _MILLISECONDS_PER_DAY, ends - 1))


def _scatter(runs: Sequence[PlottedRun], baseline: int) -> dict[str, Any] | None:
    base = next((run for run in runs if run.position == baseline), None)
    if base is None:
        return None
    pairs = [(run, *common_days(base.series, run.series)) for run in runs if run is not base]
    pairs = [pair for pair in pairs if len(pair[1])]
    if not pairs:
        return None
    many = sum(len(days) for _, days, _, _ in pairs) > _MANY_POINTS
    traces = [_points(run, before, after, many=many) for run, _, before, after in pairs]
    low = min(float(min(before.min(), after.min())) for _, _, before, after in pairs)
    high = max(float(max(before.max(), after.max())) for _, _, before, after in pairs)
    layout = base_layout(560)
    layout["xaxis"] |= {"title": {"text": f"{html.escape(base.label)} (baseline)"}, "tickformat": ".1~%"}
    layout["yaxis"] |= {"title": {"text": "the other run"}, "tickformat": ".1~%"}
    layout["shapes"] = [rule(0.0), rule(0.0, vertical=True), _diagonal(low, high)]
    return {"data": traces, "layout": layout}


def _points(run: PlottedRun, before: Floats, after: Floats, *, many: bool) -> dict[str, Any]:
    return {
        "type": "scattergl" if many else "scatter",
        "mode": "markers",
        "name": html.escape(run.label),
        "x": before,
        "y": after,
        "marker": {"color": COLORS[run.position % len(COLORS)], "size": 5, "opacity": 0.45},
        "hovertemplate": "%{x:.2%}, %{y:.2%}",
    }


def _diagonal(low: float, high: float) -> dict[str, Any]:
    """Where the two returns are equal."""
    ends = {"x0": low, "y0": low, "x1": high, "y1": high}
    return {
        "type": "line",
        "layer": "below",
        "xref": "x",
        "yref": "y",
        **ends,
        "line": {"color": "#9aa4ae", "width": 1},
    }

"""A comparison as one HTML page that needs nothing else, no network either: tables and charts. Values in, text out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ntrader.comparison_report import BEST, BEST_PERFORMER, CAUSE, IDENTITY, PERFORMANCE, Section
from ntrader.paired import DailySeries, common_days
from ntrader.results import Floats, Times

_MILLISECONDS_PER_DAY = 86_400_000.0
# Ten that can be told apart, by most of those who see colours differently too.
COLORS = ("#1b1f24", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7b61c4", "#9aa11f")
# Above so many points the browser draws them much faster with WebGL.
_MANY_POINTS = 12_000
_FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 0; background: #f6f7f9; color: #1b1f24; font: 15px/1.5 {_FONT}; }}
main {{ max-width: 1280px; margin: 0 auto; padding: 32px 24px 64px; }}
h1 {{ font-size: 26px; line-height: 1.3; margin: 0 0 4px; }}
h2 {{ font-size: 17px; margin: 0 0 12px; }}
.runs {{ color: #57606a; margin: 0 0 24px; }}
section {{ background: #fff; border: 1px solid #e1e4e8; border-radius: 8px; padding: 18px 20px; margin: 0 0 18px; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 5px 20px 5px 0; text-align: left; white-space: nowrap; border-bottom: 1px solid #eef0f2; }}
td.text {{ white-space: normal; overflow-wrap: anywhere; min-width: 150px; }}
th {{ color: #57606a; font-weight: 600; border-bottom: 1px solid #d0d7de; }}
th.right, td.right {{ text-align: right; }}
th:last-child, td:last-child {{ padding-right: 0; }}
td.best {{ font-weight: 700; color: #116329; }}
td.code {{ font-family: ui-monospace, 'DejaVu Sans Mono', Consolas, monospace; font-size: 13px; }}
p.note {{ color: #424a53; margin: 10px 0 0; overflow-wrap: anywhere; }}
.beside {{ display: flex; flex-wrap: wrap; gap: 0 18px; align-items: flex-start; }}
.beside > section {{ flex: 0 1 auto; max-width: 100%; box-sizing: border-box; }}
.stack {{ flex: 1 1 420px; min-width: 0; }}
.warning p.note:first-child, h2 + p.note {{ margin-top: 0; }}
.warning {{ background: #fff8e5; border-color: #e8d48b; }}
"""
_GIST = [CAUSE, BEST_PERFORMER]
_BUTTONS = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]]
_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": _BUTTONS}


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
    noted = [f"<section class=warning>{''.join(map(_paragraph, warnings))}</section>"] if warnings else []
    rest = [part.title for part in sections if part.title not in (IDENTITY, PERFORMANCE, *_GIST)]
    # The columns of two runs leave room for everything.
    beside, below = ([*_GIST, *rest], []) if len(labels) == 2 else (_GIST, rest)
    body = [heading, *noted, *_tables(sections, [IDENTITY]), _beside(sections, beside)]
    body += [*_charts(runs, baseline), *_tables(sections, below)]
    names = html.escape(f"{title}: {', '.join(labels)}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{names}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body><main>{''.join(body)}</main></body></html>\n"
    )


# Tables


def _tables(sections: Sequence[Section], titles: Sequence[str]) -> list[str]:
    return [_table_section(section) for title in titles for section in sections if section.title == title]


def _beside(sections: Sequence[Section], titles: Sequence[str]) -> str:
    """The metrics, and beside them, where they leave room, what they come to."""
    metrics, others = _tables(sections, [PERFORMANCE]), _tables(sections, titles)
    return f"<div class=beside>{''.join(metrics)}<div class=stack>{''.join(others)}</div></div>"


def _table_section(section: Section) -> str:
    head = "".join(f"<th class={side}>{html.escape(name)}</th>" for name, side in section.columns)
    sides = [side for _, side in section.columns]
    rows = "".join(f"<tr>{''.join(map(_cell, row, sides))}</tr>" for row in section.rows)
    table = f"<div class=wide><table><tr>{head}</tr>{rows}</table></div>" if section.rows else ""
    return f"<section><h2>{html.escape(section.title)}</h2>{table}{''.join(map(_paragraph, section.notes))}</section>"


def _cell(text: str, side: str) -> str:
    if side == "left":
        return f"<td>{html.escape(text)}</td>" if len(text) <= 24 else f"<td class=text>{html.escape(text)}</td>"
    best = text.startswith(BEST)
    return f'<td class="right{" best" if best else ""}">{html.escape(text)}</td>'


def _paragraph(text: str) -> str:
    return f"<p class=note>{html.escape(text)}</p>"


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
        f"{_html(figure, key, first=number == 0)}</section>"
        for number, (name, what, figure, key) in enumerate(charts)
    ]


def _html(figure: dict[str, Any], key: str, *, first: bool) -> str:
    """The library comes once, within the page. Plain dicts need no validation, which would take the most time."""
    from plotly.io import to_html

    text: str = to_html(
        figure, config=_CONFIG, include_plotlyjs=first, include_mathjax=False, full_html=False, validate=False,
        div_id=key, default_height=f"{figure['layout']['height']}px",
    )  # fmt: skip
    return text


def _over_time(runs: Sequence[PlottedRun], baseline: int, *, falls: bool) -> dict[str, Any]:
    shown = "%{y:.2%}" if falls else "%{y:,.4f}"
    traces = [
        _line(run, run.series.falls if falls else run.series.growth, shown, bold=run.position == baseline)
        for run in runs
    ]
    layout = _layout(340 if falls else 440)
    layout["xaxis"] |= {"type": "date", "hoverformat": "%Y-%m-%d"}
    layout["yaxis"] |= {"tickformat": ".0%" if falls else ",.4~r"}
    layout["hovermode"] = "x unified"
    layout["shapes"] = [] if falls else [_rule(1.0)]
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
    layout = _layout(560)
    layout["xaxis"] |= {"title": {"text": f"{html.escape(base.label)} (baseline)"}, "tickformat": ".1~%"}
    layout["yaxis"] |= {"title": {"text": "the other run"}, "tickformat": ".1~%"}
    layout["shapes"] = [_rule(0.0), _rule(0.0, vertical=True), _diagonal(low, high)]
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


def _layout(height: int) -> dict[str, Any]:
    axis = {"gridcolor": "#e8eaed", "linecolor": "#d0d7de", "zeroline": False, "automargin": True, "showline": True}
    return {
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 34, "b": 40},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "font": {"family": _FONT, "size": 13, "color": "#1b1f24"},
        "showlegend": True,
        "legend": {"orientation": "v", "x": 1.01, "y": 1, "xanchor": "left", "font": {"size": 13}},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def _rule(at: float, *, vertical: bool = False) -> dict[str, Any]:
    along, across = ("y", "x") if vertical else ("x", "y")
    ends = {f"{along}0": 0, f"{along}1": 1, f"{across}0": at, f"{across}1": at}
    line = {"color": "#9aa4ae", "width": 1, "dash": "dot"}
    return {"type": "line", "layer": "below", f"{along}ref": "paper", f"{across}ref": across, **ends, "line": line}


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

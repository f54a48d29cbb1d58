"""The charts of a sweep as figures for plotly.js, in plain dicts. Texts are escaped where plotly.js would read HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from ntrader.noise import noise_density, standard_error
from ntrader.page import COLORS, FONT, GREY, base_layout, rule
from ntrader.results import Floats
from ntrader.sweeps.analysis import Analysis, Cells, Heatmap, Histogram, Importance, Noise, bulk, ranked
from ntrader.sweeps.axes import Interval
from ntrader.sweeps.tried import Codes, TriedAxis, level_text, short_text

Figure = dict[str, Any]

# Lines of parallel coordinates; of more trials the best tenth of so many and others at random are drawn.
MOST_LINES: Final = 3_000
# Points of a sweep with one axis.
_MOST_POINTS: Final = 5_000
# So many numbers fit into the cells of a heatmap.
_MOST_NUMBERS: Final = 260
_MOST_TICKS: Final = 24
_MOST_EDGES: Final = 9
# Of so many values each has a tick of its own in parallel coordinates, and its lines are spread so far to either side.
_FEW_LEVELS: Final = 16
_SPREAD: Final = 0.2
_SEED: Final = 20_130_501
# From worse to better; none is as light as the page.
_SCALE: Final = ("#fdebb3", "#dcefc0", "#b5e0c8", "#8fcdd3", "#63aed6", "#2f79b5", "#0c2c84")


@dataclass(frozen=True, slots=True)
class Written:
    """How the objective is written: its `title`, `text` of a value, and `ticks`, the format that plotly.js knows."""

    title: str
    text: Callable[[float], str]
    ticks: str


def tick_format(values: Floats, *, fraction: bool) -> str:
    """As many digits as tell the values apart; fractions in percent."""
    low, high = bulk(values)
    peak, spread = max(abs(low), abs(high)), high - low
    if not peak < 1e7 or (peak and peak < 1e-4):
        return ".3~e"
    digits = 2 if not spread else min(max(2 - math.floor(math.log10(spread)), 0), 6)
    return f",.{max(digits - 2, 0)}~%" if fraction else f",.{digits}~f"


# Heatmaps


def heatmap_figure(found: Heatmap, analysis: Analysis, written: Written) -> Figure:
    """Mean and best side by side; one chart where every cell is a single trial, for then they are the same."""
    single = int(found.count.max(initial=0)) <= 1
    panels = [("", found.best)] if single else [("mean", found.average), ("best", found.best)]
    rows, columns = found.best.shape
    layout = base_layout(min(max(26 * rows, 240), 640) + 130)
    layout |= {"showlegend": False, "margin": {"l": 90, "r": 20, "t": 40, "b": 60}, "annotations": [], "shapes": []}
    layout["coloraxis"] = _color_axis(analysis, written)
    data: list[Figure] = []
    for number, (title, values) in enumerate(panels):
        suffix = "" if number == 0 else str(number + 1)
        wide = [0.0, 1.0] if single else [0.53 * number, 0.53 * number + 0.47]
        layout[f"xaxis{suffix}"] = _cell_axis(found.x) | {"domain": wide, "anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = _cell_axis(found.y) | {"anchor": f"x{suffix}", "showticklabels": number == 0}
        if number:
            layout[f"yaxis{suffix}"]["title"] = {"text": ""}
        if title:
            layout["annotations"].append(_heading(f"{title} {written.title}", sum(wide) / 2))
        data += [
            _cells(found, values, written, suffix, numbers=rows * columns <= _MOST_NUMBERS / len(panels)),
            *_crosses(found, suffix),
        ]
        layout["shapes"] += _frame(found, analysis, suffix)
    return {"data": data, "layout": layout}


def _cells(found: Heatmap, values: Floats, written: Written, suffix: str, *, numbers: bool) -> Figure:
    texts = [[_cell_text(value, written) for value in row] for row in values]
    return {
        "type": "heatmap",
        "z": [[_digits(value) for value in row] for row in values],
        "coloraxis": "coloraxis",
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertext": [
            [_hover(found, row, column, texts) for column in range(len(texts[0]))] for row in range(len(texts))
        ],
        "hovertemplate": "%{hovertext}<extra></extra>",
        **({"text": texts, "texttemplate": "%{text}", "textfont": {"size": 12}} if numbers else {}),
    }


def _hover(found: Heatmap, row: int, column: int, texts: Sequence[Sequence[str]]) -> str:
    if not found.count[row, column]:
        return ""
    count = int(found.count[row, column])
    lines = [
        f"{found.x.name}: {found.x.texts[column]}", f"{found.y.name}: {found.y.texts[row]}",
        f"{texts[row][column]}, of {count:,} trial{'s' if count > 1 else ''}",
    ]  # fmt: skip
    return "<br>".join(html.escape(line) for line in lines)


def _crosses(found: Heatmap, suffix: str) -> list[Figure]:
    """Where trials have been and none has an objective."""
    rows, columns = np.nonzero((found.count == 0) & (found.undefined > 0))
    if len(rows) == 0:
        return []
    marker = {"symbol": "x-thin", "size": 8, "line": {"color": "#9aa4ae", "width": 1.5}}
    return [{"type": "scatter", "mode": "markers", "x": columns.tolist(), "y": rows.tolist(), "marker": marker,
             "hoverinfo": "skip", "xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}]  # fmt: skip


def _frame(found: Heatmap, analysis: Analysis, suffix: str) -> list[Figure]:
    """Around the cell of the best trial."""
    if analysis.best is None:
        return []
    x, y = (int(cells.codes[analysis.best.place]) for cells in (found.x, found.y))
    corners = {"x0": x - 0.5, "x1": x + 0.5, "y0": y - 0.5, "y1": y + 0.5}
    line = {"color": "#d55e00", "width": 3}
    return [{"type": "rect", "xref": f"x{suffix}", "yref": f"y{suffix}", **corners, "line": line}]


def _cell_axis(cells: Cells) -> Figure:
    """Ticks in the middle of a cell that is a value, at the borders of those that are parts of an interval."""
    count = len(cells.texts)
    texts: Sequence[str] = cells.texts if cells.edges is None else [short_text(edge) for edge in cells.edges]
    first = 0.0 if cells.edges is None else -0.5
    shown = _thinned(count) if cells.edges is None else _evenly_thinned(count)
    return {
        **base_layout(0)["xaxis"],
        "title": {"text": html.escape(level_text(cells.name))},
        "tickmode": "array",
        "tickvals": [first + at for at in shown],
        "ticktext": [html.escape(texts[at]) for at in shown],
        "range": [-0.5, count - 0.5],
        "showgrid": False,
    }


def _thinned(count: int) -> list[int]:
    step = max(1, math.ceil(count / _MOST_TICKS))
    return list(range(0, count, step))


def _evenly_thinned(bins: int) -> list[int]:
    """Of the borders of so many bins, both ends among them."""
    step = next(step for step in range(1, bins + 1) if bins % step == 0 and bins // step < _MOST_EDGES)
    return list(range(0, bins + 1, step))


def _color_axis(analysis: Analysis, written: Written) -> Figure:
    """The same colours for the same values everywhere; the darker, the better."""
    low, high = bulk(analysis.values)
    scale = _SCALE if analysis.direction == "maximize" else _SCALE[::-1]
    bar = {"thickness": 14, "outlinewidth": 0, "tickformat": written.ticks, "len": 1, "y": 0.5, "x": 1.01}
    return {
        "cmin": low,
        "cmax": high if high > low else low + (abs(low) or 1.0),
        "colorscale": [[number / (len(scale) - 1), color] for number, color in enumerate(scale)],
        "colorbar": bar,
    }


def _heading(text: str, x: float) -> Figure:
    return {"text": html.escape(text), "x": x, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "center",
            "yanchor": "bottom", "yshift": 8, "showarrow": False, "font": {"size": 14}}  # fmt: skip


def _cell_text(value: float, written: Written) -> str:
    return "" if math.isnan(value) else written.text(value)


def _digits(value: float) -> float | None:
    """Six of them are more than a colour shows."""
    return None if math.isnan(value) else float(f"{value:.6g}")


# One axis


def profile_figure(axis: TriedAxis, analysis: Analysis, written: Written) -> Figure:
    """The objective along the only axis."""
    chosen = _sample(analysis, _MOST_POINTS)
    layout = base_layout(380) | {"showlegend": False}
    places = axis.codes if axis.numbers is None else axis.numbers
    assert places is not None
    layout["xaxis"] |= {"title": {"text": html.escape(level_text(axis.name))}}
    if axis.numbers is None:
        shown = _thinned(len(axis.texts))
        layout["xaxis"] |= {"tickvals": shown, "ticktext": [html.escape(axis.texts[at]) for at in shown]}
    elif isinstance(axis.axis, Interval) and axis.axis.log:
        layout["xaxis"] |= {"type": "log"}
    layout["yaxis"] |= {"title": {"text": html.escape(written.title)}, "tickformat": written.ticks}
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": places[chosen].tolist(),
        "y": analysis.values[chosen].tolist(),
        "marker": {"color": COLORS[1], "size": 7, "opacity": 0.7},
        "customdata": [html.escape(written.text(value)) for value in analysis.values[chosen].tolist()],
        "hovertemplate": "%{x}: %{customdata}<extra></extra>",
    }
    return {"data": [points], "layout": layout}


# Parallel coordinates


def parallel_figures(analysis: Analysis, written: Written) -> tuple[Figure, Figure]:
    """With WebGL, where ranges can be chosen on the axes; and as plain lines, for browsers that have none."""
    chosen = _sample(analysis, MOST_LINES)
    scales = [*(_axis_scale(axis, chosen) for axis in analysis.axes), _objective_scale(analysis, chosen, written)]
    return _with_webgl(scales, analysis, written), _as_lines(scales, analysis, written)


@dataclass(frozen=True, slots=True, eq=False)
class _Scale:
    """An axis drawn upright: where each line crosses it, and its ticks; all between `low` and `high`."""

    title: str
    at: Floats
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


def _sample(analysis: Analysis, most: int) -> Codes:
    """Places of trials with an objective, the better ones later and so on top."""
    order = ranked(analysis.values, analysis.direction)
    if len(order) > most:
        best, rest = order[: most // 10], order[most // 10 :]
        drawn = np.random.default_rng(_SEED).choice(len(rest), most - len(best), replace=False)
        order = np.concatenate((best, rest[np.sort(drawn)]))
    return order[::-1]


def _axis_scale(axis: TriedAxis, chosen: Codes) -> _Scale:
    """Few values stand evenly, many where they lie on the axis."""
    if axis.levels is not None and axis.codes is not None and (len(axis.levels) <= _FEW_LEVELS or not axis.ordered):
        ticks = tuple((float(at), axis.texts[at]) for at in _thinned(len(axis.levels)))
        at = axis.codes[chosen] + _spread(axis.codes[chosen])
        return _Scale(axis.name, at, -_SPREAD, len(axis.levels) - 1 + _SPREAD, ticks)
    assert axis.scaled is not None
    return _Scale(axis.name, axis.scaled[chosen], 0.0, 1.0, _even_ticks(axis))


def _spread(codes: Codes) -> Floats:
    """Lines that meet in one value, side by side in the order in which they come."""
    offsets = np.zeros(len(codes))
    for code in np.unique(codes):
        within = codes == code
        offsets[within] = np.linspace(-_SPREAD, _SPREAD, int(within.sum())) if within.sum() > 1 else 0.0
    return offsets


def _even_ticks(axis: TriedAxis) -> tuple[tuple[float, str], ...]:
    if isinstance(axis.axis, Interval):
        return tuple((part / 5, short_text(axis.number_at(part / 5))) for part in range(6))
    values = axis.axis.values if isinstance(axis.axis.values, range) else sorted(axis.axis.values)
    ascending = values if values[0] < values[-1] else values[::-1]
    last = len(ascending) - 1
    step = math.ceil(len(ascending) / 8)
    return tuple((at / last, level_text(ascending[at])) for at in range(0, last + 1, step))


def _objective_scale(analysis: Analysis, chosen: Codes, written: Written) -> _Scale:
    low, high = bulk(analysis.values)
    if not low < high:
        high = low + (abs(low) or 1.0)
    ticks = tuple((low * (1 - part / 5) + high * part / 5) for part in range(6))
    return _Scale(
        written.title, np.clip(analysis.values[chosen], low, high), low, high,
        tuple((tick, written.text(tick)) for tick in ticks),
    )  # fmt: skip


def _with_webgl(scales: Sequence[_Scale], analysis: Analysis, written: Written) -> Figure:
    layout = _parallel_layout(scales)
    layout["coloraxis"] = _color_axis(analysis, written)
    dimensions = [
        {
            "label": html.escape(level_text(scale.title)),
            "values": [_digits(value) for value in scale.at.tolist()],
            "range": [scale.low, scale.high],
            "tickvals": [at for at, _ in scale.ticks],
            # Here, and nowhere else, plotly.js takes texts as they are.
            "ticktext": [text for _, text in scale.ticks],
        }
        for scale in scales
    ]
    line = {"color": dimensions[-1]["values"], "coloraxis": "coloraxis"}
    trace = {"type": "parcoords", "dimensions": dimensions, "line": line, "labelside": "top",
             "labelfont": {"size": 13}, "tickfont": {"size": 12}}  # fmt: skip
    return {"data": [trace], "layout": layout}


_BANDS: Final = 12


def _as_lines(scales: Sequence[_Scale], analysis: Analysis, written: Written) -> Figure:
    """A trace for each of a few colours, its lines parted by gaps."""
    heights = np.column_stack([(scale.at - scale.low) / (scale.high - scale.low) for scale in scales])
    bands = np.clip((heights[:, -1] * _BANDS).astype(np.int64), 0, _BANDS - 1)
    order = range(_BANDS) if analysis.direction == "maximize" else range(_BANDS - 1, -1, -1)
    colors = _color_axis(analysis, written)["colorscale"]
    traces = [
        _band(heights[bands == band], colors[round(band * (len(colors) - 1) / (_BANDS - 1))][1]) for band in order
    ]
    layout = _parallel_layout(scales)
    layout["xaxis"] |= {"visible": False, "range": [-0.08, len(scales) - 0.92]}
    layout["yaxis"] |= {"visible": False, "range": [-0.02, 1.02]}
    layout["shapes"] = [
        {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
        for at in range(len(scales))
    ]
    layout["annotations"] = [note for at, scale in enumerate(scales) for note in _labels(at, scale)]
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def _band(heights: Floats, color: str) -> Figure:
    gapped = np.column_stack((heights, np.full(len(heights), np.nan)))
    places = [*range(heights.shape[1]), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": places * len(heights),
        "y": [None if math.isnan(height) else round(height, 4) for height in gapped.ravel().tolist()],
        "line": {"color": color, "width": 1},
        "opacity": 0.7,
        "hoverinfo": "skip",
    }


def _labels(at: int, scale: _Scale) -> list[Figure]:
    common = {"xref": "x", "yref": "y", "x": at, "showarrow": False, "bgcolor": "rgba(255,255,255,0.75)"}
    ticks = [
        common | {"y": (tick - scale.low) / (scale.high - scale.low), "text": html.escape(text), "xanchor": "left",
                  "xshift": 2, "font": {"size": 12}}
        for tick, text in scale.ticks
    ]  # fmt: skip
    title = common | {"y": 1, "text": html.escape(level_text(scale.title)), "yshift": 22, "font": {"size": 13}}
    return [title, *ticks]


def _parallel_layout(scales: Sequence[_Scale]) -> Figure:
    """The first axis has its ticks on the left, and its title above it in the middle."""
    widest = max(len(text) for _, text in scales[0].ticks)
    margin = {"l": max(70, 8 * widest, 4 * len(level_text(scales[0].title))), "r": 30, "t": 50, "b": 30}
    return base_layout(460) | {"showlegend": False, "margin": margin, "font": {"family": FONT, "size": 12}}


# Importance and distribution


def importance_figure(found: Importance) -> Figure:
    """A bar an axis, and on it how far chance can come."""
    names = list(found.shares)[::-1]
    layout = base_layout(34 * len(names) + 80) | {"showlegend": False, "margin": {"l": 64, "r": 16, "t": 10, "b": 40}}
    widest = max(*found.shares.values(), *found.chance.values())
    layout["xaxis"] |= {"tickformat": ".0%", "range": [0, widest * 1.12]}
    layout["yaxis"] |= {
        "tickvals": list(range(len(names))),
        "ticktext": [html.escape(level_text(name)) for name in names],
    }
    layout["shapes"] = [
        {"type": "line", "x0": found.chance[name], "x1": found.chance[name], "y0": at - 0.45, "y1": at + 0.45,
         "line": {"color": COLORS[2], "width": 2}}
        for at, name in enumerate(names)
    ]  # fmt: skip
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [found.shares[name] for name in names],
        "y": list(range(len(names))),
        "marker": {"color": [COLORS[1] if found.shares[name] > found.chance[name] else "#c3c9d0" for name in names]},
        "texttemplate": "%{x:.0%}",
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    return {"data": [bars], "layout": layout}


def distribution_figure(found: Histogram, analysis: Analysis, written: Written) -> Figure:
    """Bars of the trials; where there is noise to hold them against, as many trials of it as a line."""
    noise, best = analysis.noise, analysis.best
    ends = _ends(found, noise)
    layout = base_layout(400) | {"hovermode": "closest", "shapes": [], "annotations": []}
    layout["xaxis"] |= {"title": {"text": html.escape(written.title)}, "tickformat": written.ticks, "range": list(ends)}
    layout["yaxis"] |= {"title": {"text": "trials"}, "rangemode": "tozero"}
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.08, "yanchor": "bottom"}
    layout["margin"] = {"l": 64, "r": 16, "t": 80, "b": 50}
    data = [_bars(found, written)]
    marks = [(best.value, "best found", COLORS[0])] if best else []
    if noise is not None:
        data.append(_noise_line(noise, found, ends))
        marks.append((noise.expected_best, "best of noise", COLORS[2]))
    # The texts of two lines lie on either side of both.
    for number, (at, name, color) in enumerate(sorted(marks)):
        left = number == 0 and (len(marks) == 2 or at > sum(ends) / 2)
        _mark(layout, at, f"{name} {written.text(at)}", color, left=left, ends=ends)
    return {"data": data, "layout": layout}


def _ends(found: Histogram, noise: Noise | None) -> tuple[float, float]:
    """Of the axis: room for all bars, and for the noise."""
    low, high = found.edges[0], found.edges[-1]
    if noise is not None:
        error = standard_error(min(noise.observations), noise.annualization)
        far = max(3.5 * error, 1.15 * abs(noise.expected_best))
        low, high = min(low, -far), max(high, far)
    margin = high * 0.04 - low * 0.04
    return low - margin, high + margin


def _bars(found: Histogram, written: Written) -> Figure:
    width = found.edges[1] - found.edges[0]
    return {
        "type": "bar",
        "name": "trials of this sweep",
        "x": [low / 2 + high / 2 for low, high in pairwise(found.edges)],
        "y": list(found.counts),
        "width": width * 0.96,
        "marker": {"color": COLORS[6]},
        "customdata": [f"{written.text(low)} to {written.text(high)}" for low, high in pairwise(found.edges)],
        "hovertemplate": "%{customdata}: %{y:,} trials<extra></extra>",
    }


def _noise_line(noise: Noise, found: Histogram, ends: tuple[float, float]) -> Figure:
    """As high as the bars would be, were the trials noise."""
    places = np.linspace(*ends, 241).tolist()
    share = noise.trials * (found.edges[1] - found.edges[0])
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "as many trials of pure noise",
        "x": places,
        "y": [share * noise_density(place, noise.observations, noise.annualization) for place in places],
        "line": {"color": COLORS[2], "width": 2},
        "hoverinfo": "skip",
    }


def _mark(layout: Figure, at: float, text: str, color: str, *, left: bool, ends: tuple[float, float]) -> None:
    """What lies beyond the ends of the axis is marked there, with an arrow."""
    low, high = ends
    beyond = at < low or at > high
    left = at > high or (left and at >= low)
    place = min(max(at, low), high)
    if not beyond:
        line = {"color": color, "width": 1.5, "dash": "dash"}
        layout["shapes"].append(rule(place, vertical=True) | {"layer": "above", "line": line})
    shown = text if not beyond else f"{text} →" if at > high else f"← {text}"
    layout["annotations"].append(
        {"x": place, "y": 1, "yref": "paper", "yanchor": "bottom", "text": html.escape(shown), "showarrow": False,
         "xanchor": "right" if left else "left", "font": {"color": color, "size": 13}}
    )  # fmt: skip

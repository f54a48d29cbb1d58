"""Pictures as SVG, drawn without a library: Prefect's pages show them in the page, with no script and no network."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import numpy as np

from ntrader.metrics import NANOSECONDS_PER_DAY, drawdowns
from ntrader.results import EquityCurve, Floats, Times

_WIDTH: Final = 760
_LEFT, _RIGHT, _TOP = 84, 20, 44
_EQUITY_HEIGHT, _GAP, _FALLS_HEIGHT = 260, 34, 90
# More columns than this cannot be told apart in the picture; each keeps its highest and its lowest point.
_COLUMNS: Final = 320
_INK, _PALE, _RULE, _BLUE, _RED = "#1b1f24", "#57606a", "#e1e4e8", "#0072b2", "#d55e00"
_FONT = "'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
# From poor over middling to good, for those who see colours differently too.
_SCALE: Final = ((165, 80, 20), (245, 243, 238), (20, 100, 160))
_CELL_HEIGHT, _WIDEST_CELL = 26, 90
_DATES: Final = 5


def data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def equity_chart(title: str, currency: str, initial_capital: float, curve: EquityCurve) -> str:
    """Equity over time, and below it the drawdown (fractions), with the initial capital as the first point."""
    points = np.concatenate(([initial_capital], curve.equity))
    times = np.concatenate((curve.times[:1] - NANOSECONDS_PER_DAY, curve.times))
    bottom = _TOP + _EQUITY_HEIGHT + _GAP
    body = [
        _text(_LEFT, 26, title, size=17, bold=True),
        _text(_WIDTH - _RIGHT, 26, f"equity in {currency}, drawdown", anchor="end", colour=_PALE),
        *_panel(times, points, _TOP, _EQUITY_HEIGHT, _BLUE, level=initial_capital),
        *_panel(times, drawdowns(points), bottom, _FALLS_HEIGHT, _RED),
        *_dates(times, bottom + _FALLS_HEIGHT),
    ]
    return _svg(bottom + _FALLS_HEIGHT + 34, title, body)


def heatmap(
    title: str,
    across: tuple[str, Sequence[str]],
    down: tuple[str, Sequence[str]],
    cells: Sequence[Sequence[float | None]],
    *,
    less_is_better: bool = False,
) -> str:
    """A value for each pair; `across` and `down` are an axis' name and its labels, `cells[down][across]` is None where
    there is nothing."""
    (x_name, x_labels), (y_name, y_labels) = across, down
    left = 30 + min(8 * max(map(len, [*y_labels, f"{y_name}  "])), 240)
    cell = min((_WIDTH - left - _RIGHT) / max(len(x_labels), 1), _WIDEST_CELL)
    top = 92
    known = [value for row in cells for value in row if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    body = [
        _text(16, 26, title, size=17, bold=True),
        _text(left, 56, f"{x_name} \N{RIGHTWARDS ARROW}", colour=_PALE),
        _text(left - 10, 76, f"{y_name} \N{DOWNWARDS ARROW}", anchor="end", colour=_PALE),
        *(_text(left + (i + 0.5) * cell, 76, label, anchor="middle") for i, label in _sparse(x_labels, cell)),
    ]
    for j, (label, row) in enumerate(zip(y_labels, cells, strict=True)):
        y = top + j * _CELL_HEIGHT
        body.append(_text(left - 10, y + 17, label, anchor="end"))
        for i, value in enumerate(row):
            if value is not None:
                share = (value - low) / (high - low) if high > low else 0.5
                body += _cell(left + i * cell, y, cell, value, 1 - share if less_is_better else share)
    return _svg(top + len(y_labels) * _CELL_HEIGHT + 16, title, body)


# The two curves


def _panel(times: Times, values: Floats, top: int, height: int, colour: str, level: float | None = None) -> list[str]:
    """One curve in its frame, with rules at round values; an area down from 0 where no `level` is to be marked."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):  # a flat line runs through the middle
        low, high = low - max(abs(low), 1) * 0.01, high + (max(abs(high), 1) * 0.01 if level is not None else 0)
    room = 0.04 * (high - low)
    low, high = low - room, high + (room if level is not None else 0)
    parts = [_rule(top + height * (high - tick) / (high - low), shown) for tick, shown in _ticks(low, high)]
    x, y = _thinned(times, (high - values) / (high - low))
    path = _path((_LEFT + x * _inner()) * 2, (top + y * height) * 2)
    if level is None:
        area = f"{path}V{top * 2}H{_LEFT * 2}Z"
        parts.append(f'<path d="{area}" transform="scale(.5)" fill="{colour}" fill-opacity=".18"/>')
    else:
        at = top + height * (high - level) / (high - low)
        parts.append(_line(at, _PALE, dash=True))
    parts.append(f'<path d="{path}" transform="scale(.5)" fill="none" stroke="{colour}" stroke-width="3"/>')
    return parts


def _thinned(times: Times, heights: Floats) -> tuple[Floats, Floats]:
    """Fractions of the width and height: in each column the highest and the lowest point, in their order."""
    span = max(int(times[-1] - times[0]), 1)
    x = (times - times[0]) / span
    if len(x) > 2 * _COLUMNS:
        columns = np.minimum((x * _COLUMNS).astype(np.int64), _COLUMNS - 1)
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        chosen = {0, len(x) - 1}
        for begin, end in zip(starts, [*starts[1:], len(x)], strict=True):
            part = heights[begin:end]
            chosen |= {int(begin + part.argmin()), int(begin + part.argmax())}
        kept = np.array(sorted(chosen))
        x, heights = x[kept], heights[kept]
    return x, heights


def _path(x: Floats, y: Floats) -> str:
    """In whole units and relative steps, which are short to write."""
    xs, ys = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    steps = "".join(f"l{a} {b}" for a, b in zip(np.diff(xs), np.diff(ys), strict=True))
    return f"M{xs[0]} {ys[0]}{steps}"


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Some four round values between, with as many digits as they need."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(factor for factor in (5, 2, 1) if (high - low) / (step * factor) >= 3)
    digits = max(0, -math.floor(math.log10(step * 1.001)))
    numbers = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [(number * step, f"{number * step + 0.0:,.{digits}f}") for number in numbers]


def _dates(times: Times, bottom: int) -> list[str]:
    span = int(times[-1] - times[0])
    form = "%Y-%m-%d" if span > 5 * NANOSECONDS_PER_DAY else "%m-%d %H:%M"
    parts = []
    for number in range(_DATES):
        moment = datetime.fromtimestamp((int(times[0]) + span * number // (_DATES - 1)) / 1e9, UTC)
        anchor = "start" if number == 0 else "end" if number == _DATES - 1 else "middle"
        parts.append(
            _text(
                _LEFT + _inner() * number / (_DATES - 1), bottom + 22, f"{moment:{form}}", anchor=anchor, colour=_PALE
            )
        )
    return parts


# Cells


def _cell(x: float, y: float, width: float, value: float, share: float) -> list[str]:
    colour, dark = _colour(share)
    parts = [f'<rect x="{x:.1f}" y="{y}" width="{width - 1:.1f}" height="{_CELL_HEIGHT - 1}" fill="{colour}"/>']
    shown = f"{value:.3g}"
    if width >= 8 * len(shown):
        parts.append(_text(x + width / 2, y + 17, shown, anchor="middle", colour="#fff" if dark else _INK, size=12))
    return parts


def _colour(share: float) -> tuple[str, bool]:
    """And whether it is a dark one."""
    place = min(max(share, 0.0), 1.0) * (len(_SCALE) - 1)
    first = min(int(place), len(_SCALE) - 2)
    mixed = [round(a + (b - a) * (place - first)) for a, b in zip(_SCALE[first], _SCALE[first + 1], strict=True)]
    return "#{:02x}{:02x}{:02x}".format(*mixed), sum(mixed) < 380


def _sparse(labels: Sequence[str], width: float) -> list[tuple[int, str]]:
    """As many of them as there is room for."""
    every = max(1, math.ceil(7.5 * max(map(len, labels), default=1) / max(width, 1)))
    return [(number, label) for number, label in enumerate(labels) if number % every == 0]


# Pieces


def _svg(height: int, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' role="img" font-family="{_FONT}" font-size="13"><title>{html.escape(title)}</title>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>{"".join(body)}</svg>'
    )


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", colour: str = _INK, size: int = 13, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>'
        f"{html.escape(text)}</text>"
    )


def _rule(y: float, label: str) -> str:
    return _line(y, _RULE) + _text(_LEFT - 8, y + 4, label, anchor="end", colour=_PALE)


def _line(y: float, colour: str, *, dash: bool = False) -> str:
    dashes = ' stroke-dasharray="3 4"' if dash else ""
    return f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{colour}"{dashes}/>'


def _inner() -> int:
    return _WIDTH - _LEFT - _RIGHT

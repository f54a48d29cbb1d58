"""A page that needs nothing else, no network either: its frame, tables of sections, and charts. Values in, text out."""

from __future__ import annotations

import html
from typing import Any

from ntrader.comparison_report import BEST, Section

# Ten that can be told apart, by most of those who see colours differently too.
COLORS = ("#1b1f24", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7b61c4", "#9aa11f")
GREY = "#57606a"
FONT = "-apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 0; background: #f6f7f9; color: #1b1f24; font: 15px/1.5 {FONT}; }}
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
.choice {{ margin: 0 0 10px; color: #424a53; }}
select {{ font: inherit; font-size: 14px; padding: 3px 6px; }}
.close th, .close td {{ padding-right: 14px; font-size: 13.5px; }}
code.copy {{ user-select: all; background: #f1f3f5; border-radius: 4px; padding: 2px 6px; font-size: 12.5px; }}
.warning {{ background: #fff8e5; border-color: #e8d48b; }}
"""
_BUTTONS = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]]
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": _BUTTONS}


def document(title: str, body: str) -> str:
    """The whole page; `title` is text, `body` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


# Tables


def table_section(section: Section) -> str:
    head = "".join(f"<th class={side}>{html.escape(name)}</th>" for name, side in section.columns)
    sides = [side for _, side in section.columns]
    rows = "".join(f"<tr>{''.join(map(_cell, row, sides))}</tr>" for row in section.rows)
    headed = f"<tr>{head}</tr>" if any(name for name, _ in section.columns) else ""
    table = f"<div class=wide><table>{headed}{rows}</table></div>" if section.rows else ""
    return f"<section><h2>{html.escape(section.title)}</h2>{table}{''.join(map(paragraph, section.notes))}</section>"


def _cell(text: str, side: str) -> str:
    if side == "left":
        return f"<td>{html.escape(text)}</td>" if len(text) <= 24 else f"<td class=text>{html.escape(text)}</td>"
    best = text.startswith(BEST)
    return f'<td class="right{" best" if best else ""}">{html.escape(text)}</td>'


def paragraph(text: str) -> str:
    return f"<p class=note>{html.escape(text)}</p>"


# Charts


def chart(figure: dict[str, Any], key: str, *, first: bool) -> str:
    """The library comes once, within the page. Plain dicts need no validation, which would take the most time."""
    from plotly.io import to_html

    text: str = to_html(
        figure, config=CONFIG, include_plotlyjs=first, include_mathjax=False, full_html=False, validate=False,
        div_id=key, default_height=f"{figure['layout']['height']}px",
    )  # fmt: skip
    return text


def library() -> str:
    """plotly.js, for pages whose charts are `drawn`."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def drawn(key: str, height: int, script: str, **constants: Any) -> str:
    """A place with the id `key`, and the script that draws into it, which knows CONFIG and the `constants` by their
    names. Whatever texts they hold stay texts."""
    from plotly.io.json import to_json_plotly

    values = {"CONFIG": CONFIG, **constants}
    known = "".join(f"const {name} = {to_json_plotly(value)};\n" for name, value in values.items())
    # In braces, so that the next chart may use the same names.
    return f'<div id="{key}" style="height:{height}px"></div><script>{{\n{known}{script}}}</script>'


def base_layout(height: int) -> dict[str, Any]:
    axis = {"gridcolor": "#e8eaed", "linecolor": "#d0d7de", "zeroline": False, "automargin": True, "showline": True}
    return {
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 34, "b": 40},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "font": {"family": FONT, "size": 13, "color": "#1b1f24"},
        "showlegend": True,
        "legend": {"orientation": "v", "x": 1.01, "y": 1, "xanchor": "left", "font": {"size": 13}},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def rule(at: float, *, vertical: bool = False) -> dict[str, Any]:
    along, across = ("y", "x") if vertical else ("x", "y")
    ends = {f"{along}0": 0, f"{along}1": 1, f"{across}0": at, f"{across}1": at}
    line = {"color": "#9aa4ae", "width": 1, "dash": "dot"}
    return {"type": "line", "layer": "below", f"{along}ref": "paper", f"{across}ref": across, **ends, "line": line}

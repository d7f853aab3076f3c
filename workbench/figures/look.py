"""The look of every figure: colours, the template, and panels with room for what stands around them.

Sizes are those of print: width "column" = 85 mm, "page" = 175 mm, text 8 pt. Colours are Okabe and Ito's, which
colour-blind readers can tell apart; a label has the same colour in all figures of a process, and those in `STYLES`
and whole numbers have theirs for good.
"""

import html
import math
import textwrap
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

Width = Literal["column", "page"]
Match = Literal["", "x", "y", "xy"]
MILLIMETRES: dict[Width, int] = {"column": 85, "page": 175}
PIXEL = 96 / 25.4  # CSS pixels per mm: what plotly, SVG and PDF count in
TEXT, SMALL = 8 * 96 / 72, 7 * 96 / 72  # font sizes in pixels: 8 and 7 pt

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#8C8C8C"
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)  # grey for yellow, too pale a line on white


class Style(NamedTuple):
    """How a label is drawn: never by colour alone."""

    color: str
    symbol: str = "circle"
    dash: str = "solid"


STYLES = {
    "correct": Style(BLUE),
    "wrong": Style(VERMILLION, "diamond", "dash"),
    "unknown": Style(GREY, "x", "dot"),
    "none": Style(GREY, "square", "dot"),
    "empty_slot": Style(GREY, "square", "dot"),
    "direct": Style(GREY, "square", "dot"),
    "cot": Style(BLACK, "triangle-up", "dash"),
    "soft_prompt": Style(ORANGE, "diamond", "dashdot"),
    "lta_thinker": Style(BLUE),
    "all_+": Style(BLUE),  # what the new words of an arith question mean
    "all__": Style(VERMILLION, "diamond", "dash"),
    "mixed": Style(PURPLE, "square", "dot"),
    "question": Style(BLUE),  # where the variance of thoughts comes from
    "slot": Style(ORANGE, "diamond", "dash"),
    "question_slot": Style(SKY, "cross", "dash"),
    "path": Style(GREEN, "square", "dot"),
    "residual": Style(GREY, "x", "dashdot"),
    "token_embeddings": Style(BLACK, "cross", "dot"),
    "": Style(BLUE),  # the only run of a figure
    "total": Style(BLACK),
    "likelihood": Style(BLUE, "circle", "dash"),
    "focus": Style(ORANGE, "diamond", "dot"),
    "focus_log_steps": Style(GREY, "x", "dot"),  # what the focus loss is when it sees no difference between steps
    "alignment": Style(GREEN, "square", "dashdot"),
}
_FREE = (GREEN, PURPLE, SKY, VERMILLION, BLACK, ORANGE, BLUE)  # those that STYLES uses least come first
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross")
_DASHES = ("solid", "dash", "dot", "dashdot")
_met: dict[str, Style] = {}  # labels outside STYLES, in the order this process met them


def style(label: object) -> Style:
    """The colour, marker and dash of a label: fixed for `STYLES` and whole numbers, else kept from its first use on."""
    if isinstance(label, int | np.integer):
        return Style(COLORS[int(label) % 8], _SYMBOLS[int(label) % 5], _DASHES[(int(label) + int(label) // 8) % 4])
    name = str(label).lower().replace("-", "_").replace(" ", "_")  # lta-thinker, lta_thinker, LTA-Thinker are one
    if name not in STYLES and name not in _met:
        k = len(_met)
        _met[name] = Style(_FREE[k % 7], _SYMBOLS[(k + 1) % 5], _DASHES[(k + 1) % 4])
    return STYLES.get(name) or _met[name]


def template(scale: float = 1.0) -> go.layout.Template:
    """White, thin axes, no grid, 8 pt text times `scale`.

    It also takes away the button that uploads a figure's data (plotly 7 shows it unless told): as part of the figure
    this holds in files, notebooks and widgets alike.
    """
    text, small = TEXT * scale, SMALL * scale
    axis = {
        "showgrid": False,
        "gridcolor": "#E6E6E6",
        "gridwidth": 0.5,
        "zeroline": False,
        "showline": True,
        "linecolor": "#444444",
        "linewidth": 0.75,
        "ticks": "outside",
        "ticklen": 3 * scale,
        "tickwidth": 0.75,
        "tickcolor": "#444444",
        "exponentformat": "e",  # not 200µ
        "tickfont": {"size": small},
        "title": {"font": {"size": text}, "standoff": 4 * scale},
    }
    bar = {
        "thickness": 8 * scale,
        "outlinewidth": 0,
        "tickfont": {"size": small},
        "ticks": "outside",
        "ticklen": 3 * scale,
        "title": {"side": "right", "font": {"size": text}},
    }
    # the title is a caption under the axes: n, and what one must know to read the figure
    caption = {
        "font": {"size": small, "color": "#555555"},
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "pad": {"l": 4 * scale, "b": 4 * scale},
    }
    legend = {
        "orientation": "h",
        "x": 0,
        "xref": "container",
        "y": 1,
        "yref": "container",
        "yanchor": "top",
        "font": {"size": text},
        "bgcolor": "rgba(0,0,0,0)",
        "title": {"font": {"size": text}},
        "tracegroupgap": 0,
    }
    return go.layout.Template(
        layout={
            "font": {"family": "Helvetica, Arial, 'Liberation Sans', sans-serif", "size": text, "color": "#222222"},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "colorway": COLORS,
            "xaxis": axis,
            "yaxis": axis | {"automargin": "left"},
            "title": caption,
            "legend": legend,
            "annotationdefaults": {"font": {"size": text}, "showarrow": False},
            "coloraxis": {"colorbar": bar},
            "hoverlabel": {"align": "left", "bgcolor": "white", "font": {"size": 12}},
            "modebar": {"remove": ["sendChartToCloud"]},
        }
    )


def panels(
    titles: Sequence[str],
    columns: int,
    height: float | Sequence[float],
    width: Width,
    *,
    axes: tuple[str, str],
    legend: Sequence[str] = (),
    legend_title: str = "",
    caption: str = "",
    match: Match = "x",
    foot: float = 0,
) -> go.Figure:
    """An empty figure with a panel of `height` mm for each title (or one height per row), and room around them.

    axes: names of the x axis, written once below all panels, and of the y axis, written at the left ones; legend: the
    texts that will stand in it (none: no legend), beside its title; match: the axes that have the same range in all
    panels, so that inner ones need no tick labels; foot: more room below, in mm, for tall tick labels.
    """
    if width not in MILLIMETRES:
        raise ValueError(f"unknown width {width!r}: use {' or '.join(map(repr, get_args(Width)))}")
    total = MILLIMETRES[width] * PIXEL
    rows = math.ceil(len(titles) / columns)
    heights = [height] * rows if isinstance(height, int | float) else list(height)
    line = 1.4 * TEXT  # of text, in pixels
    heading = line + 4 if any(titles) else 0
    words = "<br>".join(textwrap.wrap(as_text(caption), int(total / (0.47 * SMALL))))
    below = 8 + 2 * line + foot * PIXEL + ((words.count("<br>") + 1) * 1.3 * SMALL if words else 0)
    entry = 0.56 * TEXT * max(map(len, legend), default=0)  # about the width of the longest label
    above = 8 + heading + _key_height(len(legend), entry, legend_title, total)
    gap = heading + 8
    inner = sum(heights) * PIXEL + (rows - 1) * gap
    across = total - 60  # about what the outer tick labels leave
    together: Any = "all"  # plotly's own annotation knows bool only
    figure = make_subplots(
        rows,
        columns,
        shared_xaxes=together if "x" in match else False,
        shared_yaxes=together if "y" in match else False,
        horizontal_spacing=(12 if "y" in match else 34) / across if columns > 1 else 0,
        vertical_spacing=gap / inner if rows > 1 else 0,
        row_heights=heights,
        specs=[[{} if r * columns + c < len(titles) else None for c in range(columns)] for r in range(rows)],
    )
    for k, title in enumerate(titles):
        place: dict[str, Any] = {"row": k // columns + 1, "col": k % columns + 1}
        if title:  # above the panel's upper left corner
            corner: dict[str, Any] = {"x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 2}
            figure.add_annotation(text=as_text(title), xref="x domain", yref="y domain", **corner, **place)
        if k + columns >= len(titles):  # the lowest of its column
            figure.update_xaxes(title_text=axes[0] if columns == 1 else None, showticklabels=True, **place)
        if place["col"] == 1:
            figure.update_yaxes(title_text=axes[1], **place)
    if columns > 1:  # one name for all, under the middle, as far below the axes as plotly writes it
        middle: dict[str, Any] = {"x": 0.5, "y": 0, "xanchor": "center", "yanchor": "top", "yshift": -7 - 1.3 * SMALL}
        figure.add_annotation(text=axes[0], xref="paper", yref="paper", name="x title", **middle)
    return figure.update_layout(
        template=template(),
        width=round(total),
        height=round(above + inner + below),
        margin={"l": 10, "r": 14, "t": above, "b": below},
        legend={"entrywidth": entry, "title": {"text": as_text(legend_title) or None if legend else None}},
        showlegend=bool(legend),
        title={"text": words or None},
    )


def side_by_side(count: int, width: Width) -> int:
    """How many of `count` panels stand beside each other."""
    return min(count, 2 if width == "column" or count == 4 else 3)


def _key_height(entries: int, entry: float, title: str, total: float) -> float:
    """Pixels of a legend whose entries are so wide."""
    if not entries:
        return 0
    across = 0.95 * total - 0.56 * TEXT * len(title)
    return math.ceil(entries / max(1, int(across // (entry + 45)))) * 1.3 * 1.4 * TEXT + 6


def counted(table: pd.DataFrame, n: str | int, of: str, level: float | None) -> str:
    """How many, and how sure, for a caption: 'n = 1000 questions, 95 % intervals'.

    n: the number, or its column; level: of the intervals, None where there are none.
    """
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level is {level}: give the level of the table's intervals between 0 and 1, such as 0.95")
    if isinstance(n, str):
        if n not in table:
            raise ValueError(
                f"the table has no column {n!r} with the number of {of} behind each row (it has "
                f"{', '.join(map(str, table))}): add it, or give n=NUMBER and of='{of}' or what else was counted"
            )
        sizes = [int(size) for size in table[n]]
        least, most = min(sizes), max(sizes)
    else:
        least = most = n
    intervals = "" if level is None else f", {100 * level:g} % intervals"
    return f"n = {least if least == most else f'{least} to {most}'} {of}{intervals}"


def plain(name: str) -> str:
    """A column's name as readers see it: label_critical_step -> critical step."""
    return name.removeprefix("label_").removeprefix("signal_").replace("_", " ")


def as_text(value: object) -> str:
    """A label for plotly, which would take a tag in it as markup."""
    return html.escape(str(value), quote=False)


def need(table: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Refuse a table that lacks a column, with one sentence."""
    missing = [name for name in columns if name not in table]
    if missing:
        raise ValueError(
            f"the table lacks {', '.join(missing)} (it has {', '.join(map(str, table))}): give what {source} returns"
        )

"""The look of every figure: colours, the template, and panels with room for what stands around them.

Sizes are those of print: width "column" = 85 mm, "page" = 175 mm, text 8 pt. Colours are Okabe and Ito's, for eyes of
any kind; a label keeps its colour in all figures of a process, those in `STYLES` and whole numbers for good.
"""

import html
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..files import shown
from .fonts import FAMILIES, folded, written

Width = Literal["column", "page"]
Match = Literal["", "x", "y", "xy"]
MILLIMETRES: dict[Width, int] = {"column": 85, "page": 175}
PIXEL = 96 / 25.4  # CSS pixels per mm: what plotly, SVG and PDF count in
TEXT, SMALL = 8 * 96 / 72, 7 * 96 / 72  # font sizes in pixels: 8 and 7 pt
EDGES = 24  # pixels left and right of the plot area, its tick labels aside
ENTRY = 19  # pixels from one line of a legend to the next
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#8C8C8C"
PALE_BLUE, PALE_VERMILLION, NOTHING = "#5BA5CF", "#E6935B", "#F4F4F4"  # ends and middle of a scale under black text
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
    "softcot": Style(GREEN, "square", "dash"),
    "softcot_pp": Style(SKY, "cross", "dot"),
    "softcot++": Style(SKY, "cross", "dot"),
    "coconut": Style(VERMILLION, "x", "dashdot"),
    "soft_thinking": Style(PURPLE, "triangle-up", "dot"),
    "mean": Style(BLUE),  # of several answers
    "majority_vote": Style(GREEN, "square", "dash"),
    "pass@k": Style(PURPLE, "triangle-up", "dot"),
    "healthy": Style(GREEN),
    "drifting": Style(ORANGE, "square", "dot"),
    "collapsed": Style(VERMILLION, "diamond", "dash"),
    "undecided": Style(GREY, "x", "dashdot"),
    "all_+": Style(BLUE),  # what the new words of an arith question mean
    "all__": Style(VERMILLION, "diamond", "dash"),
    "mixed": Style(PURPLE, "square", "dot"),
    "constant": Style(BLACK, "triangle-up"),
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
    if isinstance(label, int | np.integer) or (isinstance(label, str) and label.isdecimal()):
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
        "tickformat": "~g",  # 10000 and 0.0002, not 1e+4 and 200µ
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
    # the title is a caption under the axes: n, and what one must know to read the figure; "bottom" is plotly's word for
    # its first line, the only one it places alike whether more follow or not
    caption = {
        "font": {"size": small, "color": "#555555"},
        "x": 0,
        "xref": "container",
        "xanchor": "left",
        "y": 0,
        "yref": "paper",
        "yanchor": "bottom",
        "pad": {"l": 4 * scale},
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
        "title": {"font": {"size": text}, "side": "top"},
        "tracegroupgap": 0,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FAMILIES, "size": text, "color": "#222222"},
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
            # upright, in the margin: lying it would cover the last entry of a legend
            "modebar": {"remove": ["sendChartToCloud"], "orientation": "v", "bgcolor": "rgba(255,255,255,0.7)"},
        }
    )


def across_of(width: Width) -> float:
    """A figure's width in pixels."""
    if width not in MILLIMETRES:
        raise ValueError(f"unknown width {width!r}: use {' or '.join(map(repr, get_args(Width)))}")
    return MILLIMETRES[width] * PIXEL


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
    left: float = 0,
    foot: float = 0,
) -> go.Figure:
    """An empty figure with a panel of `height` mm for each title (or one height per row), and room around them.

    axes: names of the x axis, written once below all panels, and of the y axis, written at the left ones; legend: the
    texts that will stand in it (none: no legend), and its title; match: the axes that have the same range in all
    panels, so that inner ones need no tick labels; left: pixels that words beside the y axis take (0: numbers stand
    there); foot: more room below, in mm, for tall tick labels.
    """
    total = across_of(width)
    rows = math.ceil(len(titles) / columns)
    heights = [height] * rows if isinstance(height, int | float) else list(height)
    heading = 1.4 * TEXT + 4 if any(titles) else 0
    words = folded(as_text(caption), total - 12, SMALL)
    axis = 8 + 1.4 * TEXT * (1 + bool(axes[0])) + foot * PIXEL  # its labels and name
    below = axis + 3 + _caption_height(words)
    keys, plot = [as_text(label) for label in legend], total - EDGES - (0 if left else 40)
    key, key_height = _key(keys, as_text(legend_title), plot, total - 8)
    above = 8 + heading + key_height
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
    start = left / (total - EDGES)  # words stand inside the plot area, of which a legend can use the whole width
    figure.for_each_xaxis(lambda x: x.update(domain=[start + (1 - start) * end for end in x.domain]))
    if left:
        figure.update_yaxes(automargin=False)
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
        middle: dict[str, Any] = {"x": (1 + start) / 2, "y": 0, "xanchor": "center", "yanchor": "top"}
        middle["yshift"] = -7 - 1.3 * SMALL
        figure.add_annotation(text=axes[0], xref="paper", yref="paper", name="x title", **middle)
    return figure.update_layout(
        template=template(),
        width=round(total),
        height=round(above + inner + below),
        margin={"l": 10, "r": EDGES - 10, "t": above, "b": below},
        legend={"title": key},
        showlegend=bool(legend),
        title={"text": words or None, "pad": {"b": -(axis + SMALL)}},
    )


def add_to_caption(figure: go.Figure, words: str) -> go.Figure:
    """The figure with more words at the end of its caption, and the room they need."""
    before = figure.layout.title.text or ""
    joint = "" if words.startswith(";") else " "
    after = folded(f"{before.replace('<br>', ' ')}{joint}{as_text(words)}".strip(), figure.layout.width - 12, SMALL)
    more = _caption_height(after) - _caption_height(before)
    return figure.update_layout(
        title_text=after, height=round(figure.layout.height + more), margin_b=figure.layout.margin.b + more
    )


def _caption_height(words: str) -> float:
    return (words.count("<br>") + 1) * 1.3 * SMALL if words else 0


def _key(entries: Sequence[str], title: str, across: float, most: float) -> tuple[dict[str, Any], float]:
    """A legend's title, beside its entries where all of them fit into one line, else above them; the legend's height.

    plotly puts as many entries, 45 pixels wider than their texts, into a line as fit into `across` pixels, and does not
    count the title, which may use all of `most`.
    """
    if not entries:
        return {"text": None}, 0
    wide = [45 + written(text) for text in entries]
    if title and sum(wide) <= across and written(title) + 12 + sum(wide) <= most:
        return key_title(title), ENTRY + 10
    lines, used = 1, 0.0
    for one in wide:
        lines, used = (lines + 1, one) if used and used + one > across else (lines, used + one)
    return {"text": title or None}, lines * ENTRY + 10 + (1.3 * TEXT if title else 0)


def key_title(title: str, scale: float = 1.0) -> dict[str, Any]:
    """A legend's title on the line of its first entries.

    Alone, plotly would write it some pixels higher than them. Its font's size sets its line, so that is larger, and a
    span inside has the size of the text.
    """
    text = TEXT * scale
    line = 5 + (max(1.3 * text, 16) + 3) / 2 + 0.39 * text  # where plotly writes an entry, from the legend's top
    inner = f'<span style="font-size:{1.3 * text / line:.3f}em">{title}</span>'
    return {"text": inner, "side": "left", "font": {"size": line / 1.3}}


def beside(labels: Sequence[str], width: Width) -> tuple[list[str], float]:
    """Labels for the left of a panel, in lines of at most 40 % of the figure, and the pixels they take there."""
    lines = [folded(as_text(label), 0.4 * across_of(width), SMALL) for label in labels]
    return lines, 6 + max(written(line, SMALL) for label in lines for line in label.split("<br>"))


def side_by_side(count: int, width: Width) -> int:
    """How many of `count` panels stand beside each other."""
    if width == "column":
        return 1 if count == 3 else min(count, 2)
    return min(count, 2 if count == 4 else 3)


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


# What columns of our own are called: a label or signal of such a name says that it is one.
OWN = {
    "answer", "correct", "example", "gold", "length", "method", "path", "prediction", "question", "right", "slot",
    "step", "store", "task", "text", "x", "y", "z",
}  # fmt: skip


def plain(name: str) -> str:
    """A column's name as readers see it: label_critical_step -> critical step, but label_answer -> label answer."""
    kind, _, rest = name.partition("_")
    short = rest.replace("_", " ")
    return short if kind in ("label", "signal") and short and short not in OWN else name.replace("_", " ")


def title_of(column: str) -> str:
    """A column as readers know it: the steps of a thought vector are its slots, those of an answer are steps."""
    return {"step": "slot", "correct": "answer"}.get(column, plain(column))


def titles_of(columns: Iterable[str]) -> dict[str, str]:
    """`title_of` each column; those that would be called alike (a label and a signal, say) keep their whole names."""
    found = {column: title_of(column) for column in columns}
    often = Counter(found.values())
    return {column: title if often[title] == 1 else column for column, title in found.items()}


def legend_title_of(table: pd.DataFrame, column: str) -> str:
    """What the entries of a legend are, by their column; stores are told by their names, or by their training steps."""
    if column == "store":
        return "training step" if pd.api.types.is_numeric_dtype(table[column]) else ""
    return title_of(column)


def as_text(value: object) -> str:
    """A label for plotly, which would take a tag in it as markup."""
    return html.escape(str(value), quote=False)


def need(table: pd.DataFrame, columns: Sequence[str], source: str) -> None:
    """Refuse a table that lacks a column, with one sentence."""
    missing = [name for name in columns if name not in table]
    if missing:
        has = shown(", ".join(map(str, table)))
        raise ValueError(f"the table lacks {', '.join(missing)} (it has {has}): give what {source} returns")

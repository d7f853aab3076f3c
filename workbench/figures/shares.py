"""What a whole is made of: the variance of thoughts from questions, slots, paths, and the rest."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import SMALL, Width, as_text, beside, counted, need, panels, plain, style

PATTERNS = ("", "/", ".", "x", "\\", "-", "|", "+")  # beside the colours, for those who cannot tell them apart
ROOM = {"page": 6.0, "column": 14.0}  # percent of a bar that its number needs


def shares(
    table: pd.DataFrame,
    *,
    label: str = "store",
    part: str = "part",
    share: str = "share",
    n: str | int = "n",
    of: str = "thoughts",
    whole: str = "variance",
    width: Width = "page",
) -> go.Figure:
    """One bar per `label`, divided into its parts, in percent of the whole; first row on top.

    table: a row per label and part with its share of 1. Parts stand in the order in which they first appear, and those
    too narrow for their number show it on hovering. n: what each bar is made of, a number or its column.
    Raises ValueError for missing columns, negative shares, parts that appear twice, and bars that do not add up to 1.
    """
    need(table, [label, part, share], "a table with one row per label and part")
    if table.empty:
        raise ValueError("no rows to draw: give one row per label and part")
    wide = _wide(table, label, part, share)
    names, left = beside([plain(str(name)) for name in wide.index], width)
    figure = panels(
        [""],
        1,
        8 * len(names) + 4,
        width,
        axes=(f"share of the {whole} (%)", ""),
        legend=[plain(str(name)) for name in wide],
        legend_title=plain(part),
        caption=counted(table, n, of, None),
        left=left,
    )
    for k, name in enumerate(wide):
        percent = [100 * float(value) for value in wide[name]]
        figure.add_trace(
            go.Bar(
                x=percent,
                y=names,
                orientation="h",
                name=as_text(plain(str(name))),
                legendgroup=str(name),
                text=[f"{value:.0f}" if value >= ROOM[width] else "" for value in percent],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"size": SMALL},
                constraintext="none",
                marker={
                    "color": style(name).color,
                    "pattern": {
                        "shape": PATTERNS[k % len(PATTERNS)],
                        "fillmode": "overlay",
                        "fgcolor": "white",
                        "fgopacity": 0.4,  # the numbers stay legible
                        "solidity": 0.2,
                        "size": 6,
                    },
                    "line": {"color": "white", "width": 1},
                },
                hovertemplate=f"%{{y}}: %{{x:.1f}} %<extra>{as_text(name)}</extra>",
            )
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend_traceorder="grouped")
    figure.update_xaxes(range=[0, 100])
    return figure.update_yaxes(autorange="reversed", ticks="", showline=False, ticklabelstandoff=2)


def _wide(table: pd.DataFrame, label: str, part: str, share: str) -> pd.DataFrame:
    """Labels down, parts across, in the order of their first appearance; a part that a label lacks is 0."""
    values = table[share].to_numpy(float)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"shares down to {np.nanmin(values):g} or missing: give shares of 0 or more")
    if table.duplicated([label, part]).any():
        raise ValueError(f"a {part} appears twice in one {label}: give one row for each {label} and {part}")
    wide = pd.DataFrame(0.0, index=pd.Index(dict.fromkeys(table[label])), columns=pd.Index(dict.fromkeys(table[part])))
    for row, column, value in zip(table[label], table[part], values, strict=True):
        wide.loc[row, column] = value
    for name, total in wide.sum(axis=1).items():
        if abs(total - 1) > 1e-3:
            raise ValueError(
                f"the parts of {name!r} add up to {total:.4g}, not 1: give shares of the whole, the rest included"
            )
    return wide

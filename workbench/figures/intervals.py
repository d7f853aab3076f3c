"""Scores with their intervals."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import Width, as_text, need, panels, style


def accuracy(table: pd.DataFrame, *, width: Width = "page") -> go.Figure:
    """Accuracies in percent with their intervals, first row on top.

    table: mean, low, high as shares in [0, 1], n = number of questions, and `name`, or `store` and `measure` as
    `scores.accuracy_table` has them.
    """
    need(table, ["mean", "low", "high", "n"], "scores.accuracy_table(stores)")
    if table.empty:
        raise ValueError("no rows to draw: give one row per method")
    low, mean, high = (table[name].to_numpy(float) for name in ("low", "mean", "high"))
    if not ((low >= 0) & (low <= mean) & (mean <= high) & (high <= 1)).all():
        raise ValueError("the table needs shares with 0 <= low <= mean <= high <= 1: divide percentages by 100")
    names, sizes = _names(table), [int(n) for n in table["n"]]
    if len(set(names)) < len(names):
        raise ValueError("rows share a name: give each row its own in a column `name`")
    same = len(set(sizes)) == 1
    labels = [as_text(name if same else f"{name} (n = {n})") for name, n in zip(names, sizes, strict=True)]
    figure = panels(
        [""],
        1,
        9 * len(table) + 4,
        width,
        axes=("accuracy (%)", ""),
        caption=f"point: mean; line: 95 % interval; n{f' = {sizes[0]} questions' if same else ': number of questions'}",
    )
    percent = 100 * np.stack([low, mean, high], axis=1)
    for name, label, (least, value, most) in zip(names, labels, percent.tolist(), strict=True):
        look = style(name)
        figure.add_trace(
            go.Scatter(
                x=[value],
                y=[label],
                error_x={"array": [most - value], "arrayminus": [value - least], "thickness": 1.5, "width": 0},
                mode="markers+text",
                text=[f"{value:.1f}"],
                textposition="top center",
                marker={"color": look.color, "symbol": look.symbol, "size": 7},
                cliponaxis=False,
                showlegend=False,
                hovertemplate=f"{value:.1f} % [{least:.1f}, {most:.1f}]<extra>{label}</extra>",
            )
        )
    edge = 0.08 * max(float(np.ptp(percent)), 10)
    figure.update_xaxes(range=[max(0, percent.min() - edge), min(100, percent.max() + edge)], showgrid=True)
    # categories count from 0 downwards; the range leaves room for the number above the first point
    return figure.update_yaxes(categoryarray=labels, range=[len(labels) - 0.5, -0.8], ticks="", showline=False)


def _names(table: pd.DataFrame) -> list[str]:
    if "name" in table:
        return [str(name) for name in table["name"]]
    need(table, ["store"], "scores.accuracy_table(stores)")
    if "measure" in table and len(set(table["measure"])) > 1:
        return [f"{store}, {measure}" for store, measure in zip(table["store"], table["measure"], strict=True)]
    return [str(store) for store in table["store"]]

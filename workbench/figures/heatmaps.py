"""Tables of numbers as coloured cells that say their number: matrices, gold steps, what thoughts read as."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import (
    BLACK,
    EDGES,
    NOTHING,
    PALE_BLUE,
    PALE_VERMILLION,
    PIXEL,
    SMALL,
    Width,
    across_of,
    as_text,
    beside,
    folded,
    need,
    panels,
    plain,
    written,
)

ONE_SIDED = ((0.0, NOTHING), (1.0, PALE_BLUE))  # so pale that black can be read on all of it
TWO_SIDED = ((0.0, PALE_VERMILLION), (0.5, NOTHING), (1.0, PALE_BLUE))  # from below through nothing to above
MOST = 200  # rows a figure can show
LINE = 3.2  # mm from one small line to the next
BAR = 50  # pixels that a colour bar takes beside the cells, its numbers included
BETWEEN = {  # divergence -> what it is called, from the row's thoughts to the column's
    "gaussian_kl": "Gaussian KL(row ‖ column)",
    "knn_kl": "nearest-neighbour KL(row ‖ column)",
    "frechet_distance": "squared Fréchet distance",
    "mmd": "squared maximum mean discrepancy",
    "feature_softmax_kl": "KL(row ‖ column) of softmax over features",
}


def matrix(
    values: pd.DataFrame,
    *,
    name: str,
    caption: str,
    row_title: str = "",
    column_title: str = "",
    form: str = ".2f",
    limits: tuple[float, float] | None = None,
    width: Width = "page",
) -> go.Figure:
    """A value for each row and column of `values`, written into its cell: divergences between methods, agreement.

    name: of what is shown, with its unit ("KL(row ‖ column) (nats)"). caption: n, and what else one must know. form: of
    the numbers; where there is no room for them a colour bar stands for them. Missing values are empty cells with a
    dash. Colours go from 0 to the largest value, or, with values below 0, both ways from grey at 0; limits: other ends.
    """
    if values.size == 0 or not np.isfinite(numbers := values.to_numpy(float, na_value=np.nan)).any():
        raise ValueError("no number to draw: give a table with at least one")
    texts = [["–" if np.isnan(value) else f"{value:{form}}".replace("-", "−") for value in row] for row in numbers]
    rows, columns = [plain(str(label)) for label in values.index], [plain(str(label)) for label in values]
    longest = max(written(text, SMALL) for row in texts for text in row)
    fits = longest + 4 <= _cell(rows, len(columns), width, bar=False)
    hover = [[f"{row}, {column}: {text}" for column, text in zip(columns, line, strict=True)]
             for row, line in zip(rows, texts, strict=True)]  # fmt: skip
    figure = _cells(numbers, rows, columns, name, (column_title, row_title), caption, width, hover, limits, not fits)
    if fits:
        figure.data[0].update(text=texts, texttemplate="%{text}")
    return figure


def divergences(table: pd.DataFrame, divergence: str, *, step: str = "all", width: Width = "page") -> go.Figure:
    """One divergence between all pairs of clouds: from the thoughts at the left to those below.

    table: what `diagnostics.divergence_table` returns, of stores by name or by training step; step: "0", .., or "all".
    A cloud and itself are 0; pairs that were not compared are empty. What thoughts are compared with stands last.
    """
    need(table, ["first", "second", "step", "divergence", "value", "unit"], "diagnostics.divergence_table(stores)")
    rows = table.loc[(table["divergence"] == divergence) & (table["step"].astype(str) == step)]
    if rows.empty:
        known = ", ".join(dict.fromkeys(map(str, table["divergence"])))
        raise ValueError(f"no {divergence!r} at step {step!r} in this table: it has {known}")
    names = list(dict.fromkeys([*rows["first"], *rows["second"]]))
    names.sort(key=lambda name: name in ("token embeddings", "gold steps", "reference"))
    square = pd.DataFrame(np.nan, pd.Index(names), pd.Index(names))
    for first, second, value in zip(rows["first"], rows["second"], rows["value"], strict=True):
        square.loc[first, second] = value
        if divergence in ("frechet_distance", "mmd"):  # measured once
            square.loc[second, first] = value
    for name in names:
        square.loc[name, name] = 0.0
    sizes = [int(size) for column in ("n_first", "n_second") if column in rows for size in rows[column]]
    # decimals that leave the largest three digits
    decimals = min(4, max(0, 2 - math.floor(math.log10(np.nanmax(np.abs(square.to_numpy())) or 1))))
    counted = f"n = {min(sizes)}{f' to {max(sizes)}' if max(sizes) > min(sizes) else ''} each; " if sizes else ""
    return matrix(
        square, name=f"{BETWEEN.get(divergence, plain(divergence))} ({rows['unit'].iloc[0]})", form=f".{decimals}f",
        width=width,
        caption=f"{counted}{'all thoughts' if step == 'all' else f'slot {step}'}",
        row_title="thoughts of", column_title="relative to",
    )  # fmt: skip


def step_similarity(
    table: pd.DataFrame,
    *,
    name: str = "similarity to the answer (cosine)",
    caption: str = "",
    of: str = "questions",
    width: Width = "page",
) -> go.Figure:
    """Questions down, their gold steps across: how similar each is to the answer, which is chosen, which is critical.

    table: example, step (counted from 0), similarity, chosen (bool: the step taken as the positive one), and where it
    is known critical (bool: the step the answer hangs on); a row per gold step, in any order. Questions stand in the
    order of their first appearance; steps that a question does not have are no cells. name: of the similarity; of: what
    the rows are, such as "snapshots" of one question.
    """
    need(table, ["example", "step", "similarity", "chosen"], "a table with one row per gold step")
    at, examples = _places(table, "example", "gold step")
    steps = [int(step) for step in table["step"]]
    if len(set(zip(at, steps, strict=True))) < len(table) or min(steps) < 0:
        raise ValueError("steps count from 0, and each stands once: give one row for each example and step")
    z = np.full((len(examples), max(steps) + 1), np.nan)
    z[at, steps] = table["similarity"].to_numpy(float)
    hover = [[f"{example}, step {k}: {value:.3f}" for k, value in enumerate(row)]
             for example, row in zip(examples, z.tolist(), strict=True)]  # fmt: skip
    marks = [mark for mark in (("chosen", "circle-open", 11), ("critical", "x-thin", 6)) if mark[0] in table]
    said = f"n = {len(examples)} {of}{f'; {caption}' if caption else ''}"
    columns, axes = [str(k) for k in range(z.shape[1])], ("gold step", "question" if of == "questions" else "")
    legend = [label for label, *_ in marks]
    figure = _cells(z, examples, columns, name, axes, said, width, hover, None, True, legend)
    for label, symbol, size in marks:
        here = [mark is True or mark == 1 for mark in table[label]]
        figure.add_trace(
            go.Scatter(
                x=[step for step, mark in zip(steps, here, strict=True) if mark],
                y=[row for row, mark in zip(at, here, strict=True) if mark],
                mode="markers",
                name=label,
                marker={"symbol": symbol, "size": size, "color": BLACK, "line": {"width": 1.5, "color": BLACK}},
                hoverinfo="skip",
            )
        )
    return figure


def readout(table: pd.DataFrame, *, name: str = "probability", caption: str = "", width: Width = "page") -> go.Figure:
    """What thoughts read as: for each thought its nearest tokens, the nearest first, coloured by how near.

    table: thought (the label of its row), rank (1, 2, ...), token, score (a probability or a cosine); a row per thought
    and rank. name: of the score. Blanks in tokens are shown (␣, ⏎); long tokens are cut, and hovering shows them whole.
    """
    need(table, ["thought", "rank", "token", "score"], "a table with one row per thought and rank")
    at, thoughts = _places(table, "thought", "rank")
    ranks = [int(rank) - 1 for rank in table["rank"]]
    if len(set(zip(at, ranks, strict=True))) < len(table) or min(ranks) < 0:
        raise ValueError("ranks count from 1, and each stands once: give one row for each thought and rank")
    shape = len(thoughts), max(ranks) + 1
    z, texts, hover = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "", object)
    z[at, ranks] = table["score"].to_numpy(float)
    room = _cell(thoughts, shape[1], width, bar=True) - 4
    for row, rank, token, score in zip(at, ranks, table["token"], table["score"], strict=True):
        shown = _visible(str(token))
        texts[row, rank] = as_text(_cut(shown, room))
        hover[row, rank] = f"{shown}: {score:.3g}"
    said = f"n = {len(thoughts)} thoughts{f'; {caption}' if caption else ''}"
    columns, axes = [str(k + 1) for k in range(shape[1])], ("nearest tokens, by rank", "")
    figure = _cells(z, thoughts, columns, name, axes, said, width, hover.tolist(), None, True)
    figure.data[0].update(text=texts.tolist(), texttemplate="%{text}")
    return figure


def _places(table: pd.DataFrame, label: str, unit: str) -> tuple[list[int], list[str]]:
    """The row of each label of a table, and the labels in the order of their first appearance."""
    if table.empty:
        raise ValueError(f"no rows to draw: give one row per {label} and {unit}")
    labels = list(dict.fromkeys(str(found) for found in table[label]))
    place = {found: k for k, found in enumerate(labels)}
    return [place[str(found)] for found in table[label]], labels


def _visible(token: str) -> str:
    """A token with its blanks written out, those of byte-level tokenizers included."""
    for blank, sign in ((" ", "␣"), ("Ġ", "␣"), ("▁", "␣"), ("\n", "⏎"), ("Ċ", "⏎"), ("\t", "⇥")):
        token = token.replace(blank, sign)
    return token


def _cut(text: str, room: float) -> str:
    """As much of a text as `room` pixels hold, at least its first letter."""
    cut = text
    while len(cut) > 2 and written(cut, SMALL) > room:
        cut = f"{cut.rstrip('…')[:-1]}…"
    return cut


def _cells(
    z: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    name: str,
    axes: tuple[str, str],
    caption: str,
    width: Width,
    hover: list[list[str]],
    limits: tuple[float, float] | None,
    bar: bool,
    legend: Sequence[str] = (),
) -> go.Figure:
    """The coloured cells of `z`, first row on top, NaN being no cell, with a label at each row and column."""
    if len(rows) > MOST:
        raise ValueError(f"{len(rows)} rows: at most {MOST} can be seen, take some of them")
    below, foot = _column_labels(columns, _cell(rows, len(columns), width, bar=bar))
    height = max(14, min(6.5 * len(rows), 180))
    labels, left = beside(rows, width)
    left += 18 if axes[1] else 0
    plot = across_of(width) - EDGES  # labels have a share of it, and a colour bar makes it smaller
    figure = panels(
        [name], 1, height, width, axes=axes, caption=caption, legend=legend, foot=foot,
        left=left * plot / (plot - BAR) if bar else left,
    )  # fmt: skip
    figure.add_trace(
        go.Heatmap(
            z=[[None if np.isnan(value) else value for value in row] for row in z.tolist()],
            x=list(range(len(columns))),
            y=list(range(len(rows))),
            customdata=[[as_text(text) for text in row] for row in hover],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            coloraxis="coloraxis",
            textfont={"size": SMALL, "color": BLACK},
            xgap=1,
            ygap=1,
        )
    )
    least, most = (float(np.nanmin(z)), float(np.nanmax(z))) if limits is None else limits
    end = max(-least, most) or 1
    ends = {"cmin": -end if least < 0 else 0, "cmax": end} if limits is None else {"cmin": least, "cmax": most}
    colors = TWO_SIDED if least < 0 else ONE_SIDED
    figure.update_layout(
        coloraxis={"colorscale": colors, **ends, "showscale": bar, "colorbar": {"len": 1, "nticks": 5}}
    )
    every = 1 if height >= LINE * len(rows) else math.ceil(LINE * len(rows) / height)
    bare: dict[str, Any] = {"ticks": "", "showline": False, "ticklabelstandoff": 2}
    places = list(range(len(rows)))[::every]
    figure.update_yaxes(tickvals=places, ticktext=labels[::every], **bare, range=[len(rows) - 0.5, -0.5])
    return figure.update_xaxes(**below, **bare, range=[-0.5, len(columns) - 0.5])


def _cell(rows: Sequence[str], count: int, width: Width, *, bar: bool) -> float:
    """About how many pixels wide a cell is, beside the labels of its row, their name, and perhaps a colour bar."""
    return (across_of(width) - EDGES - beside(rows, width)[1] - 18 - (BAR if bar else 0)) / count


def _column_labels(columns: Sequence[str], cell: float) -> tuple[dict[str, Any], float]:
    """Ticks under the cells (in lines, slanted, or only some of the numbers, as there is room), and their mm beyond one
    line."""
    places = list(range(len(columns)))
    longest = max(written(label, SMALL) for label in columns)
    if all(label.isdecimal() for label in columns):
        every = math.ceil((longest + 4) / cell)
        return {"tickvals": places[::every], "ticktext": list(columns[::every])}, 0
    texts = [folded(as_text(label), cell - 4, SMALL) for label in columns]
    lines = [label.split("<br>") for label in texts]
    if max(written(line, SMALL) for label in lines for line in label) <= cell - 4:
        return {"tickvals": places, "ticktext": texts, "tickangle": 0}, LINE * (max(map(len, lines)) - 1)
    slanted = {"tickvals": places, "ticktext": [as_text(label) for label in columns], "tickangle": -40}
    return slanted, longest / PIXEL * math.sin(math.radians(40))

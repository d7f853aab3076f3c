"""What the widgets share: a table, a figure that changes in place, boxes of text, and the page a view is saved as.

A widget is a `View`: its traits are the model, `box` is what a notebook shows, `pieces` is what `to_html` writes. All
text of a store goes through `escaped`, since a question may hold markup, and wraps wherever it must.
"""

import html
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets as tr
import xarray as xr
from plotly.offline import get_plotlyjs

from ..files import write_text
from ..store import STEP, check
from .hearing import FRONT, Hearing, module

Piece = str | pd.DataFrame | go.Figure  # of a page: HTML, a table, a figure
STYLE = (FRONT / "views.css").read_text(encoding="utf-8")
MOST_ROWS = 200  # of a table that are shown; more would make the page slow and nobody would read them


# -------------------------------------------------------------------------------------------------------------- stores


def checked(stores: Any, *, most: int | None = None) -> tuple[dict[Any, xr.Dataset], list[str]]:
    """The stores that can be shown, by name, and a sentence about each that cannot or that lacks something.

    stores: one store, or a dict name -> store. Examples whose thoughts are not finite are left out, and a sentence says
    so. most: how many stores the widget can show beside each other.
    """
    if isinstance(stores, xr.Dataset):
        stores = {stores.attrs.get("method", "store"): stores}
    if not isinstance(stores, Mapping):
        return {}, [
            f"This is a {type(stores).__name__}: give a store (of `collect` or `store.load`), or a dict of them."
        ]
    if not stores:
        return {}, ["There is no store to show: give one, or a dict name -> store."]
    good, remarks = {}, []
    for name, store in stores.items():
        if not isinstance(store, xr.Dataset):
            remarks.append(f"{name}: this is a {type(store).__name__}, give a store.")
            continue
        try:
            store, remark = _finite(store)
            check(store, values=False)
        except (ValueError, KeyError) as error:
            remarks.append(f"{name} cannot be shown: {error}.")
            continue
        good[name] = store
        remarks += [f"{name}: {remark}."] * bool(remark)
    if most is not None and len(good) > most:
        remarks.append(f"{len(good)} stores are given and the first {most} of them are shown: choose among them.")
        good = dict(list(good.items())[:most])
    return good, remarks


def _finite(store: xr.Dataset) -> tuple[xr.Dataset, str]:
    """The store without examples whose thoughts are NaN or infinite, and what was left out."""
    if "thought" not in store or "mask" not in store or "example" not in store.dims:
        return store, ""  # `check` has the sentence
    mask = store["mask"].transpose(*STEP).values
    broken = (~np.isfinite(store["thought"].transpose(*STEP, "feature").values)).any(-1) & mask
    bad = broken.any((1, 2))
    if not bad.any():
        return store, ""
    if bad.all():
        raise ValueError(f"the thoughts of all {bad.size} examples are NaN or infinite: look at the training run")
    left = store.isel(example=np.flatnonzero(~bad))
    return left, f"{bad.sum()} of {bad.size} examples have NaN or infinite thoughts and are left out"


# ---------------------------------------------------------------------------------------------------------------- text


def escaped(value: object) -> str:
    """A text of a store as HTML, never as markup, with its line breaks."""
    return html.escape(str(value)).replace("\n", "<br>")


def said(sentences: str | Iterable[str]) -> str:
    """Sentences in a box, as HTML: why there is nothing to see, what was left out."""
    lines = [sentences] if isinstance(sentences, str) else list(sentences)
    return f'<div class="wb-said">{"<br>".join(map(escaped, lines))}</div>' if lines else ""


def notice(sentences: str | Iterable[str]) -> ipw.HTML:
    """`said` as a widget; it takes no room where there is nothing to say."""
    return pane(said(sentences))


def pane(inner: str = "") -> ipw.HTML:
    """HTML in the look of the widgets, in which long words wrap; set its `value` with `framed`."""
    return ipw.HTML(framed(inner), layout=ipw.Layout(width="100%", min_width="0", margin="2px 0"))


def framed(inner: str) -> str:
    return f'<style>{STYLE}</style><div class="wb-pane">{inner}</div>' if inner else ""


def labelled(*controls: ipw.Widget) -> ipw.HBox:
    """Controls in lines that wrap where the page is narrow."""
    row = ipw.Layout(flex_flow="row wrap", align_items="center", width="100%", margin="2px 0")
    return ipw.HBox(list(controls), layout=row)


# --------------------------------------------------------------------------------------------------------------- table


class Table(Hearing):
    """A table that sorts by its headings and whose rows are walked with the arrow keys; a click chooses a row.

    `frame` holds all rows, in the order it was given; `current` is the position of the chosen one in it, -1 for none.
    Of the sorted rows the first 200 are shown, the chosen one always. Truth is drawn as ✓ and ✗, missing values as
    nothing; texts take one line here and show whole under the mouse. With `several`, a click or the space bar marks
    rows as well: `marked` has their positions, in ascending order.
    """

    _esm = module("table.js")
    _css = STYLE

    frame = tr.Instance(pd.DataFrame)
    current = tr.Int(-1).tag(sync=True)
    sort = tr.Unicode("").tag(sync=True)  # a column, "" for the frame's own order
    descending = tr.Bool(False).tag(sync=True)
    label = tr.Unicode("").tag(sync=True)  # what a screen reader calls the table
    height = tr.Int(240).tag(sync=True)  # pixels at most
    several = tr.Bool(False).tag(sync=True)
    marked = tr.List(tr.Int()).tag(sync=True)
    shown = tr.Dict().tag(sync=True)  # what the page draws: columns, kinds, rows, ids, note

    def __init__(
        self, frame: pd.DataFrame | None = None, *, label: str = "", height: int = 240, several: bool = False
    ) -> None:
        super().__init__(frame=pd.DataFrame() if frame is None else frame, label=label, height=height, several=several)
        self.observe(self._draw, ["frame", "sort", "descending"])
        self.observe(self._kept, "current")
        self._draw()

    @tr.validate("current")
    def _known(self, proposal: Any) -> int:
        return proposal.value if -1 <= proposal.value < len(self.frame) else -1

    @tr.validate("marked")
    def _there(self, proposal: Any) -> list[int]:
        return sorted({row for row in proposal.value if 0 <= row < len(self.frame)})

    def order(self) -> np.ndarray:
        """Positions of the frame's rows as they are sorted."""
        if self.sort not in self.frame:
            return np.arange(len(self.frame))
        column: Any = self.frame[self.sort].reset_index(drop=True)
        if _kind(column) == "text":  # answers are texts, and most are numbers: 4 before 38
            numbers: Any = pd.to_numeric(column, errors="coerce")
            column = numbers if numbers.notna().any() and numbers.notna().sum() >= column.notna().sum() else column
        # stable both ways, so that equal rows keep the frame's order; missing values come last
        return column.sort_values(ascending=not self.descending, kind="stable", na_position="last").index.to_numpy()

    def replace(self, frame: pd.DataFrame) -> None:
        """Show another frame, with none of its rows chosen or marked."""
        with self.hold_trait_notifications():
            self.frame, self.current, self.marked = frame, -1, []

    def _kept(self, change: Any = None) -> None:
        if self.current >= 0 and self.current not in self.shown["ids"]:
            self._draw()

    def _draw(self, change: Any = None) -> None:
        order = self.order()
        part = order[:MOST_ROWS]
        if self.current >= 0 and self.current not in part:
            part = np.append(part[:-1], self.current)
        rows = self.frame.iloc[part]
        note = "" if len(part) == len(order) else f"{len(part)} of {len(order)} rows are shown; sort to see others."
        self.shown = {
            "columns": [str(name) for name in self.frame],
            "kinds": [_kind(self.frame[name]) for name in self.frame],
            "rows": [[_cell(value) for value in row] for row in rows.itertuples(index=False, name=None)],
            "ids": part.tolist(),
            "note": note,
        }


def _kind(column: Any) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "truth"
    return "number" if pd.api.types.is_numeric_dtype(column) else "text"


def _cell(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "✓" if value else "✗"
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.3g}"
    return "" if value is None or value is pd.NA else str(value)


def table_html(frame: pd.DataFrame) -> str:
    """A table as plain HTML, with cells as `Table` draws them."""
    kinds = [_kind(frame[name]) for name in frame]
    head = "".join(f'<th class="wb-{kind}">{escaped(name)}</th>' for name, kind in zip(frame, kinds, strict=True))
    lines = []
    for row in frame.itertuples(index=False, name=None):
        cells = ((kind, _cell(value)) for kind, value in zip(kinds, row, strict=True))
        lines.append(
            "".join(f'<td class="wb-{kind} wb-{_tone(kind, text)}">{escaped(text)}</td>' for kind, text in cells)
        )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table class="wb-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _tone(kind: str, text: str) -> str:
    return {"✓": "right", "✗": "wrong"}.get(text, "plain") if kind == "truth" else "plain"


# -------------------------------------------------------------------------------------------------------------- figure


class Picture(Hearing):
    """A plotly figure that changes in place: `show(figure)`; None takes it away.

    Not a FigureWidget: each of those brings its own five megabytes of plotly, and none hears the kernel any more where
    that takes over two seconds. Here the page is sent one plotly for all pictures, when it asks for it; `brings`: with
    this one, since the kernel will be too busy to be asked.
    """

    _esm = module("picture.js")
    library = ("plotly", get_plotlyjs)
    content = tr.Dict().tag(sync=True)  # data and layout; empty without a figure

    def __init__(self, figure: go.Figure | None = None, *, brings: bool = False) -> None:
        layout = ipw.Layout(overflow="auto hidden", min_width="0", margin="2px 0")
        super().__init__(layout=layout, brought=get_plotlyjs().encode() if brings else b"")
        self.figure: go.Figure | None = None
        self.show(figure)

    def show(self, figure: go.Figure | None) -> None:
        """Draw a figure in the place of the one before."""
        self.figure = figure
        self.content = {} if figure is None else json.loads(str(figure.to_json()))


# ---------------------------------------------------------------------------------------------------------------- view


class View(tr.HasTraits):
    """A widget: traits that are its model, a box that a notebook shows, a page that it can be saved as."""

    title = ""  # of the page

    def __init__(self) -> None:
        super().__init__()
        # no margin at the sides: it would come on top of the whole width, and the page would scroll for its sake
        self.box = ipw.VBox(layout=ipw.Layout(width="100%", max_width="1200px", margin="2px 0"))
        self._closed = False

    @abstractmethod
    def pieces(self) -> Sequence[Piece]:
        """The current view from top to bottom, for `to_html`."""

    def to_html(self, path: str | Path) -> Path:
        """Write the current view as one page that opens without a network; returns the path."""
        return write_page(path, self.title, self.pieces())

    def close(self) -> None:
        """Take the widget from the page, and forget who observes it; it cannot be shown again."""
        self.unobserve_all()
        for widget in vars(self).values():  # those that an odd store left no place for, too
            if isinstance(widget, ipw.Widget) and widget.comm is not None:
                close_all(widget)
        self._closed = True

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if self._closed:
            return {"text/plain": f"{type(self).__name__} (closed)"}
        return self.box._repr_mimebundle_(include=include, exclude=exclude)


def close_all(widget: ipw.Widget) -> None:
    """Close a widget and all it consists of, layouts and styles included."""
    inner = list(getattr(widget, "children", ()))
    inner += [value for name in widget.trait_names() if isinstance(value := getattr(widget, name), ipw.Widget)]
    widget.unobserve_all()
    for one in inner:
        if one.comm is not None:
            close_all(one)
    widget.close()


def when(widget: tr.HasTraits, names: str | Sequence[str], act: Callable[[], None]) -> None:
    """Call `act()` whenever one of the traits changes."""
    widget.observe(lambda change: act(), [names] if isinstance(names, str) else list(names))


# ---------------------------------------------------------------------------------------------------------------- page


def write_page(path: str | Path, title: str, pieces: Iterable[Piece]) -> Path:
    """HTML, tables and figures below each other in one file with all it needs, plotly included where it draws."""
    path = Path(path)
    if path.suffix != ".html":
        raise ValueError(f"{str(path)!r} does not end in '.html': give it that ending")
    body, drawn = [], False
    for piece in pieces:
        if isinstance(piece, go.Figure):
            config = {"showSendToCloud": False, "displaylogo": False}
            body.append(
                piece.to_html(full_html=False, include_plotlyjs=not drawn, include_mathjax=False, config=config)
            )
            drawn = True
        else:
            body.append(table_html(piece) if isinstance(piece, pd.DataFrame) else piece)
    head = f'<meta charset="utf-8"><title>{escaped(title)}</title><style>{STYLE}</style>'
    inner = "\n".join([f"<h1>{escaped(title)}</h1>", *body])
    shown = f'<body class="wb-page wb-pane">{inner}</body>'
    write_text(path, f'<!doctype html>\n<html lang="en"><head>{head}</head>\n{shown}</html>\n')
    return path

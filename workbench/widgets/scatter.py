"""Thoughts as points one can lasso: jupyter-scatter with the colours of the figures and a card for the point under the
mouse. What is drawn and chosen are traits: `color`, `shown` and `selection`; rows are positions in the table of points.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets as tr

from ..figures.look import GREY, style
from ..figures.maps import thought_map
from ..figures.points import TWO_SIDED, Group, groups_of, title_of
from .views import escaped, framed, pane

MOST = 15  # values of a column that have a colour of their own; the rarer ones are grey
SHADES = 32  # steps of a colour scale
CIVIDIS = ("#00224e", "#35456c", "#666970", "#948e77", "#c8b866", "#fee838")
PALE = "#d9d9d9"  # of points outside the selection
CARD = ("gold", "prediction", "correct", "step", "path", "store")  # what the card of a point says, if it has it
CARD_LINES = 4
CARD_EMPTY = '<span class="wb-soft">Point at a thought to read its question here.</span>'


class Coloring(NamedTuple):
    """A colour for each point, as a number of a palette, and what the colours mean."""

    codes: np.ndarray  # [point], positions in `palette`
    palette: tuple[str, ...]
    legend: str  # HTML


def coloring(points: pd.DataFrame, column: str, shown: np.ndarray | None = None) -> Coloring:
    """The colours of `points` by a column: those of the figures, for labels and numbers alike.

    shown: which of them are drawn [point, bool], and counted in the legend; None: all. Of a column with more than 15
    labels the most frequent ones have a colour. Raises ValueError for an unknown column.
    """
    if column not in points:
        raise ValueError(f"no column {column!r} to colour by: use one of {', '.join(map(str, points))}")
    values = points[column]
    groups = groups_of(points, column, 8)
    if groups is None:
        return _scale(values.to_numpy(float), column)
    groups = sorted(groups, key=lambda group: -int(group.rows.sum()))[: MOST + 1] if len(groups) > MOST + 1 else groups
    return _labels(groups, np.full(len(points), True) if shown is None else shown)


def _labels(groups: list[Group], shown: np.ndarray) -> Coloring:
    codes = np.full(len(shown), len(groups))
    for k, group in enumerate(groups):
        codes[group.rows] = k
    rest = codes == len(groups)
    entries = [(style(group.label).color, group.title, int((group.rows & shown).sum())) for group in groups]
    entries += [(GREY, "others", int((rest & shown).sum()))] * bool(rest.any())
    keys = "".join(
        f'<span class="wb-key"><i style="background:{color}"></i>{escaped(title[:40])} ({count})</span>'
        for color, title, count in entries
        if count
    )
    return Coloring(codes, tuple(color for color, _, _ in entries), keys)


def _scale(numbers: np.ndarray, column: str) -> Coloring:
    """Numbers on the scale of the figures: both ways from grey where they have both signs, missing ones grey."""
    known = numbers[np.isfinite(numbers)]
    low, high = (0.0, 1.0) if column == "correct" else (float(known.min()), float(known.max()))
    ends = (low, high)
    stops = CIVIDIS
    if column == "correct" or low < 0 < high:
        stops = tuple(color for _, color in TWO_SIDED)
        ends = ends if column == "correct" else (-max(-low, high), max(-low, high))
    where = (numbers - ends[0]) / ((ends[1] - ends[0]) or 1)
    codes = np.where(np.isfinite(numbers), np.round(np.nan_to_num(where).clip(0, 1) * (SHADES - 1)), SHADES)
    palette = (*_between(stops, SHADES), GREY)
    bar = f'<i class="wb-scale" style="background:linear-gradient(90deg,{",".join(stops)})"></i>'
    missing = int((codes == SHADES).sum())
    unknown = f'<span class="wb-key"><i style="background:{GREY}"></i>unknown ({missing})</span>' if missing else ""
    return Coloring(
        codes.astype(int), palette, f'<span class="wb-key">{ends[0]:.3g} {bar} {ends[1]:.3g}</span>{unknown}'
    )


def gathered(points: pd.DataFrame, column: str) -> pd.DataFrame:
    """The points with the rarer labels of a column called "others", so that a figure can colour by it."""
    groups = groups_of(points, column, 8)
    if groups is None or len(groups) <= MOST:
        return points
    frequent = sorted(groups, key=lambda group: -int(group.rows.sum()))[: MOST - 1]
    named = np.full(len(points), "others", dtype=object)
    for group in frequent:
        named[group.rows] = group.title
    found = points.assign(**{column: named.astype(str)})
    found.attrs = points.attrs
    return found


def selection_figure(points: pd.DataFrame, shown: np.ndarray, chosen: Sequence[int], color: str) -> go.Figure:
    """`figures.thought_map` of the rows that are `shown` [point, bool]; if some are `chosen`, the others are grey."""
    drawn: Any = gathered(points, color)
    front = [row for row in chosen if shown[row]]
    if not front:
        return thought_map(drawn[shown], color)
    figure = thought_map(drawn.iloc[front], color)
    rest = np.setdiff1d(np.flatnonzero(shown), front)
    x, y = drawn["x"].to_numpy()[rest], drawn["y"].to_numpy()[rest]
    look: dict[str, Any] = {"mode": "markers", "marker": {"color": PALE, "size": 4}, "hoverinfo": "skip"}
    figure.add_trace(go.Scattergl(x=x, y=y, showlegend=False, **look))
    figure.data = (figure.data[-1], *figure.data[:-1])  # behind the others
    return figure


def _between(stops: tuple[str, ...], count: int) -> list[str]:
    """`count` colours on the way through `stops`."""
    channels = np.array([[int(color[k : k + 2], 16) for k in (1, 3, 5)] for color in stops])
    at, places = np.linspace(0, 1, count), np.linspace(0, 1, len(stops))
    mixed = np.stack([np.interp(at, places, channels[:, k]) for k in range(3)], axis=1).round().astype(int)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in mixed]


class Points(ipw.VBox):
    """A map of `points` (columns x, y and what `projection.labelled` has), with lasso, click, zoom and a legend.

    color: a column; shown: the rows that are drawn, None for all; selection: the rows that are chosen, in ascending
    order. Chosen rows that are not drawn stay chosen; whoever draws a lasso chooses anew. A click chooses one point, a
    double click none.
    """

    color = tr.Unicode("correct")
    shown = tr.Tuple(allow_none=True, default_value=None)
    selection = tr.Tuple()

    def __init__(
        self,
        points: pd.DataFrame,
        *,
        color: str = "correct",
        height: int = 360,
        within: pd.DataFrame | None = None,
        whole: str | None = None,
    ) -> None:
        super().__init__(layout=ipw.Layout(width="100%", min_width="0", margin="2px 0"))
        self.within = within  # points whose extent the map has: maps of one extent can be compared
        self.fitted = False  # whether what is shown fills the map; else all points have their places for good
        self._quiet = False
        self.whole = whole  # a column, as "example", whose values are selected as a whole
        self.points = points.reset_index(drop=True)
        coloring(self.points, color)  # an unknown column is an error at once
        self.color = color
        self.legend = pane()
        from .live import live  # two megabytes for the browser: only when a map is shown

        self.live: Any = live(self.points, height)
        self.card = pane()
        self.card.layout.min_height = f"{CARD_LINES * 19}px"  # always, so that nothing below it jumps
        self.children = (self.legend, self.live, self.card)
        self._hover()
        self._recolor()
        self.observe(self._recolor, "color")
        self.observe(self._cut, "shown")
        self.observe(self._choose, "selection")
        self.live.observe(self._chosen, "selection")
        self.live.observe(self._hover, "hovering")

    def move(self, points: pd.DataFrame, shown: Sequence[int] | None, fitted: bool, selection: Sequence[int]) -> None:
        """Other coordinates for the same rows, such as of another projection, which of them are drawn and chosen.

        In one act, since the page draws by and by: points sent again before it has drawn the last ones are dropped.
        """
        if len(points) != len(self.points):
            raise ValueError(f"{len(points)} points for a map of {len(self.points)}: give the same rows, moved")
        self.points = points.reset_index(drop=True)
        self.fitted, self._quiet = fitted, True
        try:
            self.shown, self.selection = shown, selection
        finally:
            self._quiet = False
        self._recolor()

    @tr.validate("color")
    def _column(self, proposal: Any) -> str:
        coloring(self.points, proposal.value)
        return proposal.value

    @tr.validate("selection", "shown")
    def _rows(self, proposal: Any) -> tuple[int, ...] | None:
        if proposal.value is None:
            return None
        rows = sorted({int(row) for row in proposal.value})
        if rows and not 0 <= rows[0] <= rows[-1] < len(self.points):
            raise tr.TraitError(f"row {rows[-1]} of a map with {len(self.points)} points: give rows from 0 on")
        if proposal.trait.name == "selection" and self.whole and rows:
            values: Any = self.points[self.whole]
            rows = np.flatnonzero(values.isin(values.iloc[rows])).tolist()
        return tuple(rows)

    def _recolor(self, change: Any = None) -> None:
        self._count()
        self._paint()

    def _count(self) -> None:
        """The colours, and a legend that counts what is drawn."""
        there = self._there()
        self.coloring = coloring(self.points, self.color, there)
        words = f"<b>{escaped(title_of(self.color))}</b> {self.coloring.legend}"
        self.alike = np.zeros(len(self.points), int)
        self.alike[there] = same_place(self.points[there])
        most = int(self.alike.max(initial=1))
        if most > 1:  # one dot hides the others
            words += f'<span class="wb-key wb-soft">up to {most} at one place</span>'
        self.legend.value = framed(words)

    def _there(self) -> np.ndarray:
        """Which points are drawn [point, bool]."""
        there = np.full(len(self.points), self.shown is None)
        there[list(self.shown or ())] = True
        return there

    def _paint(self) -> None:
        """Send the colours, which are grey outside a selection."""
        if self._quiet:
            return
        codes, palette = self.coloring.codes, [*self.coloring.palette, PALE]
        if self.selection:
            codes = np.full(len(codes), len(palette) - 1)
            codes[list(self.selection)] = self.coloring.codes[list(self.selection)]
        colors = [[*(int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)), 1.0] for color in palette]
        self.live.prevent_filter_reset = True
        with self.live.hold_sync():
            self.live.color, self.live.color_selected = colors, colors
            self.live.color_domain = {str(k): k for k in range(len(colors))}
            self.live.points = _places(self.points, codes, self._extent())

    def _extent(self) -> pd.DataFrame:
        """The points whose extent the map has: those shown where it is `fitted` to them, else all."""
        if self.within is not None:
            return self.within
        shown: Any = self.points[self._there()]
        return shown if self.fitted and len(shown) else self.points

    def _cut(self, change: Any = None) -> None:
        self.live.filter = None if self.shown is None else np.array(self.shown, np.uint32)
        self._count()
        self._choose()  # which sends the points, on another extent

    def _choose(self, change: Any = None) -> None:
        if self._chosen_and_shown() != _rows_of(self.live.selection):
            self.live.selection = np.array(self._chosen_and_shown(), np.uint32)
        self._paint()

    def _chosen(self, change: Any) -> None:
        rows = _rows_of(change["new"])
        if rows != self._chosen_and_shown():
            self.selection = rows

    def _hover(self, change: Any = None) -> None:
        row = self.live.hovering
        self.card.value = framed(card_html(self.points, row, int(self.alike[row])) if row is not None else CARD_EMPTY)

    def _chosen_and_shown(self) -> tuple[int, ...]:
        if self.shown is None:
            return tuple(self.selection)
        there = set(self.shown)
        return tuple(row for row in self.selection if row in there)


def _rows_of(array: Any) -> tuple[int, ...]:
    return () if array is None else tuple(sorted(map(int, array)))


def _places(points: pd.DataFrame, codes: np.ndarray, within: Any) -> np.ndarray:
    """What the browser draws [point, 4]: x and y around 0, the colour's number, nothing.

    The larger extent of `within` goes from -1 to 1, and the other by the same factor: distances are what they are.
    """
    found = np.zeros((len(points), 4), np.float32)
    ends = [(float(within[axis].min()), float(within[axis].max())) for axis in ("x", "y")]
    span = max(high - low for low, high in ends) or 1
    for k, (low, high) in enumerate(ends):
        middle = points["xy"[k]].to_numpy(float) - (low + high) / 2
        found[:, k] = 0.94 * 2 * middle / span  # whole points at the edges
    found[:, 2] = codes
    return found


def same_place(points: Any) -> np.ndarray:
    """How many of the points lie where each one does [point], to a thousandth of the map: one dot for all of them."""
    if not len(points):
        return np.zeros(0, int)
    places = points[["x", "y"]].to_numpy(float)
    span = float(np.ptp(places, axis=0).max()) or 1.0
    _, which, counts = np.unique(np.round(places / span, 3), axis=0, return_inverse=True, return_counts=True)
    return counts[which.reshape(-1)]


def card_html(points: pd.DataFrame, row: int, alike: int = 1) -> str:
    """What a point says, in at most six lines: its question cut to two, then the facts of `CARD`, and that it is one of
    `alike` at its place."""
    point = points.iloc[row]
    facts = [(title_of(name), _short(point[name])) for name in CARD if name in points]
    question = _short(point["question"]) if "question" in points else str(point.get("example", ""))
    facts += [("at this place", f"{alike} thoughts")] * (alike > 1)
    told = " · ".join(f"{escaped(name)} <b>{escaped(value)}</b>" for name, value in facts)
    return f'<div class="wb-card"><div class="wb-two">{escaped(question)}</div>{told}</div>'


def _short(value: object) -> str:
    if isinstance(value, float):
        return {1.0: "correct", 0.0: "wrong"}.get(value, f"{value:.2f}")
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:199] + "…"

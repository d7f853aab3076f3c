"""A map of thoughts one can select from, the questions of what is selected, and all a store knows about one of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
import traitlets as tr
import xarray as xr

from ..analysis import projection
from ..figures.look import titles_of
from ..figures.points import axes_of, caption_of, title_of
from .controls import button, choice, filters, stepper, toggles, words
from .detail import detail_html, neighbour_table, question_table
from .scatter import Points, selection_figure
from .selections import KEY, few_values, passing, read_selections, rows_named, write_rows, write_selections
from .slot_axes import own_axes
from .views import MOST_ROWS, Piece, Table, View, checked, escaped, framed, labelled, notice, pane, said, when


class Inspector(View):
    """Look at the thoughts of a store (or of several, name -> store) by hand.

    Left the map: draw around thoughts with the lasso, click one, zoom with the wheel. Right the questions of what is
    selected (of everything shown, while nothing is), below them one question: its gold steps, thoughts, answers, and
    the thoughts that are nearest in the original space, not on the map.

    All of it is traits, which controls and code set alike: `how` ("pca", "umap"), `axes` (of one slot: fitted to its
    "own" thoughts, or those "common" to all), `color` (a column of `points`), `step` and `path` (None: all), `filters`
    (column -> values that are kept), `find` (words of a question), `selection` (rows of `points`; ids of examples can
    be assigned, too), `question` (a row of `questions`) and `thought` (a row of `points`) of the detail; -1 is none.
    `selected` is the selection as a table, `select` takes one.
    """

    title = "Thoughts, one by one"
    how = tr.Enum(["pca", "umap"], "pca")
    axes = tr.Enum(["common", "own"], "common")
    color = tr.Unicode("correct")
    step = tr.Int(None, allow_none=True)
    path = tr.Int(None, allow_none=True)
    filters = tr.Dict()
    find = tr.Unicode("")
    selection = tr.Tuple()
    question = tr.Int(-1)
    thought = tr.Int(-1)
    kept = tr.Dict()  # selections by name

    def __init__(self, stores: xr.Dataset | Mapping[Any, xr.Dataset], *, color: str = "correct") -> None:
        super().__init__()
        self.stores, self.remarks = checked(stores)
        self.questions: Any = question_table(self.stores)
        self.vectors = np.zeros((0, 0))
        self.points: Any = pd.DataFrame(columns=pd.Index([*KEY, "correct"]))
        self.common = self.points  # as all thoughts lie on one map
        self.map: Points | None = None
        self._read()
        keys = pd.MultiIndex.from_frame(self.questions[["store", "example"]]) if len(self.questions) else pd.Index([])
        self._question_of = keys.get_indexer(pd.MultiIndex.from_frame(self.points[["store", "example"]]))
        if color != "correct":
            self.color = color
        if self.map is not None:
            self.map.color = self.color
            tr.link((self, "color"), (self.map, "color"))
            when(self.map, "selection", self._picked)
        self._build()
        when(self, ["step", "axes", "path", "filters", "find"], self._show)
        when(self, "selection", self._list)
        when(self, "thought", self._thought_chosen)
        when(self, "question", self._question_chosen)
        self.observe(self._project, "how")
        self._show()
        self._detail()

    def _read(self) -> None:
        """The thoughts and their map, as far as there is one."""
        if not self.stores:
            return
        try:
            self.vectors, self.points = projection.labelled(self.stores)
            self.points = self.common = projection.project(self.stores)
        except ValueError as error:
            self.remarks.append(f"There is no map: {error}.")
            return
        self.map = Points(self.points)

    # ------------------------------------------------------------------------------------------------- the selection

    @property
    def selected(self) -> pd.DataFrame:
        """The selected thoughts: rows of `points`."""
        return self.points.iloc[list(self.selection)]

    @tr.validate("selection")
    def _rows(self, proposal: Any) -> tuple[int, ...]:
        return rows_named(self.points, proposal.value)

    def select(self, rows: pd.DataFrame | Sequence[Any]) -> None:
        """Select thoughts: rows of `points` (as a table or by number), or all thoughts of examples, by id."""
        self.selection = tuple(rows.index if isinstance(rows, pd.DataFrame) else rows)

    def select_shown(self) -> None:
        """Select all thoughts that are shown: what a lasso around everything selects."""
        self.selection = tuple(np.flatnonzero(self.shown()).tolist())

    def keep(self, name: str) -> None:
        """Remember the selection under a name."""
        if not name.strip():
            raise ValueError("the selection needs a name: write one beside the button")
        if not self.selection:
            raise ValueError("nothing is selected: draw around some thoughts first")
        self.kept = {**self.kept, name.strip(): self.selection}

    def save_selections(self, path: str | Path) -> Path:
        """Write the kept selections as JSON, by store, example, path and step, so that they outlive this session."""
        return write_selections(self.points, self.kept, path)

    def load_selections(self, path: str | Path) -> int:
        """Keep what `save_selections` wrote, too; returns how many thoughts of it these stores do not hold."""
        kept, missing = read_selections(self.points, path)
        self.kept = {**self.kept, **kept}
        return missing

    def export(self, path: str | Path) -> Path:
        """Write the selected thoughts as a table, .csv or .jsonl."""
        return write_rows(self.selected, path)

    # ---------------------------------------------------------------------------------------------- what is shown

    def shown(self) -> np.ndarray:
        """Which thoughts pass step, path, filters and words [thought], bool."""
        there = passing(self.points, {"step": self.step, "path": self.path}, self.filters)
        sought = self.find.strip().lower()
        if sought and len(self.points):
            texts = zip(*(self.questions[name].astype(str) for name in ("question", "gold", "example")), strict=True)
            found = np.array([sought in " ".join(text).lower() for text in texts])
            there &= found[self._question_of]
        return there

    @tr.validate("filters")
    def _columns(self, proposal: Any) -> dict[str, tuple[Any, ...]]:
        unknown = [name for name in proposal.value if name not in self.points]
        if unknown:
            raise tr.TraitError(f"no column {unknown[0]!r} to filter by: use one of {', '.join(self.points)}")
        return {name: tuple(values) for name, values in proposal.value.items() if len(values)}

    @tr.validate("step", "path")
    def _place(self, proposal: Any) -> int | None:
        name, known = proposal.trait.name, self.points[proposal.trait.name].unique().tolist()
        if proposal.value is not None and proposal.value not in known:
            raise tr.TraitError(f"no {name} {proposal.value} here: use one of {sorted(known)}, or None for all")
        return proposal.value

    @tr.validate("color")
    def _column(self, proposal: Any) -> str:
        if proposal.value not in self.points:
            raise tr.TraitError(f"no column {proposal.value!r} to colour by: use one of {', '.join(self.points)}")
        return proposal.value

    def _show(self) -> None:
        there = self.shown()
        kept = tuple(row for row in self.selection if there[row])  # nothing hidden stays selected
        if self.map is not None:
            self._place_points()
            rows = None if there.all() else tuple(np.flatnonzero(there).tolist())
            self.map.move(self.points, rows, self.axes == "own", kept)
        self.selection = kept
        self._list()

    def _project(self, change: Any) -> None:
        if self.map is None:
            return
        if self.how == "umap":  # the page draws the bar, so that it moves while this waits
            self.status.value = framed('UMAP: half a minute or longer the first time <div class="wb-wait"></div>')
        try:
            self.common = projection.project(self.stores, "umap" if self.how == "umap" else "pca")
        except ValueError as error:
            self._say(str(error))
            self.how = change["old"]
            return
        self._show()

    def _place_points(self) -> None:
        """The map of all thoughts, or of the one slot that is shown, which has axes of its own."""
        self.points = self.common
        if self.step is not None and self.axes == "own":
            try:
                self.points = own_axes(self.stores, self.common, self.step, "umap" if self.how == "umap" else "pca")
            except ValueError as error:
                self._say(f"This slot has no axes of its own: {error}.")

    def _picked(self) -> None:
        """The map's selection has changed; a single point is the one to look at."""
        assert self.map is not None
        self.selection = self.map.selection
        if len(self.selection) == 1:
            self.thought = self.selection[0]

    # ------------------------------------------------------------------------------------------------- tables, detail

    def _list(self) -> None:
        """The questions of the selected thoughts, or of all that are shown."""
        if self.map is not None:
            self.map.selection = tuple(self.selection)
        there = self.shown()
        if len(self.points):
            rows = list(self.selection) if self.selection else np.flatnonzero(there)
            self.listed = np.unique(self._question_of[rows])
        else:
            self.listed = np.arange(len(self.questions))
        frame = self.questions.iloc[self.listed].reset_index(drop=True)
        self.table.replace(frame.drop(columns=["store"]) if len(self.stores) == 1 else frame)
        places = np.flatnonzero(self.listed == self.question)
        self.table.current = int(places[0]) if len(places) else -1
        self.status.value = framed(self._status())

    def _status(self) -> str:
        chosen, there = len(self.selection), int(self.shown().sum())
        parts = [f"selected: <b>{chosen}</b> of the thoughts, {len(self.listed)} of the questions"] if chosen else []
        if there < len(self.points):
            parts.append(f"{there} of {len(self.points)} thoughts shown")
        if self.map is not None:
            own = self.step is not None and self.axes == "own"
            fitted: Any = self.points[self.points["step"] == self.step] if own else self.points
            parts += ["right and up: " + escaped(" and ".join(axes_of(fitted))), escaped(caption_of(fitted))]
        return "; ".join(parts)

    def _question_chosen(self) -> None:
        mine = np.flatnonzero(self._question_of == self.question) if self.question >= 0 else np.array([], int)
        if self.thought not in mine.tolist():
            seen = [row for row in mine if row in set(self.selection)] or mine[self.shown()[mine]].tolist()
            best = seen or mine.tolist()
            self.thought = int(best[0]) if best else -1
        self._detail()

    def _thought_chosen(self) -> None:
        if self.thought >= 0:
            self.question = int(self._question_of[self.thought])
        self._detail()

    def _detail(self) -> None:
        places = np.flatnonzero(self.listed == self.question)
        self.table.current = int(places[0]) if len(places) else -1
        self.detail.value = framed(self._detail_html())
        mine = np.flatnonzero(self._question_of == self.question) if self.question >= 0 else []
        self._filling = True  # other options take another value for a moment
        self.which.options = [(self._called(int(row)), int(row)) for row in mine] or [("none", -1)]
        self.which.value = self.thought
        self._filling = False
        self.near.replace(self.neighbours())

    def _called(self, row: int) -> str:
        point = self.points.iloc[row]
        return f"slot {point['step']}" + (f", path {point['path']}" if self.points["path"].max() else "")

    def _detail_html(self) -> str:
        if self.question < 0:
            return '<p class="wb-soft">Choose a question in the table, or click a point, to read it here.</p>'
        row = self.questions.iloc[self.question]
        path = int(self.points["path"].iloc[self.thought]) if self.thought >= 0 else 0
        return detail_html(self.stores[row["store"]], row["example"], path)

    def neighbours(self) -> pd.DataFrame:
        """The thoughts nearest to the chosen one in the original space, of other questions, by distance."""
        return neighbour_table(self.points, self.vectors, self.thought)

    # ---------------------------------------------------------------------------------------------------- the controls

    def _build(self) -> None:
        self.listed, self._filling = np.arange(0), False
        self.said, self.status, self.detail = pane(), pane(), pane()
        self.table = Table(label="questions of the selected thoughts", height=340)
        self.near = Table(label="nearest thoughts of other questions", height=190)
        self.which: Any = ipw.Dropdown(
            description="thought", style={"description_width": "initial"}, layout=ipw.Layout(width="190px")
        )
        when(self.table, "current", self._row_chosen)
        when(self.near, "current", self._neighbour_chosen)
        when(self.which, "value", self._which_chosen)
        if not self.stores:
            self.box.children = (notice(self.remarks),)
            return
        half = {"flex": "1 1 400px", "min_width": "0"}
        lists = ipw.VBox([*self._selecting(), self.table], layout=ipw.Layout(**half))
        maps = [ipw.VBox([self.map], layout=ipw.Layout(**half))] if self.map is not None else []
        both = ipw.HBox([*maps, lists], layout=ipw.Layout(flex_flow="row wrap", width="100%"))
        below: list[ipw.Widget] = [self.detail]
        if len(self.points):
            about = pane("<h3>Nearest thoughts of other questions, by distance in the original space</h3>")
            below = [labelled(self.which), self.detail, about, self.near]
        self.box.children = (notice(self.remarks), *self._seeing(), self.status, self.said, both, *below)

    def _seeing(self) -> list[ipw.Widget]:
        """What is shown, and how."""
        if self.map is None:
            return []
        titles = titles_of(self.points)
        columns = [(titles[name], name) for name in self.points if name not in ("x", "y", "text", "question")]
        tips = ("instant, exact", "keeps neighbourhoods; the first one takes half a minute or longer")
        controls = [
            toggles(self, "how", [("PCA", "pca"), ("UMAP", "umap")], tips),
            choice(self, "color", columns, "colour", width="190px"),
        ]
        for column in ("step", "path"):
            values = sorted(self.points[column].unique().tolist())
            if len(values) > 1:
                controls.append(stepper(self, column, values, title_of(column)))
            if len(values) > 1 and column == "step":
                both = [("common axes", "common"), ("own axes", "own")]
                controls.append(toggles(self, "axes", both, ("those of all slots", "fitted to the slot shown")))
        few = few_values(self.points)
        kept = filters(self, "filters", few, {name: titles[name] for name in few}) if few else []
        reset = button("Show all", self._reset, "forget all filters")
        return [labelled(*controls), labelled(words(self, "find", "find", "words of a question"), *kept, reset)]

    def _selecting(self) -> list[ipw.Widget]:
        """Buttons for what a lasso cannot do."""
        if not len(self.points):
            return []
        tight = ipw.Layout(width="150px")
        name = ipw.Text(placeholder="name of the selection", layout=tight)
        file = ipw.Text(value="selection.csv", layout=tight, tooltip="ends in .csv or .jsonl")
        old = ipw.Dropdown(options=[("kept ones", None)], layout=tight)

        def kept() -> None:
            named = [(f"{title} ({len(rows)})", title) for title, rows in self.kept.items()]
            old.options = [("kept ones", None), *named]

        def recall() -> None:
            if old.value is not None:
                self.selection = self.kept[old.value]

        when(self, "kept", kept)
        when(old, "value", recall)
        return [
            labelled(
                button("Select all shown", self.select_shown, "as a lasso around everything", self._say),
                button("Select none", lambda: self.select(()), "as a double click beside the points", self._say),
            ),
            labelled(name, button("Keep", lambda: self.keep(name.value), "under this name", self._say), old),
            labelled(
                file,
                button("Export", lambda: self._write(file.value), ".csv, .jsonl: the rows; .json: all kept", self._say),
                button("Load", lambda: self._load(file.value), "kept selections, from .json", self._say),
            ),
        ]

    def _write(self, name: str) -> str:
        return f"written: {self.save_selections(name) if name.endswith('.json') else self.export(name)}"

    def _load(self, name: str) -> str:
        missing = self.load_selections(name)
        return f"{missing} thoughts of them are not in these stores" if missing else ""

    def _reset(self) -> None:
        with self.hold_trait_notifications():
            self.filters, self.find, self.step, self.path = {}, "", None, None

    def _say(self, sentence: str) -> None:
        self.said.value = framed(said(sentence) if sentence else "")

    def _row_chosen(self) -> None:
        if self.table.current >= 0:
            self.question = int(self.listed[self.table.current])

    def _neighbour_chosen(self) -> None:
        if self.near.current >= 0:
            self.thought = int(self.near.frame.index[self.near.current])

    def _which_chosen(self) -> None:
        if not self._filling:
            self.thought = self.which.value

    # -------------------------------------------------------------------------------------------------------- the page

    def pieces(self) -> list[Piece]:
        """Remarks, map, the questions of the selection, the question under the eye."""
        parts: list[Piece] = [said(self.remarks)]
        if self.map is not None and self.shown().any():
            figure = selection_figure(self.points, self.shown(), self.selection, self.color)
            parts += [f"<p>{self._status()}</p>", figure]
        elif self.map is not None:
            parts.append(said("No thought passes the filters."))
        frame = self.table.frame
        if len(frame):
            note = f", {MOST_ROWS} of {len(frame)}" if len(frame) > MOST_ROWS else ""
            parts += [f"<h3>Questions{note}</h3>", frame.iloc[self.table.order()[:MOST_ROWS]]]
        if self.question >= 0:
            parts.append(self._detail_html())
            if self.thought >= 0:
                heading = f"Nearest thoughts of other questions to {self._called(self.thought)}"
                parts += [f"<h3>{heading}</h3>", self.near.frame]
        return parts

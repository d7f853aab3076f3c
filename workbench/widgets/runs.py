"""All runs and stores under a folder: sorted, opened in any widget, drawn together, removed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as ipw
import pandas as pd
import plotly.graph_objects as go
import traitlets as tr

from .. import runs, store
from ..figures import run_curves
from ..figures.curves import PROBES
from ..overview import remove, run_table
from .compare import MOST
from .controls import button, choice, words
from .views import Picture, Piece, Table, View, escaped, framed, labelled, notice, pane, said, when

SHOWN = (
    "name", "state", "method", "task", "backbone", "seed", "step", "accuracy", "interval", "n", "of", "verdict",
    "minutes", "megabytes", "created", "remark",
)  # fmt: skip
OPENS = ("Inspector", "PositiveSteps", "Collapse", "Compare", "TrainingMonitor")
ONE = ("TrainingMonitor",)  # of which a page has one for each run
POINTS = 50  # of the longest smoothed line


class Runs(View):
    """Every run and store under `folder`: what it is, how far it got, how good, how large.

    A heading sorts; a click or the space bar marks rows. What is marked is opened in another widget below, drawn as
    curves in one figure, or removed after one more question.

    Traits: `only` (words that a row must hold), `marked` (names), `widget` (what opens: one of `OPENS`), `value` (the
    column of metrics.jsonl that is drawn), `log`, `smooth`. `table` has the rows that are shown, `rows` all of them.
    """

    title = "Runs"
    only = tr.Unicode("")
    marked = tr.Tuple()
    widget = tr.Enum(OPENS, "Compare")
    value = tr.Unicode("loss")
    log = tr.Bool(False)
    smooth = tr.Bool(False)

    def __init__(self, folder: str | Path = runs.RUNS) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.rows: Any = pd.DataFrame()
        self.opened: View | None = None
        self.head, self.ask, self.told = pane(), ipw.HBox([]), pane()
        self.table = Table(label="runs and stores", height=320, several=True)
        self.picture = Picture()
        self.below = ipw.VBox([], layout=ipw.Layout(width="100%"))
        self.metrics: dict[str, pd.DataFrame] = {}
        try:
            self.rows = run_table(self.folder, self._progress)
        except ValueError as error:
            self.box.children = (notice(str(error)),)
            return
        self._build()
        when(self, "only", self._list)
        when(self, "marked", self._draw)
        when(self, ["value", "log", "smooth"], self._draw)
        self._list()
        self._draw()

    def _build(self) -> None:
        values = [("loss", "loss"), *((title, name) for name, title in PROBES.items())]
        switches = [
            ipw.ToggleButton(description=name, tooltip=tip, layout=ipw.Layout(width="auto"))
            for name, tip in (
                ("log axis", "powers of ten"),
                ("smooth", "means of as many values as is said"),
            )
        ]
        for trait, switch in zip(("log", "smooth"), switches, strict=True):
            tr.link((self, trait), (switch, "value"))
        when(self.table, "marked", self._ticked)
        self.box.children = (
            labelled(
                words(self, "only", "only with", "method, task, a part of a name"),
                button("Look again", self.look, "read the folder anew"),
            ),
            self.head,
            self.table,
            labelled(
                choice(self, "widget", list(OPENS), "open in", width="220px"),
                button("Open", self.open, "the marked rows in that widget, below", self._say),
                button("Mark none", lambda: self.set_trait("marked", ()), "unmark all rows"),
                button("Delete …", self._question, "remove the marked runs from the disk", self._say),
            ),
            self.ask,
            self.told,
            labelled(choice(self, "value", values, "curves of", width="330px"), *switches),
            self.picture,
            self.below,
        )

    # ---------------------------------------------------------------------------------------------------- what changes

    def look(self) -> None:
        """Read the folder anew; rows that are still there stay marked."""
        kept = self.marked
        self.rows, self.metrics = run_table(self.folder, self._progress), {}
        self._list()
        self.marked = tuple(name for name in kept if name in set(self.rows["name"]))
        self._draw()

    @tr.validate("marked")
    def _names(self, proposal: Any) -> tuple[str, ...]:
        known = set(self.rows["name"]) if len(self.rows) else set()
        unknown = [name for name in proposal.value if name not in known]
        if unknown:
            raise tr.TraitError(f"no run {unknown[0]!r} under {self.folder}: use names that `runs.rows` has")
        return tuple(dict.fromkeys(proposal.value))

    def _list(self) -> None:
        """The rows that hold all words of `only`."""
        wanted = self.only.lower().split()
        text: Any = self.rows[list(SHOWN[:7])].astype(str).agg(" ".join, axis=1).str.lower() if len(self.rows) else []
        self.listed: Any = self.rows[[all(word in line for word in wanted) for line in text]].reset_index(drop=True)
        ranges = [
            f"{100 * low:.1f} to {100 * high:.1f}" if pd.notna(low) else ""
            for low, high in zip(self.listed["low"], self.listed["high"], strict=True)
        ]
        shown = self.listed.assign(interval=ranges, accuracy=100 * self.listed["accuracy"])[list(SHOWN)]
        shown = shown.rename(columns={"accuracy": "accuracy (%)", "interval": "95 % interval", "megabytes": "MB"})
        self.table.replace(shown.drop(columns=[name for name in ("remark",) if not any(shown[name])]))
        self.table.marked = [k for k, name in enumerate(self.listed["name"]) if name in self.marked]
        of = f"{len(self.listed)} of " if len(self.listed) < len(self.rows) else ""
        kinds = self.rows["kind"].value_counts()
        counted = f"{kinds.get('run', 0)} runs and {kinds.get('store', 0)} stores beside them"
        self.head.value = framed(f"<b>{escaped(self.folder)}</b>: {of}{counted}")

    def _ticked(self) -> None:
        """The rows of the table that are marked; those it does not show stay as they are."""
        listed = list(self.listed["name"])
        hidden = [name for name in self.marked if name not in set(listed)]
        self.marked = (*hidden, *(listed[row] for row in self.table.marked))

    def _chosen(self) -> pd.DataFrame:
        return self.rows[self.rows["name"].isin(self.marked)]

    def _draw(self) -> None:
        rows = [k for k, name in enumerate(self.listed["name"]) if name in self.marked]
        if rows != list(self.table.marked):
            self.table.marked = rows
        try:
            self.picture.show(self.figure())
            self._say("")
        except ValueError as error:
            self.picture.show(None)
            self._say(str(error))

    def figure(self) -> go.Figure | None:
        """The curves of the marked runs; None where no run is marked."""
        tables = {}
        for row in self._chosen().to_dict(orient="records"):
            if row["kind"] == "run" and (Path(row["path"]) / "metrics.jsonl").exists():
                name = str(row["name"])
                if name not in self.metrics:
                    self.metrics[name] = runs.read_metrics(row["path"])
                if len(self.metrics[name]):
                    tables[name] = self.metrics[name]
        if not tables:
            return None
        window = max(2, max(map(len, tables.values())) // POINTS) if self.smooth else 1
        return run_curves(tables, self.value, log=self.log, window=window)

    # ------------------------------------------------------------------------------------------------------------ acts

    def open(self) -> str:
        """Show the marked rows in `widget`, below; returns what cannot be shown, as a sentence. Its view: `opened`."""
        from .. import widgets

        chosen = self._chosen()
        if self.widget in ONE:
            found: Any = chosen[chosen["kind"] == "run"]
            if len(found) != 1:
                raise ValueError(f"{self.widget} shows one run, and {len(found)} are marked: mark one")
            return self._show(widgets.TrainingMonitor(found["path"].iloc[0]))
        held = chosen[chosen["store"].astype(bool)]
        if held.empty:
            raise ValueError("none of the marked rows has a store: mark one, or make it with `workbench collect --run`")
        if self.widget == "Compare" and not 2 <= len(held) <= MOST:
            raise ValueError(f"Compare shows 2 to {MOST} stores, and {len(held)} of the marked rows have one")
        stores = {str(name): store.load(path) for name, path in zip(held["name"], held["store"], strict=True)}
        make: Callable[[Any], View] = getattr(widgets, self.widget)
        without = len(chosen) - len(held)
        return self._show(make(stores)) or f"{without} of the marked rows have no store." * bool(without)

    def _show(self, view: View) -> str:
        if self.opened is not None:
            self.opened.close()
        self.opened = view
        self.below.children = (view.box,)
        return ""

    def delete(self) -> None:
        """Remove the marked runs and stores from the disk. The page asks first."""
        remove(list(self._chosen()["path"]))
        self.marked = ()
        self.look()

    def _question(self) -> str:
        chosen = self._chosen()
        if chosen.empty:
            return "No row is marked: mark what is to be deleted."
        names = ", ".join(chosen["name"].head(5)) + (" …" if len(chosen) > 5 else "")
        size = f"{chosen['megabytes'].sum():.1f} MB"
        asked = pane(f"Delete {len(chosen)} of them for good, {size} with all that lies there? {escaped(names)}")
        self.ask.children = (button("Yes, delete", self._sure, "", self._say), button("No", self._unsure), asked)
        return ""

    def _sure(self) -> None:
        self._unsure()
        self.delete()

    def _unsure(self) -> None:
        self.ask.children = ()

    def _say(self, text: str) -> None:
        self.told.value = framed(said(text) if text else "")

    def _progress(self, done: int, of: int, name: str) -> None:
        self.head.value = framed(f'<span class="wb-soft">reading {done + 1} of {of}: {escaped(name)}</span>')

    def close(self) -> None:
        if self.opened is not None:
            self.opened.close()
        super().close()

    def pieces(self) -> list[Piece]:
        drawn = self.figure()
        below = list(self.opened.pieces()) if self.opened is not None else []
        return [self.head.value, self.table.frame, *([drawn] if drawn is not None else []), *below]

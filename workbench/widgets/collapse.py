"""Whether thoughts collapsed, why, and when: verdict, statistics, map and spectrum of runs over their training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets as tr
import xarray as xr

from ..analysis.diagnostics import Thresholds, Verdict, collapse, describe, settled, spectrum_table
from ..analysis.diagnostics.inputs import path_thoughts
from ..analysis.projection import project
from ..figures import collapse_along, response, spectrum, style, thought_map
from ..figures.look import add_to_caption, titles_of
from .views import Picture, Piece, View, checked, escaped, framed, labelled, notice, pane, said, when
from .weighed import Given, Weighed

MOST = 500  # questions of a store that are looked at: the verdict's lines were drawn with so many
STATISTICS = {  # over training: those of the verdict
    "relative_spread": "relative spread",
    "slot_cosine": "slot cosine",
    "effective_rank": "effective rank",
}
ENDS = {  # of each threshold's slider
    "low_spread": 1.0,
    "dead_spread": 0.2,
    "close_cosine": 1.0,
    "merged_cosine": 1.0,
    "many_same": 1.0,
    "most_same": 1.0,
    "same_distance": 0.2,
}
LINES = {
    "low_spread": "drifting below this relative spread",
    "dead_spread": "collapsed below this relative spread",
    "close_cosine": "drifting above this slot cosine",
    "merged_cosine": "collapsed above this slot cosine",
    "many_same": "drifting from this share with the same thoughts",
    "most_same": "collapsed from this share with the same thoughts",
    "same_distance": "the same up to this share of the mean distance",
}
Runs = dict[str, dict[Any, xr.Dataset]]  # name -> checkpoint -> store


class Collapse(View):
    """The collapse verdict of one store, of several by name, of one run's by training step, or of several runs'.

        wb.widgets.Collapse(store)
        wb.widgets.Collapse({"default": {0: store, 50: store, ...}, "weight 1": {...}})

    checkpoint: the training step that is shown; of a run that has no such one, its last before. The thresholds are
    traits too (`low_spread`, ...), and the verdict follows them at once. Of large stores 500 questions are looked at.
    evidence: what `workbench evidence` found, of one run or run -> that; what the thoughts do stands beneath.
    """

    title = "Collapse"

    checkpoint = tr.Any(None, allow_none=True)
    path = tr.Int(0)
    slot = tr.Unicode("all")
    color = tr.Unicode("correct")  # of the map
    view = tr.Enum(("slots", "training"), "slots")  # what the statistics are drawn over
    low_spread = tr.Float(Thresholds.low_spread, min=0)
    dead_spread = tr.Float(Thresholds.dead_spread, min=0)
    close_cosine = tr.Float(Thresholds.close_cosine, min=-1, max=1)
    merged_cosine = tr.Float(Thresholds.merged_cosine, min=-1, max=1)
    many_same = tr.Float(Thresholds.many_same, min=0, max=1)
    most_same = tr.Float(Thresholds.most_same, min=0, max=1)
    same_distance = tr.Float(Thresholds.same_distance, min=0)

    def __init__(
        self, stores: xr.Dataset | Mapping[Any, Any], evidence: Given | Mapping[str, Given] | None = None
    ) -> None:
        super().__init__()
        self.runs, self.remarks = _runs(stores)
        self.weighed = Weighed(evidence)
        self.remarks += self.weighed.remarks
        self._kept: dict[Any, Any] = {}
        if not self.runs:
            self.box.children = (notice(self.remarks),)
            return
        self.checkpoints = sorted({step for run in self.runs.values() for step in run if step is not None})
        self.checkpoint = self.checkpoints[-1] if self.checkpoints else None
        self.color = "store" if len(self.runs) > 1 else "correct"
        self.view = "training" if len(self.checkpoints) > 1 else "slots"
        self._build()

    # ------------------------------------------------------------------------------------------------------ the model

    @property
    def thresholds(self) -> Thresholds:
        """Where the verdict's lines are now."""
        return Thresholds(**{field.name: getattr(self, field.name) for field in fields(Thresholds)})

    @property
    def shown(self) -> dict[str, xr.Dataset]:
        """The store of each run at the checkpoint."""
        return {name: run[_at(run, self.checkpoint)] for name, run in self.runs.items()}

    @property
    def verdicts(self) -> dict[str, dict[Any, Verdict | str]]:
        """Of each run at each of its checkpoints the verdict, or a sentence why there is none."""
        return {name: {step: self._verdict(name, step) for step in run} for name, run in self.runs.items()}

    def _verdict(self, name: str, step: Any) -> Verdict | str:
        def judged() -> Verdict | str:
            try:
                store = self.runs[name][step]
                return settled(collapse(*path_thoughts(store, self.path), self.thresholds), store.attrs)
            except ValueError as error:
                return f"{error}."

        return self._once(("verdict", name, step, self.path, self.thresholds), judged)

    def statistics(self, name: str, step: Any) -> pd.DataFrame:
        """`diagnostics.describe` of a run at a checkpoint, without intervals; empty where nothing can be said."""

        def described() -> pd.DataFrame:
            try:
                return describe({name: self.runs[name][step]}, self.path, level=None)
            except ValueError:
                return pd.DataFrame()

        return self._once(("statistics", name, step, self.path), described)

    def points(self) -> pd.DataFrame:
        """One map (PCA) of the thoughts of all runs and checkpoints: `projection.project`, with a column checkpoint."""

        def projected() -> pd.DataFrame:
            names = {f"{name}, {step}": (name, step) for name, run in self.runs.items() for step in run}
            found = project({label: self.runs[name][step] for label, (name, step) in names.items()})
            places = [names[label] for label in found["store"]]
            return found.assign(store=[name for name, _ in places], checkpoint=[step for _, step in places])

        return self._once("points", projected)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @tr.validate("checkpoint")
    def _known_checkpoint(self, proposal: Any) -> Any:
        if proposal.value is not None and proposal.value not in self.checkpoints:
            known = ", ".join(map(str, self.checkpoints)) or "none"
            raise tr.TraitError(f"no checkpoint {proposal.value!r}: there are {known}")
        return proposal.value

    @tr.validate("path")
    def _known_path(self, proposal: Any) -> int:
        most = min((store.sizes["path"] for store in _all(self.runs)), default=1)
        if not 0 <= proposal.value < most:
            raise tr.TraitError(f"path {proposal.value} of stores with {most} paths: give one of those, from 0")
        return proposal.value

    @tr.validate("slot")
    def _known_slot(self, proposal: Any) -> str:
        if proposal.value not in self._slots():
            raise tr.TraitError(f"no slot {proposal.value!r}: use {', '.join(self._slots())}")
        return proposal.value

    def _slots(self) -> list[str]:
        most = max((store.sizes["step"] for store in _all(self.runs)), default=0)
        return ["all", *map(str, range(most))]

    def _colors(self) -> list[str]:
        labels = sorted({str(name) for store in _all(self.runs) for name in store.coords if str(name)[:6] == "label_"})
        shared = [name for name in labels if all(name in store.coords for store in _all(self.runs))]
        return ["correct", "store", "step", *shared]

    # ------------------------------------------------------------------------------------------------------- the view

    def _build(self) -> None:
        wide: dict[str, Any] = {"style": {"description_width": "initial"}}
        slot = ipw.Dropdown(options=self._slots(), description="Slot", layout={"width": "130px"}, **wide)
        colors = [(title, name) for name, title in titles_of(self._colors()).items()]
        color = ipw.Dropdown(options=colors, description="Map coloured by", layout={"width": "250px"}, **wide)
        views = [("over slots", "slots"), ("over training", "training")]
        view = ipw.Dropdown(options=views, description="Statistics", layout={"width": "200px"}, **wide)
        path = ipw.BoundedIntText(min=0, max=min(store.sizes["path"] for store in _all(self.runs)) - 1,
                                  description="Path", layout={"width": "110px"}, **wide)  # fmt: skip
        for control, name in ((slot, "slot"), (color, "color"), (view, "view"), (path, "path")):
            tr.link((self, name), (control, "value"))
        self.judged, self.trouble = pane(), pane()
        self.pictures = {name: Picture() for name in ("map", "spectrum", "statistics")}
        over = self._checkpoint_controls() if len(self.checkpoints) > 1 else []
        extra = ([view] if over else []) + ([path] if path.max else [])
        beside = ipw.HBox([self.pictures["map"], self.pictures["spectrum"]], layout={"flex_flow": "row wrap"})
        self.box.children = (
            *([notice(self.remarks)] if self.remarks else ()),
            labelled(*over, slot, color, *extra),
            self.judged,
            self._threshold_controls(),
            self.trouble,
            beside,
            self.pictures["statistics"],
            *self.weighed.box(),
        )
        when(self, list(ENDS), self._judge)
        when(self, ["checkpoint", "path"], self._judge)
        when(self, ["checkpoint", "path", "slot", "color", "view"], self._draw)
        self._judge()
        self._draw()

    def _checkpoint_controls(self) -> list[ipw.Widget]:
        at = ipw.SelectionSlider(
            options=[(str(step), step) for step in self.checkpoints], description="Training step",
            layout={"width": "380px"}, style={"description_width": "initial"}, continuous_update=False,
        )  # fmt: skip
        play = ipw.Play(min=0, max=len(self.checkpoints) - 1, interval=1500, layout={"width": "130px"})
        tr.link((self, "checkpoint"), (at, "value"))
        play.observe(lambda change: setattr(self, "checkpoint", self.checkpoints[change["new"]]), "value")
        return [at, play]

    def _threshold_controls(self) -> ipw.Accordion:
        sliders = []
        for name, end in ENDS.items():
            slider = ipw.FloatSlider(min=0, max=end, step=end / 1000, readout_format=".3g", continuous_update=False,
                                     layout={"width": "260px"}, tooltip=LINES[name])  # fmt: skip
            tr.link((self, name), (slider, "value"))
            words = ipw.Label(LINES[name], layout={"width": "370px"})
            sliders.append(ipw.HBox([words, slider]))
        reset = ipw.Button(description="as at first", layout={"width": "120px"})
        reset.on_click(lambda _: self.reset())
        lines = ipw.Accordion([ipw.VBox([*sliders, reset])], titles=["Where the verdict's lines are"])
        lines.selected_index = None
        return lines

    def reset(self) -> None:
        """The thresholds as they are by default."""
        for field in fields(Thresholds):
            setattr(self, field.name, getattr(Thresholds, field.name))

    def _judge(self) -> None:
        self.judged.value = framed(self._verdict_html())

    def _verdict_html(self) -> str:
        """A line for each run: its state at every checkpoint, and the evidence at the one shown."""
        lines = []
        for name, run in self.runs.items():
            verdicts, here = self.verdicts[name], _at(run, self.checkpoint)
            color = style(name).color if len(self.runs) > 1 else "inherit"  # as in the figures
            marks = [_cell(step, found, step == here) for step, found in verdicts.items() if step is not None]
            found = verdicts[here]
            if isinstance(found, str):
                words = escaped(found)
            else:
                look = style(found.state).color
                evidence = escaped("; ".join(found.evidence))
                words = f'<b style="color:{look}">{found.state}</b> {evidence}'
            at = f' <span class="wb-soft">at training step {here}</span>' if here is not None else ""
            lines.append(
                f'<tr><td style="white-space:nowrap"><b style="color:{color}">{escaped(name)}</b>{at}</td>'
                f'<td style="white-space:nowrap">{"".join(marks)}</td><td>{words}</td></tr>'
            )
        return f'<table class="wb-table"><tbody>{"".join(lines)}</tbody></table>'

    def figures(self) -> dict[str, go.Figure | str]:
        """The map, the spectrum and the statistics; a sentence in the place of one that cannot be drawn."""
        found: dict[str, go.Figure | str] = {}
        for name, make in (("map", self._map), ("spectrum", self._spectrum), ("statistics", self._curves)):
            try:
                found[name] = make()
            except ValueError as error:
                found[name] = f"No {name}: {error}."
        return found

    def _draw(self) -> None:
        found = self.figures()
        for name, picture in self.pictures.items():
            figure = found[name]
            picture.show(None if isinstance(figure, str) else figure)
        self.trouble.value = framed(said(words for words in found.values() if isinstance(words, str)))

    def _map(self) -> go.Figure:
        points = self.points()
        here = {name: _at(run, self.checkpoint) for name, run in self.runs.items()}
        rows = [step == here[name] for name, step in zip(points["store"], points["checkpoint"], strict=True)]
        rows = np.array(rows) & (points["path"] == self.path).to_numpy()
        if self.slot != "all":
            rows &= (points["step"] == int(self.slot)).to_numpy()
        apart = len(self.runs) > 1 and self.color != "store"
        figure = thought_map(points.loc[rows], self.color, "store" if apart else None)
        for axis, update in (("x", figure.update_xaxes), ("y", figure.update_yaxes)):
            values = points[axis].to_numpy(float)
            low, high = float(values.min()), float(values.max())
            room = 0.05 * (high - low)
            update(range=[low - room, high + room])  # the same at all checkpoints
        return figure

    def _spectrum(self) -> go.Figure:
        table = spectrum_table(self.shown, self.path)
        slot = table["step"].iloc[0] if self.slot == "all" and len(table) else self.slot
        part = table.loc[table["step"] == slot]
        # in parts of the mean square, so that a run of long thoughts is not above one of short ones
        part = part.assign(eigenvalue=part["relative"])
        color = "store" if len(self.runs) > 1 else None
        figure = spectrum(part, color=color, unit="share", width="column")
        return add_to_caption(figure, f"of slot {slot}; eigenvalues as shares of the mean square")

    def _curves(self) -> go.Figure:
        if self.view == "slots" or len(self.checkpoints) < 2:
            tables = [self.statistics(name, _at(run, self.checkpoint)) for name, run in self.runs.items()]
            tables = [table for table in tables if len(table)]
            if not tables:
                raise ValueError("too few questions with thoughts: collect more")
            table = pd.concat(tables, ignore_index=True)
            return collapse_along(table if len(self.runs) > 1 else table.drop(columns="store"))
        rows = [
            {"run": name, "step": step, "statistic": statistic, "value": found.values[statistic]}
            | {"low": np.nan, "high": np.nan, "n": self.runs[name][step].sizes["example"]}
            for name, steps in self.verdicts.items()
            for step, found in steps.items()
            if isinstance(found, Verdict)
            for statistic in STATISTICS
            if step is not None and statistic in found.values
        ]
        if not rows:
            raise ValueError("too few questions with thoughts: collect more")
        return response(
            pd.DataFrame(rows), x="step", y="value", color="run" if len(self.runs) > 1 else None, facet="statistic",
            x_title="training step", y_title=STATISTICS,
        )  # fmt: skip

    def pieces(self) -> list[Piece]:
        if not self.runs:
            return [said(self.remarks)]
        drawn = [said(found) if isinstance(found, str) else found for found in self.figures().values()]
        lines = pd.DataFrame({"line": list(LINES.values()), "at": [getattr(self, name) for name in LINES]})
        where = ["<h3>Where the verdict's lines are</h3>", lines]
        return [said(self.remarks), self._verdict_html(), *drawn, *self.weighed.pieces(), *where]


def _runs(stores: Any) -> tuple[Runs, list[str]]:
    """The stores by run and checkpoint (None: the only one), and what is wrong with others."""
    runs: Runs = {}
    if isinstance(stores, Mapping) and any(map(_nested, stores.values())):
        remarks: list[str] = []
        for name, steps in stores.items():
            good, said = checked(steps)
            remarks += [f"{name}, {sentence}" for sentence in said]
            if good:
                runs[str(name)] = dict(good) if _numbered(good) else {None: list(good.values())[-1]}
    else:
        good, remarks = checked(stores)
        if len(good) > 1 and _numbered(good):
            runs = {str(next(iter(good.values())).attrs["method"]): dict(good)}
        else:
            runs = {str(name): {None: store} for name, store in good.items()}
    most = max((store.sizes["example"] for store in _all(runs)), default=0)
    if most > MOST:
        remarks.append(f"{MOST} of {most} questions are looked at, drawn at random.")
        runs = {name: {step: _some(store) for step, store in run.items()} for name, run in runs.items()}
    return runs, remarks


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, xr.Dataset)  # a store is a mapping, too


def _numbered(stores: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, int | np.integer) for name in stores)


def _some(store: xr.Dataset) -> xr.Dataset:
    """At most 500 questions, those of the same places in every store of the same size."""
    count = store.sizes["example"]
    rows = np.random.default_rng(0).permutation(count)[:MOST]
    return store.isel(example=np.sort(rows)).load()


def _all(runs: Runs) -> Sequence[xr.Dataset]:
    return [store for run in runs.values() for store in run.values()]


def _at(run: Mapping[Any, Any], checkpoint: Any) -> Any:
    """A run's checkpoint that stands for another: that one, else the last before it, else its first."""
    steps = list(run)
    before = [step for step in steps if step is None or checkpoint is None or step <= checkpoint]
    return before[-1] if before else steps[0]


def _cell(step: Any, found: Verdict | str, here: bool) -> str:
    """A checkpoint's state as a coloured mark."""
    state = "unknown" if isinstance(found, str) else found.state
    ring = "outline:2px solid currentColor" if here else ""
    look = f"display:inline-block;width:14px;height:14px;margin:1px 3px;background:{style(state).color};{ring}"
    return f'<span style="{look}" title="step {step}: {state}"></span>'

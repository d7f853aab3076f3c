"""Runs beside each other: how good, how sure, where they disagree, and the thoughts behind two different answers."""

from collections.abc import Mapping
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
import traitlets as tr
import xarray as xr

from ..analysis import projection, scores
from ..figures import accuracy, matrix
from ..figures.look import style, title_of, titles_of
from .controls import button, choice, stepper, toggles
from .detail import answers_html, question_html, question_table, thoughts_html
from .scatter import Points, selection_figure
from .views import MOST_ROWS, Picture, Piece, Table, View, checked, escaped, framed, labelled, notice, pane, said, when
from .weighed import Given, Weighed

MOST = 8  # runs beside each other
KINDS = ("disagreements", "fixed", "broken")  # of questions, beside the baseline


class Compare(View):
    """Two to eight stores of the same questions, name -> store.

    From the top: accuracies with intervals, how far each run is from `baseline` (paired over the questions both
    answered), how often two runs agree; a map of each run's thoughts, linked by question: what is selected in one is
    selected in all; the questions on which runs disagree; one of them, answered by each run, with its thoughts. With
    `evidence`, run -> what `workbench evidence` found of it, a sentence says what the thoughts of each do.

    Traits: `baseline` (a name), `measure` ("mean" of the answers, or majority "vote"), `color` (a column of `points`),
    `step` (None: all), `only` (questions: "disagreements"; those "fixed", which another run answers better than the
    baseline, or "broken", worse; "all"), `selection` (example ids), `question` (an example id, "" for none).
    """

    title = "Runs beside each other"
    baseline = tr.Unicode("")
    measure = tr.Enum(["mean", "vote"], "mean")
    color = tr.Unicode("correct")
    step = tr.Int(None, allow_none=True)
    only = tr.Enum([*KINDS, "all"], "disagreements")
    selection = tr.Tuple()
    question = tr.Unicode("")

    def __init__(self, stores: Mapping[Any, xr.Dataset], evidence: Given | Mapping[str, Given] | None = None) -> None:
        super().__init__()
        good, self.remarks = checked(stores, most=MOST)
        self.weighed = Weighed(evidence)
        self.remarks += self.weighed.remarks
        self.stores = {str(name): store for name, store in good.items()}
        self.maps: dict[str, Points] = {}
        self.points: Any = pd.DataFrame()
        self.questions: Any = pd.DataFrame()
        if len(self.stores) < 2:
            given = f"{len(self.stores)} store{'s' * (len(self.stores) != 1)}"
            self.remarks.append(f"A comparison needs two stores or more, and {given} can be shown: give name -> store.")
            self.box.children = (notice(self.remarks),)
            return
        self.baseline = next(iter(self.stores))
        self.questions = self._matched()
        self._map()
        self._build()
        when(self, ["baseline", "measure"], self._score)
        when(self, ["only", "selection", "baseline"], self._list)
        when(self, "selection", self._select)
        when(self, "step", self._cut)
        when(self, "question", self._detail)
        self._score()
        self._list()
        self._detail()

    def _matched(self) -> pd.DataFrame:
        """A row for each question of any store: right in each store, gold, question and labels."""
        rows: Any = question_table(self.stores)
        right = rows.pivot(index="example", columns="store", values="right")[list(self.stores)]
        if rows["right"].isin([0, 1]).all():
            right = right.astype("boolean")  # which knows missing, where a store lacks a question
        about = rows.drop_duplicates("example").set_index("example").drop(columns=["right", "answer", "store"])
        return right.join(about).loc[about.index].reset_index()

    def _map(self) -> None:
        """A map for each store: one for all where their vectors have one width."""
        try:
            tables = [projection.project(self.stores)]
        except ValueError as error:
            self.remarks.append(f"There is no common map: {error}.")
            tables = []
            for name, store in self.stores.items():
                try:
                    tables.append(projection.project({name: store}))
                except ValueError as reason:
                    self.remarks.append(f"There is no map of {name}: {reason}.")
        for table in tables:
            for name in table["store"].unique().tolist():
                mine: Any = table[table["store"] == name].reset_index(drop=True)
                self.maps[name] = Points(mine, height=250, within=table, whole="example")
        self.points = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        if tables:
            self.points.attrs = tables[0].attrs

    # ---------------------------------------------------------------------------------------------------- the controls

    def _build(self) -> None:
        self.accuracies, self.agreement = Picture(), Picture()
        self.tests, self.said, self.detail, self.counted = pane(), pane(), pane(), pane()
        self.table = Table(label="questions, and which run answers them right", height=300)
        when(self.table, "current", self._row_chosen)
        controls = [choice(self, "baseline", list(self.stores), "compare with", width="260px")]
        if any(store.sizes["path"] * store.sizes["draw"] > 1 for store in self.stores.values()):
            tips = ("mean over a question's answers", "whether their majority is right")
            controls.append(toggles(self, "measure", [("mean answer", "mean"), ("majority", "vote")], tips))
        beside = ipw.Layout(flex_flow="row wrap", width="100%", align_items="flex-start")
        figures = ipw.HBox([self.accuracies, self.agreement], layout=beside)
        listing = [
            toggles(
                self,
                "only",
                [*zip(KINDS, KINDS, strict=True), ("all questions", "all")],
                ("", "answered better than by the run compared with", "answered worse than by that", ""),
            ),
            button("Select none", lambda: self.set_trait("selection", ()), "show all thoughts in their colours"),
        ]
        self.box.children = (
            *(notice(self.remarks), labelled(*controls), figures, self.tests, *self.weighed.box(), *self._mapping()),
            *(labelled(*listing), self.counted, self.table, self.detail),
        )

    def _mapping(self) -> list[ipw.Widget]:
        if not self.maps:
            return []
        shown = [name for name in self.points if name not in ("x", "y", "text", "question")]
        columns = [(title, name) for name, title in titles_of(shown).items()]
        controls = [choice(self, "color", columns, "colour", width="220px")]
        steps = sorted(self.points["step"].unique().tolist())
        if len(steps) > 1:
            controls.append(stepper(self, "step", steps, title_of("step")))
        boxes = []
        for name, one in self.maps.items():
            tr.dlink((self, "color"), (one, "color"))
            one.observe(lambda change, name=name: self._picked(name), "selection")
            heading = pane(f'<h3 style="color:{style(name).color}">{escaped(name)}</h3>')
            boxes.append(ipw.VBox([heading, one], layout=ipw.Layout(flex="1 1 300px", min_width="0")))
        return [labelled(*controls), ipw.HBox(boxes, layout=ipw.Layout(flex_flow="row wrap", width="100%"))]

    # ----------------------------------------------------------------------------------------------------- what changes

    @tr.validate("baseline")
    def _named(self, proposal: Any) -> str:
        if proposal.value not in self.stores:
            raise tr.TraitError(f"no store {proposal.value!r} to compare with: use one of {', '.join(self.stores)}")
        return proposal.value

    @tr.validate("color")
    def _column(self, proposal: Any) -> str:
        if len(self.points) and proposal.value not in self.points:
            raise tr.TraitError(f"no column {proposal.value!r} to colour by: use one of {', '.join(self.points)}")
        return proposal.value

    @tr.validate("selection")
    def _ids(self, proposal: Any) -> tuple[str, ...]:
        known = set(self.questions["example"]) if len(self.questions) else set()
        unknown = [name for name in proposal.value if name not in known]
        if unknown:
            raise tr.TraitError(f"no example {unknown[0]!r} in these stores: give ids that `compare.questions` has")
        return tuple(dict.fromkeys(proposal.value))

    def test_table(self) -> pd.DataFrame:
        """`scores.compare` of every other store (run) with the baseline: difference, low, high, p, test and so on."""
        rows = []
        for name, store in self.stores.items():
            if name != self.baseline:
                found = scores.compare(store, self.stores[self.baseline], "vote" if self.measure == "vote" else "mean")
                rows.append(found.assign(run=name))
        return pd.concat(rows, ignore_index=True)

    def _score(self) -> None:
        """Accuracies, tests against the baseline, agreement."""
        measure = "vote" if self.measure == "vote" else "mean"
        table: Any = scores.accuracy_table(self.stores)
        self.accuracies.show(accuracy(table[table["measure"] == measure], color="store", width="column"))
        try:
            agreement = scores.agreement_table(self.stores, measure)
            self.tests.value = framed(self._tests_html())
        except ValueError as error:
            self.agreement.show(None)
            self.tests.value = framed(said(f"There is no paired comparison: {error}."))
            return
        square = agreement.pivot(index="first", columns="second", values="share").loc[
            list(self.stores), list(self.stores)
        ]
        least, most = int(min(agreement["n"])), int(max(agreement["n"]))
        caption = f"n = {least if least == most else f'{least} to {most}'} questions; both right or both wrong"
        self.agreement.show(matrix(100 * square, name="agreement (%)", caption=caption, form=".0f", width="column"))

    def _tests_html(self) -> str:
        lines = []
        for row in self.test_table().to_dict(orient="records"):
            test = {"mcnemar": "McNemar's exact test", "sign_flip": "sign flips"}[row["test"]]
            numbers = [f"{100 * row[key]:+.1f}".replace("-", "−") for key in ("difference", "low", "high")]
            difference = f"{numbers[0]} points [{numbers[1]}, {numbers[2]}] to {escaped(self.baseline)}"
            counts = f"better on {row['better']} questions, worse on {row['worse']} of {row['n']}"
            lines.append(f"<p><b>{escaped(row['run'])}</b>: {difference}; {counts}; p = {row['p']:.2g} ({test})</p>")
        note = "95 % bootstrap intervals over questions; p of each test alone" if len(lines) > 1 else "95 % interval"
        return f'{"".join(lines)}<p class="wb-soft">{note}</p>'

    def _picked(self, name: str) -> None:
        """A selection on one map: those questions everywhere, whatever steps are selected."""
        one = self.maps[name]
        ids = tuple(dict.fromkeys(one.points["example"].iloc[list(one.selection)].tolist()))
        if set(ids) != set(self._held(name)):
            self.selection = ids
            if len(ids) == 1:
                self.question = ids[0]

    def _held(self, name: str) -> list[str]:
        """Those of the selected questions that a store holds."""
        there = set(self.maps[name].points["example"])
        return [example for example in self.selection if example in there]

    def _select(self) -> None:
        for one in self.maps.values():
            rows = np.flatnonzero(one.points["example"].isin(self.selection))
            one.selection = tuple(rows.tolist())

    def _cut(self) -> None:
        for one in self.maps.values():
            rows = None if self.step is None else tuple(np.flatnonzero(one.points["step"] == self.step).tolist())
            one.set_trait("shown", rows)

    def kinds(self) -> dict[str, np.ndarray]:
        """Which questions [question, bool] are of which of `KINDS`: fixed are those that some run answers better."""
        right = self.questions[list(self.stores)].astype(float)
        base = right[self.baseline].to_numpy()
        most, least = right.max(axis=1).to_numpy(), right.min(axis=1).to_numpy()
        return {"disagreements": most != least, "fixed": most > base, "broken": least < base}

    def _list(self) -> None:
        names = list(self.stores)
        kinds = self.kinds()
        there = kinds.get(self.only, np.full(len(self.questions), True))
        if self.selection:
            there = there & self.questions["example"].isin(self.selection).to_numpy()
        self.listed = np.flatnonzero(there)
        chosen = f" among the {len(self.selection)} selected ones" if self.selection else ""
        which = {
            "disagreements": " on which runs disagree",
            "fixed": f" answered better than by {self.baseline}",
            "broken": f" answered worse than by {self.baseline}",
        }
        words = f"{len(self.listed)} questions{chosen}{which.get(self.only, '')}"
        in_all = ", ".join(f"{int(kinds[kind].sum())} {kind}" for kind in ("fixed", "broken"))
        self.counted.value = framed(
            f"<b>{escaped(words)}</b>; {int(kinds['disagreements'].sum())} disagreements in all, "
            f"beside {escaped(self.baseline)} {in_all}"
        )
        columns = [*names, "gold", "question"]
        rest = [name for name in self.questions if name not in (*columns, "example")]
        self.table.replace(self.questions.iloc[self.listed][[*columns, *rest, "example"]].reset_index(drop=True))
        self._mark()

    def _mark(self) -> None:
        places = np.flatnonzero(self.questions["example"].iloc[self.listed] == self.question)
        self.table.current = int(places[0]) if len(places) else -1

    def _row_chosen(self) -> None:
        if self.table.current >= 0:
            self.question = str(self.questions["example"].iloc[self.listed[self.table.current]])

    def _detail(self) -> None:
        self._mark()
        self.detail.value = framed(self._detail_html())

    def _detail_html(self) -> str:
        if not self.question:
            return '<p class="wb-soft">Choose a question in the table to read what each run answers.</p>'
        holders = {name: store for name, store in self.stores.items() if self.question in store.indexes["example"]}
        if not holders:
            return said(f"No store holds the question {self.question!r}.")
        columns = []
        for name, store in holders.items():
            told = answers_html(store, self.question) + thoughts_html(store, self.question)
            columns.append(f'<div><h3 style="color:{style(name).color}">{escaped(name)}</h3>{told}</div>')
        first = next(iter(holders.values()))
        return f'{question_html(first, self.question)}<div class="wb-columns">{"".join(columns)}</div>'

    # -------------------------------------------------------------------------------------------------------- the page

    def pieces(self) -> list[Piece]:
        """Everything as it is shown, maps as figures."""
        parts: list[Piece] = [said(self.remarks)]
        if len(self.stores) < 2:
            return parts
        parts += [figure for picture in (self.accuracies, self.agreement) if (figure := picture.figure) is not None]
        parts += [self.tests.value, *self.weighed.pieces()]
        for name, one in self.maps.items():
            shown = np.full(len(one.points), True)
            if one.shown is not None:
                shown = np.isin(np.arange(len(shown)), one.shown)
            if shown.any():
                heading = f"<h3>{escaped(name)}</h3>"
                parts += [heading, selection_figure(one.points, shown, one.selection, self.color)]
        frame = self.table.frame.iloc[self.table.order()[:MOST_ROWS]]
        parts += [self.counted.value, frame, self._detail_html() if self.question else ""]
        return parts

"""Which gold step the focus loss takes as its positive, question by question."""

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets as tr
import xarray as xr

from ..analysis.diagnostics import chosen_steps, focus_table, rule_table, step_scores
from ..figures import step_similarity
from ..files import from_yaml
from .views import Picture, Piece, Table, View, checked, escaped, framed, labelled, notice, pane, said, when

RULES = {  # as the training's option `positive` calls them, critical apart, which is "oracle" there
    "answer": "most like the answer",
    "middle": "the middle one",
    "last": "the last one",
    "random": "a random one",
    "critical": "the critical one (oracle)",
}
FILTERS = ("all", "several steps", "wrong choice", "small margin")
SCORES = {
    "answer": "similarity to the answer",
    "question": "similarity to the question",
    "weight": "weight in the loss",
}
NOTHING = "No question passes this filter: choose another."
COLDEST, HOTTEST = 1e-3, 10.0  # temperatures that the slider reaches
AROUND = 16  # questions in the picture of many


class PositiveSteps(View):
    """For one question its gold steps with what the focus loss sees of them, for many which step is the positive.

        wb.widgets.PositiveSteps(store)
        wb.widgets.PositiveSteps({0: before, 50: halfway, 100: after})      over training, or any stores by name

    The arrow keys walk through the table of questions. temperature and the rule called "trained" are those of the
    store's method.
    """

    title = "Positive steps"

    question = tr.Unicode()  # the id of the example shown
    rule = tr.Enum(tuple(RULES), "answer")
    temperature = tr.Float(0.1)
    show = tr.Enum(FILTERS, "several steps")
    small = tr.Float(0.05)  # margins below are small
    store = tr.Any()  # the name (or training step) of the store shown
    score = tr.Enum(tuple(SCORES), "answer")  # of the picture
    picture = tr.Enum(("questions", "training"), "questions")

    def __init__(self, stores: xr.Dataset | Mapping[Any, xr.Dataset], *, question: str | None = None) -> None:
        super().__init__()
        good, remarks = checked(stores)
        self.stores: dict[Any, xr.Dataset] = {}
        for name, store in good.items():
            if "similarity_answer" in store and "similarity_question" in store and store.sizes["reasoning"]:
                self.stores[name] = store
            else:
                remarks.append(
                    f"{name} holds no similarities of gold steps: collect lta-thinker on a task whose examples have "
                    "worked steps."
                )
        self.remarks = remarks
        if not self.stores:
            self.box.children = (notice(remarks),)
            return
        self.store = list(self.stores)[-1]
        options = _options(self.stores[self.store])
        trained = str(options.get("positive", "answer"))
        self.trained = {"oracle": "critical"}.get(trained, trained)  # the rule of the run that made the store
        self.temperature = min(max(float(options.get("temperature", 0.1)), COLDEST), HOTTEST)
        self.rule = self.trained if self.trained in self.rules() else "answer"
        self._build()
        if not len(self.questions):
            self.show = "all"
        if question is not None:
            self.question = question

    # ------------------------------------------------------------------------------------------------------ the model

    @property
    def current(self) -> xr.Dataset:
        """The store shown."""
        return self.stores[self.store]

    def rules(self) -> list[str]:
        """The rules that all stores allow."""
        labelled = all("label_critical_step" in store.coords for store in self.stores.values())
        return [rule for rule in RULES if rule != "critical" or labelled]

    @property
    def steps(self) -> pd.DataFrame:
        """The steps of the question shown, as `diagnostics.step_scores` has them."""
        return step_scores(self._one(self.store), self.rule, temperature=self.temperature)

    @property
    def questions(self) -> pd.DataFrame:
        """`diagnostics.focus_table` of the questions that pass the filter."""
        table = focus_table(self.current, self.rule, temperature=self.temperature)
        keep = (table["candidates"] > 1) | (self.show == "all")
        if self.show == "small margin":
            keep &= table["margin"].abs() < self.small
        elif self.show == "wrong choice":
            keep &= ~table["agrees"].fillna(True).astype(bool) if "agrees" in table else False
        return table.loc[keep].reset_index(drop=True)

    def _one(self, name: Any) -> xr.Dataset:
        """A store's question shown, alone."""
        return self.stores[name].sel(example=[self.question])

    @tr.validate("question")
    def _known_question(self, proposal: Any) -> str:
        if self.stores and proposal.value not in self.current.indexes["example"]:
            raise tr.TraitError(f"no example {proposal.value!r} in this store: give the id of one of its examples")
        return proposal.value

    @tr.validate("store")
    def _known_store(self, proposal: Any) -> Any:
        if proposal.value not in self.stores:
            raise tr.TraitError(f"no store {proposal.value!r}: use one of {', '.join(map(str, self.stores))}")
        return proposal.value

    @tr.validate("rule")
    def _known_rule(self, proposal: Any) -> str:
        if self.stores and proposal.value not in self.rules():
            raise tr.TraitError("this store has no label critical_step: use another rule")
        return proposal.value

    @tr.validate("show")
    def _known_filter(self, proposal: Any) -> str:
        if self.stores and proposal.value == "wrong choice" and "critical" not in self.rules():
            raise tr.TraitError(
                "this store has no label critical_step: no choice can be called wrong, use another filter"
            )
        return proposal.value

    @tr.validate("temperature")
    def _known_temperature(self, proposal: Any) -> float:
        if not COLDEST <= proposal.value <= HOTTEST:
            raise tr.TraitError(f"temperature {proposal.value}: give {COLDEST:g} to {HOTTEST:g}; the loss has 0.1")
        return proposal.value

    # ------------------------------------------------------------------------------------------------------- the view

    def _build(self) -> None:
        get = self._controls()
        for name, control in get.items():
            tr.link((self, name), (control, "value"))
        back, on = (
            ipw.Button(description=text, tooltip=tip, layout={"width": "38px"})
            for text, tip in (("▲", "the question before"), ("▼", "the next question"))
        )
        back.on_click(lambda _: self.walk(-1))
        on.on_click(lambda _: self.walk(1))
        self.table = Table(label="questions, walked with the arrow keys", height=220)
        self.head, self.list, self.change, self.drawn = pane(), pane(), pane(), Picture()
        several = len(self.stores) > 1
        small = get["small"].layout
        small.display = "none"
        self.box.children = (
            *([notice(self.remarks)] if self.remarks else ()),
            labelled(*([get["store"]] if several else ()), get["rule"], get["temperature"]),
            labelled(get["show"], get["small"], back, on),
            self.table,
            self.head,
            self.list,
            self.change,
            labelled(get["score"], *([get["picture"]] if several else ())),
            self.drawn,
        )
        when(self, "show", lambda: setattr(small, "display", None if self.show == "small margin" else "none"))
        when(self, ["show", "small", "rule", "temperature", "store"], self._list)
        when(self, "question", self._tell)
        when(self, ["score", "picture"], self._draw)
        when(self.table, "current", self._chosen)
        self._list()

    def _controls(self) -> dict[str, Any]:
        """A control for each trait, of the same name."""

        def choice(description: str, options: Any, width: int) -> ipw.Dropdown:
            style = {"description_width": "initial"}
            return ipw.Dropdown(options=options, description=description, layout={"width": f"{width}px"}, style=style)

        plain: dict[str, Any] = {"style": {"description_width": "initial"}}
        training = self._training()
        over = "this question over training" if training else "this question in all stores"
        return {
            "store": ipw.SelectionSlider(
                options=[(str(name), name) for name in self.stores], layout={"width": "320px"},
                description="Training step" if training else "Store", **plain,
            ),
            "rule": choice("Positive step", [(RULES[name], name) for name in self.rules()], 290),
            "temperature": ipw.FloatLogSlider(
                min=np.log10(COLDEST), max=np.log10(HOTTEST), step=0.05, description="Temperature",
                readout_format=".3g", layout={"width": "260px"}, continuous_update=False, **plain,
            ),
            "show": choice(
                "Questions", [name for name in FILTERS if name != "wrong choice" or "critical" in self.rules()], 210
            ),
            "small": ipw.BoundedFloatText(
                min=0, max=2, step=0.01, description="below", layout={"width": "130px"}, **plain
            ),
            "score": choice("Picture of the", [(words, name) for name, words in SCORES.items()], 290),
            "picture": choice("", [("many questions", "questions"), (over, "training")], 230),
        }  # fmt: skip

    def _training(self) -> bool:
        return all(isinstance(name, int | np.integer) for name in self.stores)

    def walk(self, steps: int) -> None:
        """Go on (or, with a negative number, back) by so many questions in the order of the table, up to its ends."""
        order = self.table.order().tolist()
        if not order:
            return
        at = order.index(self.table.current) if self.table.current in order else 0
        self.table.current = order[min(max(at + steps, 0), len(order) - 1)]

    def _list(self) -> None:
        """Fill the table of questions; stay at the question where it is still there."""
        found = self.questions
        self._ids = found["example"].tolist()
        at = self._ids.index(self.question) if self.question in self._ids else min(0, len(self._ids) - 1)
        store = self.current
        texts = dict(zip(store["example"].values.astype(str), store["question"].values.astype(str), strict=True))
        frame = found.rename(columns={"candidates": "steps"}).drop(columns=["log_candidates"])
        frame.insert(1, "question", [texts[name] for name in self._ids])
        self.table.replace(frame)
        before, self.table.current = self.question, at
        if self.question == before:  # else observing it has told already
            self._tell()

    def _chosen(self) -> None:
        if self.table.current >= 0:
            self.question = self._ids[self.table.current]

    def _tell(self) -> None:
        if self.question in self._ids:
            self.table.current = self._ids.index(self.question)
        if self.question not in self.current.indexes["example"]:
            self.drawn.show(None)
            self.head.value = framed(said(NOTHING))
            self.list.value = self.change.value = ""
            return
        self.head.value = framed((said(NOTHING) if not self._ids else "") + self._header())
        self.list.value = framed(self._steps_html())
        self.change.value = framed(self._change_html())
        self._draw()

    def _header(self) -> str:
        one = self._one(self.store).isel(example=0)
        answer = one.isel(path=0, draw=0)
        right = bool(answer["correct"])
        read = str(answer["prediction"].item()) or "(no answer could be read)"
        return (
            f"<h3>{escaped(self.question)}</h3><p>{escaped(one['question'].item())}</p>"
            f'<p class="wb-soft">gold {escaped(one["gold"].item())}, answered {escaped(read)} '
            f'<b class="wb-{"right" if right else "wrong"}">{"✓" if right else "✗"}</b></p>'
        )

    def _steps_html(self) -> str:
        one = self._one(self.store)
        choices = {rule: int(chosen_steps(one, rule)[0]) for rule in self.rules()}
        picked = {step: [rule for rule in choices if choices[rule] == step] for step in choices.values()}
        return _steps_html(self.steps, picked)

    def _change_html(self) -> str:
        """What the choice is worth for this question, and what each rule would change for all."""
        table = focus_table(self._one(self.store), self.rule, temperature=self.temperature)
        rules = rule_table(self.current, self.trained, temperature=self.temperature)
        return f"<p>{escaped(_worth(table.to_dict('records')[0]))}</p>{_rules_html(rules, self.rule, self.trained)}"

    def figure(self) -> go.Figure | None:
        """The picture: questions around the one shown, or that question in all stores; None without steps."""
        if self.question not in self.current.indexes["example"]:
            return None
        over = self.picture == "training"
        if over:
            shown = {name: store for name, store in self.stores.items() if self.question in store.indexes["example"]}
            rows = {f"step {name}" if self._training() else str(name): (shown[name], self.question) for name in shown}
        else:
            order = [self._ids[k] for k in self.table.order().tolist()] or [self.question]
            at = order.index(self.question) if self.question in order else 0
            first = max(0, min(at - AROUND // 2, len(order) - AROUND))
            near = order[first : first + AROUND]
            rows = {f"▸ {name}" if name == self.question else name: (self.current, name) for name in near}
        tables = [
            step_scores(store.sel(example=[name]), self.rule, temperature=self.temperature).assign(example=label)
            for label, (store, name) in rows.items()
        ]
        table = pd.concat([one for one in tables if len(one)] or tables[:1], ignore_index=True)
        if table.empty:
            return None
        columns = {self.score: "similarity", "positive": "chosen"}
        unit = "softmax" if self.score == "weight" else "cosine"
        caption = f"positive: {RULES[self.rule]}"
        of = f"{'snapshots' if self._training() else 'stores'} of question {self.question}" if over else "questions"
        title = f"{SCORES[self.score]} ({unit})"
        return step_similarity(table.rename(columns=columns), name=title, caption=caption, of=of)

    def _draw(self) -> None:
        self.drawn.show(self.figure())

    def pieces(self) -> list[Piece]:
        if not self.stores:
            return [said(self.remarks)]
        if self.question not in self.current.indexes["example"]:
            return [said([*self.remarks, NOTHING])]
        parts: list[Piece] = [said(self.remarks), self._header(), self._steps_html(), self._change_html()]
        figure = self.figure()
        shown = self.table.frame.iloc[self.table.order()[:200]]
        return [*parts, *([figure] if figure else []), f"<h3>Questions: {self.show}</h3>", shown]


def _options(store: xr.Dataset) -> dict[str, Any]:
    """The options of the store's method that differ from their defaults."""
    try:
        found = from_yaml(str(store.attrs.get("config", "")))
    except ValueError:  # then it is not known what it was trained with
        return {}
    return found if isinstance(found, dict) else {}


def _worth(row: Mapping[Any, Any]) -> str:
    """A row of `focus_table` in words."""
    if row["positive"] < 0:
        return ""
    words = f"Focus loss {row['loss']:.3f} nats"
    if row["candidates"] < 2:
        return words + ": there is one step only, and nothing to choose from."
    words += f"; it would be {row['log_candidates']:.3f} if the {row['candidates']} steps could not be told apart. "
    side, than = ("more", "next") if row["margin"] >= 0 else ("less", "most similar")
    words += f"The positive step is {abs(row['margin']):.3f} {side} similar to the answer than the {than} other one."
    if row.get("agrees", True) is False:
        words += f" The answer hangs on step {row['critical']}: this rule picks another one."
    return words


def _steps_html(table: pd.DataFrame, picked: Mapping[int, list[str]]) -> str:
    """The steps of one question; `picked` says for a step which rules take it."""
    if table.empty:
        return said("This question has no worked steps: there is nothing to choose from.")
    rows = []
    for row in table.to_dict("records"):
        marks = ["<b>● positive</b>"] * row["positive"] + ["✕ critical"] * bool(row.get("critical"))
        bars = [_bar(row[name]) for name in SCORES]
        by = f'<span class="wb-soft">{", ".join(picked.get(row["step"], []))}</span>'
        rows.append((row["positive"], [str(row["step"]), escaped(row["text"]), "<br>".join(marks), *bars, by]))
    return _grid(("step", "", "", "to answer", "to question", "weight in loss", "picked by"), rows)


def _rules_html(rules: pd.DataFrame, rule: str, trained: str) -> str:
    """`rule_table` with the chosen rule marked."""
    heads = ["rule", "questions with another positive", "mean focus loss (nats)", "mean margin"]
    heads += ["picks the critical step"] * ("critical" in rules)
    rows = []
    for row in rules.to_dict("records"):
        name = RULES[str(row["rule"])] + (" (trained)" if row["rule"] == trained else "")
        cells = [name, f"{row['changed']} of {row['n']}", _number(row["loss"]), _number(row["margin"])]
        cells += [f"{100 * row['critical']:.0f} %"] if row.get("critical", np.nan) >= 0 else []
        rows.append((row["rule"] == rule, cells))
    return _grid(heads, rows)


def _grid(heads: Sequence[str], rows: Sequence[tuple[bool, Sequence[str]]]) -> str:
    """A small table of HTML cells, rows that are chosen coloured."""
    lines = [
        f"<tr{' style=background:var(--wb-chosen)' * chosen}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for chosen, cells in rows
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f'<table class="wb-table"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}".replace("-", "−")


def _bar(value: float) -> str:
    """A number behind a bar from 0 to 1."""
    wide = 70 * min(max(value, 0), 1) if np.isfinite(value) else 0
    bar = f"display:inline-block;height:8px;width:{wide:.0f}px;background:#0072B2;margin-right:4px"
    return f'<span style="white-space:nowrap"><span style="{bar}"></span>{_number(value)}</span>'

"""Move one thought by hand and see what is answered then."""

from collections.abc import Callable
from typing import Any

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import traitlets as tr
import xarray as xr

from ..diagnostics import principal_axes
from ..diagnostics.inputs import path_thoughts
from ..figures import thought_map
from ..projection import labelled as labelled_thoughts
from ..projection import placed, project
from ..within import before_answers
from .views import Picture, Piece, Table, View, checked, escaped, framed, labelled, notice, pane, said, when

KINDS = {
    "axis": "along a principal axis",
    "other": "towards another question's thought",
    "gold step": "towards one of its gold steps",
    "word": "towards a word",
}
MOST = 3.0  # standard deviations along an axis, and ..
FAR = 1.5  # .. shares of the way to something else (1 is all of it), that the sliders reach
AXES = 8
SWEEP = 9  # amounts of a sweep
LISTED = 300  # questions in a dropdown; others can be set by their id
Answer = Callable[[str, np.ndarray], str]
Embedding = Callable[[str], np.ndarray]


class Probe(View):
    """Nudge a thought of a question along a principal axis or towards something, and see the new answer.

        answer = wb.answering("data/runs/two", store)
        wb.widgets.Probe(store, answer, embedding=answer.embedding)

    answer: called with an example's id and its thoughts [step, feature], returns the text written behind them; the live
    model stays there. embedding: from a word to its vector [feature]; without one there is no way towards words.
    amount: along an axis in standard deviations of that slot over questions; else the share of the way (0 to 1).
    Every answer is kept in `answers`. `ask()` answers by hand, `sweep()` at several amounts.
    """

    title = "Probe"

    question = tr.Unicode()  # the id of the example
    path = tr.Int(0)
    step = tr.Int(0)  # the thought that is moved
    kind = tr.Enum(tuple(KINDS), "axis")
    axis = tr.Int(1)  # principal axis, 1 is the largest
    other = tr.Unicode()  # the id of the question whose thought at this step is the goal
    goal = tr.Int(0)  # the gold step that is the goal
    word = tr.Unicode()
    amount = tr.Float(0.0)

    def __init__(
        self,
        store: xr.Dataset,
        answer: Answer,
        *,
        embedding: Embedding | None = None,
        question: str | None = None,
    ) -> None:
        super().__init__()
        good, self.remarks = checked(store, most=1)
        self.answer, self.embedding = answer, embedding
        self.answers = pd.DataFrame(columns=pd.Index(["question", "thought", "moved", "amount", "answer", "changed"]))
        self._kept: dict[Any, Any] = {}
        self.text = self.before = ""  # written behind the moved thoughts, and behind those as they are
        self._trouble = ""
        self._controls: dict[str, Any] = {}
        found = next(iter(good.values()), None)
        if found is not None and not bool(found["mask"].any()):
            self.remarks.append("This store holds no thoughts to move: collect a method that writes some.")
            found = None
        if found is None:
            self.box.children = (notice(self.remarks),)
            return
        self.store = found = before_answers(found)  # those within an answer are made while it is written
        self.ids = found["example"].values.astype(str).tolist()
        self.question = self.ids[0] if question is None else question
        self.other = self.ids[1] if len(self.ids) > 1 else self.ids[0]
        self._build()

    # ------------------------------------------------------------------------------------------------------ the model

    @property
    def thoughts(self) -> np.ndarray:
        """The thoughts [step, feature] of the question as the store has them."""
        return self._thoughts_of(self.question)

    def _thoughts_of(self, example: str) -> np.ndarray:
        one = self.store.sel(example=example).isel(path=self.path)
        vectors = one["thought"].transpose("step", "feature").values.astype(np.float64)
        return vectors[one["mask"].values]

    @property
    def moved(self) -> np.ndarray:
        """The thoughts [step, feature] with the one at `step` moved."""
        return self._moved(self.amount)

    def _moved(self, amount: float) -> np.ndarray:
        vectors = self.thoughts.copy()
        if not 0 <= self.step < len(vectors):
            raise ValueError(f"question {self.question!r} has no thought {self.step}: it has {len(vectors)}")
        if amount:
            vectors[self.step] += amount * self._direction(vectors[self.step])
        return vectors

    def _direction(self, thought: np.ndarray) -> np.ndarray:
        """What amount 1 adds to the thought."""
        if self.kind == "axis":
            axes = self._axes()
            if self.axis > len(axes):
                raise ValueError(f"thoughts at slot {self.step} vary along {len(axes)} axes: choose one of them")
            return axes[self.axis - 1]
        return self._goal() - thought

    def _axes(self) -> np.ndarray:
        """Principal axes [axis, feature] of this slot over questions, each one standard deviation long."""
        key = ("axes", self.path, self.step)
        if key not in self._kept:
            vectors, there = path_thoughts(self.store, self.path)
            self._kept[key] = principal_axes(vectors[there[:, self.step], self.step], AXES)
        return self._kept[key]

    def _goal(self) -> np.ndarray:
        if self.kind == "other":
            others = self._thoughts_of(self.other)
            if self.step >= len(others):
                raise ValueError(f"question {self.other!r} has no thought {self.step}: choose another")
            return others[self.step]
        if self.kind == "gold step":
            if "step_vector" not in self.store:
                raise ValueError("this store holds no vectors of gold steps: choose another direction")
            vectors = self.store["step_vector"].sel(example=self.question).transpose("reasoning", "feature").values
            if self.goal >= len(vectors) or np.isnan(vectors[self.goal]).any():
                raise ValueError(f"this question has no gold step {self.goal}: choose another")
            return vectors[self.goal].astype(np.float64)
        if self.embedding is None or not self.word:
            raise ValueError(
                "give a word" if self.embedding else "Probe was made without embedding=: words are unknown"
            )
        return np.asarray(self.embedding(self.word), dtype=np.float64)

    def direction(self) -> str:
        """Where the thought is moved, in words."""
        goals = {
            "axis": f"axis {self.axis}",
            "other": f"question {self.other}",
            "gold step": f"gold step {self.goal}",
            "word": repr(self.word),
        }
        return goals[self.kind]

    def ask(self) -> str:
        """Answer with the thoughts as they are moved now; the text, which is also added to `answers`."""
        vectors = self.moved
        self.before = self._text(self.thoughts)
        self.text = self._text(vectors)
        if self.amount:
            self._note(self.amount, self.text)
        return self.text

    def sweep(self) -> pd.DataFrame:
        """Answers at nine amounts from one end of the slider to the other; the rows that were added to `answers`."""
        self.before = self._text(self.thoughts)
        for amount in np.linspace(*self._ends(), SWEEP).tolist():
            self._note(amount, self._text(self._moved(amount)))
        return self.answers.tail(SWEEP)

    def _note(self, amount: float, text: str) -> None:
        row = (self.question, self.step, self.direction(), amount, text, text != self.before)
        self.answers.loc[len(self.answers)] = list(row)

    def _text(self, vectors: np.ndarray) -> str:
        key = (self.question, vectors.tobytes())
        if key not in self._kept:
            self._kept[key] = str(self.answer(self.question, vectors.astype(np.float32)))
        return self._kept[key]

    def _ends(self) -> tuple[float, float]:
        return (-MOST, MOST) if self.kind == "axis" else (0.0, FAR)

    @tr.validate("question", "other")
    def _known(self, proposal: Any) -> str:
        if proposal.value not in self.ids:
            raise tr.TraitError(f"no example {proposal.value!r} in this store: give the id of one of its examples")
        control = self._controls.get(proposal.trait.name)
        if control is not None and proposal.value not in [name for _, name in control.options]:
            control.options = [*control.options, self._option(proposal.value)]
        return proposal.value

    @tr.validate("axis")
    def _one_of_the_axes(self, proposal: Any) -> int:
        if not 1 <= proposal.value <= AXES:
            raise tr.TraitError(f"axis {proposal.value}: give 1 to {AXES}")
        return proposal.value

    @tr.validate("step", "path", "goal")
    def _counted(self, proposal: Any) -> int:
        name = proposal.trait.name
        count = max(1, self.store.sizes.get("reasoning" if name == "goal" else name, 1))
        if not 0 <= proposal.value < count:
            raise tr.TraitError(f"{name} {proposal.value}: give 0 to {count - 1}")
        return proposal.value

    # ------------------------------------------------------------------------------------------------------- the view

    def _build(self) -> None:
        names = [self._option(name) for name in self.ids[:LISTED]]
        kinds = [(words, name) for name, words in KINDS.items()]
        plain: dict[str, Any] = {"style": {"description_width": "initial"}}
        steps = self.store.sizes["step"]
        self._controls = {
            "question": ipw.Dropdown(options=names, description="Question", layout={"width": "520px"}, **plain),
            "step": ipw.BoundedIntText(min=0, max=steps - 1, description="Thought", layout={"width": "120px"}, **plain),
            "path": ipw.BoundedIntText(min=0, max=self.store.sizes["path"] - 1, description="Path",
                                       layout={"width": "100px"}, **plain),
            "kind": ipw.Dropdown(options=kinds, description="Move it", layout={"width": "300px"}, **plain),
            "axis": ipw.BoundedIntText(min=1, max=AXES, description="Axis", layout={"width": "110px"}, **plain),
            "other": ipw.Dropdown(options=names, layout={"width": "420px"}),
            "goal": ipw.BoundedIntText(min=0, max=max(0, self.store.sizes.get("reasoning", 1) - 1),
                                       description="Gold step", layout={"width": "130px"}, **plain),
            "word": ipw.Text(placeholder="a word, then Enter", layout={"width": "200px"}, continuous_update=False),
            "amount": ipw.FloatSlider(min=-MOST, max=MOST, step=0.05, description="by", layout={"width": "420px"},
                                      continuous_update=False, **plain),
        }  # fmt: skip
        for name, control in self._controls.items():
            tr.link((self, name), (control, "value"))
        back, sweep = (ipw.Button(description=text, layout={"width": "130px"}) for text in ("As it was", "Sweep"))
        sweep.tooltip = "answers at nine amounts, from one end to the other"
        back.on_click(lambda _: setattr(self, "amount", 0.0))
        sweep.on_click(lambda _: self._swept())
        self._unit = ipw.Label()
        self.head, self.said_now, self.map = pane(), pane(), Picture()
        self.table = Table(label="answers so far", height=300)
        beside = ipw.VBox([self.table], layout={"flex": "1 1 420px", "min_width": "0"})
        get = self._controls
        first = [get["question"], get["step"], *([get["path"]] if self.store.sizes["path"] > 1 else [])]
        second = [get[name] for name in ("kind", "axis", "other", "goal", "word")]
        self.box.children = (
            *([notice(self.remarks)] if self.remarks else ()),
            labelled(*first),
            labelled(*second),
            labelled(get["amount"], self._unit, back, sweep),
            self.head,
            self.said_now,
            ipw.HBox([self.map, beside], layout={"flex_flow": "row wrap", "width": "100%"}),
        )
        when(self, "kind", self._other_kind)
        when(self, ["question", "step", "path", "axis", "other", "goal", "word", "amount", "kind"], self._changed)
        self._other_kind()
        self._changed()

    def _option(self, example: str) -> tuple[str, str]:
        return f"{example}: {str(self.store['question'].sel(example=example).item())[:70]}", example

    def _other_kind(self) -> None:
        for kind, name in (("axis", "axis"), ("other", "other"), ("gold step", "goal"), ("word", "word")):
            self._controls[name].layout.display = None if kind == self.kind else "none"
        low, high = self._ends()
        slider = self._controls["amount"]
        with slider.hold_trait_notifications():
            slider.min, slider.max = min(low, slider.min), max(high, slider.max)
            slider.value = min(max(slider.value, low), high)
            slider.min, slider.max = low, high
        self._unit.value = "standard deviations" if self.kind == "axis" else "of the way"

    def _changed(self) -> None:
        if self.kind == "word" and not self.word:
            self._tell()
            return
        self.said_now.value = framed('<p class="wb-soft">answering …</p><div class="wb-wait"></div>')
        self._try(self.ask)

    def _swept(self) -> None:
        self.said_now.value = framed('<p class="wb-soft">answering …</p><div class="wb-wait"></div>')
        self._try(self.sweep)

    def _try(self, act: Callable[[], Any]) -> None:
        """Do something that calls the live model; what goes wrong there is said, since nobody would catch it."""
        self._trouble = ""
        try:
            act()
        except Exception as error:  # of a callable that is not ours
            self._trouble = f"No answer: {error}."
        self._tell()

    def _tell(self) -> None:
        self.head.value, self.said_now.value = framed(self._head_html()), framed(self._answers_html())
        self.table.replace(self._listed())
        figure = self.figure()
        self.map.show(figure)

    def _head_html(self) -> str:
        one = self.store.sel(example=self.question)
        return f"<p>{escaped(one['question'].item())}</p><p class='wb-soft'>gold {escaped(one['gold'].item())}</p>"

    def _answers_html(self) -> str:
        """The answer as it was and as it is, side by side."""
        if self._trouble:
            return said(self._trouble)
        if not self.before:
            return ""
        stored = str(self.store["text"].sel(example=self.question).isel(path=self.path, draw=0).item())
        remark = ""
        if stored.strip() != self.before.strip():
            remark = said(
                "Unchanged thoughts are answered otherwise here than in the store: another checkpoint or decoding?"
            )
        changed = "another answer" if self.text != self.before else "the same answer"
        parts = (("as it was", self.before), (f"moved {self.amount:+.2f} ({self.direction()}): {changed}", self.text))
        cells = "".join(
            f"<div><h3>{escaped(head)}</h3><div class='wb-quote'>{escaped(text)}</div></div>" for head, text in parts
        )
        return f"{remark}<div class='wb-columns'>{cells}</div>"

    def _listed(self) -> pd.DataFrame:
        """The answers so far, the last first."""
        return self.answers.iloc[::-1].reset_index(drop=True)

    def figure(self) -> go.Figure | None:
        """Where the thought was and is, among those of the same slot (PCA); None where there is no map."""
        try:
            key = ("map", self.path, self.step)
            if key not in self._kept:
                self._kept[key] = project(self._slot())
            table = self._kept[key]
            figure = thought_map(table, "correct", width="column")
            vectors, _ = labelled_thoughts(self._slot())
            ends = np.stack([self.thoughts[self.step], self.moved[self.step]])
            was, now = placed(vectors.astype(np.float64), table[["x", "y"]].to_numpy(float), ends)
        except (ValueError, IndexError):
            return None
        figure.add_trace(
            go.Scatter(
                x=[was[0], now[0]], y=[was[1], now[1]], mode="lines+markers", showlegend=False,
                line={"color": "#000000", "width": 1.5},
                marker={"symbol": ["circle-open", "circle"], "size": 11, "color": "#000000"},
                hovertext=["as it was", "moved"], hovertemplate="%{hovertext}<extra></extra>",
            )
        )  # fmt: skip
        return figure

    def _slot(self) -> xr.Dataset:
        """The store with the chosen slot and path alone."""
        return self.store.isel(step=[self.step], path=[self.path])

    def pieces(self) -> list[Piece]:
        if not hasattr(self, "store"):
            return [said(self.remarks)]
        figure = self.figure()
        parts: list[Piece] = [said(self.remarks), self._head_html(), self._answers_html()]
        return [*parts, *([figure] if figure else []), "<h3>Answers so far</h3>", self._listed()]

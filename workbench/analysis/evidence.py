"""The standard of evidence as tables, and the one sentence that ends it: what thoughts do, by a rule fixed in advance.

    content    right answers with their own thoughts minus with another question's; likewise nats per token saved
    presence   the same minus without thoughts

Each is a paired difference by question, measured five ways (`MEASURES`), with intervals of 99 %: five together hold
with 95 %. An effect is *there* where its interval is above 0 and its mean at least `LEAST`, *harmful* where the same
holds below 0, *absent* where the interval is within `NOTHING` around 0, and open in every other case.

    nothing is thought before the answer                       none        "there are no thoughts ..."
    fewer than `FEWEST` questions                              undecided
    content is there in any measure                            content     "carry X about their question"
    content is harmful in one, and there in none               harm        "do harm": another question's do better
    presence is absent in all                                  nothing     "do nothing"
    presence is there where it is first sure, content absent   prompt      "work as a prompt only"
    presence is harmful where it is first sure, content absent harm        "do harm"
    otherwise                                                  undecided   what is open, and what would decide it

"First sure" goes through the measures in their order. Content is absent where it is so in every measure that shows the
presence. X is what answers follow when thoughts are swapped (the answer of the donor, more often than that of a third
question), and the labels that a linear reader finds in thoughts: above its largest floor on shuffled labels by `LEAST`,
first those of which it finds more than in the question's own embeddings. Readers alone never decide: what is readable
need not be used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ..files import checked, read_json, shown, write_text

Kind = Literal["content", "prompt", "nothing", "harm", "undecided", "none"]
LEVEL = 0.99  # of every interval: five measures together hold with 95 %
LEAST = 0.01  # a share of the questions, or nats per token: a smaller effect does not count, however sure
FEWEST = 50  # questions: with fewer, intervals are narrower than they should be
NOTHING = 0.05  # likewise: an interval within this around 0 is no effect that matters
FILE = "evidence.json"
MEASURES = {  # in the order in which a presence is looked for -> what it is of
    "free": "right answers, written freely",
    "forced": "right answers, forced right behind the thoughts",
    "at once": "nats per token of the gold answer right behind the thoughts",
    "chain": "nats per token of the gold chain behind the thoughts",
    "answer": "nats per token of the gold answer behind thoughts and gold chain",
}
SHARES = ("free", "forced")  # measures that are shares of the questions
SOURCES = {  # of thoughts -> what they are
    "own": "the question's own",
    "other": "another question's",
    "mean": "each slot's mean over questions",
    "untrained": "of the method as it was before training",
    "random": "Gaussian directions of the same lengths",
    "filler": "as many full stops",
    "nearest": "each replaced by the nearest token's embedding",
    "none": "no thoughts",
}
CONTROL = "control: "  # how the names of sources begin that are methods of their own, trained as controls
TABLES = {  # the tables of an `Evidence` -> their columns
    "values": ["source", "measure", "value", "low", "high", "n"],
    "effects": ["source", "measure", "difference", "low", "high", "n"],
    "swaps": ["slot", "how", "step", "follows", "chance", "difference", "low", "high", "changed", "n"],
    "readers": ["label", "nats", "low", "high", "words", "gain", "gain_low", "gain_high", "floor", "entropy",
                "classes", "n"],
    "attention": ["measure", "value", "low", "high", "n"],
}  # fmt: skip
TEXTS = ("source", "measure", "slot", "how", "step", "label")  # columns; all others are numbers


@dataclass(frozen=True)
class Evidence:
    """What was measured of a method's thoughts, and what follows.

    values: of each source of thoughts and measure. effects: own thoughts minus each source's, paired by question; above
    0: own are better. swaps: how often the answer is that of the question whose thoughts were given, by slot ("all",
    "0", ..), way of answering and training step ("" for the run as it is). readers: of each label, nats that a linear
    reader finds in thoughts and in the words of the question. attention: mass over share. notes: what was not measured,
    and why. about: where all of it comes from.
    """

    values: pd.DataFrame
    effects: pd.DataFrame
    swaps: pd.DataFrame
    readers: pd.DataFrame
    attention: pd.DataFrame
    notes: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Which of the sentences it is."""
        return judged(self)[0]

    @property
    def sentence(self) -> str:
        """What thoughts do, in one sentence with the number it hangs on."""
        return judged(self)[1]

    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables by name."""
        return {name: getattr(self, name) for name in TABLES}


def table(name: str, rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """One of the tables, from its rows."""
    return pd.DataFrame(rows, columns=pd.Index(TABLES[name]))


# ------------------------------------------------------------------------------------------------------------ the rule

State = Literal["there", "harmful", "absent", "open"]


def state(row: Mapping[str, Any]) -> State:
    """What an effect is, by its mean and interval."""
    if row["low"] > 0 and row["difference"] >= LEAST:
        return "there"
    if row["high"] < 0 and row["difference"] <= -LEAST:
        return "harmful"
    return "absent" if row["low"] > -NOTHING and row["high"] < NOTHING else "open"


def judged(found: Evidence) -> tuple[Kind, str]:
    """Kind and sentence, by the rule at the head of this file."""
    content, presence = (_states(found.effects, source) for source in ("other", "none"))
    if not content:
        if found.about.get("within"):
            return "none", "There are no thoughts before the answers, only within them, where none can be swapped."
        return "none", "There are no thoughts before the answers, so that none can be swapped."
    count = max(int(row["n"]) for row in _rows(found.effects))
    if count < FEWEST:
        return "undecided", f"Undecided: {count} questions tell nothing, give at least {FEWEST}, better 500."
    named = {where: name for name in ("there", "harmful") for where, is_ in content.items() if is_ == name}
    told = {measure: _said(found.effects, "other", measure) for measure in content}
    here = [measure for measure, is_ in content.items() if is_ == "there"]
    if here:
        worse = presence.get("free") == "harmful"
        harm = f"; and yet answers are worse for it: {_said(found.effects, 'none', 'free')}" if worse else ""
        what = carried(found)
        said = f"{what} about their question" if what else "something about their question that no label here names"
        return "content", f"The thoughts carry {said}: {told[here[0]]}{harm}."
    if named:
        first = next(measure for measure, is_ in content.items() if is_ == "harmful")
        return "harm", f"The thoughts do harm: {told[first]}, so that another question's do better."
    if all(is_ == "absent" for is_ in presence.values()):
        if all(is_ == "absent" for is_ in content.values()):
            return "nothing", f"The thoughts do nothing: {_said(found.effects, 'none', next(iter(presence)))}."
        return _undecided(found, content, "whether it matters whose thoughts they are")
    sure = {measure: is_ for measure, is_ in presence.items() if is_ in ("there", "harmful")}
    if not sure:
        return _undecided(found, presence, "whether they do anything")
    first, is_ = next(iter(sure.items()))
    if any(content[measure] != "absent" for measure in sure):
        return _undecided(found, {m: content[m] for m in sure}, "whether it matters whose thoughts they are")
    said = _said(found.effects, "none", first)
    if is_ == "harmful":
        return "harm", f"The thoughts do harm, whosever they are: {said}; {told[first]}."
    return "prompt", f"The thoughts work as a prompt only: {said}, and {told[first]}."


def carried(found: Evidence) -> str:
    """What thoughts say about their question: the answer, where answers are the donor's, and labels that are read; ""
    where it has no name here."""
    whole = _rows(found.swaps, slot="all", step="")
    names = ["the answer"] if any(state(row) == "there" for row in whole) else []
    rows = [row for row in _rows(found.readers) if row["low"] > max(0, row["floor"]) + LEAST]
    beyond = [row for row in rows if row["gain_low"] > 0 and row["gain"] >= LEAST]
    rows = beyond or ([] if names else rows)
    rows.sort(key=lambda row: row["nats"] / row["entropy"], reverse=True)
    names += [_label(row) for row in rows[:3] if not (names and row["label"] == "answer")]
    return "" if not names else " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _rows(frame: Any, **chosen: str) -> list[dict[str, Any]]:
    """The rows of a table in which these columns hold this."""
    return [row for row in frame.to_dict("records") if all(row[name] == value for name, value in chosen.items())]


def _label(row: Mapping[str, Any]) -> str:
    share = f"{row['nats']:.2f} of {row['entropy']:.2f} nats are read, {row['words']:.2f} in its words"
    name = str(row["label"]).replace("_", " ")
    return f"{'the ' * (name == 'answer')}{name} ({share})"


def _states(effects: pd.DataFrame, source: str) -> dict[str, State]:
    """Of each measure that there is, what the effect beside this source is."""
    rows = {str(row["measure"]): row for row in _rows(effects, source=source)}
    return {measure: state(rows[measure]) for measure in MEASURES if measure in rows}


def _said(effects: pd.DataFrame, source: str, measure: str) -> str:
    """An effect in words with its interval, as what is lost without one's own thoughts."""
    row = _rows(effects, source=source, measure=measure)[0]
    without = "without thoughts" if source == "none" else "with another question's"
    shares = measure in SHARES
    scale, form, unit = (100, ".1f", "points") if shares else (1, ".3f", "nats per token")
    mean, low, high = (f"{scale * row[name]:{form}}" for name in ("difference", "low", "high"))
    what = {
        "free": "answers lose", "forced": "answers forced behind them lose", "at once": "the gold answer costs",
        "chain": "the gold chain costs", "answer": "the gold answer behind its chain costs",
    }[measure]  # fmt: skip
    return f"{without} {what} {mean} {unit}{'' if shares else ' more'} [{low}, {high}]"


def _undecided(found: Evidence, states: Mapping[str, State], what: str) -> tuple[Kind, str]:
    """Which interval is too wide, and with about how many questions it would be narrow enough."""
    source = "none" if what == "whether they do anything" else "other"
    measure = next((m for m, is_ in states.items() if is_ == "open"), next(iter(states)))
    row = _rows(found.effects, source=source, measure=measure)[0]
    half = max(row["high"] - row["difference"], row["difference"] - row["low"])
    room = max(NOTHING - abs(row["difference"]), NOTHING / 2)  # what lies near the edge needs more than any number
    need = int(row["n"] * max(1.5, (half / room) ** 2))
    need = -(-need // 100) * 100
    return "undecided", f"Undecided {what}: {_said(found.effects, source, measure)}; about {need} questions would tell."


# ---------------------------------------------------------------------------------------------------------------- files


def write_evidence(found: Evidence, folder: str | Path) -> Path:
    """`folder`/evidence.json with all tables, the sentence and where it comes from; whole or not at all."""
    content = {"kind": found.kind, "sentence": found.sentence, "notes": list(found.notes), "about": found.about}
    tables = {name: json.loads(str(one.to_json(orient="records"))) for name, one in found.tables().items()}
    path = Path(folder) / FILE
    write_text(path, json.dumps(content | {"tables": tables}, indent=1, ensure_ascii=False) + "\n")
    return path


def read_evidence(path: str | Path) -> Evidence:
    """What `write_evidence` has written, from its file or folder; ValueError, one sentence, where it is no such."""
    path = Path(path)
    path, what = path / FILE if path.is_dir() else path, "the evidence.json that `workbench evidence` has written"
    advice = f"give {what}"
    found = checked(read_json(path, what), {"tables": dict, "notes": list, "about": dict}, shown(path), advice)
    tables = {}
    for name, columns in TABLES.items():
        rows = checked(found["tables"], {name: list}, shown(path), advice)[name]
        kinds = {column: str if column in TEXTS else float for column in columns}
        rows = [checked(row, kinds, f"{shown(path)}, table {name!r}", advice) for row in rows]
        tables[name] = table(name, [tuple(row[column] for column in columns) for row in rows])
    return Evidence(**tables, notes=tuple(map(str, found["notes"])), about=found["about"])

"""A run and its stores as one page to send: what was asked, what came out, what it rests on. Opens without a network.

    report("data/runs/two")                  every store in that folder, beside each other
    report("two.nc", out="two.html")         one store alone

The verdict comes first; then accuracies, evidence (thoughts swapped or taken away), the map, collapse, what thoughts
are read as, positive steps, training, and where all of it comes from. What the stores do not hold is said.
"""

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.offline import get_plotlyjs

from .. import figures, runs, store
from ..analysis.diagnostics import describe, first_words, positive_steps, step_table, swapped_of
from ..analysis.evidence import FILE, Evidence, read_evidence
from ..analysis.projection import project
from ..analysis.scores import Interval, accuracy, accuracy_table, compare, cost
from ..files import checked, read_json, write_text
from ..store.within import before_answers
from .views import FRONT, STYLE, Piece, escaped, said, table_html

EVIDENCE = "evidence"  # folder in a run's with what was measured of its thoughts, if it was
MAPPED = 300  # questions on the map
SHOWN = 8  # questions whose steps are drawn
STATISTICS = ("relative_spread", "effective_rank", "slot_cosine", "cosine", "norm_ratio")
CHANGES = {  # how a store was changed -> in words
    "shuffled": "another question's thoughts",
    "dropped": "no thoughts at all",
    "zeroed": "zeros in their place",
    "averaged": "the mean of all questions' thoughts",
}
ONE_COLUMN = (
    ".wb-page{max-width:720px} .wb-page h2{font-size:16px;margin:28px 0 6px} .wb-figure{margin:8px 0}"
    " .wb-verdict{font-size:16px;line-height:1.5} .wb-page .wb-table td:first-child{white-space:nowrap}"
)


@dataclass(frozen=True)
class Found:
    """What a report is about: the store it looks into, those beside it by name, and the run's folder, if it has one."""

    name: str
    main: xr.Dataset
    others: dict[str, xr.Dataset]
    folder: Path | None
    remarks: tuple[str, ...] = ()

    @property
    def comparable(self) -> dict[str, xr.Dataset]:
        """The other stores that answer the same questions."""
        same = ("task", "split")
        return {
            name: one
            for name, one in self.others.items()
            if all(one.attrs[key] == self.main.attrs[key] for key in same)
            and set(one["example"].values.tolist()) & set(self.main["example"].values.tolist())
        }


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    stores: Mapping[str, str | Path] | None = None,
    question: str = "",
    color: str = "correct",
) -> Path:
    """Write the page of a run's folder (or of one store, .nc), and return its path; default RUN/report.html.

    stores: more of them, by name. question: what was to be found out; without one the page asks whether the thoughts
    help. color: a column for the map, such as "label_meaning". ValueError where there is no store to report on.
    """
    run = Path(run)
    found = look(run, stores or {})
    default = run.with_suffix(".html") if run.suffix == ".nc" else run / "report.html"
    path = Path(default if out is None else out)
    if path.suffix != ".html":
        raise ValueError(f"{str(path)!r} does not end in '.html': give it that ending")
    asked = question or f"Do the thoughts of {found.main.attrs['method']} help on {found.main.attrs['task']}?"
    write_text(path, page(asked, sections(found, color)))
    return path


def look(run: Path, more: Mapping[str, str | Path]) -> Found:
    """The stores of a run's folder (and of the folders in it), or one store, and those named beside."""
    single = run.suffix == ".nc"
    if not single and not run.is_dir():
        raise ValueError(f"no run or store at {run}: give a run's folder, or a file ending in .nc")
    paths = {run.stem: run} if single else {}
    if not single:
        inside = sorted([*run.glob("*.nc"), *run.glob("*/*.nc")])
        paths = {path.relative_to(run).with_suffix("").as_posix(): path for path in inside}
    stores, remarks = {}, []
    for name, path in paths.items():
        try:
            stores[name] = store.load(path)
        except (ValueError, OSError) as error:
            if single:
                raise
            remarks.append(f"{name}.nc is left out: {error}.")
    beside = {f"{name} beside" if name in paths else name: store.load(path) for name, path in more.items()}
    if not stores:
        where = runs.command("collect", "--run", run, "--out", run / "test.nc")
        raise ValueError(f"no store in {run}: collect one first ({where})")
    about = runs.read_config(run) if not single and (run / "config.yaml").is_file() else {}
    name = run.stem if single else max(stores, key=lambda one: _rank(stores[one], about))
    others = {other: one for other, one in stores.items() if other != name} | beside
    return Found(name, stores[name], others, None if single else run, tuple(remarks))


def _rank(found: xr.Dataset, about: Mapping[str, Any]) -> tuple[bool, ...]:
    """Which of a run's stores is looked into: its thoughts as they are, on its own task, on test; the first such."""
    attrs = found.attrs
    return (
        not attrs.get("changed"),
        attrs["method"] == about.get("method", attrs["method"]),
        attrs["task"] == about.get("task", attrs["task"]),
        attrs["split"] == "test",
    )


# ------------------------------------------------------------------------------------------------------------ sections


def sections(found: Found, color: str = "correct") -> list[Piece]:
    """The page from top to bottom, below its title."""
    pieces: list[Piece] = [f'<p class="wb-verdict">{escaped(verdict(found))}</p>', said(found.remarks)]
    parts: dict[str, Callable[[Found], Iterator[Piece]]] = {
        "Accuracies": _accuracies,
        "Evidence": _evidence,
        "Map of the thoughts": lambda found: _map(found, color),
        "Collapse": _collapse,
        "What the thoughts are read as": _readout,
        "Positive steps": _steps,
        "Training": _training,
        "Where this comes from": _provenance,
    }
    for title, part in parts.items():
        pieces += [f"<h2>{title}</h2>", *part(found)]
    return pieces


def verdict(found: Found) -> str:
    """Two or three sentences: how many answers are right, whether the thoughts matter for that, whether they differ."""
    main = found.main
    right = accuracy(main)
    lines = [f"{_percent(right)} of {right.n} questions are answered rightly."]
    if (measured := _measured(found)) is not None:
        return " ".join([*lines, measured.sentence, _state(main)])
    swapped = next((one for one in found.comparable.values() if one.attrs.get("changed") == "shuffled"), None)
    lost = None if swapped is None else _lost(main, swapped)
    if lost is None and (kept := swapped_of(main.attrs)) is not None:
        lost = {"difference": kept.lost, "low": kept.low, "high": kept.high}
    if not bool(main["mask"].any()):
        return f"{lines[0]} There are no thoughts in this store."
    if lost is None:
        lines.append("Whether the thoughts matter for that is not known: no store here has them swapped.")
    else:
        points = f"{100 * lost['difference']:.1f} points [{100 * lost['low']:.1f}, {100 * lost['high']:.1f}]"
        if lost["low"] > 0:
            lines.append(f"What the thoughts say about their question matters: another question's cost {points}.")
        else:
            lines.append(f"What the thoughts say about their question makes no sure difference: {points}.")
    return " ".join([*lines, _state(main)])


def _state(main: xr.Dataset) -> str:
    if main.sizes["example"] < 2:
        return "One question says nothing about collapse."
    table = describe(before_answers(main), level=None).set_index(["statistic", "step"])
    if ("verdict", "all") not in table.index:
        return "Too few thoughts to say whether they collapsed."
    row = table.loc[("verdict", "all")]
    return f"The thoughts are {row['meaning']}."  # which begins with the state


def _accuracies(found: Found) -> Iterator[Piece]:
    stores = {_called(found.name, found.main): found.main}
    stores |= {_called(name, one): one for name, one in found.others.items()}
    table = accuracy_table(stores)
    yield figures.accuracy(table)
    spent = cost(found.main)
    yield _soft(
        f"Intervals are 95 %, over questions. A question of {found.name} took {spent['tokens']:.1f} tokens and "
        f"{spent['thoughts']:.1f} thoughts; {100 * spent['capped_share']:.1f} % of the answers stopped at the length "
        f"cap, {100 * spent['unread_share']:.1f} % could not be read."
    )


def _evidence(found: Found) -> Iterator[Piece]:
    rows = []
    for name, one in found.comparable.items():
        row = _lost(found.main, one)
        rows.append({"with": _called(name, one), **row})
    kept = swapped_of(found.main.attrs)
    if (measured := _measured(found)) is not None:
        yield f"<p>{escaped(measured.sentence)}</p>"
        yield figures.evidence(measured)
    if kept is not None:
        yield f"<p>A counter-test stands in the store: {escaped(kept)}.</p>"
    if not rows:
        if kept is None and measured is None:
            yield _soft("No store answers these questions otherwise. `workbench counter --run RUN` makes some.")
        return
    table: Any = pd.DataFrame(rows)
    yield "<p>What is lost, question by question, when the same questions are answered otherwise:</p>"
    yield figures.bars(table, label="with", mean="difference", percent=True, reference=0.0, x_title="lost (points)")
    points = table.assign(lost=100 * table["difference"], low=100 * table["low"], high=100 * table["high"])
    yield points[["with", "lost", "low", "high", "p", "n"]]


def _measured(found: Found) -> Evidence | None:
    """What `workbench evidence` has left in the run's folder, if it was asked."""
    folder = None if found.folder is None else found.folder / EVIDENCE
    return None if folder is None or not (folder / FILE).is_file() else read_evidence(folder)


def _lost(main: xr.Dataset, other: xr.Dataset) -> dict[str, float]:
    try:
        row = compare(main, other).iloc[0]
    except ValueError:  # too few shared questions for an interval
        return {"difference": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "n": 0}
    return {name: row[name] for name in ("difference", "low", "high", "p", "n")}


def _map(found: Found, color: str) -> Iterator[Piece]:
    main = before_answers(found.main).isel(example=slice(MAPPED))
    try:
        table = project(main)
        yield figures.thought_map(table, color=color, facet="step" if main.sizes["step"] <= 16 else None)
        yield _soft(f"A point is a thought of one of the first {main.sizes['example']} questions, a panel a slot.")
    except ValueError as error:
        yield _soft(f"There is no map: {error}.")


def _collapse(found: Found) -> Iterator[Piece]:
    main = before_answers(found.main)
    if not bool(main["mask"].any()) or main.sizes["example"] < 2:
        yield _soft("There are too few thoughts to say anything about them.")
        return
    table: Any = describe(main)
    yield f"<p>{escaped(_state(found.main))}</p>"
    chosen = table[(table["step"] == "all") & table["statistic"].isin(STATISTICS)]
    yield chosen[["statistic", "value", "low", "high", "unit", "meaning"]]


def _readout(found: Found) -> Iterator[Piece]:
    if "lens_token" not in found.main:
        yield _soft(
            "Not kept in this store; `workbench readout STORE --run RUN` adds it without answering anything again."
        )
        return
    yield "<p>The first word that the output head reads in each slot's thoughts, over all questions:</p>"
    yield first_words(found.main)


def _steps(found: Found) -> Iterator[Piece]:
    if "similarity_answer" not in found.main:
        yield _soft("This method compares no worked steps with its answers.")
        return
    table = positive_steps(found.main)
    several: Any = table[table["candidates"] > 1]
    sentence = (
        f"The positive step is the worked step most similar to the answer; {len(several)} questions have several."
    )
    if "agrees" in table and len(several):
        share = several["agrees"].fillna(False).mean()
        sentence += f" It is the one that the answer hangs on in {share:.0%} of them."
    yield f"<p>{escaped(sentence)}</p>"
    if len(several):
        yield figures.step_similarity(step_table(found.main, examples=several["example"].astype(str).tolist()[:SHOWN]))


def _training(found: Found) -> Iterator[Piece]:
    if found.folder is None or not (found.folder / "metrics.jsonl").is_file():
        yield _soft("Nothing was trained here, or its log is elsewhere.")
        return
    table = runs.read_metrics(found.folder, ("seconds", "loss"))
    if table.empty:
        yield _soft("The log of the training is empty.")
        return
    yield figures.loss_curves(table, window=max(1, len(table) // 40))
    last = table.iloc[-1]
    yield _soft(f"{last['step']:.0f} training steps in {last['seconds']:.0f} seconds.")


def _provenance(found: Found) -> Iterator[Piece]:
    attrs = found.main.attrs
    rows = [("store", found.name)]
    rows += [("run", found.folder.resolve().name)] if found.folder is not None else []
    names = ("method", "config", "backbone", "task", "split", "prompts", "seed", "training_step", "decoding")
    rows += [(name.replace("_", " "), str(attrs[name]).strip()) for name in names if str(attrs.get(name, "")).strip()]
    if found.folder is not None and (found.folder / "result.json").is_file():
        result = checked(read_json(found.folder / "result.json", "the run's own"), {}, "result.json")
        rows += [("command", str(result["command"]))] if "command" in result else []
    rows += [(name, str(attrs[name])) for name in ("created", "commit")]
    rows += [("versions", ", ".join(f"{name} {number}" for name, number in json.loads(attrs["versions"]).items()))]
    yield pd.DataFrame(rows, columns=pd.Index(["what", "is"]))


def _called(name: str, one: xr.Dataset) -> str:
    """A store by what is other about it, and its file."""
    changed = str(one.attrs.get("changed") or "")
    about = CHANGES.get(changed, f"thoughts {changed}" if changed else one.attrs["method"])
    return f"{about} ({name})"


def _percent(interval: Interval) -> str:
    low, mean, high = (f"{100 * value:.1f}" for value in (interval.low, interval.mean, interval.high))
    return f"{mean} % [{low}, {high}]"


def _soft(text: str) -> str:
    return f'<p class="wb-soft">{escaped(text)}</p>'


# ---------------------------------------------------------------------------------------------------------------- page


def page(title: str, pieces: list[Piece]) -> str:
    """HTML, tables and figures in one column, with all they need; plotly packed, since it is most of the page."""
    body = [f"<h1>{escaped(title)}</h1>"]
    for piece in pieces:
        if isinstance(piece, go.Figure):
            content = str(piece.to_json()).replace("<", "\\u003c")
            body.append(f'<div class="wb-figure"></div><script type="application/json">{content}</script>')
        else:
            body.append(table_html(piece) if isinstance(piece, pd.DataFrame) else piece)
    if any(isinstance(piece, go.Figure) for piece in pieces):
        packed = base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
        code = (FRONT / "report.js").read_text(encoding="utf-8")
        body.append(f'<script type="text/plain" id="plotly">{packed}</script><script>{code}</script>')
    head = f'<meta charset="utf-8"><title>{escaped(title)}</title><style>{STYLE}{ONE_COLUMN}</style>'
    shown = f'<body class="wb-page wb-pane">{"".join(body)}</body>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n{shown}</html>\n'

"""One question of a store in words: what was asked, how it is solved, what was thought, what was answered."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..diagnostics.neighbours import nearest_rows
from ..figures.look import plain
from ..store import DRAW
from ..within import marked
from .views import escaped, table_html

MOST_ANSWERS = 4  # of a question's that are written out
NEIGHBOURS = 6  # of a thought that are listed
WORDS = {"lens": "read as (output head)", "near": "nearest words (embedding)"}


def question_table(stores: Mapping[Any, xr.Dataset]) -> pd.DataFrame:
    """A row for each question of each store: right (bool, or the share of its answers), gold, answer, question, its
    labels; example and store at the end."""
    tables = []
    for name, store in stores.items():
        correct = store["correct"].transpose(*DRAW).values.reshape(store.sizes["example"], -1)
        answers = store["prediction"].transpose(*DRAW).values.reshape(correct.shape)
        table = pd.DataFrame(
            {
                "right": correct[:, 0] if correct.shape[1] == 1 else correct.mean(1),
                "gold": store["gold"].values,
                "answer": [" | ".join(dict.fromkeys(str(a) or "(no answer)" for a in row)) for row in answers.tolist()],
                "question": store["question"].values,
            }
        )
        for label in sorted(str(key) for key in store.coords if str(key).startswith("label_")):
            table[plain(label)] = store[label].values
        tables.append(table.assign(example=store["example"].values.astype(str), store=name))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def question_html(store: xr.Dataset, example: str) -> str:
    """The question, its gold answer and, where the store has them, its gold steps."""
    one = store.sel(example=example)
    lines = [f"<h3>Question</h3><p>{escaped(one['question'].item())}</p>"]
    steps = [str(text) for text in one["step_text"].values.tolist() if text] if "step_text" in one else []
    if steps:
        critical = int(one["label_critical_step"]) if "label_critical_step" in one.coords else -1
        marks = [" <b>← the answer hangs on this</b>" if k == critical else "" for k in range(len(steps))]
        items = "".join(f"<li>{escaped(text)}{mark}</li>" for text, mark in zip(steps, marks, strict=True))
        lines.append(f"<h3>Gold steps</h3><ol>{items}</ol>")
    else:
        lines.append('<p class="wb-soft">This store holds no gold steps for this question.</p>')
    return "".join(lines)


def answers_html(store: xr.Dataset, example: str, path: int = 0) -> str:
    """What one path's thoughts were answered with, beside the gold answer."""
    one = store.sel(example=example).isel(path=path)
    texts = [marked(store, example, path, draw) for draw in range(min(store.sizes["draw"], MOST_ANSWERS))]
    read, right = (one[name].values.tolist() for name in ("prediction", "correct"))
    gold = escaped(one["gold"].item())
    parts = []
    for text, answer, is_right in zip(texts, read, right, strict=False):
        mark = '<b class="wb-right">✓ right</b>' if is_right else '<b class="wb-wrong">✗ wrong</b>'
        said = f"answered <b>{escaped(answer)}</b>" if answer else "no answer could be read"
        parts.append(f'<p>{mark}: {said}, gold is <b>{gold}</b></p><p class="wb-quote">{escaped(text)}</p>')
    more = len(read) - len(parts)
    parts += [f'<p class="wb-soft">and {more} answers more</p>'] * bool(more)
    return f"<h3>Answer</h3>{''.join(parts)}"


def thought_rows(store: xr.Dataset, example: str, path: int = 0) -> pd.DataFrame:
    """A row per thought of one path: slot (its step), where it stands (if some stand within answers), length (of the
    vector), its signals, and what it reads as, where the store says so."""
    one = store.sel(example=example).isel(path=path)
    mask = one["mask"].values
    steps = np.flatnonzero(mask)
    vectors = one["thought"].transpose("step", "feature").values[steps].astype(np.float64)
    table = pd.DataFrame({"slot": steps, "length": np.linalg.norm(vectors, axis=1)})
    if "thought_draw" in one:
        where = zip(one["thought_draw"].values[steps], one["thought_place"].values[steps], strict=True)
        said = ["before the answers" if d < 0 else f"answer {d}, behind {p} tokens" for d, p in where]
        table.insert(1, "stands", said)
    for name in sorted(str(key) for key in one.data_vars if str(key).startswith("signal_")):
        table[plain(name)] = one[name].values[steps].astype(float)
    for kind, score in (("lens", "probability"), ("near", "cosine")):
        if f"{kind}_token" in one:
            tokens, scores = (one[f"{kind}_{what}"].transpose("step", "rank").values for what in ("token", score))
            table[WORDS[kind]] = [_words(tokens[s].tolist(), scores[s].tolist()) for s in steps]
    return table


def _words(tokens: list[str], scores: list[float]) -> str:
    read = zip(tokens, scores, strict=True)
    return ", ".join(f"{token.strip() or repr(token)} {score:.2f}" for token, score in read if token)


def thoughts_html(store: xr.Dataset, example: str, path: int = 0) -> str:
    """`thought_rows` as HTML, and what the store was not asked to keep."""
    table = thought_rows(store, example, path)
    if table.empty:
        return '<h3>Thoughts</h3><p class="wb-soft">This question has no thoughts here.</p>'
    read = any(f"{kind}_token" in store for kind in WORDS)
    note = "" if read else '<p class="wb-soft">To see what thoughts read as, collect with readout=5.</p>'
    return f"<h3>Thoughts</h3>{table_html(table)}{note}"


def detail_html(store: xr.Dataset, example: str, path: int = 0) -> str:
    """All of it, in the order one reads."""
    return question_html(store, example) + answers_html(store, example, path) + thoughts_html(store, example, path)


def neighbour_table(points: pd.DataFrame, vectors: np.ndarray, row: int) -> pd.DataFrame:
    """The thoughts of other questions (or stores) that are nearest to one of `points` (rows of `vectors` [n, feature]),
    by Euclidean distance: distance, slot, right, gold, answer, question; indexed by their rows. row -1: none."""
    if row < 0:
        return pd.DataFrame(columns=pd.Index(["distance", "slot", "right", "gold", "answer", "question"]))
    one = points.iloc[row]
    same = ((points["example"] == one["example"]) & (points["store"] == one["store"])).to_numpy()
    others = np.flatnonzero(~same)
    found, distances = nearest_rows(vectors[others], vectors[row], NEIGHBOURS)
    rows: Any = points.iloc[others[found]]
    right = rows["correct"] == 1 if rows["correct"].isin([0, 1]).all() else rows["correct"]
    table = pd.DataFrame({"distance": distances, "slot": rows["step"], "right": right})
    return table.assign(gold=rows["gold"], answer=rows["prediction"], question=rows["question"])

"""Positive steps of stores as tidy tables: which gold step is chosen, by which rule, and whether it stays.

answer, question   the step most similar to it (as the focus loss takes it; as the question has come to be read)
middle, last       of S steps number S // 2, the last
random             drawn from the example's id
critical           the label critical_step: the step that the answer hangs on, where a task knows it
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from .inputs import Stores, by_name, chosen_rows, rows_of
from .positive import choice_stability, focus_weights, positive_step, random_step
from .resampling import ratio_bootstrap, resamples

By = Literal["answer", "question"]


def positive_steps(store: xr.Dataset, by: By = "answer") -> pd.DataFrame:
    """Per example the gold step most similar to the answer: example, chosen, text, similarity, margin, candidates,
    log_candidates; with label_critical_step also critical and agrees (both missing where the label is negative).

    An example without steps has chosen -1 and text "". ValueError where the store holds no similarities.
    """
    found = positive_step(_similarities(store, by))
    table = pd.DataFrame({"example": store["example"].values, "chosen": found.index})
    if "step_text" in store:
        texts = store["step_text"].transpose("example", "reasoning").values
        table["text"] = [str(row[k]) if k >= 0 else "" for row, k in zip(texts, found.index, strict=True)]
    for key in ("similarity", "margin", "candidates", "log_candidates"):
        table[key] = getattr(found, key)
    if "label_critical_step" in store.coords:
        critical = pd.Series(_critical(store)).astype("Int64")
        table["critical"] = critical.mask(critical < 0)
        table["agrees"] = table["critical"] == table["chosen"]
    return table


def step_table(store: xr.Dataset, by: By = "answer", examples: Sequence[str] | int | None = None) -> pd.DataFrame:
    """A row per gold step: example, step (from 0), text, similarity, chosen (bool: the most similar one) and, where the
    store has that label, critical (bool); `figures.step_similarity` draws it. examples: ids, or how many of the first.
    """
    similarity = _similarities(store, by)
    chosen = positive_step(similarity).index
    ids = store["example"].values.astype(str)
    texts = store["step_text"].transpose("example", "reasoning").values if "step_text" in store else None
    critical = _critical(store) if "label_critical_step" in store.coords else None
    rows = []
    for i in chosen_rows(store, examples):
        for k in np.flatnonzero(~np.isnan(similarity[i])).tolist():
            row = {"example": ids[i], "step": k, "text": "" if texts is None else str(texts[i, k])}
            row |= {"similarity": float(similarity[i, k]), "chosen": bool(k == chosen[i])}
            rows.append(row if critical is None else row | {"critical": bool(k == critical[i])})
    return pd.DataFrame(rows)


def step_choices(store: xr.Dataset) -> pd.DataFrame:
    """The step that each rule picks: example, candidates, answer, question, middle, last and, where the store has that
    label, critical; -1 where there is none."""
    found = {by: positive_step(_similarities(store, by)) for by in ("answer", "question")}
    count = found["answer"].candidates
    table = pd.DataFrame({"example": store["example"].values, "candidates": count})
    for by, picked in found.items():
        table[by] = picked.index
    table["middle"], table["last"] = np.where(count > 0, count // 2, -1), count - 1
    if "label_critical_step" in store.coords:
        table["critical"] = _critical(store)
    return table


def step_scores(
    store: xr.Dataset,
    rule: str = "answer",
    *,
    temperature: float = 0.1,
    examples: Sequence[str] | int | None = None,
) -> pd.DataFrame:
    """What the focus loss sees of each gold step: example, step (from 0), text, answer and question (cosines to them),
    weight (see `focus_weights`), positive (bool: the step that `rule` picks), critical where the store has that label.

    temperature: of the loss. examples: ids, or how many of the first. The loss of an example is -log of the weight of
    its positive step.
    """
    answer, question = _similarities(store, "answer"), _similarities(store, "question")
    weights, picked = focus_weights(question, temperature), chosen_steps(store, rule)
    texts = store["step_text"].transpose("example", "reasoning").values if "step_text" in store else None
    critical = _critical(store) if "label_critical_step" in store.coords else None
    ids = store["example"].values.astype(str)
    rows = []
    for i in chosen_rows(store, examples):
        for k in np.flatnonzero(~np.isnan(answer[i])).tolist():
            row = {"example": ids[i], "step": k, "text": "" if texts is None else str(texts[i, k])}
            row |= {"answer": float(answer[i, k]), "question": float(question[i, k]), "weight": float(weights[i, k])}
            row["positive"] = bool(k == picked[i])
            rows.append(row if critical is None else row | {"critical": bool(k == critical[i])})
    return pd.DataFrame(rows)


def focus_table(store: xr.Dataset, rule: str = "answer", *, temperature: float = 0.1) -> pd.DataFrame:
    """The focus loss of each example under a rule: example, candidates, positive (-1: none), margin (by which its
    similarity to the answer exceeds that of the next; negative where another step is more similar), loss (nats),
    log_candidates (the loss of a generator that cannot tell steps apart); with label_critical_step also critical and
    agrees (both missing where the label is negative). NaN where nothing can be said."""
    answer, picked = _similarities(store, "answer"), chosen_steps(store, rule)
    weights = focus_weights(_similarities(store, "question"), temperature)
    found, rows = positive_step(answer), np.arange(len(picked))
    some = picked >= 0
    loss, margin = np.full(len(picked), np.nan), np.full(len(picked), np.nan)
    loss[some] = -np.log(weights[rows[some], picked[some]])
    several = some & (found.candidates > 1)
    others = answer[several].copy()
    others[np.arange(len(others)), picked[several]] = np.nan
    margin[several] = answer[rows[several], picked[several]] - np.nanmax(others, axis=1, initial=-np.inf)
    table = pd.DataFrame({"example": store["example"].values.astype(str), "candidates": found.candidates})
    table = table.assign(positive=picked, margin=margin, loss=loss, log_candidates=found.log_candidates)
    if "label_critical_step" in store.coords:
        critical = pd.Series(_critical(store)).astype("Int64")
        table["critical"] = critical.mask(critical < 0)
        table["agrees"] = table["critical"] == table["positive"]
    return table


def rule_table(store: xr.Dataset, base: str = "answer", *, temperature: float = 0.1) -> pd.DataFrame:
    """What another rule would change, among questions with several steps: rule, changed (questions for which it picks
    another step than `base`), loss (mean, nats), margin (mean), n; with label_critical_step also critical (share of the
    questions with such a step for which it is picked)."""
    labelled = "label_critical_step" in store.coords
    rules = ["answer", "middle", "last", "random", *["critical"] * labelled]
    tables = {rule: focus_table(store, rule, temperature=temperature) for rule in {*rules, base}}
    several = tables[base]["candidates"].to_numpy() > 1
    before = tables[base]["positive"].to_numpy()
    rows = []
    for rule in rules:
        table = tables[rule]
        picked = table["positive"].to_numpy()
        row = {"rule": rule, "changed": int((several & (picked >= 0) & (picked != before)).sum())}
        row |= {name: float(pd.Series(table[name].to_numpy()[several]).mean()) for name in ("loss", "margin")}
        row["n"] = int(several.sum())
        if labelled:
            critical = _critical(store)
            known = several & (critical >= 0)
            row["critical"] = float((picked == critical)[known].mean()) if known.any() else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def chosen_steps(store: xr.Dataset, rule: str = "answer") -> np.ndarray:
    """The step that a rule picks for each example, -1 where there is none."""
    known = {"answer", "question", "middle", "last", "random"}
    if rule == "critical" and "label_critical_step" in store.coords:
        return _critical(store)
    if rule not in known:
        unlabelled = " and this store has no label critical_step" if rule == "critical" else ""
        raise ValueError(f"rule {rule!r}{unlabelled}: use {', '.join(sorted(known))}")
    if rule in ("answer", "question"):
        return positive_step(_similarities(store, rule)).index
    count = positive_step(_similarities(store, "answer")).candidates
    if rule == "random":
        ids = store["example"].values.astype(str).tolist()
        return np.array([random_step(name, n) for name, n in zip(ids, count.tolist(), strict=True)], dtype=np.int64)
    return np.where(count > 0, count // 2, -1) if rule == "middle" else count - 1


def rule_agreement(stores: Stores, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """How often two rules pick the same step, among questions with several: store, rule, other, share, low, high
    (bootstrap over questions), chance (mean of 1 / candidates), n. Each pair once."""
    rows = []
    for name, store in by_name(stores).items():
        table = step_choices(store)
        table = table[table["candidates"] > 1]
        rules = [rule for rule in table if rule not in ("example", "candidates")]
        for rule, other in combinations(rules, 2):
            known = table[(table[rule] >= 0) & (table[other] >= 0)]
            if len(known):
                draws = resamples(len(known), seed)
                same = (known[rule] == known[other]).to_numpy(float)
                found = ratio_bootstrap(same, np.ones(len(known)), draws, level)
                chance = float(np.mean(1 / np.asarray(known["candidates"])))
                rows.append((name, rule, other, found.value, found.low, found.high, chance, len(known)))
    columns = ["store", "rule", "other", "share", "low", "high", "chance", "n"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def stability_table(
    stores: Mapping[Any, xr.Dataset], by: By = "answer", *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Whether the choice stays over stores in their order (as of training), among shared questions with several steps:
    store, since ("previous", "last"), share of questions with the same choice, low, high (bootstrap), n.

    With frozen embeddings on both sides, as by default, the choice by "answer" cannot change; the one by "question",
    which the focus loss trains, can.
    """
    if isinstance(stores, xr.Dataset) or len(stores) < 2:
        raise ValueError("stability is between stores: give two or more by name, in the order of training")
    names = list(stores)
    shared = sorted(set.intersection(*(set(store["example"].values.astype(str)) for store in stores.values())))
    if not shared:
        raise ValueError("these stores share no example: collect the same questions at every training step")
    found = [positive_step(_similarities(store, by)[rows_of(store, np.array(shared))]) for store in stores.values()]
    several = found[0].candidates > 1
    if not several.any():
        raise ValueError("no question has several gold steps: there is nothing to choose from")
    choices = np.array([one.index for one in found])[:, several]
    before, last = choice_stability(choices)
    draws, ones = resamples(choices.shape[1], seed), np.ones(choices.shape[1])
    rows = []
    for k, name in enumerate(names):
        for since, other, share in (("previous", k - 1, before[k]), ("last", -1, last[k])):
            if np.isnan(share):
                continue
            interval = ratio_bootstrap(choices[k] == choices[other], ones, draws, level)
            rows.append((name, since, share, interval.low, interval.high, choices.shape[1]))
    return pd.DataFrame(rows, columns=pd.Index(["store", "since", "share", "low", "high", "n"]))


def _similarities(store: xr.Dataset, by: str) -> np.ndarray:
    """Of gold steps to the answer or question [example, reasoning], NaN where there is none."""
    if by not in ("answer", "question"):
        raise ValueError(f"similarity to {by!r}: use 'answer' or 'question'")
    name = f"similarity_{by}"
    if name not in store:
        raise ValueError(f"this store holds no {name!r}: collect it on a task whose examples have gold steps")
    return store[name].transpose("example", "reasoning").values


def _critical(store: xr.Dataset) -> np.ndarray:
    return store["label_critical_step"].values.astype(np.int64)

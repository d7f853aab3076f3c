"""Chains of thoughts and thoughts within answers, as tidy tables: how many a question gets, how they change on the way.

    chain_table       by step of a chain: do the thoughts of different questions grow alike (collapse)?
    difficulty_table  thoughts per answer against how hard the question is; difficulty_correlation: Spearman's of both
    along_table       what `along.along_answers` reads of answers, place by place

Source of the questions asked: arXiv 2602.10229, sections 5.1 to 5.3. It gives pictures; the numbers are ours.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from ...store.within import before_answers
from .cloud import STILL, effective_rank, mean_cosine, still
from .inputs import Stores, by_name, path_thoughts, rows_of
from .resampling import Estimate, bootstrap, jackknife_all, ratio_bootstrap, resamples

CHAIN = {  # statistic: (unit, meaning)
    "cosine": ("cosine", "mean between questions at one step: 1 = all think the same"),
    "centred_cosine": ("cosine", "the same after subtracting the mean of all steps and questions"),
    "effective_rank": ("directions", "exp entropy of the covariance eigenvalues of one step"),
    "distance_ratio": ("ratio", "mean distance between questions / mean length: 0 = all think the same"),
    "length": ("units", "mean length of the thoughts"),
    "word_to_state": ("ratio", "|(1 - alpha) word| / |alpha state|: what the fusion adds to the state"),
}
ALONG = ("entropy", "mass", "share", "over_share")


def chain_table(stores: Stores, path: int = 0, *, level: float | None = 0.95, seed: int = 0) -> pd.DataFrame:
    """Of the thoughts before the answers, step by step: store, statistic, step, mean, low, high, n, unit, meaning.

    `CHAIN` says what the statistics are; word_to_state only where the store has the signals word_norm
    and state_norm and both are in the thoughts.
    Intervals are jackknives over questions, missing below 20. NaN where next to nothing differs between questions.
    """
    rows = []
    for name, store in by_name(stores).items():
        before = before_answers(store)
        x, present = path_thoughts(before, path)
        if not present.any():
            raise ValueError(f"store {name!r} has no thought before its answers; collect with thoughts forced there")
        everywhere = x[present].mean(0)
        parts = [_signal(before, f"signal_{part}", path) for part in ("word_norm", "state_norm")]
        for step in range(x.shape[1]):
            here = present[:, step]
            if here.sum() < 2:
                continue
            word, state = (None if part is None else part[here, step] for part in parts)
            found = _of_step(x[here, step], everywhere, word, state, level, seed)
            rows += [
                (name, statistic, step, one.value, one.low, one.high, int(here.sum()), *CHAIN[statistic])
                for statistic, one in found.items()
            ]
    columns = ["store", "statistic", "step", "mean", "low", "high", "n", "unit", "meaning"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _of_step(
    x: np.ndarray, everywhere: np.ndarray, word: np.ndarray | None, state: np.ndarray | None, level: float | None,
    seed: int,
) -> dict[str, Estimate]:  # fmt: skip
    def statistics(rows: np.ndarray) -> dict[str, float]:
        own = x[rows]
        found = {
            "cosine": mean_cosine(own),
            "centred_cosine": mean_cosine(own - everywhere),
            "effective_rank": np.nan if still(own, STILL) else effective_rank(own),
            "distance_ratio": distance_ratio(own),
            "length": float(np.linalg.norm(own, axis=-1).mean()),
        }
        if word is not None and state is not None and (state[rows] > 0).all() and (word[rows] > 0).any():
            found["word_to_state"] = float((word[rows] / state[rows]).mean())
        return found

    return jackknife_all(statistics, len(x), level=level, seed=seed) if level else {
        name: Estimate(value, np.nan, np.nan) for name, value in statistics(np.arange(len(x))).items()
    }  # fmt: skip


def distance_ratio(vectors: np.ndarray) -> float:
    """Mean distance between samples [sample, feature] over their mean length: 0 = all equal; 0 for all-zero vectors."""
    x = np.asarray(vectors, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"vectors of shape {x.shape}: give [sample, feature], at least two samples")
    square = np.square(x).sum(-1)
    apart = np.sqrt(np.clip(square[:, None] + square - 2 * x @ x.T, 0, None))
    length = float(np.sqrt(square).mean())
    return float(apart[~np.eye(len(x), dtype=bool)].mean()) / length if length else 0.0


def thought_counts(store: xr.Dataset) -> np.ndarray:
    """Thoughts per answer of each question [example]: those before it and those within it, mean over answers."""
    present = store["mask"].transpose("example", "path", "step").values
    if "thought_draw" not in store:
        return present.sum(-1).mean(-1)
    within = store["thought_draw"].transpose("example", "path", "step").values >= 0
    return ((present & ~within).sum(-1) + (present & within).sum(-1) / store.sizes["draw"]).mean(-1)


def difficulty(store: xr.Dataset, by: str, answers: xr.Dataset | None = None) -> np.ndarray:
    """How hard each question of the store is [example]: a label_<by> of it, or with by="wrong" how many of all answers
    that `answers` (a store with several draws; default: this one) has to it are wrong."""
    if by == "wrong":
        other = store if answers is None else answers
        wrong = (~other["correct"]).transpose("example", "path", "draw").values.sum((1, 2))
        missing = set(store["example"].values.astype(str)) - set(other["example"].values.astype(str))
        if missing:
            raise ValueError(f"the store with the answers lacks example {min(missing)!r}; collect the same questions")
        return wrong[rows_of(other, store["example"].values)]
    if f"label_{by}" not in store.coords:
        known = ", ".join(str(name).removeprefix("label_") for name in store.coords if str(name).startswith("label_"))
        raise ValueError(f"no label {by!r} in this store: it has {known or 'none'}; or give 'wrong'")
    return store[f"label_{by}"].values.astype(np.float64)


def difficulty_table(
    stores: Stores, by: str = "wrong", answers: xr.Dataset | None = None, *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Mean thoughts per answer for each difficulty: store, difficulty, mean, low, high (bootstrap), n questions."""
    rows = []
    for name, store in by_name(stores).items():
        counts, hard = thought_counts(store), difficulty(store, by, answers)
        for tier in np.unique(hard):
            own = counts[hard == tier]
            draws = resamples(len(own), seed)
            found = ratio_bootstrap(own, np.ones(len(own)), draws, level if len(own) > 1 else None)
            rows.append((name, float(tier), found.value, found.low, found.high, len(own)))
    return pd.DataFrame(rows, columns=pd.Index(["store", "difficulty", "mean", "low", "high", "n"]))


def difficulty_correlation(
    stores: Stores, by: str = "wrong", answers: xr.Dataset | None = None, *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Spearman's correlation of thoughts per answer and difficulty over questions: store, spearman, low, high
    (bootstrap over questions), n. NaN where all questions have as many thoughts, or are as hard."""
    rows = []
    for name, store in by_name(stores).items():
        counts, hard = thought_counts(store), difficulty(store, by, answers)
        known = len(np.unique(counts)) > 1 and len(np.unique(hard)) > 1
        nothing = Estimate(np.nan, np.nan, np.nan)
        found = bootstrap(_spearman, counts, hard, level=level, seed=seed) if known else nothing
        rows.append((name, found.value, found.low, found.high, len(counts)))
    return pd.DataFrame(rows, columns=pd.Index(["store", "spearman", "low", "high", "n"]))


def _spearman(first: np.ndarray, second: np.ndarray) -> float:
    """0 where a resample has no order."""
    if (first == first[0]).all() or (second == second[0]).all():
        return 0.0
    return float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1])


def along_table(rows: pd.DataFrame, most: int = 400, least: int = 5) -> pd.DataFrame:
    """Means over the answers that are still going on at a place: store, quantity, place, mean, low, high, n.

    rows: of `along.along_answers`, those of several methods with a column `store`. low and high are one standard error
    away (as in the paper). At most `most` places, and those that `least` answers reach.
    """
    found = []
    named = rows if "store" in rows else rows.assign(store="")
    groups: Any = named[named["place"] < most].groupby(["store", "place"], sort=False)
    for (store, place), own in groups:
        for quantity in ALONG:
            values = own[quantity].dropna()
            if len(values) >= least:
                mean, error = values.mean(), values.std() / np.sqrt(len(values))
                found.append((store, quantity, place, mean, mean - error, mean + error, len(values)))
    return pd.DataFrame(found, columns=pd.Index(["store", "quantity", "place", "mean", "low", "high", "n"]))


def _signal(store: xr.Dataset, name: str, path: int) -> np.ndarray | None:
    return store[name].isel(path=path).transpose("example", "step").values if name in store else None

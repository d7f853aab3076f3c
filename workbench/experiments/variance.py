"""Does a larger variance of the thoughts bring them nearer to the gold steps, and does that make answers better?

Trained thoughts are spread out or drawn together around each slot's mean (their means stay, as the paper's Lemma 2
wants), answered with, and compared with the cloud of the gold steps' vectors (mean token embeddings):

    KL(gold || thoughts) by the Gaussian formula and by k nearest neighbours, with each slot's mean removed and as is

both in the gold steps' first principal components, where there are far more samples than dimensions.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.decomposition import PCA

from ..analysis.diagnostics import gaussian_kl, knn_kl, mardia, spread
from .grid import Answers, Cell, Done, Setting
from .report import Report, Values, against, correct, joined, means, tabulate, where

Compared = Callable[[np.ndarray, np.ndarray], float]  # gold steps and thoughts, each [sample, component]
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
COMPONENTS = 8
NEIGHBOURS = 5
RATIO = "variance / gold variance"


def gaussian(gold: np.ndarray, thoughts: np.ndarray) -> float:
    """Its logarithm, since it runs over three orders of magnitude."""
    return float(np.log10(gaussian_kl(gold, thoughts, shrinkage=0.0)))


def nearest(gold: np.ndarray, thoughts: np.ndarray) -> float:
    """Each vector once: copies (the same step in two questions) have no density."""
    return knn_kl(np.unique(gold, axis=0), np.unique(thoughts, axis=0), k=NEIGHBOURS)


DIVERGENCES: dict[str, tuple[Compared, bool]] = {  # with the means of both clouds removed, or as they are
    "log10 of Gaussian KL, means removed": (gaussian, True),
    "log10 of Gaussian KL": (gaussian, False),
    "kNN KL, means removed (nats)": (nearest, True),
    "kNN KL (nats)": (nearest, False),
}


def cells(setting: Setting) -> list[Cell]:
    """One training per seed, one store per factor."""
    stores = {name(factor): Answers(change=f"spread:{factor:g}") for factor in FACTORS}
    return [Cell("lta-thinker", seed, {}, setting.training, {}, stores) for seed in setting.seeds]


def name(factor: float) -> str:
    return f"spread-{factor:g}"


def clouds(store: xr.Dataset, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """(gold steps, thoughts), each [sample, component], in the gold steps' principal components.

    `centred`: every slot's mean thought is moved to the mean gold step, so that only variance and shape are left.
    """
    gold = store["step_vector"].values.reshape(-1, store.sizes["feature"])
    gold = gold[np.isfinite(gold).all(1)].astype(np.float64)
    found = PCA(COMPONENTS).fit(gold)
    thought = store["thought"].astype(np.float64).where(store["mask"])
    if centred:
        thought = thought - thought.mean(("example", "path"))
    thoughts = thought.transpose("example", "path", "step", "feature").values[store["mask"].values]
    return found.transform(gold), found.transform(thoughts + found.mean_ if centred else thoughts)


def measures(factor: float) -> dict[str, Values]:
    """What is measured of one factor's store."""

    def of(function: Compared, centred: bool) -> Values:
        return lambda done: function(*clouds(done.store(name(factor)), centred))

    found: dict[str, Values] = {
        "accuracy": correct(name(factor)),
        RATIO: of(lambda gold, thoughts: spread(thoughts) / spread(gold), True),
    }
    if factor == 0:  # one point per slot: no density, so no KL
        return found
    return found | {title: of(function, centred) for title, (function, centred) in DIVERGENCES.items()}


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """KL and accuracy against the variance of the thoughts, and how far the clouds are from Gaussian."""
    table, runs = joined([tabulate(done, measures(factor), {"spread": factor}) for factor in FACTORS])
    ratio = means(table, RATIO, "spread")
    shown = []
    for part in (table, runs):
        part["variance"] = [ratio[factor] for factor in part["spread"]]
        shown.append(where(where(part, "measure", [RATIO], keep=False), "spread", [0.0], keep=False))
    drawn = against(*shown, x="variance", log_x=True, x_title=RATIO)
    return Report(table, runs, {"variance": drawn}, (*_findings(table, ratio), _gaussian(done)))


def _findings(table: pd.DataFrame, ratio: dict[float, float]) -> list[str]:
    """Lemma 2 in words: does KL fall as the variance rises to that of the gold steps, and where is accuracy highest?"""
    right = means(table, "accuracy", "spread")
    found = []
    for measure in DIVERGENCES:
        values = means(table, measure, "spread")
        below = [value for factor, value in values.items() if ratio[factor] <= 1]
        falls = len(below) > 1 and all(after < before for before, after in pairwise(below))
        verdict = "falls at every step" if falls else "does not fall at every step"
        least = min(values, key=lambda factor: values[factor])
        title = measure.removeprefix("log10 of ").removesuffix(" (nats)")
        found.append(
            f"{title}: as the variance rises to that of the gold steps ({len(below)} points), it {verdict}; it is "
            f"least at {ratio[least]:.2g} times the gold variance (spread {least:g}), where accuracy is "
            f"{100 * right[least]:.1f} %."
        )
    best = max(right, key=lambda factor: right[factor])
    found.append(
        f"Accuracy is highest at spread {best:g} ({ratio[best]:.2g} times gold variance): {100 * right[best]:.1f} %; "
        f"as trained (spread 1, {ratio[1.0]:.2g} times) it is {100 * right[1.0]:.1f} %, with all questions' thoughts "
        f"drawn to their mean {100 * right[0.0]:.1f} %."
    )
    return found


def _gaussian(done: Sequence[Done]) -> str:
    """Whether the lemma's assumption, Gaussian clouds, holds (Mardia's tests)."""
    worst = []
    for cloud, title in enumerate(("gold steps", "thoughts")):
        tests = [mardia(clouds(d.store(name(1.0)), True)[cloud]) for d in done]
        p = max(max(test.skewness_p, test.kurtosis_p) for test in tests)
        worst.append(f"{title} {'p < 0.0001' if p < 1e-4 else f'p = {p:.2g}'}")
    return f"Mardia's tests of Gaussian clouds in {COMPONENTS} components, largest p over seeds: {', '.join(worst)}."

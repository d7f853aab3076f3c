"""Does a larger variance of the thoughts bring them nearer to the gold steps, and does that make answers better?

Trained thoughts are spread out or drawn together around each slot's mean (their means stay, as the paper's Lemma 2
wants), answered with, and compared with the cloud of the gold steps' vectors (mean token embeddings):

    KL(gold || thoughts) by the Gaussian formula and by k nearest neighbours, with the clouds' means removed and as is

both in the gold steps' first principal components, where there are far more samples than dimensions.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.decomposition import PCA

from ..diagnostics import gaussian_kl, knn_kl, mardia, spread
from .grid import Answers, Cell, Done, Setting
from .report import Report, against, correct, tabulate

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
COMPONENTS = 8
NEIGHBOURS = 5
RATIO = "variance / gold variance"


def cells(setting: Setting) -> list[Cell]:
    """One training per seed, one store per factor."""
    stores = {name(factor): Answers(change=f"spread:{factor:g}") for factor in FACTORS}
    return [Cell("lta-thinker", seed, {}, setting.training, {}, stores) for seed in setting.seeds]


def name(factor: float) -> str:
    return f"spread-{factor:g}"


def clouds(store: xr.Dataset, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """(gold steps, thoughts), each [sample, component], in the gold steps' principal components."""
    gold = store["step_vector"].values.reshape(-1, store.sizes["feature"])
    gold = gold[np.isfinite(gold).all(1)].astype(np.float64)
    thoughts = store["thought"].values[store["mask"].values].astype(np.float64)
    found = PCA(COMPONENTS).fit(gold)
    if centred:
        thoughts = thoughts - thoughts.mean(0) + found.mean_
    return found.transform(gold), found.transform(thoughts)


def measures(factor: float) -> dict:
    """What is measured of one factor's store."""

    def of(function, centred):
        return lambda done: function(*clouds(done.store(name(factor)), centred))

    found = {
        "accuracy": correct(name(factor)),
        RATIO: of(lambda gold, thoughts: spread(thoughts) / spread(gold), True),
    }
    if factor == 0:  # one point per slot: no density, so no KL
        return found
    return found | {
        "Gaussian KL, means removed": of(lambda gold, t: gaussian_kl(gold, t, shrinkage=0.0), True),
        "Gaussian KL": of(lambda gold, t: gaussian_kl(gold, t, shrinkage=0.0), False),
        "kNN KL, means removed": of(lambda gold, t: knn_kl(gold, t, k=NEIGHBOURS), True),
        "kNN KL": of(lambda gold, t: knn_kl(gold, t, k=NEIGHBOURS), False),
    }


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """KL and accuracy against the variance of the thoughts, and how far the clouds are from Gaussian."""
    parts = [tabulate(done, measures(factor), {"spread": factor}) for factor in FACTORS]
    table, runs = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    ratio = table[table["measure"] == RATIO].set_index("spread")["mean"]
    table["variance"], runs["variance"] = table["spread"].map(ratio), runs["spread"].map(ratio)
    shown = [part[(part["measure"] != RATIO) & (part["spread"] > 0)] for part in (table, runs)]
    drawn = against(*shown, x="variance", log_x=True)
    return Report(table, runs, {"variance": drawn}, (*_findings(table, ratio), _gaussian(done)))


def _findings(table: pd.DataFrame, ratio: pd.Series) -> list[str]:
    """Lemma 2 in words: does KL fall as the variance rises to that of the gold steps, and where is accuracy highest?"""
    right = table[table["measure"] == "accuracy"].set_index("spread")["mean"]
    found = []
    for measure in (m for m in dict.fromkeys(table["measure"]) if "KL" in m):
        values = table[table["measure"] == measure].set_index("spread")["mean"]
        below = [values[s] for s in values.index if ratio[s] <= 1]
        falls = len(below) > 1 and all(b < a for a, b in pairwise(below))
        verdict = "falls at every step" if falls else "does not fall at every step"
        least = values.idxmin()
        found.append(
            f"{measure}: as the variance rises to that of the gold steps ({len(below)} points), it {verdict}; it is least at "
            f"{ratio[least]:.2g} times the gold variance (spread {least:g}), where accuracy is {100 * right[least]:.1f} %."
        )
    best = right.idxmax()
    found.append(
        f"Accuracy is highest at spread {best:g} ({ratio[best]:.2g} times the gold variance): {100 * right[best]:.1f} %; "
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
        worst.append(f"{title} p <= {p:.2g}")
    return f"Mardia's tests of Gaussian clouds in {COMPONENTS} components, largest p over seeds: {', '.join(worst)}."

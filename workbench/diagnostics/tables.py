"""The statistics of a store as tidy tables."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from .cloud import (
    active_units,
    anisotropy,
    effective_rank,
    intrinsic_dimension,
    mean_cosine,
    neighbour_ratio,
    norm_ratio,
    participation_ratio,
)
from .divergences import gaussian_kl, softmax_kl
from .inputs import as_thoughts, ratio
from .positive import positive_step
from .thoughts import between, slot_cosines, variance_parts
from .verdict import collapse

MEANINGS = {  # statistic: (unit, meaning)
    "spread": ("units²", "variance between questions at one step, mean over features"),
    "relative_spread": ("share", "spread / mean square: 0 = the thought ignores the question"),
    "effective_rank": ("directions", "exp entropy of covariance eigenvalues: read beside relative_spread"),
    "participation_ratio": ("directions", "(sum of eigenvalues)^2 / sum of squares"),
    "cosine": ("cosine", "mean between questions at one step"),
    "norm_ratio": ("ratio", "RMS norm of thoughts / of token embeddings"),
    "slot_cosine": ("cosine", "mean between the steps of a question: 1 = the slots are one"),
    "anisotropy": ("share", "of the variance along its top direction"),
    "active_units": ("features", "whose variance between questions is above 0.01 of the mean square"),
    "neighbour_ratio": ("ratio", "distance to the nearest question / mean distance: 0 = copies, 1 = noise"),
    "intrinsic_dimension": ("dimensions", "TwoNN, of the surface that the questions' thoughts lie on"),
    "slot_softmax_kl": (
        "nats",
        "KL(softmax of the question's mean thought || of each step), mean: 0 = the slots are one",
    ),
    "gaussian_kl": ("nats", "KL(thoughts || token embeddings) as Gaussians, summed over features, shrinkage 0.1"),
    "variance_slot": ("share", "of the variance: steps differ, whatever the question"),
    "variance_question": ("share", "of the variance: questions differ, alike in all steps"),
    "variance_question_slot": ("share", "of the variance: what single steps say about the question"),
    "variance_path": ("share", "of the variance: paths of a question differ, alike in all steps"),
    "variance_residual": ("share", "of the variance: paths that differ step by step"),
    "verdict": ("state", "0 healthy, 1 drifting, 2 collapsed"),
}


def describe(store: xr.Dataset, path: int = 0, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """The statistics of one path's thoughts: statistic, step ("0", "1", .. or "all"), value, low, high, n (examples),
    unit, meaning.

    "all" is over all thoughts (for statistics of a cloud, from effective_rank to intrinsic_dimension: the mean over
    steps). low and high are a seeded percentile bootstrap over examples where the statistic is made of means over
    examples, else NaN. The variance shares are over all paths, and their meaning ends with what independent noise would
    have. Steps that fewer than two examples have are left out of it. Empty without thoughts; ValueError with one
    example.
    """
    if not 0 <= path < store.sizes["path"]:
        raise ValueError(f"path {path} of a store with {store.sizes['path']} paths: give one of those, counted from 0")
    columns = ["statistic", "step", "value", "low", "high", "n"]
    one = store[["thought", "mask"]].isel(path=path)
    x, present = as_thoughts(
        one["thought"].transpose("example", "step", "feature").values, one["mask"].transpose("example", "step").values
    )
    rows: list[tuple] = []
    if present.any():
        # each row says how often a resample holds each example
        draws = np.random.default_rng(seed).multinomial(len(x), np.full(len(x), 1 / len(x)), size=1000)
        tail = (1 - level) / 2
        rows = [*_between_rows(x, present, draws, tail), *_within_rows(x, present, draws, tail)]
        if "reference" in store:
            reference = store["reference"].transpose("reference", "feature").values
            rows += _reference_rows(x, present, reference, draws, tail)
    table = pd.DataFrame(rows, columns=pd.Index(columns))
    table["unit"] = [MEANINGS[name][0] for name in table["statistic"]]
    table["meaning"] = [MEANINGS[name][1] for name in table["statistic"]]
    if present.any():
        n = int(present.any(axis=1).sum())
        for row in [*_variance_rows(store), _verdict_row(x, present)]:
            table.loc[len(table)] = [row[0], "all", row[1], np.nan, np.nan, n, MEANINGS[row[0]][0], row[2]]
    return table


def _variance_rows(store: xr.Dataset) -> list[tuple[str, float, str]]:
    parts = variance_parts(
        store["thought"].transpose("example", "path", "step", "feature").values,
        store["mask"].transpose("example", "path", "step").values,
    )
    return [
        (f"variance_{name}", part.share, f"{MEANINGS[f'variance_{name}'][1]} (noise: {part.chance:.2g})")
        for name, part in parts.items()
        if name != "total" and part.freedom
    ]


def _verdict_row(x: np.ndarray, present: np.ndarray) -> tuple[str, float, str]:
    verdict = collapse(x, present)
    code = float(("healthy", "drifting", "collapsed").index(verdict.state))
    return "verdict", code, f"{verdict.state}: {'; '.join(verdict.evidence)}"


def _between_rows(x: np.ndarray, present: np.ndarray, draws: np.ndarray, tail: float) -> list[tuple]:
    steps, deviation, square = between(x, present)
    there = present[:, steps]
    rows = []
    for name, below in (("spread", there), ("relative_spread", square)):
        for k, s in enumerate(steps):
            rows.append((name, str(s), *_bounds(deviation[:, k], below[:, k], draws, tail), int(there[:, k].sum())))
        rows.append((name, "all", *_bounds(deviation.sum(1), below.sum(1), draws, tail), int(there.any(1).sum())))
    for name, function in CLOUD.items():
        values = [float(function(x[present[:, s], s])) for s in steps]
        for k, s in enumerate(steps):
            rows.append((name, str(s), values[k], np.nan, np.nan, int(there[:, k].sum())))
        known = [value for value in values if not np.isnan(value)]
        mean = float(np.mean(known)) if known else np.nan
        rows.append((name, "all", mean, np.nan, np.nan, int(there.any(1).sum())))
    return rows


def _dimension_or_nan(cloud: np.ndarray) -> float:
    """The intrinsic dimension; NaN of fewer than three different vectors, such as a soft prompt's."""
    return intrinsic_dimension(cloud) if len(np.unique(cloud, axis=0)) >= 3 else np.nan


CLOUD: dict[str, Callable[[np.ndarray], float]] = {
    "effective_rank": effective_rank,
    "participation_ratio": participation_ratio,
    "cosine": mean_cosine,
    "anisotropy": anisotropy,
    "active_units": active_units,
    "neighbour_ratio": neighbour_ratio,
    "intrinsic_dimension": _dimension_or_nan,
}


def _within_rows(x: np.ndarray, present: np.ndarray, draws: np.ndarray, tail: float) -> list[tuple]:
    count = present.sum(axis=1)
    several = count >= 2
    if not several.any():
        return []
    n = int(several.sum())
    cosines = np.where(several, np.nan_to_num(slot_cosines(x, present)), 0)
    centre = (x * present[..., None]).sum(axis=1, keepdims=True) / np.maximum(count, 1)[:, None, None]
    kl = np.where(several, (softmax_kl(centre, x) * present).sum(axis=1) / np.maximum(count, 1), 0)
    return [
        ("slot_cosine", "all", *_bounds(cosines, several, draws, tail), n),
        ("slot_softmax_kl", "all", *_bounds(kl, several, draws, tail), n),
    ]


def _reference_rows(
    x: np.ndarray, present: np.ndarray, reference: np.ndarray, draws: np.ndarray, tail: float
) -> list[tuple]:
    rows = []
    scale = norm_ratio(np.ones((1, x.shape[-1])), reference)  # 1 / root mean square of the reference
    square = np.square(x).mean(axis=-1) * present
    for name, top, there in [
        *((str(s), square[:, s], present[:, s]) for s in range(x.shape[1]) if present[:, s].any()),
        ("all", square.sum(axis=1), present.sum(axis=1)),
    ]:
        bounds = scale * np.sqrt(_bounds(top, there, draws, tail))
        rows.append(("norm_ratio", name, *bounds.tolist(), int((there > 0).sum())))
    n = int(present.any(axis=1).sum())
    return [*rows, ("gaussian_kl", "all", gaussian_kl(x[present], reference), np.nan, np.nan, n)]


def positive_steps(store: xr.Dataset, by: Literal["answer", "question"] = "answer") -> pd.DataFrame:
    """Per example the gold step most similar to the answer: example, chosen, text, similarity, margin, candidates,
    log_candidates; with label_critical_step also critical and agrees (both missing where the label is negative).

    An example without steps has chosen -1 and text "". ValueError where the store holds no similarities.
    """
    if by not in ("answer", "question"):
        raise ValueError(f"similarity to {by!r}: use 'answer' or 'question'")
    name = f"similarity_{by}"
    if name not in store:
        raise ValueError(f"this store holds no {name!r}: collect it on a task whose examples have gold steps")
    found = positive_step(store[name].transpose("example", "reasoning").values)
    table = pd.DataFrame({"example": store["example"].values, "chosen": found.index})
    if "step_text" in store:
        texts = store["step_text"].transpose("example", "reasoning").values
        table["text"] = [str(row[k]) if k >= 0 else "" for row, k in zip(texts, found.index, strict=True)]
    for key in ("similarity", "margin", "candidates", "log_candidates"):
        table[key] = getattr(found, key)
    if "label_critical_step" in store.coords:
        critical = pd.Series(store["label_critical_step"].values).astype("Int64")
        table["critical"] = critical.mask(critical < 0)
        table["agrees"] = table["critical"] == table["chosen"]
    return table


def _bounds(top: np.ndarray, below: np.ndarray, draws: np.ndarray, tail: float) -> tuple[float, float, float]:
    """Ratio of sums over examples, with the quantiles of its resamples (those without any such example left out)."""
    below = np.asarray(below, dtype=np.float64)
    if not below.any():
        return 0.0, np.nan, np.nan
    tops, belows = draws @ top, draws @ below
    low, high = np.quantile(tops[belows > 0] / belows[belows > 0], [tail, 1 - tail])
    return ratio(top, below), float(low), float(high)

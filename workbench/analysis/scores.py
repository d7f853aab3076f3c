"""How good answers are, and how sure one can be of it. An example is the unit: its draws are not independent.

    Wilson interval   (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    pass@k            1 - C(n-c, k) / C(n, k)

Functions on plain arrays come first, tables made from stores last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats

Measure = Literal["mean", "vote"]


@dataclass(frozen=True)
class Interval:
    """A mean over `n` examples with a confidence interval. Shares are between 0 and 1."""

    mean: float
    low: float
    high: float
    n: int


# -------------------------------------------------------------------------------------------------------- on arrays


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (low, high) of a share. Counts may be fractional (effective sample sizes).

    Source: Wilson 1927; equals `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, which takes integers only.
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"{successes} successes of {n}: give n above 0 and successes between 0 and n")
    if not 0 < level < 1:
        raise ValueError(f"level {level}: give a confidence level between 0 and 1, such as 0.95")
    z = float(stats.norm.ppf(0.5 + level / 2))
    p, shrink = successes / n, 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z * float(np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)) / shrink
    # exact at the ends, where rounding leaves 1e-17
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def mean_interval(values: ArrayLike, answers: int = 1, level: float = 0.95) -> Interval:
    """The mean of one value in [0, 1] per example, each itself the mean of `answers` answers.

    Wilson's interval at the effective sample size n p(1-p) / variance (design effect: Korn & Graubard 1998; with
    Wilson: Franco et al. 2019), so that examples stay the unit. With one answer this is exactly Wilson over n; it
    never shrinks below Wilson over n * answers, and does not degenerate when all examples agree (a bootstrap would).
    """
    array = _finite(values, "values")
    if array.size == 0 or array.ndim != 1:
        raise ValueError(f"values of shape {array.shape}: give one value per example, at least one")
    if array.min() < 0 or array.max() > 1:
        raise ValueError(f"values between {array.min():g} and {array.max():g}: give shares between 0 and 1")
    n, mean, variance = array.size, float(array.mean()), float(array.var())
    effective = n * answers if variance == 0 else min(n * mean * (1 - mean) / variance, n * answers)
    if mean in (0.0, 1.0):
        effective = n  # nothing shows that the draws of one example are independent
    low, high = wilson(mean * effective, effective, level)
    return Interval(mean, low, high, n)


def majority_vote(predictions: Sequence[str], same: Callable[[str, str], bool] | None = None) -> str:
    """The most frequent prediction, written as it first appeared; "" when nobody votes.

    Empty predictions (nothing could be read) do not vote. Of equally frequent predictions the one that appeared first
    wins. `same` says which predictions are equal (default: the same text); each joins the first that it equals.
    """
    counts: dict[str, int] = {}
    for prediction in predictions:
        if prediction:
            known = prediction
            if same is not None and prediction not in counts:
                known = next((other for other in counts if same(other, prediction)), prediction)
            counts[known] = counts.get(known, 0) + 1
    return max(counts, key=lambda prediction: counts[prediction]) if counts else ""


def pass_at_k(successes: ArrayLike, n: int, k: int) -> np.ndarray:
    """The unbiased chance that one of k draws is right, given `successes` (any shape) right ones among n draws.

    As a product, since the binomials overflow: 1 - prod_{i=n-c+1..n} (1 - k/i). Source: Chen et al. 2021 (Codex).
    """
    counts = np.asarray(successes)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {n} draws: k must be between 1 and the number of draws, collect more draws")
    if counts.size and (counts.min() < 0 or counts.max() > n):
        raise ValueError(f"successes between {counts.min()} and {counts.max()} of {n} draws: give counts up to n")
    factors = np.maximum(1 - k / np.arange(n, 0, -1), 0)  # 0 from i = k on: fewer than k wrong draws, so one is right
    return 1 - np.concatenate([[1.0], np.cumprod(factors)])[counts]


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Exact two-sided p that two graders' disagreements are a fair coin; `first`, `second` are bool, one per example.

    Only examples that exactly one gets right count; 1.0 when there are none. Source: McNemar 1947, exact binomial.
    """
    a, b = _pair(first, second)
    if not (np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all()):
        raise ValueError("McNemar's test takes right or wrong per example: use `sign_flip` for shares of several draws")
    gained, lost = int((a > b).sum()), int((a < b).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def sign_flip(first: ArrayLike, second: ArrayLike, *, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p of the mean paired difference under random signs (equals `mcnemar` where values are 0 or 1)."""
    difference = np.subtract(*_pair(first, second))
    difference = difference[difference != 0]  # a zero keeps its value under either sign
    if difference.size < 2:  # the one sign flip there is gives an equally extreme mean
        return 1.0
    test = stats.permutation_test(
        (difference,),
        lambda x, axis: np.mean(x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def paired_difference(
    first: ArrayLike, second: ArrayLike, level: float = 0.95, *, resamples: int = 9999, seed: int = 0
) -> Interval:
    """Mean of `first - second` (one value per example) with a seeded percentile bootstrap over examples.

    The interval is a point where all differences are equal. Source: Efron & Tibshirani 1993.
    """
    a, b = _pair(first, second)
    if a.size < 2:
        raise ValueError(f"{a.size} paired examples: a bootstrap needs at least 2, score more examples")
    difference = a - b
    found = stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=resamples,
        batch=1000,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(difference.mean()), float(found.low), float(found.high), a.size)


def crossed_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of `values` [run, example] with an interval over both: other seeds and other examples could have come.

    The same examples are answered in every run, so runs and examples are crossed random effects; the variance of the
    mean is var(run means)/runs + var(example means)/examples (a little too large: noise of single answers is in both),
    with Satterthwaite's degrees of freedom for Student's t. One run: over examples alone; one example (a statistic of
    the whole run): over runs alone; one of both: the interval is NaN. `n` counts examples, or runs of such a statistic.
    Source: Cornfield & Tukey 1956 (crossed random effects); Satterthwaite 1946.
    """
    array = _finite(values, "values")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"values of shape {array.shape}: give [run, example], at least one of each")
    parts = [
        (float(means.var(ddof=1)) / means.size, means.size - 1)
        for means in (array.mean(1), array.mean(0))
        if means.size > 1
    ]
    mean, n = float(array.mean()), array.shape[1] if array.shape[1] > 1 else array.shape[0]
    variance = sum(part for part, _ in parts)
    if not parts:
        return Interval(mean, float("nan"), float("nan"), n)
    if variance == 0:
        return Interval(mean, mean, mean, n)
    freedom = variance**2 / sum(part**2 / df for part, df in parts)
    half = float(stats.t.ppf(0.5 + level / 2, freedom)) * variance**0.5
    return Interval(mean, mean - half, mean + half, n)


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = _finite(first, "first"), _finite(second, "second")
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired values of shapes {a.shape} and {b.shape}: give one per example, in the same order")
    return a, b


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values: drop or grade those examples first")
    return array


# -------------------------------------------------------------------------------------------------------- on stores


def per_example(
    store: xr.Dataset, measure: Measure = "mean", same: Callable[[str, str], bool] | None = None
) -> np.ndarray:
    """One value per example, in the store's order: the mean of its answers, or whether their majority vote is right.

    Votes run over paths, then draws; the winner is right if its first appearance was graded right.
    """
    if measure not in get_args(Measure):
        raise ValueError(f"unknown measure {measure!r}: use one of {', '.join(get_args(Measure))}")
    correct = store["correct"].transpose("example", "path", "draw").values
    correct = correct.reshape(len(correct), -1)
    if measure == "mean":
        return correct.mean(axis=1)
    predictions = store["prediction"].transpose("example", "path", "draw").values.reshape(correct.shape)
    right = [_vote(row, grades, same) for row, grades in zip(predictions.tolist(), correct, strict=True)]
    return np.array(right, dtype=np.float64)


def vote_at(
    store: xr.Dataset, k: int, *, subsets: int = 32, same: Callable[[str, str], bool] | None = None, seed: int = 0
) -> np.ndarray:
    """One value per example: how often the majority vote of `k` of its answers is right, over seeded random subsets.

    With k = 1 or all answers there is nothing to draw: the mean answer, and the vote of `per_example`.
    """
    answers = _answers(store)
    if not 1 <= k <= answers:
        raise ValueError(
            f"a vote of {k} among {answers} answers: k must be between 1 and their number, collect more draws"
        )
    if k == 1:
        return per_example(store)
    if k == answers:
        return per_example(store, "vote", same)
    correct = store["correct"].transpose("example", "path", "draw").values.reshape(-1, answers)
    predictions = store["prediction"].transpose("example", "path", "draw").values.reshape(-1, answers)
    rng = np.random.default_rng(seed)
    chosen = np.stack([rng.permutation(answers)[:k] for _ in range(subsets)])
    right = [
        [_vote(row[picked].tolist(), grades[picked], same) for picked in chosen]
        for row, grades in zip(predictions, correct, strict=True)
    ]
    return np.array(right, dtype=np.float64).mean(axis=1)


def _vote(predictions: list[str], grades: np.ndarray, same: Callable[[str, str], bool] | None) -> bool:
    """Whether the majority's answer is right, judged where it first appears."""
    winner = majority_vote(predictions, same)
    return bool(winner) and bool(grades[predictions.index(winner)])


def accuracy(
    store: xr.Dataset,
    measure: Measure = "mean",
    level: float = 0.95,
    same: Callable[[str, str], bool] | None = None,
) -> Interval:
    """Share of right answers with an interval over examples (`mean_interval`: Wilson, examples are the unit)."""
    answers = _answers(store) if measure == "mean" else 1
    return mean_interval(per_example(store, measure, same), answers, level)


def accuracy_table(
    stores: Mapping[str, xr.Dataset], level: float = 0.95, same: Callable[[str, str], bool] | None = None
) -> pd.DataFrame:
    """One row per store and measure: store, method, task, split, measure, mean, low, high, n, answers, unread,
    unfinished, length.

    Measures: mean; with several answers per example also vote and pass@k for k = 2, 4, ... and all. `unread` and
    `unfinished` are shares of all answers, `length` the mean number of generated tokens.
    """
    rows = []
    for name, store in stores.items():
        answers = _answers(store)
        found = {"mean": accuracy(store, "mean", level)}
        if answers > 1:
            found["vote"] = accuracy(store, "vote", level, same)
            successes = store["correct"].sum(("path", "draw")).values
            for k in [*(2**i for i in range(1, answers.bit_length()) if 2**i < answers), answers]:
                # n draws hold n // k disjoint groups of k, so no more than that many independent answers
                found[f"pass@{k}"] = mean_interval(pass_at_k(successes, answers, k), answers // k, level)
        for measure, interval in found.items():
            rows.append(
                {
                    "store": name,
                    **{key: store.attrs[key] for key in ("method", "task", "split")},
                    "measure": measure,
                    **vars(interval),
                    "answers": answers,
                    "unread": float((store["prediction"] == "").mean()),
                    "unfinished": float((~store["finished"]).mean()),
                    "length": float(store["length"].mean()),
                }
            )
    return pd.DataFrame(rows)


def cost(store: xr.Dataset) -> dict[str, float | int | str]:
    """What the answers of a store took, and how many ended badly.

    tokens, thoughts, seconds: per question, over all of its paths and draws (tokens written, without the one that
    stops; thought vectors, which take a step each where a method unrolls them; seconds of the whole collection,
    thoughts included, NaN where the store does not say); batch_size: questions at a time, without which seconds mean
    nothing; answers: their number; capped: those that stopped at the length cap; unread: those
    nothing could be read in; both as shares too.
    """
    questions, answers = store.sizes["example"], store["finished"].size
    capped, unread = int((~store["finished"]).sum()), int((store["prediction"] == "").sum())
    return {
        "tokens": int(store["length"].sum()) / questions,
        "thoughts": int(store["mask"].sum()) / questions,
        "seconds": float(store.attrs.get("seconds", np.nan)) / questions,
        "batch_size": store.attrs.get("batch_size", "unknown size"),
        "answers": answers,
        "capped": capped,
        "capped_share": capped / answers,
        "unread": unread,
        "unread_share": unread / answers,
    }


def compare(
    first: xr.Dataset,
    second: xr.Dataset,
    measure: Measure = "mean",
    level: float = 0.95,
    *,
    same: Callable[[str, str], bool] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """One row: `first` minus `second` on the examples both hold (matched by id), whatever their order.

    Columns first, second (methods), measure, mean_first, mean_second, difference, low, high (paired bootstrap over
    examples), p, test (mcnemar with one answer or vote each, else sign_flip), better, worse (examples), n.
    """
    a, b = _shared(first, second)
    x, y = per_example(a, measure, same), per_example(b, measure, same)
    binary = measure == "vote" or _answers(a) == _answers(b) == 1
    found = paired_difference(x, y, level, seed=seed)
    return pd.DataFrame(
        [
            {
                "first": a.attrs["method"],
                "second": b.attrs["method"],
                "measure": measure,
                "mean_first": float(x.mean()),
                "mean_second": float(y.mean()),
                "difference": found.mean,
                "low": found.low,
                "high": found.high,
                "p": mcnemar(x, y) if binary else sign_flip(x, y, seed=seed),
                "test": "mcnemar" if binary else "sign_flip",
                "better": int((x > y).sum()),
                "worse": int((x < y).sum()),
                "n": found.n,
            }
        ]
    )


def agreement_table(
    stores: Mapping[str, xr.Dataset], measure: Measure = "mean", same: Callable[[str, str], bool] | None = None
) -> pd.DataFrame:
    """How often two stores are both right or both wrong on the questions they share: first, second, share, chance
    (of two that err independently at their accuracies), n. All pairs, both ways, each store with itself, too.

    Where questions have several answers: of two answers drawn at random, one of each store. Raises ValueError for
    stores that share no question, and for an id that is another question in each.
    """
    rows = []
    for first, a in stores.items():
        for second, b in stores.items():
            a_shared, b_shared = _shared(a, b)
            x, y = per_example(a_shared, measure, same), per_example(b_shared, measure, same)
            chance = x.mean() * y.mean() + (1 - x.mean()) * (1 - y.mean())
            rows.append((first, second, float((x * y + (1 - x) * (1 - y)).mean()), float(chance), len(x)))
    return pd.DataFrame(rows, columns=pd.Index(["first", "second", "share", "chance", "n"]))


def _shared(first: xr.Dataset, second: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both stores on the examples both hold, in the first one's order; ValueError where that is no comparison."""
    known = set(second["example"].values.tolist())
    ids = [i for i in first["example"].values.tolist() if i in known]
    if not ids:
        raise ValueError(
            f"the stores of {first.attrs['method']!r} and {second.attrs['method']!r} share no example: "
            "collect both on the same task and split"
        )
    a, b = first.sel(example=ids), second.sel(example=ids)
    other = (a["question"].values != b["question"].values).nonzero()[0]
    if other.size:
        raise ValueError(
            f"example {ids[other[0]]!r} is another question in each store: compare stores of the same task"
        )
    return a, b


def _answers(store: xr.Dataset) -> int:
    return store.sizes["path"] * store.sizes["draw"]

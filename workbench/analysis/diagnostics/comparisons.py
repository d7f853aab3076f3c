"""Stores beside each other, and beside their labels, as tidy tables."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from .cloud import STILL, drift_of_each, principal_components, still
from .divergences import feature_softmax_kl, frechet_distance, gaussian_kl, knn_kl, mmd, mmd_test
from .gaussianity import henze_zirkler, mahalanobis_qq, mardia
from .information import classifier_information, knn_information
from .inputs import Stores, by_name, path_thoughts, question_labels, rows_of, samples
from .resampling import Estimate, jackknife, ratio_bootstrap, resamples

DIVERGENCES = {  # divergence: (unit, meaning)
    "gaussian_kl": ("nats", "KL(first || second) as Gaussians, shrinkage 0.1"),
    "knn_kl": ("nats", "KL(first || second) from 5 nearest neighbours, in the pair's principal components"),
    "frechet_distance": ("units²", "squared Fréchet distance: means and covariances"),
    "mmd": ("squared MMD", "any difference: radial kernel, median bandwidth; p by permutations"),
    "feature_softmax_kl": (
        "nats",
        "KL(softmax of first || of second), thought by thought of the same question",
    ),
}
SYMMETRIC = ("frechet_distance", "mmd")


class _Cloud(NamedTuple):
    """One side of a comparison: rows are examples (or rows of the reference)."""

    name: Any
    vectors: np.ndarray  # [example, step, feature]
    present: np.ndarray  # [example, step]
    ids: tuple[str, ...] | None  # None: not questions


def divergence_table(
    stores: Stores,
    reference: ArrayLike | Literal["gold steps"] | None = None,
    *,
    path: int = 0,
    components: int = 10,
    examples: int = 1000,
    groups: int = 10,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """How the thoughts of stores differ from each other, and from `reference` rows [n, feature], or each store's "gold
    steps" (mean embeddings of their tokens), or by default its token embeddings, where it holds them.

    One row per first, second, step ("0", .., or "all": all thoughts together; only shared steps) and divergence: value,
    low, high, p, n_first, n_second, unit, meaning, note. Both directions of a KL; the symmetric ones once. low and high
    are a `jackknife` of `groups` groups of examples, together where both sides are the same questions; mmd has a
    permutation p instead, where there is one thought per question. knn_kl looks at the `components` largest principal
    components of both. At most `examples` of each side count, drawn with the seed, since values depend on how many. A
    divergence that does not exist is NaN, and note says why. Divergences of what thoughts read as: `workbench.lens`.
    """
    named = by_name(stores)
    clouds = [_cloud(name, store, path) for name, store in named.items()]
    pairs = [(a, b) for k, a in enumerate(clouds) for b in clouds[k + 1 :]]
    for cloud, store in zip(clouds, named.values(), strict=True):
        if isinstance(reference, str):
            pairs.append((cloud, _rows("gold steps", _gold_steps(store))))
        elif reference is not None:
            pairs.append((cloud, _rows("reference", samples(reference, 2, "reference"))))
        elif "reference" in store:
            rows = store["reference"].transpose("reference", "feature").values
            pairs.append((cloud, _rows("token embeddings", rows)))
    if not pairs:
        raise ValueError("one store without token embeddings: give a second store, or reference rows [n, feature]")
    found = []
    for first, second in pairs:
        widths = first.vectors.shape[2], second.vectors.shape[2]
        if widths[0] != widths[1]:
            given = f"{first.name!r} has {widths[0]} features and {second.name!r} {widths[1]}"
            raise ValueError(f"{given}: compare thoughts of one width")
        first, second = _drawn(first, second, examples, seed)
        for step in [*range(first.present.shape[1]), None]:
            found += _pair_rows(first, second, step, components, groups, level, seed)
    names = ["first", "second", "step", "divergence", "value", "low", "high", "p", "n_first", "n_second", "note"]
    table = pd.DataFrame(found, columns=pd.Index(names))
    table["unit"] = [DIVERGENCES[name][0] for name in table["divergence"]]
    table["meaning"] = [DIVERGENCES[name][1] for name in table["divergence"]]
    return table


def _gold_steps(store: xr.Dataset) -> np.ndarray:
    """The vectors of all gold steps [n, feature]."""
    if "step_vector" not in store:
        raise ValueError("this store holds no gold steps: collect it on a task whose examples have some")
    rows = store["step_vector"].transpose("example", "reasoning", "feature").values
    return rows[np.isfinite(rows).all(axis=-1)]


def _cloud(name: Any, store: xr.Dataset, path: int) -> _Cloud:
    x, present = path_thoughts(store, path)
    if not present.any():
        raise ValueError(f"store {name!r} holds no thoughts: leave it out")
    return _Cloud(name, x, present, tuple(map(str, store["example"].values)))


def _rows(name: str, rows: np.ndarray) -> _Cloud:
    return _Cloud(name, rows[:, None].astype(np.float64), np.ones((len(rows), 1), dtype=bool), None)


def _drawn(first: _Cloud, second: _Cloud, most: int, seed: int) -> tuple[_Cloud, _Cloud]:
    """At most `most` examples of each, the same ones in the same order where both sides are the same questions."""
    rng = np.random.default_rng(seed)

    def take(cloud: _Cloud, rows: np.ndarray) -> _Cloud:
        ids = None if cloud.ids is None else tuple(cloud.ids[k] for k in rows)
        return _Cloud(cloud.name, cloud.vectors[rows], cloud.present[rows], ids)

    def some(n: int) -> np.ndarray:
        return np.sort(rng.choice(n, min(n, most), replace=False))

    if first.ids is not None and second.ids is not None and set(first.ids) == set(second.ids):
        place = {name: k for k, name in enumerate(second.ids)}
        second = take(second, np.array([place[name] for name in first.ids]))
        rows = some(len(first.ids))
        return take(first, rows), take(second, rows)
    return take(first, some(len(first.vectors))), take(second, some(len(second.vectors)))


def _pair_rows(
    first: _Cloud, second: _Cloud, step: int | None, components: int, groups: int, level: float, seed: int
) -> list[tuple]:
    """All divergences of one pair at one step (None: all), in both directions where they differ."""
    a, b = _at(first, step), _at(second, step)
    if a is None or b is None:
        return []
    paired = first.ids is not None and first.ids == second.ids
    several = max(a.present.sum(axis=1).max(), b.present.sum(axis=1).max()) > 1  # thoughts of one question
    rows = []
    for x, y in ((a, b), (b, a)):
        for name in DIVERGENCES:
            if (name in SYMMETRIC and x is b) or (name == "feature_softmax_kl" and not paired):
                continue
            p_value, note = np.nan, ""
            value = Estimate(np.nan, np.nan, np.nan)
            try:
                if name == "mmd" and several:
                    value = Estimate(mmd(_flat(x), _flat(y)), np.nan, np.nan)
                elif name == "mmd":
                    test = mmd_test(_flat(x), _flat(y), seed=seed)
                    value, p_value = Estimate(test.squared, np.nan, np.nan), test.p_value
                else:
                    value = _estimate(name, x, y, components, groups, level, paired, seed)
            except ValueError as error:  # such as a soft prompt, which has no density
                note = str(error)
            n = [int(side.present.any(axis=1).sum()) for side in (x, y)]
            at = "all" if step is None else str(step)
            rows.append((x.name, y.name, at, name, value.value, value.low, value.high, p_value, *n, note))
    return rows


def _at(cloud: _Cloud, step: int | None) -> _Cloud | None:
    """The cloud at one step, with the examples that have it; None without such a step. The reference has no steps."""
    if step is None or cloud.ids is None:
        return cloud
    if step >= cloud.present.shape[1] or not cloud.present[:, step].any():
        return None
    return _Cloud(cloud.name, cloud.vectors[:, [step]], cloud.present[:, [step]], cloud.ids)


def _flat(cloud: _Cloud) -> np.ndarray:
    return cloud.vectors[cloud.present]


def _estimate(
    name: str, x: _Cloud, y: _Cloud, components: int, groups: int, level: float, paired: bool, seed: int
) -> Estimate:
    if name == "feature_softmax_kl":
        both = x.present[:, : y.present.shape[1]] & y.present[:, : x.present.shape[1]]

        def rowwise(i: np.ndarray) -> float:
            steps = both.shape[1]
            return feature_softmax_kl(x.vectors[i][:, :steps][both[i]], y.vectors[i][:, :steps][both[i]])

        return jackknife(rowwise, np.flatnonzero(both.any(axis=1)), level=level, groups=groups, seed=seed)
    function: Callable[[np.ndarray, np.ndarray], float] = {
        "gaussian_kl": gaussian_kl,
        "knn_kl": knn_kl,
        "frechet_distance": frechet_distance,
    }[name]
    p, q = x.vectors, y.vectors
    if name == "knn_kl" and components < p.shape[2]:
        pooled = np.concatenate([_flat(x), _flat(y)])
        shown = principal_components(pooled, min(components, len(pooled) - 1))
        p, q = (np.zeros((*side.present.shape, shown.shape[1])) for side in (x, y))
        p[x.present], q[y.present] = np.split(shown, [int(x.present.sum())])

    def of(i: np.ndarray, j: np.ndarray) -> float:
        return function(p[i][x.present[i]], q[j][y.present[j]])

    rows = (np.arange(len(p)), np.arange(len(q)))
    return jackknife(of, *rows, level=level, groups=groups, paired=paired, seed=seed)


# ---------------------------------------------------------------------------------------------------- over training


def drift_table(stores: Mapping[Any, xr.Dataset], *, path: int = 0, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """How far thoughts moved, of stores in their order (as of training): since the first, and since the previous one.

    Columns: store, since ("first", "previous"), statistic ("relative": |after - before| / |before|; "cosine" between
    before and after), step ("0", .., or "all"), value (mean over thoughts), low, high (bootstrap over examples), n. The
    examples and steps that both stores have; the first store has no row. ValueError where a thought was zero before.
    """
    if isinstance(stores, xr.Dataset) or len(stores) < 2:
        raise ValueError("drift is between stores: give two or more by name, in the order of training")
    names, rows = list(stores), []
    for k in range(1, len(names)):
        for since, before in (("first", names[0]), ("previous", names[k - 1])):
            for statistic, *rest in _drift_rows(stores[before], stores[names[k]], path, level, seed):
                rows.append((names[k], since, statistic, *rest))
    columns = ["store", "since", "statistic", "step", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _drift_rows(before: xr.Dataset, after: xr.Dataset, path: int, level: float, seed: int) -> list[tuple]:
    shared = np.intersect1d(before["example"].values.astype(str), after["example"].values.astype(str))
    if not len(shared):
        raise ValueError("two of these stores share no example: collect the same questions at every training step")
    (a, there), (b, here) = (
        tuple(part[rows_of(store, shared)] for part in path_thoughts(store, path)) for store in (before, after)
    )
    if a.shape[2] != b.shape[2]:
        raise ValueError(f"thoughts of {a.shape[2]} and {b.shape[2]} features: compare those of one run")
    steps = min(a.shape[1], b.shape[1])
    both = there[:, :steps] & here[:, :steps]
    if not both.any():
        raise ValueError("two of these stores share no thought: drift is of thoughts that both have")
    draws, rows = resamples(len(shared), seed), []
    moved = drift_of_each(a[:, :steps][both], b[:, :steps][both])
    for name, values in zip(("relative", "cosine"), moved, strict=True):
        each = np.zeros(both.shape)
        each[both] = values
        places = [(str(s), each[:, s], both[:, s]) for s in np.flatnonzero(both.any(axis=0)).tolist()]
        for step, top, below in [*places, ("all", each.sum(axis=1), both.sum(axis=1))]:
            found = ratio_bootstrap(top, below, draws, level)
            rows.append((name, step, found.value, found.low, found.high, int((below > 0).sum())))
    return rows


# --------------------------------------------------------------------------------------------- beside labels and shapes


def information_table(
    stores: Stores, label: str = "correct", *, path: int = 0, components: int = 5, seed: int = 0
) -> pd.DataFrame:
    """How much one path's thoughts say about a label of the question: label, estimate, step ("0", .., "all": the steps
    side by side), nats, floor, p, entropy, n, classes; see `Information`. Of several stores, a column store as well.

    `label`: "correct" (most draws right), "gold" (the answer) or a label_<name> of the store, of which only frequent
    values count. estimate: "classifier" (all features) and "neighbours" (`components` principal components).
    """
    tables = []
    for name, store in by_name(stores).items():
        table = _information(store, label, path, components, seed)
        if not isinstance(stores, xr.Dataset):
            table.insert(0, "store", [name] * len(table))
        tables.append(table)
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _information(store: xr.Dataset, label: str, path: int, components: int, seed: int) -> pd.DataFrame:
    x, present = path_thoughts(store, path)
    values = question_labels(store, label, path)
    rows = []
    for step, vectors, there in [*_clouds(x, present)]:
        cloud, y = vectors[there], values[there]
        near = principal_components(cloud, min(components, len(cloud) - 1, cloud.shape[1]))
        for estimate, found in (
            ("classifier", classifier_information(cloud, y, seed=seed)),
            ("neighbours", knn_information(near, y, seed=seed)),
        ):
            numbers = (found.nats, found.floor, found.p_value, found.entropy, found.samples, found.classes)
            rows.append((label, estimate, step, *numbers))
    columns = ["label", "estimate", "step", "nats", "floor", "p", "entropy", "n", "classes"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _clouds(x: np.ndarray, present: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(step, vectors [example, ..], which examples have it) of each step that two have, and of all side by side."""
    some: np.ndarray = present.sum(axis=1) > 0
    found = [(str(s), x[:, s], present[:, s]) for s in range(x.shape[1])]
    found.append(("all", x.reshape(len(x), -1), some))
    return [(step, vectors, there) for step, vectors, there in found if there.sum() >= 2]


def gaussianity_table(stores: Stores, *, path: int = 0, components: int = 5) -> pd.DataFrame:
    """Whether thoughts are Gaussian: store, step ("0", .., "all": the steps side by side), skewness and kurtosis of
    `Mardia` and henze_zirkler, each with its p (_p), components, n, note.

    In their `components` largest principal components, since the tests need many more samples than features; with
    hundreds of samples every real cloud is rejected, so look at the statistics. Where a test does not exist its columns
    are NaN, and note says why.
    """
    rows = []
    for name, store in by_name(stores).items():
        for step, vectors, there in _clouds(*path_thoughts(store, path)):
            cloud, numbers, note = vectors[there], [np.nan] * 6, ""
            near = principal_components(cloud, min(components, len(cloud) - 1, cloud.shape[1]))
            try:
                shape, test = mardia(near), henze_zirkler(near)
                numbers = [shape.skewness, shape.skewness_p, shape.kurtosis, shape.kurtosis_p]
                numbers += [test.statistic, test.p_value]
            except ValueError as error:  # such as a soft prompt, which has no spread
                note = str(error)
            rows.append((name, step, *numbers, near.shape[1], len(cloud), note))
    columns = ["store", "step", "skewness", "skewness_p", "kurtosis", "kurtosis_p", "henze_zirkler", "henze_zirkler_p"]
    return pd.DataFrame(rows, columns=pd.Index([*columns, "components", "n", "note"]))


def qq_table(stores: Stores, *, path: int = 0, components: int = 5) -> pd.DataFrame:
    """What `mahalanobis_qq` says of the same clouds, in the same components: store, step, expected, observed; a row per
    question. `figures.distance_qq` draws it, a panel per step or store.

    Clouds whose vectors hardly differ, or are too few, are left out; ValueError where none remains.
    """
    tables = []
    for name, store in by_name(stores).items():
        for step, vectors, there in _clouds(*path_thoughts(store, path)):
            cloud = vectors[there]
            count = min(components, (len(cloud) - 1) // 2, cloud.shape[1])
            if count and not still(cloud, STILL):
                try:
                    expected, observed = mahalanobis_qq(principal_components(cloud, count))
                except ValueError:  # fewer directions than components
                    continue
                tables.append(pd.DataFrame({"store": name, "step": step, "expected": expected, "observed": observed}))
    if not tables:
        raise ValueError("no cloud with enough different thoughts: give more examples, or fewer components")
    return pd.concat(tables, ignore_index=True)

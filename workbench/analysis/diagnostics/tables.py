"""The statistics of a store, of several, or of groups of its questions, as tidy tables."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .cloud import (
    STILL,
    active_units,
    covariance_eigenvalues,
    directions,
    feature_variances,
    intrinsic_dimension,
    mean_cosine,
    neighbour_ratio,
    norm_ratio,
    still,
)
from .divergences import gaussian_kl
from .inputs import Stores, by_name, chosen_rows, path_thoughts, question_labels
from .meanings import HEALTHY, MEANINGS, limits_of
from .resampling import Estimate, jackknife_all, ratio_bootstrap, resamples
from .streamed import Statistics, streamed
from .thoughts import PerExample, between, per_example, variance_parts
from .verdict import STATES, Thresholds, collapse, settled

IN_MEMORY = 2**30  # bytes of thoughts in float64, above which `describe` reads them in blocks
COLUMNS = ["statistic", "step", "value", "low", "high", "n", "unit", "meaning", "healthy"]
Row = tuple[str, str, Estimate, int]  # statistic, step, estimate, n


class _Held(NamedTuple):
    """What statistics need of a store."""

    x: np.ndarray  # [example, step, feature], one path
    present: np.ndarray  # [example, step]
    paths: np.ndarray  # [example, path, step, feature]
    paths_present: np.ndarray  # [example, path, step]
    reference: np.ndarray | None  # [reference, feature]


def describe(
    stores: Stores,
    path: int = 0,
    *,
    by: str | None = None,
    thresholds: Thresholds | None = None,
    level: float | None = 0.95,
    seed: int = 0,
    stream: bool | None = None,
) -> pd.DataFrame:
    """The statistics of one path's thoughts: statistic, step ("0", "1", .. or "all"), value, low, high, n (examples),
    unit, meaning (`MEANINGS` lists them), and which way a healthy run is from a collapsed one: `HEALTHY`.

    stores: one; or several by name (methods) or by training step, and a column store says which. by: "path", "correct",
    "gold" or a label_<name> of the store, and a column of that name says which group of questions (or which path) a row
    is about; groups of one question are left out. "all" is over all thoughts (for statistics of a cloud, from
    effective_rank to intrinsic_dimension: the mean over steps). Of a step whose thoughts hardly differ (relative spread
    below 1e-6, which is float16's rounding) the directions, the centred cosine and the dimension are NaN, and do not
    count in "all", which is NaN where no step differs. The variance shares are over all paths, and their
    meaning ends with what independent noise would have; the meaning of the verdict is its evidence, by `thresholds`.

    low and high: a seeded percentile bootstrap over examples of what is a mean over examples (or a ratio of two); of
    the others, which copies of an example would upset, a `jackknife` of 10 groups (of 20 examples or more), cut at what
    the statistic can be (0 for ranks and spreads). A count and the verdict have none. level None: no intervals, several
    times faster.

    stream: whether thoughts are read in blocks and stay in the store's precision (see `streamed`); None: where they
    would take more than 1 GiB in float64. The numbers are the same but for the neighbour ratio, the dimension and the
    share of questions with the same thoughts, which are then those of 1000 seeded questions among all, and rounding
    (1e-6). Statistics of a cloud have no interval then: each would need ten more decompositions.

    Steps that fewer than two examples have are left out. Empty without thoughts; ValueError with one example.
    What thoughts say about a label is in `information_table`, how far they moved in `drift_table`.
    """
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level {level}: give a confidence level between 0 and 1, such as 0.95, or None")
    tables = []
    for name, store in by_name(stores).items():
        for group, part, at in _groups(store, by, path):
            part = part if by is None else part.assign_attrs(counter="")  # of all questions, not of these
            table = _described(part, at, thresholds or Thresholds(), level, seed, stream)
            if by is not None:
                table.insert(0, by, [group] * len(table))
            if not isinstance(stores, xr.Dataset):
                table.insert(0, "store", [name] * len(table))
            tables.append(table)
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _groups(store: xr.Dataset, by: str | None, path: int) -> Iterator[tuple[Any, xr.Dataset, int]]:
    """(group, its part of the store, path in that part)."""
    if by is None:
        yield None, store, path
    elif by == "path":
        for k in range(store.sizes["path"]):
            yield k, store.isel(path=[k]), 0
    else:
        values = question_labels(store, by, path)
        found, counts = np.unique(values, return_counts=True)
        if counts.max() < 2:
            raise ValueError(f"no two questions have the same {by!r}: give a label that questions share")
        for value in found[counts >= 2].tolist():
            yield value, store.isel(example=np.flatnonzero(values == value)), path


def _described(
    store: xr.Dataset, path: int, thresholds: Thresholds, level: float | None, seed: int, stream: bool | None
) -> pd.DataFrame:
    if not 0 <= path < store.sizes["path"]:
        raise ValueError(f"path {path} of a store with {store.sizes['path']} paths: give one of those, counted from 0")
    present = store["mask"].isel(path=path).transpose("example", "step").values
    if not present.any():
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    if stream is None:
        stream = 8 * store["thought"].size > IN_MEMORY
    with ThreadPoolExecutor(1) as pool:  # while thoughts are read
        draws = None if level is None else pool.submit(resamples, len(present), seed)
        of_all = (streamed if stream else _in_memory)(store, path, thresholds, level, seed)
    reference = store["reference"].transpose("reference", "feature").values if "reference" in store else None
    rows = [
        *_mean_rows(of_all.each, present, store.sizes["feature"], reference, level, draws and draws.result()),
        *_other_rows(of_all.found, present),
    ]
    table = [
        (name, step, found.value, *_cut(found, name), n, *MEANINGS[name], HEALTHY[name])
        for name, step, found, n in sorted(rows, key=lambda row: list(MEANINGS).index(row[0]))
    ]
    verdict = settled(of_all.verdict, store.attrs)
    said = f"{verdict.state}: {'; '.join(verdict.evidence)}"
    n = int(present.any(axis=1).sum())
    table.append(
        (
            "verdict",
            "all",
            float(STATES.index(verdict.state)),
            np.nan,
            np.nan,
            n,
            MEANINGS["verdict"][0],
            said,
            HEALTHY["verdict"],
        )
    )
    found = pd.DataFrame(table, columns=pd.Index(COLUMNS))
    chance = {f"variance_{name}": f" (noise: {part.chance:.2g})" for name, part in of_all.parts.items()}
    found["meaning"] += [chance.get(name, "") for name in found["statistic"]]
    return found


def _in_memory(store: xr.Dataset, path: int, thresholds: Thresholds, level: float | None, seed: int) -> Statistics:
    """The plain counterpart of `streamed`: everything in float64 at once."""
    x, present = path_thoughts(store, path)
    held = _Held(
        x,
        present,
        store["thought"].transpose("example", "path", "step", "feature").values,
        store["mask"].transpose("example", "path", "step").values,
        store["reference"].transpose("reference", "feature").values if "reference" in store else None,
    )
    steps = between(x, present)[0]
    if level is None:
        found = {key: Estimate(value, np.nan, np.nan) for key, value in _of_rows(held, steps, slice(None)).items()}
    else:
        found = jackknife_all(lambda rows: _of_rows(held, steps, rows), len(x), level=level, seed=seed)
    parts = variance_parts(held.paths, held.paths_present)
    return Statistics(per_example(x, present), found, parts, collapse(x, present, thresholds))


def _cut(found: Estimate, name: str) -> tuple[float, float]:
    """Low and high of a statistic within what it can be; rounding may leave its value a little outside."""
    least, most = limits_of(name)
    return max(found.low, min(least, found.value)), min(found.high, max(most, found.value))


# ----------------------------------------------------------------------------------------------- means over examples


def _mean_rows(
    each: PerExample,
    present: np.ndarray,
    width: int,
    reference: np.ndarray | None,
    level: float | None,
    draws: np.ndarray | None,
) -> Iterator[Row]:
    """Statistics that are a mean over examples, or a ratio of two."""
    steps = np.flatnonzero(present.sum(axis=0) >= 2).tolist()
    deviation, square, there = each.deviation[:, steps], each.square[:, steps], present[:, steps]
    for name, top, below in (
        ("spread", deviation, there),
        ("total_spread", deviation * width, there),
        ("relative_spread", deviation, square),
    ):
        for k, s in enumerate(steps):
            yield name, str(s), ratio_bootstrap(top[:, k], below[:, k], draws, level), int(there[:, k].sum())
        yield name, "all", ratio_bootstrap(top.sum(1), below.sum(1), draws, level), int(there.any(1).sum())
    count = present.sum(axis=1)
    several = count >= 2
    if several.any():
        for name, top in (("slot_cosine", each.slot_cosine), ("slot_softmax_kl", each.slot_kl)):
            yield name, "all", ratio_bootstrap(top, several, draws, level), int(several.sum())
    if reference is not None:
        scale = norm_ratio(np.ones((1, width)), reference)  # 1 / root mean square of the reference
        square = each.square
        for name, top, below in [
            *((str(s), square[:, s], present[:, s]) for s in range(present.shape[1]) if present[:, s].any()),
            ("all", square.sum(axis=1), count),
        ]:
            found = ratio_bootstrap(top, below, draws, level)
            value, low, high = (scale * float(np.sqrt(bound)) for bound in (found.value, found.low, found.high))
            yield "norm_ratio", name, Estimate(value, low, high), int((below > 0).sum())


# ----------------------------------------------------------------------------------------------------- all the others


def _other_rows(found: dict[tuple[str, str], Estimate], there: np.ndarray) -> Iterator[Row]:
    """Statistics of clouds, and shares of the variance."""
    steps = np.flatnonzero(there.sum(axis=0) >= 2).tolist()
    for (name, step), estimate in found.items():
        if name == "active_units":
            estimate = Estimate(estimate.value, np.nan, np.nan)  # a count jumps
        on_steps = name not in ("gaussian_kl", *(key for key in MEANINGS if key.startswith("variance_")))
        rows = there[:, steps] if on_steps else there
        yield name, step, estimate, int(rows.any(axis=1).sum() if step == "all" else there[:, int(step)].sum())


def _of_rows(held: _Held, steps: list[int], rows: np.ndarray | slice) -> dict[tuple[str, str], float]:
    """(statistic, step) -> its value over some examples."""
    x, present = held.x[rows], held.present[rows]
    found: dict[tuple[str, str], float] = {}
    each = [_cloud_statistics(x[present[:, s], s]) for s in steps]
    for name in each[0]:
        values = [statistics[name] for statistics in each]
        found |= {(name, str(s)): value for s, value in zip(steps, values, strict=True)}
        known = [value for value in values if not np.isnan(value)]
        found[name, "all"] = float(np.mean(known)) if known else np.nan
    if held.reference is not None:
        found["gaussian_kl", "all"] = gaussian_kl(x[present], held.reference)
    for name, part in variance_parts(held.paths[rows], held.paths_present[rows]).items():
        if name != "total" and part.freedom:
            found[f"variance_{name}", "all"] = part.share
    return found


def _cloud_statistics(cloud: np.ndarray) -> dict[str, float]:
    """NaN where there are too few (different) vectors for a statistic."""
    if len(cloud) < 2:
        return dict.fromkeys(CLOUD, np.nan)
    if still(cloud, STILL):
        known = {"cosine": mean_cosine(cloud), "active_units": 0.0, "neighbour_ratio": 0.0}
        return dict.fromkeys(CLOUD, np.nan) | known
    return {
        **directions(cloud),
        "cosine": mean_cosine(cloud),
        "centred_cosine": mean_cosine(cloud, centred=True),
        "active_units": float(active_units(cloud)),
        "neighbour_ratio": neighbour_ratio(cloud),
        "intrinsic_dimension": _dimension_or_nan(cloud),
    }


CLOUD = (
    *("effective_rank", "participation_ratio", "anisotropy", "cosine", "centred_cosine"),
    *("active_units", "neighbour_ratio", "intrinsic_dimension"),
)


def _dimension_or_nan(cloud: np.ndarray) -> float:
    try:
        return intrinsic_dimension(cloud)
    except ValueError:  # fewer than three different vectors, such as a soft prompt's
        return np.nan


# -------------------------------------------------------------------------------------------- what is drawn of a store


def spectrum_table(stores: Stores, path: int = 0) -> pd.DataFrame:
    """Covariance eigenvalues of the thoughts at each step: store, step, direction (1, 2, ..), eigenvalue (units²),
    cumulative (share of the variance in this and larger directions), relative (eigenvalue / mean squared length, which
    no scale changes; they add up to the relative spread), n. `figures.spectrum` draws it."""
    rows = []
    for name, store in by_name(stores).items():
        x, present = path_thoughts(store, path)
        for s in np.flatnonzero(present.sum(axis=0) >= 2).tolist():
            cloud = x[present[:, s], s]
            values = covariance_eigenvalues(cloud)
            shares, relative = values.cumsum() / (values.sum() or 1), values / (np.square(cloud).sum(-1).mean() or 1)
            for k, numbers in enumerate(zip(values.tolist(), shares.tolist(), relative.tolist(), strict=True)):
                rows.append((name, str(s), k + 1, *numbers, len(cloud)))
    columns = ["store", "step", "direction", "eigenvalue", "cumulative", "relative", "n"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def variance_table(stores: Stores, of: Literal["variance", "square"] = "variance") -> pd.DataFrame:
    """The parts of the variance of all thoughts (see `variance_parts`): store, part, value (units²), share, chance (the
    share of the variance that independent noise would have), n (thoughts); `figures.shares` draws it.

    of="square": shares of the mean square, with one part more, "constant": the vector that all thoughts have in common.
    Parts of next to no variance look like those of much, unless one sees how little they are parts of.
    """
    if of not in ("variance", "square"):
        raise ValueError(f"shares of the {of!r}: use 'variance' or 'square'")
    rows = []
    for name, store in by_name(stores).items():
        x = store["thought"].transpose("example", "path", "step", "feature").values.astype(np.float64)
        mask = store["mask"].transpose("example", "path", "step").values
        parts = variance_parts(x, mask)
        n, square, total = int(mask.sum()), float(np.square(x[mask]).mean()), parts["total"].value
        if of == "square":
            rows.append((name, "constant", square - total, (square - total) / (square or 1), 0.0, n))
        for part, found in parts.items():
            if part != "total" and found.freedom:
                share = found.share if of == "variance" else found.value / (square or 1)
                rows.append((name, part, found.value, share, found.chance, n))
    return pd.DataFrame(rows, columns=pd.Index(["store", "part", "value", "share", "chance", "n"]))


def feature_table(stores: Stores, path: int = 0) -> pd.DataFrame:
    """Variance between questions of each feature: store, step, feature (counted from 0), variance (units²), n."""
    rows = []
    for name, store in by_name(stores).items():
        x, present = path_thoughts(store, path)
        for s in np.flatnonzero(present.sum(axis=0) >= 2).tolist():
            variances = feature_variances(x[present[:, s], s])
            rows += [(name, str(s), k, float(v), int(present[:, s].sum())) for k, v in enumerate(variances)]
    return pd.DataFrame(rows, columns=pd.Index(["store", "step", "feature", "variance", "n"]))


def readout_table(
    store: xr.Dataset,
    by: Literal["lens", "near"] = "lens",
    *,
    path: int = 0,
    examples: Sequence[str] | int | None = None,
) -> pd.DataFrame:
    """What the thoughts of one path are read as: thought ("<example>, slot <k>"), example, step, rank (1, 2, ..), id,
    token, score; `figures.readout` draws it.

    lens: by the output head, score is a probability. near: by embedding, score is a cosine. examples: ids, or how many
    of the first. ValueError where the store was collected without `readout`.
    """
    if by not in ("lens", "near"):
        raise ValueError(f"read-out by {by!r}: use 'lens' (output head) or 'near' (embeddings)")
    if f"{by}_id" not in store:
        raise ValueError("this store does not hold what thoughts are read as: collect it with readout=5 or so")
    chosen = store.isel(path=path, example=chosen_rows(store, examples))
    score = f"{by}_probability" if by == "lens" else f"{by}_cosine"
    ids, tokens, scores = (
        chosen[name].transpose("example", "step", "rank").values for name in (f"{by}_id", f"{by}_token", score)
    )
    mask, names = chosen["mask"].transpose("example", "step").values, chosen["example"].values
    rows = [
        (
            f"{names[i]}, slot {s}",
            str(names[i]),
            s,
            k + 1,
            int(ids[i, s, k]),
            str(tokens[i, s, k]),
            float(scores[i, s, k]),
        )
        for i, s in np.argwhere(mask).tolist()
        for k in range(ids.shape[2])
    ]
    return pd.DataFrame(rows, columns=pd.Index(["thought", "example", "step", "rank", "id", "token", "score"]))

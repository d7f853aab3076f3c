"""Thoughts as [example, step, feature]: what differs between examples and what between the steps of one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .cloud import NOTHING, STILL, effective_rank, mean_cosine, pair_cosines, still
from .divergences import softmax_kl
from .inputs import as_thoughts, finite, ratio


def slot_cosines(vectors: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """Mean cosine between the slots of each example [example]; NaN where it has fewer than two."""
    x, present = as_thoughts(vectors, mask)
    return pair_cosines(x, present)


def probe(vectors: ArrayLike, mask: ArrayLike | None = None) -> dict[str, float]:
    """A few numbers about thoughts [example, step, feature], cheap enough to log while training; {} without steps.

    spread, relative_spread: between examples at one step, over all thoughts of such steps; cosine: the same, mean over
    steps; effective_rank: mean over the steps that vary by more than rounding (relative spread above 1e-6), 0 where
    none does; slot_cosine (only with two steps): between steps of an example, mean over examples; rms: of all values.
    What compares examples is left out where no step has two.
    """
    x, present = as_thoughts(vectors, mask)
    if not present.any():
        return {}
    found: dict[str, float] = {}
    if (present.sum(axis=0) >= 2).any():
        steps, deviation, square = between(x, present)
        clouds = [x[present[:, s], s] for s in steps]
        ranks = [effective_rank(cloud) for cloud in clouds if not still(cloud, STILL)]
        found = {
            "spread": ratio(deviation, present[:, steps]),
            "relative_spread": ratio(deviation, square),
            "effective_rank": float(np.mean(ranks)) if ranks else 0.0,
            "cosine": float(np.mean([mean_cosine(cloud) for cloud in clouds])),
        }
    found["rms"] = float(np.sqrt(np.square(x[present]).mean()))
    several = present.sum(axis=1) >= 2
    if several.any():
        found["slot_cosine"] = float(slot_cosines(x[several], present[several]).mean())
    return found


def between(x: np.ndarray, present: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Steps that two examples have; squared deviation from the step's mean, and square [example, kept step], means over
    features, 0 where masked."""
    count = present.sum(axis=0)
    steps = np.flatnonzero(count >= 2).tolist()
    if not steps:
        raise ValueError(f"{len(x)} examples without a step that two of them have: give at least 2 examples")
    x, there = x[:, steps], present[:, steps, None]
    centre = x.sum(axis=0) / count[steps][:, None]
    return steps, np.square((x - centre) * there).mean(axis=-1), np.square(x).mean(axis=-1)


class PerExample(NamedTuple):
    """What means over examples are made of; 0 where there is nothing."""

    deviation: np.ndarray  # [example, step]: squared, from the step's mean, mean over features
    square: np.ndarray  # [example, step]: mean over features
    slot_cosine: np.ndarray  # [example]: mean between its steps
    slot_kl: np.ndarray  # [example]: KL(softmax of its mean thought || of a step) in nats, mean over steps


def per_example(x: np.ndarray, present: np.ndarray) -> PerExample:
    """Of thoughts [example, step, feature], 0 where masked."""
    count = present.sum(axis=1)
    several = count >= 2
    step_means = x.sum(axis=0) / np.maximum(present.sum(axis=0), 1)[:, None]
    deviation = np.square((x - step_means) * present[..., None]).mean(axis=-1)
    centre = x.sum(axis=1, keepdims=True) / np.maximum(count, 1)[:, None, None]
    kl = (softmax_kl(centre, x) * present).sum(axis=1) / np.maximum(count, 1)
    cosines = np.nan_to_num(pair_cosines(x, present))
    return PerExample(deviation, np.square(x).mean(axis=-1), np.where(several, cosines, 0), np.where(several, kl, 0))


# -------------------------------------------------------------- what differs where: [example, path, step, feature]


class VariancePart(NamedTuple):
    """One part of the variance of thoughts."""

    value: float  # units squared, mean over thoughts and features: parts add up to the total
    share: float  # of the total
    chance: float  # the share that independent noise would have on average: its degrees of freedom
    freedom: int


def variance_parts(vectors: ArrayLike, mask: ArrayLike | None = None) -> dict[str, VariancePart]:
    """Where thoughts [example, path, step, feature] differ: slot, question, question_slot, path, residual, total.

    slot: steps differ, whatever the question. question: questions differ, alike in all steps. question_slot: what one
    step says about the question and others do not. path: paths of a question differ, alike in all steps. residual: the
    rest, which is paths that differ step by step. Without a mask these are the sums of squares of a two-way analysis
    of variance with paths nested in questions, / thoughts and features. Under a mask each is what it explains beyond
    those before it (sequential, least squares), so that they add up exactly. Read share beside chance: with few paths
    or steps noise alone looks like structure. Source: Searle, Casella & McCulloch 1992.
    """
    x = np.asarray(vectors, dtype=np.float64)
    there = np.ones(x.shape[:3], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if x.ndim != 4 or there.shape != x.shape[:3]:
        raise ValueError(
            f"thoughts {x.shape} with mask {there.shape}: give [example, path, step, feature], [example, path, step]"
        )
    if there.sum() < 2 or not x.shape[3]:
        raise ValueError(f"{there.sum()} thoughts of {x.shape[3]} features: variance needs at least 2, give more")
    x = finite(np.where(there[..., None], x, 0), "thoughts")
    present = there.astype(np.float64)
    square = np.square(x).sum()
    x = (x - x.sum(axis=(0, 1, 2)) / present.sum()) * present[..., None]

    per_slot, per_question, per_cell = present.sum((0, 1)), present.sum((1, 2)), present.sum(1)
    slot, slots = _explained(x.sum(axis=(0, 1)), per_slot)
    question, questions = _explained(x.sum(axis=(1, 2)), per_question)
    cell, cells = _explained(x.sum(axis=1).reshape(-1, x.shape[3]), per_cell.ravel())

    # slots beyond questions: both without each question's mean (Frisch & Waugh)
    rest = x - (_means(x.sum(axis=(1, 2)), per_question)[:, None, None]) * present[..., None]
    overlap = per_cell.T @ _means(per_cell, per_question)
    beyond, more = regression(rest.sum(axis=(0, 1)), np.diag(per_slot) - overlap)

    # paths of a question, beyond its slots
    rest = x - _means(x.sum(axis=1), per_cell)[:, None] * present[..., None]
    per_path = present.sum(axis=2)
    weights = np.divide(present, per_cell[:, None], out=np.zeros_like(present), where=per_cell[:, None] > 0)
    inner = per_path[:, :, None] * np.eye(x.shape[1]) - present @ weights.transpose(0, 2, 1)
    path, paths = regression(rest.sum(axis=2), inner)

    sums = Explained(slot, question + float(beyond), cell, float(path.sum()), float(np.square(x).sum()))
    ranks = Explained(slots, questions + int(more), cells, int(paths.sum()), int(present.sum()))
    return shared_out(sums, ranks, float(square), x.shape[3])


class Explained(NamedTuple):
    """Sums of squares around the common mean, or the numbers of means that explain them."""

    slot: float
    both: float  # slots and questions
    cell: float  # each slot of each question
    path: float  # beyond those
    total: float  # of everything: the number of thoughts


def shared_out(sums: Explained, ranks: Explained, square: float, width: int) -> dict[str, VariancePart]:
    """`variance_parts` from sums of squares of thoughts of `width` features; `square`: theirs with their mean."""
    if sums.total <= NOTHING * square:  # rounding
        sums = Explained(*[0.0] * len(sums))
    found = {
        "slot": (sums.slot, ranks.slot - 1),
        "question": (sums.both - sums.slot, ranks.both - ranks.slot),
        "question_slot": (sums.cell - sums.both, ranks.cell - ranks.both),
        "path": (sums.path, ranks.path),
        "residual": (sums.total - sums.cell - sums.path, ranks.total - ranks.cell - ranks.path),
        "total": (sums.total, ranks.total - 1),
    }
    size, freedom, total = ranks.total * width, ranks.total - 1, sums.total
    return {
        name: VariancePart(max(0.0, part) / size, max(0.0, part / total) if total else 0.0, f / freedom, int(f))
        for name, (part, f) in found.items()
    }


def _means(sums: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(sums, count[..., None], out=np.zeros_like(sums), where=count[..., None] > 0)


def _explained(sums: np.ndarray, count: np.ndarray) -> tuple[float, int]:
    """Sum of squares that the means of groups explain, from the groups' sums [group, feature]; groups there are."""
    return float((sums * _means(sums, count)).sum()), int((count > 0).sum())


def regression(sums: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares explained by dummies with normal matrices [.., k, k] and products with the data
    [.., k, feature], and the dummies' ranks, both [..]."""
    rank = np.linalg.matrix_rank(normal, hermitian=True, rtol=1e-9)
    found = np.linalg.pinv(normal, hermitian=True, rtol=1e-9) @ sums
    return (sums * found).sum(axis=(-1, -2)), rank

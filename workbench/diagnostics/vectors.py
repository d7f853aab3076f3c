"""The statistics themselves, on plain arrays: feature axis last, samples before it; all moments divide by n."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr, log_softmax

_NOTHING = 1e-20  # of the mean square: less variance than this is rounding, not spread


# ------------------------------------------------------------------------------------------------------ one cloud


def spread(vectors: ArrayLike, *, total: bool = False) -> float:
    """Variance across samples per feature, averaged over features; `total=True` sums (trace of the covariance)."""
    variance = _samples(vectors).var(axis=0)
    return float(variance.sum() if total else variance.mean())


def relative_spread(vectors: ArrayLike) -> float:
    """Spread divided by the mean square: 0 = all samples equal, 1 = mean zero. Scale free; 0 for all-zero vectors."""
    x = _samples(vectors)
    square = float(np.square(x).mean())
    return spread(x) / square if square else 0.0


def covariance_eigenvalues(vectors: ArrayLike) -> np.ndarray:
    """Eigenvalues of the covariance, descending, the min(n, feature) that can differ from 0.

    From the n x n Gram matrix where n is below the number of features: the nonzero ones are the same.
    """
    x = _samples(vectors)
    x = x - x.mean(axis=0)
    matrix = (x @ x.T if x.shape[0] < x.shape[1] else x.T @ x) / x.shape[0]
    return np.clip(np.linalg.eigvalsh(matrix)[::-1], 0, None)


def effective_rank(vectors: ArrayLike, of: Literal["eigenvalues", "singular_values"] = "eigenvalues") -> float:
    """exp of the entropy of the normalised covariance eigenvalues: how many directions share the variance.

    Roy & Vetterli 2007 define it on singular values (here: of the centred samples, the eigenvalues' square roots),
    which gives more. At most min(n - 1, feature); 0 where there is no variance at all.
    """
    if of not in ("eigenvalues", "singular_values"):
        raise ValueError(f"effective rank of {of!r}: use 'eigenvalues' or 'singular_values'")
    x = _samples(vectors)
    weights = _real_eigenvalues(x) if of == "eigenvalues" else np.sqrt(_real_eigenvalues(x))
    return float(np.exp(entr(weights / weights.sum()).sum())) if weights.any() else 0.0


def participation_ratio(vectors: ArrayLike) -> float:
    """(sum of eigenvalues)^2 / sum of their squares; between 1 and min(n - 1, feature); 0 without variance."""
    weights = _real_eigenvalues(_samples(vectors))
    return float(weights.sum() ** 2 / np.square(weights).sum()) if weights.any() else 0.0


def mean_cosine(vectors: ArrayLike, *, centred: bool = False) -> float:
    """Mean cosine over all pairs of different samples, in O(n feature): (|sum u|^2 - n) / (n (n - 1)), u unit vectors.

    `centred=True` subtracts the mean first. A zero vector has cosine 0 with everything.
    """
    x = _samples(vectors)
    return float(_pair_cosines(x - x.mean(axis=0) if centred else x, np.ones(x.shape[0], dtype=bool)))


def norm_ratio(vectors: ArrayLike, reference: ArrayLike) -> float:
    """Root mean square norm of the vectors over that of the reference rows."""
    below = np.square(_samples(reference, 1, "reference")).sum(-1).mean()
    if below == 0:
        raise ValueError("all reference rows are zero: give a sample of the backbone's token embeddings")
    return float(np.sqrt(np.square(_samples(vectors, 1)).sum(-1).mean() / below))


# ----------------------------------------------------------------------------------------------------- two clouds


def gaussian_kl_moments(mean_p: ArrayLike, cov_p: ArrayLike, mean_q: ArrayLike, cov_q: ArrayLike) -> float:
    """KL(p || q) of two Gaussians, in nats, summed over dimensions. inf where p has no variance along a direction."""
    a, b = np.asarray(cov_p, dtype=np.float64), np.asarray(cov_q, dtype=np.float64)
    shift = np.asarray(mean_q, dtype=np.float64) - np.asarray(mean_p, dtype=np.float64)
    if a.shape != b.shape or a.shape != (shift.size, shift.size):
        raise ValueError(f"covariances {a.shape} and {b.shape} for {shift.size} means: give one dimension to all")
    sign, log_q = np.linalg.slogdet(b)
    if sign <= 0:
        raise ValueError("q's covariance is singular: KL(p || q) does not exist, use shrinkage or more samples of q")
    solved = np.linalg.solve(b, np.column_stack([a, shift]))
    log_p = np.linalg.slogdet(a)[1]
    return float(0.5 * (np.trace(solved) + shift @ solved[:, -1] - shift.size + log_q - log_p))


def gaussian_kl(p_samples: ArrayLike, q_samples: ArrayLike, *, shrinkage: float = 0.1) -> float:
    """KL(p || q) of the Gaussians with the samples' moments, in nats, summed over features. Not symmetric.

    Each covariance S becomes (1 - shrinkage) S + shrinkage mean(diag S) I, so fewer samples than features are allowed
    (the value then depends on the shrinkage: compare only values with the same one, and like numbers of samples).
    inf where all samples of p are equal.
    Exact without feature x feature matrices: outside the span of all samples both are multiples of the identity.
    """
    p, q = _samples(p_samples, name="p"), _samples(q_samples, name="q")
    d = p.shape[1]
    if q.shape[1] != d:
        raise ValueError(f"p has {d} features and q has {q.shape[1]}: both need the same")
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage {shrinkage}: give a number between 0 and 1")
    if _still(q):
        raise ValueError("all samples of q are equal: KL(p || q) does not exist, give more different samples")
    if _still(p):
        return float("inf")
    floor_p, floor_q = shrinkage * spread(p), shrinkage * spread(q)
    mean_p, mean_q = p.mean(axis=0), q.mean(axis=0)
    p, q, shift = p - mean_p, q - mean_q, mean_q - mean_p
    outside = 0.0
    if len(p) + len(q) + 1 < d:
        if shrinkage == 0:
            raise ValueError(f"{len(p)} and {len(q)} samples of {d} features: without shrinkage KL does not exist")
        basis = np.linalg.qr(np.concatenate([p, q, shift[None]]).T)[0]
        p, q, shift = p @ basis, q @ basis, shift @ basis
        scale = floor_p / floor_q
        outside = 0.5 * (d - basis.shape[1]) * (scale - 1 - np.log(scale))
    eye = np.eye(p.shape[1])
    cov_p = (1 - shrinkage) * p.T @ p / len(p) + floor_p * eye
    cov_q = (1 - shrinkage) * q.T @ q / len(q) + floor_q * eye
    return gaussian_kl_moments(np.zeros_like(shift), cov_p, shift, cov_q) + outside


def feature_softmax_kl(p_vectors: ArrayLike, q_vectors: ArrayLike) -> float:
    """KL(softmax(p) || softmax(q)) over the features, in nats, averaged over rows; shapes broadcast.

    The alignment loss of LTA-Thinker (p the question, q the thoughts). Zero iff rows differ by a constant.
    """
    p, q = _finite(p_vectors, "p"), _finite(q_vectors, "q")
    return float(softmax_kl(p, q).mean())


# -------------------------------------------------------------------------------------------------- positive steps


@dataclass(frozen=True)
class PositiveStep:
    """Which gold step is most similar, per example. Arrays over examples."""

    index: np.ndarray  # -1 where an example has no steps; the first of equals
    similarity: np.ndarray  # of the chosen step, NaN without steps
    margin: np.ndarray  # to the second best, NaN with fewer than two
    candidates: np.ndarray  # number of steps
    log_candidates: np.ndarray  # nats: the focus loss of a generator that cannot tell steps apart; NaN without steps


def positive_step(similarity: ArrayLike) -> PositiveStep:
    """The most similar step of each row of `similarity` [example, reasoning]; NaN = the example has no such step."""
    s = np.asarray(similarity, dtype=np.float64)
    if s.ndim != 2 or np.isinf(s).any():
        raise ValueError(f"similarity of shape {s.shape}: give [example, reasoning] with finite values or NaN")
    candidates = (~np.isnan(s)).sum(axis=1)
    filled = np.concatenate([np.where(np.isnan(s), -np.inf, s), np.full((len(s), 2), -np.inf)], axis=1)
    ordered = np.sort(filled, axis=1)[:, ::-1]
    best, second = ordered[:, 0], ordered[:, 1]
    return PositiveStep(
        index=np.where(candidates > 0, filled.argmax(axis=1), -1),
        similarity=np.where(candidates > 0, best, np.nan),
        margin=np.subtract(best, second, out=np.full(len(s), np.nan), where=candidates > 1),
        candidates=candidates,
        log_candidates=np.log(candidates, out=np.full(len(s), np.nan), where=candidates > 0),
    )


# ---------------------------------------------------------------------------- thoughts as [example, step, feature]


def slot_cosines(vectors: ArrayLike, mask: ArrayLike | None = None) -> np.ndarray:
    """Mean cosine between the slots of each example [example]; NaN where it has fewer than two."""
    x, present = as_thoughts(vectors, mask)
    return _pair_cosines(x, present)


def probe(vectors: ArrayLike, mask: ArrayLike | None = None) -> dict[str, float]:
    """A few numbers about thoughts [example, step, feature], cheap enough to log while training; {} without steps.

    spread, relative_spread: between examples at one step, over all thoughts of such steps; effective_rank, cosine: the
    same, mean over steps; slot_cosine (only with two steps): between steps of an example, mean over examples; rms: of
    all values.
    """
    x, present = as_thoughts(vectors, mask)
    if not present.any():
        return {}
    steps, deviation, square = between(x, present)
    clouds = [x[present[:, s], s] for s in steps]
    found = {
        "spread": ratio(deviation, present[:, steps]),
        "relative_spread": ratio(deviation, square),
        "effective_rank": float(np.mean([effective_rank(cloud) for cloud in clouds])),
        "cosine": float(np.mean([mean_cosine(cloud) for cloud in clouds])),
        "rms": float(np.sqrt(np.square(x[present]).mean())),
    }
    several = present.sum(axis=1) >= 2
    if several.any():
        found["slot_cosine"] = float(slot_cosines(x[several], present[several]).mean())
    return found


@dataclass(frozen=True)
class Verdict:
    """Whether thoughts collapsed, why, and the numbers it rests on."""

    state: Literal["healthy", "drifting", "collapsed"]
    evidence: tuple[str, ...]
    values: dict[str, float]


def collapse(
    vectors: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    dead_spread: float = 0.02,
    low_spread: float = 0.1,
    merged_cosine: float = 0.99,
    close_cosine: float = 0.9,
) -> Verdict:
    """Judge thoughts [example, step, feature] by relative spread between questions and cosine between slots.

    collapsed: relative spread below `dead_spread` at every step (thoughts ignore the question), or slot cosine above
    `merged_cosine` (several slots are one). drifting: the same beyond `low_spread` or `close_cosine`, or some steps
    dead. The defaults separate measured runs of LTA-Thinker on the shift domain: collapsed 0.00001 to 0.015 and 0.999,
    useful 0.34 to 0.45 and 0.2 to 0.33, slots merging 0.47 to 0.59 and 0.91 to 0.96. Hidden states with a few huge
    features have high cosines and low relative spread by nature: judge those with thresholds of their own.
    A soft prompt is collapsed by construction.
    """
    x, present = as_thoughts(vectors, mask)
    if not present.any():
        raise ValueError("there are no thoughts to judge: give vectors [example, step, feature] with at least one step")
    steps, deviation, square = between(x, present)
    values = probe(x, present)
    rel, cosine = values["relative_spread"], values.get("slot_cosine", float("nan"))
    dead = [s for k, s in enumerate(steps) if ratio(deviation[:, k], square[:, k]) < dead_spread]
    bad, poor = [], []
    if len(dead) == len(steps):
        bad.append(f"thoughts do not depend on the question: relative spread {rel:.2g} is below {dead_spread:g}")
    elif dead:
        poor.append(
            f"steps {', '.join(map(str, dead))} do not depend on the question: relative spread < {dead_spread:g}"
        )
    elif rel < low_spread:
        poor.append(f"thoughts depend little on the question: relative spread {rel:.2g} is below {low_spread:g}")
    if cosine > merged_cosine:
        bad.append(f"slots merged into one: their mean cosine {cosine:.4f} is above {merged_cosine:g}")
    elif cosine > close_cosine:
        poor.append(f"slots are merging: their mean cosine {cosine:.3f} is above {close_cosine:g}")
    good = [f"relative spread {rel:.2g}" + ("" if np.isnan(cosine) else f", slot cosine {cosine:.2f}")]
    state = "collapsed" if bad else "drifting" if poor else "healthy"
    return Verdict(state, tuple(bad + poor or good), values)


# --------------------------------------------------------------------------------------------------------- helpers


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values: mask or drop those first")
    return array


def _samples(vectors: ArrayLike, need: int = 2, name: str = "vectors") -> np.ndarray:
    """All axes but the last as samples [sample, feature] in float64, or one sentence."""
    array = _finite(vectors, name)
    if array.ndim < 2 or array.shape[-1] == 0:
        raise ValueError(f"{name} of shape {array.shape}: give samples x features, with at least one feature")
    array = array.reshape(-1, array.shape[-1])
    if len(array) < need:
        raise ValueError(f"{len(array)} samples in {name}: this statistic needs at least {need}, give more examples")
    return array


def as_thoughts(vectors: ArrayLike, mask: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Thoughts [example, step, feature] in float64 (0 where masked) and their mask [example, step]."""
    x = np.asarray(vectors, dtype=np.float64)
    present = np.ones(x.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if x.ndim != 3 or present.shape != x.shape[:2]:
        raise ValueError(
            f"thoughts {x.shape} with mask {present.shape}: give [example, step, feature], [example, step]"
        )
    return _finite(np.where(present[..., None], x, 0), "thoughts"), present


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


def ratio(top: np.ndarray, below: np.ndarray) -> float:
    """Ratio of sums; 0 of nothing."""
    return float(top.sum() / below.sum()) if below.any() else 0.0


def _real_eigenvalues(x: np.ndarray) -> np.ndarray:
    """Covariance eigenvalues, all 0 where what variance there is is rounding."""
    values = covariance_eigenvalues(x)
    return np.zeros_like(values) if _still(x) else values


def _still(x: np.ndarray) -> bool:
    return bool(x.var(axis=0).mean() <= _NOTHING * np.square(x).mean())


def _pair_cosines(x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean cosine over pairs of present rows of x [..., row, feature]; NaN with fewer than two."""
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    unit = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0) * present[..., None]
    own = np.square(unit).sum(axis=(-1, -2))  # the pairs of a row with itself; 1 each, but 0 for a zero vector
    count = present.sum(axis=-1).astype(np.float64)
    pairs = count * (count - 1)
    both = np.square(unit.sum(axis=-2)).sum(axis=-1) - own
    return np.divide(both, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0)


def softmax_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(softmax(p) || softmax(q)) of each row, in nats."""
    log_p, log_q = log_softmax(p, axis=-1), log_softmax(q, axis=-1)
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)

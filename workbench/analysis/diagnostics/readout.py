"""Thoughts as words: distributions over a vocabulary, and how far they cover explicit reasoning.

    compression_rate   ECR@K = explicit tokens among the K most likely of the thought in charge of them, per thought
    parallelism        N_eff = exp(entropy of softmax(how well each of M explicit paths is covered)), 1 to M
    nearest_tokens     the words whose embeddings point where a vector points

Probabilities are arrays [..., token]; "the K most likely" never contains a token of probability 0, and of equally
likely ones those with the lower id come first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.special import entr, softmax

from .inputs import finite

_SMALLEST = 1e-12  # stands for a mass of 0, whose logarithm the score needs
_BLOCK = 2**22  # numbers held at a time

# ------------------------------------------------------------------------------------------------- one distribution


def vocabulary_entropy(probabilities: ArrayLike) -> np.ndarray:
    """Entropy of each distribution [..., token] in nats [...]; exp of it is how many tokens share the mass."""
    return entr(_distributions(probabilities)).sum(axis=-1)


def top_k_mass(probabilities: ArrayLike, k: int = 1) -> np.ndarray:
    """Probability of the k most likely tokens of each distribution [..., token]: [...], 0 to 1."""
    p = _distributions(probabilities)
    _at_least_one(k)
    top = p if k >= p.shape[-1] else np.partition(p, -k, axis=-1)[..., -k:]
    return top.sum(axis=-1)


def top_tokens(probabilities: ArrayLike, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """(token ids, probabilities), both [..., k], of the k most likely of each distribution [..., token], likeliest
    first, of equal ones the lower id."""
    p = _distributions(probabilities)
    if not 1 <= k <= p.shape[-1]:
        raise ValueError(f"k = {k} of {p.shape[-1]} tokens: give k from 1 to {p.shape[-1]}")
    ids = _largest(p.reshape(-1, p.shape[-1]), k).reshape(*p.shape[:-1], k)
    return ids, np.take_along_axis(p, ids, axis=-1)


def nearest_tokens(vectors: ArrayLike, table: ArrayLike, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """(token ids, cosines), both [..., k], of the k rows of `table` [token, feature] with the highest cosines.

    Exact, in blocks of the table; in float32 where both are at most that. Highest first, of equal cosines the lower id.
    A zero vector or row has cosine 0 with everything.
    """
    x, rows = np.asarray(vectors), np.asarray(table)
    if x.ndim == 0 or rows.ndim != 2 or x.shape[-1] != rows.shape[1]:
        raise ValueError(f"vectors {x.shape} and table {rows.shape}: give [..., feature] and [token, feature]")
    if not 1 <= k <= len(rows):
        raise ValueError(f"k = {k} of {len(rows)} tokens: give k from 1 to {len(rows)}")
    kind = np.result_type(x, rows, np.float32)
    unit = _unit(finite(x, "vectors").reshape(-1, x.shape[-1])).astype(kind)
    best, ids = np.empty((len(unit), 0), kind), np.empty((len(unit), 0), dtype=np.int64)
    step = max(k, _BLOCK // max(1, len(unit), rows.shape[1]))
    for start in range(0, len(rows), step):
        block = _unit(finite(rows[start : start + step], "table")).astype(kind)
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(unit), len(block)))
        # those kept so far have the lower ids and stand first, so equals stay in the order of ids
        cosines, numbers = np.concatenate([best, unit @ block.T], 1), np.concatenate([ids, numbers], 1)
        columns = _largest(cosines, k)
        best, ids = np.take_along_axis(cosines, columns, 1), np.take_along_axis(numbers, columns, 1)
    return ids.reshape(*x.shape[:-1], k), best.reshape(*x.shape[:-1], k)


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k largest of each row, largest first, of equal ones the first."""
    if k < values.shape[1]:
        row, column = np.nonzero(values >= np.partition(values, -k, axis=1)[:, -k:].min(axis=1, keepdims=True))
    else:
        row, column = np.indices(values.shape).reshape(2, -1)
    order = np.lexsort((column, -values[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)  # within its row; more than k where several are equal
    return column[place < k].reshape(-1, min(k, values.shape[1]))


# ------------------------------------------------------------------------------- thoughts beside explicit reasoning


def even_split(tokens: Sequence[int] | np.ndarray, parts: int) -> list[np.ndarray]:
    """Consecutive parts of a path of n tokens, part t = [floor(t n / parts), floor((t + 1) n / parts)); maybe empty."""
    _at_least_one(parts)
    ids = np.asarray(tokens, dtype=np.int64)
    ends = np.arange(parts + 1) * len(ids) // parts
    return [ids[a:b] for a, b in pairwise(ends)]


def compression_rate(
    probabilities: ArrayLike, tokens: ArrayLike, ks: Sequence[int] = (50, 100, 150, 200, 250, 300)
) -> dict[int, float]:
    """ECR@K of one example for each K: the tokens of an explicit path [n] that are among the K most likely of the
    thought [L, token] in charge of their even part, / L. Explicit reasoning itself has 1, the most is n / L.

    Repeated tokens count each time. A reconstruction of Latent-SFT's effective compression rate, whose code is not
    published: report the whole curve, and average over examples.
    """
    p, ids = _thoughts(probabilities), _tokens(tokens, np.shape(probabilities)[-1])
    for k in ks:
        _at_least_one(k)
    parts = even_split(ids, len(p))
    ranks = np.concatenate([_ranks(distribution, part) for distribution, part in zip(p, parts, strict=True)])
    return {k: int((ranks < k).sum()) / len(p) for k in ks}


@dataclass(frozen=True)
class Parallelism:
    """How many explicit paths thoughts cover about equally well. Scores that tell nothing give n_eff = paths."""

    n_eff: float  # exp of the weights' entropy, 1 to the number of paths
    runner_up: float  # second largest weight / largest: our reading of the "Top-2 score", whose definition is open
    naive: float  # mean n_eff with segments assigned at random; report n_eff / naive
    weights: np.ndarray  # of each path
    scores: np.ndarray  # mean log mass of each path, nats


def parallelism(
    probabilities: ArrayLike,
    paths: Sequence[ArrayLike],
    *,
    k: int | None = 100,
    temperature: float = 1.0,
    assignments: Sequence[ArrayLike] | None = None,
    trials: int = 64,
    seed: int = 0,
) -> Parallelism:
    """N_eff of one example: thoughts [L, token] beside M >= 2 explicit paths (token ids), each split into L even parts.

    score_m = mean over thoughts of log(mass of the different tokens of its part, among its k most likely, + 1e-12);
    weights = softmax(score / temperature). k None: all tokens. `assignments` says per path which part each thought gets
    (-1: none; `match_steps` makes them), default the same position; fewer than L entries: only those thoughts count.
    Longer paths have bigger parts and so more mass: report lengths. Copies of a path count as paths: drop them.
    Source: Latent-SFT's evaluation script, which counted repeated tokens twice.
    """
    p = _thoughts(probabilities)
    if len(paths) < 2:
        raise ValueError(f"{len(paths)} explicit paths: parallelism needs at least 2 different ones")
    if not temperature > 0 or trials < 1:
        raise ValueError(f"temperature {temperature}, {trials} trials: give both above 0")
    length = len(p)
    given = [np.arange(length)] * len(paths) if assignments is None else _checked(assignments, len(paths), length)
    if k is not None:
        _at_least_one(k)
        p = np.where(np.argsort(np.argsort(-p, axis=1, kind="stable"), axis=1) < k, p, 0)
    parts = [[np.unique(part) for part in even_split(_tokens(path, p.shape[1]), length)] for path in paths]
    mass = np.array([[p[:, part].sum(axis=1) for part in path] for path in parts])  # path, part, thought

    def score(assigned: Sequence[np.ndarray]) -> np.ndarray:
        covered = [np.where(a >= 0, mass[m][a, np.arange(len(a))], 0) for m, a in enumerate(assigned)]
        return np.array([np.log(part + _SMALLEST).mean() for part in covered])

    rng = np.random.default_rng(seed)
    random = [score([rng.permutation(length) for _ in paths]) for _ in range(trials)]
    scores = score(given)
    weights = path_weights(scores, temperature)
    ordered = np.sort(weights)[::-1]
    return Parallelism(
        n_eff=effective_paths(scores, temperature),
        runner_up=float(ordered[1] / ordered[0]),
        naive=float(np.mean([effective_paths(other, temperature) for other in random])),
        weights=weights,
        scores=scores,
    )


def _checked(assignments: Sequence[ArrayLike], paths: int, length: int) -> list[np.ndarray]:
    given = [np.asarray(a, dtype=np.int64) for a in assignments]
    if len(given) != paths or any(
        a.ndim != 1 or not 1 <= len(a) <= length or a.min() < -1 or a.max() >= length for a in given
    ):
        raise ValueError(
            f"assignments of shapes {[a.shape for a in given]} for {paths} paths and {length} thoughts: give each path "
            f"1 to {length} numbers of parts, -1 for none"
        )
    return given


def path_weights(scores: ArrayLike, temperature: float = 1.0) -> np.ndarray:
    """softmax(scores / temperature) [path]."""
    return softmax(finite(scores, "scores") / temperature)


def effective_paths(scores: ArrayLike, temperature: float = 1.0) -> float:
    """N_eff = exp of the entropy of the paths' weights: 1 to the number of paths."""
    return float(np.exp(entr(path_weights(scores, temperature)).sum()))


def match_steps(thoughts: ArrayLike, reference: ArrayLike, how: Literal["greedy", "optimal"] = "greedy") -> np.ndarray:
    """Which part each thought [L, feature] is nearest to, by cosine to the parts' reference vectors [parts, feature].

    greedy, as in Latent-SFT's script: thought 0 takes the nearest, thought 1 the nearest of the rest, and so on; only
    the first min(L, parts) thoughts. optimal: each part goes to at most one thought so that the sum of cosines is
    largest (Kuhn 1955), and with more thoughts than parts some get -1.
    """
    if how not in ("greedy", "optimal"):
        raise ValueError(f"matching {how!r}: use 'greedy' or 'optimal'")
    x, y = finite(thoughts, "thoughts"), finite(reference, "reference")
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"thoughts {x.shape} and reference {y.shape}: give [L, feature] and [parts, feature]")
    cosines = _unit(x) @ _unit(y).T
    if how == "optimal":
        found = np.full(len(x), -1, dtype=np.int64)
        rows, parts = linear_sum_assignment(cosines, maximize=True)
        found[rows] = parts
        return found
    taken = np.empty(min(cosines.shape), dtype=np.int64)
    for t in range(len(taken)):
        taken[t] = cosines[t].argmax()
        cosines[:, taken[t]] = -np.inf
    return taken


# ---------------------------------------------------------------------------------------------------- input


def _distributions(probabilities: ArrayLike) -> np.ndarray:
    p = finite(probabilities, "probabilities")
    if p.ndim == 0 or p.size == 0 or p.min() < 0 or np.abs(p.sum(axis=-1) - 1).max() > 1e-3:
        raise ValueError(
            f"probabilities of shape {p.shape}: give [..., token] of at least 0 that add up to 1, a softmax of logits"
        )
    return p


def _thoughts(probabilities: ArrayLike) -> np.ndarray:
    p = _distributions(probabilities)
    if p.ndim != 2:
        raise ValueError(f"probabilities of shape {p.shape}: give one example's thoughts, [thought, token]")
    return p


def _tokens(tokens: ArrayLike, vocabulary: int) -> np.ndarray:
    ids = np.asarray(tokens)
    if ids.ndim != 1 or (ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= vocabulary)):
        raise ValueError(f"tokens of shape {ids.shape}, {ids.dtype}: give a path's ids, from 0 to {vocabulary - 1}")
    return ids.astype(np.int64)


def _at_least_one(k: int) -> None:
    if k < 1:
        raise ValueError(f"{k} given as a count: give at least 1")


def _ranks(p: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How many tokens are likelier than each of ids (or as likely, with a lower id); the last place without mass."""
    mine = p[ids][:, None]
    ahead = (p > mine) | ((p == mine) & (np.arange(len(p)) < ids[:, None]))
    return np.where(mine[:, 0] > 0, ahead.sum(axis=1), np.iinfo(np.int64).max)


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)

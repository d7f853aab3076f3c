"""How much thoughts say about a label of the question: the answer, whether it came out right, an operation.

    classifier_information  H(Y) - cross-entropy of a held-out linear classifier: at most the truth, linear part only
    knn_information         from distances to neighbours with the same label: any dependence, few features

In nats. Both are compared with their floor: the same number on shuffled labels.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, entr

from ..scores import Interval, paired_difference
from .inputs import samples
from .neighbours import squared_distance_blocks


@dataclass(frozen=True)
class Information:
    """An estimate of I(vectors; label) beside what shuffled labels give."""

    nats: float  # can be below 0, where there is nothing to find
    floor: float  # mean over shuffled labels
    p_value: float  # of shuffled labels giving as much; at least 1 / (shuffles + 1)
    entropy: float  # H(label) in nats: all there is to know
    samples: int  # used: those whose label is frequent enough
    classes: int


def classifier_information(
    vectors: ArrayLike,
    labels: ArrayLike,
    *,
    folds: int = 5,
    shuffles: int = 5,
    strengths: tuple[float, ...] = (0.01, 0.1),
    seed: int = 0,
) -> Information:
    """H(label) - cross-entropy of a logistic regression on samples that it has not seen (stratified `folds`).

    In expectation a lower bound of the mutual information, since cross-entropy is at least the conditional entropy
    (Barber & Agakov 2003; as a measure of usable information: Xu et al. 2020). Vectors [n, feature] are standardised
    and weights shrunk; of `strengths` (scikit-learn's C, smaller shrinks more) the one that does best counts, for the
    floor too. Labels rarer than `folds` are left out. 2,000 x 128 with ten labels take ten seconds.
    """
    if folds < 2 or not strengths:
        raise ValueError(f"{folds} folds and {len(strengths)} strengths: give at least 2 folds and 1 strength")
    x, y = _labelled(vectors, labels, folds)
    scores = [max(_held_out(x, z, folds, s, seed) for s in strengths) for z in (y, *_shuffled(y, shuffles, seed))]
    return _beside_floor(scores[0], scores[1:], y)


@dataclass(frozen=True)
class Reading:
    """What a linear reader finds of a label in vectors, beside what it finds in others, in nats; intervals are over
    samples, floor is the most that it finds of shuffled labels."""

    found: Interval
    others: float
    gain: Interval  # found less others, by sample
    floor: float
    entropy: float  # all there is to know
    classes: int


def reading(
    vectors: ArrayLike,
    others: ArrayLike,
    labels: ArrayLike,
    *,
    level: float = 0.95,
    folds: int = 5,
    shuffles: int = 5,
    strengths: tuple[float, ...] = (0.01, 0.1),
    seed: int = 0,
) -> Reading:
    """`classifier_information` of a label in vectors [n, feature], and in `others` [n, feature] of the same samples.

    What thoughts say of a label beside what the words of their question say of it. ValueError as there.
    """
    x, z = samples(vectors), samples(others)
    both, y = _labelled(np.concatenate([x, z], 1), labels, folds)
    most, entropy = (x.shape[1], _entropy(y))

    def best(part: np.ndarray, known: np.ndarray) -> np.ndarray:
        tried = [log_chances(part, known, folds, strength, seed) for strength in strengths]
        return max(tried, key=lambda chances: float(chances.mean()))

    own, other = best(both[:, :most], y), best(both[:, most:], y)
    floor = max(float(best(both[:, :most], shuffled).mean()) for shuffled in _shuffled(y, shuffles, seed))
    found = paired_difference(own, np.full(len(y), -entropy), level, seed=seed)
    gain = paired_difference(own, other, level, seed=seed)
    return Reading(found, entropy + float(other.mean()), gain, entropy + floor, entropy, len(np.unique(y)))


def _held_out(x: np.ndarray, y: np.ndarray, folds: int, strength: float, seed: int) -> float:
    """Entropy of y less the cross-entropy of classifiers that were fitted on the other folds."""
    return _entropy(y) + float(log_chances(x, y, folds, strength, seed).mean())


def log_chances(x: np.ndarray, y: np.ndarray, folds: int, strength: float, seed: int) -> np.ndarray:
    """ln of the chance [n] that a classifier gives each sample's label y, a number from 0, without having seen it."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    found = np.zeros(len(y))
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y):
        centre, scale = x[train].mean(axis=0), x[train].std(axis=0)
        scaled = ((x - centre) / np.where(scale > 0, scale, 1)).astype(np.float32)  # half the time of float64
        model = LogisticRegression(C=strength, tol=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # whatever the weights, held-out samples judge them
            model.fit(scaled[train], y[train])
        chance = np.asarray(model.predict_proba(scaled[test]), dtype=np.float64)[np.arange(len(test)), y[test]]
        found[test] = np.log(np.maximum(chance, np.finfo(np.float32).tiny))
    return found


def knn_information(
    vectors: ArrayLike, labels: ArrayLike, *, k: int = 3, shuffles: int = 19, seed: int = 0
) -> Information:
    """psi(n) + psi(k) - mean psi(n_i) - mean psi(m_i): of vectors [n, feature] with discrete labels.

    n_i: samples with the label of sample i; m_i: samples at most as far as its k-th nearest one with that label, in
    Euclidean distance. Scales of features matter; with more than about ten, distances say little and the estimate
    falls towards 0: project on principal components first. Labels of at most k samples are left out.
    Source: Ross 2014, which scikit-learn's mutual_info_classif applies to one feature at a time. O(n^2).
    """
    if k < 1:
        raise ValueError(f"k = {k}: give at least 1, such as 3")
    x, y = _labelled(vectors, labels, k + 1)
    labelings = [y, *_shuffled(y, shuffles, seed)]
    total = np.zeros(len(labelings))
    for rows, squared in squared_distance_blocks(x, x):
        squared[np.arange(len(squared)), np.arange(len(x))[rows]] = 0
        for j, labeling in enumerate(labelings):
            radius = np.empty(len(squared))
            for label in np.unique(labeling[rows]):
                mine = labeling[rows] == label
                radius[mine] = np.partition(squared[np.ix_(mine, labeling == label)], k, axis=1)[:, k]
            # nearer than the k-th, and itself: as many as at most as far, without itself
            within = (squared <= np.nextafter(radius, 0)[:, None]).sum(axis=1)
            total[j] += digamma(within).sum()
    constant = digamma(len(y)) + digamma(k) - digamma(np.bincount(y)[y]).mean()
    found = constant - total / len(y)
    return _beside_floor(float(found[0]), found[1:].tolist(), y)


def _labelled(vectors: ArrayLike, labels: ArrayLike, need: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples whose label at least `need` have, and those labels as numbers from 0."""
    x, given = samples(vectors), np.asarray(labels)
    if given.shape != (len(x),):
        raise ValueError(f"labels of shape {given.shape} for {len(x)} samples: give one label per sample")
    _, y, count = np.unique(given, return_inverse=True, return_counts=True)
    kept = count[y] >= need
    found, y = np.unique(y[kept], return_inverse=True)
    if len(found) < 2:
        raise ValueError(
            f"{len(found)} labels occur {need} times or more: give labels with at least two frequent values "
            "(not one of its own per sample)"
        )
    return x[kept], y


def _shuffled(y: np.ndarray, shuffles: int, seed: int) -> list[np.ndarray]:
    if shuffles < 1:
        raise ValueError(f"{shuffles} shuffles: give at least 1, an estimate means nothing without its floor")
    rng = np.random.default_rng(seed)
    return [rng.permutation(y) for _ in range(shuffles)]


def _entropy(y: np.ndarray) -> float:
    return float(entr(np.bincount(y) / len(y)).sum())


def _beside_floor(nats: float, floor: list[float], y: np.ndarray) -> Information:
    p = (1 + sum(other >= nats for other in floor)) / (1 + len(floor))
    return Information(nats, float(np.mean(floor)), p, _entropy(y), len(y), len(np.unique(y)))

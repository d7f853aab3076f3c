"""What thoughts look like as a cloud of vectors, and whether they still say something about the question.

    relative spread = between-question variance / mean square      0: every question has the same thought
    slot cosine     = mean cosine between the slots of a question  1: several slots say what one says

Effective rank and cosine alone mislead: an untrained, nearly constant thought has a high rank, a useful one needs only
one or two directions. Read them beside relative spread and accuracy. `vectors` has the statistics as functions of plain
arrays, `tables` makes tables of stores.
"""

from .tables import MEANINGS, describe, positive_steps
from .vectors import (
    PositiveStep,
    Verdict,
    collapse,
    covariance_eigenvalues,
    effective_rank,
    feature_softmax_kl,
    gaussian_kl,
    gaussian_kl_moments,
    mean_cosine,
    norm_ratio,
    participation_ratio,
    positive_step,
    probe,
    relative_spread,
    slot_cosines,
    spread,
)

__all__ = [
    "MEANINGS",
    "PositiveStep",
    "Verdict",
    "collapse",
    "covariance_eigenvalues",
    "describe",
    "effective_rank",
    "feature_softmax_kl",
    "gaussian_kl",
    "gaussian_kl_moments",
    "mean_cosine",
    "norm_ratio",
    "participation_ratio",
    "positive_step",
    "positive_steps",
    "probe",
    "relative_spread",
    "slot_cosines",
    "spread",
]

"""What each statistic of thoughts is, in which unit, what it can be at all, and which way is good."""

import math

MEANINGS = {  # statistic: (unit, meaning)
    "spread": ("units²", "variance between questions at one step, mean over features"),
    "total_spread": ("units²", "the same, summed over features"),
    "relative_spread": ("share", "spread / mean square: 0 = the thought ignores the question"),
    "effective_rank": ("directions", "exp entropy of covariance eigenvalues: read beside relative_spread"),
    "participation_ratio": ("directions", "(sum of eigenvalues)^2 / sum of squares"),
    "cosine": ("cosine", "mean between questions at one step"),
    "centred_cosine": ("cosine", "the same after subtracting the mean thought"),
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
    "verdict": ("state", "0 healthy, 1 drifting, 2 collapsed, 3 undecided"),
}
LIMITS = {  # unit: what a statistic in it can be; intervals end there
    **{"share": (0.0, 1.0), "cosine": (-1.0, 1.0)},
    **{unit: (0.0, math.inf) for unit in ("units²", "directions", "dimensions", "ratio", "nats")},
}
# Which way thoughts that say something about their question lie from collapsed ones, all else being alike. "not by
# itself": a collapsed run can be on either side, since what is left of its thoughts is noise in all directions, or
# their size alone; read it beside relative_spread.
HEALTHY = {name: "not by itself" for name in MEANINGS} | {
    "relative_spread": "higher", "cosine": "lower",
    "slot_cosine": "lower", "slot_softmax_kl": "higher", "active_units": "higher", "norm_ratio": "near 1",
    "verdict": "lower",
}  # fmt: skip


def limits_of(name: str) -> tuple[float, float]:
    """The least and most that a statistic can be, by its unit; infinite where it has no end, or is not known here."""
    return LIMITS.get(MEANINGS.get(name.replace(" ", "_"), ("", ""))[0], (-math.inf, math.inf))

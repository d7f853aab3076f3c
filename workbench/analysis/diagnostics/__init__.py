"""What thoughts look like as a cloud of vectors, and whether they still say something about the question.

    relative spread = between-question variance / mean square      0: every question has the same thought
    slot cosine     = mean cosine between the slots of a question  1: several slots say what one says

Effective rank and cosine alone mislead: an untrained, nearly constant thought has a high rank, a useful one needs only
one or two directions. Read them beside relative spread and accuracy. Statistics are functions of plain arrays (feature
axis last): `cloud` has those of one cloud, `divergences` of two, `gaussianity` the tests, `thoughts` those that know
examples and steps, `verdict` the judgement. `tables` makes tables of stores, `comparisons` of stores beside each other
and beside their labels, `steps` of their positive steps; `streamed` is for stores larger than memory
(`blocks` reads them, `cloud_sums` has their clouds).
"""

from .cloud import (
    Drift,
    active_units,
    anisotropy,
    covariance_eigenvalues,
    drift,
    effective_rank,
    feature_variances,
    intrinsic_dimension,
    mean_cosine,
    neighbour_ratio,
    norm_ratio,
    participation_ratio,
    principal_axes,
    principal_components,
    relative_spread,
    spread,
)
from .comparisons import DIVERGENCES, divergence_table, drift_table, gaussianity_table, information_table, qq_table
from .divergences import (
    MMDTest,
    feature_softmax_kl,
    frechet_distance,
    gaussian_kl,
    gaussian_kl_moments,
    knn_kl,
    mmd,
    mmd_test,
    vocabulary_js,
    vocabulary_kl,
)
from .gaussianity import HenzeZirkler, Mardia, henze_zirkler, mahalanobis_qq, mardia
from .information import Information, classifier_information, knn_information
from .positive import PositiveStep, choice_stability, focus_weights, positive_step, random_step
from .readout import (
    Parallelism,
    compression_rate,
    effective_paths,
    even_split,
    match_steps,
    nearest_tokens,
    parallelism,
    path_weights,
    top_k_mass,
    top_tokens,
    vocabulary_entropy,
)
from .resampling import Estimate, bootstrap, jackknife
from .steps import (
    chosen_steps,
    focus_table,
    positive_steps,
    rule_agreement,
    rule_table,
    stability_table,
    step_choices,
    step_scores,
    step_table,
)
from .tables import MEANINGS, describe, feature_table, readout_table, spectrum_table, variance_table
from .thoughts import VariancePart, probe, slot_cosines, variance_parts
from .verdict import Thresholds, Verdict, collapse, glance

__all__ = [
    "DIVERGENCES",
    "MEANINGS",
    "Drift",
    "Estimate",
    "HenzeZirkler",
    "Information",
    "MMDTest",
    "Mardia",
    "Parallelism",
    "PositiveStep",
    "Thresholds",
    "VariancePart",
    "Verdict",
    "active_units",
    "anisotropy",
    "bootstrap",
    "choice_stability",
    "chosen_steps",
    "classifier_information",
    "collapse",
    "compression_rate",
    "covariance_eigenvalues",
    "describe",
    "divergence_table",
    "drift",
    "drift_table",
    "effective_paths",
    "effective_rank",
    "even_split",
    "feature_softmax_kl",
    "feature_table",
    "feature_variances",
    "focus_table",
    "focus_weights",
    "frechet_distance",
    "gaussian_kl",
    "gaussian_kl_moments",
    "gaussianity_table",
    "glance",
    "henze_zirkler",
    "information_table",
    "intrinsic_dimension",
    "jackknife",
    "knn_information",
    "knn_kl",
    "mahalanobis_qq",
    "mardia",
    "match_steps",
    "mean_cosine",
    "mmd",
    "mmd_test",
    "nearest_tokens",
    "neighbour_ratio",
    "norm_ratio",
    "parallelism",
    "participation_ratio",
    "path_weights",
    "positive_step",
    "positive_steps",
    "principal_axes",
    "principal_components",
    "probe",
    "qq_table",
    "random_step",
    "readout_table",
    "relative_spread",
    "rule_agreement",
    "rule_table",
    "slot_cosines",
    "spectrum_table",
    "spread",
    "stability_table",
    "step_choices",
    "step_scores",
    "step_table",
    "top_k_mass",
    "top_tokens",
    "variance_parts",
    "variance_table",
    "vocabulary_entropy",
    "vocabulary_js",
    "vocabulary_kl",
]

"""Metrics: one value per member, each written once as a function of sums over the examples.

Every function takes `Predictions` with any leading member dimensions and returns a float64 tensor of those
dimensions.
"""

# in the order of a Report
from lscal.metrics.metric import METRICS, Metric, applicable, metric

# isort: split
from lscal.metrics.scores import (
    accuracy,
    brier,
    brier_calibration,
    brier_refinement,
    nll,
    nll_calibration,
    nll_refinement,
    spherical,
    top_k_accuracy,
    worst_class_accuracy,
)

# isort: split
from lscal.metrics.calibration import (
    calibrated_ece,
    classwise_ece,
    confidence_gap,
    debiased_ece,
    debiased_rmsce,
    ece,
    equal_mass_ece,
    ks_error,
    mce,
    overconfidence,
    p_value,
    rmsce,
    smooth_ece,
    spiegelhalter,
    underconfidence,
)

# isort: split
from lscal.metrics.ranking import (
    augrc,
    aurc,
    coverage_at_risk,
    e_aurc,
    fidelity,
    misclassification_auroc,
    risk_at_coverage,
)

# isort: split
from lscal.metrics.human import agreement, human_ece, jensen_shannon, kl, soft_nll, total_variation

__all__ = [
    "METRICS",
    "Metric",
    "accuracy",
    "agreement",
    "applicable",
    "augrc",
    "aurc",
    "brier",
    "brier_calibration",
    "brier_refinement",
    "calibrated_ece",
    "classwise_ece",
    "confidence_gap",
    "coverage_at_risk",
    "debiased_ece",
    "debiased_rmsce",
    "e_aurc",
    "ece",
    "equal_mass_ece",
    "fidelity",
    "human_ece",
    "jensen_shannon",
    "kl",
    "ks_error",
    "mce",
    "metric",
    "misclassification_auroc",
    "nll",
    "nll_calibration",
    "nll_refinement",
    "overconfidence",
    "p_value",
    "risk_at_coverage",
    "rmsce",
    "smooth_ece",
    "soft_nll",
    "spherical",
    "spiegelhalter",
    "top_k_accuracy",
    "total_variation",
    "underconfidence",
    "worst_class_accuracy",
]

"""Recalibration: which of lscal's calibrators repairs a point's logits best, chosen on *calibrate* alone."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lscal import METRICS, Calibrator, Predictions
from lscal.crossfit import METHODS, best_of

TEMPERATURE = "temperature"
QUICK = (TEMPERATURE, "vector", "sms")
"""What a screening trial chooses among: all that is found within a tenth of a second for each trial."""
QUICK_FOLDS, FOLDS = 2, 3
SEEDS = 2
"""The members of a point on which its method is chosen; a method is one for all seeds of a point."""
MOST_CLASSES = {"sms": 128, "vector": 1024, "svs": 1024, "p_norm": 1024}
"""Classes up to which a method is tried: fitting takes minutes beyond."""
MOST_LOGITS = 1 << 24
"""Logits of *calibrate* on which a method is chosen at most; the first examples are taken where there are
more.
"""
MEASURED = ("accuracy", "nll", "brier", "ece", "aurc")
"""Metrics after the chosen recalibration, named `…_recalibrated`."""


def choose(
    logits: Float[Tensor, "seed example class"],
    labels: Int[Tensor, " example"],
    groups: Int[Tensor, " example"] | None = None,
    *,
    quick: bool = False,
) -> str:
    """The name of the calibrator with the lowest cross-fitted NLL on *calibrate*, see `best_of`: the simplest
    unless another is lower by more than a standard error.

    `quick` is for the screening: fewer methods and folds. Too few examples or groups for folds: temperature.
    """
    classes = logits.shape[-1]
    methods = [
        method for method in (QUICK if quick else METHODS) if classes <= MOST_CLASSES.get(method, classes)
    ]
    few = max(1, MOST_LOGITS // (classes * SEEDS))
    if groups is not None:
        groups = groups[:few]
    units = len(labels[:few]) if groups is None else len(torch.unique(groups))
    if len(methods) == 1 or units < 2:
        return TEMPERATURE
    folds = QUICK_FOLDS if quick else FOLDS
    return best_of(logits[:SEEDS, :few], labels[:few], methods, folds, groups).method


def metrics_after(predictions: Predictions, calibrator: Calibrator) -> dict[str, Float[Tensor, " seed"]]:
    """The metrics of `MEASURED` after a recalibration, by their name with its ending."""
    after = predictions.calibrated(calibrator)
    return {f"{name}_recalibrated": METRICS[name].function(after) for name in MEASURED}

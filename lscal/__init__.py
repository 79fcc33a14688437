"""lscal: logits and labels in, calibration numbers and pictures out; no Optuna, no MLflow, no network."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lscal.binning import BinnedStatistics
    from lscal.calibrators import (
        CALIBRATORS,
        Calibrator,
        EnsembleTemperature,
        PNorm,
        StructuredMatrixScaling,
        StructuredVectorScaling,
        Temperature,
        VectorScaling,
        calibrator_from_json,
    )
    from lscal.classwise import one_class
    from lscal.crossfit import best_of
    from lscal.epsilon import estimate_epsilon
    from lscal.estimate import Estimate, Resamples, differences, estimates
    from lscal.losses import (
        SmoothedCrossEntropy,
        confidence_penalised_cross_entropy,
        margin_smoothed_cross_entropy,
        smoothed_cross_entropy,
    )
    from lscal.metrics import METRICS
    from lscal.predictions import Predictions
    from lscal.report import Report
    from lscal.smoothing import DISTRIBUTIONS, Smoothing

HOMES = {
    "BinnedStatistics": "binning",
    "CALIBRATORS": "calibrators",
    "Calibrator": "calibrators",
    "DISTRIBUTIONS": "smoothing",
    "EnsembleTemperature": "calibrators",
    "Estimate": "estimate",
    "METRICS": "metrics",
    "PNorm": "calibrators",
    "Predictions": "predictions",
    "Report": "report",
    "Resamples": "estimate",
    "SmoothedCrossEntropy": "losses",
    "Smoothing": "smoothing",
    "StructuredMatrixScaling": "calibrators",
    "StructuredVectorScaling": "calibrators",
    "Temperature": "calibrators",
    "VectorScaling": "calibrators",
    "best_of": "crossfit",
    "calibrator_from_json": "calibrators",
    "confidence_penalised_cross_entropy": "losses",
    "differences": "estimate",
    "estimate_epsilon": "epsilon",
    "estimates": "estimate",
    "margin_smoothed_cross_entropy": "losses",
    "one_class": "classwise",
    "smoothed_cross_entropy": "losses",
}
"""Where each public name lives. It is imported when it is used: drawing a diagram does not need torch."""

__all__ = [
    "CALIBRATORS",
    "DISTRIBUTIONS",
    "METRICS",
    "BinnedStatistics",
    "Calibrator",
    "EnsembleTemperature",
    "Estimate",
    "PNorm",
    "Predictions",
    "Report",
    "Resamples",
    "SmoothedCrossEntropy",
    "Smoothing",
    "StructuredMatrixScaling",
    "StructuredVectorScaling",
    "Temperature",
    "VectorScaling",
    "best_of",
    "calibrator_from_json",
    "confidence_penalised_cross_entropy",
    "differences",
    "estimate_epsilon",
    "estimates",
    "margin_smoothed_cross_entropy",
    "one_class",
    "smoothed_cross_entropy",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name == "__version__":
        return version("lscal")
    if name in HOMES:
        return getattr(import_module(f"lscal.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

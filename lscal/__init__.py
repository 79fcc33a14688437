"""lscal: logits and labels in, calibration numbers and pictures out; no Optuna, no MLflow, no network."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lscal.binning import BinnedStatistics
    from lscal.calibrators import Calibrator, Temperature
    from lscal.estimate import Estimate
    from lscal.losses import smoothed_cross_entropy
    from lscal.metrics import METRICS
    from lscal.predictions import Predictions
    from lscal.report import Report
    from lscal.smoothing import DISTRIBUTIONS, Smoothing

HOMES = {
    "BinnedStatistics": "binning",
    "Calibrator": "calibrators",
    "DISTRIBUTIONS": "smoothing",
    "Estimate": "estimate",
    "METRICS": "metrics",
    "Predictions": "predictions",
    "Report": "report",
    "Smoothing": "smoothing",
    "Temperature": "calibrators",
    "smoothed_cross_entropy": "losses",
}
"""Where each public name lives. It is imported when it is used: drawing a diagram does not need torch."""

__all__ = [
    "DISTRIBUTIONS",
    "METRICS",
    "BinnedStatistics",
    "Calibrator",
    "Estimate",
    "Predictions",
    "Report",
    "Smoothing",
    "Temperature",
    "smoothed_cross_entropy",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name in HOMES:
        return getattr(import_module(f"lscal.{HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

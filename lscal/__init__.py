"""lscal: logits and labels in, calibration numbers and pictures out; no Optuna, no MLflow, no network."""

from lscal.binning import BinnedStatistics
from lscal.calibrators import Calibrator, Temperature
from lscal.estimate import Estimate
from lscal.losses import smoothed_cross_entropy
from lscal.metrics import METRICS
from lscal.predictions import Predictions
from lscal.report import Report
from lscal.smoothing import DISTRIBUTIONS, Smoothing

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

"""Calibrators: fitted, frozen maps from logits to logits."""

from lscal.calibrators.calibrator import Calibrator
from lscal.calibrators.temperature import Temperature

__all__ = ["Calibrator", "Temperature"]

"""Diagrams: the data of a picture first, then its drawing.

Each diagram is a frozen value of plain numbers, made from tensors by `of`; `dataclasses.asdict` gives what
JSON can hold. `draw` makes a Matplotlib figure, which changes nothing global. Importing this needs neither
torch nor Matplotlib.
"""

from lscal.diagrams.classwise_reliability import ClasswiseReliability
from lscal.diagrams.confidence_drop import ConfidenceDrop, Instance, Point
from lscal.diagrams.confidence_histogram import ConfidenceHistogram
from lscal.diagrams.reliability import Reliability, draw
from lscal.diagrams.risk_coverage import Curve, RiskCoverage
from lscal.diagrams.smooth_reliability import SmoothReliability
from lscal.diagrams.style import svg

__all__ = [
    "ClasswiseReliability",
    "ConfidenceDrop",
    "ConfidenceHistogram",
    "Curve",
    "Instance",
    "Point",
    "Reliability",
    "RiskCoverage",
    "SmoothReliability",
    "draw",
    "svg",
]

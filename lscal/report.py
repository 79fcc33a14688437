"""Report: every metric of one model or of a population, raw and after recalibration."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from lscal.binning import BinnedStatistics
from lscal.calibrators import Calibrator
from lscal.metrics import METRICS
from lscal.predictions import Predictions


@dataclass(frozen=True)
class Report:
    """The metrics of a set of predictions.

    Attributes:
        raw: each metric by name, one value per member.
        calibrated: the same after the calibrator.
        statistics: the raw predictions, binned: what a reliability diagram draws.
        statistics_calibrated: the same after the calibrator.
    """

    raw: dict[str, Float[Tensor, "*member"]]
    calibrated: dict[str, Float[Tensor, "*member"]]
    statistics: BinnedStatistics
    statistics_calibrated: BinnedStatistics

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "*member example class"],
        labels: Int[Tensor, " example"],
        calibrator: Calibrator,
    ) -> "Report":
        """Score logits as they are and after `calibrator`, which must have been fitted on other examples."""
        raw = Predictions.from_logits(logits, labels)
        calibrated = Predictions.from_logits(calibrator(logits), labels)
        return cls(
            raw={name: metric.function(raw) for name, metric in METRICS.items()},
            calibrated={name: metric.function(calibrated) for name, metric in METRICS.items()},
            statistics=BinnedStatistics.of(raw.confidence, raw.correct),
            statistics_calibrated=BinnedStatistics.of(calibrated.confidence, calibrated.correct),
        )

"""Report: every metric of one model or of a population, raw and after recalibration, with intervals where
asked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float, Integer
from torch import Tensor

from lscal.binning import BinnedStatistics
from lscal.estimate import Estimate, Resamples, estimates
from lscal.metrics import applicable
from lscal.predictions import Predictions
from lscal.summary import Whole


@dataclass(frozen=True, eq=False)
class Report:
    """The metrics of a set of predictions.

    Attributes:
        raw: each metric by name, one value per member.
        calibrated: the same after the calibrator.
        raw_estimates: the same with intervals; empty where no resamples were given.
        calibrated_estimates: the same after the calibrator, on the same resamples.
        statistics: the raw predictions, binned: what a reliability diagram draws.
        statistics_calibrated: the same after the calibrator.
    """

    raw: dict[str, Float[Tensor, "*member"]]
    calibrated: dict[str, Float[Tensor, "*member"]]
    raw_estimates: dict[str, Estimate]
    calibrated_estimates: dict[str, Estimate]
    statistics: BinnedStatistics
    statistics_calibrated: BinnedStatistics

    @classmethod
    def of(
        cls,
        logits: Float[Tensor, "*member example class"],
        labels: Integer[Tensor, " example"] | Float[Tensor, "example class"],
        calibrator: Callable[[Tensor], Tensor],
        *,
        names: Sequence[str] | None = None,
        resamples: Resamples | None = None,
        mask: Bool[Tensor, " example"] | None = None,
        ignore_index: int | None = None,
    ) -> "Report":
        """Score logits as they are and after `calibrator`, which must have been fitted on other examples.

        `names` are keys of `METRICS`, None for all that the labels allow. Intervals are over `resamples`,
        from `Resamples.draw(examples)`; none without. `mask` and `ignore_index` as in
        `Predictions.from_logits`.

        Errors: those of `Predictions.from_logits`, and ValueError for an unknown name.
        """
        raw = Predictions.from_logits(logits, labels, mask=mask, ignore_index=ignore_index)
        calibrated = raw.calibrated(calibrator)
        raw_values, raw_estimates, statistics = part(raw, names, resamples)
        del raw  # and the columns that were worked out of it
        values, found, statistics_calibrated = part(calibrated, names, resamples)
        return cls(raw_values, values, raw_estimates, found, statistics, statistics_calibrated)


def part(
    predictions: Predictions, names: Sequence[str] | None, resamples: Resamples | None
) -> tuple[dict[str, Float[Tensor, "*member"]], dict[str, Estimate], BinnedStatistics]:
    """Values, estimates and bins of some predictions."""
    whole = Whole(predictions)
    if resamples is None:
        return (
            {metric.name: metric.function(whole) for metric in applicable(predictions, names)},
            {},
            whole.bins,
        )
    found = estimates(predictions, names, resamples=resamples)
    return {name: estimate.value for name, estimate in found.items()}, found, whole.bins

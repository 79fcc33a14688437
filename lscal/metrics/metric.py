"""Metric: a named function of a Summary, and the register of all of them."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lscal.display import DISPLAY, Better, Display, display
from lscal.predictions import Predictions
from lscal.summary import Summary, Whole

Bound = int | float
Formula = Callable[[Summary], Float[Tensor, "*member"]]
Limits = Callable[[Summary, float], tuple[Float[Tensor, "*member"], Float[Tensor, "*member"]]]
Function = Callable[[Predictions | Summary], Float[Tensor, "*member"]]


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    Attributes:
        function: takes Predictions, or sums of them, and returns one value per member, float64.
        low, high: its range.
        of_distributions: whether it needs label distributions.
        limits: low and high of its interval at a level, where it has an interval of its own; None where
            resamples give it.
    """

    name: str
    function: Function
    low: Bound
    high: Bound
    of_distributions: bool = False
    limits: Limits | None = None

    @property
    def better(self) -> Better:
        """Its direction."""
        return display(self.name).better


METRICS: dict[str, Metric] = {}
"""Every metric by name, in the order of a Report."""


def metric(
    low: Bound,
    high: Bound,
    *,
    shown: Display | None = None,
    of_distributions: bool = False,
    interval: Limits | None = None,
) -> Callable[[Formula], Function]:
    """Register a formula under its name, so that every Report contains it, with an interval.

    `shown` is its entry in `lscal.display.DISPLAY`, where that has none. Errors: ValueError without either.
    """

    def register(formula: Formula) -> Function:
        if shown is not None:
            DISPLAY[formula.__name__] = shown
        if formula.__name__ not in DISPLAY:
            raise ValueError(f"{formula.__name__} has no entry in lscal.display.DISPLAY; give `shown`")

        @functools.wraps(formula)
        def function(of: Predictions | Summary) -> Float[Tensor, "*member"]:
            summary = Whole(of) if isinstance(of, Predictions) else of
            if of_distributions and summary.predictions.distribution is None:
                raise ValueError(
                    f"{formula.__name__} compares with label distributions; give labels of shape (N, K)"
                    " instead of (N,)"
                )
            return formula(summary)

        METRICS[formula.__name__] = Metric(formula.__name__, function, low, high, of_distributions, interval)
        return function

    return register


def applicable(predictions: Predictions, names: Sequence[str] | None = None) -> list[Metric]:
    """The metrics named, or all that these labels allow. Errors: ValueError for an unknown name, with the
    ones there are.
    """
    if names is None:
        return [
            metric
            for metric in METRICS.values()
            if predictions.distribution is not None or not metric.of_distributions
        ]
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"no metric named {unknown[0]!r}; there are {', '.join(METRICS)}")
    return [METRICS[name] for name in names]

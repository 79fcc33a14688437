"""Screening: the trials which were trained to their end, and smooth fits of their metrics on *select*; of accuracy on *calibrate* as well."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from tracking.evidence import BANDED, Band, Surface
from tracking.fit import Fit
from tracking.prices import Prices
from tracking.records import Outcome, Point, screened

STEPS = 40
"""Steps of the grid over the range of ε: hundredths in the default range."""

COLUMNS, ROWS = 20, 9
"""About how many ε, and values of another number, a surface has."""

Allowed = Callable[[Point], bool]


class Screening:
    """The evidence for choosing candidates. They are chosen from a grid over ε, not from the trials alone."""

    def __init__(
        self, outcomes: Sequence[Outcome], control: Outcome, prices: Prices, span: tuple[float, float], dropped: Sequence[Outcome] = ()
    ):
        """`outcomes` are finished trials, `control` among them; `span` is the range of ε; `dropped` are trials dropped at a rung."""
        self.outcomes = [priced(outcome, prices) for outcome in outcomes]
        self.control, self.span, self.dropped = control, span, tuple(dropped)
        self.fit = cache(self.fitted)

    def fitted(self, metric: str) -> Fit:
        """The smooth fit of a metric on *select*; of accuracy on *select* and *calibrate* together."""
        return Fit.of(self.outcomes, screened(metric, *self.outcomes), *self.span)

    @cached_property
    def grid(self) -> tuple[float, ...]:
        """Values of ε: 0, and even steps over the range."""
        low, high = self.span
        return tuple(sorted({0.0, *(round(low + (high - low) * step / STEPS, 6) for step in range(STEPS + 1))}))

    @cached_property
    def epsilons(self) -> tuple[float, ...]:
        """The ε which may become a candidate: of the grid those no further from a finished trial than from a dropped one, and 0."""
        finished = [outcome.epsilon for outcome in self.outcomes]
        dropped = [outcome.epsilon for outcome in self.dropped]

        def known(epsilon: float) -> bool:
            nearest = min(abs(epsilon - other) for other in finished)
            return min(finished) <= epsilon <= max(finished) and all(nearest <= abs(epsilon - other) for other in dropped)

        return tuple(epsilon for epsilon in self.grid if epsilon == 0 or known(epsilon))

    @cached_property
    def control_point(self) -> Point:
        """ε = 0; where more is tuned, with the values that are best for accuracy there: it is judged at its own best, as every other ε is."""
        if len(self.outcomes) == 1:
            return self.control.point
        named = {name: value for name, value in self.control.point.items() if name == "smoothing"}  # there all are the same
        return {**self.fit("accuracy").profile([0.0])[0], **named}

    @cached_property
    def points(self) -> list[Point]:
        """The points among which a candidate is chosen, by ascending |ε|; where more is tuned, with what is best for accuracy at each ε, so that ε
        is not credited with what another learning rate does. ε = 0 alone where no other trial reached its end.
        """
        if len(self.outcomes) == 1:
            return [self.control_point]
        others = sorted((epsilon for epsilon in self.epsilons if epsilon != 0), key=lambda epsilon: (abs(epsilon), -epsilon))
        return [self.control_point, *self.fit("accuracy").profile(others)]

    def value(self, metric: str, point: Point) -> float:
        """The fitted value of a metric at a point."""
        return (
            float(self.fit(metric).mean([point])[0]) if len(self.outcomes) > 1 else self.outcomes[0].mean(screened(metric, *self.outcomes))
        )

    def best(self, metric: str, sign: int) -> Point:
        """The point where `sign` times the fitted metric is largest; of equal ones that of the smallest |ε|."""
        points = self.points
        if len(points) == 1:
            return points[0]
        return points[highest(sign * self.fit(metric).mean(points))]

    def smallest_near_best(self, metric: str, allowed: Allowed) -> Point:
        """The smallest |ε| whose fitted value is within one standard error of the best, among the allowed points; among all where none but
        0 is allowed. More of the metric is better.

        The standard error is that of the best one's gain over ε = 0. Not that of each point's difference to the best: it is largest where
        least is known, between the trials.
        """
        points = self.points
        chosen = [point for point in points if point["epsilon"] == 0 or allowed(point)]
        if len(chosen) == 1:
            chosen = points
        if len(chosen) == 1:
            return chosen[0]
        fit = self.fit(metric)
        values = fit.mean(chosen)
        best = highest(values)
        error = fit.shift([chosen[best]], self.control_point).error[0]
        return chosen[highest(values >= values[best] - error)]

    def bands(self) -> dict[str, Band]:
        """Every metric of `BANDED` as a smooth function of ε; none where only ε = 0 reached its end."""
        if len(self.outcomes) == 1:
            return {}
        return {metric: self.fit(metric).band(self.grid) for metric in BANDED}

    def surfaces(self) -> dict[str, Surface]:
        """Accuracy over ε and each number which is tuned beside it; what else is tuned has the values of the most accurate point."""
        if len(self.outcomes) == 1:
            return {}
        fit, best, grid = self.fit("accuracy"), self.best("accuracy", 1), self.grid[:: STEPS // COLUMNS]
        found = {}
        for name, (low, high) in fit.space.numbers.items():
            values = [low * (high / low) ** (row / (ROWS - 1)) for row in range(ROWS)]
            points = [{**best, "epsilon": epsilon, name: value} for value in values for epsilon in grid]
            mean = fit.mean(points).reshape(ROWS, len(grid))
            others = {key: value for key, value in best.items() if key not in ("epsilon", name)}
            found[name] = Surface(tuple(grid), tuple(values), tuple(tuple(row) for row in mean.tolist()), others)
        return found


def priced(outcome: Outcome, prices: Prices) -> Outcome:
    """A trial with `select/cost`: the expected cost of each seed, at the coverage which `Prices.coverage_of` chooses on *calibrate*.

    A trial whose risks are not known is returned as it is.
    """
    if not outcome.risks:
        return outcome
    coverage = prices.coverage_of(outcome)
    costs = tuple(prices.cost_at(risks, coverage) for risks in outcome.risks["select_calibrated"])
    return replace(outcome, metrics={**outcome.metrics, "select/cost": costs})


def highest(values: npt.NDArray[np.float64] | npt.NDArray[np.bool_]) -> int:
    """The place of the largest value, to ten decimals; the first of equal ones."""
    return int(values.round(10).argmax()) if values.dtype.kind == "f" else int(values.argmax())

"""Screening: the trials which were trained to their end, and smooth fits of their metrics on *select*."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property

from tracking.evidence import BANDED, Band
from tracking.fit import Fit
from tracking.prices import Prices
from tracking.records import Outcome, Point

STEPS = 40
"""Steps of the grid over the range of ε: hundredths in the default range."""

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
        """The smooth fit of a metric on *select*."""
        return Fit.of(self.outcomes, f"select/{metric}", *self.span)

    @cached_property
    def grid(self) -> tuple[float, ...]:
        """Values of ε: 0 and even steps over the range."""
        low, high = self.span
        steps = {round(low + (high - low) * step / STEPS, 6) for step in range(STEPS + 1)}
        return tuple(sorted({0.0} | steps))

    @cached_property
    def points(self) -> list[Point]:
        """What may become a candidate: ε = 0, and points of the grid no further from a finished trial than from a dropped one."""
        finished = [outcome.epsilon for outcome in self.outcomes]
        dropped = [outcome.epsilon for outcome in self.dropped]
        lowest, highest = min(finished), max(finished)

        def known(epsilon: float) -> bool:
            nearest = min(abs(epsilon - other) for other in finished)
            return lowest <= epsilon <= highest and all(nearest <= abs(epsilon - other) for other in dropped)

        return [{**self.control.point, "epsilon": epsilon} for epsilon in self.grid if epsilon == 0 or known(epsilon)]

    def value(self, metric: str, point: Point) -> float:
        """The fitted value of a metric at a point."""
        return float(self.fit(metric).mean([point])[0])

    def best(self, metric: str, sign: int, allowed: Allowed = lambda _: True) -> Point:
        """The allowed point where `sign` times the fitted metric is largest; of equal ones that of the smallest ε."""
        points = [point for point in self.points if allowed(point)]
        values = self.fit(metric).mean(points)
        return max(zip(points, values, strict=True), key=lambda pair: (sign * pair[1], -pair[0]["epsilon"]))[0]

    def smallest_near_best(self, metric: str, allowed: Allowed) -> Point:
        """The smallest ε within one standard error of the best, among the allowed points; among all where none above 0 is allowed.

        The standard error is that of the difference to the best, by the fit.
        """
        chosen = [point for point in self.points if allowed(point)]
        if not any(point["epsilon"] > 0 for point in chosen):
            chosen = self.points
        best = self.best(metric, 1, lambda point: point in chosen)
        shift, error = self.fit(metric).shift(chosen, best)
        near = [point for point, less, doubt in zip(chosen, shift, error, strict=True) if less + doubt >= 0]
        return min(near, key=lambda point: point["epsilon"])

    def bands(self) -> dict[str, Band]:
        """Every metric of `BANDED` as a smooth function of ε."""
        return {metric: self.fit(metric).band(self.grid) for metric in BANDED}


def priced(outcome: Outcome, prices: Prices) -> Outcome:
    """A trial with `select/cost`: the expected cost of each seed, at the coverage which is cheapest on *calibrate* by the mean over seeds."""
    rows = outcome.risks["calibrate_calibrated"]
    coverage = prices.best_coverage([sum(column) / len(rows) for column in zip(*rows, strict=True)])
    costs = tuple(prices.cost_at(risks, coverage) for risks in outcome.risks["select_calibrated"])
    return replace(outcome, metrics={**outcome.metrics, "select/cost": costs})

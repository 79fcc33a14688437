"""Screening: the trials which were trained to their end, and smooth fits of their metrics on *select*; of
accuracy on *calibrate* as well.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt

from tracking.decision.fit import Fit
from tracking.decision.prices import Prices
from tracking.records.evidence import BANDED, Band, Surface
from tracking.records.outcome import Outcome, screened
from tracking.records.point import Point

STEPS = 40
"""Steps of the grid over the range of ε: hundredths in the default range."""

COLUMNS, ROWS = 20, 9
"""About how many ε, and values of another number, a surface has."""

SHORT = (0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)))
"""What a candidate is moved to, and below 0 their mirror images: more digits would suggest a precision that
no screening has.
"""

Allowed = Callable[[Sequence[Point]], npt.NDArray[np.bool_]]
"""Which of some points may become a candidate; ε = 0 always may."""


@dataclass(frozen=True)
class Tie:
    """The values of ε that the screening cannot tell apart from the best: from `low` to `high`, without a
    gap; and the one that stands for them.

    Attributes:
        epsilon: the candidate, one of them.
    """

    low: float
    high: float
    epsilon: float

    def __contains__(self, epsilon: float) -> bool:
        """Whether an ε is among them."""
        return self.low <= epsilon <= self.high


class Screening:
    """The evidence for choosing candidates. They are chosen from a grid over ε, not from the trials alone."""

    def __init__(
        self,
        outcomes: Sequence[Outcome],
        control: Outcome,
        prices: Prices,
        span: tuple[float, float],
        dropped: Sequence[Outcome] = (),
    ):
        """`outcomes` are finished trials, `control` among them; `span` is the range of ε; `dropped` are
        trials dropped at a rung.
        """
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
        return tuple(
            sorted({0.0, *(round(low + (high - low) * step / STEPS, 6) for step in range(STEPS + 1))})
        )

    @cached_property
    def epsilons(self) -> tuple[float, ...]:
        """The ε which may become a candidate: of the grid those no further from a finished trial than from a
        dropped one, and 0.
        """
        finished = [outcome.epsilon for outcome in self.outcomes]
        dropped = [outcome.epsilon for outcome in self.dropped]

        def known(epsilon: float) -> bool:
            nearest = min(abs(epsilon - other) for other in finished)
            return min(finished) <= epsilon <= max(finished) and all(
                nearest <= abs(epsilon - other) for other in dropped
            )

        return tuple(epsilon for epsilon in self.grid if epsilon == 0 or known(epsilon))

    @cached_property
    def control_point(self) -> Point:
        """ε = 0; where more is tuned, with the values that are best for accuracy there: it is judged at its
        own best, as every other ε is.
        """
        if len(self.outcomes) == 1:
            return self.control.point
        named = {
            name: value for name, value in self.control.point.items() if name == "smoothing"
        }  # there all are the same
        return {**self.fit("accuracy").profile([0.0])[0], **named}

    @cached_property
    def points(self) -> list[Point]:
        """The points among which a candidate is chosen, by ascending |ε|; where more is tuned, with what is
        best for accuracy at each ε, so that ε is not credited with what another learning rate does. ε = 0
        alone where no other trial reached its end.
        """
        if len(self.outcomes) == 1:
            return [self.control_point]
        others = sorted(
            (epsilon for epsilon in self.epsilons if epsilon != 0),
            key=lambda epsilon: (abs(epsilon), -epsilon),
        )
        return [self.control_point, *self.fit("accuracy").profile(others)]

    def value(self, metric: str, point: Point) -> float:
        """The fitted value of a metric at a point."""
        return (
            float(self.fit(metric).mean([point])[0])
            if len(self.outcomes) > 1
            else self.outcomes[0].mean(screened(metric, *self.outcomes))
        )

    def best(self, metric: str, sign: int) -> Point:
        """The point where `sign` times the fitted metric is largest; of equal ones that of the smallest
        |ε|.
        """
        points = self.points
        if len(points) == 1:
            return points[0]
        return points[highest(sign * self.fit(metric).mean(points))]

    def point_at(self, epsilon: float) -> Point:
        """The point with an ε: where more is tuned, with what is best for accuracy there."""
        return self.control_point if epsilon == 0 else self.fit("accuracy").profile([epsilon])[0]

    def tie(self, metric: str, sign: int, allowed: Allowed | None = None, *, cautious: bool = False) -> Tie:
        """What cannot be told apart from the best by a metric of which more is better (`sign` 1) or less
        (-1), and which ε stands for it.

        The best is that of the allowed points; of all where none but 0 is allowed. The tie is the best and
        its neighbours on the grid, as far as their fitted values are within one standard error of it; an ε
        which is not allowed, or not known (`epsilons`), ends it. The standard error is that of the best one's
        gain over ε = 0. Not that of each point's difference to the best: it is largest where least is known,
        between the trials.

        What stands for it is the best itself, which jumps along a plateau from seed to seed. If `cautious`,
        the middle of the tie on the scale of √ε, moved to a short value of the tie (`shortened`); and ε = 0
        wherever that is within one standard error of the best, as no other has shown anything then: the tie
        is that around ε = 0.
        """
        points = self.points
        if len(points) == 1:
            return Tie(0.0, 0.0, 0.0)
        may = np.ones(len(points), bool) if allowed is None else allowed(points)
        if may[1:].any():
            points = [point for point, one in zip(points, may, strict=True) if one or point["epsilon"] == 0]
        fit = self.fit(metric)
        values = sign * fit.mean(points)
        best = highest(values)
        error = float(fit.shift([points[best]], self.control_point).error[0])
        top = float(points[best]["epsilon"])
        behind = {
            float(point["epsilon"]): float(values[best] - value)
            for point, value in zip(points, values, strict=True)
        }
        near = {epsilon for epsilon, lost in behind.items() if lost <= error}
        named = 0.0 if cautious and 0 in near else top
        tied = stretch(self.grid, named, near)
        if cautious and named != 0:
            named = shortened(middle(tied[0], tied[-1]), tied, self.span)
        return Tie(tied[0], tied[-1], named)

    def bands(self) -> dict[str, Band]:
        """Every metric of `BANDED` as a smooth function of ε; none where only ε = 0 reached its end."""
        if len(self.outcomes) == 1:
            return {}
        return {metric: self.fit(metric).band(self.grid) for metric in BANDED}

    def surfaces(self) -> dict[str, Surface]:
        """Accuracy over ε and each number which is tuned beside it; what else is tuned has the values of the
        most accurate point.
        """
        if len(self.outcomes) == 1:
            return {}
        fit, best, grid = self.fit("accuracy"), self.best("accuracy", 1), self.grid[:: STEPS // COLUMNS]
        found = {}
        for name, (low, high) in fit.space.numbers.items():
            values = [low * (high / low) ** (row / (ROWS - 1)) for row in range(ROWS)]
            points = [{**best, "epsilon": epsilon, name: value} for value in values for epsilon in grid]
            mean = fit.mean(points).reshape(ROWS, len(grid))
            others = {key: value for key, value in best.items() if key not in ("epsilon", name)}
            found[name] = Surface(
                tuple(grid), tuple(values), tuple(tuple(row) for row in mean.tolist()), others
            )
        return found


def priced(outcome: Outcome, prices: Prices) -> Outcome:
    """A trial with `select/cost`: the expected cost of each seed, at the coverage which `Prices.coverage_of`
    chooses on *calibrate*.

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


def stretch(grid: Sequence[float], place: float, among: Collection[float]) -> list[float]:
    """The values of a grid around a place, as far as all of them are among some."""
    runs = (list(run) for inside, run in groupby(grid, among.__contains__) if inside)
    return next(run for run in runs if place in run)


def middle(low: float, high: float) -> float:
    """The middle of two ε on the scale of √ε, both at or above 0, or both at or below: small ε change
    most.
    """
    root = (abs(low) ** 0.5 + abs(high) ** 0.5) / 2
    return float(np.copysign(root**2, low + high))


def shortened(epsilon: float, tied: Sequence[float], span: tuple[float, float]) -> float:
    """The value nearest to an ε, of `SHORT`, their mirror images and the ends of the range, that lies in a
    tie; of equally near ones the smaller.

    Where none does, the ε to two significant digits; as it is where these would lead outside.
    """
    low, high = tied[0], tied[-1]
    values = {*SHORT, *(-value for value in SHORT), *span}
    if inside := [value for value in values if low <= value <= high]:
        return min(inside, key=lambda value: (round(abs(value - epsilon), 9), abs(value)))
    short = float(f"{epsilon:.2g}")
    return short if low <= short <= high else epsilon

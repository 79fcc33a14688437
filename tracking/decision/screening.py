"""Screening: the trials that were trained to their end, and smooth fits of their metrics on *select*; of
accuracy on *calibrate* as well.
"""

import math
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import groupby
from typing import Literal

import numpy as np
import numpy.typing as npt

from tracking.decision.fit import Fit
from tracking.decision.prices import Prices
from tracking.records.evidence import BANDED, Band, Surface
from tracking.records.outcome import Outcome, screened
from tracking.records.point import Point, drop_of

STEPS = 40
"""Steps of the grid over the range of ε: hundredths in the default range."""

COLUMNS, ROWS = 20, 9
"""About how many ε, and values of another number, a surface has; so many ε, too, at each share of a drop."""
SHARES = tuple(tenth / 10 for tenth in range(1, 10))
"""The shares of the training after which ε may fall to 0 in a candidate."""
BESIDE = 0.05
"""How far beyond the earliest and the latest drop of the trials that may be."""

Schedule = Literal["constant", "drop"]
"""Whether ε holds to the end of the training, or falls to 0 before."""

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
        drop: the share of the training after which ε is 0, for all of them; 1 where it is constant.
        value: the best's fitted value of the metric, times -1 where less is better.
    """

    low: float
    high: float
    epsilon: float
    drop: float = 1.0
    value: float = field(default=-math.inf, compare=False)

    def __contains__(self, epsilon: float) -> bool:
        """Whether an ε is among them."""
        return self.low <= epsilon <= self.high


class Screening:
    """The evidence for choosing candidates. They are chosen from a grid over ε, not from the trials alone.

    Trials with a constant ε and with one that falls to 0 are fitted together; candidates are chosen among
    those of one `schedule`.
    """

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
        self.schedule: Schedule = "constant"
        self.fit = cache(self.fitted)

    def on(self, schedule: Schedule) -> "Screening":
        """The same evidence, for candidates of a schedule."""
        found = copy(self)
        for name in ("grid", "epsilons", "control_point", "points", "shares"):
            found.__dict__.pop(name, None)
        found.schedule = schedule
        return found

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules that trials had, `constant` first, which is always there."""
        drops = any(outcome.epsilon != 0 and drop_of(outcome.point) < 1 for outcome in self.outcomes)
        return ("constant", "drop") if drops else ("constant",)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The shares of the training after which ε is 0 in a candidate: 1 where it is constant; else tenths
        in the range of the trials.
        """
        drops = [drop_of(outcome.point) for outcome in self.outcomes if self.tried(outcome)]
        if self.schedule == "constant" or not drops:
            return (1.0,)
        low, high = min(drops), max(drops)
        if low == high:
            return (low,)
        inside = tuple(share for share in SHARES if low - BESIDE <= share <= high + BESIDE)
        return inside or (round((low + high) / 2, 3),)

    def tried(self, outcome: Outcome) -> bool:
        """Whether a trial has this schedule, and an ε other than 0, where all schedules are the same."""
        return outcome.epsilon != 0 and (drop_of(outcome.point) < 1) == (self.schedule == "drop")

    def fitted(self, metric: str) -> Fit:
        """The smooth fit of a metric on *select*; of accuracy on *select* and *calibrate* together."""
        return Fit.of(self.outcomes, screened(metric, *self.outcomes), *self.span)

    def has(self, metric: str) -> bool:
        """Whether all trials have a metric on *select*."""
        return all(f"select/{metric}" in outcome.metrics for outcome in self.outcomes)

    @cached_property
    def grid(self) -> tuple[float, ...]:
        """Values of ε: 0, and even steps over the range."""
        (low, high), steps = self.span, STEPS if self.schedule == "constant" else COLUMNS
        return tuple(
            sorted({0.0, *(round(low + (high - low) * step / steps, 6) for step in range(steps + 1))})
        )

    @cached_property
    def epsilons(self) -> tuple[float, ...]:
        """The ε that may become a candidate: of the grid those no further from a finished trial than from a
        dropped one, and 0.
        """
        finished = [0.0, *(outcome.epsilon for outcome in self.outcomes if self.tried(outcome))]
        dropped = [outcome.epsilon for outcome in self.dropped if self.tried(outcome)]

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
        by_share = [self.fit("accuracy").profile(others, share) for share in self.shares]
        return [self.control_point, *(point for row in zip(*by_share, strict=True) for point in row)]

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

    def point_at(self, tie: Tie) -> Point:
        """The point that stands for a tie: where more is tuned, with what is best for accuracy there."""
        if tie.epsilon == 0:
            return self.control_point
        return self.fit("accuracy").profile([tie.epsilon], tie.drop)[0]

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

        Where ε falls to 0, the tie is at one share of the training: that of the best; if `cautious`, the
        middle of the shares around it at which some point is within one standard error of the best.
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
        behind = values[best] - values
        drop, at = drop_of(points[best]), best
        if points[best]["epsilon"] != 0 and len(self.shares) > 1:
            if cautious:
                near_shares = {
                    drop_of(point) for point, lost in zip(points, behind, strict=True) if lost <= error
                }
                around = stretch(self.shares, drop, near_shares)
                drop = around[(len(around) - 1) // 2]
            kept = [
                row for row, point in enumerate(points) if point["epsilon"] == 0 or drop_of(point) == drop
            ]
            points, values, behind = [points[row] for row in kept], values[kept], behind[kept]
            at = highest(values)
        top = float(points[at]["epsilon"])
        near = {float(point["epsilon"]) for point, lost in zip(points, behind, strict=True) if lost <= error}
        named = 0.0 if cautious and 0 in near else top
        tied = stretch(self.grid, named, near)
        if cautious and named != 0:
            named = shortened(middle(tied[0], tied[-1]), tied, self.span)
        return Tie(tied[0], tied[-1], named, drop if named != 0 else 1.0, float(values[at]))

    def bands(self) -> dict[str, Band]:
        """Every metric of `BANDED` as a smooth function of ε; none where only ε = 0 reached its end. Where ε
        falls to 0, at the most accurate share.
        """
        if len(self.points) == 1:
            return {}
        drop = 1.0 if self.schedule == "constant" else drop_of(self.points[1:][self.most_accurate()])
        return {metric: self.fit(metric).band(self.grid, drop) for metric in BANDED}

    def most_accurate(self) -> int:
        """The place of the point with the highest fitted accuracy, ε = 0 left out."""
        return highest(self.fit("accuracy").mean(self.points[1:]))

    def surfaces(self) -> dict[str, Surface]:
        """Accuracy over ε and each number that is tuned beside it; what else is tuned has the values of the
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
    """A trial with `select/cost`: the expected cost of each seed, at the coverage that `Prices.coverage_of`
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

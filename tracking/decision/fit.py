"""Fit: a metric of the screening as a smooth function of ε, and of whatever else is tuned, from trials with
paired seeds.

The value of trial t, trained with seed s, is taken as

    y[t, s] = f(x[t]) + b[s] + e[t, s]

with an effect b of the seed, the same in every trial, and f a Gaussian process of unknown level (Rasmussen
and Williams 2006, section 2.7) with a Matérn 5/2 kernel. Where all trials have the same seeds, b cancels in
every difference of two trials, so f's differences follow from the trials' means over seeds alone: nothing is
lost, see `test_trial_means_are_enough`.

What is not known is averaged over, not fixed at its most likely value, which with eight trials gives bands
that are far too narrow:

- f's scale (a flat prior on the standard deviation, Gelman 2006), its length, and how fast it moves near ε =
0: lengths are measured in
  log(1 + ε / knee), since the first hundredth of smoothing often changes more than all that follow.
- The shape of the noise e. Two trials of one seed share its initial weights and the order of its data, so
their noise is alike where their ε
  are close; and it is larger near ε = 0. Its covariance over trials is learned from the differences between
  seeds, which do not depend on f.
- The size of the noise, with Student's t. Its degrees of freedom, at most (T-1)(S-1) of S seeds and T-1 of
the trials' means, are
  reduced by Box's ε (Box 1954; Greenhouse and Geisser 1959) where the noise is unequal or alike.

Bands are for other seeds on the same examples: that *select* is itself a sample is not part of them. With a
single seed they are for that seed, since nothing tells how others would differ; what it has in common over
all ε, and over neighbouring ones, is taken as f.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tracking.records.evidence import Band
from tracking.records.outcome import Outcome
from tracking.records.point import Point, drop_of

Array = npt.NDArray[np.float64]

KNEES = (0.005, 0.03, 0.2)
"""How fast f may move near 0: below the knee lengths are shares of ε, above it ratios."""
LENGTHS = (0.3, 0.6, 1.2)
"""f's lengths, as shares of the range of ε that was searched."""
LENGTHS_OF_OTHERS = (0.5, 1.0, 2.0)
"""f's lengths along the other tuned values, as shares of their range; the same for all of them."""
SCALES = tuple(2.0**power for power in range(-2, 12))
"""f's standard deviation, in units of the noise of a trial's mean."""
SWELLS = (0.0, 1.0, 3.0)
"""By how much the noise is larger at ε = 0 than far from it."""
SWELL_LENGTH = 0.02
"""The ε over which that fades."""
ALIKE = (0.0, 0.5, 0.9)
"""The share of the noise's variance that neighbouring trials of a seed have in common."""
ALIKE_LENGTH = 0.3
"""How far neighbours are, as a share of the range of √ε."""
APART = 0.25
"""Share of the largest ε from which on two smoothings are whole distances apart: at ε = 0 all are the
same.
"""
NEGLIGIBLE = 1e-3
"""Of the weight of the likeliest curve: less is left out of the average."""
UPPER = 0.975
"""The quantile at the upper end of a 95 % interval."""
DRAWN = 64
"""Combinations of the other tuned values among which the best at each ε is sought, beside those of the
trials.
"""


class Shift(NamedTuple):
    """Differences of a metric between points and a reference.

    Attributes:
        value: posterior mean of f(point) - f(reference).
        error: its standard error; times Student's t of the fit's `freedom` it is half a confidence interval.
    """

    value: Array
    error: Array


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Points as numbers: ε, searched between `low` and `high`; and the other tuned values, (point,
    dimension).
    """

    epsilon: Array
    others: Array
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Space:
    """Where points lie. Numbers beside ε are tuned on a log scale; values that are text are the same or not.

    Attributes:
        low, high: the range of ε.
        numbers: name -> range over the trials; a number below it is taken for its lower end: 0 has no
            logarithm.
        words: name -> the texts that occur.
        drops: the range of the shares after which ε falls to 0, over the trials where it does; None where it
            never does, and where no other trial has a constant ε that it could be told from.
    """

    low: float
    high: float
    numbers: Mapping[str, tuple[float, float]]
    words: Mapping[str, tuple[str, ...]]
    drops: tuple[float, float] | None = None

    @classmethod
    def of(cls, points: Sequence[Mapping[str, Any]], low: float, high: float) -> Self:
        """The space that trials span; a name with the same value in all of them is no dimension."""
        drops = [drop for point in points if point["epsilon"] != 0 and (drop := drop_of(point)) < 1]
        varied = sorted(
            name
            for name in points[0]
            if name not in ("epsilon", "drop") and len({point[name] for point in points}) > 1
        )
        values = {name: sorted({point[name] for point in points}) for name in varied}
        words = {name: tuple(found) for name, found in values.items() if isinstance(found[0], str)}
        numbers = {}
        for name in (name for name in varied if name not in words):
            positive = [value for value in values[name] if value > 0]
            numbers[name] = (min(positive) / (1 if len(positive) == len(values[name]) else 10), max(positive))
        return cls(low, high, numbers, words, (min(drops), max(drops)) if drops else None)

    @property
    def tuned(self) -> bool:
        """Whether anything beside ε and its drop is tuned."""
        return bool(self.numbers or self.words)

    def coordinates(self, points: Sequence[Mapping[str, Any]]) -> Coordinates:
        """Points as numbers: a range has length 1, two different words are 1 apart, and so are a constant ε
        and one that falls to 0 as late as any; smoothings and drops only where ε gives them something to
        share.
        """
        columns = [
            [math.log(max(point[name], low) / low) / math.log(high / low) for point in points]
            for name, (low, high) in self.numbers.items()
        ]
        epsilon = np.array([point["epsilon"] for point in points], dtype=np.float64)
        mass = np.minimum(1, np.abs(epsilon) / (APART * max(abs(self.low), abs(self.high))))
        for name, words in self.words.items():
            size = 0.5**0.5 * (mass if name == "smoothing" else np.ones_like(mass))
            columns += [
                [(point[name] == word) * own for point, own in zip(points, size, strict=True)]
                for word in words
            ]
        if self.drops is not None:
            first, last = self.drops
            shares = np.array([drop_of(point) for point in points])
            columns += [
                mass * (np.minimum(shares, last) - first) / ((last - first) or 1.0),
                mass * (shares == 1),
            ]
        return Coordinates(
            epsilon,
            np.array(columns, dtype=np.float64).reshape(len(columns), len(points)).T,
            self.low,
            self.high,
        )

    def drawn(self, count: int) -> list[dict[str, Any]]:
        """Combinations of the other tuned values that fill their ranges evenly (an additive recurrence with
        roots of primes).
        """
        roots = dict(
            zip((*self.numbers, *self.words), (prime**0.5 for prime in (2, 3, 5, 7, 11, 13)), strict=False)
        )
        places = [{name: index * root % 1 for name, root in roots.items()} for index in range(1, count + 1)]
        return [
            {name: low * (high / low) ** place[name] for name, (low, high) in self.numbers.items()}
            | {name: words[int(place[name] * len(words))] for name, words in self.words.items()}
            for place in places
        ]


@dataclass(frozen=True, eq=False)
class Curve:
    """A Gaussian process with all but the size of its noise fixed, given the trials' means.

    Attributes:
        shape: knee, length and length of the others, see the constants.
        scale: f's standard deviation, in units of the noise of a trial's mean.
        weight: its probability.
        level: f's level, by generalised least squares.
        inverse: V⁻¹, with V = noise + scale² kernel over the trials.
        dual: V⁻¹(means - level): f's mean at x is level + scale² kernel(x, trials) · dual.
        variance: of a trial's mean, estimated; f's covariance is a multiple of it.
    """

    shape: tuple[float, float, float]
    scale: float
    weight: float
    level: float
    inverse: Array
    dual: Array
    variance: float


@dataclass(frozen=True, eq=False)
class Fit:
    """A metric as a smooth function of ε; made by `Fit.of`.

    Attributes:
        metric: such as `select/accuracy`.
        points: of the trials that the fit rests on.
        seeds: which these trials have in common.
        left_out: uids of the trials without these seeds, or with values that are not finite.
        curves: what is averaged over.
        freedom: degrees of freedom of the size of the noise.
        level_variance: of the mean seed effect, which all points share; 0 with one seed.
    """

    metric: str
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    left_out: tuple[str, ...]
    space: Space
    curves: tuple[Curve, ...]
    freedom: float
    level_variance: float

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], metric: str, low: float, high: float) -> Self:
        """The fit of a metric over trials; `low` and `high` are the range of ε that was searched.

        Trials need not have the same seeds: the set of seeds is taken that keeps the most members, the
        trials that have all of them take part with these, and the others are left out.

        Errors: ValueError where fewer than two trials remain.
        """
        kept, seeds = in_common(outcomes, metric)
        if len(kept) < 2:
            raise ValueError(
                f"{len(kept)} trials with the same seeds have finite values of {metric}; wanted at least 2."
            )
        columns = [dict(zip(one.seeds, one.metrics[metric], strict=True)) for one in kept]
        table = np.array([[column[seed] for seed in seeds] for column in columns], dtype=np.float64)
        space = Space.of([one.point for one in kept], low, high)
        coordinates = space.coordinates([one.point for one in kept])
        shape, variance, freedom = noise_of(table, coordinates)
        return cls(
            metric=metric,
            points=tuple(one.point for one in kept),
            seeds=seeds,
            left_out=tuple(one.uid for one in outcomes if one not in kept),
            space=space,
            curves=curves_of(table.mean(1), coordinates, shape, variance / len(seeds), freedom),
            freedom=len(kept) - 1 + freedom,
            level_variance=float(table.mean(0).var(ddof=1) / len(seeds)) if len(seeds) > 1 else 0.0,
        )

    def mean(self, points: Sequence[Point]) -> Array:
        """The posterior mean of f at points, for the mean over the seeds of the fit; in the metric's unit."""
        here, trials = self.space.coordinates(points), self.space.coordinates(self.points)
        cross = {shape: kernel(here, trials, shape) for shape in {curve.shape for curve in self.curves}}
        means = [
            curve.weight * (curve.level + curve.scale**2 * cross[curve.shape] @ curve.dual)
            for curve in self.curves
        ]
        mean: Array = np.sum(means, axis=0)
        return mean

    def posterior(self, points: Sequence[Point]) -> tuple[Array, Array]:
        """The posterior mean and covariance of f at points, given the seeds of the fit; the covariance at the
        estimated size of the noise.
        """
        here, trials = self.space.coordinates(points), self.space.coordinates(self.points)
        means, covariances = [], []
        for curve in self.curves:
            cross = curve.scale**2 * kernel(here, trials, curve.shape)
            own = curve.scale**2 * kernel(here, here, curve.shape)
            slack = 1 - cross @ curve.inverse.sum(1)
            means.append(curve.level + cross @ curve.dual)
            covariances.append(
                curve.variance
                * (own - cross @ curve.inverse @ cross.T + np.outer(slack, slack) / curve.inverse.sum())
            )
        weights = np.array([curve.weight for curve in self.curves])
        mean = weights @ np.array(means)
        apart = np.array(means) - mean
        return mean, np.tensordot(weights, np.array(covariances), 1) + (weights[:, None] * apart).T @ apart

    def shift(self, points: Sequence[Point], reference: Point) -> Shift:
        """The differences f(point) - f(reference), with their standard errors; the seed effects cancel in
        them.
        """
        mean, covariance = self.posterior([*points, reference])
        own = covariance.diagonal()
        squares = own[:-1] + own[-1] - 2 * covariance[:-1, -1]
        return Shift(mean[:-1] - mean[-1], np.sqrt(squares.clip(min=0.0)))

    def band(self, grid: Sequence[float], drop: float = 1.0) -> Band:
        """The mean, and the shift to ε = 0, at values of ε with 95 % bands; where more is tuned, along the
        `profile`. ε falls to 0 after the share `drop` of the training.

        The band of the mean is for other seeds: the posterior variance and that of the mean seed effect, with
        Satterthwaite's (1946) degrees of freedom. In that of the shift the seed effects cancel.
        """
        from scipy.special import stdtrit  # a fifth of a second to import

        *points, control = self.profile([*grid, 0.0], drop)
        mean, covariance = self.posterior(points)
        own = covariance.diagonal().clip(min=0.0)
        total = own + self.level_variance
        inverse_freedom = ((own / total) ** 2 / self.freedom) + (self.level_variance / total) ** 2 / max(
            len(self.seeds) - 1, 1
        )
        reach = stdtrit(1 / inverse_freedom, UPPER) * np.sqrt(total)
        shift, error = self.shift(points, control)
        away = stdtrit(self.freedom, UPPER) * error
        rows = (mean, mean - reach, mean + reach, shift, shift - away, shift + away)
        return Band(tuple(grid), *(tuple(row.tolist()) for row in rows))

    def profile(self, grid: Sequence[float], drop: float = 1.0) -> list[Point]:
        """At each ε, falling to 0 after the share `drop`, the other tuned values where the fit is best, see
        `goodness`; where ε alone is tuned, ε alone differs.

        They are sought among those of the trials and 64 more, which fill what the trials span. The best of
        many fitted values flatters a little, at ε = 0 as elsewhere.
        """
        kept = {"drop": drop} if "drop" in self.points[0] else {}
        rest = [
            {**{name: value for name, value in point.items() if name != "epsilon"}, **kept}
            for point in self.points
        ]
        rest = rest + [rest[0] | row for row in self.space.drawn(DRAWN)] if self.space.tuned else rest[:1]
        candidates = [
            [{"epsilon": epsilon, **row, **({"drop": 1.0} if kept and epsilon == 0 else {})} for row in rest]
            for epsilon in grid
        ]
        values = self.mean([point for row in candidates for point in row]).reshape(len(grid), len(rest))
        return [
            row[index] for row, index in zip(candidates, goodness(self.metric, values).argmax(1), strict=True)
        ]


def goodness(metric: str, values: Array) -> Array:
    """Values of a metric such that larger ones are better: accuracy and coverage as they are, a gap by how
    near 0 it is, losses with a minus.
    """
    if "accuracy" in metric or "coverage" in metric:
        return values
    return -np.abs(values) if "gap" in metric else -values


def in_common(outcomes: Sequence[Outcome], metric: str) -> tuple[list[Outcome], tuple[int, ...]]:
    """The trials that take part in a fit, and the seeds that all of them have."""
    finite = [
        one
        for one in outcomes
        if one.metrics.get(metric) and all(math.isfinite(value) for value in one.metrics[metric])
    ]
    kept: list[Outcome] = []
    seeds: tuple[int, ...] = ()
    for candidate in sorted({tuple(sorted(one.seeds)) for one in finite}):
        having = [one for one in finite if set(candidate) <= set(one.seeds)]
        if (len(having) > 1, len(having) * len(candidate)) > (len(kept) > 1, len(kept) * len(seeds)):
            kept, seeds = having, candidate
    return kept, seeds


def kernel(first: Coordinates, second: Coordinates, shape: tuple[float, float, float]) -> Array:
    """The correlation of f between points."""
    knee, length, others = shape
    apart = bent(first.epsilon, knee)[:, None] - bent(second.epsilon, knee)
    low, high = bent(np.array([first.low, first.high]), knee)
    apart /= (high - low) * length
    return matern(apart**2 + squares(first, second) / others**2)


def bent(epsilon: Array, knee: float) -> Array:
    """ε on a scale on which f moves evenly: log(1 + ε / knee), below 0 its mirror image."""
    bend: Array = np.sign(epsilon) * np.log1p(np.abs(epsilon) / knee)
    return bend


def matern(square: Array) -> Array:
    """The Matérn 5/2 correlation at a squared distance in units of the length."""
    distance = np.sqrt(5 * square)
    correlation: Array = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return correlation


def squares(first: Coordinates, second: Coordinates) -> Array:
    """Squared distances in the other tuned values."""
    found: Array = ((first.others[:, None] - second.others) ** 2).sum(-1)
    return found


def noise_of(table: Array, trials: Coordinates) -> tuple[Array, float, float]:
    """The covariance over trials of a member's noise, scaled to a mean variance of 1; that variance; and its
    degrees of freedom.

    `table` is (trial, seed). The differences between seeds are free of f. What a seed has in common over all
    trials is left out by its restricted likelihood, and the shapes of the noise are averaged by that.
    """
    count, seeds = table.shape
    if seeds == 1:
        return np.eye(count), 0.0, 0.0
    freedom = (count - 1) * (seeds - 1)
    differences = table - table.mean(1, keepdims=True)
    root = np.sign(trials.epsilon) * np.sqrt(np.abs(trials.epsilon) / max(abs(trials.low), abs(trials.high)))
    likeness = matern(((root[:, None] - root) ** 2 + squares(trials, trials)) / ALIKE_LENGTH**2)
    tiny = negligible(table)
    shapes, evidence = [], []
    for swell, alike in product(SWELLS, ALIKE):
        size = 1 + swell * np.exp(-np.abs(trials.epsilon) / SWELL_LENGTH)
        shape = np.outer(size, size) * (alike * likeness + (1 - alike) * np.eye(count))
        inverse = np.linalg.inv(shape)
        free = inverse - np.outer(inverse.sum(1), inverse.sum(1)) / inverse.sum()
        variance = float(np.einsum("ts,tu,us->", differences, free, differences)) / freedom + tiny
        evidence.append(
            -((seeds - 1) * (log_determinant(shape) + math.log(inverse.sum())) + freedom * math.log(variance))
            / 2
        )
        shapes.append(variance * shape)
    averaged = np.tensordot(weights_of(evidence), np.array(shapes), 1)
    variance = float(np.trace(averaged)) / count
    centred = averaged - averaged.mean(0) - averaged.mean(1)[:, None] + averaged.mean()
    return averaged / variance, variance, (seeds - 1) * float(np.trace(centred) ** 2 / (centred**2).sum())


def curves_of(
    means: Array, trials: Coordinates, noise: Array, variance: float, freedom: float
) -> tuple[Curve, ...]:
    """Gaussian processes of every shape and scale, weighted by likelihood and a flat prior on the scale.

    `variance`, with so many degrees of freedom, is that of the noise of a trial's mean. With n = T-1 +
    freedom, the likelihood, with level and size of the noise integrated out (prior 1/variance), is |V|^-1/2
    (1ᵀV⁻¹1)^-1/2 (misfit + freedom · variance)^-n/2.
    """
    total = len(means) - 1 + freedom
    known = freedom * variance + total * negligible(means)
    shapes = product(KNEES, LENGTHS, LENGTHS_OF_OTHERS if trials.others.size else LENGTHS_OF_OTHERS[:1])
    found: list[Curve] = []
    evidence: list[float] = []
    for shape in shapes:
        likeness = kernel(trials, trials, shape)
        for scale in SCALES:
            whole = noise + scale**2 * likeness
            inverse = np.linalg.inv(whole).astype(np.float64)
            level = float(inverse.sum(1) @ means / inverse.sum())
            dual: Array = inverse @ (means - level)
            left = float((means - level) @ dual) + known
            evidence.append(
                math.log(scale)
                - (log_determinant(whole) + math.log(inverse.sum()) + total * math.log(left)) / 2
            )
            found.append(Curve(shape, scale, 0.0, level, inverse, dual, left / total))
    weights = weights_of(evidence)
    weights[weights < NEGLIGIBLE * weights.max()] = 0.0
    weights /= weights.sum()
    return tuple(
        replace(curve, weight=float(weight)) for curve, weight in zip(found, weights, strict=True) if weight
    )


def weights_of(evidence: Sequence[float]) -> Array:
    """Probabilities from log likelihoods."""
    relative = np.exp(np.array(evidence) - max(evidence))
    weights: Array = relative / relative.sum()
    return weights


def log_determinant(matrix: Array) -> float:
    """The logarithm of the determinant of a covariance."""
    return float(np.linalg.slogdet(matrix)[1])


def negligible(values: Array) -> float:
    """A variance far below what matters, so that values that are all the same have a likelihood."""
    return 1e-14 * float((values**2).mean()) + 1e-30

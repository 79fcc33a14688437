"""Sequential claims: is a metric better than at ε = 0, looked at several times while seeds are added.

After S seeds a paired difference has variance v(S) = examples² + seeds²/S: every look sees the same examples
and more seeds. So Cov(D_j, D_k) = v(S_k) for j < k, which is the joint distribution of group-sequential
theory with information 1/v(S), and a look at S of S_max seeds has the share v(S_max)/v(S) of it. The chance
of a false claim is divided over the looks by a spending function of that share (Lan and DeMets 1983); each
look's critical value follows by recursive numerical integration (Armitage, McPherson and Rowe 1969; Jennison
and Turnbull 2000, chapter 19).

The variance is estimated, and anew at each look. So at each look all shares up to it are taken from its own
estimate, and:

- The difference over its standard error has Student's t distribution; it is read as the normal deviate of
equal tail probability.
- A handful of seeds that happen to agree would make a look appear precise and nearly complete at once. Shares
and degrees of freedom are
  therefore taken at the upper 90 % confidence limit of `seeds`², not at its estimate. The standard error
  keeps the estimate.

Value, p-value and interval of a claim are those of its last look, so they never disagree. Simulated type I
errors: docs/statistics.md.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from tracking.records.comparison import Claim
from tracking.records.outcome import Interval

Better = Literal[1, -1]
"""1 where a higher value is better (accuracy), -1 where a lower one is (NLL, cost)."""
State = Literal["proven", "hopeless", "open"]
Name = TypeVar("Name", bound=Hashable)
Floats = NDArray[np.float64]
LEVEL = 0.025
"""One-sided level of a claim: that of one end of a two-sided 95 % interval."""
BATCH = 4
"""Seeds are added in multiples of so many."""
MOST_LOOKS = 8
MOST_SEEDS = 4096
APART = 0.001
"""Shares that lie closer are integrated as if they were so far apart, which errs on the safe side."""
REACH, FAR = 6.5, 38.0
NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
CAUTION = 0.9


def looks(seeds: int) -> tuple[int, ...]:
    """How many seeds there are at each look of a confirmation with so many: at most eight looks, a multiple
    of 4 seeds apart.
    """
    step = BATCH * math.ceil(seeds / (BATCH * MOST_LOOKS))
    return (*range(step, seeds, step), seeds)


def claim(looked: Mapping[int, Interval], planned: int, better: Better) -> Claim:
    """What the looks so far say of a paired difference to ε = 0.

    Args:
        looked: seeds at each look, ascending -> the difference found there, with its `examples`, `seeds` and
            `freedom`.
        planned: seeds at the last look that will be taken. Where the budget ends earlier: those there are.
        better: the direction of a gain.

    `p` is the repeated one-sided p-value (Jennison and Turnbull 2000, section 9.3), the least level at which
    the last look crosses its critical value; never below the sequential p-value of Liu and Anderson (2008),
    which takes the best look so far. Above 1/2 it is given as 1. `low` and `high` are the repeated 95 %
    interval (Jennison and Turnbull 1989), value ± b·error, with b the quantile of Student's t that leaves as
    much in its tail as the critical value at level 0.025 leaves in that of the normal distribution.

    Errors: ValueError where there is no look, they do not ascend, or there are more seeds than planned.
    """
    from scipy.special import ndtr, ndtri, stdtr, stdtrit  # a third of a second to import

    counts = tuple(looked)
    if not counts or list(counts) != sorted(set(counts)) or counts[0] < 1 or counts[-1] > planned:
        raise ValueError(
            f"the looks were at {counts} of {planned} seeds; wanted at least one, in ascending order, up to"
            f" {planned}"
        )
    last, seeds = looked[counts[-1]], counts[-1]
    error, freedom = last.error(seeds), cautious_freedom(last, seeds)
    shares = cautious_shares(last, counts, planned)
    half = -float(stdtrit(freedom, ndtr(-critical(shares, LEVEL)[-1]))) * error
    gain = better * last.value
    tail = float(stdtr(freedom, -abs(gain) / error)) if error > 0 else 0.5 * (gain == 0)
    p = least_level(shares, -float(ndtri(tail))) if gain > 0 else 1.0
    return Claim(
        p, last.value - half, last.value + half, counts, tuple(look.value for look in looked.values())
    )


def state_of(found: Claim, better: Better, least: float = 0.0) -> State:
    """Whether a claim is settled, so that no more seeds are needed for it.

    `proven`: the whole interval is a gain. `hopeless`: all of it is a gain of less than `least`, or a loss.
    Else `open`.
    """
    low, high = sorted((better * found.low, better * found.high))
    return "proven" if low > 0 else "hopeless" if high < least else "open"


def seeds_to_settle(interval: Interval, seeds: int, threshold: float, better: Better) -> int | None:
    """How many more seeds would bring the interval to the better side of the threshold, if estimate and
    variances stayed as they are.

    A multiple of 4. The half width is that of the last look of a confirmation with so many seeds. None where
    no number of seeds is enough: where the examples alone leave too much doubt (`examples_to_settle`), or the
    estimate itself is on the wrong side.
    """
    margin = better * (interval.value - threshold)
    if margin <= half_width(interval, math.inf):
        return None

    def enough(batches: int) -> bool:
        return half_width(interval, seeds + BATCH * batches) < margin

    batches = first(enough, MOST_SEEDS // BATCH)
    return None if batches is None else BATCH * batches


def examples_to_settle(
    interval: Interval, seeds: int, examples: int, threshold: float, better: Better
) -> int | None:
    """How many test examples, in all, would bring the interval to the better side of the threshold with as
    many seeds.

    Where estimate and variances per example stay as they are: the half width goes with 1/√n, as seeds differ
    on a test set mostly by how they treat single examples. None where the estimate itself is on the wrong
    side.
    """
    margin = better * (interval.value - threshold)
    return math.ceil(examples * max(1.0, half_width(interval, seeds) / margin) ** 2) if margin > 0 else None


def half_width(interval: Interval, seeds: float) -> float:
    """Half of the repeated 95 % interval after so many seeds, planned from the beginning; with infinitely
    many, the examples' part.
    """
    from scipy.special import ndtr, ndtri, stdtrit

    if math.isinf(seeds):
        return -float(ndtri(LEVEL)) * interval.examples
    then, planned = replace(interval, freedom=math.inf), looks(int(seeds))
    tail = ndtr(-critical(cautious_shares(then, planned, planned[-1]), LEVEL)[-1])
    return -float(stdtrit(cautious_freedom(then, int(seeds)), tail)) * then.error(int(seeds))


def first(enough: Callable[[int], bool], most: int) -> int | None:
    """The least whole number from 1 on that is enough, if up to `most` one is: by doubling, then halving."""
    high = 1
    while not enough(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def cautious_seeds(interval: Interval, seeds: int) -> float:
    """The upper 90 % confidence limit of `seeds`², known from so many seeds: seeds²·(S-1)/χ², with the 10 %
    quantile of χ².
    """
    from scipy.special import chdtri

    return (
        interval.seeds**2 * (seeds - 1) / float(chdtri(seeds - 1, CAUTION))
        if seeds > 1
        else interval.seeds**2
    )


def cautious_shares(interval: Interval, counts: Sequence[int], planned: int) -> tuple[float, ...]:
    """The share v(planned)/v(S) of the information that each look has, 1 at the planned last one."""
    seeds = cautious_seeds(interval, counts[-1])
    variances = [interval.examples**2 + seeds / count for count in (*counts, planned)]
    return tuple(variances[-1] / variance if variance > 0 else 1.0 for variance in variances[:-1])


def cautious_freedom(interval: Interval, seeds: int) -> float:
    """Degrees of freedom of the variance (Satterthwaite 1946), with the seeds' part at its upper limit; at
    most the interval's own.
    """
    part = cautious_seeds(interval, seeds) / seeds
    return (
        min(interval.freedom, (seeds - 1) * (1 + interval.examples**2 / part) ** 2)
        if part > 0 and seeds > 1
        else interval.freedom
    )


def least_level(shares: Sequence[float], deviate: float) -> float:
    """The one-sided level at which the last look's critical value is just this deviate; 1 where that is above
    1/2.

    By secants over the normal deviate of the level, in which the critical value is almost linear; it is at
    least that deviate/√share. Error below 0.01 %.
    """
    from scipy.special import ndtr

    def excess(normal: float) -> float:
        return critical(shares, float(ndtr(-normal)))[-1] - deviate

    if math.isinf(deviate):
        return 0.0
    before, normal = 0.0, deviate * math.sqrt(shares[-1])
    wrong_before, wrong = excess(before), excess(normal)
    if wrong_before >= 0:
        return 1.0
    while abs(wrong) > 1e-6:
        slope = (wrong - wrong_before) / (normal - before)
        before, wrong_before = normal, wrong
        normal = max(normal - wrong / slope, 0.0)
        wrong = excess(normal)
    return float(ndtr(-normal))


def critical(shares: Sequence[float], level: float) -> tuple[float, ...]:
    """One-sided critical values of a normal deviate at each look, which together are crossed by chance with
    probability α(last share).

    α(t) = 2 - 2Φ(z/√t), z the upper level/2 quantile: little is spent early, as by O'Brien and Fleming (Lan
    and DeMets 1983); α(1) = level.

    Args:
        shares: of the information, ascending, in (0, 1].
        level: one-sided, in (0, 1).
    """
    from scipy.special import ndtr, ndtri

    times = separate(shares)
    spent = 2 * ndtr(ndtri(level / 2) / np.sqrt(times))
    chances = np.diff(spent, prepend=0.0)
    least, most = (
        np.minimum(-ndtri(spent), FAR),
        np.minimum(-ndtri(chances), FAR),
    )  # were all of it spent here, and were none spent before
    walk = Walk(times, least)
    found = []
    for look, chance in enumerate(chances):
        low, high = least[look], most[look]
        while high - low > 1e-8:
            middle = (low + high) / 2
            low, high = (middle, high) if walk.beyond(look, middle) >= chance else (low, middle)
        found.append(float(high))
        walk.go_on(look, high)
    return tuple(found)


def crossing(shares: Sequence[float], bounds: Sequence[float], drift: float) -> float:
    """The probability that the deviate of some look exceeds its bound, where the last share's deviate has
    mean drift·√share.
    """
    walk = Walk(separate(shares), np.array(bounds), drift)
    crossed = 0.0
    for look, bound in enumerate(bounds):
        crossed += walk.beyond(look, bound)
        walk.go_on(look, bound)
    return crossed


def separate(shares: Sequence[float]) -> Floats:
    """The shares, at least `APART` from each other. Errors: ValueError where they do not ascend within (0,
    1].
    """
    times = np.array(shares, dtype=np.float64)
    if not (times.size and times[0] > 0 and times[-1] <= 1 and (np.diff(times) >= 0).all()):
        raise ValueError(f"the shares of information are {tuple(shares)}; wanted ascending numbers in (0, 1]")
    room = APART * np.arange(times.size)
    apart: Floats = np.minimum.accumulate((times - room)[::-1])[::-1] + room
    return apart


class Walk:
    """Where Brownian motion with drift is at each look, on the paths that have crossed no bound before and
    can still cross one.

    The density is held at the nodes of Gauss-Legendre panels as fine as the steps before and behind it.
    `least` holds, for each look, a deviate that its bound is not below.
    """

    def __init__(self, times: Floats, least: Floats, drift: float = 0.0) -> None:
        self.times, self.drift = times, drift
        self.least = least * np.sqrt(times)
        self.steps = np.sqrt(np.diff(times, prepend=0.0))
        self.places: Floats = np.zeros(1)
        self.masses: Floats = np.ones(1)

    def beyond(self, look: int, bound: float) -> float:
        """The probability to cross this bound, of a deviate, at this look and at none before."""
        from scipy.special import ndtr

        ahead = self.drift * self.steps[look] ** 2 + self.places - bound * math.sqrt(self.times[look])
        return float(self.masses @ ndtr(ahead / self.steps[look]))

    def go_on(self, look: int, bound: float) -> None:
        """Keep the paths below the bound at this look, unless it is the last."""
        if look + 1 == len(self.times):
            return
        step, time = self.steps[look], self.times[look]
        middle, reach = self.drift * time, REACH * math.sqrt(time)
        later = self.times[look + 1 :] - time
        hopeless = float((self.least[look + 1 :] - self.drift * later - REACH * np.sqrt(later)).min())
        low, high = max(middle - reach, hopeless), min(middle + reach, bound * math.sqrt(time))
        places, widths = panels(low, high, min(step, self.steps[look + 1]))
        moved = (places[:, None] - self.places - self.drift * step**2) / step
        self.masses = widths * (np.exp(-(moved**2) / 2) @ self.masses) / (step * math.sqrt(2 * math.pi))
        self.places = places


def panels(low: float, high: float, width: float) -> tuple[Floats, Floats]:
    """Nodes and weights of eight-point Gauss-Legendre rules on panels of at most four widths."""
    count = max(1, math.ceil((high - low) / (4 * width)))
    half = max(high - low, 0.0) / (2 * count)
    centres = low + half * (2 * np.arange(count) + 1)
    return (centres[:, None] + half * NODES).ravel(), np.tile(half * WEIGHTS, count)

"""The pilot: what a sweep will be able to tell, from its first two pairs of members.

A pair is trained from one seed at ε = 0 and at ε > 0. On an example, d is +1 where only the second is right, -1 where only the first is, else 0.
With a_i what all seeds share on example i, b_s what seed s does everywhere, and e_si the rest, d_si = gain + a_i + b_s + e_si, and the mean over
S seeds and n test examples has the variance

    σ_x²/n + σ_d²/S,    σ_d² = σ_b² + σ_e²/n,

of which more seeds never remove the first part. d² has mean ψ, the discordance of McNemar's test (Connor 1987); σ_x² = ρψ and σ_e² = (1-ρ)ψ,
where ρ is the share of it which two seeds have in common. Two seeds on some hundred examples leave a handful of discordant ones, and one degree
of freedom for σ_b. So ρ and σ_b² are drawn towards what was measured on whole tasks (docs/statistics.md), the more the fewer there are.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tracking.evidence import Pilot
from tracking.records import Interval
from tracking.sequential import BATCH, LEVEL, MOST_SEEDS, cautious_freedom, cautious_shares, critical, crossing, first, looks

POWER = 0.8
"""The probability with which a gain that is called detectable is found."""

NEAR = 1.1
"""Where examples are the limit, seeds are added until the detectable gain is within this factor of what infinitely many would reach."""

COMMON, WORTH = 0.3, 3.0
"""ρ before anything is seen, and how many discordant examples that is worth."""

BEYOND, SPREAD = 6e-5, 1.2
"""σ_b²/ψ before anything is seen: its median, and the standard deviation of its logarithm."""

FINE = 64
MOST_SHARES = 1 << 16


@dataclass(frozen=True)
class Parts:
    """What the variance of a difference in accuracy is made of.

    Attributes:
        shared: σ_x², the variance over examples that all seeds share.
        own: σ_e², the variance over examples of each seed.
        beyond: σ_b², the variance over seeds with infinitely many examples.
    """

    shared: float
    own: float
    beyond: float

    @classmethod
    def of(cls, differences: NDArray[np.float64]) -> "Parts":
        """From d, of shape (2, example).

        ψ = (discordant examples, mean over seeds, + 1/2)/(n + 1/2). ρ = (Σ d₁d₂ + 3·0.3)/(Σ (d₁² + d₂²)/2 + 3), cut at 0. σ_b is the posterior mean,
        given that D₁ - D₂, the means over examples, is normal with variance 2(σ_b² + σ_e²/n), and that σ_b² is log-normal with median 6·10⁻⁵ψ.
        """
        one, two = differences
        discordant = float(one @ one + two @ two) / 2
        discordance = (discordant + 0.5) / (len(one) + 0.5)
        common = max(float(one @ two) + WORTH * COMMON, 0.0) / (discordant + WORTH)
        own = (1 - common) * discordance
        deviates = np.linspace(-4, 4, 81)
        possible = BEYOND * discordance * np.exp(SPREAD * deviates)
        variance = 2 * (possible + own / len(one))
        likely = np.exp(-(deviates**2) / 2 - (one.mean() - two.mean()) ** 2 / (2 * variance)) / np.sqrt(variance)
        return cls(common * discordance, own, float(likely @ np.sqrt(possible) / likely.sum()) ** 2)

    def on(self, examples: float) -> Interval:
        """A difference with both parts of its error on so many test examples."""
        return Interval(0.0, 0.0, 0.0, math.sqrt(self.shared / examples), math.sqrt(self.beyond + self.own / examples))


@dataclass(frozen=True)
class Design:
    """A confirmation with the looks of `tracking.sequential`: `error` has the two parts of its error, `seeds` is how many are planned."""

    error: Interval
    seeds: int

    @cached_property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """At each look, Student's t that proves a gain, and the degrees of freedom."""
        from scipy.special import ndtr, stdtrit

        found = []
        planned = looks(self.seeds)
        for place, seeds in enumerate(planned):
            shares = cautious_shares(self.error, planned[: place + 1], self.seeds)
            bound = -float(stdtrit(cautious_freedom(self.error, seeds), ndtr(-critical(shares, LEVEL)[-1])))
            part = self.error.seeds**2 / seeds
            found.append((bound, min((seeds - 1) * (1 + self.error.examples**2 / part) ** 2, 1e6) if part > 0 and seeds > 1 else 1e6))
        return tuple(found)

    def power(self, gain: float) -> float:
        """The probability that this true gain is proven at some look.

        Each look's own probability is that of the noncentral t distribution; their joint distribution is taken as that of normal deviates.
        """
        from scipy.special import nctdtr, ndtri

        planned = looks(self.seeds)
        deviates = []
        for seeds, (bound, freedom) in zip(planned, self.bounds, strict=True):
            expected = gain / self.error.error(seeds)
            missed = max(
                float(nctdtr(freedom, min(expected, 30.0), bound)), 1e-12
            )  # above 35 nctdtr may be NaN; a later look then finds it
            deviates.append(expected + float(ndtri(missed)))
        final = self.error.error(self.seeds)
        return crossing([(final / self.error.error(seeds)) ** 2 for seeds in planned], deviates, gain / final)

    def detectable(self) -> float:
        """The gain which is proven with probability 0.8, to a thousandth of it."""
        last = self.error.error(self.seeds)
        low, high = max(limit(self.error), last / 64), 64 * last  # a gain of a 64th of the last error is hardly ever proven
        while high > 1.001 * low:
            middle = math.sqrt(low * high)
            low, high = (low, middle) if self.power(middle) >= POWER else (middle, high)
        return high


def limit(error: Interval) -> float:
    """The gain which infinitely many seeds prove with probability 0.8 in one look: (z₀.₉₇₅ + z₀.₈)·σ_x/√n."""
    from scipy.special import ndtri

    return float(ndtri(1 - LEVEL) + ndtri(POWER)) * error.examples


def seeds_for(error: Interval, gain: float) -> int | None:
    """The least multiple of 4 of seeds with which this gain is proven with probability 0.8; None where no number is enough."""
    if limit(error) >= gain:
        return None
    batches = first(lambda batches: Design(error, BATCH * batches).power(gain) >= POWER, MOST_SEEDS // BATCH)
    return None if batches is None else BATCH * batches


def examples_for(parts: Parts, seeds: int, gain: float) -> int | None:
    """How many test examples prove this gain with probability 0.8 with so many seeds, to 2 %; None where no number does."""
    least = (limit(Interval(0.0, 0.0, 0.0, math.sqrt(parts.shared + parts.own / seeds))) / gain) ** 2
    shares = first(lambda shares: Design(parts.on(least * shares / FINE), seeds).power(gain) >= POWER, MOST_SHARES)
    return None if shares is None else math.ceil(least * shares / FINE)


def pilot_of(
    right0: NDArray[np.bool_],
    right1: NDArray[np.bool_],
    *,
    epsilon: float,
    test_examples: int,
    member_seconds: float,
    effect: float,
    price_per_hour: float | None,
    screening_members: int,
    finalists: int,
    confirm_seeds: int | None,
    most_confirm_seeds: int,
) -> Pilot:
    """What two pairs of members say about the sweep that is to come.

    `right0` and `right1` say whether each held-out example is classified correctly at ε = 0 and at `epsilon`, by (seed, example), seeds paired.
    `finalists` is how many candidates will be confirmed beside ε = 0. Where `confirm_seeds` is None, it is the fewest which find a gain of
    `effect` or come within 10 % of what any number of them could find: a multiple of 4, at most `most_confirm_seeds`.

    `discordance` and `disagreement` are as counted; the deviations are drawn towards what is usual (`Parts.of`). Members are those of pilot,
    screening and confirmation, were all planned seeds used. Errors: ValueError where there are not two seeds of the same examples.
    """
    if right0.shape != right1.shape or right0.ndim != 2 or right0.shape[0] != 2 or right0.shape[1] < 2:
        raise ValueError(f"the pilot's members are of shapes {right0.shape} and {right1.shape}; wanted twice (2 seeds, examples)")
    differences = right1.astype(np.float64) - right0
    parts = Parts.of(differences)
    error = parts.on(test_examples)
    chosen = confirm_seeds or min(seeds_for(error, max(effect, NEAR * limit(error))) or most_confirm_seeds, most_confirm_seeds)
    needed = seeds_for(error, effect)

    def members(seeds: int) -> int:
        return 2 * len(right0) + screening_members + (finalists + 1) * seeds

    def hours(count: int) -> float:
        return count * member_seconds / 3600

    def price(count: int) -> float | None:
        return None if price_per_hour is None else hours(count) * price_per_hour

    return Pilot(
        epsilon=epsilon,
        seeds=right0.shape[0],
        examples=right0.shape[1],
        discordance=float(np.abs(differences).mean()),
        disagreement=float((right0[0] != right0[1]).mean()),
        example_deviation=math.sqrt(parts.shared),
        seed_deviation=error.seeds,
        test_examples=test_examples,
        member_seconds=member_seconds,
        effect=effect,
        confirm_seeds=chosen,
        detectable=Design(error, chosen).detectable(),
        seeds_needed=needed,
        examples_needed=examples_for(parts, chosen, effect),
        members=members(chosen),
        hours=hours(members(chosen)),
        price=price(members(chosen)),
        members_needed=None if needed is None else members(needed),
        hours_needed=None if needed is None else hours(members(needed)),
        price_needed=None if needed is None else price(members(needed)),
    )


def sentences(pilot: Pilot) -> tuple[str, ...]:
    """What the pilot found, for a terminal, the answer first: what the sweep can tell, what it cannot, and what it costs."""
    told = [
        f"This sweep can detect a gain in accuracy of {points(pilot.detectable)} or more (power 0.8, {pilot.confirm_seeds} fresh seeds, "
        f"{count(pilot.test_examples)} test examples)."
    ]
    effect = points(pilot.effect)
    if pilot.detectable <= pilot.effect:
        told.append(f"That is enough for the smallest gain of interest, {effect}.")
    else:
        told.append(f"It cannot resolve {effect}, the smallest gain of interest: {remedy(pilot)}.")
    told.append(f"As planned: {cost(pilot.members, pilot.hours, pilot.price)}.")
    if pilot.detectable > pilot.effect and pilot.members_needed is not None and pilot.hours_needed is not None:
        told.append(f"To resolve {effect}: {cost(pilot.members_needed, pilot.hours_needed, pilot.price_needed)}.")
    told.append(
        f"This rests on {pilot.seeds} pairs of members, ε = 0 and {pilot.epsilon:g}, and {count(pilot.examples)} held-out examples: on "
        f"{100 * pilot.discordance:.1f} % of them just one of a pair is right, and on {100 * pilot.disagreement:.1f} % just one of two seeds at ε = 0."
    )
    return tuple(told)


def remedy(pilot: Pilot) -> str:
    """What would resolve the smallest gain of interest."""
    seeds, examples = pilot.seeds_needed, pilot.examples_needed
    wanted = "" if examples is None else f"about {count(examples)} test examples with {pilot.confirm_seeds} seeds"
    if seeds is not None:
        return f"that takes {count(seeds)} fresh seeds" + (f", or {wanted}" if wanted else "")
    enough = f"no number of seeds is enough with {count(pilot.test_examples)} test examples"
    return f"{enough}; it takes {wanted}" if wanted else f"{enough}, and no number of examples with {pilot.confirm_seeds} seeds"


def cost(members: int, hours: float, price: float | None) -> str:
    """Members, hours and price in words."""
    took = f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes" if hours >= 1 / 60 else "less than a minute"
    return f"{members} members, {took}" + ("" if price is None else f", at a price of {price:.2f}")


def points(share: float) -> str:
    """A share in percentage points."""
    return f"{100 * share:.2f} pp"


def count(number: int) -> str:
    """A whole number, thousands apart."""
    return f"{number:,}".replace(",", " ")
